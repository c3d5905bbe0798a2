package apigw

import (
	"bytes"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// All is the route that stands for all of a stage.
const All = "*"

// maxSocketAnswer is what a WebSocket API takes, in bytes.
const maxSocketAnswer = 8 << 10

// A Policy says what a token may do, for every route for which API Gateway may serve it from its cache. Routes are as they
// stand in a Resource behind the stage.
type Policy struct {
	Allow, Deny []string // Deny wins; where nothing is allowed, everything is denied
	Expires     *float64 // seconds since 1970 from which a cached policy allows nothing; nil: no such condition
	// Only are the routes besides which everything is denied explicitly, and Expires as well: for APIs with a resource policy
	// that allows. Nil: what is not allowed is left out.
	Only []string
}

// Claims are a verified token's, for the backend.
type Claims struct {
	Principal string
	JSON      []byte                            // as signed
	Encoded   string                            // the same in base64url, as it stands in the token
	Members   iter.Seq2[string, jsontext.Value] // of JSON; names are unique
}

// Append appends the answer that allows what p does. The context is what this kind of API can carry:
//
//   - a REST or WebSocket API: the JSON as claims, and each claim under its own name, arrays and objects as JSON text;
//   - an HTTP API: the payload as jwt_payload, and scalar claims that need no escapes, because JSON text in a context becomes a
//     500 there when the answer is served from the cache.
//
// All are strings, which API Gateway passes on anyway; it fails the request for any array, object or null. Without a
// policy's rules an answer stays below 32 KiB for any token of at most 8 KiB. It is an error if a WebSocket API cannot carry
// even the claims alone.
func (r Request) Append(b []byte, p Policy, c Claims) ([]byte, error) {
	start := len(b)
	b = append(b, `{"principalId":`...)
	b = appendString(b, c.Principal)
	b = append(b, `,"policyDocument":`...)
	b = r.appendPolicy(b, p)
	http := r.Kind.API() == "http"
	if http {
		b = append(b, `,"context":{"jwt_payload":`...)
		b = appendString(b, c.Encoded)
	} else {
		b = append(b, `,"context":{"claims":`...)
		b = appendString(b, string(c.JSON))
	}
	bare := len(b)
	for name, value := range c.Members {
		if !contextName(name) || value.Kind() == 'n' {
			continue
		}
		var text string
		if http {
			var ok bool
			if text, ok = plain(value); !ok {
				continue
			}
		}
		b = append(b, ',')
		b = appendString(b, name)
		b = append(b, ':')
		switch {
		case http:
			b = appendString(b, text)
		case value.Kind() == '"':
			b = append(b, value...)
		default:
			b = appendString(b, string(value))
		}
	}
	b = append(b, "}}"...)
	if r.Kind == WebSocket && len(b)-start > maxSocketAnswer {
		b = append(b[:bare], "}}"...)
		if n := len(b) - start; n > maxSocketAnswer {
			return nil, fmt.Errorf("answering: %d bytes without the claims under their own names, a WebSocket API takes %d: ask for fewer claims", n, maxSocketAnswer)
		}
	}
	return b, nil
}

// AppendDenial appends an answer that denies everything, which API Gateway caches like any other. Whom it is for nobody knows.
func (r Request) AppendDenial(b []byte) []byte {
	b = append(b, `{"principalId":"rejected","policyDocument":`...)
	b = r.appendPolicy(b, Policy{})
	return append(b, '}')
}

func (r Request) appendPolicy(b []byte, p Policy) []byte {
	b = append(b, `{"Version":"2012-10-17","Statement":[`...)
	if len(p.Allow) == 0 {
		b = r.appendStatement(b, "Deny", "Resource", []string{All})
		return append(b, `}]}`...)
	}
	b = r.appendStatement(b, "Allow", "Resource", p.Allow)
	if p.Expires != nil {
		b = appendTime(b, "DateLessThan", *p.Expires)
	}
	if len(p.Deny) > 0 {
		b = r.appendStatement(append(b, `},`...), "Deny", "Resource", p.Deny)
	}
	if len(p.Only) > 0 && !slices.Contains(p.Only, All) {
		b = r.appendStatement(append(b, `},`...), "Deny", "NotResource", p.Only)
	}
	if len(p.Only) > 0 && p.Expires != nil {
		b = r.appendStatement(append(b, `},`...), "Deny", "Resource", []string{All})
		b = appendTime(b, "DateGreaterThanEquals", *p.Expires)
	}
	return append(b, `}]}`...)
}

// appendStatement appends a statement without its end.
func (r Request) appendStatement(b []byte, effect, member string, routes []string) []byte {
	b = append(b, `{"Action":"execute-api:Invoke","Effect":"`...)
	b = append(b, effect...)
	b = append(b, `","`...)
	b = append(b, member...)
	b = append(b, `":`...)
	if len(routes) > 1 {
		b = append(b, '[')
	}
	start := len(b)
	b = appendString(b, r.Stage)
	b = b[:len(b)-1]
	stage := b[start:] // each Resource begins with it
	for i, route := range routes {
		if i > 0 {
			b = append(append(b, ','), stage...)
		}
		end := len(b)
		b = appendString(b, route)
		b = append(b[:end], b[end+1:]...) // without the quote that begins it
	}
	if len(routes) > 1 {
		b = append(b, ']')
	}
	return b
}

func appendTime(b []byte, operator string, seconds float64) []byte {
	b = append(b, `,"Condition":{"`...)
	b = append(b, operator...)
	b = append(b, `":{"aws:CurrentTime":"`...)
	b = currentTime(seconds).AppendFormat(b, "2006-01-02T15:04:05Z")
	return append(b, `"}}`...)
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

// plain returns a scalar's text if it stands in JSON as it is: without quotes, backslashes and control characters.
func plain(v jsontext.Value) (text string, ok bool) {
	switch v.Kind() {
	case '{', '[':
		return "", false
	case '"':
		unquoted, err := jsontext.AppendUnquote(nil, v)
		return string(unquoted), err == nil && !bytes.ContainsFunc(unquoted, func(r rune) bool { return r < ' ' || r == '"' || r == '\\' })
	}
	return string(v), true
}

// reserved are names that API Gateway or this package gives to something else: the answer's principal, the variables
// $context.authorizer.NAME that access logs read, the claims as signed, and the payload.
var reserved = []string{
	"principalId", "integrationLatency", "integrationStatus", "requestId", "status", "latency", "error", "claims", "jwt_payload",
}

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
