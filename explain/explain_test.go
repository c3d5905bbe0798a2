package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	golangjwt "github.com/golang-jwt/jwt/v5"
)

const iss = "https://shop-main-1a2b.zuplo.app/__zuplo/issuer"

var (
	private = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	set     = fmt.Sprintf(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k1","x":%q},{"kty":"OKP","crv":"Ed25519","kid":"short","x":"AAAA"}]}`,
		b64(string(private.Public().(ed25519.PublicKey))))
	noon = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
)

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func sign(header, payload string) string {
	signed := b64(header) + "." + b64(payload)
	signature, err := golangjwt.SigningMethodEdDSA.Sign(signed, private)
	if err != nil {
		panic(err)
	}
	return signed + "." + b64(string(signature))
}

const goodHeader = `{"alg":"EdDSA","kid":"k1","typ":"JWT"}`

// claims are good ones at noon, with more of them, or in the place of some.
func claims(more map[string]any) string {
	all := map[string]any{"iss": iss, "aud": "us", "sub": "caller", "exp": noon.Unix() + 60, "iat": noon.Unix() - 10}
	maps.Copy(all, more)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
	text, _ := json.Marshal(all)
	return string(text)
}

type m = map[string]any

// explained runs the command at noon, and checks what holds of every report.
func explained(t *testing.T, env map[string]string, input string, flags ...string) (r report) {
	t.Helper()
	all := map[string]string{"ISSUER": iss, "AUDIENCE": "us", "JWKS": set}
	maps.Copy(all, env)
	getenv := func(name string) string { return all[name] }
	var out, errs bytes.Buffer
	status := run(append([]string{"-json", "-at", noon.Format(time.RFC3339)}, flags...), strings.NewReader(input), &out, &errs, getenv)
	if errs.Len() > 0 {
		t.Fatalf("standard error: %s", &errs)
	}
	d := json.NewDecoder(&out)
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil || d.More() {
		t.Fatalf("not one JSON object: %v", err)
	}
	if want := map[verdict]int{allow: 0, reject: 1, forbid: 1, fault: 2}[r.Verdict]; status != want {
		t.Errorf("exit status %d for %s, want %d", status, r.Verdict, want)
	}
	var text bytes.Buffer
	if again := run(append([]string{"-at", noon.Format(time.RFC3339)}, flags...), strings.NewReader(input), &text, &errs, getenv); again != status {
		t.Errorf("exit status %d without -json, %d with it", again, status)
	}
	if i := strings.IndexFunc(text.String(), func(r rune) bool { return r < ' ' && r != '\n' || r >= 0x202a && r <= 0x202e || r == 0x7f }); i >= 0 {
		t.Errorf("a control character in the text: %q", text.String()[i:min(i+20, text.Len())])
	}
	if !strings.Contains(text.String(), "\nverdict  "+string(r.Verdict)) {
		t.Errorf("the text says another verdict than %s:\n%s", r.Verdict, &text)
	}
	return r
}

// failing are the checks that were not passed.
func failing(r report) (names []string) {
	for _, c := range r.Checks {
		if !c.OK {
			names = append(names, c.Check)
		}
	}
	return names
}

func hints(r report) string {
	var all []string
	for _, c := range r.Checks {
		if !c.OK {
			all = append(all, c.Hint)
		}
	}
	return strings.Join(all, "\n")
}

// The event files name the reason that the authorizer has.
func TestEventFiles(t *testing.T) {
	t.Parallel()
	kinds := map[string]string{"-request": "rest-request", "-http1": "http-1.0", "-http2": "http-2.0", "-websocket": "websocket"}
	n := 0
	for _, verdict := range []string{"allow", "reject"} {
		files, _ := filepath.Glob("../events/" + verdict + "-*.json")
		for _, file := range files {
			n++
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var event struct {
				AuthorizationToken string
				Headers            map[string]string
			}
			if err := json.Unmarshal(text, &event); err != nil {
				t.Fatal(err)
			}
			_, want, _ := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".json"), "-")
			kind, value := "rest-token", event.AuthorizationToken
			for end, of := range kinds {
				if rest, ok := strings.CutSuffix(want, end); ok {
					want, kind = rest, of
				}
			}
			for name, v := range event.Headers {
				if strings.EqualFold(name, "Authorization") {
					value = v
				}
			}
			r := explained(t, nil, value, "-env", "../events/env.json", "-kind", kind)
			got := string(r.Reason)
			if r.Detail != "" {
				got += "-" + string(r.Detail)
			}
			if string(r.Verdict) != verdict || verdict == "reject" && got != want {
				t.Errorf("%s: %s %s", file, r.Verdict, got)
			}
		}
	}
	if n != 30 {
		t.Errorf("%d event files, want 30", n)
	}
}

