package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"zuplo-lambda-authorizer/internal/config"
)

// doors are the kinds of events, by names of their own, and the API that the log has for each.
var doors = map[string]string{"rest token": "rest", "rest request": "rest", "http 1.0": "http", "http 2.0": "http", "websocket": "websocket"}

const stageARN = "arn:aws:execute-api:us-east-1:123456789012:abc/prod/"

// knock returns an event of that kind about a route, as GET/orders, with the token in the Authorization header.
func knock(kind, route, authorization string) []byte {
	event := map[string]any{
		"type": "REQUEST", "methodArn": stageARN + route, "headers": map[string]string{"Authorization": authorization},
		"multiValueHeaders": map[string][]string{"Authorization": {authorization}},
	}
	switch kind {
	case "rest token":
		event = map[string]any{"type": "TOKEN", "methodArn": stageARN + route, "authorizationToken": authorization}
	case "http 1.0":
		event["version"], event["identitySource"], event["authorizationToken"] = "1.0", authorization, authorization
	case "http 2.0":
		event = map[string]any{
			"type": "REQUEST", "version": "2.0", "routeArn": stageARN + route, "identitySource": []string{authorization},
			"headers": map[string]string{"authorization": authorization},
		}
	case "websocket":
		event["methodArn"], event["requestContext"] = stageARN+"$connect", map[string]string{"eventType": "CONNECT"}
	}
	text, err := json.Marshal(event)
	must(err)
	return text
}

// An answer is what API Gateway makes of one.
type answer struct {
	PrincipalID    string `json:"principalId"`
	PolicyDocument struct {
		Statement []struct {
			Effect                string
			Resource, NotResource json.RawMessage
			Condition             map[string]any
		}
	} `json:"policyDocument"`
	Context map[string]string `json:"context"`
}

// policy is the statements, short: their effect and their routes, ! for all but those, and the condition's operator.
func (a answer) policy() string {
	var all []string
	for _, s := range a.PolicyDocument.Statement {
		text := s.Effect + " " + string(s.Resource)
		if s.NotResource != nil {
			text = s.Effect + " !" + string(s.NotResource)
		}
		for operator := range s.Condition {
			text += " " + operator
		}
		all = append(all, strings.NewReplacer(stageARN, "", `"`, "").Replace(text))
	}
	return strings.Join(all, "; ")
}

func read1(t *testing.T, text []byte) (a answer) {
	t.Helper()
	if err := json.Unmarshal(text, &a); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return a
}

const edDSA = `{"alg":"EdDSA","kid":"EdDSA"}`

func TestAllowAtEveryDoor(t *testing.T) {
	t.Parallel()
	for kind, api := range doors {
		s := newStand(t, map[string]string{"JWKS": keySet()})
		payload := s.claims(`,"list":["é"],"quote":"\"","n":1.50`)
		text, line, err := s.invoke(t, knock(kind, "GET/protected", sign("EdDSA", edDSA, payload)))
		if err != nil || line["verdict"] != "allow" || line["api"] != api || line["answer"] != "policy" || line["rule"] != nil || line["would_forbid"] != nil {
			t.Fatalf("%s: %v, log %v", kind, err, line)
		}
		want := map[string]string{"claims": payload, "list": `["é"]`, "quote": `"`}
		if api == "http" {
			want = map[string]string{"jwt_payload": b64([]byte(payload))}
		}
		maps.Copy(want, map[string]string{"iss": s.issuer, "aud": "us", "sub": "caller-canary", "exp": "1795521660", "iat": "1795521590", "secret": "claim-canary", "n": "1.50"})
		a := read1(t, text)
		if !maps.Equal(a.Context, want) || a.PrincipalID != "caller-canary" || a.policy() != "Allow * DateLessThan" {
			t.Errorf("%s: %s", kind, text)
		}
	}
}

// A WebSocket API takes 8 KB. More is a fault that says so, and no part of the claims is left out silently.
func TestClaimsTooLargeForAWebSocket(t *testing.T) {
	t.Parallel()
	s := newStand(t, map[string]string{"JWKS": keySet()})
	for filler, verdict := range map[string]string{strings.Repeat("x", 4500): "allow", strings.Repeat(`\"`, 2400): "fault"} {
		text, line, err := s.invoke(t, knock("websocket", "", sign("EdDSA", edDSA, s.claims(`,"filler":"`+filler+`"`))))
		if line["verdict"] != verdict || (err != nil) != (verdict == "fault") || len(text) > 8192 || err != nil && (text != nil || line["answer"] != "error" || err.Error() == "Unauthorized") {
			t.Errorf("%d bytes, %v, log %v", len(text), err, line)
		}
	}
}

