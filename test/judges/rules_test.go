//go:build judges

package judges

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// A rule as it is written in RULES.
type rule struct {
	APIs   []string         `json:"apis,omitempty"`
	Routes []string         `json:"routes"`
	Scopes []string         `json:"scopes,omitempty"`
	Claims map[string][]any `json:"claims,omitempty"`
}

// A call is a request to an API.
type call struct{ api, method, path string }

// sentence is what rules mean: a request must meet every rule that names its route, and at least one must name it.
func sentence(rules []rule, c call, claims map[string]any) (allowed, named bool) {
	allowed = true
	for _, r := range rules {
		if (r.APIs == nil || slices.Contains(r.APIs, c.api)) && slices.ContainsFunc(r.Routes, c.isNamed) {
			named = true
			allowed = allowed && r.isMet(claims)
		}
	}
	return allowed && named, named
}

func (c call) isNamed(route string) bool {
	methods, path, _ := strings.Cut(route, " ")
	switch {
	case route == "$connect": // a WebSocket's
		return false
	case route == "* /*": // all there is, and so the methods beyond the seven
		return true
	case methods == "*":
		methods = "DELETE,GET,HEAD,OPTIONS,PATCH,POST,PUT"
	}
	expression := regexp.QuoteMeta(path)
	expression = strings.ReplaceAll(expression, `\*`, `.*`)
	expression = strings.ReplaceAll(expression, `\?`, `.`)
	return slices.Contains(strings.Split(methods, ","), c.method) && regexp.MustCompile(`(?s)^`+expression+`$`).MatchString(c.path)
}

func (r rule) isMet(claims map[string]any) bool {
	var granted []string
	scope, _ := claims["scope"].(string)
	granted = append(granted, strings.Fields(scope)...)
	switch scp := claims["scp"].(type) {
	case string:
		granted = append(granted, strings.Fields(scp)...)
	case []any:
		for _, s := range scp {
			if s, ok := s.(string); ok {
				granted = append(granted, s)
			}
		}
	}
	for _, s := range r.Scopes {
		if !slices.Contains(granted, s) {
			return false
		}
	}
	for name, values := range r.Claims {
		var at any = claims
		steps := []string{name}
		if pointer, ok := strings.CutPrefix(name, "/"); ok {
			steps = strings.Split(pointer, "/")
		}
		for _, step := range steps {
			object, _ := at.(map[string]any)
			at = object[step]
		}
		has, ok := at.([]any)
		if !ok {
			has = []any{at}
		}
		// Objects and null are no values of a rule.
		if !slices.ContainsFunc(has, func(v any) bool {
			switch v.(type) {
			case string, float64, bool:
				return slices.Contains(values, v)
			}
			return false
		}) {
			return false
		}
	}
	return true
}

const (
	ruleSets  = 150
	policies  = 5  // of each, one per token
	perPolicy = 20 // requests, of which the first makes the authorizer answer
)