// Each row is a token, and what explain must say to whom it belongs: the verdict's reason, the checks that fail, and a part of a
// hint.
func TestHints(t *testing.T) {
	t.Parallel()
	with := func(more m) string { return sign(goodHeader, claims(more)) }
	good := with(nil)
	part := strings.Split(good, ".")
	for _, c := range []struct {
		name, input, reason, fails, hint string
		env                              map[string]string
		flags                            []string
	}{
		{name: "good", input: good},
		{name: "good, with its scheme", input: "bearer " + good + "\n"},
		{name: "good, and a line end of Windows", input: good + "\r\n"},
		{name: "good, without a scheme", input: good, env: map[string]string{"TOKEN_PREFIX": "none"}},
		{name: "good on every kind", input: good, flags: []string{"-kind", "http-2.0"}},

		{name: "nothing", reason: "malformed form", fails: "form", hint: "there is no token"},
		{name: "the scheme alone", input: "Bearer", reason: "malformed form", fails: "form", hint: "there is no token"},
		{name: "rubbish", input: "\x1b[31mhello\u202e", reason: "malformed form", fails: "form", hint: "one part is no JWT"},
		{name: "an API key", input: "Bearer zpka_0123", reason: "malformed form", fails: "form", hint: "the caller's API key"},
		{name: "1 MB", input: "Bearer " + strings.Repeat("a.", 1<<19), reason: "malformed size", fails: "form", hint: "too large"},
		{name: "9 KB", input: "Bearer " + with(m{"x": strings.Repeat("x", 9000)}), reason: "malformed size", fails: "form", hint: "additionalClaims"},
		{name: "an encrypted token", input: "Bearer a.b.c.d.e", reason: "malformed form", fails: "form", hint: "JWE"},
		{name: "cut", input: "Bearer " + part[0] + "." + part[1], reason: "malformed form", fails: "form", hint: "three parts"},
		{name: "padded", input: "Bearer " + good + "==", reason: "malformed form", fails: "form", hint: "its signature ends with ="},
		{name: "base64", input: "Bearer " + part[0] + "." + part[1] + ".+/" + part[2][2:], reason: "malformed form", fails: "form", hint: "not base64url: + and /"},
		{name: "no signature", input: "Bearer " + part[0] + "." + part[1] + ".", reason: "malformed form", fails: "form", hint: "its signature is empty"},
		{name: "the prefix twice", input: "Bearer bearer " + good, reason: "malformed form", fails: "form", hint: "the prefix stands in it 2 times"},
		{name: "the whole line", input: "authorization: Bearer " + good, reason: "malformed form", fails: "form", hint: "begins with the header's name"},
		{name: "quotes", input: `"Bearer ` + good + `"`, reason: "malformed form", fails: "form", hint: "quotes"},
		{name: "quotes around the token", input: "“" + good + "”", reason: "malformed form", fails: "form", hint: "quotes"},
		{name: "a line break inside", input: "Bearer " + good[:80] + "\n" + good[80:], reason: "malformed form", fails: "form", hint: "a line break"},
		{name: "two spaces", input: "Bearer  " + good, reason: "malformed form", fails: "form", hint: "more than one space"},
		{name: "a space at the end", input: "Bearer " + good + " ", reason: "malformed form", fails: "form", hint: "at an end"},
		{name: "another scheme", input: "Bearer " + good, reason: "malformed form", fails: "form", hint: "TOKEN_PREFIX is Token", env: map[string]string{"TOKEN_PREFIX": "Token"}},
		{name: "a scheme where none is wanted", input: "Bearer " + good, reason: "malformed form", fails: "form", hint: "TOKEN_PREFIX is none", env: map[string]string{"TOKEN_PREFIX": "none"}},
		{name: "twice in one header", input: "Bearer " + good + ", Bearer " + good, reason: "malformed form", fails: "form", hint: "stands twice", flags: []string{"-kind", "rest-request"}},
		{name: "the first of two things wrong is the reason", input: `"` + with(m{"aud": "x"}) + `"`, reason: "malformed form", fails: "form aud", hint: "another upstream"},

		{name: "header no JSON", input: b64("{") + "." + part[1] + "." + part[2], reason: "malformed json", fails: "header", hint: "another encoding"},
		{name: "payload an array", input: part[0] + "." + b64("[]") + "." + part[2], reason: "malformed json", fails: "payload"},
		{name: "a name twice", input: sign(`{"alg":"EdDSA","alg":"EdDSA","kid":"k1"}`, claims(nil)), reason: "malformed json", fails: "header", hint: "libraries disagree"},
		{name: "exp a string", input: with(m{"exp": "1"}), reason: "malformed type", fails: "payload", hint: "wrong type"},
		{name: "aud of a number", input: with(m{"aud": []any{"us", 7}}), reason: "malformed type", fails: "payload", hint: "wrong type"},
		{name: "kid null", input: sign(`{"alg":"EdDSA","kid":null}`, claims(nil)), reason: "malformed type", fails: "header", hint: "null counts as one"},

		{name: "RS256 wanted, EdDSA came", input: good, reason: "algorithm", fails: "alg", hint: "ALGORITHMS leaves EdDSA out", env: map[string]string{"ALGORITHMS": "RS256"}},
		{name: "none", input: sign(`{"alg":"none","kid":"k1"}`, claims(nil)), reason: "algorithm", fails: "alg key", hint: "unsigned"},
		{name: "HS256", input: sign(`{"alg":"HS256","kid":"k1"}`, claims(nil)), reason: "algorithm", fails: "alg key", hint: "symmetric"},
		{name: "no alg", input: sign(`{"kid":"k1"}`, claims(nil)), reason: "algorithm", fails: "alg key", hint: "says no algorithm"},
		{name: "alg in another case", input: sign(`{"alg":"eddsa","kid":"k1"}`, claims(nil)), reason: "algorithm", fails: "alg key", hint: "case-sensitive"},
		{name: "no kid", input: sign(`{"alg":"EdDSA"}`, claims(nil)), reason: "kid", fails: "kid", hint: "Zuplo's tokens have a kid"},
		{name: "crit", input: sign(`{"alg":"EdDSA","kid":"k1","crit":["x"]}`, claims(nil)), reason: "malformed crit", fails: "crit", hint: "extension"},
		{name: "typ", input: sign(`{"alg":"EdDSA","kid":"k1","typ":"JOSE"}`, claims(nil)), reason: "malformed typ", fails: "typ", hint: "must write JWT"},

		{name: "a slash more", input: with(m{"iss": iss + "/"}), reason: "issuer trailing_slash", fails: "iss", hint: "only the trailing slash differs"},
		{name: "capitals", input: with(m{"iss": strings.ToUpper(iss)}), reason: "issuer case", fails: "iss", hint: "only capitals differ"},
		{name: "goes on with the issuer that is meant", input: with(m{"iss": iss + "/", "aud": "https://api.example/orders"}), reason: "issuer trailing_slash", fails: "iss aud", hint: "the request's URL"},
		{name: "http", input: with(m{"iss": "http" + iss[5:]}), reason: "issuer", fails: "iss", hint: "only the scheme differs"},
		{name: "where the keys are", input: good, reason: "issuer", fails: "iss", hint: "more path", env: map[string]string{"ISSUER": iss + "/.well-known/jwks.json"}},
		{name: "another environment", input: with(m{"iss": "https://shop-feature-9z.zuplo.app/__zuplo/issuer"}), reason: "issuer", fails: "iss", hint: "another environment of the project shop"},
		{name: "another project", input: with(m{"iss": "https://other-main-9z.zuplo.app/__zuplo/issuer"}), reason: "issuer", fails: "iss", hint: "exactly the token's iss"},
		{name: "no iss", input: with(m{"iss": nil}), reason: "issuer absent", fails: "iss", hint: "no iss"},

		{name: "expired", input: with(m{"exp": noon.Unix() - 720, "iat": noon.Unix() - 1020}), reason: "expired", fails: "exp", hint: "it expired 12m0s ago, after a life of 5m0s"},
		{name: "expired long ago", input: with(m{"exp": 1}), reason: "expired", fails: "exp", hint: "days ago"},
		{name: "expired before all time", input: with(m{"exp": -1e300}), reason: "expired", fails: "exp", hint: "days ago"},
		{name: "no exp", input: with(m{"exp": nil}), reason: "expired", fails: "exp", hint: "without an end"},
		{name: "unknown kid", input: sign(`{"alg":"EdDSA","kid":"k0"}`, claims(nil)), reason: "unknown_key", fails: "key", hint: "does not publish this kid (any more)"},
		{name: "a key that is skipped", input: sign(`{"alg":"EdDSA","kid":"short"}`, claims(nil)), reason: "key", fails: "key", hint: "its x has 3 bytes"},
		{name: "a key for another algorithm", input: sign(`{"alg":"ES256","kid":"k1"}`, claims(nil)), reason: "key", fails: "key", hint: "cannot be used for ES256"},
		{name: "forged", input: good[:len(good)-20] + strings.Repeat("A", 20), reason: "signature", fails: "signature", hint: "changed after it was signed"},
		{name: "nbf", input: with(m{"nbf": noon.Unix() + 90}), reason: "not_yet_valid", fails: "nbf", hint: "it lies 1m30s ahead"},
		{name: "iat in milliseconds", input: with(m{"iat": noon.UnixMilli()}), reason: "not_yet_valid", fails: "iat", hint: "milliseconds"},
		{name: "the request's URL", input: with(m{"aud": "https://api.example/orders/7"}), reason: "audience", fails: "aud", hint: `unless its option audience is set, Zuplo's policy upstream-zuplo-jwt-auth-inbound puts the request's URL here; set it to "us"`},
		{name: "aud with a slash", input: with(m{"aud": "us/"}), reason: "audience trailing_slash", fails: "aud", hint: "AUDIENCE must be exactly"},
		{name: "no aud", input: with(m{"aud": nil}), reason: "audience absent", fails: "aud", hint: "the option audience"},
		{name: "another aud", input: with(m{"aud": []string{"them"}}), reason: "audience", fails: "aud", hint: "another upstream"},
		{name: "too old", input: good, reason: "too_old", fails: "age", hint: "keeps tokens longer", env: map[string]string{"MAX_TOKEN_AGE": "1s", "LEEWAY": "0s"}},
		{name: "too old, because it has no iat", input: with(m{"iat": nil}), reason: "too_old", fails: "age", hint: "when it was issued", env: map[string]string{"MAX_TOKEN_AGE": "1m"}},
		{name: "all at once", input: sign(`{"alg":"EdDSA","kid":"k1","typ":"JOSE"}`, claims(m{"exp": 1, "nbf": 9e9, "aud": "x"})), reason: "malformed typ", fails: "typ exp nbf aud"},
		{name: "strangers' text", input: with(m{"aud": "\x1b[2J\u202e\u0000" + strings.Repeat("x", 1000)}), reason: "audience", fails: "aud"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := explained(t, c.env, c.input, c.flags...)
			reason := strings.TrimSpace(string(r.Reason) + " " + string(r.Detail))
			wantVerdict, status := reject, 401
			if c.reason == "" {
				wantVerdict, status = allow, 200
			}
			if r.Verdict != wantVerdict || r.Status != status || reason != c.reason {
				t.Errorf("%s, %d, %s, want %s, %d, %s", r.Verdict, r.Status, reason, wantVerdict, status, c.reason)
			}
			if got := strings.Join(failing(r), " "); got != c.fails {
				t.Errorf("fails %s, want %s", got, c.fails)
			}
			if !strings.Contains(hints(r), c.hint) {
				t.Errorf("hints:\n%s\nwant %s", hints(r), c.hint)
			}
			var order []string
			for _, check := range r.Checks {
				order = append(order, check.Check)
				if !check.OK && (check.Found == "" || check.Expected == "") {
					t.Errorf("%+v", check)
				}
			}
			all := strings.Fields("form header payload alg kid crit typ iss exp key signature nbf iat aud age")
			all = slices.DeleteFunc(all, func(name string) bool { return !slices.Contains(order, name) })
			if !slices.Equal(order, all) {
				t.Errorf("checks in the order %v, want %v", order, all)
			}
		})
	}
}

