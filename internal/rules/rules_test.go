package rules

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// in finds claims in a payload.
func in(t testing.TB, payload string) func(name string) jsontext.Value {
	t.Helper()
	var members map[string]jsontext.Value
	if err := json.Unmarshal([]byte(payload), &members); err != nil {
		t.Fatal(err)
	}
	return func(name string) jsontext.Value { return members[name] }
}

func compile(t testing.TB, text string) *Set {
	t.Helper()
	s, _, err := Compile(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestApply(t *testing.T) {
	t.Parallel()
	const orders = `[
		{"routes": ["GET /orders", "GET,HEAD /orders/*"], "scopes": ["orders:read"]},
		{"routes": ["* /admin", "* /admin/*"], "claims": {"role": ["admin", "operator"], "/org/plan": ["enterprise"]}},
		{"apis": ["a1b2c3d4e5"], "routes": ["GET /status"]},
		{"routes": ["$connect"], "scopes": ["chat"]}
	]`
	const reader, admin = `{"scope":"x orders:read"}`, `{"role":"operator","org":{"plan":"enterprise"}}`
	ask := func(method, path string) Request { return Request{API: "other", Method: method, Path: path} }
	for name, c := range map[string]struct {
		rules, payload string
		request        Request
		allowed        bool
		rule           int
	}{
		"a scope that is there":                    {orders, reader, ask("GET", "/orders"), true, 0},
		"below the path":                           {orders, reader, ask("HEAD", "/orders/7/items"), true, 0},
		"* does not match nothing of the path":     {orders, reader, ask("HEAD", "/orders"), false, 0},
		"a scope that is not":                      {orders, admin, ask("GET", "/orders"), false, 1},
		"another method":                           {orders, reader, ask("POST", "/orders"), false, 0},
		"a route that nobody names":                {orders, reader, ask("GET", "/order"), false, 0},
		"case counts":                              {orders, reader, ask("GET", "/Orders"), false, 0},
		"both claims":                              {orders, admin, ask("DELETE", "/admin/x"), true, 0},
		"one of both claims":                       {orders, `{"role":"admin","org":{"plan":"free"}}`, ask("DELETE", "/admin"), false, 2},
		"a pointer into nothing":                   {orders, `{"role":"admin"}`, ask("PUT", "/admin"), false, 2},
		"an API of the rule":                       {orders, `{}`, Request{API: "a1b2c3d4e5", Method: "GET", Path: "/status"}, true, 0},
		"another API":                              {orders, `{}`, ask("GET", "/status"), false, 0},
		"a WebSocket":                              {orders, `{"scope":"chat"}`, Request{Socket: true}, true, 0},
		"a WebSocket without its scope":            {orders, reader, Request{Socket: true}, false, 4},
		"a path named like the WebSocket's":        {orders, `{"scope":"chat"}`, ask("GET", "/$connect"), false, 0},
		"every rule that names the route: first":   {`[{"routes":["GET /a"],"scopes":["x"]},{"routes":["GET /*"]}]`, `{}`, ask("GET", "/a"), false, 1},
		"every rule that names the route: last":    {`[{"routes":["GET /*"]},{"routes":["GET /a"],"scopes":["x"]}]`, `{}`, ask("GET", "/a"), false, 2},
		"the first that refused is told":           {`[{"routes":["GET /*"],"scopes":["x"]},{"routes":["GET /a"],"scopes":["y"]}]`, `{}`, ask("GET", "/a"), false, 1},
		"* /*":                                     {`[{"routes":["* /*"]}]`, `{}`, ask("TRACE", "/x//y"), true, 0},
		"* /* is refused as a whole":               {`[{"routes":["* /*"],"scopes":["x"]}]`, `{}`, ask("GET", "/"), false, 1},
		"* is seven methods":                       {`[{"routes":["* /a"]}]`, `{}`, ask("TRACE", "/a"), false, 0},
		"the method's * takes no slashes":          {`[{"routes":["* /status"]}]`, `{}`, ask("DELETE", "/admin/status"), false, 0},
		"? is one character":                       {`[{"routes":["GET /a?"]}]`, `{}`, ask("GET", "/a"), false, 0},
		"? is any character":                       {`[{"routes":["GET /a?c"]}]`, `{}`, ask("GET", "/a/c"), true, 0},
		"? is a character, not a byte":             {`[{"routes":["GET /a?c"]}]`, `{}`, ask("GET", "/aéc"), true, 0},
		"characters, not bytes, behind a *":        {`[{"routes":["GET /*??bx"]}]`, `{}`, ask("GET", "/😀bx"), false, 0},
		"a * in the request's path is a character": {`[{"routes":["GET /abc"]}]`, `{}`, ask("GET", "/a*"), false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := compile(t, c.rules).Apply(c.request, in(t, c.payload))
			if d.Refused == c.allowed || d.Rule != c.rule {
				t.Errorf("refused: %v by rule %d, want %v by rule %d", d.Refused, d.Rule, !c.allowed, c.rule)
			}
			// The policy says the same of the route, by IAM's rules: Deny wins, and what is not allowed is denied.
			asked := c.request.Method + c.request.Path
			if c.request.Socket {
				asked = "$connect"
			}
			among := func(routes []string) bool {
				return slices.ContainsFunc(routes, func(r string) bool { return iam(r, asked) })
			}
			if got := among(d.Allow) && !among(d.Deny); got != c.allowed {
				t.Errorf("the policy allows it: %v; allow %v, deny %v", got, d.Allow, d.Deny)
			}
		})
	}
}

// iam is another way to say what IAM's wildcards match.
func iam(pattern, text string) bool {
	switch {
	case pattern == "":
		return text == ""
	case pattern[0] == '*':
		return iam(pattern[1:], text) || text != "" && iam(pattern, text[first(text):])
	case text == "":
		return false
	case pattern[0] == '?':
		return iam(pattern[1:], text[first(text):])
	}
	return pattern[0] == text[0] && iam(pattern[1:], text[1:])
}

// first is the length of the first character.
func first(text string) int {
	for i := range text {
		if i > 0 {
			return i
		}
	}
	return len(text)
}

// A stage's name may be longer than Compile reckons with. Then each answer is measured.
func TestFit(t *testing.T) {
	t.Parallel()
	path := strings.Repeat("x", 350)
	s := compile(t, `[{"routes":["GET /short"]},{"apis":["a"],"routes":["GET /b","GET /`+path+`"]},{"routes":["$connect"]}]`)
	most := MaxResource - len("GET/"+path)
	for _, c := range []struct {
		prefix int
		api    string
		socket bool
		want   string
	}{
		{128, "a", false, ""}, {most, "a", false, ""}, {most + 1, "b", false, ""}, {most + 1, "a", true, ""},
		{most + 1, "a", false, "rule 2: routes: with this stage's prefix a Resource has 513 characters, at most 512 are taken"},
		{MaxResource - len("GET/short") + 1, "b", false, "rule 1: routes: "}, {MaxResource - len("$connect") + 1, "b", true, "rule 3: routes: "},
	} {
		if err := s.Fit(c.prefix, c.api, c.socket); (err == nil) != (c.want == "") || err != nil && !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("behind %d characters: %v, want %q", c.prefix, err, c.want)
		}
	}
	var routes []string
	for n := range 50 {
		routes = append(routes, fmt.Sprintf(`"GET /%0100d"`, n))
	}
	s = compile(t, `[{"routes":[`+strings.Join(routes, ",")+`]}]`)
	most = 24<<10/100 - len(`"GET/",`) - 100
	if err := s.Fit(most, "a", false); err != nil {
		t.Errorf("a policy that fits: %v", err)
	}
	if err := s.Fit(most+1, "a", false); err == nil || !strings.Contains(err.Error(), "bytes, at most 24576 are taken") {
		t.Errorf("a policy that does not fit: %v", err)
	}
	if err := s.Fit(most+1, "a", true); err != nil {
		t.Errorf("a WebSocket: %v", err)
	}
}

