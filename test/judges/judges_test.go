//go:build judges

// Package judges asks tools that nobody here wrote about the authorizer's answers and the template's expressions.
// templates.py must have translated the templates.
package judges

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"zuplo-lambda-authorizer/local/lambdahost"
)

const (
	issuer   = "https://issuer.example/__zuplo/issuer"
	audience = "aws-origin"
	stage    = "arn:aws:execute-api:eu-central-1:123456789012:abcdef1234/prod"
)

var algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// signers are the commands that sign with one library each.
var signers = map[string][]string{
	"jose":    {"node", "tokens.mjs"},
	"joserfc": {"../../.tools/judges-venv/bin/python", "tokens.py"},
}

// signed is a signer's answer: a key set, and by algorithm a token of its key and one of another key.
type signed struct {
	JWKS   json.RawMessage
	Tokens map[string]struct{ Good, Foreign string }
}

// ask runs a judge with the question as JSON on its standard input and returns its standard output.
func ask(t *testing.T, question []byte, command ...string) []byte {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin = bytes.NewReader(question)
	cmd.Env = append(os.Environ(), "TZ=Asia/Tokyo") // a time without its zone is another time there
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	answer, err := cmd.Output()
	if err != nil {
		t.Fatalf("running %s: %v\n%s", strings.Join(command, " "), err, complaint.Bytes())
	}
	return answer
}

func toJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func fromJSON[T any](t *testing.T, b []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("reading %s: %v", b, err)
	}
	return v
}

func sign(t *testing.T, claims map[string]any, command []string, algorithms ...string) signed {
	t.Helper()
	return fromJSON[signed](t, ask(t, toJSON(t, map[string]any{"algorithms": algorithms, "claims": claims}), command...))
}

func someClaims(expires time.Time) map[string]any {
	return map[string]any{
		"iss": issuer, "aud": audience, "sub": "consumer-ü", "iat": float64(expires.Add(-time.Hour).Unix()), "exp": float64(expires.Unix()),
		"plan": "gold", "admin": false, "ratio": 0.25, "none": nil,
		"list": []any{1.0, "two", nil}, "nested": map[string]any{"é": "\u2028\"\\/<&>"},
	}
}

// authorizer starts the authorizer's own binary with keys pinned. The returned function gives its answer to a token.
func authorizer(t *testing.T, jwks json.RawMessage, env ...string) func(methodARN, token string) answer {
	t.Helper()
	invoke := start(t, jwks, env...)
	return func(methodARN, token string) answer {
		t.Helper()
		return invoke(map[string]any{"type": "TOKEN", "methodArn": methodARN, "authorizationToken": "Bearer " + token})
	}
}

// start is authorizer for any kind of event.
func start(t *testing.T, jwks json.RawMessage, env ...string) func(event map[string]any) answer {
	t.Helper()
	host := lambdahost.New(lambdahost.Function{
		Name:    "AuthorizerFunction",
		Binary:  "../../build/authorizer/bootstrap",
		Timeout: 6 * time.Second,
		Log:     func(_ context.Context, line string) { fmt.Fprint(t.Output(), line) },
		Env:     append([]string{"ISSUER=" + issuer, "AUDIENCE=" + audience, "JWKS=" + string(jwks)}, env...),
	})
	t.Cleanup(host.Close)
	return func(event map[string]any) answer {
		t.Helper()
		text, isError, err := host.Invoke(t.Context(), toJSON(t, event))
		if err != nil {
			t.Fatal(err)
		}
		return answer{text, isError}
	}
}

type answer struct {
	text    []byte
	isError bool
}

// allowance is what API Gateway takes from an authorizer that lets a request through.
type allowance struct {
	PrincipalID    string
	PolicyDocument json.RawMessage
	Context        map[string]any
}

func allowed(t *testing.T, r answer) allowance {
	t.Helper()
	if r.isError {
		t.Fatalf("the authorizer refused a good token: %s", r.text)
	}
	return fromJSON[allowance](t, r.text)
}

