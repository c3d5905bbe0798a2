// Package apigw speaks Amazon API Gateway's shapes for a REST API with a Lambda authorizer: the TOKEN
// event in, the policy and its context out, and that context as the backend sees it.
package apigw

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// A TokenEvent is what API Gateway asks a TOKEN authorizer
// (API Gateway Developer Guide, "Input to an API Gateway Lambda authorizer").
type TokenEvent struct {
	Type               string `json:"type"`
	AuthorizationToken string `json:"authorizationToken"`
	MethodARN          string `json:"methodArn"`
}

// ParseTokenEvent reads a TOKEN event. Its errors never quote the event, for the token is in it.
func ParseTokenEvent(payload []byte) (e TokenEvent, err error) {
	if json.Unmarshal(payload, &e) != nil {
		return TokenEvent{}, errors.New("reading the event: not a JSON object with the members of a TOKEN event")
	}
	if e.Type != "TOKEN" {
		return TokenEvent{}, errors.New("reading the event: its type is not TOKEN; set the authorizer's type to TOKEN in API Gateway")
	}
	return e, nil
}

// No part may hold a wildcard: it would widen the policy made from it.
var methodARN = regexp.MustCompile(`(?s)\A(arn:aws[a-z-]*:execute-api:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9]+/[A-Za-z0-9_-]+)/[A-Z]+(?:/.*)?\z`)

// StageResource returns the resource ARN of all routes of the stage that a methodArn belongs to:
// arn:{partition}:execute-api:{region}:{account}:{api}/{stage}/*. API Gateway caches one policy per token for
// all of them.
func StageResource(arn string) (string, error) {
	const maxMethodARN, maxResource = 1600, 512 // bytes and characters (API Gateway quotas)
	if len(arn) > maxMethodARN {
		return "", fmt.Errorf("reading the event's methodArn: %d bytes, at most %d are possible", len(arn), maxMethodARN)
	}
	m := methodARN.FindStringSubmatch(arn)
	if m == nil {
		return "", errors.New("reading the event's methodArn: not of the form arn:aws:execute-api:REGION:ACCOUNT:API/STAGE/METHOD/path")
	}
	resource := m[1] + "/*"
	if len(resource) > maxResource {
		return "", fmt.Errorf("reading the event's methodArn: its stage's resource has %d characters, a policy takes %d", len(resource), maxResource)
	}
	return resource, nil
}

// An Allow is a positive answer.
type Allow struct {
	Principal string
	Resource  string                            // see StageResource
	Expires   *float64                          // seconds since 1970 after which a cached policy allows nothing; nil: no such condition
	Payload   []byte                            // the claims' JSON as signed
	Claims    iter.Seq2[string, jsontext.Value] // its members; names are unique
}

// AppendTo appends the answer as API Gateway takes it, below 32 KiB for any token of at most 8 KiB.
// Scalar claims stand in the context under their own names, arrays and objects as JSON text, everything as a
// string: API Gateway passes strings on anyway, and fails the request for any array, object or null.
func (a Allow) AppendTo(b []byte) []byte {
	b = append(b, `{"principalId":`...)
	b = appendString(b, a.Principal)
	b = append(b, `,"policyDocument":{"Version":"2012-10-17","Statement":[{"Action":"execute-api:Invoke","Effect":"Allow","Resource":`...)
	b = appendString(b, a.Resource)
	if a.Expires != nil {
		b = append(b, `,"Condition":{"DateLessThan":{"aws:CurrentTime":"`...)
		b = currentTime(*a.Expires).AppendFormat(b, "2006-01-02T15:04:05Z")
		b = append(b, `"}}`...)
	}
	b = append(b, `}]},"context":{"claims":`...)
	b = appendString(b, string(a.Payload))
	for name, value := range a.Claims {
		if !contextName(name) || value.Kind() == 'n' {
			continue
		}
		b = append(b, ',')
		b = appendString(b, name)
		b = append(b, ':')
		if value.Kind() == '"' {
			b = append(b, value...)
		} else {
			b = appendString(b, string(value))
		}
	}
	return append(b, "}}"...)
}

// appendString appends a JSON string. The text is valid UTF-8, as everything here was parsed strictly; if
// it were not, the replacement character stands in.
func appendString(b []byte, s string) []byte {
	b, _ = jsontext.AppendQuote(b, s)
	return b
}

// currentTime rounds up to a second, within the years that ISO 8601 writes with four digits.
func currentTime(seconds float64) time.Time {
	const last = 253402300799 // 9999-12-31T23:59:59Z
	return time.Unix(int64(math.Ceil(min(max(seconds, 0), last))), 0).UTC()
}

// reserved are names that API Gateway or this package gives to something else: the answer's principal, the variables
// $context.authorizer.NAME that access logs read, and the claims as signed.
var reserved = []string{"principalId", "integrationLatency", "integrationStatus", "requestId", "status", "latency", "error", "claims"}

// contextName reports whether a claim may stand in the context under its own name.
func contextName(name string) bool {
	if name == "" || len(name) > 256 || slices.Contains(reserved, name) {
		return false
	}
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("_.:/-", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// A ProxyEvent is the part of a Lambda proxy event that a backend behind the authorizer needs.
type ProxyEvent struct {
	HTTPMethod     string `json:"httpMethod"`
	Path           string `json:"path"`     // as the caller sent it, a custom domain's base path included
	Resource       string `json:"resource"` // the route's path in the API
	RequestContext struct {
		RequestID  string                     `json:"requestId"`
		Authorizer map[string]json.RawMessage `json:"authorizer"`
	} `json:"requestContext"`
}

// Claims returns the claims' JSON that the authorizer put into the request's context, byte for byte as
// signed. Without them the route has no authorizer, or not this one.
func (e *ProxyEvent) Claims() (claims string, ok bool) {
	_ = json.Unmarshal(e.RequestContext.Authorizer["claims"], &claims) // which leaves them empty when they are no string
	return claims, claims != ""
}