// What a token must have, in all the forms that it can have it in.
func TestClaims(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		asks, payload string
		met           bool
	}{
		{`"scopes":["a"]`, `{"scope":"a"}`, true},
		{`"scopes":["a"]`, `{"scope":"b a c"}`, true},
		{`"scopes":["a"]`, `{"scope":"ab"}`, false},
		{`"scopes":["a"]`, `{"scope":"A"}`, false},
		{`"scopes":["a"]`, `{"scope":""}`, false},
		{`"scopes":["a"]`, `{}`, false},
		{`"scopes":["a"]`, `{"scope":null}`, false},
		{`"scopes":["a"]`, `{"scope":["a"]}`, false},
		{`"scopes":["a"]`, `{"scp":"b a"}`, true},
		{`"scopes":["a"]`, `{"scp":["b","a"]}`, true},
		{`"scopes":["a"]`, `{"scp":["b a"]}`, false},
		{`"scopes":["a"]`, `{"scp":{"a":1}}`, false},
		{`"scopes":["a","b"]`, `{"scope":"a","scp":["b"]}`, true},
		{`"scopes":["a","b"]`, `{"scope":"a"}`, false},
		{`"scopes":["a"]`, `{"scope":"\u0061"}`, true},

		{`"claims":{"r":["x","y"]}`, `{"r":"y"}`, true},
		{`"claims":{"r":["x"]}`, `{"r":"x "}`, false},
		{`"claims":{"r":["x"]}`, `{"R":"x"}`, false},
		{`"claims":{"r":["x"]}`, `{"r":["y","x"]}`, true},
		{`"claims":{"r":["x"]}`, `{"r":[["x"]]}`, false},
		{`"claims":{"r":["x"]}`, `{"r":[]}`, false},
		{`"claims":{"r":["x"]}`, `{"r":{"x":"x"}}`, false},
		{`"claims":{"r":["null"]}`, `{"r":null}`, false},
		{`"claims":{"r":[true]}`, `{"r":""}`, false},
		{`"claims":{"r":[1]}`, `{"r":"1e0"}`, false},
		{`"claims":{"r":["\u0061"]}`, `{"r":"\u0061"}`, true},
		{`"claims":{"r":["a\\b"]}`, `{"r":"a\\b"}`, true},
		{`"claims":{"r":[""]}`, `{}`, false},
		{`"claims":{"r":[""]}`, `{"r":""}`, true},
		{`"claims":{"r":["x"],"s":["y"]}`, `{"r":"x"}`, false},
		{`"claims":{"r":["x"],"s":["y"]}`, `{"r":"x","s":"y"}`, true},

		{`"claims":{"r":[1]}`, `{"r":1}`, true},
		{`"claims":{"r":[1]}`, `{"r":"1"}`, false},
		{`"claims":{"r":["1"]}`, `{"r":1}`, false},
		{`"claims":{"r":[1]}`, `{"r":1.0}`, true},
		{`"claims":{"r":[100]}`, `{"r":1e2}`, true},
		{`"claims":{"r":[0.5]}`, `{"r":5E-1}`, true},
		{`"claims":{"r":[0]}`, `{"r":-0.0}`, true},
		{`"claims":{"r":[1]}`, `{"r":-1}`, false},
		{`"claims":{"r":[10]}`, `{"r":1}`, false},
		{`"claims":{"r":[9007199254740992]}`, `{"r":9007199254740993}`, false},
		{`"claims":{"r":[1]}`, `{"r":1e-999999999999}`, false},
		{`"claims":{"r":[true]}`, `{"r":true}`, true},
		{`"claims":{"r":[true]}`, `{"r":false}`, false},
		{`"claims":{"r":[true]}`, `{"r":"true"}`, false},
		{`"claims":{"r":[true]}`, `{"r":[1,true]}`, true},

		{`"claims":{"/a/b":["x"]}`, `{"a":{"b":"x"}}`, true},
		{`"claims":{"/a/b":["x"]}`, `{"a":{"c":1,"b":["x"]}}`, true},
		{`"claims":{"/a/b":["x"]}`, `{"/a/b":"x"}`, false},
		{`"claims":{"/a/b":["x"]}`, `{"a":"b"}`, false},
		{`"claims":{"/a/1":["x"]}`, `{"a":["w","x"]}`, true},
		{`"claims":{"/a/01":["x"]}`, `{"a":["w","x"]}`, false},
		{`"claims":{"/a/2":["x"]}`, `{"a":["w","x"]}`, false},
		{`"claims":{"/a/-":["x"]}`, `{"a":["w","x"]}`, false},
		{`"claims":{"/a/-1":["x"]}`, `{"a":["w","x"]}`, false},
		{`"claims":{"/a/0/b":["x"]}`, `{"a":[{"b":"x"}]}`, true},
		{`"claims":{"/a~1b/c~0d":["x"]}`, `{"a/b":{"c~d":"x"}}`, true},
		{`"claims":{"/a~01":["x"]}`, `{"a~1":"x"}`, true},
		{`"claims":{"/":["x"]}`, `{"":"x"}`, true},
		{`"claims":{"https://a.b/c":["x"]}`, `{"https://a.b/c":"x"}`, true},
	} {
		s := compile(t, `[{"routes":["* /*"],`+c.asks+`}]`)
		if d := s.Apply(Request{Method: "GET", Path: "/"}, in(t, c.payload)); d.Refused == c.met {
			t.Errorf("%s of %s: met is %v", c.asks, c.payload, !c.met)
		}
	}
}