const shop = `[
	{"routes": ["GET /orders", "GET,HEAD /orders/*"], "scopes": ["orders:read"]},
	{"routes": ["* /admin/*"], "claims": {"role": ["admin"]}},
	{"apis": ["other"], "routes": ["GET /status"]},
	{"routes": ["$connect"], "scopes": ["chat"]}
]`

func TestRules(t *testing.T) {
	t.Parallel()
	const (
		orders = "GET/orders,GET/orders/*,HEAD/orders/*"
		admin  = "DELETE/admin/*,GET/admin/*,HEAD/admin/*,OPTIONS/admin/*,PATCH/admin/*,POST/admin/*,PUT/admin/*"
		reads  = `,"scope":"orders:read x"`
		both   = reads + `,"role":"admin"`
		sorted = "Allow [" + orders + "] DateLessThan; Deny [" + admin + "]"
	)
	explicit := func(less, denies string) string {
		return "Allow [" + less + "] DateLessThan; " + denies + "Deny ![" + orders + "," + admin + "]; Deny * DateGreaterThanEquals"
	}
	for _, c := range []struct {
		name, kind, route, claims string
		env                       map[string]string
		verdict                   string
		rule                      any // in the log
		policy                    string
	}{
		{"met", "", "GET/orders/7", reads, nil, "allow", nil, sorted},
		{"another route's not met", "", "POST/admin/x", reads, nil, "forbid", 2.0, sorted},
		{"a route that nobody names", "", "GET/other", reads, nil, "forbid", 0.0, sorted},
		{"a rule of another API", "", "GET/status", reads, nil, "forbid", 0.0, sorted},
		{"a rule of this API", "", "GET/status", "", map[string]string{"RULES": `[{"apis":["abc"],"routes":["GET /status"]}]`}, "allow", nil, "Allow GET/status DateLessThan"},
		{"all met", "", "POST/admin/x", both, nil, "allow", nil, "Allow [" + orders + "," + admin + "] DateLessThan"},
		{"nothing met", "", "GET/orders", "", nil, "forbid", 1.0, "Deny *"},
		{"a path is not a pattern", "", "GET/orders*", reads, nil, "forbid", 0.0, sorted},
		{"for ever", "", "GET/orders/7", reads, map[string]string{"POLICY_EXPIRY": "off"}, "allow", nil, strings.ReplaceAll(sorted, " DateLessThan", "")},

		{"explicitly", "", "GET/orders/7", reads, map[string]string{"EXPLICIT_DENY": "on"}, "allow", nil, explicit(orders, "Deny ["+admin+"]; ")},
		{"explicitly, all met", "", "GET/x", both, map[string]string{"EXPLICIT_DENY": "on"}, "forbid", 0.0, explicit(orders+","+admin, "")},
		{"explicitly, nothing met", "", "GET/orders", "", map[string]string{"EXPLICIT_DENY": "on"}, "forbid", 1.0, "Deny *"},
		{"explicitly, for ever", "", "GET/orders/7", both, map[string]string{"EXPLICIT_DENY": "on", "POLICY_EXPIRY": "off"}, "allow", nil,
			"Allow [" + orders + "," + admin + "]; Deny ![" + orders + "," + admin + "]"},
		{"explicitly, without rules", "", "GET/orders/7", "", map[string]string{"EXPLICIT_DENY": "on", "RULES": ""}, "allow", nil, "Allow * DateLessThan; Deny * DateGreaterThanEquals"},

		{"told only", "", "GET/orders/7", reads, map[string]string{"RULES_MODE": "log"}, "allow", nil, "Allow * DateLessThan"},
		{"told only, not met", "", "GET/orders/7", "", map[string]string{"RULES_MODE": "log"}, "allow", 1.0, "Allow * DateLessThan"},
		{"told only, not named", "", "GET/x", reads, map[string]string{"RULES_MODE": "log"}, "allow", 0.0, "Allow * DateLessThan"},
		{"told only, and explicitly", "", "GET/x", reads, map[string]string{"RULES_MODE": "log", "EXPLICIT_DENY": "on"}, "allow", 0.0, "Allow * DateLessThan; Deny * DateGreaterThanEquals"},

		{"a connection", "websocket", "", `,"scope":"chat"`, nil, "allow", nil, "Allow $connect DateLessThan"},
		{"a connection, not met", "websocket", "", reads, nil, "forbid", 4.0, "Deny *"},
		{"a connection, explicitly", "websocket", "", `,"scope":"chat"`, map[string]string{"EXPLICIT_DENY": "on"}, "allow", nil,
			"Allow $connect DateLessThan; Deny !$connect; Deny * DateGreaterThanEquals"},
		{"a connection that nobody names", "websocket", "", both, map[string]string{"RULES": `[{"routes":["* /*"]}]`}, "forbid", 0.0, "Deny *"},
		{"a connection that nobody names, told only", "websocket", "", both, map[string]string{"RULES": `[{"routes":["* /*"]}]`, "RULES_MODE": "log"}, "allow", 0.0, "Allow * DateLessThan"},
	} {
		for kind, api := range doors {
			if (c.kind == "websocket") != (kind == "websocket") {
				continue
			}
			env := map[string]string{"JWKS": keySet(), "RULES": shop}
			maps.Copy(env, c.env)
			s := newStand(t, env)
			token := sign("EdDSA", edDSA, s.claims(c.claims))
			text, line, err := s.invoke(t, knock(kind, c.route, token))
			s.explain(t, kind, c.route, token, line)
			if err != nil || line["verdict"] != c.verdict || line["rule"] != c.rule || line["level"] != "INFO" || line["api"] != api || line["answer"] != "policy" || line["reason"] != nil {
				t.Errorf("%s, %s: %v, log %v, want %s by rule %v", c.name, kind, err, line, c.verdict, c.rule)
			}
			if would := c.verdict == "allow" && c.rule != nil; (line["would_forbid"] == true) != would || line["would_forbid"] != nil && !would {
				t.Errorf("%s, %s: would_forbid is %v, want %v", c.name, kind, line["would_forbid"], would)
			}
			if a := read1(t, text); a.policy() != c.policy || a.Context["sub"] != "caller-canary" {
				t.Errorf("%s, %s:\n%s, want\n%s", c.name, kind, a.policy(), c.policy)
			}
		}
	}
}

