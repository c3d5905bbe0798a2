package zuplo

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"zuplo-lambda-authorizer/local/journal"
)

// The page and the admin API are for this machine, by its own names, and for no other site's page in a browser here. The key set is
// for everybody.
func TestForeignRequests(t *testing.T) {
	t.Parallel()
	s := newStack(t, nil)
	host := strings.TrimPrefix(s.url, "http://")
	_, port, _ := strings.Cut(host, ":")
	const keySet = "GET /__zuplo/issuer/.well-known/jwks.json"
	for _, c := range []struct {
		host, header, value string
		allowed             bool
	}{
		{host, "", "", true},
		{"localhost:" + port, "", "", true},
		{"[::1]:" + port, "", "", true},
		{"evil.example:" + port, "", "", false},
		{"evil.example", "", "", false},
		{"127.0.0.1", "", "", false}, // another server's
		{"127.0.0.1:1", "", "", false},
		{"127.0.0.1.evil.example:" + port, "", "", false},
		{host, "Origin", "http://" + host, true},
		{host, "Origin", "http://evil.example", false},
		{host, "Origin", "http://127.0.0.1:1", false},
		{host, "Origin", "null", false},
		{host, "Sec-Fetch-Site", "same-origin", true},
		{host, "Sec-Fetch-Site", "none", true}, // typed into the browser
		{host, "Sec-Fetch-Site", "cross-site", false},
		{host, "Sec-Fetch-Site", "same-site", false},
	} {
		for _, what := range []string{"GET /", "GET /__admin/", "GET /__admin/state", "GET /__admin/requests", "POST /__admin/rotate", "POST /__admin/send", "POST /__admin/nothing", keySet} {
			method, path, _ := strings.Cut(what, " ")
			req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = c.host
			if c.header != "" {
				req.Header.Set(c.header, c.value)
			}
			res, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if refused := res.StatusCode == http.StatusForbidden; refused == (c.allowed || what == keySet) {
				t.Errorf("%s of %s with %s: %s is answered with %d", what, c.host, c.header, c.value, res.StatusCode)
			}
		}
	}
}

func TestPage(t *testing.T) {
	t.Parallel()
	s := newStack(t, nil)
	res, body := s.send("GET", "/", "", "")
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/html; charset=utf-8" || !strings.HasPrefix(body, "<!doctype html>") {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
	policy := res.Header.Get("Content-Security-Policy")
	for _, part := range []string{"default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'"} {
		if !strings.Contains(policy, part) {
			t.Errorf("the policy lacks %s: %s", part, policy)
		}
	}
	if lines := strings.Count(string(page), "\n"); lines >= 700 {
		t.Errorf("the page has %d lines, it may have 699", lines)
	}
	// The root of the API is still to be had, with a key.
	if res, _ := s.send("GET", "/", "Bearer key", ""); res.StatusCode != 418 {
		t.Errorf("%d with an API key", res.StatusCode)
	}
}

// The admin API lists its endpoints; a GET changes nothing, and what is wrong is answered with what would be right.
func TestAdminTells(t *testing.T) {
	t.Parallel()
	s := newStack(t, func(c *Config) { c.Local = &Local{Freeze: func(bool) {}, End: func() {}, Flush: func() {}} })
	_, text := s.send("GET", "/__admin/", "", "")
	var paths []string
	for _, e := range object(t, []byte(text))["endpoints"].([]any) {
		e := e.(map[string]any)
		path := e["path"].(string)
		if e["what"] == "" {
			t.Errorf("%s is not explained", path)
		}
		for member, means := range e["body"].(map[string]any) {
			if means == "" || strings.Contains(means.(string), "{") {
				t.Errorf("%s: %s is not explained: %s", path, member, means)
			}
		}
		if paths = append(paths, path); e["method"] == "POST" {
			if res, body := s.send("GET", path, "", ""); res.StatusCode != 404 || !strings.Contains(body, "GET /__admin/ lists what there is") {
				t.Errorf("GET %s: %d %s", path, res.StatusCode, body)
			}
		}
	}
	for _, name := range []string{"", "state", "requests", "counters", "send", "mint", "rotate", "withdraw", "jwks", "cut", "reset", "freeze", "environment", "flush"} {
		if !slices.Contains(paths, "/__admin/"+name) {
			t.Errorf("/__admin/%s is not listed", name)
		}
	}
	for _, c := range []struct{ path, body, want string }{
		{"jwks", `{"mode":"weird"}`, `no mode "weird", there are ok, 503, hang, slow, reset, redirect, huge, empty, garbage, html, no_keys, null_keys`},
		{"jwks", `{"mod":"503"}`, `its members: delay_ms, mode`},
		{"send", `{"tokens":"bad"}`, `its members: method, path, straight, token`},
		{"send", `{"method":"get"}`, `no method "get", there are DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT`},
		{"send", `{"path":"orders"}`, `"orders" is no path, as /protected`},
		{"rotate", `{"alg":"HS256"}`, `no algorithm "HS256"`},
	} {
		res, body := s.send("POST", "/__admin/"+c.path, "", c.body)
		if message, _ := object(t, []byte(body))["error"].(string); res.StatusCode != 400 || !strings.Contains(message, c.want) {
			t.Errorf("%s %s: %d %s, want %s", c.path, c.body, res.StatusCode, message, c.want)
		}
	}
}