func TestTokens(t *testing.T) {
	t.Parallel()
	for name, command := range signers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			claims := someClaims(time.Now().Add(time.Hour))
			s := sign(t, claims, command, algorithms...)
			invoke := authorizer(t, s.JWKS)
			for _, alg := range algorithms {
				t.Run(alg, func(t *testing.T) {
					token := s.Tokens[alg]
					checkClaims(t, claims, token.Good, allowed(t, invoke(stage+"/GET/protected", token.Good)))
					header, rest, _ := strings.Cut(token.Good, ".")
					payload, signature, _ := strings.Cut(rest, ".")
					for what, bad := range map[string]string{
						"another key's":         token.Foreign,
						"another claim":         strings.Join([]string{header, otherPlan(t, payload), signature}, "."),
						"another signature":     strings.Join([]string{header, payload, otherFirst(signature)}, "."),
						"another's signature":   header + "." + payload + token.Foreign[strings.LastIndexByte(token.Foreign, '.'):],
						"a signature cut short": strings.Join([]string{header, payload, signature[:len(signature)-4]}, "."),
					} {
						r := invoke(stage+"/GET/protected", bad)
						if got := fromJSON[struct{ ErrorMessage string }](t, r.text).ErrorMessage; !r.isError || got != "Unauthorized" {
							t.Errorf("%s: the answer is %s", what, r.text)
						}
					}
				})
			}
		})
	}
}

// checkClaims compares an answer with the claims that were given to the signer.
func checkClaims(t *testing.T, claims map[string]any, token string, got allowance) {
	t.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"claims": string(payload)}
	for name, v := range claims {
		switch v := v.(type) {
		case nil:
		case string:
			want[name] = v
		default: // as the signer wrote it
			want[name] = string(fromJSON[map[string]json.RawMessage](t, payload)[name])
		}
	}
	if got.PrincipalID != claims["sub"] || !reflect.DeepEqual(got.Context, want) {
		t.Errorf("principal %q, context %v, want %v", got.PrincipalID, got.Context, want)
	}
	if asGiven := fromJSON[map[string]any](t, []byte(want["claims"].(string))); !reflect.DeepEqual(asGiven, claims) {
		t.Errorf("claims %v, want %v", asGiven, claims)
	}
}

// otherPlan changes one claim.
func otherPlan(t *testing.T, payload string) string {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(bytes.Replace(b, []byte("gold"), []byte("oils"), 1))
}

// otherFirst changes the first character.
func otherFirst(s string) string {
	if s[0] == 'A' {
		return "B" + s[1:]
	}
	return "A" + s[1:]
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	now := time.Now().Truncate(time.Second)
	s := sign(t, someClaims(now.Add(time.Hour)), signers["jose"], "EdDSA")

	var requests []request
	var wants []bool
	for _, setting := range []struct {
		env     []string
		expires time.Time // zero: never
	}{
		{nil, now.Add(time.Hour + 30*time.Second)}, // the leeway by default
		{[]string{"LEEWAY=0s"}, now.Add(time.Hour)},
		{[]string{"LEEWAY=1m", "MAX_TOKEN_AGE=30m"}, now.Add(31 * time.Minute)},
		{[]string{"POLICY_EXPIRY=off"}, time.Time{}},
	} {
		invoke := authorizer(t, s.JWKS, setting.env...)
		for _, stage := range []string{
			stage,
			"arn:aws-cn:execute-api:cn-north-1:123456789012:abcdef1234/prod",
			"arn:aws-us-gov:execute-api:us-gov-west-1:123456789012:abcdef1234/test-invoke-stage",
		} {
			policy := allowed(t, invoke(stage+"/GET/protected", s.Tokens["EdDSA"].Good)).PolicyDocument
			add := func(want bool, resource string, at time.Time) {
				account := strings.Split(resource, ":")[4]
				requests = append(requests, request{Policy: policy, Resource: resource, Account: account, Time: at.UTC().Format(time.RFC3339)})
				wants = append(wants, want)
			}
			for _, route := range []string{"/GET/protected", "/POST/protected", "/DELETE/orders/17/lines", "/OPTIONS/a/*", "/GET/" + strings.Repeat("x", 1000)} {
				add(true, stage+route, now)
			}
			if setting.expires.IsZero() {
				add(true, stage+"/GET/protected", now.AddDate(50, 0, 0))
			} else {
				add(true, stage+"/GET/protected", setting.expires.Add(-time.Second))
				add(false, stage+"/GET/protected", setting.expires)
				add(false, stage+"/GET/protected", setting.expires.AddDate(0, 0, 1))
			}

			// Each part of the ARN another one.
			prefix, name, _ := strings.Cut(stage, "/")
			for i, other := range map[int]string{1: "aws-iso", 3: "ap-south-1", 4: "210987654321", 5: "abcdef12345"} {
				parts := strings.Split(prefix, ":")
				parts[i] = other
				add(false, strings.Join(parts, ":")+"/"+name+"/GET/protected", now)
			}
			for _, other := range []string{"dev", name + "2", name[1:]} {
				add(false, prefix+"/"+other+"/GET/protected", now)
			}
		}
	}
	for i, verdict := range judged(t, requests) {
		r, want := requests[i], map[bool]string{true: "Allowed", false: "ImplicitlyDenied"}[wants[i]]
		if verdict != want {
			t.Errorf("%s at %s is %s, want %s, by %s", r.Resource, r.Time, verdict, want, r.Policy)
		}
	}
}