// What API Gateway makes of a verdict depends on the kind of API.
func TestKinds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind, header, exp string
		status            int
		means             string
	}{
		{"rest-token", goodHeader, "1", 401, "keeps no errors"},
		{"rest-request", goodHeader, "1", 401, "keeps no errors"},
		{"http-1.0", goodHeader, "1", 403, "policy that denies everything"},
		{"http-2.0", goodHeader, "1", 403, "for ReauthorizeEvery"},
		{"http-2.0", `{"alg":"EdDSA","kid":"k0"}`, "1e10", 401, "or 500: sources disagree"},
		{"websocket", goodHeader, "1", 401, "connection is refused"},
		{"websocket", goodHeader, "1e10", 200, "until the connection ends"},
		{"rest-token", goodHeader, "1e10", 200, "The policy ends with the token"},
	} {
		r := explained(t, nil, sign(c.header, claims(m{"exp": json.Number(c.exp)})), "-kind", c.kind)
		if r.Status != c.status || !strings.Contains(strings.Join(r.Meaning, " "), c.means) {
			t.Errorf("%s %s %s: %d, %v", c.kind, c.header, c.exp, r.Status, r.Meaning)
		}
	}
}

func TestRules(t *testing.T) {
	t.Parallel()
	const rules = `[{"routes":["GET /orders/*"],"scopes":["orders:read"]},{"routes":["* /admin/*"],"claims":{"/org/role":["admin"]}},` +
		`{"apis":["other"],"routes":["GET /status"]},{"routes":["$connect"],"scopes":["live"]}]`
	for _, c := range []struct {
		mode, api, kind, route, scope string
		verdict                       verdict
		rule                          int
		found                         string
	}{
		{"", "a", "rest-token", "GET /orders/7", "orders:read", allow, 0, "is met"},
		{"", "a", "rest-token", "GET /orders/7", "orders:write", forbid, 1, `rule 1 is not met; the token has scope "orders:write", no scp`},
		{"", "a", "http-2.0", "GET /admin/x", "orders:read", forbid, 2, `rule 2 is not met; the token has org {"role":"user"}`},
		{"", "a", "rest-token", "GET /status", "orders:read", forbid, 0, "no rule names GET /status"},
		{"", "other", "rest-token", "GET /status", "orders:read", allow, 0, "is met"},
		{"", "a", "rest-token", "", "orders:read", allow, 0, "1 of the rules' routes are open"},
		{"", "a", "rest-token", "", "none", forbid, 0, "no rule is met"},
		{"log", "a", "rest-token", "GET /orders/7", "none", allow, 0, "rule 1 is not met"},
		{"", "a", "websocket", "", "live", allow, 0, "$connect is met"},
		{"", "a", "websocket", "$connect", "orders:read", forbid, 4, "rule 4 is not met"},
	} {
		flags := []string{"-api", c.api, "-kind", c.kind}
		if c.route != "" {
			flags = append(flags, "-route", c.route)
		}
		token := sign(goodHeader, claims(m{"scope": c.scope, "org": m{"role": "user"}}))
		r := explained(t, map[string]string{"RULES": rules, "RULES_MODE": c.mode}, token, flags...)
		last := r.Checks[len(r.Checks)-1]
		if r.Verdict != c.verdict || last.Check != "rules" || !strings.Contains(last.Found, c.found) || r.Routes == nil || r.Reason != "" {
			t.Errorf("%+v: %s %+v", c, r.Verdict, last)
		}
		if named := c.verdict == forbid && (c.route != "" || c.kind == "websocket"); named != (r.Rule != nil) || named && *r.Rule != c.rule {
			t.Errorf("%+v: rule %v", c, r.Rule)
		}
		if want := map[verdict]int{allow: 200, forbid: 403}[r.Verdict]; r.Status != want {
			t.Errorf("%+v: status %d", c, r.Status)
		}
	}
	r := explained(t, map[string]string{"RULES": rules}, sign(goodHeader, claims(m{"scope": "orders:read"})), "-route", "GET /orders/7")
	if fmt.Sprint(r.Routes.Allow) != "[GET/orders/*]" || len(r.Routes.Deny) != 7 {
		t.Errorf("routes %+v", r.Routes)
	}
	r = explained(t, nil, sign(goodHeader, claims(m{"x": strings.Repeat(`"`, 2500)})), "-kind", "websocket")
	if last := r.Checks[len(r.Checks)-1]; r.Verdict != fault || last.Check != "answer" || !strings.Contains(last.Found, "fewer claims") {
		t.Errorf("claims too large for a WebSocket: %s %+v", r.Verdict, last)
	}
}