// A request is sent as a caller would: by way of Zuplo with the API key, or straight to API Gateway; with the token that is given.
func TestSend(t *testing.T) {
	t.Parallel()
	s := newStack(t, nil)
	for _, c := range []struct{ body, hops, path, authorization string }{
		{`{}`, "[map[from:caller to:zuplo what:GET /protected, API key] map[from:zuplo to:gateway what:GET /prod/protected, Authorization with a JWT]]", "GET /prod/protected", "Bearer ey"},
		{`{"token":"a.b.c"}`, "[map[from:caller to:zuplo what:GET /protected, API key] map[from:zuplo to:gateway what:GET /prod/protected, Authorization with a JWT]]", "GET /prod/protected", "Bearer a.b.c"},
		{`{"token":"a.b.c","straight":true}`, "[map[from:caller to:gateway what:GET /prod/protected, Authorization with a JWT]]", "GET /prod/protected", "Bearer a.b.c"},
		{`{"straight":true,"method":"POST","path":"/orders/7?a=b"}`, "[map[from:caller to:gateway what:POST /prod/orders/7, no JWT]]", "POST /prod/orders/7?a=b", ""},
	} {
		answer := s.admin("send", c.body)
		up := s.upstream[len(s.upstream)-1]
		if got := up.Method + " " + up.URL.String(); got != c.path || !strings.HasPrefix(up.Header.Get("Authorization"), c.authorization) || c.authorization == "" && up.Header.Get("Authorization") != "" {
			t.Errorf("%s: API Gateway gets %s with %q", c.body, got, up.Header.Get("Authorization"))
		}
		if fmt.Sprint(answer["hops"]) != c.hops || answer["status"] != 418.0 || answer["body"] != "short and stout" {
			t.Errorf("%s: %v", c.body, answer)
		}
	}
}

// The token goes where the authorizer looks for it.
func TestTokenHeader(t *testing.T) {
	t.Parallel()
	for prefix, begins := range map[string]string{"": "Bearer ey", "Token": "Token ey", "none": "ey"} {
		s := newStack(t, func(c *Config) { c.Header, c.Prefix = "X-Token", prefix })
		s.send("GET", "/orders", "Bearer key", "")
		if h := s.upstream[0].Header; !strings.HasPrefix(h.Get("X-Token"), begins) || h.Get("Authorization") != "" {
			t.Errorf("prefix %q: %v", prefix, h)
		}
	}
}

func TestState(t *testing.T) {
	t.Parallel()
	did := map[string]any{}
	local := &Local{
		State:  func() (a, g map[string]any) { return map[string]any{"environments": 2}, map[string]any{"cached": 3} },
		Freeze: func(on bool) { did["freeze"] = on }, End: func() { did["environment"] = true }, Flush: func() { did["flush"] = true },
	}
	told := journal.New(io.Discard, "json")
	s := newStack(t, func(c *Config) {
		c.Local, c.Rules, c.Journal = local, json.RawMessage(`[{"routes":["GET /orders"]}]`), told
	})
	s.admin("rotate", "")
	s.admin("jwks", `{"mode":"slow","delay_ms":20}`)
	s.admin("freeze", `{"on":true}`)
	told.KeysSent(time.Now())
	s.admin("environment", "") // and its keys are gone with it
	s.admin("flush", "")
	if fmt.Sprint(did) != "map[environment:true flush:true freeze:true]" {
		t.Errorf("done: %v", did)
	}
	_, text := s.send("GET", "/__admin/state", "", "")
	state := object(t, []byte(text))
	issuer := state["issuer"].(map[string]any)
	keys := issuer["keys"].([]any)
	if fmt.Sprint(state["authorizer"], state["gateway"], state["rules"]) != "map[environments:2 keys_age_s:<nil> max_stale_s:0 ttl_s:0] map[cached:3] [map[routes:[GET /orders]]]" ||
		issuer["mode"] != "slow" || issuer["delay_ms"] != 20.0 || len(keys) != 11 || fmt.Sprint(keys[10]) != "map[alg:EdDSA kid:eddsa-2 published:true signing:true]" {
		t.Errorf("%s", text)
	}
	// What runs elsewhere cannot be frozen, ended or emptied from here.
	s = newStack(t, nil)
	if _, text := s.send("GET", "/__admin/state", "", ""); object(t, []byte(text))["authorizer"] != nil {
		t.Errorf("%s", text)
	}
	for _, name := range []string{"freeze", "environment", "flush"} {
		if res, _ := s.send("POST", "/__admin/"+name, "", ""); res.StatusCode != 404 {
			t.Errorf("%s: %d", name, res.StatusCode)
		}
	}
}

// A peer on another machine is refused even if it names the right host, as one behind a port that was forwarded would.
func TestForeignPeers(t *testing.T) {
	t.Parallel()
	for peer, allowed := range map[string]bool{"127.0.0.1:5000": true, "127.9.9.9:5000": true, "[::1]:5000": true, "192.0.2.1:5000": false, "[2001:db8::1]:5000": false, "": false} {
		r := httptest.NewRequest("GET", "http://localhost:9000/__admin/state", nil)
		r.RemoteAddr = peer
		if err := foreign(r); (err == nil) != allowed {
			t.Errorf("%q: %v", peer, err)
		}
	}
}