// Beside a resource policy that allows, as every private API has one, EXPLICIT_DENY=on refuses what the policy leaves out.
func TestExplicitDeny(t *testing.T) {
	t.Parallel()
	now := time.Now().Truncate(time.Second)
	claims := someClaims(now.Add(time.Hour))
	claims["scope"] = "orders:read"
	s := sign(t, claims, signers["jose"], "EdDSA")
	const rules = `[
		{"routes": ["GET /orders", "GET /orders/*"], "scopes": ["orders:read"]},
		{"routes": ["POST /orders"], "scopes": ["orders:write"]},
		{"apis": ["zyxwvu9876"], "routes": ["GET /status"]}
	]`
	resourcePolicy := json.RawMessage(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"execute-api:Invoke","Resource":"arn:aws:execute-api:*:*:*"}]}`)
	type row struct {
		env  []string
		path string
		at   time.Time
		want string
	}
	on := []string{"RULES=" + rules, "EXPLICIT_DENY=on", "LEEWAY=0s"}
	off := []string{"RULES=" + rules, "LEEWAY=0s"}
	onAlone := []string{"EXPLICIT_DENY=on", "LEEWAY=0s"}
	expired := now.Add(time.Hour)
	rows := []row{
		{on, "/GET/orders", now, "Allowed"},
		{on, "/GET/orders/17", expired.Add(-time.Second), "Allowed"},
		{on, "/GET/orders", expired, "ExplicitlyDenied"},
		{on, "/GET/orders/17", expired.AddDate(1, 0, 0), "ExplicitlyDenied"},
		{on, "/POST/orders", now, "ExplicitlyDenied"},      // a rule that is not met
		{on, "/DELETE/orders", now, "ExplicitlyDenied"},    // no rule names it
		{on, "/GET/orders2", now, "ExplicitlyDenied"},      // nor that
		{on, "/GET/status", now, "ExplicitlyDenied"},       // named for another API only
		{on, "/GET/admin/orders", now, "ExplicitlyDenied"}, // a wildcard is not a suffix
		{onAlone, "/GET/anything", now, "Allowed"},         // without rules all routes are named
		{onAlone, "/GET/anything", expired, "ExplicitlyDenied"},
		// What the switch is for: the resource policy would let them through.
		{off, "/DELETE/orders", now, "Allowed"},
		{off, "/GET/orders", expired, "Allowed"},
		{off, "/POST/orders", now, "ExplicitlyDenied"},
	}
	requests := make([]request, len(rows))
	for i, r := range rows {
		policy := allowed(t, authorizer(t, s.JWKS, r.env...)(stage+"/GET/orders", s.Tokens["EdDSA"].Good)).PolicyDocument
		requests[i] = request{Policy: policy, ResourcePolicy: resourcePolicy, Resource: stage + r.path, Account: "123456789012", Time: r.at.UTC().Format(time.RFC3339)}
	}
	for i, verdict := range judged(t, requests) {
		if r := rows[i]; verdict != r.want {
			t.Errorf("%s at %s with %v is %s, want %s, by %s", r.path, r.at, r.env[1:], verdict, r.want, requests[i].Policy)
		}
	}
}

// A policy of rules that overlap allows what meets every rule that names it, and nothing else.
func TestRulesPolicies(t *testing.T) {
	t.Parallel()
	const rules = `[
		{"routes": ["GET /*"], "scopes": ["read"]},
		{"routes": ["* /admin", "* /admin/*"], "claims": {"role": ["admin"]}},
		{"routes": ["PUT,DELETE /items/*"], "scopes": ["write"]},
		{"routes": ["GET /items/??"], "claims": {"/org/plan": ["gold", 7, true]}},
		{"apis": ["zyxwvu9876"], "routes": ["POST /items"]}
	]`
	routes := []string{ // without the root, which iam-simulate does not judge
		"GET /items", "GET /items/17", "GET /items/171", "GET /items/a/", "PUT /items/17", "PATCH /items/17", "DELETE /items/", "DELETE /items", "POST /items",
		"GET /admin", "GET /admin/", "POST /admin/users", "OPTIONS /admin/a/b", "DELETE /admins", "GET /admins", "GET /ADMIN", "POST /x/admin/", "GET /x/POST/admin/",
		"TRACE /admin",
	}
	now := time.Now().Truncate(time.Second)
	var requests []request
	var wants []string
	for _, c := range []struct {
		claims map[string]any
		allows []string
	}{
		{map[string]any{}, nil},
		{map[string]any{"scope": "read write", "role": "admin", "org": map[string]any{"plan": "gold"}}, []string{
			"GET /items", "GET /items/17", "GET /items/171", "GET /items/a/", "PUT /items/17", "DELETE /items/", "GET /admin", "GET /admin/", "POST /admin/users",
			"OPTIONS /admin/a/b", "GET /admins", "GET /ADMIN", "GET /x/POST/admin/",
		}},
		{map[string]any{"scp": []string{"read"}, "org": map[string]any{"plan": 7}}, []string{
			"GET /items", "GET /items/17", "GET /items/171", "GET /items/a/", "GET /admins", "GET /ADMIN", "GET /x/POST/admin/",
		}},
		{map[string]any{"scope": "write", "role": []string{"user", "admin"}}, []string{"PUT /items/17", "DELETE /items/", "POST /admin/users", "OPTIONS /admin/a/b"}},
		{map[string]any{"scope": "read", "org": map[string]any{"plan": "7"}}, []string{
			"GET /items", "GET /items/171", "GET /admins", "GET /ADMIN", "GET /x/POST/admin/",
		}},
	} {
		claims := someClaims(now.Add(time.Hour))
		maps.Copy(claims, c.claims)
		s := sign(t, claims, signers["jose"], "EdDSA")
		invoke := authorizer(t, s.JWKS, "RULES="+rules)
		// Whichever route the token comes with first, the policy is for all.
		for _, first := range []string{"/GET/items", "/POST/admin/users", "/PATCH/nothing"} {
			policy := allowed(t, invoke(stage+first, s.Tokens["EdDSA"].Good)).PolicyDocument
			for _, route := range routes {
				method, path, _ := strings.Cut(route, " ")
				want := "refused"
				if slices.Contains(c.allows, route) {
					want = "Allowed"
				}
				requests = append(requests, request{Policy: policy, Resource: stage + "/" + method + path, Account: "123456789012", Time: now.UTC().Format(time.RFC3339)})
				wants = append(wants, want)
			}
		}
	}
	for i, verdict := range judged(t, requests) {
		if verdict == "ExplicitlyDenied" || verdict == "ImplicitlyDenied" {
			verdict = "refused"
		}
		if verdict != wants[i] {
			t.Errorf("%s is %s, want %s, by %s", requests[i].Resource, verdict, wants[i], requests[i].Policy)
		}
	}
}

// The rules that docs/rules.md explains, which are those of examples/rules/shop.json, do what its table says.
func TestRulesOfTheDocument(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/rules.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n```json\n")
	rules, _, _ := strings.Cut(rest, "\n```\n")
	if shop, err := os.ReadFile("../../examples/rules/shop.json"); err != nil || string(shop) != rules+"\n" {
		t.Errorf("examples/rules/shop.json is not what docs/rules.md shows: %v", err)
	}
	routes := []string{"GET /products", "GET /products/5", "GET /orders", "GET /orders/17", "POST /orders", "DELETE /orders/17", "GET /admin", "PUT /admin/prices"}
	now := time.Now().Truncate(time.Second)
	var requests []request
	var wants []string
	for _, c := range []struct {
		claims map[string]any
		closed []string
	}{
		{map[string]any{}, []string{"GET /orders", "GET /orders/17", "POST /orders", "GET /admin", "PUT /admin/prices"}},
		{map[string]any{"scope": "orders:read"}, []string{"POST /orders", "GET /admin", "PUT /admin/prices"}},
		{map[string]any{"scope": "orders:read orders:write", "org": map[string]any{"plan": "gold"}}, []string{"GET /admin", "PUT /admin/prices"}},
		{map[string]any{"scope": "orders:read orders:write", "org": map[string]any{"plan": "silver"}}, []string{"POST /orders", "GET /admin", "PUT /admin/prices"}},
		{map[string]any{"role": []string{"support", "admin"}}, []string{"GET /orders", "GET /orders/17", "POST /orders"}},
	} {
		claims := someClaims(now.Add(time.Hour))
		maps.Copy(claims, c.claims)
		s := sign(t, claims, signers["jose"], "EdDSA")
		policy := allowed(t, authorizer(t, s.JWKS, "RULES="+rules)(stage+"/GET/products", s.Tokens["EdDSA"].Good)).PolicyDocument
		for _, route := range routes {
			want := "Allowed"
			switch {
			case route == "DELETE /orders/17": // no rule names it
				want = "ImplicitlyDenied"
			case slices.Contains(c.closed, route):
				want = "ExplicitlyDenied"
			}
			resource := stage + "/" + strings.Replace(route, " ", "", 1)
			requests = append(requests, request{Policy: policy, Resource: resource, Account: "123456789012", Time: now.UTC().Format(time.RFC3339)})
			wants = append(wants, want)
		}
	}
	for i, verdict := range judged(t, requests) {
		if verdict != wants[i] {
			t.Errorf("%s is %s, want %s, by %s", requests[i].Resource, verdict, wants[i], requests[i].Policy)
		}
	}
}

