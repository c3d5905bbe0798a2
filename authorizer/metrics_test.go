package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"zuplo-lambda-authorizer/internal/jwt"
)

// A filter is an AWS::Logs::MetricFilter of the template.
type filter struct {
	metric, value, absent string // absent: in a minute with other lines alone
	matches               func(line map[string]any) bool
}

func templateFilters(t *testing.T) []filter {
	t.Helper()
	text, err := os.ReadFile("../template.yaml")
	must(err)
	var template struct {
		Resources map[string]struct {
			Type       string    `yaml:"Type"`
			Properties yaml.Node `yaml:"Properties"`
		} `yaml:"Resources"`
	}
	must(yaml.Unmarshal(text, &template))
	var filters []filter
	for id, r := range template.Resources {
		if r.Type != "AWS::Logs::MetricFilter" {
			continue
		}
		var p struct {
			LogGroupName          string              `yaml:"LogGroupName"`
			FilterPattern         string              `yaml:"FilterPattern"`
			MetricTransformations []map[string]string `yaml:"MetricTransformations"`
		}
		must(r.Properties.Decode(&p))
		matches, err := filterPattern(p.FilterPattern)
		if err != nil || p.LogGroupName != "AuthorizerLogs" || len(p.MetricTransformations) != 1 {
			t.Fatalf("%s: %v, %v", id, p, err)
		}
		m := p.MetricTransformations[0]
		filters = append(filters, filter{m["MetricName"], m["MetricValue"], m["DefaultValue"], matches})
	}
	return filters
}

// filterPattern reads the part of CloudWatch Logs' filter patterns for JSON that the template uses: selectors of members
// ($.name), = with a text, >= with a number, IS TRUE, &&, || and parentheses. Rewritten, these are Go expressions.
func filterPattern(pattern string) (func(line map[string]any) bool, error) {
	if !regexp.MustCompile(`^\{ (\(*\$\.[a-z_]+ (= "[a-z_]+"|>= [0-9]+|IS TRUE)\)*( (&&|\|\|) | \}$))+$`).MatchString(pattern) {
		return nil, fmt.Errorf("%s is not understood here", pattern)
	}
	expr, err := parser.ParseExpr(strings.NewReplacer("{", "", "}", "", "$.", "", " = ", " == ", "IS TRUE", "== true").Replace(pattern))
	if err != nil {
		return nil, err
	}
	return func(line map[string]any) bool { return holds(expr, line) }, nil
}

// holds is false for what CloudWatch would not compare: a member that is missing or of another type.
func holds(expr ast.Expr, line map[string]any) bool {
	if p, ok := expr.(*ast.ParenExpr); ok {
		return holds(p.X, line)
	}
	e := expr.(*ast.BinaryExpr)
	switch e.Op {
	case token.LAND:
		return holds(e.X, line) && holds(e.Y, line)
	case token.LOR:
		return holds(e.X, line) || holds(e.Y, line)
	}
	member := line[e.X.(*ast.Ident).Name]
	switch want := e.Y.(type) {
	case *ast.Ident: // true
		return member == true
	case *ast.BasicLit:
		if want.Kind == token.STRING {
			text, err := strconv.Unquote(want.Value)
			must(err)
			return member == text
		}
		low, err := strconv.ParseFloat(want.Value, 64)
		must(err)
		n, ok := member.(float64)
		return ok && n >= low
	}
	panic("an operand that filterPattern does not let through")
}

func TestFilterPattern(t *testing.T) {
	t.Parallel()
	line := map[string]any{"a": "x", "n": 3.0, "yes": true, "no": false, "text": "true"}
	for pattern, want := range map[string]bool{
		`{ $.a = "x" }`: true, `{ $.a = "y" }`: false, `{ $.b = "x" }`: false, `{ $.n = "x" }`: false,
		`{ $.n >= 3 }`: true, `{ $.n >= 4 }`: false, `{ $.a >= 0 }`: false, `{ $.b >= 0 }`: false,
		`{ $.yes IS TRUE }`: true, `{ $.no IS TRUE }`: false, `{ $.text IS TRUE }`: false, `{ $.b IS TRUE }`: false,
		`{ $.a = "x" && $.n >= 4 }`: false, `{ $.a = "y" || $.n >= 3 }`: true,
		`{ $.a = "y" && ($.a = "x" || $.n >= 3) }`: false, `{ $.a = "x" && ($.a = "y" || $.n >= 3) }`: true,
	} {
		matches, err := filterPattern(pattern)
		if err != nil || matches(line) != want {
			t.Errorf("%s: %v, %v", pattern, !want, err)
		}
	}
	for _, pattern := range []string{``, `{ }`, `$.a = "x"`, `{ $.a == "x" }`, `{ a = "x" }`, `{ $.a = x }`, `{ $.a = "x" && }`, `{ ($.a = "x" }`, `{ $.a.b = "x" }`, `{ $.a = "x" & $.n >= 3 }`, `{ $.a IS NULL }`} {
		if _, err := filterPattern(pattern); err == nil {
			t.Errorf("%s is taken", pattern)
		}
	}
}