// An issuer is served by a handler; its settings are the ones that go with it.
func serve(t *testing.T, h http.HandlerFunc) map[string]string {
	srv := httptest.NewServer(h)
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	return map[string]string{"ISSUER": srv.URL, "JWKS": ""}
}

func TestIssuer(t *testing.T) {
	t.Parallel()
	keys := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, "/jwks.json") {
				http.NotFound(w, r)
				return
			}
			io.WriteString(w, text)
		}
	}
	discovery := func(change func(issuer string) (iss, uri string)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/openid-configuration") {
				iss, uri := change("http://" + r.Host)
				fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, iss, uri)
				return
			}
			io.WriteString(w, set)
		}
	}
	for _, c := range []struct {
		name    string
		serve   http.HandlerFunc
		env     map[string]string
		verdict verdict
		fails   string
		says    string // in what was found, or in a hint
		keys    int
	}{
		{"good", keys(set), nil, allow, "", "1 usable, 1 skipped", 2},
		{"good discovery", discovery(func(i string) (string, string) { return i, i + "/.well-known/jwks.json" }), nil, allow, "", "", 2},
		{"pinned", keys(set), map[string]string{"JWKS": set}, allow, "", "pinned, none is fetched", 2},
		{"down", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, nil, fault, "reachable", "status 503", 0},
		{"nothing usable", keys(`{"keys":[{"kty":"oct","kid":"x","k":"AA"}]}`), nil, fault, "reachable", "none of its 1 keys is usable", 1},
		{"empty", keys(`{"keys":[]}`), nil, reject, "keys", "refuses every token", 0},
		{"not for us", keys(set), map[string]string{"ALGORITHMS": "RS256"}, reject, "keys", "ALGORITHMS leaves out", 2},
		{"another name", discovery(func(i string) (string, string) { return i + "/", i + "/.well-known/jwks.json" }), nil, reject, "discovery", "trailing slash included", 2},
		{"keys elsewhere", discovery(func(i string) (string, string) { return i, i + "/keys" }), nil, reject, "discovery", "JWKS_URI", 2},
		{"another clock", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
			keys(set)(w, r)
		}, nil, allow, "", "the issuer's clock differs by", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			env := serve(t, c.serve)
			maps.Copy(env, c.env)
			r := explained(t, env, "", "-jwks")
			said := hints(r)
			for _, check := range r.Checks {
				said += check.Found + check.Hint
			}
			if r.Verdict != c.verdict || strings.Join(failing(r), " ") != c.fails || !strings.Contains(said, c.says) || len(r.Keys) != c.keys {
				t.Errorf("%s, fails %v, %d keys, says\n%s", r.Verdict, failing(r), len(r.Keys), said)
			}
		})
	}
}

