package apigw

import (
	"encoding/base64"
	"encoding/json"
	"iter"
	"os"
	"regexp"
	"slices"
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

func members(t testing.TB, payload string) iter.Seq2[string, jsontext.Value] {
	t.Helper()
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

// texts are one text or a list of them, as IAM takes either.
type texts []string

func (l *texts) UnmarshalJSON(b []byte) error {
	if b[0] == '[' {
		return json.Unmarshal(b, (*[]string)(l))
	}
	*l = texts{""}
	return json.Unmarshal(b, &(*l)[0])
}

type statement struct {
	Action, Effect        string
	Resource, NotResource texts
	Condition             map[string]map[string]string
}

// answer is what API Gateway reads, except that it would take any scalar where only strings are taken here.
type answer struct {
	PrincipalID    string `json:"principalId"`
	PolicyDocument struct {
		Version   string
		Statement []statement
	} `json:"policyDocument"`
	Context map[string]string `json:"context"`
}

// decode reads an answer strictly: no name may stand in an object twice.
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

var kinds = []Kind{RestToken, RestRequest, HTTP1, HTTP2, WebSocket}

func claimsOf(t testing.TB, payload string) Claims {
	t.Helper()
	return Claims{Principal: "who", JSON: []byte(payload), Encoded: base64.RawURLEncoding.EncodeToString([]byte(payload)), Members: members(t, payload)}
}

func mustAppend(t testing.TB, r Request, p Policy, payload string) []byte {
	t.Helper()
	b, err := r.Append([]byte("before"), p, claimsOf(t, payload))
	if err != nil {
		t.Fatal(err)
	}
	return b[len("before"):]
}

// Byte for byte what a TOKEN authorizer's answer has always been.
func TestAnswerToATokenEvent(t *testing.T) {
	t.Parallel()
	const payload = `{"sub":"a\"b","u":"\u0041\/ü","big":12345678901234567890,"f":1.10,"t":true,"no":null,"list":[1,"ü"],"obj":{"a":"\n"},` +
		`"principalId":"x","integrationLatency":1,"claims":"x","bad name":1,"ä":1,"https://a.b/c-d_e":"url"}`
	const want = `{"principalId":"who ü","policyDocument":{"Version":"2012-10-17","Statement":[{"Action":"execute-api:Invoke","Effect":"Allow",` +
		`"Resource":"arn:aws:execute-api:eu-west-1:123456789012:a1b2c3d4e5/prod/*","Condition":{"DateLessThan":{"aws:CurrentTime":"2027-01-15T08:00:01Z"}}}]},` +
		`"context":{"claims":"{\"sub\":\"a\\\"b\",\"u\":\"\\u0041\\/ü\",\"big\":12345678901234567890,\"f\":1.10,\"t\":true,\"no\":null,\"list\":[1,\"ü\"],` +
		`\"obj\":{\"a\":\"\\n\"},\"principalId\":\"x\",\"integrationLatency\":1,\"claims\":\"x\",\"bad name\":1,\"ä\":1,\"https://a.b/c-d_e\":\"url\"}",` +
		`"sub":"a\"b","u":"\u0041\/ü","big":"12345678901234567890","f":"1.10","t":"true","list":"[1,\"ü\"]","obj":"{\"a\":\"\\n\"}","https://a.b/c-d_e":"url"}}`
	r, err := Parse([]byte(fixture(t, "rest-token")), "Authorization")
	if err != nil {
		t.Fatal(err)
	}
	expires := 1800000000.5
	claims := claimsOf(t, payload)
	claims.Principal = "who ü"
	got, err := r.Append(nil, Policy{Allow: []string{All}, Expires: &expires}, claims)
	if err != nil || string(got) != want {
		t.Errorf("%v\n%s, want\n%s", err, got, want)
	}
	got, _ = r.Append(nil, Policy{Allow: []string{All}}, claims)
	if want := regexp.MustCompile(`,"Condition":\{[^}]*\}\}`).ReplaceAllString(want, ""); string(got) != want {
		t.Errorf("without a condition\n%s, want\n%s", got, want)
	}
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	const invoke = `{"Action":"execute-api:Invoke","Effect":`
	const (
		everything = `[` + invoke + `"Deny","Resource":"P/*"}]`
		less       = `"Condition":{"DateLessThan":{"aws:CurrentTime":"2027-01-15T08:00:00Z"}}}`
		late       = invoke + `"Deny","Resource":"P/*","Condition":{"DateGreaterThanEquals":{"aws:CurrentTime":"2027-01-15T08:00:00Z"}}}`
	)
	at := 1800000000.0
	for _, c := range []struct {
		name   string
		policy Policy
		want   string
	}{
		{"everything", Policy{Allow: []string{All}}, `[` + invoke + `"Allow","Resource":"P/*"}]`},
		{"everything for a time", Policy{Allow: []string{All}, Expires: &at}, `[` + invoke + `"Allow","Resource":"P/*",` + less + `]`},
		{"a route", Policy{Allow: []string{"GET/a"}}, `[` + invoke + `"Allow","Resource":"P/GET/a"}]`},
		{"routes", Policy{Allow: []string{"GET/a", "PUT/b/*"}, Deny: []string{"PUT/b/c", "*"}, Expires: &at},
			`[` + invoke + `"Allow","Resource":["P/GET/a","P/PUT/b/*"],` + less + `,` + invoke + `"Deny","Resource":["P/PUT/b/c","P/*"]}]`},
		{"nothing", Policy{}, everything},
		{"nothing met", Policy{Deny: []string{"GET/a"}, Expires: &at}, everything},
		{"nothing met, and the rest denied explicitly", Policy{Deny: []string{"GET/a"}, Only: []string{"GET/a"}, Expires: &at}, everything},
		{"the rest denied explicitly", Policy{Allow: []string{"GET/a"}, Deny: []string{"GET/b"}, Only: []string{"GET/a", "GET/b"}, Expires: &at},
			`[` + invoke + `"Allow","Resource":"P/GET/a",` + less + `,` + invoke + `"Deny","Resource":"P/GET/b"},` +
				invoke + `"Deny","NotResource":["P/GET/a","P/GET/b"]},` + late + `]`},
		{"the rest denied explicitly, for ever", Policy{Allow: []string{"GET/a"}, Only: []string{"GET/a"}},
			`[` + invoke + `"Allow","Resource":"P/GET/a"},` + invoke + `"Deny","NotResource":"P/GET/a"}]`},
		{"no rest to be denied", Policy{Allow: []string{All}, Only: []string{All}, Expires: &at}, `[` + invoke + `"Allow","Resource":"P/*",` + less + `,` + late + `]`},
		{"no rest beside everything", Policy{Allow: []string{"GET/a"}, Only: []string{"GET/a", All}}, `[` + invoke + `"Allow","Resource":"P/GET/a"}]`},
	} {
		for _, kind := range kinds {
			var got struct {
				PolicyDocument json.RawMessage `json:"policyDocument"`
			}
			b := mustAppend(t, Request{Kind: kind, Stage: "P/", Path: "/canary"}, c.policy, "{}")
			if err := json.Unmarshal(b, &got); err != nil || !jsontext.Value(b).IsValid() {
				t.Fatalf("%v in %s", err, b)
			}
			if want := `{"Version":"2012-10-17","Statement":` + c.want + `}`; string(got.PolicyDocument) != want {
				t.Errorf("%s, kind %d:\n%s, want\n%s", c.name, kind, got.PolicyDocument, want)
			}
		}
	}
}

func TestDenial(t *testing.T) {
	t.Parallel()
	const want = `{"principalId":"rejected","policyDocument":{"Version":"2012-10-17","Statement":[{"Action":"execute-api:Invoke","Effect":"Deny","Resource":"P/*"}]}}`
	if got := (Request{Kind: HTTP2, Stage: "P/", Token: "canary", Path: "/canary"}).AppendDenial(nil); string(got) != want {
		t.Errorf("%s", got)
	}
}

// What each kind of API passes on.
func TestContext(t *testing.T) {
	t.Parallel()
	const payload = `{"sub":"a-1","quote":"a\"b","backslash":"a\\b","newline":"a\nb","u":"\u0041\/ü","big":12345678901234567890,"e":1.10E+2,"t":true,"no":null,` +
		`"list":[1],"obj":{"a":1},"empty":"","principalId":"x","integrationLatency":1,"claims":"x","jwt_payload":"x","cl\u0061ims ":"x","lambda":"x"}`
	flat := map[string]string{"sub": "a-1", "u": "A/ü", "big": "12345678901234567890", "e": "1.10E+2", "t": "true", "empty": "", "lambda": "x"}
	for _, kind := range kinds {
		b := mustAppend(t, Request{Kind: kind, Stage: "P/"}, Policy{Allow: []string{All}}, payload)
		got := decode(t, b).Context
		want := map[string]string{"claims": payload, "quote": `a"b`, "backslash": `a\b`, "newline": "a\nb", "list": "[1]", "obj": `{"a":1}`}
		if kind.API() == "http" {
			want = map[string]string{"jwt_payload": base64.RawURLEncoding.EncodeToString([]byte(payload))}
			if strings.Contains(string(b), `\`) {
				t.Errorf("an HTTP API's answer holds escapes: %s", b)
			}
		}
		for name, value := range flat {
			want[name] = value
		}
		for name, value := range want {
			if got[name] != value {
				t.Errorf("kind %d: %s is %q, want %q", kind, name, got[name], value)
			}
		}
		if len(got) != len(want) {
			t.Errorf("kind %d: %d names, want %d: %v", kind, len(got), len(want), got)
		}
	}
}

// A WebSocket API takes 8 KB: claims under their own names go before the claims do.
func TestWebSocketAnswer(t *testing.T) {
	t.Parallel()
	r, policy := Request{Kind: WebSocket, Stage: prod}, Policy{Allow: []string{All}}
	answerOf := func(filler int) (int, map[string]string, error) {
		b, err := r.Append([]byte("before"), policy, claimsOf(t, `{"sub":"c","filler":"`+strings.Repeat("x", filler)+`"}`))
		if err != nil {
			return 0, nil, err
		}
		return len(b) - len("before"), decode(t, b[len("before"):]).Context, nil
	}
	size, context, err := answerOf(0)
	if err != nil || len(context) != 3 {
		t.Fatalf("%v, %v", context, err)
	}
	most := (8192 - size) / 2 // the filler stands in it twice
	if size, context, err := answerOf(most); err != nil || len(context) != 3 || size < 8191 {
		t.Errorf("with all that fits: %d bytes, %d names, %v", size, len(context), err)
	}
	size, context, err = answerOf(most + 1)
	if err != nil || len(context) != 1 || !strings.HasPrefix(context["claims"], `{"sub":"c","filler":"xx`) {
		t.Errorf("with one more: %d bytes, %d names, %v", size, len(context), err)
	}
	most += 1 + 8192 - size
	if size, context, err := answerOf(most); err != nil || len(context) != 1 || size != 8192 {
		t.Errorf("with all that fits alone: %d bytes, %d names, %v", size, len(context), err)
	}
	if _, _, err := answerOf(most + 1); err == nil || !strings.Contains(err.Error(), "8193 bytes") || strings.Contains(err.Error(), "xx") {
		t.Errorf("with too much: %v", err)
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
		claims := `{"` + string(variable[1]) + `":"x"}`
		for _, kind := range kinds {
			if c := decode(t, mustAppend(t, Request{Kind: kind}, Policy{}, claims)).Context; len(c) != 1 || c[string(variable[1])] != "" {
				t.Errorf("kind %d: the context is %v", kind, c)
			}
		}
	}
}

func TestExpires(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		expires float64
		want    string
	}{
		{1800000000, "2027-01-15T08:00:00Z"}, {1800000000.001, "2027-01-15T08:00:01Z"}, {-5, "1970-01-01T00:00:00Z"}, {1e300, "9999-12-31T23:59:59Z"},
	} {
		a := decode(t, mustAppend(t, Request{Kind: RestToken}, Policy{Allow: []string{All}, Only: []string{All}, Expires: &c.expires}, "{}"))
		s := a.PolicyDocument.Statement
		if until, from := s[0].Condition["DateLessThan"]["aws:CurrentTime"], s[1].Condition["DateGreaterThanEquals"]["aws:CurrentTime"]; until != c.want || from != c.want {
			t.Errorf("%v: until %s, from %s, want %s", c.expires, until, from, c.want)
		}
	}
}

func TestContextName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{"": false, "a": true, "A.b:c/d-e_9": true, strings.Repeat("x", 256): true, strings.Repeat("x", 257): false, "a b": false, "a\x00": false, "claims": false, "jwt_payload": false} {
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

// Whatever a token of 8 KiB holds, the answer of each kind is strict JSON of a limited size, in which no name stands twice and
// the context holds nothing but strings.
func FuzzAppend(f *testing.F) {
	f.Add([]byte(`{"a":1,"b":[1,{"c":null}],"d":"\u0000","e":null}`))
	f.Add([]byte(`{"claims":1,"cl\u0061ims2":1,"jwt_payload":"x","jwt\u005fpayload2":"\\","principalId":{}}`))
	f.Add([]byte("{" + strings.Repeat("\n", 3000) + `"x":[` + strings.Repeat("\n", 3000) + "]}"))
	f.Add([]byte(`{"a":"` + strings.Repeat(`\"`, 3000) + `"}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		if len(payload) > 6144 || !jsontext.Value(payload).IsValid() || jsontext.Value(payload).Kind() != '{' {
			return // what an 8 KiB token can hold at most
		}
		expires := 1e9
		claims := claimsOf(t, string(payload))
		claims.Principal = strings.Repeat("ü", 256)
		for _, kind := range kinds {
			r := Request{Kind: kind, Stage: strings.Repeat("r", 511)}
			b, err := r.Append(nil, Policy{Allow: []string{All}, Only: []string{All}, Expires: &expires}, claims)
			if err != nil {
				if kind != WebSocket || len(payload) < 2000 {
					t.Errorf("kind %d: %v", kind, err)
				}
				continue
			}
			a := decode(t, b)
			if most := map[bool]int{true: 8 << 10, false: 32<<10 - 1}[kind == WebSocket]; len(b) > most {
				t.Errorf("kind %d: %d bytes", kind, len(b))
			}
			name, want := "claims", string(payload)
			if kind.API() == "http" {
				name, want = "jwt_payload", claims.Encoded
				for name, value := range a.Context {
					if strings.ContainsAny(name+value, "\"\\\n\x00") {
						t.Errorf("%s: %q", name, value)
					}
				}
			}
			if a.Context[name] != want || slices.ContainsFunc(reserved, func(n string) bool { _, ok := a.Context[n]; return ok && n != name }) {
				t.Errorf("kind %d: the context is %v", kind, a.Context)
			}
		}
	})
}