var (
	allReasons = []jwt.Reason{
		jwt.Malformed, jwt.Algorithm, jwt.KeyID, jwt.Issuer, jwt.Expired, jwt.NotYetValid, jwt.Audience, jwt.UnknownKey, jwt.UnfitKey, jwt.Signature, jwt.TooOld,
	}
	allDetails = []jwt.Detail{jwt.Size, jwt.Form, jwt.JSON, jwt.Type, jwt.Crit, jwt.Typ, jwt.Absent, jwt.TrailingSlash, jwt.Case}
)

// docs/explain.md says what each reason and detail means, and the runbook what to do about it.
func TestReasonsAreExplained(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../docs/explain.md")
	must(err)
	runbook, err := os.ReadFile("../docs/operations.md")
	must(err)
	_, chapter, _ := strings.Cut(string(runbook), "\n## Callers get 401\n")
	chapter, _, _ = strings.Cut(chapter, "\n## ")
	for _, r := range allReasons {
		if !strings.Contains(string(readme), "\n| `"+string(r)+"` |") {
			t.Errorf("docs/explain.md does not explain %s", r)
		}
		if !strings.Contains(chapter, "`"+string(r)+"`") {
			t.Errorf("the runbook does not explain %s", r)
		}
	}
	for _, d := range allDetails {
		if !strings.Contains(string(readme), "`"+string(d)+"`") || !strings.Contains(chapter, "`"+string(d)+"`") {
			t.Errorf("docs/explain.md or the runbook does not explain %s", d)
		}
	}
}

