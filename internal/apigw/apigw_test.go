package apigw

import (
	"encoding/json"
	"iter"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// The answer must not depend on where the process believes to be.
func TestMain(m *testing.M) {
	time.Local = time.FixedZone("elsewhere", 3600)
	m.Run()
}

func TestParseTokenEvent(t *testing.T) {
	t.Parallel()
	e, err := ParseTokenEvent([]byte(`{"type":"TOKEN","authorizationToken":"Bearer x","methodArn":"arn"}`))
	if err != nil || e.AuthorizationToken != "Bearer x" || e.MethodARN != "arn" {
		t.Errorf("got %+v, %v", e, err)
	}
	for _, bad := range []string{``, `{`, `[]`, `{}`, `{"type":"REQUEST","authorizationToken":"SECRET"}`, `{"type":"TOKEN","authorizationToken":["SECRET"]}`} {
		if _, err := ParseTokenEvent([]byte(bad)); err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestStageResource(t *testing.T) {
	t.Parallel()
	const base = "arn:aws:execute-api:eu-west-1:123456789012:a1b2c3/"
	for _, c := range []struct{ arn, want string }{
		{base + "prod/GET/protected", base + "prod/*"},
		{base + "prod/GET/", base + "prod/*"},
		{base + "prod/GET", base + "prod/*"},
		{base + "prod/GET/a/b\nc", base + "prod/*"},
		{base + "test-invoke-stage/POST/a*b", base + "test-invoke-stage/*"},
		{"arn:aws-cn:execute-api:cn-north-1:123456789012:a/s/GET/x", "arn:aws-cn:execute-api:cn-north-1:123456789012:a/s/*"},
		{"arn:aws-us-gov:execute-api:us-gov-west-1:123456789012:a/s/GET/x", "arn:aws-us-gov:execute-api:us-gov-west-1:123456789012:a/s/*"},
		{"", ""},
		{base + "*/GET/x", ""},
		{base + "pr?d/GET/x", ""},
		{base + "prod", ""},
		{"arn:aws:execute-api:*:123456789012:a/s/GET/x", ""},
		{"arn:aws:execute-api:eu-west-1:*:a/s/GET/x", ""},
		{"arn:aws:execute-api:eu-west-1:123456789012:*/s/GET/x", ""},
		{"arn:aws:lambda:eu-west-1:123456789012:a/s/GET/x", ""},
		{"x" + base + "prod/GET/x", ""},
		{base + "prod/GET/" + strings.Repeat("x", 1600-len(base+"prod/GET/")), base + "prod/*"},
		{base + "prod/GET/" + strings.Repeat("x", 1601-len(base+"prod/GET/")), ""},
		{base + strings.Repeat("s", 512-len(base+"/*")) + "/GET/x", base + strings.Repeat("s", 512-len(base+"/*")) + "/*"},
		{base + strings.Repeat("s", 513-len(base+"/*")) + "/GET/x", ""},
	} {
		got, err := StageResource(c.arn)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("StageResource(%.80q) = %q, %v, want %q", c.arn, got, err, c.want)
		}
	}
}

func members(t testing.TB, payload string) iter.Seq2[string, jsontext.Value] {
	d := jsontext.NewDecoder(strings.NewReader(payload))
	if _, err := d.ReadToken(); err != nil {
		t.Fatal(err)
	}
	type member struct {
		name  string
		value jsontext.Value
	}
	var list []member
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			t.Fatal(err)
		}
		n := name.String()
		value, err := d.ReadValue()
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, member{n, value.Clone()})
	}
	return func(yield func(string, jsontext.Value) bool) {
		for _, m := range list {
			if !yield(m.name, m.value) {
				return
			}
		}
	}
}

// answer is what API Gateway reads, but for strings where it would take scalars.
type answer struct {
	PrincipalID    string `json:"principalId"`
	PolicyDocument struct {
		Version   string
		Statement []struct {
			Action, Effect, Resource string
			Condition                map[string]map[string]string
		}
	} `json:"policyDocument"`
	Context map[string]string `json:"context"`
}

func decode(t testing.TB, b []byte) (a answer) {
	t.Helper()
	if !jsontext.Value(b).IsValid() {
		t.Fatalf("not strict JSON: %s", b)
	}
	if err := json.Unmarshal(b, &a); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	return a
}

func TestAllow(t *testing.T) {
	t.Parallel()
	const payload = `{"sub":"a\"b","big":12345678901234567890,"f":1.10,"t":true,"no":null,"list":[1,"ü"],"obj":{"a":"\n"},` +
		`"principalId":"x","integrationLatency":1,"claims":"x","bad name":1,"ä":1,"https://a.b/c-d_e":"url"}`
	a := decode(t, Allow{Principal: "who", Resource: "arn/*", Payload: []byte(payload), Claims: members(t, payload)}.AppendTo(nil))
	if a.PrincipalID != "who" || a.PolicyDocument.Version != "2012-10-17" || len(a.PolicyDocument.Statement) != 1 {
		t.Fatalf("got %+v", a)
	}
	if s := a.PolicyDocument.Statement[0]; s.Action != "execute-api:Invoke" || s.Effect != "Allow" || s.Resource != "arn/*" || s.Condition != nil {
		t.Errorf("statement %+v", s)
	}
	want := map[string]string{"claims": payload, "sub": `a"b`, "big": "12345678901234567890", "f": "1.10", "t": "true",
		"list": `[1,"ü"]`, "obj": `{"a":"\n"}`, "https://a.b/c-d_e": "url"}
	for name, v := range want {
		if a.Context[name] != v {
			t.Errorf("context %s is %q, want %q", name, a.Context[name], v)
		}
	}
	if len(a.Context) != len(want) {
		t.Errorf("context has %d members, want %d: %v", len(a.Context), len(want), a.Context)
	}
}