// A request is one to a route, as policies.mjs reads it.
type request struct {
	Policy         json.RawMessage `json:"policy"`
	ResourcePolicy json.RawMessage `json:"resourcePolicy,omitempty"` // the API's own
	Resource       string          `json:"resource"`
	Account        string          `json:"account"`
	Time           string          `json:"time"`
}

// judged returns iam-simulate's verdicts.
func judged(t *testing.T, requests []request) []string {
	t.Helper()
	verdicts := fromJSON[[]string](t, ask(t, toJSON(t, requests), "node", "policies.mjs"))
	if len(verdicts) != len(requests) {
		t.Fatalf("%d verdicts on %d requests", len(verdicts), len(requests))
	}
	return verdicts
}

// match returns for each pair of a pattern and a text whether the one, as a Java expression, matches all of the other.
func match(t *testing.T, pairs [][2]string) []bool {
	t.Helper()
	var question bytes.Buffer
	for _, p := range pairs {
		encode := base64.StdEncoding.EncodeToString
		fmt.Fprintln(&question, encode([]byte(p[0])), encode([]byte(p[1])))
	}
	var verdicts []bool
	for line := range strings.Lines(string(ask(t, question.Bytes(), "java", "Match.java"))) {
		verdicts = append(verdicts, strings.TrimSpace(line) == "true")
	}
	if len(verdicts) != len(pairs) {
		t.Fatalf("%d verdicts on %d pairs", len(verdicts), len(pairs))
	}
	return verdicts
}

