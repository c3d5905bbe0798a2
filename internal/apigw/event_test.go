package apigw

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// events are one of each kind, as API Gateway sends them.
var events = map[string]Kind{
	"rest-token": RestToken, "rest-request": RestRequest, "http1": HTTP1, "http2": HTTP2, "http2-default": HTTP2, "websocket": WebSocket,
}

func fixture(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// with returns a fixture in which some members have other values, "" removes one, and others stand besides.
func with(t testing.TB, name string, members map[string]string) []byte {
	t.Helper()
	var all map[string]json.RawMessage
	if err := json.Unmarshal([]byte(fixture(t, name)), &all); err != nil {
		t.Fatal(err)
	}
	for member, value := range members {
		if all[member] = json.RawMessage(value); value == "" {
			delete(all, member)
		}
	}
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// arnOf is the member of an event that has the ARN.
func arnOf(k Kind) string {
	if k == HTTP2 {
		return "routeArn"
	}
	return "methodArn"
}

func quote(text string) string {
	quoted, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return string(quoted)
}

const (
	api  = "arn:aws:execute-api:eu-west-1:123456789012:a1b2c3d4e5/"
	prod = api + "prod/"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]Request{
		"rest-token":    {Kind: RestToken, Stage: prod, Method: "GET", Path: "/orders/7"},
		"rest-request":  {Kind: RestRequest, Stage: prod, Method: "GET", Path: "/orders/7"},
		"http1":         {Kind: HTTP1, Stage: api + "$default/", Method: "GET", Path: "/orders/7"},
		"http2":         {Kind: HTTP2, Stage: prod, Method: "GET", Path: "/orders/7"},
		"http2-default": {Kind: HTTP2, Stage: api + "$default/", Method: "DELETE", Path: "/a/b:c"},
		"websocket":     {Kind: WebSocket, Stage: prod},
	} {
		want.Token, want.API = "Bearer a.b.c", "a1b2c3d4e5"
		if got, err := Parse([]byte(fixture(t, name)), "authorization"); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, want)
		}
	}
}

func TestAPI(t *testing.T) {
	t.Parallel()
	for kind, want := range map[Kind]string{0: "", RestToken: "rest", RestRequest: "rest", HTTP1: "http", HTTP2: "http", WebSocket: "websocket"} {
		if got := kind.API(); got != want {
			t.Errorf("%d: %q, want %q", kind, got, want)
		}
	}
}

// What an event does not need may be absent, null or empty, and what nobody knows yet is ignored.
func TestEmptyMembers(t *testing.T) {
	t.Parallel()
	for name, kind := range events {
		keep := map[string]bool{"type": true, "version": true, arnOf(kind): true, "headers": true, "authorizationToken": true, "requestContext": kind == WebSocket}
		want, err := Parse([]byte(fixture(t, name)), "Authorization")
		if err != nil {
			t.Fatal(err)
		}
		var members map[string]json.RawMessage
		if err := json.Unmarshal([]byte(fixture(t, name)), &members); err != nil {
			t.Fatal(err)
		}
		for member := range members {
			if keep[member] {
				continue
			}
			for _, value := range []string{"", "null", "{}"} {
				if got, err := Parse(with(t, name, map[string]string{member: value}), "Authorization"); err != nil || got != want {
					t.Errorf("%s with %s: %q is %+v, %v", name, member, value, got, err)
				}
			}
		}
		if got, err := Parse(with(t, name, map[string]string{"new": `[{"type":"TOKEN"}]`, "another": "7"}), "Authorization"); err != nil || got != want {
			t.Errorf("%s with members that are new: %+v, %v", name, got, err)
		}
	}
}

