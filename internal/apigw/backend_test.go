package apigw

import (
	"strings"
	"testing"
)

func TestProxyEvents(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"rest", "http1", "http2"} {
		event := fixture(t, "proxy/"+name)
		e, ok := ParseProxyEvent([]byte(event))
		if !ok || e.Method != "GET" || e.Path != "/v1/orders/7" || e.Route != "/orders/{id}" || e.RequestID != "r-1" {
			t.Errorf("%s: %+v, %v", name, e, ok)
		}
		if claims, ok := e.Claims(); !ok || claims != `{"sub":"c-1","n":12345678901234567890}` {
			t.Errorf("%s: %s, %v", name, claims, ok)
		}
		for _, member := range []string{`"authorizer"`, `"claims"`, `"jwt_payload"`} {
			e, ok := ParseProxyEvent([]byte(strings.Replace(event, member, `"other"`, 1)))
			claims, found := e.Claims()
			if !ok || found && strings.Contains(event, member) {
				t.Errorf("%s without %s: %s, %v", name, member, claims, ok)
			}
		}
	}
	if e, ok := ParseProxyEvent([]byte(strings.ReplaceAll(fixture(t, "proxy/http2"), "GET /orders/{id}", "$default"))); !ok || e.Route != "" {
		t.Errorf("the $default route: %+v, %v", e, ok)
	}
	for _, other := range []string{``, `x`, `null`, `[]`, `{}`, `{"httpMethod":7}`, `{"requestContext":{"http":{}}}`, fixture(t, "other/s3"), fixture(t, "other/eventbridge"), fixture(t, "other/websocket-message")} {
		if e, ok := ParseProxyEvent([]byte(other)); ok {
			t.Errorf("%s is %+v", other, e)
		}
	}
}

// Only the context that this authorizer writes holds claims.
func TestProxyEventClaims(t *testing.T) {
	t.Parallel()
	for authorizer, want := range map[string]string{
		`{"claims":"{\"a\":12345678901234567890}"}`:         `{"a":12345678901234567890}`,
		`{"jwt_payload":"eyJhIjoxfQ"}`:                      `{"a":1}`,
		`{"lambda":{"jwt_payload":"eyJhIjoxfQ"}}`:           `{"a":1}`,
		`{"lambda":{"claims":"{}"}}`:                        `{}`,
		`{"claims":{"a":1}}`:                                "", // a Cognito authorizer's
		`{"jwt":{"claims":{"a":"1"},"scopes":null}}`:        "", // an HTTP API's own
		`{"lambda":"{\"claims\":\"x\"}"}`:                   "", // a claim of that name
		`{"Claims":"{}","CLAIMS":"{}","JWT_PAYLOAD":"e30"}`: "",
		`{"principalId":"x"}`:                               "",
		`{"claims":""}`:                                     "",
		`{"claims":null,"jwt_payload":null,"lambda":null}`:  "",
		`{"jwt_payload":""}`:                                "",
		`{"jwt_payload":"e30="}`:                            "",
		`{"jwt_payload":"*"}`:                               "",
		`{"lambda":[]}`:                                     "",
		`{"iam":{"accessKey":"x"}}`:                         "",
		`null`:                                              "",
		`{}`:                                                "",
	} {
		e, ok := ParseProxyEvent([]byte(`{"httpMethod":"GET","requestContext":{"authorizer":` + authorizer + `}}`))
		if !ok {
			t.Fatalf("%s is not read", authorizer)
		}
		if got, ok := e.Claims(); got != want || ok != (want != "") {
			t.Errorf("%s: %q, %v", authorizer, got, ok)
		}
	}
}