var (
	apis = []string{"abcdef1234", "zyxwvu9876", "a1b2c3d4e5"}
	// Few, so that routes overlap. Those of requests hold what is special in IAM, in ARNs, in URLs and in expressions.
	patternParts = []string{"a", "b", "aa", "*", "*", "?", "a*", "*b", "?a", "a?", "**", "GET", "admin", "", "a.b", "a+", "%2F", "a:b", "$a", "(a)", "@"}
	requestParts = []string{"a", "b", "aa", "ab", "ba", "c", "GET", "POST", "admin", "", "a.b", "axb", "a+", "%2F", "a:b", "$a", "(a)", "@", "é", "A", "prod"}
	methodsNamed = []string{"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}
	methodsAsked = append([]string{"TRACE", "GETS", "G"}, methodsNamed...)
	scopesNamed  = []string{"read", "write", "orders:read"}
	// Numbers equal by value, and values whose types alone differ.
	claimValues = map[string][]any{
		"role":      {"admin", "user", "a b"},
		"level":     {1.0, "1", true, "true", 1.5},
		"/org/plan": {"gold", 7.0, true},
		"/org/a/b":  {"x", 0.0, false},
	}
	// The same as tokens may spell them.
	spelled = map[string][]any{
		"role":      {json.RawMessage(`"\u0061dmin"`)},
		"level":     {json.RawMessage(`1e0`), json.RawMessage(`0.15E+1`)},
		"/org/plan": {json.RawMessage(`70e-1`)},
		"/org/a/b":  {json.RawMessage(`-0.0`)},
	}
)

// A source makes rules, tokens and requests at random.
type source struct{ *rand.Rand }

func (s source) one(in ...int) int       { return in[s.IntN(len(in))] }
func pick[T any](s source, in []T) T     { return in[s.IntN(len(in))] }
func (s source) chance(percent int) bool { return s.IntN(100) < percent }
func some[T any](s source, in []T, n int) []T { // different ones
	var out []T
	for _, i := range s.Perm(len(in))[:min(n, len(in))] {
		out = append(out, in[i])
	}
	return out
}

func (s source) path(parts []string) string {
	var b strings.Builder
	for range s.one(1, 1, 2, 2, 3) {
		b.WriteString("/" + pick(s, parts))
	}
	return b.String()
}

func (s source) route() string {
	switch n := s.IntN(100); {
	case n < 4:
		return "* /*"
	case n < 12:
		return "$connect"
	}
	methods := "*"
	if s.chance(65) {
		methods = strings.Join(some(s, methodsNamed, s.one(1, 1, 2, 3)), ",")
	}
	return methods + " " + s.path(patternParts)
}

func (s source) rules() (rules []rule) {
	for range 1 + s.IntN(6) {
		var r rule
		for range 1 + s.IntN(3) {
			if route := s.route(); !slices.Contains(r.Routes, route) { // twice would be a mistake
				r.Routes = append(r.Routes, route)
			}
		}
		if s.chance(25) {
			r.APIs = some(s, apis, s.one(1, 1, 2))
		}
		if s.chance(50) {
			r.Scopes = some(s, scopesNamed, s.one(1, 1, 2))
		}
		if s.chance(40) {
			r.Claims = map[string][]any{}
			for _, name := range some(s, slices.Sorted(maps.Keys(claimValues)), s.one(1, 1, 2)) {
				r.Claims[name] = some(s, claimValues[name], s.one(1, 2, 3))
			}
		}
		rules = append(rules, r)
	}
	return rules
}

// claims are a token's that meet rules about half of the time.
func (s source) claims() map[string]any {
	claims := map[string]any{}
	scopes := some(s, append([]string{"reads", "READ", "orders"}, scopesNamed...), s.one(0, 2, 4, 6))
	list := make([]any, len(scopes))
	for i, scope := range scopes {
		list[i] = scope
	}
	switch s.IntN(4) {
	case 0:
		claims["scope"] = strings.Join(scopes, " ")
	case 1:
		claims["scp"] = strings.Join(scopes, " ")
	case 2:
		claims["scp"] = append(list, 1.0, nil)
	case 3: // either counts
		claims["scope"], claims["scp"] = strings.Join(scopes[:len(scopes)/2], " "), list[len(scopes)/2:]
	}
	value := func(name string) any {
		values := append([]any{nil, "other", 2.0, map[string]any{"admin": "admin"}, []any{[]any{"admin", 1.0}}}, claimValues[name]...)
		values = append(append(values, claimValues[name]...), spelled[name]...)
		if s.chance(30) {
			return some(s, values, s.one(0, 1, 2, 3))
		}
		return pick(s, values)
	}
	for _, name := range []string{"role", "level"} {
		if s.chance(85) {
			claims[name] = value(name)
		}
	}
	if s.chance(15) {
		claims["org"] = pick(s, []any{nil, "gold", []any{"gold"}})
	} else {
		claims["org"] = map[string]any{"plan": value("/org/plan"), "a": map[string]any{"b": value("/org/a/b")}}
	}
	if s.chance(20) {
		claims["/org/plan"] = "gold" // a pointer's name is no name
	}
	return claims
}

// call makes a request that a rule may name: most of the time it is made of one of the rules' routes.
func (s source) call(rules []rule, api string) call {
	c := call{api, pick(s, methodsAsked), s.path(requestParts)}
	if route := pick(s, pick(s, rules).Routes); s.chance(70) && route != "$connect" {
		methods, path, _ := strings.Cut(route, " ")
		if methods != "*" && s.chance(85) {
			c.method = pick(s, strings.Split(methods, ","))
		}
		c.path = ""
		for _, r := range path {
			switch r {
			case '*':
				c.path += pick(s, []string{"", "a", "b/a", "/", "é"})
			case '?':
				c.path += pick(s, []string{"a", "b", "/", "é", ""})
			default:
				c.path += string(r)
			}
		}
	}
	if c.path == "/" { // which iam-simulate does not judge
		c.path = "/a"
	}
	return c
}

// doors are the stage and the event of each kind of API whose routes iam-simulate knows: a WebSocket's is none to it.
var doors = []struct {
	stage string
	event func(arn, authorization string) map[string]any
}{
	{"prod", func(arn, authorization string) map[string]any { // a REST API
		return map[string]any{"type": "TOKEN", "methodArn": arn, "authorizationToken": authorization}
	}},
	{"$default", func(arn, authorization string) map[string]any { // an HTTP API
		return map[string]any{
			"type": "REQUEST", "version": "2.0", "routeArn": arn, "identitySource": []string{authorization},
			"headers": map[string]string{"authorization": authorization},
		}
	}},
}

// The policy that the authorizer makes for a token allows what the sentence says, whatever the rules, for every request for
// which API Gateway may serve it.
func TestRandomRules(t *testing.T) {
	t.Parallel()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	jwks := toJSON(t, map[string]any{"keys": []any{map[string]string{"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": encode(public)}}})
	now := time.Now().Truncate(time.Second)
	everything := json.RawMessage(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"execute-api:Invoke","Resource":"*"}]}`)

	var requests []request
	var wants, about []string
	for set := range ruleSets {
		t.Run(fmt.Sprint(set), func(t *testing.T) {
			s := source{rand.New(rand.NewPCG(uint64(set), 0))}
			rules := s.rules()
			env := []string{"RULES=" + string(toJSON(t, rules))}
			refused, resourcePolicy := "", json.RawMessage(nil)
			if set%2 == 1 { // beside a resource policy that allows, what is refused must be denied
				env, refused, resourcePolicy = append(env, "EXPLICIT_DENY=on"), "ExplicitlyDenied", everything
			}
			invoke := start(t, jwks, env...)
			for range policies {
				door, api := pick(s, doors), pick(s, apis)
				resource := func(c call) string {
					return "arn:aws:execute-api:eu-central-1:123456789012:" + api + "/" + door.stage + "/" + c.method + c.path
				}
				calls := make([]call, perPolicy)
				for i := range calls {
					calls[i] = s.call(rules, api)
				}
				claims := s.claims()
				payload := someClaims(now.Add(time.Hour))
				maps.Copy(payload, claims)
				token := encode([]byte(`{"alg":"EdDSA","kid":"1"}`)) + "." + encode(toJSON(t, payload))
				token += "." + encode(ed25519.Sign(private, []byte(token)))
				policy := allowed(t, invoke(door.event(resource(calls[0]), "Bearer "+token))).PolicyDocument
				for _, c := range calls {
					want := "Allowed"
					met, named := sentence(rules, c, fromJSON[map[string]any](t, toJSON(t, claims)))
					switch {
					case !met && named:
						want = "ExplicitlyDenied"
					case !met:
						want = refused
					}
					requests = append(requests, request{policy, resourcePolicy, resource(c), "123456789012", now.UTC().Format(time.RFC3339)})
					wants = append(wants, want)
					about = append(about, fmt.Sprintf("set %d, %s, a token with %s", set, toJSON(t, rules), toJSON(t, claims)))
				}
			}
		})
	}

	seen, wrong := map[string]int{}, 0
	for i, verdict := range judged(t, requests) {
		seen[wants[i]]++
		if verdict == wants[i] || wants[i] == "" && verdict == "ImplicitlyDenied" || wants[i] == "" && verdict == "ExplicitlyDenied" {
			continue
		}
		if wrong++; wrong <= 5 {
			t.Errorf("%s: %s is %s, want %s, by %s", about[i], requests[i].Resource, verdict, wants[i], requests[i].Policy)
		}
	}
	t.Logf("%d requests, %d verdicts are wrong; wanted: %v", len(requests), wrong, seen)
	for _, want := range []string{"Allowed", "ExplicitlyDenied", ""} {
		if seen[want] < len(requests)/10 {
			t.Errorf("of %d requests %d are to be %q: too few to say anything", len(requests), seen[want], want)
		}
	}
}