// translated returns the templates that templates.py left, by name.
func translated(t *testing.T) map[string]any {
	t.Helper()
	files, err := filepath.Glob("../../build/judges/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no translated template in build/judges/: %v", err)
	}
	templates := map[string]any{}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		templates[filepath.Base(name)] = fromJSON[any](t, b)
	}
	return templates
}

// find calls found with each value under one of the names, at any depth.
func find(v any, found func(any), names ...string) {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			find(item, found, names...)
		}
	case map[string]any:
		for name, item := range v {
			if slices.Contains(names, name) {
				found(item)
			}
			find(item, found, names...)
		}
	}
}

func TestValidationExpression(t *testing.T) {
	t.Parallel()
	expressions := map[string]bool{}
	for name, template := range translated(t) {
		found := false
		find(template, func(v any) { expressions[v.(string)], found = true, true }, "identityValidationExpression", "IdentityValidationExpression")
		if !found && name == "template.yaml.defaults.json" {
			t.Fatal("template.yaml has no ValidationExpression")
		}
	}
	rows := map[string]bool{
		"Bearer a.b.c": true, "bearer a.b.c": true, "BEARER a.b.c": true, "bEARER Az09-_.Az09-_.Az09-_": true,
		"Bearer " + strings.Repeat("a", 8000) + "." + strings.Repeat("b", 8000) + "." + strings.Repeat("c", 8000): true,
		// Other settings of TokenPrefix.
		"a.b.c": true, "Basic a.b.c": true, "JWT a.b.c": true, "A!#$%&'*+.^_`|~-9 a.b.c": true,

		"": false, "Bearer": false, "Bearer ": false, " a.b.c": false, "Bearer: a.b.c": false, "Bearer Bearer a.b.c": false,
		"Bearer  a.b.c": false, "Bearer\ta.b.c": false, "Bearer\u00a0a.b.c": false,
		"Bearer a.b.c\r\n":             false,
		"Bearer zpka_0123456789abcdef": false, "Bearer a.b": false, "Bearer a.b.": false, "Bearer .b.c": false, "Bearer a..c": false, "Bearer a.b.c.d": false, "Bearer a.b.c.d.e": false,
		"Bearer a.b.c, Bearer a.b.c": false, "a.b.c, a.b.c": false, "a.b.c,a.b.c": false, "ᏴEARER a.b.c": false,
	}
	for _, bad := range []string{"=", "+", "/", "~", ",", ":", "%", "\"", "\x00", "\x7f", " ", "\t", "\r", "\n", "\u0085", "\u2028", "ä", "ſ", "\u212a", "١", "\U0001d41a"} {
		for _, text := range []string{"Bearer a%s.b.c", "Bearer a.%sb.c", "Bearer a.b.c%sc", "Bearer a.b.c%s"} {
			rows[fmt.Sprintf(text, bad)] = false
		}
		for _, text := range []string{"Bearer%s a.b.c", "%sBearer a.b.c"} {
			rows[fmt.Sprintf(text, bad)] = strings.Contains("+~%", bad) // these may stand in a scheme
		}
	}
	texts := slices.Sorted(maps.Keys(rows))
	var pairs [][2]string
	for expression := range expressions {
		for _, text := range texts {
			pairs = append(pairs, [2]string{expression, text})
		}
	}
	for i, got := range match(t, pairs) {
		if p := pairs[i]; got != rows[p[1]] {
			t.Errorf("%q matches %.60q: %v", p[0], p[1], got)
		}
	}
}