// Access logs read $context.authorizer.NAME. A claim of such a name would write its text there, quotes and all.
func TestClaimsDoNotReachAccessLogs(t *testing.T) {
	t.Parallel()
	template, err := os.ReadFile("../../template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	read := regexp.MustCompile(`\$context\.authorizer\.(\w+)`).FindAllSubmatch(template, -1)
	if len(read) < 3 {
		t.Fatalf("the template's access logs read %q", read)
	}
	for _, variable := range read {
		claims := `{"` + string(variable[1]) + `":"\""}`
		a := decode(t, Allow{Payload: []byte(claims), Claims: members(t, claims)}.AppendTo(nil))
		if len(a.Context) != 1 || a.Context["claims"] != claims {
			t.Errorf("the context is %v", a.Context)
		}
	}
}

func TestCondition(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		expires float64
		want    string
	}{
		{1800000000, "2027-01-15T08:00:00Z"}, {1800000000.001, "2027-01-15T08:00:01Z"}, {-5, "1970-01-01T00:00:00Z"}, {1e300, "9999-12-31T23:59:59Z"},
	} {
		a := decode(t, Allow{Expires: &c.expires, Claims: members(t, "{}")}.AppendTo(nil))
		if got := a.PolicyDocument.Statement[0].Condition["DateLessThan"]["aws:CurrentTime"]; got != c.want {
			t.Errorf("%v: %s, want %s", c.expires, got, c.want)
		}
	}
}

func TestContextName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{"": false, "a": true, "A.b:c/d-e_9": true, strings.Repeat("x", 256): true, strings.Repeat("x", 257): false, "a b": false, "a\x00": false, "claims": false} {
		if got := contextName(name); got != want {
			t.Errorf("contextName(%q) = %v", name, got)
		}
	}
	const allowed = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_.:/-"
	for c := range 256 {
		if name := string([]byte{byte(c)}); contextName(name) != strings.Contains(allowed, name) {
			t.Errorf("contextName(%q) = %v", name, contextName(name))
		}
	}
}

func TestProxyEventClaims(t *testing.T) {
	t.Parallel()
	for event, want := range map[string]string{
		`{"requestContext":{"authorizer":{"claims":"{\"a\":12345678901234567890}"}}}`: `{"a":12345678901234567890}`,
		`{"requestContext":{"authorizer":{"claims":{"a":1}}}}`:                        "",
		`{"requestContext":{"authorizer":{"principalId":"x"}}}`:                       "",
		`{"requestContext":{"authorizer":{"claims":""}}}`:                             "",
		`{"requestContext":{"authorizer":null}}`:                                      "",
		`{"requestContext":{}}`:                                                       "",
	} {
		var e ProxyEvent
		if err := json.Unmarshal([]byte(event), &e); err != nil {
			t.Fatal(err)
		}
		if got, ok := e.Claims(); got != want || ok != (want != "") {
			t.Errorf("%s: %q, %v", event, got, ok)
		}
	}
}

func FuzzStageResource(f *testing.F) {
	f.Add("arn:aws:execute-api:eu-west-1:123456789012:a1b2c3/prod/GET/protected")
	f.Fuzz(func(t *testing.T, arn string) {
		got, err := StageResource(arn)
		if err != nil {
			return
		}
		stage, ok := strings.CutSuffix(got, "/*")
		if !ok || strings.ContainsAny(stage, "*?$\n\"") || !strings.HasPrefix(arn, stage+"/") || strings.Count(stage, "/") != 1 {
			t.Errorf("%q gives %q", arn, got)
		}
	})
}

func FuzzAllow(f *testing.F) {
	f.Add([]byte(`{"a":1,"b":[1,{"c":null}],"d":"\u0000","e":null}`))
	f.Add([]byte("{" + strings.Repeat("\n", 3000) + `"x":[` + strings.Repeat("\n", 3000) + "]}"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		if len(payload) > 6144 || !jsontext.Value(payload).IsValid() || jsontext.Value(payload).Kind() != '{' {
			return // what an 8 KiB token can hold at most
		}
		expires := 1e9
		b := Allow{Principal: strings.Repeat("ü", 256), Resource: strings.Repeat("r", 512), Expires: &expires,
			Payload: payload, Claims: members(t, string(payload))}.AppendTo(nil)
		if a := decode(t, b); a.Context["claims"] != string(payload) {
			t.Errorf("claims are %q, want %q", a.Context["claims"], payload)
		}
		if len(b) >= 32<<10 {
			t.Errorf("%d bytes", len(b))
		}
	})
}
