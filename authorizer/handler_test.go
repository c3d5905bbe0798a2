package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/lambdacontext"
	golangjwt "github.com/golang-jwt/jwt/v5"

	"zuplo-lambda-authorizer/internal/config"
	"zuplo-lambda-authorizer/internal/issuer"
	"zuplo-lambda-authorizer/internal/jwt"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// signers has one private key for each kind of key. They are made once, for RSA keys are slow to make.
var signers = sync.OnceValue(func() map[string]crypto.Signer {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	must(err)
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	keys := map[string]crypto.Signer{"Ed": ed, "RS": rs, "PS": rs}
	for alg, curve := range map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()} {
		keys[alg], err = ecdsa.GenerateKey(curve, rand.Reader)
		must(err)
	}
	return keys
})

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func signer(alg string) crypto.Signer {
	if s := signers()[alg]; s != nil {
		return s
	}
	return signers()[alg[:2]]
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// keySet publishes the key of each algorithm under a kid of that name.
var keySet = sync.OnceValue(func() string {
	var all []map[string]string
	for _, alg := range jwt.Algorithms {
		k := map[string]string{"kid": alg}
		switch p := signer(alg).Public().(type) {
		case ed25519.PublicKey:
			k["kty"], k["crv"], k["x"] = "OKP", "Ed25519", b64(p)
		case *rsa.PublicKey:
			k["kty"], k["n"], k["e"] = "RSA", b64(p.N.Bytes()), "AQAB"
		case *ecdsa.PublicKey:
			point, err := p.Bytes() // 4, x, y
			must(err)
			half := (len(point) - 1) / 2
			k["kty"], k["crv"], k["x"], k["y"] = "EC", p.Params().Name, b64(point[1:1+half]), b64(point[1+half:])
		}
		all = append(all, k)
	}
	text, err := json.Marshal(map[string]any{"keys": all})
	must(err)
	return string(text)
})

// sign returns an Authorization value; header and payload stand in it byte for byte.
func sign(alg, header, payload string) string {
	signed := b64([]byte(header)) + "." + b64([]byte(payload))
	signature, err := golangjwt.GetSigningMethod(alg).Sign(signed, signer(alg))
	must(err)
	return "Bearer " + signed + "." + b64(signature)
}

func event(authorization string) []byte {
	text, err := json.Marshal(map[string]string{
		"type": "TOKEN", "authorizationToken": authorization,
		"methodArn": "arn:aws:execute-api:us-east-1:123456789012:abc/prod/GET/protected",
	})
	must(err)
	return text
}

// A stand is an authorizer with an issuer that answers with the key set, unless serve is replaced.
type stand struct {
	*authorizer
	issuer string
	env    map[string]string // its settings
	log    *syncBuffer
	time   time.Duration // of an invocation
	ahead  atomic.Int64  // what the clock shows beyond now
	mu     sync.Mutex
	asked  int
	serve  http.HandlerFunc
}

// A syncBuffer is a log that fetches, too, write to.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *syncBuffer) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.b.Reset()
}

func newStand(t testing.TB, env map[string]string) *stand {
	t.Helper()
	s := &stand{time: 5 * time.Second, log: &syncBuffer{}, serve: func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, keySet()) }}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked++
		serve := s.serve
		s.mu.Unlock()
		serve(w, r)
	}))
	t.Cleanup(func() {
		srv.CloseClientConnections() // a request that hangs would hold Close up
		srv.Close()
	})
	s.issuer, s.env = srv.URL, map[string]string{"ISSUER": srv.URL, "AUDIENCE": "us"}
	maps.Copy(s.env, env)
	c, err := config.Read(func(name string) string { return s.env[name] })
	if err != nil {
		t.Fatal(err)
	}
	s.authorizer = newAuthorizer(c, s.log, func() time.Time { return now.Add(time.Duration(s.ahead.Load())) })
	return s
}

