package config

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"zuplo-lambda-authorizer/internal/fleet"
	"zuplo-lambda-authorizer/internal/issuer"
	"zuplo-lambda-authorizer/internal/jwt"
	"zuplo-lambda-authorizer/internal/keycache"
)

const (
	goodSet   = `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}` // RFC 8037 §A.2
	secretSet = `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}]}`
)

func read(env map[string]string) (Config, error) {
	return Read(func(name string) string { return env[name] })
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	c, err := read(map[string]string{"ISSUER": "https://i.example/__zuplo/issuer", "AUDIENCE": "", "LEEWAY": ""})
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Issuers:        []Issuer{{Name: "https://i.example/__zuplo/issuer", JWKSURI: "https://i.example/__zuplo/issuer/.well-known/jwks.json"}},
		Header:         "Authorization",
		Scheme:         "Bearer",
		Algorithms:     jwt.Algorithms[:],
		Leeway:         30 * time.Second,
		PrincipalClaim: "sub",
		TTL:            5 * time.Minute,
		MaxStale:       24 * time.Hour,
		PolicyExpiry:   true,
		LogLevel:       slog.LevelInfo,
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("%+v, want %+v", c, want)
	}
}

func TestVariables(t *testing.T) {
	t.Parallel()
	type got func(c Config) any
	leeway := func(c Config) any { return c.Leeway }
	ttl := func(c Config) any { return c.TTL }
	stale := func(c Config) any { return c.MaxStale }
	age := func(c Config) any { return c.MaxTokenAge }
	uris := func(c Config) any {
		var all []string
		for _, i := range c.Issuers {
			all = append(all, i.Name+" "+i.JWKSURI)
		}
		return all
	}
	for _, c := range []struct {
		env  string // NAME=value, on top of an issuer; several separated by spaces
		get  got
		want any
	}{
		{"ISSUER=https://a.example/", uris, []string{"https://a.example/ https://a.example/.well-known/jwks.json"}},
		{"ISSUER=https://a.example,https://b.example/x", uris, []string{
			"https://a.example https://a.example/.well-known/jwks.json", "https://b.example/x https://b.example/x/.well-known/jwks.json"}},
		{"ISSUER=https://Own.example/A", uris, []string{"https://Own.example/A https://Own.example/A/.well-known/jwks.json"}},
		{"ISSUER=http://localhost:9000", uris, []string{"http://localhost:9000 http://localhost:9000/.well-known/jwks.json"}},
		{"JWKS_URI=https://keys.example/k?v=1", uris, []string{"https://i.example https://keys.example/k?v=1"}},
		{"AUDIENCE=a,b", func(c Config) any { return c.Issuers[0].Audiences }, []string{"a", "b"}},
		{"ALGORITHMS=ES256,Ed25519", func(c Config) any { return c.Algorithms }, []string{"ES256", "EdDSA"}},
		{"LEEWAY=0s", leeway, time.Duration(0)},
		{"LEEWAY=0", leeway, time.Duration(0)},
		{"LEEWAY=5m", leeway, 5 * time.Minute},
		{"MAX_TOKEN_AGE=1s", age, time.Second},
		{"MAX_TOKEN_AGE=1h30m", age, 90 * time.Minute},
		{"MAX_TOKEN_AGE=876000h", age, 876000 * time.Hour},
		{"PRINCIPAL_CLAIM=client_id", func(c Config) any { return c.PrincipalClaim }, "client_id"},
		{"JWKS_TTL=1s", ttl, time.Second},
		{"JWKS_TTL=24h", ttl, 24 * time.Hour},
		{"JWKS_TTL=24h", stale, 24 * time.Hour},
		{"JWKS_MAX_STALE=168h", stale, 7 * 24 * time.Hour},
		{"JWKS_TTL=10s JWKS_MAX_STALE=10s", stale, 10 * time.Second},
		{"POLICY_EXPIRY=off", func(c Config) any { return c.PolicyExpiry }, false},
		{"POLICY_EXPIRY=on", func(c Config) any { return c.PolicyExpiry }, true},
		{"LOG_LEVEL=DEBUG", func(c Config) any { return c.LogLevel }, slog.LevelDebug},
		{"LOG_LEVEL=WARN", func(c Config) any { return c.LogLevel }, slog.LevelWarn},
		{"LOG_LEVEL=ERROR", func(c Config) any { return c.LogLevel }, slog.LevelError},
		{"TOKEN_HEADER=X-Token", func(c Config) any { return c.Header }, "X-Token"},
		{"TOKEN_PREFIX=Token", func(c Config) any { return c.Scheme }, "Token"},
		{"TOKEN_PREFIX=none", func(c Config) any { return c.Scheme }, ""},
		{`RULES=[{"routes":["$connect"]}]`, func(c Config) any { return c.Rules.Routes("a", true) }, []string{"$connect"}},
		{"RULES=", func(c Config) any { return c.Rules == nil }, true},
		{"RULES_MODE=log", func(c Config) any { return c.RulesLog }, true},
		{"RULES_MODE=enforce", func(c Config) any { return c.RulesLog }, false},
		{"EXPLICIT_DENY=on", func(c Config) any { return c.ExplicitDeny }, true},
		{"EXPLICIT_DENY=off", func(c Config) any { return c.ExplicitDeny }, false},
		{"JWKS=" + goodSet, func(c Config) any { return c.Issuers[0].Pinned != nil }, true},
	} {
		env := map[string]string{"ISSUER": "https://i.example"}
		for pair := range strings.FieldsSeq(c.env) {
			name, value, _ := strings.Cut(pair, "=")
			env[name] = value
		}
		conf, err := read(env)
		if err != nil {
			t.Errorf("%s: %v", c.env, err)
		} else if got := c.get(conf); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", c.env, got, c.want)
		}
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, value, why string }{
		{"ISSUER", "", "required"},
		{"ISSUER", "http://i.example", "not https"},
		{"ISSUER", "http://localhost.i.example", "not https"},
		{"ISSUER", "https://u:p@i.example", "userinfo"},
		{"ISSUER", "https://i.example?a=b", "query"},
		{"ISSUER", "https://i.example?", "query"},
		{"ISSUER", "https://i.example#a", "fragment"},
		{"ISSUER", "i.example", "host"},
		{"ISSUER", "https://*.zuplo.app/__zuplo/issuer", "it holds a wildcard"},
		{"ISSUER", "https://DEPLOYMENT.zuplo.app/__zuplo/issuer", "DEPLOYMENT stands for the name of your own"},
		{"ISSUER", "https://i.example,https://a-Branch.zuplo.app", "item 2: its host has a capital"},
		{"ISSUER", "https://i.example,https://c2VjcmV0@i.example", "item 2: it holds userinfo"},
		{"ISSUER", `https://i.example/"`, "quote"},
		{"ISSUER", "https://i.example/ a", "space"},
		{"ISSUER", `https://i.example/\`, "backslash"},
		{"ISSUER", "https://i.example/\u0080", "control character"},
		{"ISSUER", "https://i.example,", "item 2 is empty"},
		{"ISSUER", ", https://i.example", "item 1 is empty"},
		{"ISSUER", "https://i.example,https://i.example", "item 2 stands twice"},
		{"JWKS_URI", "http://i.example", "not https"},
		{"JWKS_URI", "https://u@i.example", "userinfo"},
		{"JWKS", "{", "not a JSON object"},
		{"JWKS", `{"keys":[]}`, "no keys"},
		{"JWKS", secretSet, "private or symmetric"},
		{"JWKS", `{"keys":[{"kty":"oct","kid":"s","k":"c2VjcmV0"}]}`, "private or symmetric"},
		{"JWKS", strings.Replace(goodSet, "[", `[{"kty":"oct","kid":"s","k":"c2VjcmV0"},`, 1), "private or symmetric"},
		{"JWKS", strings.Replace(goodSet, `"x"`, `"use":"enc","x"`, 1), "its use is not sig"},
		{"AUDIENCE", "a,,b", "item 2 is empty"},
		{"AUDIENCE", "a,b,a", "item 3 stands twice"},
		{"AUDIENCE", "c2VjcmV0,c2VjcmV0", "twice"},
		{"ALGORITHMS", "none", "not one of"},
		{"ALGORITHMS", "HS256", "not one of"},
		{"ALGORITHMS", "eddsa", "not one of"},
		{"ALGORITHMS", "EdDSA,c2VjcmV0", "item 2: not one of"},
		{"ALGORITHMS", "EdDSA,", "item 2 is empty"},
		{"LEEWAY", "-1ns", "not within"},
		{"LEEWAY", "5m1s", "not within"},
		{"LEEWAY", "30", "not a duration"},
		{"MAX_TOKEN_AGE", "0s", "not within"},
		{"MAX_TOKEN_AGE", "x", "not a duration"},
		{"MAX_TOKEN_AGE", "876000h1s", "not within"},
		{"JWKS_TTL", "999ms", "not within"},
		{"JWKS_TTL", "24h1s", "not within"},
		{"JWKS_MAX_STALE", "4m59s", "not within 5m0s to"},
		{"JWKS_MAX_STALE", "168h1s", "not within"},
		{"POLICY_EXPIRY", "yes", "one of on, off"},
		{"TOKEN_HEADER", "X Token", "not a word"},
		{"TOKEN_HEADER", "Authorization,c2VjcmV0", "not a word"},
		{"TOKEN_HEADER", "Authorization:", "not a word"},
		{"TOKEN_HEADER", "Ä", "not a word"},
		{"TOKEN_PREFIX", "Bearer ", "not a word"},
		{"TOKEN_PREFIX", " ", "not a word"},
		{"RULES", "c2VjcmV0", "not strict JSON"},
		{"RULES", `[]`, "not a list of rules"},
		{"RULES", `[{"routes":["GET /a"]},{"routes":["c2VjcmV0"]}]`, "rule 2: routes: item 1: "},
		{"RULES", `[{"routes":["GET /a"],"scope":"c2VjcmV0"}]`, "rule 1: scope: none of routes, apis, scopes and claims"},
		{"RULES_MODE", "off", "one of enforce, log"},
		{"EXPLICIT_DENY", "true", "one of off, on"},
		{"LOG_LEVEL", "info", "one of INFO"},
		{"LOG_LEVEL", "TRACE", "one of INFO"},
	} {
		_, err := read(map[string]string{"ISSUER": "https://i.example", c.name: c.value})
		if err == nil || !strings.HasPrefix(err.Error(), c.name+": ") || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s=%q: %v, want %s", c.name, c.value, err, c.why)
		} else if strings.Contains(err.Error(), "nWGxne") || strings.Contains(err.Error(), "c2VjcmV0") {
			t.Errorf("%s: a secret is in %v", c.name, err)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s=%q: more than one mistake: %v", c.name, c.value, err)
		}
	}
}

func TestVariablesThatExcludeOneAnother(t *testing.T) {
	t.Parallel()
	const two = "https://a.example,https://b.example"
	for _, c := range []struct {
		env  map[string]string
		want []string
	}{
		{map[string]string{"ISSUER": two, "JWKS_URI": "https://k.example"}, []string{"JWKS_URI: only with a single issuer"}},
		{map[string]string{"ISSUER": two, "JWKS": goodSet}, []string{"JWKS: only with a single issuer"}},
		{map[string]string{"ISSUER": "https://a.example", "JWKS": goodSet, "JWKS_URI": "https://k.example"}, []string{"JWKS: not together with JWKS_URI"}},
		{map[string]string{"ISSUER": "https://a.example", "RULES": `[{},{"routes":[]}]`, "RULES_MODE": "x"},
			[]string{"RULES: rule 1: routes: ", "RULES: rule 2: routes: ", "RULES_MODE: "}},
		{map[string]string{"ISSUERS": `[{"issuer":"https://a.example"}]`, "ISSUER": "https://a.example", "AUDIENCE": "a", "JWKS": goodSet, "JWKS_URI": "https://k.example"},
			[]string{"ISSUERS: not together with ISSUER", "ISSUERS: not together with JWKS_URI", "ISSUERS: not together with JWKS", "ISSUERS: not together with AUDIENCE"}},
		{map[string]string{"ISSUERS": `[{"issuer":"http://a.example","audiences":[]},{},{"issuer":"https://b.example","jwks":{"keys":[]},"jwks_uri":"http://k.example"}]`},
			[]string{"ISSUERS: issuer 1: issuer: ", "ISSUERS: issuer 1: audiences: ", "ISSUERS: issuer 2: issuer: required",
				"ISSUERS: issuer 3: jwks: ", "ISSUERS: issuer 3: jwks_uri: ", "ISSUERS: issuer 3: jwks: not together with jwks_uri"}},
		{map[string]string{"ISSUER": "a,,a", "JWKS": "{", "AUDIENCE": ",", "ALGORITHMS": "none,HS256", "LEEWAY": "1h", "MAX_TOKEN_AGE": "-1s",
			"JWKS_TTL": "0", "JWKS_MAX_STALE": "999h", "POLICY_EXPIRY": "1", "LOG_LEVEL": "x"},
			[]string{"AUDIENCE", "AUDIENCE", "ALGORITHMS", "ALGORITHMS", "LEEWAY", "MAX_TOKEN_AGE", "JWKS_TTL", "POLICY_EXPIRY", "JWKS_MAX_STALE",
				"LOG_LEVEL", "ISSUER", "ISSUER", "ISSUER", "JWKS", "JWKS"}},
	} {
		_, err := read(c.env)
		if err == nil {
			t.Errorf("%v is accepted", slices.Collect(maps.Keys(c.env)))
			continue
		}
		lines := strings.Split(err.Error(), "\n")
		if len(lines) != len(c.want) {
			t.Errorf("%d mistakes, want %d:\n%v", len(lines), len(c.want), err)
			continue
		}
		for _, want := range c.want {
			if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, want) }) {
				t.Errorf("%s is not among\n%v", want, err)
			}
		}
	}
}

func TestIssuersVariable(t *testing.T) {
	t.Parallel()
	c, err := read(map[string]string{"ISSUERS": `[
		{"issuer": "https://a.example", "jwks_uri": "https://keys.example/a", "audiences": ["one", "two, and a comma"]},
		{"audiences": ["three"], "jwks": ` + goodSet + `, "issuer": "https://b.example"},
		{"issuer": "https://c.example/x/"}]`})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Issuers) != 3 || c.Issuers[1].Pinned == nil {
		t.Fatalf("%+v", c.Issuers)
	}
	c.Issuers[1].Pinned = nil
	want := []Issuer{
		{Name: "https://a.example", JWKSURI: "https://keys.example/a", Audiences: []string{"one", "two, and a comma"}},
		{Name: "https://b.example", JWKSURI: "https://b.example/.well-known/jwks.json", Audiences: []string{"three"}},
		{Name: "https://c.example/x/", JWKSURI: "https://c.example/x/.well-known/jwks.json"},
	}
	if !reflect.DeepEqual(c.Issuers, want) {
		t.Errorf("%+v, want %+v", c.Issuers, want)
	}
}

// What is wrong in ISSUERS is told by the issuer's number and the member, never by its text.
func TestMistakesInIssuers(t *testing.T) {
	t.Parallel()
	second := func(members string) string { return `[{"issuer":"https://a.example"},{` + members + `}]` }
	b := func(members string) string { return second(`"issuer":"https://b.example",` + members) }
	for text, why := range map[string]string{
		`c2VjcmV0`: "not strict JSON", `[`: "not strict JSON", ` `: "not strict JSON", "[\"\xff\"]": "not strict JSON",
		`[{"issuer":"https://a.example","issuer":"https://c2VjcmV0.example"}]`: "not strict JSON",
		b(`"jwks":{"keys":[],"keys":[]}`):                                      "not strict JSON",
		`[]`:                                                                   "not a list of issuers", `{}`: "not a list of issuers", `null`: "not a list of issuers", `"https://a.example"`: "not a list of issuers",
		`["https://a.example"]`: "not a list of issuers", `[["c2VjcmV0"]]`: "not a list of issuers",
		`[null]`:                                                            "issuer 1: issuer: required",
		second(``):                                                          "issuer 2: issuer: required",
		second(`"issuer":""`):                                               "issuer 2: issuer: not a URL in a string",
		second(`"issuer":null`):                                             "issuer 2: issuer: not a URL in a string",
		second(`"issuer":["https://b.example"]`):                            "issuer 2: issuer: not a URL in a string",
		second(`"issuer":"http://c2VjcmV0"`):                                "issuer 2: issuer: its scheme is not https",
		second(`"issuer":"https://c2VjcmV0@b.example"`):                     "issuer 2: issuer: it holds userinfo",
		second(`"issuer":"https://b.example?c2VjcmV0"`):                     "issuer 2: issuer: it holds a query",
		second(`"issuer":"https://DEPLOYMENT.zuplo.app"`):                   "issuer 2: issuer: its host has a capital",
		second(`"issuer":"https://a.example"`):                              "issuer 2: issuer: stands twice",
		second(`"Issuer":"https://b.example","issuer":"https://b.example"`): "issuer 2: a member: none of issuer, jwks_uri, jwks and audiences",
		b(`"c2VjcmV0":1`):                                                   "issuer 2: a member: none of",
		b(`"audience":["a"]`):                                               "issuer 2: a member: none of",
		b(`"audiences":"c2VjcmV0"`):                                         "issuer 2: audiences: not a list",
		b(`"audiences":[]`):                                                 "issuer 2: audiences: not a list",
		b(`"audiences":null`):                                               "issuer 2: audiences: not a list",
		b(`"audiences":["c2VjcmV0",7]`):                                     "issuer 2: audiences: not a list",
		b(`"audiences":["c2VjcmV0",""]`):                                    "issuer 2: audiences: not a list",
		b(`"audiences":["c2VjcmV0",null]`):                                  "issuer 2: audiences: not a list",
		b(`"audiences":["c2VjcmV0","c2VjcmV0"]`):                            "issuer 2: audiences: one stands twice",
		b(`"jwks_uri":"http://c2VjcmV0.example"`):                           "issuer 2: jwks_uri: its scheme is not https",
		b(`"jwks_uri":""`):                                                  "issuer 2: jwks_uri: not a URL in a string",
		b(`"jwks_uri":null`):                                                "issuer 2: jwks_uri: not a URL in a string",
		b(`"jwks_uri":{}`):                                                  "issuer 2: jwks_uri: not a URL in a string",
		b(`"jwks":null`):                                                    "issuer 2: jwks: ",
		b(`"jwks":"c2VjcmV0"`):                                              "issuer 2: jwks: ",
		b(`"jwks":{}`):                                                      "issuer 2: jwks: ",
		b(`"jwks":` + secretSet):                                            "issuer 2: jwks: ",
		b(`"jwks_uri":"https://k.example","jwks":` + goodSet):               "issuer 2: jwks: not together with jwks_uri",
	} {
		_, err := read(map[string]string{"ISSUERS": text})
		switch {
		case err == nil || !strings.HasPrefix(err.Error(), "ISSUERS: "+why):
			t.Errorf("%s: %v, want %s", text, err, why)
		case strings.Contains(err.Error(), "\n"):
			t.Errorf("%s: more than one mistake: %v", text, err)
		case strings.Contains(err.Error(), "c2VjcmV0") || strings.Contains(err.Error(), "nWGxne"):
			t.Errorf("a secret is in %v", err)
		}
	}
}

// The table is named in the configuration; what it takes to ask it is in Lambda's own variables.
func TestSharedTable(t *testing.T) {
	t.Parallel()
	env := map[string]string{"ISSUER": "https://a.example,https://b.example", "JWKS_TABLE": "keys",
		"AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "session"}
	for table, want := range map[string]bool{"": false, "keys": true} {
		env["JWKS_TABLE"] = table
		c, err := read(env)
		if err != nil || (c.Table != nil) != want {
			t.Fatalf("JWKS_TABLE=%s: a table: %v, %v", table, c.Table != nil, err)
		}
		for name, source := range c.Keys(nil, slog.New(slog.DiscardHandler), slog.New(slog.DiscardHandler), time.Now) {
			if _, got := source.(*keycache.Cache).Source.(*fleet.Fleet); got != want {
				t.Errorf("JWKS_TABLE=%s, keys of %s: shared: %v", table, name, got)
			}
		}
	}
	env["JWKS_TABLE"] = "keys"
	for stale, why := range map[string]string{"11s": "", "10.999s": "JWKS_MAX_STALE: 10.999s is not within 11s to 168h0m0s", "1s": "JWKS_MAX_STALE: 1s is not within"} {
		maps.Copy(env, map[string]string{"JWKS_TTL": "1s", "JWKS_MAX_STALE": stale})
		if _, err := read(env); (err == nil) != (why == "") || err != nil && !strings.HasPrefix(err.Error(), why) {
			t.Errorf("keys of 1 s and %s with a table: %v, want %q", stale, err, why)
		}
	}
	maps.Copy(env, map[string]string{"JWKS_TTL": "24h", "JWKS_MAX_STALE": ""})
	if c, err := read(env); err != nil || c.MaxStale != 24*time.Hour+fleet.Reserve {
		t.Errorf("by default keys of 24 h serve for %v, %v", c.MaxStale, err)
	}
	env["JWKS_TABLE"] = "no/table"
	delete(env, "AWS_REGION")
	if _, err := read(env); err == nil || !strings.HasPrefix(err.Error(), "JWKS_TABLE: ") || strings.Contains(err.Error(), "AWS_REGION") {
		t.Errorf("got %v, want what is wrong with the name", err)
	}
}

// What keeps the table from being used is told, and the authorizer starts without it: emulators set such variables in every
// function.
func TestTableOutOfReach(t *testing.T) {
	t.Parallel()
	env := map[string]string{"ISSUER": "https://a.example", "AUDIENCE": "a", "JWKS_TABLE": "keys",
		"AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret",
		"AWS_ENDPOINT_URL": "http://emulator.example:4566"}
	c, err := read(env)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	source := c.Keys(nil, logger, logger, time.Now)["https://a.example"].(*keycache.Cache).Source
	if _, alone := source.(issuer.Source); !alone {
		t.Errorf("keys come from a %T", source)
	}
	var line map[string]any
	if err := json.Unmarshal(log.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	delete(line, "time")
	want := map[string]any{"level": "WARN", "msg": "shared key sets are not used, each environment asks the issuers itself",
		"error": "the table keys: AWS_ENDPOINT_URL: its scheme is not https"}
	if !maps.Equal(line, want) {
		t.Errorf("the log is %s", &log)
	}
}
