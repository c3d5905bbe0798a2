// Command events writes the event files of this folder: an event for each verdict and shape, with tokens that stay valid
// until 2100, and env.json with the settings that go with them.
//
// The keys are new each time. Their private halves are not kept.
package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	issuer    = "https://issuer.example/__zuplo/issuer"
	audience  = "aws-origin"
	requestID = "00000000-0000-4000-8000-000000000000"
	api       = "arn:aws:execute-api:us-east-1:123456789012:abcdef1234"
	stage     = api + "/prod"
)

var (
	algorithms = []string{"EdDSA", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"}
	in2100     = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	issuedAt   = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

type object = map[string]any

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: go run ./events FOLDER")
	}
	for name, content := range all() {
		text, err := json.MarshalIndent(content, "", "  ")
		if err == nil {
			err = os.WriteFile(filepath.Join(os.Args[1], name+".json"), append(text, '\n'), 0o644)
		}
		if err != nil {
			log.Fatalf("writing %s: %v", name, err)
		}
	}
}

// all returns the files' contents by name.
func all() map[string]any {
	keys := newKeys()
	files := map[string]any{"env": object{"AuthorizerFunction": object{
		"ISSUER": issuer, "AUDIENCE": audience, "JWKS": keys.set(), "MAX_TOKEN_AGE": "876000h", "JWKS_TABLE": "",
	}}}
	for _, alg := range algorithms {
		files["allow-"+strings.ToLower(alg)] = tokenEvent(keys.token(alg, nil, object{"sub": "consumer-" + alg, "plan": "gold", "n": json.Number("12345678901234567890")}))
	}

	good := keys.token("EdDSA", nil, nil)
	dot := strings.LastIndexByte(good, '.')
	for reason, token := range map[string]string{
		"malformed-crit": keys.token("EdDSA", object{"crit": []string{"exp"}}, nil),
		"algorithm":      keys.token("EdDSA", object{"alg": "none"}, nil),
		"kid":            keys.token("EdDSA", object{"kid": nil}, nil),
		"issuer":         keys.token("EdDSA", nil, object{"iss": "https://other.example"}),
		"expired":        keys.token("EdDSA", nil, object{"exp": issuedAt.Unix()}),
		"not_yet_valid":  keys.token("EdDSA", nil, object{"nbf": in2100.Unix() - 1}),
		"audience":       keys.token("EdDSA", nil, object{"aud": "another-upstream"}),
		"key":            keys.token("EdDSA", object{"kid": kid("RS256")}, nil),
		"unknown_key":    keys.token("EdDSA", object{"kid": "withdrawn"}, nil),
		"signature":      good[:dot+1] + strings.Repeat("A", len(good)-dot-1),
		"too_old":        keys.token("EdDSA", nil, object{"iat": nil}),
	} {
		files["reject-"+reason] = tokenEvent(token)
	}
	files["reject-malformed-form"] = object{"type": "TOKEN", "authorizationToken": "", "methodArn": stage + "/GET/protected"}
	expired := keys.token("EdDSA", nil, object{"exp": issuedAt.Unix()})
	for kind, event := range kinds {
		files["allow-eddsa-"+kind] = event("Bearer " + keys.token("EdDSA", nil, object{"sub": "consumer-EdDSA", "plan": "gold"}))
		files["reject-expired-"+kind] = event("Bearer " + expired)
	}
	other := http2Event("Bearer " + good)
	other["identitySource"] = []string{"203.0.113.9"}
	files["fault-identity-source"] = other
	files["fault-other-service"] = object{"Records": []object{{"eventSource": "aws:sqs", "messageId": "1", "body": "{}"}}}
	files["fault-method-arn"] = object{"type": "TOKEN", "authorizationToken": "Bearer " + good, "methodArn": "arn:aws:execute-api:us-east-1:123456789012:abcdef1234"}

	claims := object{"principalId": "consumer", "claims": `{"sub":"consumer","n":12345678901234567890,"list":[1,{"é":null}]}`}
	files["protected-200"] = proxyEvent("GET", "/protected", claims)
	files["protected-401-no-authorizer"] = proxyEvent("GET", "/protected", nil)
	files["protected-404"] = proxyEvent("GET", "/elsewhere", claims)
	files["protected-405"] = proxyEvent("POST", "/protected", claims)
	payload := object{"sub": "consumer", "jwt_payload": b64([]byte(`{"sub":"consumer","n":12345678901234567890}`))}
	files["protected-200-http1"] = asHTTP1(proxyEvent("GET", "/protected", payload))
	files["protected-200-http2"] = proxyEvent2("GET", "/protected", object{"lambda": payload})
	files["protected-401-no-authorizer-http2"] = proxyEvent2("GET", "/protected", nil)
	return files
}

// kinds make events of an authorizer that gets the whole request, of each API that has such a one. TOKEN events make the rest.
var kinds = map[string]func(authorization string) object{
	"request": requestEvent, "http1": http1Event, "http2": http2Event, "websocket": webSocketEvent,
}

func requestEvent(authorization string) object {
	return object{
		"type": "REQUEST", "methodArn": stage + "/GET/protected", "resource": "/protected", "path": "/protected", "httpMethod": "GET",
		"headers":               object{"Accept": "*/*", "Authorization": authorization},
		"multiValueHeaders":     object{"Accept": []string{"*/*"}, "Authorization": []string{authorization}},
		"queryStringParameters": object{}, "pathParameters": object{}, "stageVariables": object{},
		"requestContext": object{"apiId": "abcdef1234", "stage": "prod", "httpMethod": "GET", "resourcePath": "/protected", "requestId": requestID},
	}
}