func (s *stand) claims(more string) string {
	return fmt.Sprintf(`{"iss":%q,"aud":"us","sub":"caller-canary","exp":%d,"iat":%d,"secret":"claim-canary"%s}`, s.issuer, now.Unix()+60, now.Unix()-10, more)
}

// invoke returns the answer and the decision's line, of which there must be one.
func (s *stand) invoke(t testing.TB, payload []byte) (answer []byte, line map[string]any, err error) {
	t.Helper()
	s.log.Reset()
	ctx, cancel := context.WithTimeout(lambdacontext.NewContext(t.Context(), &lambdacontext.LambdaContext{AwsRequestID: "request-1"}), s.time)
	defer cancel()
	answer, err = s.Invoke(ctx, payload)
	for text := range strings.Lines(s.log.String()) {
		var l map[string]any
		if json.Unmarshal([]byte(text), &l) != nil {
			t.Errorf("a line that is no JSON: %s", text)
		}
		if l["msg"] == "decision" {
			if line != nil {
				t.Error("two decisions are logged")
			}
			line = l
		}
	}
	if line["request_id"] != "request-1" || line["duration_us"] == nil || line["time"] == nil {
		t.Errorf("the decision's line lacks something: %v", line)
	}
	if strings.Contains(s.log.String(), "canary") {
		t.Errorf("a claim's value is in the log: %s", s.log)
	}
	return answer, line, err
}

func TestAllow(t *testing.T) {
	t.Parallel()
	for _, alg := range jwt.Algorithms {
		t.Run(alg, func(t *testing.T) {
			t.Parallel()
			s := newStand(t, nil)
			payload := s.claims(`,"n":12345678901234567890,"list":["é",{"a":null}],"none":null`)
			got, line, err := s.invoke(t, event(sign(alg, `{"alg":"`+alg+`","kid":"`+alg+`"}`, payload)))
			if err != nil {
				t.Fatal(err, s.log)
			}
			var answer struct {
				PrincipalID    string
				PolicyDocument json.RawMessage
				Context        map[string]string
			}
			if err := json.Unmarshal(got, &answer); err != nil {
				t.Fatal(err)
			}
			const policy = `{"Version":"2012-10-17","Statement":[{"Action":"execute-api:Invoke","Effect":"Allow",` +
				`"Resource":"arn:aws:execute-api:us-east-1:123456789012:abc/prod/*",` +
				`"Condition":{"DateLessThan":{"aws:CurrentTime":"2026-11-24T12:01:30Z"}}}]}`
			if answer.PrincipalID != "caller-canary" || string(answer.PolicyDocument) != policy {
				t.Errorf("%s, %s", answer.PrincipalID, answer.PolicyDocument)
			}
			if c := answer.Context; c["claims"] != payload || c["n"] != "12345678901234567890" || c["list"] != `["é",{"a":null}]` || c["sub"] != "caller-canary" {
				t.Errorf("context %v", c)
			}
			want := map[string]any{"verdict": "allow", "level": "INFO", "issuer": s.issuer, "alg": alg, "kid": alg, "keys_age_s": 0.0}
			for name, value := range want {
				if line[name] != value {
					t.Errorf("%s is %v in the log, want %v", name, line[name], value)
				}
			}
			if line["reason"] != nil || line["detail"] != nil || line["error"] != nil {
				t.Errorf("log %v", line)
			}
			s.explain(t, "rest token", "GET/protected", sign(alg, `{"alg":"`+alg+`","kid":"`+alg+`"}`, payload), line)
		})
	}
}

func TestSettingsOfTheAnswer(t *testing.T) {
	t.Parallel()
	s := newStand(t, map[string]string{"POLICY_EXPIRY": "off", "PRINCIPAL_CLAIM": "client"})
	for more, principal := range map[string]string{`,"client":"c-1"`: "c-1", `,"client":7`: s.issuer} {
		got, _, err := s.invoke(t, event(sign("EdDSA", `{"alg":"EdDSA","kid":"EdDSA"}`, s.claims(more))))
		if err != nil || bytes.Contains(got, []byte("Condition")) || !bytes.HasPrefix(got, []byte(`{"principalId":"`+principal+`",`)) {
			t.Errorf("%s: %s, %v", more, got, err)
		}
	}
}