// Each line that the authorizer writes is counted by the metrics meant for it and by no other.
func TestMetrics(t *testing.T) {
	t.Parallel()
	const header = `{"alg":"EdDSA","kid":"EdDSA"}`
	forged := func(token string) string { return token[:len(token)-86] + strings.Repeat("A", 86) }
	outage := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }
	swap := func(old, new string) func(string) string {
		return func(claims string) string { return strings.Replace(claims, old, new, 1) }
	}
	rows := []struct {
		name   string
		env    map[string]string
		header string
		claims func(string) string
		token  func(string) string
		warm   bool // keys are there before
		serve  http.HandlerFunc
		ahead  time.Duration
		event  []byte
		http   bool     // an HTTP API asks
		want   []string // metrics of the decision and of the fetch, sorted
	}{
		{name: "allow", warm: true, want: []string{"Allowed", "KeyAge"}},
		{name: "allow after a fetch", want: []string{"Allowed", "FetchesOk", "KeyAge", "KeysMaxStale", "KeysTtl"}},
		{name: "allow by pinned keys", env: map[string]string{"JWKS": keySet()}, want: []string{"Allowed"}},
		{name: "LOG_LEVEL", env: map[string]string{"LOG_LEVEL": "ERROR"}, want: []string{"Allowed", "FetchesOk", "KeyAge", "KeysMaxStale", "KeysTtl"}},
		{name: "keys at twice their TTL", warm: true, serve: outage, ahead: 10 * time.Minute, want: []string{"Allowed", "FetchesFailed", "KeyAge", "KeysMaxStale", "KeysTtl"}},
		{name: "keys overdue", warm: true, serve: outage, ahead: 10*time.Minute + time.Second, want: []string{"Allowed", "FetchesFailed", "KeyAge", "KeysMaxStale", "KeysOverdue", "KeysTtl"}},
		{name: "keys overdue, a token that is refused early", warm: true, claims: swap(`"exp":9e9`, `"exp":1`), ahead: time.Hour, want: []string{"Rejected", "RejectedAsError"}},
		{name: "stale keys", warm: true, serve: outage, ahead: 25 * time.Hour, want: []string{"Faults", "FetchesFailed", "KeysMaxStale", "KeysTtl"}},
		{name: "no keys", serve: outage, want: []string{"Faults", "FetchesFailed", "KeysMaxStale", "KeysTtl"}},
		{name: "no event", event: []byte(`{}`), want: []string{"Faults"}},

		{name: "forbid", warm: true, env: map[string]string{"RULES": `[{"routes":["* /*"],"scopes":["a"]}]`}, want: []string{"Forbidden"}},
		{name: "forbid, to an HTTP API", http: true, warm: true, env: map[string]string{"RULES": `[{"routes":["GET /elsewhere"]}]`}, want: []string{"Forbidden"}},
		{name: "rules that only tell", warm: true, env: map[string]string{"RULES": `[{"routes":["* /*"],"scopes":["a"]}]`, "RULES_MODE": "log"}, want: []string{"Allowed", "KeyAge"}},
		{name: "allow, to an HTTP API", http: true, warm: true, want: []string{"Allowed", "KeyAge"}},
		{name: "a rejection in a policy: no error", http: true, claims: swap(`"exp":9e9`, `"exp":1`), want: []string{"Rejected"}},
		{name: "one that time may cure is an error", http: true, warm: true, claims: swap(`"sub"`, `"nbf":9e9,"sub"`), want: []string{"Rejected", "RejectedAsError"}},
		{name: "an HTTP API's fault", http: true, serve: outage, want: []string{"Faults", "FetchesFailed", "KeysMaxStale", "KeysTtl"}},

		{name: "malformed", token: func(string) string { return "Bearer x" }, want: []string{"Rejected", "RejectedAsError"}},
		{name: "algorithm", header: `{"alg":"none","kid":"EdDSA"}`, want: []string{"Rejected", "RejectedAsError"}},
		{name: "kid", header: `{"alg":"EdDSA"}`, want: []string{"Rejected", "RejectedAsError"}},
		{name: "expired", claims: swap(`"exp":9e9`, `"exp":1`), want: []string{"Rejected", "RejectedAsError"}},
		{name: "not_yet_valid", warm: true, claims: swap(`"sub"`, `"nbf":9e9,"sub"`), want: []string{"Rejected", "RejectedAsError"}},
		{name: "too_old", warm: true, env: map[string]string{"MAX_TOKEN_AGE": "1s", "LEEWAY": "0"}, want: []string{"Rejected", "RejectedAsError"}},
		{name: "issuer", claims: swap(`"iss":"`, `"iss":"https://other.example`), want: []string{"Rejected", "RejectedAsError"}},
		{name: "audience", warm: true, claims: swap(`"us"`, `"them"`), want: []string{"Rejected", "RejectedAsError"}},
		{name: "unknown_key", warm: true, header: `{"alg":"EdDSA","kid":"x"}`, want: []string{"FetchesOk", "KeysMaxStale", "KeysTtl", "Rejected", "RejectedAsError", "RejectedForged"}},
		{name: "key", warm: true, header: `{"alg":"EdDSA","kid":"RS256"}`, want: []string{"Rejected", "RejectedAsError", "RejectedKey"}},
		{name: "signature", warm: true, token: forged, want: []string{"Rejected", "RejectedAsError", "RejectedForged"}},
	}
	reasons := map[string]bool{}
	filters := templateFilters(t)
	counted := map[string]bool{"FetchesFrozen": true, "KeysFromTable": true, "LeasesTaken": true, "TableResting": true} // below: no line of a decision goes with them
	for _, c := range rows {
		s := newStand(t, c.env)
		if c.warm {
			s.warm(t.Context())
		}
		if c.serve != nil {
			s.serve = c.serve
		}
		s.ahead.Store(int64(c.ahead))
		if c.header == "" {
			c.header = header
		}
		claims := strings.Replace(s.claims(""), `"exp":`, `"exp":9e9,"was":`, 1)
		if c.claims != nil {
			claims = c.claims(claims)
		}
		bearer := sign("EdDSA", c.header, claims)
		if c.token != nil {
			bearer = c.token(bearer)
		}
		payload := event(bearer)
		switch {
		case c.event != nil:
			payload = c.event
		case c.http:
			payload = fmt.Appendf(nil, `{"version":"2.0","type":"REQUEST","routeArn":"arn:aws:execute-api:eu-west-1:123456789012:a1b2c3/$default/GET/x","identitySource":[%q],"headers":{"authorization":%[1]q}}`, bearer)
		}
		_, decision, _ := s.invoke(t, payload)
		if reason, ok := decision["reason"].(string); ok {
			reasons[reason] = true
		}
		got := metrics(filters, s.lines(), func(f filter, line map[string]any) {
			counted[f.metric] = true
			if member, ok := strings.CutPrefix(f.value, "$."); ok {
				want := map[string]time.Duration{"KeyAge": c.ahead, "KeysTtl": 5 * time.Minute, "KeysMaxStale": 24 * time.Hour}[f.metric]
				if n, ok := line[member].(float64); !ok || n != want.Seconds() || f.absent != "" {
					t.Errorf("%s: %s is %v, want %v, and without such a line it is %q", c.name, f.metric, line[member], want.Seconds(), f.absent)
				}
			} else if f.value != "1" || f.absent != "0" {
				t.Errorf("%s counts by %s, and %q in a minute without such a line", f.metric, f.value, f.absent)
			}
		})
		if !slices.Equal(got, c.want) {
			t.Errorf("%s is counted as %v, want %v, in\n%s", c.name, got, c.want, s.log)
		}
	}
	for _, r := range allReasons {
		if !reasons[string(r)] {
			t.Errorf("no row ends in %s", r)
		}
	}
	var all []string
	for _, f := range filters {
		all = append(all, f.metric)
	}
	slices.Sort(all)
	if want := slices.Sorted(maps.Keys(counted)); !slices.Equal(all, want) || len(all) > 17 {
		t.Errorf("the template has the metrics %v, counted was %v", all, want)
	}
}