// Every mistake is named by the rule's number and the member, and no value is repeated.
func TestMistakes(t *testing.T) {
	t.Parallel()
	const secret = "c2VjcmV0"
	long := strings.Repeat("x", 400)
	for text, want := range map[string]string{
		``:  "not strict JSON",
		`[`: "not strict JSON",
		`[{"routes":["GET /a"],"routes":["GET /b"]}]`:        "duplicate member",
		`[{"routes":["GET /a"],"claims":{"a":[1],"a":[2]}}]`: "duplicate member",
		`{}`:                               "not a list of rules",
		`[]`:                               "not a list of rules",
		`null`:                             "not a list of rules",
		`"c2VjcmV0"`:                       "not a list of rules",
		`[1]`:                              "rule 1: not an object",
		`[null]`:                           "rule 1: not an object",
		`[{}]`:                             "rule 1: routes: required",
		`[{"routes":["GET /a"]},{}]`:       "rule 2: routes: required",
		`[{"routes":[]}]`:                  "rule 1: routes: not a list with at least one string",
		`[{"routes":"GET /a"}]`:            "rule 1: routes: not a list with at least one string",
		`[{"routes":null}]`:                "rule 1: routes: not a list with at least one string",
		`[{"routes":["GET /a",1]}]`:        "rule 1: routes: item 2 is not a string",
		`[{"routes":["GET /a","GET /a"]}]`: "rule 1: routes: item 2 stands twice",
		`[{"routes":["c2VjcmV0"]}]`:        "rule 1: routes: item 1: not a method, a space and a path",
		`[{"routes":["GET  /a"]}]`:         "its path does not begin with a slash",
		`[{"routes":["GET a"]}]`:           "its path does not begin with a slash",
		`[{"routes":["c2VjcmV0 /a"]}]`:     "its method is not * and none of DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT",
		`[{"routes":["get /a"]}]`:          "its method is not * and none of",
		`[{"routes":["GET,* /a"]}]`:        "its method is not * and none of",
		`[{"routes":[",GET /a"]}]`:         "its method is not * and none of",
		`[{"routes":["GET,GET /a"]}]`:      "a method stands twice",
		`[{"routes":["GET /a/${aws:username}"]}]`:                            "holds ${",
		`[{"routes":["GET /a/{id}"]}]`:                                       "its path is a template",
		`[{"routes":["GET /a b"]}]`:                                          "no path of a URL has",
		`[{"routes":["GET /ä"]}]`:                                            "no path of a URL has",
		`[{"routes":["GET /a\""]}]`:                                          "no path of a URL has",
		`[{"routes":["GET /a\\"]}]`:                                          "no path of a URL has",
		`[{"routes":["GET /a#b"]}]`:                                          "no path of a URL has",
		`[{"routes":["GET /` + long + `"]}]`:                                 "its path is longer than 381 characters",
		`[{"routes":["GET /a"],"apis":["A"]}]`:                               "rule 1: apis: item 1: not the id of an API",
		`[{"routes":["GET /a"],"apis":["a*"]}]`:                              "rule 1: apis: item 1: not the id of an API",
		`[{"routes":["GET /a"],"apis":["a-b"]}]`:                             "rule 1: apis: item 1: not the id of an API",
		`[{"routes":["GET /a"],"apis":[""]}]`:                                "rule 1: apis: item 1: not the id of an API",
		`[{"routes":["GET /a"],"apis":["` + strings.Repeat("a", 65) + `"]}]`: "rule 1: apis: item 1: not the id of an API",
		`[{"routes":["GET /a"],"apis":[]}]`:                                  "rule 1: apis: not a list",
		`[{"routes":["GET /a"],"scopes":[]}]`:                                "rule 1: scopes: not a list",
		`[{"routes":["GET /a"],"scopes":["a b"]}]`:                           "rule 1: scopes: item 1: not a scope",
		`[{"routes":["GET /a"],"scopes":[""]}]`:                              "rule 1: scopes: item 1: not a scope",
		`[{"routes":["GET /a"],"scopes":["a\""]}]`:                           "rule 1: scopes: item 1: not a scope",
		`[{"routes":["GET /a"],"scope":["a"]}]`:                              "rule 1: scope: none of routes, apis, scopes and claims",
		`[{"routes":["GET /a"],"https://c2VjcmV0":1}]`:                       "rule 1: a member: none of",
		`[{"routes":["GET /a"],"two words":1}]`:                              "rule 1: a member: none of",
		`[{"routes":["GET /a"],"` + strings.Repeat("a", 33) + `":1}]`:        "rule 1: a member: none of",
		`[{"routes":["GET /a"],"claims":{}}]`:                                "rule 1: claims: not an object with at least one claim",
		`[{"routes":["GET /a"],"claims":["c2VjcmV0"]}]`:                      "rule 1: claims: not an object with at least one claim",
		`[{"routes":["GET /a"],"claims":{"c2VjcmV0":[]}}]`:                   "claim 1 in the order of names: not a list with at least one value",
		`[{"routes":["GET /a"],"claims":{"a":"c2VjcmV0"}}]`:                  "claim 1 in the order of names: not a list",
		`[{"routes":["GET /a"],"claims":{"a":[1],"b":[{}]}}]`:                "claim 2 in the order of names: value 1 is not a string, a number or a boolean",
		`[{"routes":["GET /a"],"claims":{"a":[null]}}]`:                      "value 1 is not a string, a number or a boolean",
		`[{"routes":["GET /a"],"claims":{"a":[1,1.0]}}]`:                     "value 2 stands twice",
		`[{"routes":["GET /a"],"claims":{"":["x"]}}]`:                        "its name is not of 1 to 256 bytes",
		`[{"routes":["GET /a"],"claims":{"/a~2":["x"]}}]`:                    "a JSON Pointer, in which ~ stands before 0 or 1",
		`[{"routes":["GET /a"],"claims":{"/a~":["x"]}}]`:                     "a JSON Pointer, in which ~ stands before 0 or 1",
	} {
		s, _, err := Compile(text)
		if err == nil || s != nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%.60s: %v, want %s", text, err, want)
		}
	}
	_, _, err := Compile(`[{"routes":["GET a"],"scopes":[]},{"routes":["GET /a"]},{"x":1}]`)
	if err == nil || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("all mistakes at once: %v", err)
	}
}