func TestReject(t *testing.T) {
	t.Parallel()
	const header = `{"alg":"EdDSA","kid":"EdDSA"}`
	swap := func(old, new string) func(string) string {
		return func(claims string) string { return strings.Replace(claims, old, new, 1) }
	}
	for _, c := range []struct {
		name, header string
		claims       func(string) string
		reason       string   // and the detail, if any
		log          []string // members that the line has besides
		env          map[string]string
	}{
		{"malformed", `{"alg":"EdDSA","kid":"EdDSA","crit":[]}`, nil, "malformed crit", []string{"alg", "kid"}, nil},
		{"a token of 9 KB", header, swap(`"sub"`, `"filler":"`+strings.Repeat("x", 9000)+`","sub"`), "malformed size", nil, nil},
		{"typ", `{"alg":"EdDSA","kid":"EdDSA","typ":"JOSE"}`, nil, "malformed typ", []string{"alg", "kid"}, nil},
		{"algorithm", `{"alg":"HS256","kid":"EdDSA"}`, nil, "algorithm", []string{"kid"}, nil},
		{"algorithm that is not accepted", header, nil, "algorithm", []string{"kid"}, map[string]string{"ALGORITHMS": "RS256"}},
		{"no kid", `{"alg":"EdDSA"}`, nil, "kid", []string{"alg"}, nil},
		{"issuer", header, swap(`"iss":"http`, `"iss":"canary`), "issuer", []string{"alg", "kid"}, nil},
		{"issuer with a slash", header, swap(`","aud"`, `/","aud"`), "issuer trailing_slash", []string{"alg", "kid"}, nil},
		{"expired", header, swap(`"exp":`, `"exp":1,"was":`), "expired", []string{"alg", "kid", "issuer"}, nil},
		{"unknown key", `{"alg":"EdDSA","kid":"other"}`, nil, "unknown_key", []string{"alg", "kid", "issuer", "keys_age_s"}, nil},
		{"key of another algorithm", `{"alg":"EdDSA","kid":"RS256"}`, nil, "key", []string{"alg", "kid", "issuer", "keys_age_s"}, nil},
		{"not yet valid", header, swap(`"sub"`, `"nbf":9e9,"sub"`), "not_yet_valid", []string{"alg", "kid", "issuer", "keys_age_s"}, nil},
		{"audience", header, swap(`"us"`, `"canary"`), "audience", []string{"alg", "kid", "issuer", "keys_age_s"}, nil},
		{"audience in another case", header, swap(`"us"`, `"US"`), "audience case", []string{"alg", "kid", "issuer", "keys_age_s"}, nil},
		{"no audience", header, swap(`"aud"`, `"canary"`), "audience absent", []string{"alg", "kid", "issuer", "keys_age_s"}, nil},
		{"too old", header, nil, "too_old", []string{"alg", "kid", "issuer", "keys_age_s"}, map[string]string{"MAX_TOKEN_AGE": "1s", "LEEWAY": "0"}},
		{"signature", header, nil, "signature", []string{"alg", "kid", "issuer", "keys_age_s"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			env := map[string]string{"LOG_LEVEL": "ERROR"} // decisions are logged all the same
			for name, value := range c.env {
				env[name] = value
			}
			s := newStand(t, env)
			claims := s.claims("")
			if c.claims != nil {
				claims = c.claims(claims)
			}
			token := sign("EdDSA", c.header, claims)
			if c.name == "signature" {
				token = token[:len(token)-86] + strings.Repeat("A", 86)
			}
			for kind, api := range doors {
				answer, line, err := s.invoke(t, knock(kind, "GET/protected", token))
				got := line["reason"]
				if detail, ok := line["detail"]; ok {
					got = fmt.Sprint(got, " ", detail)
				}
				if line["verdict"] != "reject" || got != c.reason || line["error"] != nil || line["api"] != api {
					t.Errorf("%s: log %v, want %s", kind, line, c.reason)
				}
				// An error is not cached, a policy is: none where time may cure what is wrong.
				if api == "http" && c.reason != "not_yet_valid" && c.reason != "unknown_key" {
					const denial = `{"principalId":"rejected","policyDocument":{"Version":"2012-10-17","Statement":[` +
						`{"Action":"execute-api:Invoke","Effect":"Deny","Resource":"` + stageARN + `*"}]}}`
					if err != nil || string(answer) != denial || line["answer"] != "policy" {
						t.Errorf("%s: %s, %v, log %v", kind, answer, err, line)
					}
				} else if err == nil || err.Error() != "Unauthorized" || answer != nil || line["answer"] != "error" {
					t.Errorf("%s: %s, %v, log %v", kind, answer, err, line)
				}
				for _, name := range []string{"alg", "kid", "issuer", "keys_age_s"} {
					if _, ok := line[name]; ok != (strings.Contains(" "+strings.Join(c.log, " ")+" ", " "+name+" ")) {
						t.Errorf("%s: %s in the log: %v", kind, name, line[name])
					}
				}
				if strings.Contains(s.log.String(), token[20:60]) {
					t.Errorf("%s: the token is in the log", kind)
				}
				s.explain(t, kind, "GET/protected", token, line)
			}
		})
	}
}