// API Gateway serves one policy for all routes of a token: the policy must not depend on the one that was asked for.
func TestPolicyIsTheTokens(t *testing.T) {
	t.Parallel()
	for _, env := range []map[string]string{{}, {"RULES": shop}, {"RULES": shop, "EXPLICIT_DENY": "on"}, {"RULES": shop, "RULES_MODE": "log"}} {
		s := newStand(t, map[string]string{"JWKS": keySet(), "RULES": env["RULES"], "EXPLICIT_DENY": env["EXPLICIT_DENY"], "RULES_MODE": env["RULES_MODE"]})
		for _, claims := range []string{`,"scope":"orders:read"`, `,"role":"admin"`, ``} {
			token := sign("EdDSA", edDSA, s.claims(claims))
			for kind := range doors {
				var first []byte
				for _, route := range []string{"GET/orders", "POST/admin/x", "GET/", "GET/other/*", "DELETE/${aws:username}", "PUT/a%2Fb//"} {
					text, _, err := s.invoke(t, knock(kind, route, token))
					if err != nil || first != nil && !bytes.Equal(first, text) {
						t.Errorf("%s of %s with %v: %v\n%s, before\n%s", kind, route, env, err, text, first)
					}
					first = text
				}
			}
		}
	}
}

// At the start rules are measured for a stage's prefix of 128 characters. A longer one is measured with each answer.
func TestRulesBehindALongStage(t *testing.T) {
	t.Parallel()
	path := strings.Repeat("x", 370)
	rules := `[{"routes":["GET /a"]},{"routes":["GET /` + path + `"],"scopes":["never"]}]`
	long := func(kind string, by int) []byte {
		most := 512 - len("GET/") - len(path)
		stage := strings.TrimSuffix(stageARN, "/")
		stage += strings.Repeat("s", most+by-len(stage)-1) + "/"
		return bytes.Replace(knock(kind, "GET/a", sign("EdDSA", edDSA, `CLAIMS`)), []byte(stageARN), []byte(stage), 1)
	}
	for kind := range doors {
		if kind == "websocket" {
			continue
		}
		for mode, faults := range map[string]bool{"enforce": true, "log": false} {
			s := newStand(t, map[string]string{"JWKS": keySet(), "RULES": rules, "RULES_MODE": mode})
			for by, fault := range map[int]bool{0: false, 1: faults} {
				event := bytes.ReplaceAll(long(kind, by), []byte(sign("EdDSA", edDSA, `CLAIMS`)), []byte(sign("EdDSA", edDSA, s.claims(""))))
				text, line, err := s.invoke(t, event)
				if (line["verdict"] == "fault") != fault || (err != nil) != fault || (text == nil) != fault {
					t.Errorf("%s, %s, %d more than fits: %v, log %v", kind, mode, by, err, line)
				}
				if fault && !strings.Contains(fmt.Sprint(line["error"]), "RULES: rule 2: routes: with this stage's prefix a Resource has 513 characters, at most 512 are taken") {
					t.Errorf("the fault reads %v", line["error"])
				}
			}
		}
	}
}