// A token's own keys are fetched as the authorizer fetches them, once, and an issuer that cannot be reached is a fault.
func TestFetching(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 10)
	env := serve(t, func(w http.ResponseWriter, r *http.Request) { asked <- r.URL.Path; io.WriteString(w, set) })
	for kid, verdict := range map[string]verdict{"k1": allow, "k0": reject} {
		r := explained(t, env, sign(`{"alg":"EdDSA","kid":"`+kid+`"}`, claims(m{"iss": env["ISSUER"]})))
		if r.Verdict != verdict || len(r.Keys) != 2 || r.Keys[0].KeyID != "k1" || r.Keys[0].Algorithms[0] != "EdDSA" || r.Keys[1].Skipped == "" {
			t.Errorf("%s: %s %+v", kid, r.Verdict, r.Keys)
		}
		if len(asked) != 2 { // once for JSON, once for text
			t.Errorf("%s: asked %d times, want once each", kid, len(asked))
		}
		for len(asked) > 0 {
			<-asked
		}
	}
	env = serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	r := explained(t, env, sign(goodHeader, claims(m{"iss": env["ISSUER"]})))
	if r.Verdict != fault || r.Status != 500 || fmt.Sprint(failing(r)) != "[key]" || !strings.Contains(hints(r), "not the token's") {
		t.Errorf("%s %d %v %s", r.Verdict, r.Status, failing(r), hints(r))
	}
	// A reason before that one decides, because the authorizer would not have asked.
	r = explained(t, env, sign(goodHeader, claims(m{"iss": env["ISSUER"], "exp": 1})))
	if r.Verdict != reject || r.Reason != "expired" || fmt.Sprint(failing(r)) != "[exp key]" {
		t.Errorf("%s %s %v", r.Verdict, r.Reason, failing(r))
	}
}

// The table is the fleet's: explain says that it leaves it alone, and asks nobody about it.
func TestTableIsNotOpened(t *testing.T) {
	t.Parallel()
	table := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the table was asked") }))
	t.Cleanup(table.Close)
	env := serve(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, set) })
	maps.Copy(env, map[string]string{"JWKS_TABLE": "keys", "AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret",
		"AWS_ENDPOINT_URL": table.URL})
	r := explained(t, env, sign(goodHeader, claims(m{"iss": env["ISSUER"]})))
	if r.Verdict != allow || !strings.Contains(strings.Join(r.Notes, "\n"), "table of shared keys is not opened") {
		t.Errorf("%s %v", r.Verdict, r.Notes)
	}
}