func TestKidInTheLog(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	for kid, want := range map[string]string{
		strings.Repeat("é", 64): strings.Repeat("é", 64), strings.Repeat("é", 65): strings.Repeat("é", 64), "a\\nb": "a\nb",
	} {
		_, line, _ := s.invoke(t, event(sign("EdDSA", `{"alg":"EdDSA","kid":"`+kid+`"}`, s.claims(""))))
		if line["kid"] != want {
			t.Errorf("kid %q, want %q", line["kid"], want)
		}
	}
}

func TestFault(t *testing.T) {
	t.Parallel()
	hang := func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for _, c := range []struct {
		name  string
		event func(good string) []byte
		serve http.HandlerFunc
		error string
	}{
		{"not an event", func(string) []byte { return []byte(`{"canary"`) }, nil, "reading the event"},
		{"an event of another service", func(string) []byte { return []byte(`{"Records":[{"eventSource":"aws:sqs","body":"canary"}]}`) }, nil, "attach this function to an authorizer"},
		{"an ARN with a wildcard", func(good string) []byte { return bytes.Replace(event(good), []byte("abc/prod"), []byte("abc/*"), 1) }, nil, "the event's ARN"},
		{"an answer cached for another header", func(good string) []byte {
			return bytes.Replace(knock("http 2.0", "GET/x", good), []byte(`"identitySource":["`+good), []byte(`"identitySource":["canary`), 1)
		}, nil, "only identity source"},
		{"the issuer is down", nil, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, "status 503"},
		{"the issuer hangs", nil, hang, "in time"},
	} {
		kinds := slices.Collect(maps.Keys(doors))
		if c.event != nil {
			kinds = []string{"event"}
		}
		for _, kind := range kinds {
			t.Run(c.name+", "+kind, func(t *testing.T) {
				t.Parallel()
				s := newStand(t, nil)
				if c.serve != nil {
					s.serve, s.time = c.serve, 400*time.Millisecond
				}
				good := sign("EdDSA", `{"alg":"EdDSA","kid":"EdDSA"}`, s.claims(""))
				payload := knock(kind, "GET/x", good)
				if c.event != nil {
					payload = c.event(good)
				}
				answer, line, err := s.invoke(t, payload)
				if c.event == nil && c.error != "in time" { // explain waits for longer than this
					s.explain(t, kind, "GET/x", good, line)
				}
				if answer != nil || err == nil || strings.Contains(err.Error(), "Unauthorized") || !strings.Contains(err.Error(), c.error) || strings.Contains(err.Error(), "canary") {
					t.Errorf("%s, %v, want %s", answer, err, c.error)
				}
				if line["verdict"] != "fault" || line["level"] != "ERROR" || line["error"] != err.Error() || line["reason"] != nil || line["stack"] != nil || line["answer"] != "error" {
					t.Errorf("log %v", line)
				}
			})
		}
	}
}