func TestWarningsAboutRules(t *testing.T) {
	t.Parallel()
	s := newStand(t, map[string]string{"RULES": `[{"routes":["GET /*"]},{"routes":["* /admin/*"],"scopes":["admin"]}]`})
	if log := s.log.String(); strings.Count(log, "\n") != 1 || !strings.Contains(log, `"level":"WARN","msg":"RULES: rule 1 has a wildcard that takes in a route of rule 2`) {
		t.Errorf("log %s", log)
	}
}

// The token is looked for in the header and behind the scheme that are set, and nowhere else.
func TestTokenHeaderAndPrefix(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		header, prefix string // settings
		name, before   string // in the request
		allowed        bool
	}{
		{"", "", "authorization", "Bearer ", true},
		{"", "", "Authorization", "bEARER ", true},
		{"", "", "Authorization", "", false},
		{"", "", "X-Token", "Bearer ", false},
		{"X-Zuplo-Token", "", "x-zuplo-TOKEN", "Bearer ", true},
		{"x-zuplo-token", "", "X-Zuplo-Token", "Bearer ", true},
		{"X-Zuplo-Token", "", "Authorization", "Bearer ", false},
		{"", "Token", "Authorization", "Token ", true},
		{"", "Token", "Authorization", "tOKEN ", true},
		{"", "Token", "Authorization", "Bearer ", false},
		{"", "Token", "Authorization", "", false},
		{"", "none", "Authorization", "", true},
		{"", "NONE", "Authorization", "", true},
		{"", "none", "Authorization", "Bearer ", false},
		{"", "none", "Authorization", "none ", false},
		{"", "none", "Authorization", " ", false},
		{"X-Token", "none", "x-token", "", true},
	} {
		s := newStand(t, map[string]string{"JWKS": keySet(), "TOKEN_HEADER": c.header, "TOKEN_PREFIX": c.prefix})
		value := c.before + strings.TrimPrefix(sign("EdDSA", edDSA, s.claims("")), "Bearer ")
		for kind := range doors {
			event := knock(kind, "GET/x", value)
			// In payload format 2.0 all headers are in lower case.
			event = bytes.Replace(event, []byte(`"Authorization"`), []byte(`"`+c.name+`"`), 2)
			event = bytes.Replace(event, []byte(`"authorization"`), []byte(`"`+strings.ToLower(c.name)+`"`), 1)
			want := map[bool]string{true: "allow", false: "reject"}[c.allowed]
			other := !strings.EqualFold(c.name, map[bool]string{true: "Authorization", false: c.header}[c.header == ""])
			switch {
			case kind == "rest token" && other:
				want = "allow" // API Gateway has chosen the header
			case doors[kind] == "http" && other:
				want = "fault" // the answer would be cached for another header
			}
			_, line, err := s.invoke(t, event)
			if !other && (c.before != "" || c.prefix == "none") { // explain takes a token alone for one behind its scheme
				s.explain(t, kind, "GET/x", value, line)
			}
			if line["verdict"] != want || line["verdict"] == "reject" && (line["reason"] != "malformed" || line["detail"] != "form") {
				t.Errorf("%+v, %s: %v, log %v, want %s", c, kind, err, line, want)
			}
		}
	}
}

