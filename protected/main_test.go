package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"
)

func TestInvoke(t *testing.T) {
	t.Parallel()
	const claims = `{"n":12345678901234567890,"s":"é\u0000","deep":[{"a":null}],"n":1.0}`
	quoted, _ := json.Marshal(claims)
	authorizer := `{"principalId":"p","claims":` + string(quoted) + `}`
	event := func(method, path, authorizer string) string {
		return `{"httpMethod":"` + method + `","path":"` + path + `","resource":"` + path + `","requestContext":{"requestId":"r-1","authorizer":` + authorizer + `}}`
	}
	encoded := `{"sub":"x","jwt_payload":"` + base64.RawURLEncoding.EncodeToString([]byte(claims)) + `"}`
	event2 := func(method, route, path, authorizer string) string {
		return `{"version":"2.0","routeKey":"` + route + `","rawPath":"` + path + `","requestContext":{"requestId":"r-1","http":{"method":"` + method + `","path":"` + path + `"},"authorizer":` + authorizer + `}}`
	}
	for _, c := range []struct {
		name, event string
		status      int
		body        string // "": an error
		logged      bool
	}{
		{"the claims as signed", event("GET", "/protected", authorizer), 200, claims, false},
		{"behind a base path", strings.Replace(event("GET", "/protected", authorizer), `"path":"/protected"`, `"path":"/v1/protected"`, 1), 200, claims, false},
		{"behind a proxy resource", strings.Replace(event("GET", "/protected", authorizer), `"resource":"/protected"`, `"resource":"/{proxy+}"`, 1), 200, claims, false},
		{"other method", event("POST", "/protected", authorizer), 405, `{"message":"method not allowed"}`, false},
		{"other path", event("GET", "/other", authorizer), 404, `{"message":"not found"}`, false},
		{"other path and method", event("PUT", "/protected/", authorizer), 404, `{"message":"not found"}`, false},
		{"no authorizer", event("GET", "/protected", "null"), 401, `{"message":"Unauthorized"}`, true},
		{"another authorizer", event("GET", "/protected", `{"principalId":"p"}`), 401, `{"message":"Unauthorized"}`, true},
		{"claims that are no string", event("GET", "/protected", `{"claims":{"a":1}}`), 401, `{"message":"Unauthorized"}`, true},
		{"claims empty", event("GET", "/protected", `{"claims":""}`), 401, `{"message":"Unauthorized"}`, true},
		{"HTTP API, 1.0", strings.Replace(event("GET", "/protected", encoded), "{", `{"version":"1.0",`, 1), 200, claims, false},
		{"HTTP API, 1.0, no authorizer", event("GET", "/protected", "{}"), 401, `{"message":"Unauthorized"}`, true},
		{"HTTP API, 2.0", event2("GET", "GET /protected", "/protected", `{"lambda":`+encoded+`}`), 200, claims, false},
		{"HTTP API, 2.0, on a stage with a name", event2("GET", "ANY /protected", "/prod/protected", `{"lambda":`+encoded+`}`), 200, claims, false},
		{"HTTP API, 2.0, the $default route", event2("GET", "$default", "/protected", `{"lambda":`+encoded+`}`), 200, claims, false},
		{"HTTP API, 2.0, other method", event2("POST", "ANY /protected", "/protected", `{"lambda":`+encoded+`}`), 405, `{"message":"method not allowed"}`, false},
		{"HTTP API, 2.0, other path", event2("GET", "GET /other", "/other", `{"lambda":`+encoded+`}`), 404, `{"message":"not found"}`, false},
		{"HTTP API, 2.0, no authorizer", event2("GET", "GET /protected", "/protected", "null"), 401, `{"message":"Unauthorized"}`, true},
		{"HTTP API, 2.0, no context", event2("GET", "GET /protected", "/protected", `{"lambda":null}`), 401, `{"message":"Unauthorized"}`, true},
		{"HTTP API, 2.0, its own authorizer", event2("GET", "GET /protected", "/protected", `{"jwt":{"claims":{"sub":"x"},"scopes":null}}`), 401, `{"message":"Unauthorized"}`, true},
		{"not an event", `{"a":1}`, 0, "", false},
		{"not JSON", `x`, 0, "", false},
		{"null", `null`, 0, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			got, err := newHandler(&log).Invoke(t.Context(), []byte(c.event))
			if (log.Len() > 0) != c.logged || c.logged && !(strings.Contains(log.String(), "no authorizer") && strings.Contains(log.String(), `"request_id":"r-1"`)) {
				t.Errorf("log %s", &log)
			}
			if c.body == "" {
				if err == nil || got != nil {
					t.Errorf("%s, %v", got, err)
				}
				return
			}
			var answer events.APIGatewayProxyResponse
			if err != nil || json.Unmarshal(got, &answer) != nil {
				t.Fatalf("%s, %v", got, err)
			}
			if answer.StatusCode != c.status || answer.Body != c.body || answer.IsBase64Encoded {
				t.Errorf("%d %s, want %d %s", answer.StatusCode, answer.Body, c.status, c.body)
			}
			allow := ""
			if c.status == 405 {
				allow = "GET"
			}
			h := answer.Headers
			if h["Content-Type"] != "application/json" || h["Cache-Control"] != "no-store" || h["Allow"] != allow {
				t.Errorf("headers %v", h)
			}
		})
	}
}