// broken is a KeySource that panics: what a bug of ours would do.
type broken struct{}

func (broken) Keys(context.Context, string, string) ([]func(signed, signature []byte) bool, bool, error) {
	panic("canary")
}
func (broken) Age() (time.Duration, bool) { return 0, false }

func TestPanic(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	good := s.verifier.Issuers[s.issuer]
	payload := event(sign("EdDSA", `{"alg":"EdDSA","kid":"EdDSA"}`, s.claims("")))
	s.verifier.Issuers[s.issuer] = jwt.Trusted{Keys: broken{}}
	answer, line, err := s.invoke(t, payload)
	if answer != nil || err == nil || err.Error() != "panic of type string while deciding" {
		t.Errorf("%s, %v", answer, err)
	}
	if stack, _ := line["stack"].(string); line["verdict"] != "fault" || !strings.Contains(stack, "Keys") {
		t.Errorf("log %v", line)
	}
	s.verifier.Issuers[s.issuer] = good
	if _, _, err := s.invoke(t, payload); err != nil {
		t.Errorf("after the panic: %v", err)
	}
}

func TestWarm(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	other := newStand(t, nil)
	asked, both := new(atomic.Int32), make(chan struct{})
	for _, i := range []*stand{s, other} {
		i.serve = func(w http.ResponseWriter, r *http.Request) {
			if asked.Add(1) == 2 {
				close(both)
			}
			select { // answers once both are asked
			case <-both:
			case <-r.Context().Done():
			}
			io.WriteString(w, keySet())
		}
	}
	a := newStand(t, map[string]string{"ISSUER": s.issuer + "," + other.issuer})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	a.warm(ctx)
	for _, i := range []*stand{s, other} {
		if _, _, err := a.invoke(t, event(sign("EdDSA", `{"alg":"EdDSA","kid":"EdDSA"}`, i.claims("")))); err != nil || i.asked != 1 {
			t.Errorf("%v after %d requests", err, i.asked)
		}
	}

	// An issuer that fails is not fatal.
	s.serve = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }
	s.authorizer.warm(ctx)
	if _, line, err := s.invoke(t, event(sign("EdDSA", `{"alg":"EdDSA","kid":"EdDSA"}`, s.claims("")))); err == nil || line["verdict"] != "fault" {
		t.Errorf("%v, %v", err, line)
	}
}

func TestOldKeysServeInAnOutage(t *testing.T) {
	t.Parallel()
	s := newStand(t, map[string]string{"JWKS_TTL": "1m", "JWKS_MAX_STALE": "1h"})
	payload := event(sign("EdDSA", `{"alg":"EdDSA","kid":"EdDSA"}`, strings.Replace(s.claims(""), `"exp":`, `"exp":9e9,"was":`, 1)))
	s.warm(t.Context())
	s.serve = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }
	for after, verdict := range map[time.Duration]string{time.Hour: "allow", time.Hour + 1: "fault"} {
		s.ahead.Store(int64(after))
		if _, line, _ := s.invoke(t, payload); line["verdict"] != verdict || line["keys_age_s"] != 3600.0 {
			t.Errorf("after %v: %v, want %s with keys of an hour", after, line, verdict)
		}
	}
}