// A caller names headers, query parameters and path parameters. None is taken for a member of the event.
func TestCallersNamesAreNotTheEvents(t *testing.T) {
	t.Parallel()
	const names = `{"type":"TOKEN","Type":"TOKEN","methodArn":"arn:aws:execute-api:eu-west-1:123456789012:other/s/GET/x","methodarn":"x","routeArn":"x",` +
		`"version":"2.0","requestContext":"x","eventType":"CONNECT","identitySource":"x","authorizationToken":"x","headers":"x","X-HTTP-Method-Override":"DELETE","X-Amz-Method":"PUT"`
	for name, kind := range events {
		want, err := Parse([]byte(fixture(t, name)), "Authorization")
		if err != nil {
			t.Fatal(err)
		}
		more := map[string]string{"queryStringParameters": names + "}", "pathParameters": names + "}", "multiValueHeaders": ""}
		if kind != RestToken {
			more["headers"] = names + `,"Authorization":"Bearer a.b.c"}`
		}
		if got, err := Parse(with(t, name, more), "Authorization"); err != nil || got != want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestPaths(t *testing.T) {
	t.Parallel()
	for _, path := range []string{
		"/", "//", "/a/", "//a", "/a//b", "/a:b/c:d", "/a%2Fb", "/%78", "/a b", "/ä/日本/😀", "/*", "/a*b?c", "/${aws:username}", "/{proxy+}",
		"/a/b/c/d/e", "/$connect", "/../other", "/a\nb", "/a\"b\\c", "/arn:aws:execute-api:eu-west-1:123456789012:x/*/GET/",
	} {
		for name, kind := range events {
			if kind == WebSocket {
				continue
			}
			for _, stage := range []string{prod, api + "$default/", api + "test-invoke-stage/"} {
				got, err := Parse(with(t, name, map[string]string{arnOf(kind): quote(stage + "PATCH" + path)}), "Authorization")
				if err != nil || got.Stage != stage || got.Method != "PATCH" || got.Path != path {
					t.Errorf("%s of %q: %+v, %v", name, path, got, err)
				}
			}
		}
	}
	if got, err := Parse(with(t, "rest-token", map[string]string{"methodArn": quote(prod + "GET")}), ""); err != nil || got.Path != "/" {
		t.Errorf("without a path: %+v, %v", got, err)
	}
}

func TestARNs(t *testing.T) {
	t.Parallel()
	long := func(length int, arn string) string { return arn + strings.Repeat("x", length-len(arn)) }
	stage := func(length int) string { return long(length-1, api) + "/" }
	for arn, want := range map[string]string{
		prod + "GET/x": prod,
		"arn:aws-cn:execute-api:cn-north-1:123456789012:a/s/GET/x":           "arn:aws-cn:execute-api:cn-north-1:123456789012:a/s/",
		"arn:aws-us-gov:execute-api:us-gov-west-1:123456789012:a/s-1_b/GET/": "arn:aws-us-gov:execute-api:us-gov-west-1:123456789012:a/s-1_b/",
		long(1600, prod+"GET/"): prod,
		stage(511) + "GET/x":    stage(511), // with the * a Resource of 512

		"":                              "",
		long(1601, prod+"GET/"):         "",
		stage(512) + "GET/x":            "",
		api + "*/GET/x":                 "",
		api + "pr?d/GET/x":              "",
		api + "${aws:username}/GET/x":   "",
		api + "$other/GET/x":            "",
		api + "$default":                "",
		api + "prod":                    "",
		api + "/GET/x":                  "",
		prod:                            "",
		prod + "*/x":                    "",
		prod + "get/x":                  "",
		prod + "$connect":               "",
		"x" + prod + "GET/x":            "",
		"\n" + prod + "GET/x":           "",
		strings.ToUpper(prod) + "GET/x": "",
		api + "pr\nod/GET/x":            "",
		api + "prod\u00e9/GET/x":        "",
		"arn:*:execute-api:eu-west-1:123456789012:a/s/GET/x":   "",
		"arn:other:execute-api:eu-west-1:123456789012:a/s/GET": "",
		"arn:aws:execute-api:*:123456789012:a/s/GET/x":         "",
		"arn:aws:execute-api:eu-west-1:*:a/s/GET/x":            "",
		"arn:aws:execute-api:eu-west-1:123456789012:*/s/GET/x": "",
		"arn:aws:execute-api:eu-west-1:12345678901:a/s/GET/x":  "",
		"arn:aws:execute-api:eu-west-1::a/s/GET/x":             "",
		"arn:aws:lambda:eu-west-1:123456789012:a/s/GET/x":      "",
	} {
		for name, kind := range events {
			if kind == WebSocket {
				continue
			}
			got, err := Parse(with(t, name, map[string]string{arnOf(kind): quote(arn)}), "Authorization")
			if got.Stage != want && err == nil || (err == nil) != (want != "") || err != nil && got.Token != "" {
				t.Errorf("%s of %.80q: %+v, %v, want %q", name, arn, got, err, want)
			}
		}
	}
	for arn, ok := range map[string]bool{
		prod + "$connect": true, "arn:aws-cn:execute-api:cn-north-1:123456789012:a/s/$connect": true,
		prod + "GET/$connect": false, prod + "$disconnect": false, prod + "$connect/x": false, prod + "$connect\n": false, api + "*/$connect": false,
		api + "$default/$connect": false, prod + "*": false, "": false, stage(512) + "$connect": false,
	} {
		if _, err := Parse(with(t, "websocket", map[string]string{"methodArn": quote(arn)}), "Authorization"); (err == nil) != ok {
			t.Errorf("a WebSocket's %.80q: %v", arn, err)
		}
	}
	for name, kind := range events {
		for _, value := range []string{"", "null", "7", "[]"} {
			if _, err := Parse(with(t, name, map[string]string{arnOf(kind): value}), "Authorization"); err == nil {
				t.Errorf("%s is taken with %q as its ARN", name, value)
			}
		}
	}
	// Each kind has its ARN in one place. The other place is no substitute.
	for name, other := range map[string]string{"http2": "methodArn", "http1": "routeArn", "rest-request": "routeArn"} {
		arn := arnOf(events[name])
		if _, err := Parse(with(t, name, map[string]string{arn: "", other: quote(prod + "GET/x")}), "Authorization"); err == nil {
			t.Errorf("%s is taken with a %s", name, other)
		}
	}
}

func TestTokenHeader(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name                           string
		header, headers, multi, source string // as JSON, except for the header's name; source "" for one that is the token
		token                          string
	}{
		{"in any case", "AUTHORIZATION", `{"aUthorization":"t"}`, ``, ``, "t"},
		{"of another name", "X-Token", `{"Authorization":"other","x-token":"t"}`, `{"Authorization":["other"],"X-TOKEN":["t"]}`, ``, "t"},
		{"in one of both", "Authorization", `null`, `{"authorization":["t"]}`, ``, "t"},
		{"a name in another case in each", "Authorization", `{"authorization":"t"}`, `{"Authorization":["t"]}`, ``, "t"},
		{"twice", "Authorization", `{"Authorization":"t"}`, `{"Authorization":["u","t"]}`, ``, ""},
		{"twice the same", "Authorization", `{"Authorization":"t"}`, `{"Authorization":["t","t"]}`, ``, ""},
		{"twice, by the values alone", "Authorization", `{}`, `{"Authorization":["t","u"]}`, ``, ""},
		{"twice, in different cases", "Authorization", `{"Authorization":"t","authorization":"u"}`, `null`, ``, ""},
		{"twice the same, in different cases", "Authorization", `{"Authorization":"t","authorization":"t"}`, `null`, ``, ""},
		{"twice, in different cases of the values", "Authorization", `{"Authorization":"t"}`, `{"Authorization":["t"],"AUTHORIZATION":["t"]}`, ``, ""},
		{"two that differ", "Authorization", `{"Authorization":"t"}`, `{"Authorization":["u"]}`, ``, ""},
		{"one that is empty beside one", "Authorization", `{"Authorization":"t"}`, `{"Authorization":["","t"]}`, ``, ""},
		{"joined", "Authorization", `{"authorization":"t,u"}`, `{}`, ``, ""},
		{"joined, with a space", "Authorization", `{"authorization":"t, t"}`, `{"authorization":["t, t"]}`, ``, ""},
		{"joined with nothing", "Authorization", `{"authorization":"t,"}`, `{}`, ``, ""},
		{"joined, and cached so", "Authorization", `{"authorization":"t,u"}`, `{}`, `["t,u"]`, ""},
		{"absent", "Authorization", `{"X-Authorization":"t"}`, `{"X-Authorization":["t"]}`, `null`, ""},
		{"no headers", "Authorization", ``, ``, `null`, ""},
		{"null", "Authorization", `{"Authorization":null}`, `{"Authorization":null}`, `null`, ""},
		{"null among the values", "Authorization", `{"Authorization":"t"}`, `{"Authorization":[null,"t"]}`, ``, ""},
		{"headers null", "Authorization", `null`, `null`, `[]`, ""},
		{"headers empty", "Authorization", `{}`, `{}`, `{}`, ""},
		{"a name that only looks alike", "Authorization", `{"Authorization ":"t"}`, `{}`, `null`, ""},
	} {
		for name, kind := range events {
			if kind == RestToken {
				continue
			}
			source := c.source
			if source == "" {
				source = `["t"]`
			}
			got, err := Parse(with(t, name, map[string]string{"headers": c.headers, "multiValueHeaders": c.multi, "identitySource": source}), c.header)
			if err != nil || got.Token != c.token {
				t.Errorf("%s, %s: %q, %v, want %q", c.name, name, got.Token, err, c.token)
			}
		}
	}
	// A TOKEN event has no headers, and its authorizer was set up with the one that counts.
	for value, token := range map[string]string{`"t"`: "t", `"t,u"`: "t,u", `""`: "", `null`: "", ``: ""} {
		got, err := Parse(with(t, "rest-token", map[string]string{"authorizationToken": value, "headers": `{"X-Token":"u"}`}), "X-Token")
		if err != nil || got.Token != token {
			t.Errorf("%s: %q, %v", value, got.Token, err)
		}
	}
}

// An HTTP API that caches the answer for something else than the token would serve one caller's to another.
func TestIdentitySource(t *testing.T) {
	t.Parallel()
	const token = "Bearer a.b.c"
	for source, ok := range map[string]bool{
		``: true, `null`: true, `""`: true, `[]`: true, `{}`: true,
		`["Bearer a.b.c"]`:                     true,
		`["203.0.113.9","Bearer a.b.c"]`:       true,
		`"Bearer a.b.c"`:                       true,
		`"203.0.113.9,Bearer a.b.c,GET /x"`:    true,
		`["203.0.113.9"]`:                      false,
		`"203.0.113.9"`:                        false,
		`"203.0.113.9, Bearer a.b.c"`:          false,
		`["Bearer a.b.C"]`:                     false,
		`["a.b.c"]`:                            false,
		`["Bearer a.b.c,203.0.113.9"]`:         false,
		`"Bearer a.b.cd"`:                      false,
		`[""]`:                                 false,
		`[null]`:                               false,
		`[["Bearer a.b.c"]]`:                   false,
		`","`:                                  false,
		`7`:                                    false,
		`false`:                                false,
		`{"Authorization":"Bearer a.b.c"}`:     false,
		`[{"Authorization":"Bearer a.b.c"},7]`: false,
	} {
		for _, name := range []string{"http1", "http2", "http2-default"} {
			got, err := Parse(with(t, name, map[string]string{"identitySource": source, "authorizationToken": ""}), "Authorization")
			switch {
			case ok && (err != nil || got.Token != token):
				t.Errorf("%s cached for %s: %+v, %v", name, source, got, err)
			case !ok && (err == nil || got.Token != "" || !strings.Contains(err.Error(), "make $request.header.Authorization the authorizer's only identity source")):
				t.Errorf("%s cached for %s: %+v, %v", name, source, got, err)
			case err != nil && (strings.Contains(err.Error(), "a.b.c") || strings.Contains(err.Error(), "203.0")):
				t.Errorf("the error repeats the event: %v", err)
			}
			if source == "" {
				continue
			}
			// A refusal, too, would be cached for the other source: where the token is absent, it is not among them.
			_, err = Parse(with(t, name, map[string]string{"identitySource": source, "headers": `{}`}), "Authorization")
			empty := ok && !strings.Contains(source, "a.b.c")
			if (err == nil) != empty {
				t.Errorf("%s without a token cached for %s: %v", name, source, err)
			}
		}
	}
	// Other kinds have no such member.
	for _, name := range []string{"rest-token", "rest-request", "websocket"} {
		if _, err := Parse(with(t, name, map[string]string{"identitySource": `["x"]`}), "Authorization"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What comes from elsewhere is told what was expected, and nothing of it is repeated.
func TestEventsOfOthers(t *testing.T) {
	t.Parallel()
	const attach = "attach this function to an authorizer of API Gateway"
	wrong := map[string]string{
		``: "not one that", `{`: "not one that", `[]`: "not one that", `"TOKEN"`: "not one that", `7`: "not one that", "\x00canary": "not one that", `{"type":"TOKEN"}{}`: "not one that",
		`{"type":["canary"]}`: "not one that", `{"type":"REQUEST","headers":{"a":["canary"]}}`: "not one that", `{"type":"REQUEST","requestContext":"canary"}`: "not one that",
		`{}`: attach, `null`: attach, `{"type":null}`: attach, `{"type":"canary"}`: attach, `{"type":"token"}`: attach, `{"type":""}`: attach,
		string(with(t, "rest-request", map[string]string{"version": `"3.0"`})):                          "payload format 1.0 or 2.0",
		string(with(t, "websocket", map[string]string{"version": `"3.0"`})):                             "payload format 1.0 or 2.0",
		string(with(t, "http2", map[string]string{"version": `"2"`})):                                   "payload format 1.0 or 2.0",
		string(with(t, "websocket", map[string]string{"requestContext": `{"eventType":"MESSAGE"}`})):    "give $connect the authorizer",
		string(with(t, "websocket", map[string]string{"requestContext": `{"eventType":"DISCONNECT"}`})): "give $connect the authorizer",
		string(with(t, "websocket", map[string]string{"requestContext": `{"eventType":"connect"}`})):    "give $connect the authorizer",
		string(with(t, "websocket", map[string]string{"requestContext": `null`})):                       "METHOD/path",
		string(with(t, "rest-request", map[string]string{"requestContext": `{"eventType":"CONNECT"}`})): "STAGE/$connect",
	}
	for _, folder := range []string{"other", "proxy"} {
		files, err := filepath.Glob("testdata/" + folder + "/*.json")
		if err != nil || len(files) < 3 {
			t.Fatalf("%v, %v", files, err)
		}
		for _, file := range files {
			wrong[fixture(t, folder+"/"+strings.TrimSuffix(filepath.Base(file), ".json"))] = attach
		}
	}
	for event, why := range wrong {
		got, err := Parse([]byte(event), "Authorization")
		if err == nil || !strings.HasPrefix(err.Error(), "reading the event") || !strings.Contains(err.Error(), why) || strings.Contains(err.Error(), "canary") || got.Token != "" {
			t.Errorf("%.200s\nis %+v, %v, want %s", event, got, err, why)
		}
	}
}

// Whatever an event is, a policy made of it stays within one stage, and its path has no part in it.
func FuzzParse(f *testing.F) {
	for name := range events {
		f.Add([]byte(fixture(f, name)), "authorization")
	}
	f.Add(with(f, "http2", map[string]string{"routeArn": quote(api + "$default/GET/*/${x}\n")}), "x-token")
	f.Fuzz(func(t *testing.T, payload []byte, header string) {
		r, err := Parse(payload, header)
		if err != nil {
			if r.Token != "" {
				t.Error("a token beside an error")
			}
			return
		}
		stage, _, _ := strings.Cut(strings.TrimPrefix(r.Stage, "arn:"), "$default/")
		parts := strings.Split(strings.TrimSuffix(r.Stage, "/"), ":")
		if strings.ContainsAny(stage, "*?${}\\\"\n \x00") || len(parts) != 6 || strings.Count(r.Stage, "/") != 2 || !strings.HasSuffix(r.Stage, "/") ||
			!strings.HasPrefix(parts[5], r.API+"/") || parts[2] != "execute-api" || r.API == "" || len(r.Stage)+len(All) > 512 {
			t.Errorf("a policy for %q", r.Stage)
		}
		var e struct{ MethodARN, RouteARN string }
		_ = json.Unmarshal(payload, &e)
		if arn := e.MethodARN + e.RouteARN; !strings.Contains(arn, r.Stage) {
			t.Errorf("%q is no part of %q", r.Stage, arn)
		}
		if r.Kind != WebSocket && (r.Path == "" || r.Path[0] != '/' || r.Method == "") {
			t.Errorf("a request for %q %q", r.Method, r.Path)
		}
		if r.Kind != RestToken && strings.Contains(r.Token, ",") {
			t.Errorf("a token with a comma: %q", r.Token)
		}
		policy := Policy{Allow: []string{"GET/a", All}, Deny: []string{"GET/b"}, Only: []string{"GET/c"}}
		for _, s := range decode(t, mustAppend(t, r, policy, "{}")).PolicyDocument.Statement {
			for _, resource := range append(s.Resource, s.NotResource...) {
				if rest, ok := strings.CutPrefix(resource, r.Stage); !ok || rest != All && !strings.HasPrefix(rest, "GET/") || len(rest) > 5 {
					t.Errorf("%q is beyond %q", resource, r.Stage)
				}
			}
		}
	})
}
