package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"zuplo-lambda-authorizer/local/journal"
)

// stack is a gateway whose functions and clock belong to the test.
type stack struct {
	mu         sync.Mutex
	now        time.Time
	authorizer func(events.APIGatewayCustomAuthorizerRequest) (answer string, isError bool, err error)
	protected  func() (answer string, isError bool, err error)

	asked  []events.APIGatewayCustomAuthorizerRequest
	served []events.APIGatewayProxyRequest
	log    strings.Builder

	gateway *Gateway
	url     string
}

// newStack serves the template of testdata with changes: each text is followed by the one in its place.
func newStack(t *testing.T, changes ...string) *stack {
	t.Helper()
	api, err := Parse([]byte(strings.NewReplacer(changes...).Replace(readTemplate(t))), nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &stack{now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
	s.authorizer = func(events.APIGatewayCustomAuthorizerRequest) (string, bool, error) { return goodAnswer, false, nil }
	s.protected = func() (string, bool, error) { return `{"statusCode":200,"body":"{}"}`, false, nil }
	g, err := New(Config{
		API: api,
		Functions: map[string]Invoke{
			"AuthorizerFunction": func(_ context.Context, event []byte) ([]byte, bool, error) {
				var e events.APIGatewayCustomAuthorizerRequest
				if err := json.Unmarshal(event, &e); err != nil {
					t.Error(err)
				}
				s.asked = append(s.asked, e)
				answer, isError, err := s.authorizer(e)
				return []byte(answer), isError, err
			},
			"ProtectedFunction": func(_ context.Context, event []byte) ([]byte, bool, error) {
				var e events.APIGatewayProxyRequest
				if err := json.Unmarshal(event, &e); err != nil {
					t.Error(err)
				}
				s.served = append(s.served, e)
				answer, isError, err := s.protected()
				return []byte(answer), isError, err
			},
		},
		Now:     func() time.Time { s.mu.Lock(); defer s.mu.Unlock(); return s.now },
		Journal: journal.New(&s.log, "json"),
	})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(g)
	t.Cleanup(srv.Close)
	s.gateway, s.url = g, srv.URL
	return s
}

func (s *stack) pass(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = s.now.Add(d)
}

func (s *stack) send(t *testing.T, method, path, token string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, s.url+path, strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("X-Token", token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

func (s *stack) want(t *testing.T, method, path, token string, status int, body string) *http.Response {
	t.Helper()
	res, got := s.send(t, method, path, token)
	if res.StatusCode != status || got != body {
		t.Errorf("%s %s: %d %s, want %d %s", method, path, res.StatusCode, got, status, body)
	}
	return res
}

func TestAllow(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.authorizer = func(events.APIGatewayCustomAuthorizerRequest) (string, bool, error) {
		return strings.Replace(goodAnswer, `"context":{}`, `"context":{"sub":"me","n":1.0,"ok":true,"principalId":"forged"}`, 1), false, nil
	}
	s.protected = func() (string, bool, error) {
		return `{"statusCode":201,"headers":{"Cache-Control":"no-store"},"multiValueHeaders":{"X-Two":["a","b"]},` +
			`"body":"hi"}`, false, nil
	}
	res := s.want(t, "PUT", "/prod/protected?q=1&q=2", "abc", 201, "hi")
	if res.Header.Get("Cache-Control") != "no-store" || len(res.Header["X-Two"]) != 2 || res.Header.Get("Content-Type") != "application/json" {
		t.Errorf("headers %v", res.Header)
	}
	asked := events.APIGatewayCustomAuthorizerRequest{
		Type: "TOKEN", AuthorizationToken: "abc",
		MethodArn: "arn:aws:execute-api:us-east-1:123456789012:local12345/prod/PUT/protected",
	}
	if len(s.asked) != 1 || s.asked[0] != asked {
		t.Errorf("asked %+v, want %+v", s.asked, asked)
	}
	if len(s.served) != 1 {
		t.Fatalf("served %+v", s.served)
	}
	e := s.served[0]
	authorizer := map[string]any{"principalId": "p", "sub": "me", "n": "1.0", "ok": "true"}
	if !reflect.DeepEqual(e.RequestContext.Authorizer, authorizer) {
		t.Errorf("authorizer %v, want %v", e.RequestContext.Authorizer, authorizer)
	}
	if e.HTTPMethod != "PUT" || e.Path != "/protected" || e.Resource != "/protected" || e.Body != "body" || e.Headers["X-Token"] != "abc" {
		t.Errorf("event %+v", e)
	}
	if e.QueryStringParameters["q"] != "2" || len(e.MultiValueQueryStringParameters["q"]) != 2 {
		t.Errorf("query %v %v", e.QueryStringParameters, e.MultiValueQueryStringParameters)
	}
	if rc := e.RequestContext; rc.Stage != "prod" || rc.Path != "/prod/protected" || rc.RequestID != res.Header.Get("X-Amzn-Requestid") {
		t.Errorf("request context %+v", rc)
	}
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	tests := map[string]bool{"": false, "abc": true, "123": true, "ABC": false, "abc1": false, "1abc": false, "abc abc": false, "1 a": false}
	for token, passes := range tests {
		t.Run(token, func(t *testing.T) {
			t.Parallel()
			s := newStack(t)
			if passes {
				s.want(t, "GET", "/prod/protected", token, 200, "{}")
			} else {
				res := s.want(t, "GET", "/prod/protected", token, 401, `{"why":"no token"}`)
				if got := res.Header.Get("WWW-Authenticate"); got != `Bearer realm="api"` {
					t.Errorf("WWW-Authenticate %q", got)
				}
			}
			if called := len(s.asked) == 1; called != passes {
				t.Errorf("function called: %v, want %v", called, passes)
			}
		})
	}
}

func TestAuthorizerProblems(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		answer  string
		isError bool
		err     error
		status  int
		body    string
		header  string // Retry-After
		logged  string
	}{
		{"unauthorized", `{"errorMessage":"Unauthorized"}`, true, nil, 401, `{"why":"no token"}`, "", ""},
		{"in another case", `{"errorMessage":"unauthorized"}`, true, nil, 503, `{"message":null}`, "5", `{\"errorMessage\":\"unauthorized\"}`},
		{"more text", `{"errorMessage":"Unauthorized: x"}`, true, nil, 503, `{"message":null}`, "5", "Unauthorized: x"},
		{"time-out", `{"errorMessage":"Task timed out after 6.00 seconds"}`, true, nil, 503, `{"message":null}`, "5", "timed out"},
		{"error that is not JSON", `Unauthorized`, true, nil, 503, `{"message":null}`, "5", "AuthorizerFunction: Unauthorized"},
		{"not called", "", false, errors.New("no such file"), 503, `{"message":null}`, "5", "no such file"},
		{"malformed", `{}`, false, nil, 500, `{"message":null}`, "7", "AuthorizerFunction's answer: principalId"},
		{"context", strings.Replace(goodAnswer, `{}`, `{"a":[]}`, 1), false, nil, 500, `{"message":null}`, "7", `context value \"a\"`},
		{"unknown condition", strings.Replace(goodAnswer, `"Resource":"*"`, `"Resource":"*","Condition":{"Bool":{"a":"b"}}`, 1),
			false, nil, 500, `{"message":null}`, "7", `\"Bool\" within \"/policyDocument/Statement/0/Condition\"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStack(t)
			s.authorizer = func(events.APIGatewayCustomAuthorizerRequest) (string, bool, error) {
				return tt.answer, tt.isError, tt.err
			}
			for range 2 {
				res := s.want(t, "GET", "/prod/protected", "abc", tt.status, tt.body)
				if got := res.Header.Get("Retry-After"); got != tt.header {
					t.Errorf("Retry-After %q, want %q", got, tt.header)
				}
			}
			if len(s.asked) != 2 || len(s.served) != 0 {
				t.Errorf("asked %d times, want 2: errors are not cached; served %d", len(s.asked), len(s.served))
			}
			if got := s.log.String(); !strings.Contains(got, tt.logged) || tt.logged == "" && got != "" {
				t.Errorf("log %q, want %q in it", got, tt.logged)
			}
			s.authorizer = func(events.APIGatewayCustomAuthorizerRequest) (string, bool, error) { return goodAnswer, false, nil }
			s.want(t, "GET", "/prod/protected", "abc", 200, "{}")
		})
	}
}

func TestCache(t *testing.T) {
	t.Parallel()
	const denied = `{"message":"User is not authorized to access this resource"}`
	answers := map[string]string{
		"all":    goodAnswer,
		"get":    strings.Replace(goodAnswer, `"Resource":"*"`, `"Resource":"*/GET/*"`, 1),
		"deny":   strings.Replace(goodAnswer, `Allow`, `Deny`, 1),
		"until":  strings.Replace(goodAnswer, `"Resource":"*"`, `"Resource":"*","Condition":{"DateLessThan":{"aws:CurrentTime":"2026-11-24T12:00:30Z"}}`, 1),
		"second": goodAnswer,
	}
	type step struct {
		after         time.Duration
		method, token string
		status        int
		body          string
		asked         int // so far
	}
	tests := map[string][]step{
		"second method":     {{0, "GET", "all", 200, "{}", 1}, {0, "DELETE", "all", 200, "{}", 1}},
		"another token":     {{0, "GET", "all", 200, "{}", 1}, {0, "GET", "second", 200, "{}", 2}, {0, "GET", "all", 200, "{}", 2}},
		"judged anew":       {{0, "GET", "get", 200, "{}", 1}, {0, "POST", "get", 403, denied, 1}, {0, "GET", "get", 200, "{}", 1}},
		"deny":              {{0, "GET", "deny", 403, denied, 1}, {time.Second, "GET", "deny", 403, denied, 1}},
		"entry expires":     {{0, "GET", "all", 200, "{}", 1}, {59 * time.Second, "GET", "all", 200, "{}", 1}, {time.Second, "GET", "all", 200, "{}", 2}},
		"condition expires": {{0, "GET", "until", 200, "{}", 1}, {29 * time.Second, "GET", "until", 200, "{}", 1}, {time.Second, "GET", "until", 403, denied, 1}},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStack(t)
			s.authorizer = func(e events.APIGatewayCustomAuthorizerRequest) (string, bool, error) {
				return answers[e.AuthorizationToken], false, nil
			}
			for i, step := range steps {
				s.pass(step.after)
				s.want(t, step.method, "/prod/protected", step.token, step.status, step.body)
				if len(s.asked) != step.asked {
					t.Errorf("step %d: asked %d times, want %d", i, len(s.asked), step.asked)
				}
			}
		})
	}
}

func TestDefaultsOfIdentity(t *testing.T) {
	t.Parallel()
	s := newStack(t, "ValidationExpression: '[a-z]+|\\d+'", "", "Header: {Ref: TokenHeader}", "")
	for authorization, status := range map[string]int{"": 401, "A b": 200} {
		req, err := http.NewRequest("GET", s.url+"/prod/protected", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", authorization)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != status {
			t.Errorf("Authorization %q: %d, want %d", authorization, res.StatusCode, status)
		}
	}
}

func TestNoCacheWithoutTTL(t *testing.T) {
	t.Parallel()
	s := newStack(t, "Default: '60'", "Default: 0")
	for _, token := range []string{"abc", "abc", "abcd"} {
		s.want(t, "GET", "/prod/protected", token, 200, "{}")
	}
	if len(s.asked) != 3 || len(s.gateway.cache) > 1 {
		t.Errorf("asked %d times, want 3; %d entries, though none is good any longer", len(s.asked), len(s.gateway.cache))
	}
}

func TestUnknownRoutes(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	for _, path := range []string{"/", "/prod", "/prod/", "/prod/other", "/test/protected", "/protected", "/prodprotected", "/prod/protected/", "/prod//protected"} {
		s.want(t, "GET", path, "abc", 404, `{"message":"not found"}`)
	}
	s.want(t, "POST", "/prod/only", "abc", 404, `{"message":"not found"}`)
	if len(s.asked) != 0 {
		t.Errorf("asked the authorizer: %+v", s.asked)
	}
	s.want(t, "GET", "/prod/only", "abc", 200, "{}")
}

func TestMalformedReply(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, answer string
		isError      bool
		err          error
	}{
		{"function error", `{"errorMessage":"Unauthorized","statusCode":200}`, true, nil},
		{"not called", "", false, errors.New("no such file")},
		{"null", "null", false, nil},
		{"not JSON", "hi", false, nil},
		{"no status", `{"body":"hi"}`, false, nil},
		{"body is no string", `{"statusCode":200,"body":{}}`, false, nil},
		{"status is no number", `{"statusCode":"200"}`, false, nil},
		{"impossible status", `{"statusCode":42}`, false, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStack(t)
			s.protected = func() (string, bool, error) { return tt.answer, tt.isError, tt.err }
			s.want(t, "GET", "/prod/protected", "abc", 502, `{"message": "Internal server error"}`)
			if s.log.Len() == 0 {
				t.Error("nothing was logged")
			}
		})
	}
}

func TestNewNamesMissingFunctions(t *testing.T) {
	t.Parallel()
	api, err := Parse([]byte(readTemplate(t)), nil)
	if err != nil {
		t.Fatal(err)
	}
	never := func(context.Context, []byte) ([]byte, bool, error) { return nil, false, nil }
	for _, missing := range []string{"AuthorizerFunction", "ProtectedFunction"} {
		functions := map[string]Invoke{"AuthorizerFunction": never, "ProtectedFunction": never}
		delete(functions, missing)
		if _, err := New(Config{API: api, Functions: functions}); err == nil || !strings.Contains(err.Error(), missing) {
			t.Errorf("without %s: %v", missing, err)
		}
	}
}

// What the journal learns of a request: who answered, why, on which way, and whether the policy came from the cache.
func TestJournal(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	const (
		whole  = "caller>gateway gateway>authorizer gateway>protected"
		denies = `{"principalId":"p","policyDocument":{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*"}]}}`
	)
	for _, c := range []struct {
		name, path, token, answer string
		isError                   bool
		by, why, verdict, hops    string
		cached                    bool
	}{
		{"no token", "/protected", "", "", false, "gateway", "no Bearer JWT in X-Token; the authorizer was not asked", "", "caller>gateway", false},
		{"no route", "/nothing", "abc", "", false, "gateway", "no route of the API; the authorizer was not asked", "", "caller>gateway", false},
		{"allowed", "/protected", "abc", goodAnswer, false, "protected", "", "allow", whole, false},
		{"allowed again", "/protected", "abc", "", false, "protected", "", "allow", "caller>gateway gateway>protected", true},
		{"rejected", "/protected", "abd", `{"errorMessage":"Unauthorized"}`, true, "authorizer", "", "reject", "caller>gateway gateway>authorizer", false},
		{"a fault", "/protected", "abe", `{"errorMessage":"no keys"}`, true, "authorizer", `AuthorizerFunction: {"errorMessage":"no keys"}`, "fault", "caller>gateway gateway>authorizer", false},
		{"forbidden", "/protected", "abf", denies, false, "authorizer", "", "forbid", "caller>gateway gateway>authorizer", false},
		{"forbidden again", "/protected", "abf", "", false, "gateway", "the cached policy does not allow this route", "forbid", "caller>gateway", true},
	} {
		s.authorizer = func(events.APIGatewayCustomAuthorizerRequest) (string, bool, error) { return c.answer, c.isError, nil }
		s.send(t, "GET", "/prod"+c.path, c.token)
		q := s.gateway.Journal.Requests()[0]
		var hops []string
		for _, hop := range q.Hops {
			hops = append(hops, hop.From+">"+hop.To)
		}
		if way := strings.Join(hops, " "); q.Path != c.path || q.AnsweredBy != c.by || q.Why != c.why || q.Verdict != c.verdict || q.Cached != c.cached || way != c.hops {
			t.Errorf("%s: %s is answered by %q, because %q, verdict %q, cached %t, by way of %s", c.name, q.Path, q.AnsweredBy, q.Why, q.Verdict, q.Cached, way)
		}
		if hasPolicy := c.verdict == "allow" || c.verdict == "forbid"; (q.Policy != nil) != hasPolicy {
			t.Errorf("%s: policy %s", c.name, q.Policy)
		}
	}
}

func TestFlush(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.send(t, "GET", "/prod/protected", "abc")
	s.send(t, "GET", "/prod/protected", "abd")
	if n := s.gateway.Cached(); n != 2 {
		t.Errorf("%d answers in the cache, want 2", n)
	}
	s.gateway.Flush()
	if n := s.gateway.Cached(); n != 0 {
		t.Errorf("%d answers in the cache after it was emptied", n)
	}
	s.send(t, "GET", "/prod/protected", "abc")
	if len(s.asked) != 3 {
		t.Errorf("the authorizer was asked %d times, want 3", len(s.asked))
	}
}