func TestWarningAboutTheAudience(t *testing.T) {
	t.Parallel()
	if s := newStand(t, nil); s.log.String() != "" {
		t.Errorf("log %s", s.log)
	}
	s := newStand(t, map[string]string{"AUDIENCE": ""})
	if !strings.Contains(s.log.String(), `"level":"WARN","msg":"no audience is set`) {
		t.Errorf("log %s", s.log)
	}
	if _, _, err := s.invoke(t, event(sign("EdDSA", `{"alg":"EdDSA","kid":"EdDSA"}`, s.claims("")))); err != nil {
		t.Error(err)
	}
	if s := newStand(t, map[string]string{"AUDIENCE": "", "LOG_LEVEL": "ERROR"}); s.log.String() != "" {
		t.Errorf("at LOG_LEVEL=ERROR: log %s", s.log)
	}
}

func TestPinnedKeysAreNeverFetched(t *testing.T) {
	t.Parallel()
	s := newStand(t, map[string]string{"JWKS": keySet()})
	s.warm(t.Context())
	answer, line, err := s.invoke(t, event(sign("ES256", `{"alg":"ES256","kid":"ES256"}`, s.claims(""))))
	if err != nil || answer == nil || s.asked != 0 || line["keys_age_s"] != nil {
		t.Errorf("%s, %v, %d requests, log %v", answer, err, s.asked, line)
	}
}

// Many an issuer publishes a key for encryption beside the one that signs, and the runbook has operators pin a copy of its set.
func TestKeyForEncryptionBesideTheOneThatSigns(t *testing.T) {
	t.Parallel()
	set := strings.Replace(keySet(), "[", `[{"kty":"RSA","kid":"encryption","use":"enc","alg":"RSA-OAEP","n":"AQ","e":"AQAB"},`, 1)
	for name, env := range map[string]map[string]string{"fetched": nil, "pinned": {"JWKS": set}} {
		s := newStand(t, env)
		s.serve = func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, set) }
		from := `"uri":"` + s.issuer + `/.well-known/jwks.json"`
		if env != nil {
			from = `"issuer":"` + s.issuer + `"`
		}
		s.warm(t.Context())
		want := `"level":"WARN","msg":"key skipped",` + from + `,"kty":"RSA","kid":"encryption","why":"its use is not sig"`
		if log := s.log.String(); strings.Count(log, want) != 1 || strings.Count(log, "skipped") != 1 {
			t.Errorf("%s: the log lacks %s once: %s", name, want, log)
		}
		if _, line, err := s.invoke(t, event(sign("RS256", `{"alg":"RS256","kid":"RS256"}`, s.claims("")))); err != nil {
			t.Errorf("%s: %v, log %v", name, err, line)
		}
	}
}

// A kid whose key was skipped is known: no fetch, and no word of the token's alg.
func TestKeyThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	set := strings.Replace(keySet(), "[", `[{"kty":"EC","crv":"P-256","kid":"short","x":"`+b64(make([]byte, 31))+`","y":"`+b64(make([]byte, 32))+`"},`, 1)
	s.serve = func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, set) }
	s.warm(t.Context())
	if log, want := s.log.String(), `"kid":"short","why":"its x has 31 bytes, P-256 has 32 (RFC 7518 §6.2.1.2)"`; !strings.Contains(log, want) {
		t.Errorf("the log lacks %s: %s", want, log)
	}
	_, line, err := s.invoke(t, event(sign("ES256", `{"alg":"ES256","kid":"short"}`, s.claims(""))))
	if err != config.ErrUnauthorized || line["reason"] != "key" || line["alg"] != "ES256" || s.asked != 1 {
		t.Errorf("%v after %d requests, log %v", err, s.asked, line)
	}
}

func TestDropRejections(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := log.New(dropRejections{&out}, "", log.LstdFlags)
	l.Print(`{"errorMessage":"Unauthorized","errorType":"errorString"}`)
	if out.Len() > 0 {
		t.Errorf("%s", &out)
	}
	l.Print(`{"errorMessage":"keys of https://i.example: status 503"}`)
	if !strings.Contains(out.String(), "503") {
		t.Errorf("%q", &out)
	}
}

