//go:build judges

// Package judges asks tools that nobody here wrote about the authorizer's answers and the template's expressions.
// templates.py must have translated the templates.
package judges

import (
	"bytes"
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
	host := lambdahost.New(lambdahost.Function{
		Name:    "AuthorizerFunction",
		Binary:  "../../build/authorizer/bootstrap",
		Timeout: 6 * time.Second,
		Log:     t.Output(),
		Env:     append([]string{"ISSUER=" + issuer, "AUDIENCE=" + audience, "JWKS=" + string(jwks)}, env...),
	})
	t.Cleanup(host.Close)
	return func(methodARN, token string) answer {
		t.Helper()
		text, isError, err := host.Invoke(t.Context(), toJSON(t, map[string]string{
			"type": "TOKEN", "methodArn": methodARN, "authorizationToken": "Bearer " + token,
		}))
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

	type request struct {
		Policy   json.RawMessage `json:"policy"`
		Resource string          `json:"resource"`
		Account  string          `json:"account"`
		Time     string          `json:"time"`
		want     bool
	}
	var requests []request
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
				requests = append(requests, request{policy, resource, account, at.UTC().Format(time.RFC3339), want})
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
	verdicts := fromJSON[[]string](t, ask(t, toJSON(t, requests), "node", "policies.mjs"))
	if len(verdicts) != len(requests) {
		t.Fatalf("%d verdicts on %d requests", len(verdicts), len(requests))
	}
	for i, r := range requests {
		want := map[bool]string{true: "Allowed", false: "ImplicitlyDenied"}[r.want]
		if verdicts[i] != want {
			t.Errorf("%s at %s is %s, want %s, by %s", r.Resource, r.Time, verdicts[i], want, r.Policy)
		}
	}
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

		"": false, "Bearer": false, "Bearer ": false, "a.b.c": false, "Basic a.b.c": false, "Token a.b.c": false, "Bearer: a.b.c": false,
		"Bearer  a.b.c": false, "Bearer\ta.b.c": false, "Bearera.b.c": false, "Bearer\u00a0a.b.c": false,
		"Bearer a.b.c\r\n":             false,
		"Bearer zpka_0123456789abcdef": false, "Bearer a.b": false, "Bearer a.b.": false, "Bearer .b.c": false, "Bearer a..c": false, "Bearer a.b.c.d": false, "Bearer a.b.c.d.e": false,
		"Bearer a.b.c, Bearer a.b.c": false, "ᏴEARER a.b.c": false,
	}
	for _, bad := range []string{"=", "+", "/", "~", ",", ":", "%", "\"", "\x00", "\x7f", " ", "\t", "\r", "\n", "\u0085", "\u2028", "ä", "ſ", "\u212a", "١", "\U0001d41a"} {
		for _, text := range []string{"Bearer a%s.b.c", "Bearer a.%sb.c", "Bearer a.b.c%sc", "Bearer a.b.c%s", "Bearer%s a.b.c", "%sBearer a.b.c"} {
			rows[fmt.Sprintf(text, bad)] = false
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