// A header that stands twice is refused before anything else is looked at.
func TestTokenTwice(t *testing.T) {
	t.Parallel()
	s := newStand(t, map[string]string{"JWKS": keySet()})
	good := sign("EdDSA", edDSA, s.claims(""))
	quoted := func(v string) []byte { return []byte(`"` + v + `"`) }
	for name, event := range map[string][]byte{
		"rest request: two values":      bytes.Replace(knock("rest request", "GET/x", good), append([]byte("["), quoted(good)...), []byte(`["Bearer x","`+good+`"`), 1),
		"rest request: two cases":       bytes.Replace(knock("rest request", "GET/x", good), []byte(`"headers":{`), []byte(`"headers":{"authorization":"Bearer x",`), 1),
		"http 1.0: two values":          bytes.Replace(knock("http 1.0", "GET/x", good), append([]byte("["), quoted(good)...), []byte(`["`+good+`","`+good+`"`), 1),
		"http 2.0: joined":              knock("http 2.0", "GET/x", good+","+good),
		"http 2.0: joined with nothing": knock("http 2.0", "GET/x", good+","),
		"websocket: joined":             knock("websocket", "", "Bearer x, "+good),
	} {
		text, line, err := s.invoke(t, event)
		if line["verdict"] != "reject" || line["reason"] != "malformed" || line["alg"] != nil || line["issuer"] != nil || bytes.Contains(text, []byte("Allow")) {
			t.Errorf("%s: %s, %v, log %v", name, text, err, line)
		}
		if denied := bytes.Contains(text, []byte(`"Deny"`)); denied != strings.HasPrefix(name, "http") || denied == (err == config.ErrUnauthorized) {
			t.Errorf("%s: %s, %v", name, text, err)
		}
	}
}

// Each issuer has keys and audiences of its own.
func TestIssuers(t *testing.T) {
	t.Parallel()
	only := func(alg string) string { // a set with the key of one algorithm
		var set struct {
			Keys []map[string]string `json:"keys"`
		}
		must(json.Unmarshal([]byte(keySet()), &set))
		set.Keys = slices.DeleteFunc(set.Keys, func(k map[string]string) bool { return k["kid"] != alg })
		text, err := json.Marshal(set)
		must(err)
		return string(text)
	}
	s := newStand(t, map[string]string{"ISSUER": "", "AUDIENCE": "", "ISSUERS": `[
		{"issuer": "https://a.example", "jwks": ` + only("EdDSA") + `, "audiences": ["us", "both"]},
		{"issuer": "https://b.example", "jwks": ` + only("ES256") + `, "audiences": ["them", "both"]},
		{"issuer": "https://c.example", "jwks": ` + only("ES384") + `}]`})
	if log := s.log.String(); strings.Count(log, "no audience is set") != 1 || !strings.Contains(log, `"issuer":"https://c.example"`) {
		t.Errorf("log %s", log)
	}
	for _, c := range []struct{ issuer, alg, aud, want string }{
		{"a", "EdDSA", "us", "allow"}, {"a", "EdDSA", "both", "allow"}, {"a", "EdDSA", "them", "audience"}, {"a", "ES256", "us", "unknown_key"},
		{"b", "ES256", "them", "allow"}, {"b", "ES256", "both", "allow"}, {"b", "ES256", "us", "audience"}, {"b", "EdDSA", "them", "unknown_key"},
		{"c", "ES384", "any", "allow"}, {"c", "ES256", "them", "unknown_key"}, {"d", "EdDSA", "us", "issuer"},
	} {
		s.issuer = "https://" + c.issuer + ".example"
		claims := strings.Replace(s.claims(""), `"us"`, `"`+c.aud+`"`, 1)
		token := sign(c.alg, `{"alg":"`+c.alg+`","kid":"`+c.alg+`"}`, claims)
		_, line, err := s.invoke(t, event(token))
		s.explain(t, "rest token", "GET/protected", token, line)
		got := line["verdict"]
		if got == "reject" {
			got = line["reason"]
		}
		if got != c.want || (err == nil) != (c.want == "allow") {
			t.Errorf("%+v: %v, log %v", c, err, line)
		}
	}
}