func TestStart(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	for _, c := range []struct {
		env   map[string]string
		lines []string
		asked int // requests to the issuer
	}{
		{map[string]string{"ISSUER": s.issuer, "AUDIENCE": "us"}, []string{`"level":"INFO","msg":"start","version":"` + version + `"}`, `"msg":"fetch"`}, 1},
		{map[string]string{"ISSUER": s.issuer, "LEEWAY": "1h", "LOG_LEVEL": "x"}, []string{
			`"level":"ERROR","msg":"reading the configuration","error":"LEEWAY: `,
			`"level":"ERROR","msg":"reading the configuration","error":"LOG_LEVEL: `}, 0},
	} {
		s.asked = 0
		var log bytes.Buffer
		a, err := start(t.Context(), func(name string) string { return c.env[name] }, &log, time.Now)
		if good := c.asked > 0; (a != nil) != good || (err == nil) != good || s.asked != c.asked {
			t.Errorf("%v: %v after %d requests", c.env, err, s.asked)
		}
		lines := slices.Collect(strings.Lines(log.String()))
		if len(lines) != len(c.lines) {
			t.Fatalf("%v: the log is %s", c.env, &log)
		}
		for n, want := range c.lines {
			if !strings.Contains(lines[n], want) {
				t.Errorf("line %d is %s, want %s", n, lines[n], want)
			}
		}
	}
}

// A bad configuration ends the process with a line for every mistake, and no answer.
func TestMain(m *testing.M) {
	if os.Getenv("AUTHORIZER_MAIN") != "" {
		main()
		os.Exit(0)
	}
	status := m.Run()
	if dir, err := explainer(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(status)
}

func TestBadConfigurationEndsTheProcess(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	must(err)
	c := exec.CommandContext(t.Context(), self)
	c.Env = []string{"AUTHORIZER_MAIN=1", "LEEWAY=1h", "LOG_LEVEL=x", "GOCOVERDIR=" + t.TempDir()}
	out, err := c.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || len(exit.Stderr) > 0 { // aws-lambda-go would complain there
		t.Errorf("it ended with %v", err)
	}
	for _, name := range []string{"ISSUER", "LEEWAY", "LOG_LEVEL"} {
		if !strings.Contains(string(out), `"level":"ERROR","msg":"reading the configuration","error":"`+name+`: `) {
			t.Errorf("%s is not named in %s", name, out)
		}
	}
}

const version = issuer.Version // where an issuer is a URL

// The process asks for keys before it asks for work, and answers: the Lambda Runtime API as a function sees it.
func TestProcess(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	must(err)
	var warm atomic.Bool
	var asked atomic.Int32
	answers := make(chan string, 1)
	srv := httptest.NewUnstartedServer(nil)
	issuer := "http://" + srv.Listener.Addr().String()
	srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/.well-known/jwks.json":
			warm.Store(true)
			io.WriteString(w, keySet())
		case strings.HasSuffix(r.URL.Path, "/invocation/next"):
			n := asked.Add(1)
			if n > 2 {
				<-r.Context().Done() // no more work
				return
			}
			if !warm.Load() {
				t.Error("it asks for work without keys")
			}
			w.Header().Set("Lambda-Runtime-Aws-Request-Id", fmt.Sprint("request-", n))
			w.Header().Set("Lambda-Runtime-Deadline-Ms", fmt.Sprint(time.Now().Add(time.Minute).UnixMilli()))
			if n == 1 {
				w.Write(event(sign("EdDSA", `{"alg":"EdDSA","kid":"EdDSA"}`, fmt.Sprintf(`{"iss":%q,"exp":1}`, issuer))))
			} else {
				io.WriteString(w, "{}")
			}
		default:
			body, _ := io.ReadAll(r.Body)
			w.WriteHeader(http.StatusAccepted)
			answers <- r.URL.Path + " " + string(body)
		}
	})
	srv.Start()
	defer srv.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, self)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	c.Env = []string{"AUTHORIZER_MAIN=1", "ISSUER=" + issuer, "AWS_LAMBDA_RUNTIME_API=" + srv.Listener.Addr().String(), "GOCOVERDIR=" + t.TempDir()}
	must(c.Start())
	for _, want := range []string{`/request-1/error {"errorMessage":"Unauthorized","errorType":"errorString"}`, `/request-2/error {"errorMessage":"reading the event: `} {
		select {
		case got := <-answers:
			if !strings.Contains(got, want) {
				t.Errorf("it answers %s, want %s", got, want)
			}
		case <-ctx.Done():
			t.Errorf("it does not answer %s", want)
		}
	}
	cancel()
	_ = c.Wait() // killed
	if !strings.Contains(out.String(), `"level":"INFO","msg":"start","version":"`+version+`"}`) {
		t.Errorf("it does not log its version: %s", &out)
	}
	if !strings.Contains(out.String(), `"verdict":"reject"`) || strings.Contains(errs.String(), "Unauthorized") || !strings.Contains(errs.String(), "reading the event") {
		t.Errorf("its logs are %s and %s", &out, &errs)
	}
}