// The policy stays within what is taken.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	set := func(n int) string {
		var routes []string
		for i := range n {
			routes = append(routes, `"GET /`+strings.Repeat("x", 100)+string(rune('a'+i%26))+string(rune('a'+i/26))+`"`)
		}
		return `[{"routes":[` + strings.Join(routes, ",") + `]}]`
	}
	const each = 2 * (128 + len("GET/") + 102 + 3)
	most := (24 << 10) / each
	if _, _, err := Compile(set(most)); err != nil {
		t.Errorf("%d routes: %v", most, err)
	}
	if _, _, err := Compile(set(most + 1)); err == nil || !strings.Contains(err.Error(), "at most 24576 are taken") {
		t.Errorf("%d routes: %v", most+1, err)
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		`[{"routes":["GET /a"]},{"routes":["GET /b"],"scopes":["x"]}]`:                          nil,
		`[{"routes":["GET /*"]},{"routes":["* /admin/*"],"scopes":["x"]}]`:                      {"rule 1 has a wildcard that takes in a route of rule 2"},
		`[{"routes":["* /admin"],"scopes":["x"]},{"routes":["* /*"]}]`:                          {"rule 2 has a wildcard that takes in a route of rule 1"},
		`[{"routes":["GET /*"]},{"routes":["POST /admin"],"scopes":["x"]}]`:                     nil,
		`[{"routes":["GET /*"]},{"routes":["GET /open"]}]`:                                      nil,
		`[{"routes":["GET /*"],"scopes":["x"]},{"routes":["GET /a"],"claims":{"r":["admin"]}}]`: {"rule 1 has a wildcard that takes in a route of rule 2"},
	} {
		_, got, err := Compile(text)
		if err != nil || len(got) != len(want) || len(got) > 0 && !strings.HasPrefix(got[0], want[0]) {
			t.Errorf("%s: %q, %v, want %q", text, got, err, want)
		}
	}
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	s := compile(t, `[{"routes":["GET,PUT /a","$connect"]},{"apis":["b"],"routes":["* /*"]}]`)
	for _, c := range []struct {
		api    string
		socket bool
		want   []string
	}{
		{"a", false, []string{"GET/a", "PUT/a"}}, {"b", false, []string{"GET/a", "PUT/a", "*"}}, {"b", true, []string{"$connect"}},
	} {
		if got := s.Routes(c.api, c.socket); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.api, got, c.want)
		}
	}
}