func http1Event(authorization string) object {
	e := asHTTP1(requestEvent(authorization))
	e["methodArn"], e["identitySource"], e["authorizationToken"] = api+"/$default/GET/protected", authorization, authorization
	return e
}

func http2Event(authorization string) object {
	return object{
		"version": "2.0", "type": "REQUEST", "routeArn": api + "/$default/GET/protected", "identitySource": []string{authorization},
		"routeKey": "GET /protected", "rawPath": "/protected", "rawQueryString": "", "headers": object{"accept": "*/*", "authorization": authorization},
		"requestContext": http2Context("GET", "/protected"), "pathParameters": nil, "stageVariables": nil,
	}
}

func webSocketEvent(authorization string) object {
	e := requestEvent(authorization)
	for _, name := range []string{"resource", "path", "httpMethod", "pathParameters"} {
		delete(e, name)
	}
	e["methodArn"] = stage + "/$connect"
	e["requestContext"] = object{"apiId": "abcdef1234", "stage": "prod", "routeKey": "$connect", "eventType": "CONNECT", "connectionId": "L0SM9cOFvHcCIhw=", "requestId": requestID}
	return e
}

// asHTTP1 makes an event of a REST API one of an HTTP API in payload format 1.0.
func asHTTP1(event object) object {
	event["version"] = "1.0"
	return event
}

func http2Context(method, path string) object {
	return object{
		"apiId": "abcdef1234", "stage": "$default", "routeKey": method + " " + path, "requestId": requestID,
		"http": object{"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "203.0.113.9", "userAgent": "curl"},
	}
}

func proxyEvent2(method, path string, authorizer object) object {
	context := http2Context(method, path)
	if authorizer != nil {
		context["authorizer"] = authorizer
	}
	return object{
		"version": "2.0", "routeKey": method + " " + path, "rawPath": path, "rawQueryString": "", "headers": object{"accept": "*/*"},
		"requestContext": context, "isBase64Encoded": false,
	}
}

func tokenEvent(token string) object {
	return object{"type": "TOKEN", "authorizationToken": "Bearer " + token, "methodArn": stage + "/GET/protected"}
}

func proxyEvent(method, path string, authorizer object) object {
	return object{
		"resource": path, "path": path, "httpMethod": method, "headers": object{"Accept": "*/*"}, "queryStringParameters": nil, "body": nil, "isBase64Encoded": false,
		"requestContext": object{"requestId": requestID, "stage": "prod", "httpMethod": method, "resourcePath": path, "authorizer": authorizer},
	}
}

// keys are the private keys by algorithm, which is their kid, too.
type keys map[string]crypto.Signer

func newKeys() keys {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	check(err)
	k := keys{"EdDSA": ed}
	for alg, curve := range map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()} {
		k[alg], err = ecdsa.GenerateKey(curve, rand.Reader)
		check(err)
	}
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	check(err)
	for _, alg := range algorithms {
		if k[alg] == nil {
			k[alg] = r
		}
	}
	return k
}

// kid names a key: all RSA algorithms share one.
func kid(alg string) string {
	if strings.HasPrefix(alg, "RS") || strings.HasPrefix(alg, "PS") {
		return "test-rsa"
	}
	return "test-" + strings.ToLower(alg)
}

// set is the JWKS, as text (RFC 7517).
func (k keys) set() string {
	byKid := map[string]object{}
	for alg, private := range k {
		jwk := object{"kid": kid(alg), "use": "sig"}
		switch public := private.Public().(type) {
		case ed25519.PublicKey:
			jwk["kty"], jwk["crv"], jwk["x"] = "OKP", "Ed25519", b64(public)
		case *ecdsa.PublicKey:
			point, err := public.Bytes() // 4, x, y (SEC 1 §2.3.3)
			check(err)
			half := len(point) / 2
			jwk["kty"], jwk["crv"], jwk["x"], jwk["y"] = "EC", public.Params().Name, b64(point[1:1+half]), b64(point[1+half:])
		case *rsa.PublicKey:
			jwk["kty"], jwk["n"], jwk["e"] = "RSA", b64(public.N.Bytes()), "AQAB"
		}
		byKid[kid(alg)] = jwk
	}
	list := []object{}
	for _, alg := range []string{"EdDSA", "RS256", "ES256", "ES384", "ES512"} {
		list = append(list, byKid[kid(alg)])
	}
	text, err := json.Marshal(object{"keys": list})
	check(err)
	return string(text)
}

// token signs a good token, except for the members given; nil removes one.
func (k keys) token(alg string, header, claims object) string {
	h := with(object{"alg": alg, "kid": kid(alg), "typ": "JWT"}, header)
	c := with(object{"iss": issuer, "aud": audience, "sub": "consumer", "iat": issuedAt.Unix(), "exp": in2100.Unix()}, claims)
	signed := h + "." + c
	signature, err := jwt.GetSigningMethod(alg).Sign(signed, k[alg])
	check(err)
	return signed + "." + b64(signature)
}

// with returns the object as base64url.
func with(members, others object) string {
	maps.Copy(members, others)
	maps.DeleteFunc(members, func(_ string, value any) bool { return value == nil })
	text, err := json.Marshal(members)
	check(err)
	return b64(text)
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func check(err error) {
	if err != nil {
		log.Fatal(fmt.Errorf("making the events: %w", err))
	}
}