// manyTokens are distinct, as those of a gateway that signs a fresh one for each request.
func manyTokens(s *stand) (tokens []string) {
	for n := range 1000 {
		tokens = append(tokens, sign("EdDSA", `{"alg":"EdDSA","kid":"EdDSA","typ":"JWT"}`, s.claims(fmt.Sprintf(`,"jti":"%d"`, n))))
	}
	return tokens
}

// BenchmarkDecision takes a token from the header's text to its claims, by keys of a real set.
func BenchmarkDecision(b *testing.B) {
	s := newStand(b, map[string]string{"JWKS": keySet()})
	tokens := manyTokens(s)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if _, err := s.verifier.Verify(b.Context(), tokens[n%len(tokens)]); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEd25519 verifies the same tokens' signatures and does nothing else.
func BenchmarkEd25519(b *testing.B) {
	s := newStand(b, map[string]string{"JWKS": keySet()})
	public := signer("EdDSA").Public().(ed25519.PublicKey)
	type parts struct{ signed, signature []byte }
	var all []parts
	for _, token := range manyTokens(s) {
		token = strings.TrimPrefix(token, "Bearer ")
		dot := strings.LastIndexByte(token, '.')
		signature, err := base64.RawURLEncoding.DecodeString(token[dot+1:])
		must(err)
		all = append(all, parts{[]byte(token[:dot]), signature})
	}
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if p := all[n%len(all)]; !ed25519.Verify(public, p.signed, p.signature) {
			b.Fatal("it does not verify")
		}
	}
}

// BenchmarkInvoke takes an event to the answer, log line included.
func BenchmarkInvoke(b *testing.B) { benchmarkInvoke(b, "") }

// BenchmarkInvokeRules does so with 20 rules, half of which are met.
func BenchmarkInvokeRules(b *testing.B) {
	var rules []string
	for n := range 20 {
		rules = append(rules, fmt.Sprintf(`{"routes":["GET /r%d","GET /r%d/*"],"claims":{"aud":["us","u%d"],"sub":[%q]}}`, n, n, n, []string{"caller-canary", "other"}[n%2]))
	}
	benchmarkInvoke(b, "["+strings.Join(append(rules, `{"routes":["GET /protected"]}`)[1:], ",")+"]")
}

func benchmarkInvoke(b *testing.B, rules string) {
	s := newStand(b, map[string]string{"JWKS": keySet(), "RULES": rules})
	var events [][]byte
	for _, token := range manyTokens(s) {
		events = append(events, event(token))
	}
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if _, err := s.Invoke(b.Context(), events[n%len(events)]); err != nil {
			b.Fatal(err)
		}
		s.log.Reset()
	}
}