// lines are the log's.
func (s *stand) lines() (all []map[string]any) {
	for text := range strings.Lines(s.log.String()) {
		var line map[string]any
		must(json.Unmarshal([]byte(text), &line))
		all = append(all, line)
	}
	return all
}

// metrics returns those that the lines are counted in, sorted, and calls each for every line and its filter.
func metrics(filters []filter, lines []map[string]any, each func(f filter, line map[string]any)) (all []string) {
	for _, line := range lines {
		for _, f := range filters {
			if f.matches(line) {
				all = append(all, f.metric)
				each(f, line)
			}
		}
	}
	slices.Sort(all)
	return all
}

// Keys that came from the table are counted apart from fetches, and so are the lease and the rests of the table.
func TestMetricsOfTheTable(t *testing.T) {
	t.Parallel()
	answer := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	filters := templateFilters(t)
	item := fmt.Sprintf(`{"Item":{"jwks":{"B":%q},"sent":{"N":"%d"}}}`, base64.StdEncoding.EncodeToString([]byte(keySet())), now.UnixMilli())
	for name, c := range map[string]struct {
		table http.HandlerFunc
		want  []string
	}{
		"keys from the table": {answer(200, item), []string{"KeysFromTable", "KeysMaxStale", "KeysTtl"}},
		"the lease":           {answer(200, `{}`), []string{"FetchesOk", "KeysMaxStale", "KeysTtl", "LeasesTaken"}},
		"the table fails":     {answer(400, `{"__type":"AccessDeniedException"}`), []string{"FetchesOk", "KeysMaxStale", "KeysTtl", "TableResting"}},
	} {
		table := httptest.NewServer(c.table)
		defer table.Close()
		s := newStand(t, map[string]string{
			"JWKS_TABLE": "keys", "AWS_ENDPOINT_URL": table.URL, "AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret",
		})
		s.warm(t.Context())
		got := metrics(filters, s.lines(), func(_ filter, line map[string]any) {
			if line["issuer"] != s.issuer {
				t.Errorf("%s: no issuer in %v", name, line)
			}
		})
		if !slices.Equal(got, c.want) {
			t.Errorf("%s is counted as %v, want %v, in\n%s", name, got, c.want, s.log)
		}
	}
}

// A fetch in whose middle Lambda froze the process is counted apart: it tells nothing about the issuer.
func TestMetricOfAFrozenFetch(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	s.serve = func(w http.ResponseWriter, r *http.Request) {
		s.ahead.Add(int64(time.Hour))
		panic(http.ErrAbortHandler) // the connection is gone
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	s.warm(ctx)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		t.Fatal("the fetch never ended")
	}
	var told []string
	for _, line := range s.lines() {
		if line["issuer"] == s.issuer {
			told = append(told, line["msg"].(string))
		}
	}
	got := metrics(templateFilters(t), s.lines(), func(filter, map[string]any) {})
	if !slices.Equal(got, []string{"FetchesFrozen", "KeysMaxStale", "KeysTtl"}) || !slices.Equal(told, []string{"fetch", "no fresh keys at the start"}) {
		t.Errorf("counted as %v: %s", got, s.log)
	}
}
