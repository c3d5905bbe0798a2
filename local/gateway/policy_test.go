package gateway

import (
	"maps"
	"strings"
	"testing"
	"time"
)

func TestAllows(t *testing.T) {
	t.Parallel()
	const (
		arn = "arn:aws:execute-api:us-east-1:123456789012:local12345/prod/GET/protected"
		all = "arn:aws:execute-api:us-east-1:123456789012:local12345/prod/*"
	)
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	allow := func(resource, more string) string {
		return `{"Effect":"Allow","Action":"execute-api:Invoke","Resource":` + resource + more + `}`
	}
	deny := func(resource, more string) string {
		return strings.Replace(allow(resource, more), "Allow", "Deny", 1)
	}
	before := func(when string) string {
		return `,"Condition":{"DateLessThan":{"aws:CurrentTime":"` + when + `"}}`
	}
	tests := []struct {
		name, statements string
		want             bool
	}{
		{"the stage", allow(`"`+all+`"`, ""), true},
		{"this method alone", allow(`"`+arn+`"`, ""), true},
		{"everything", allow(`"*"`, ""), true},
		{"one of several", allow(`["x","`+all+`"]`, ""), true},
		{"a single statement without its array", "-" + allow(`"*"`, ""), true},
		{"star spans slashes", allow(`"arn:aws:execute-api:*/protected"`, ""), true},
		{"question marks", allow(`"arn:aws:execute-api:us-east-?:*/prod/G?T/*"`, ""), true},
		{"a question mark is not nothing", allow(`"`+arn+`?"`, ""), false},
		{"a dot is a dot", allow(`"arn.aws:*"`, ""), false},
		{"a prefix is not enough", allow(`"arn:aws:execute-api:us-east-1:123456789012:local12345/prod"`, ""), false},
		{"resources mind case", allow(`"`+strings.ToUpper(all)+`"`, ""), false},
		{"another method", allow(`"`+strings.Replace(arn, "GET", "POST", 1)+`"`, ""), false},
		{"actions do not mind case", strings.Replace(allow(`"*"`, ""), "Invoke", "invoke", 1), true},
		{"action with wildcard", strings.Replace(allow(`"*"`, ""), "Invoke", "*", 1), true},
		{"another action", strings.Replace(allow(`"*"`, ""), "Invoke", "InvalidateCache", 1), false},
		{"no statement", "", false},
		{"deny", deny(`"*"`, ""), false},
		{"deny after allow", allow(`"*"`, "") + "," + deny(`"`+arn+`"`, ""), false},
		{"deny before allow", deny(`"`+arn+`"`, "") + "," + allow(`"*"`, ""), false},
		{"deny of something else", allow(`"*"`, "") + "," + deny(`"*/POST/*"`, ""), true},
		{"in time", allow(`"*"`, before("2026-11-24T12:00:01Z")), true},
		{"on the second", allow(`"*"`, before("2026-11-24T12:00:00Z")), false},
		{"too late", allow(`"*"`, before("2026-11-24T11:59:59Z")), false},
		{"another zone", allow(`"*"`, before("2026-11-24T13:00:01+01:00")), true},
		{"deny no longer in time", allow(`"*"`, "") + "," + deny(`"*"`, before("2026-11-24T11:00:00Z")), true},
		{"allow out of time beside another", allow(`"*"`, before("2026-11-24T11:00:00Z")) + "," + allow(`"*"`, ""), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			statements := "[" + tt.statements + "]"
			if single, ok := strings.CutPrefix(tt.statements, "-"); ok {
				statements = single
			}
			res, err := parseResult([]byte(`{"principalId":"p","policyDocument":{"Version":"2012-10-17","Statement":` + statements + `}}`))
			if err != nil {
				t.Fatal(err)
			}
			if got := res.allows(arn, now); got != tt.want {
				t.Errorf("allowed %v, want %v", got, tt.want)
			}
		})
	}
}

const goodAnswer = `{"principalId":"p","policyDocument":{"Version":"2012-10-17","Statement":` +
	`[{"Effect":"Allow","Action":"execute-api:Invoke","Resource":"*"}]},"context":{}}`

func TestParseResultRefuses(t *testing.T) {
	t.Parallel()
	condition := func(c string) string { return `"Resource":"*","Condition":` + c }
	tests := []struct{ name, old, new string }{
		{"not JSON", goodAnswer, "allow"},
		{"null", goodAnswer, "null"},
		{"empty", goodAnswer, ""},
		{"no principal", `"principalId":"p",`, ""},
		{"principal of another type", `"principalId":"p"`, `"principalId":1`},
		{"no policy", goodAnswer, `{"principalId":"p"}`},
		{"unknown version", "2012-10-17", "2026-10-17"},
		{"unknown effect", "Allow", "allow"},
		{"member in another case", `"Effect"`, `"effect"`},
		{"duplicate member", `"Effect":"Allow"`, `"Effect":"Deny","Effect":"Allow"`},
		{"unknown member", `"Action"`, `"NotAction"`},
		{"no resource", `,"Resource":"*"`, ""},
		{"null resource", `"Resource":"*"`, `"Resource":null`},
		{"resource too long", `"Resource":"*"`, `"Resource":"` + strings.Repeat("a", 513) + `"`},
		{"unknown operator", `"Resource":"*"`, condition(`{"DateGreaterThan":{"aws:CurrentTime":"2026-11-24T12:00:00Z"}}`)},
		{"unknown key", `"Resource":"*"`, condition(`{"DateLessThan":{"aws:EpochTime":"2026-11-24T12:00:00Z"}}`)},
		{"key in another case", `"Resource":"*"`, condition(`{"DateLessThan":{"AWS:currenttime":"2026-11-24T12:00:00Z"}}`)},
		{"known and unknown", `"Resource":"*"`, condition(`{"DateLessThan":{"aws:CurrentTime":"2026-11-24T12:00:00Z"},"IpAddress":{"aws:SourceIp":"::1"}}`)},
		{"no date", `"Resource":"*"`, condition(`{"DateLessThan":{"aws:CurrentTime":"tomorrow"}}`)},
		{"null for a date", `"Resource":"*"`, condition(`{"DateLessThan":{"aws:CurrentTime":null}}`)},
		{"no value", `"Resource":"*"`, condition(`{"DateLessThan":{"aws:CurrentTime":[]}}`)},
		{"context array", `"context":{}`, `"context":{"a":[]}`},
		{"context object", `"context":{}`, `"context":{"a":{}}`},
		{"context null", `"context":{}`, `"context":{"a":null}`},
		{"context that is none", `"context":{}`, `"context":"a"`},
	}
	if _, err := parseResult([]byte(goodAnswer)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			answer := strings.Replace(goodAnswer, tt.old, tt.new, 1)
			if answer == goodAnswer {
				t.Fatalf("%s is not in %s", tt.old, goodAnswer)
			}
			if res, err := parseResult([]byte(answer)); err == nil {
				t.Errorf("%s gave %+v", answer, res)
			}
		})
	}
}

func TestContextBecomesStrings(t *testing.T) {
	t.Parallel()
	res, err := parseResult([]byte(strings.Replace(goodAnswer, `"context":{}`,
		`"context":{"s":"a\"\u00e9","n":12345678901234567890,"f":1.50,"t":true,"b":false,"claims":"{\"a\":[1]}"}`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"principalId": "p", "s": `a"é`, "n": "12345678901234567890", "f": "1.50", "t": "true", "b": "false", "claims": `{"a":[1]}`}
	if !maps.Equal(res.context, want) {
		t.Errorf("%q, want %q", res.context, want)
	}
}