// CloudFormation's patterns are Java expressions, too.
func TestAllowedPatterns(t *testing.T) {
	t.Parallel()
	rows := map[[2]string]bool{}
	for _, template := range translated(t) {
		parameters, _ := template.(map[string]any)["Parameters"].(map[string]any)
		for _, p := range parameters {
			p := p.(map[string]any)
			if pattern, ok := p["AllowedPattern"].(string); ok {
				rows[[2]string{pattern, fmt.Sprint(p["Default"])}] = true
				rows[[2]string{pattern, "\n\x00'\" ,"}] = false
			}
		}
		if issuer, ok := parameters["Issuer"].(map[string]any); ok {
			// A lookahead, which Go does not have.
			rows[[2]string{issuer["AllowedPattern"].(string), "https://DEPLOYMENT.zuplo.app/__zuplo/issuer"}] = false
			rows[[2]string{issuer["AllowedPattern"].(string), "https://deployment.zuplo.app/__zuplo/issuer"}] = true
		}
	}
	if len(rows) == 0 {
		t.Fatal("no parameter has an AllowedPattern")
	}
	pairs := slices.Collect(maps.Keys(rows))
	for i, got := range match(t, pairs) {
		if p := pairs[i]; got != rows[p] {
			t.Errorf("%q matches %q: %v", p[0], p[1], got)
		}
	}
}