// Compile never panics, and what it takes does what the plain sentence says: a request must meet every rule that names
// its route.
func FuzzRules(f *testing.F) {
	f.Add(`[{"routes":["GET,HEAD /a/*","* /?"],"scopes":["x"]},{"routes":["* /*"],"claims":{"/r/0":["y",1,true]}}]`, `{"scope":"x","r":["y"]}`, "GET", "/a/b")
	f.Fuzz(func(t *testing.T, text, payload, method, path string) {
		s, _, err := Compile(text)
		if err != nil {
			if s != nil {
				t.Error("a set beside an error")
			}
			return
		}
		var members map[string]jsontext.Value
		if !jsontext.Value(payload).IsValid() || json.Unmarshal([]byte(payload), &members) != nil || len(path) > 100 || strings.Count(text, "*") > 20 {
			return
		}
		find := func(name string) jsontext.Value { return members[name] }
		d := s.Apply(Request{Method: method, Path: path}, find)
		named, allowed := false, true
		for _, r := range s.rules {
			for _, route := range r.routes {
				if len(r.apis) == 0 && !route.socket && iam(route.resource, method+path) {
					named = true
					allowed = allowed && r.met(scopes(find("scope"), find("scp")), find)
				}
			}
		}
		if d.Refused == (named && allowed) {
			t.Errorf("refused: %v, named: %v, all met: %v", d.Refused, named, allowed)
		}
	})
}

func BenchmarkApply(b *testing.B) {
	var rules []string
	for n := range 20 {
		rules = append(rules, `{"routes":["GET /r`+string(rune('a'+n))+`/*"],"scopes":["s`+string(rune('a'+n))+`"]}`)
	}
	s := compile(b, "["+strings.Join(rules, ",")+"]")
	find := in(b, `{"scope":"sa sb sc","sub":"x"}`)
	b.ReportAllocs()
	for b.Loop() {
		s.Apply(Request{Method: "GET", Path: "/rc/1"}, find)
	}
}
