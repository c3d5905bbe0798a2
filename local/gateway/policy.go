package gateway

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// result is an authorizer's answer, checked when it arrived: evaluating it cannot go wrong.
type result struct {
	principal  string
	context    map[string]string
	statements []statement
}

type statement struct {
	deny      bool
	actions   []*regexp.Regexp
	resources []*regexp.Regexp
	before    []time.Time // the conditions: now must be before each of them
}

// several is a JSON array, or its only item without the array.
type several[T any] []T

func (s *several[T]) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if k := d.PeekKind(); k == '[' || k == 'n' {
		return json.UnmarshalDecode(d, (*[]T)(s))
	}
	*s = make([]T, 1)
	return json.UnmarshalDecode(d, &(*s)[0])
}

type policyDocument struct {
	Version   string
	Statement several[struct {
		Sid, Effect      string
		Action, Resource several[string]
		Condition        map[string]map[string]several[string] // operator, key, values
	}]
}

// parseResult reads an authorizer's answer. Its member names count exactly as written and unknown ones are errors, as is all
// that API Gateway refuses and whatever this package cannot judge: it must never end as an Allow.
func parseResult(payload []byte) (*result, error) {
	var answer struct {
		PrincipalID        *string                   `json:"principalId"`
		PolicyDocument     *policyDocument           `json:"policyDocument"`
		Context            map[string]jsontext.Value `json:"context"`
		UsageIdentifierKey string                    `json:"usageIdentifierKey"`
	}
	if err := json.Unmarshal(payload, &answer, json.RejectUnknownMembers(true)); err != nil {
		return nil, err
	}
	if answer.PrincipalID == nil || answer.PolicyDocument == nil {
		return nil, errors.New("principalId or policyDocument is missing")
	}
	if v := answer.PolicyDocument.Version; v != "2012-10-17" {
		return nil, fmt.Errorf("policy version %q", v)
	}
	res := &result{principal: *answer.PrincipalID, context: map[string]string{}}
	for name, value := range answer.Context {
		switch value.Kind() {
		case '"':
			text, _ := jsontext.AppendUnquote(nil, value) // it was checked along with the whole
			res.context[name] = string(text)
		case '0', 't', 'f':
			res.context[name] = string(value)
		default:
			return nil, fmt.Errorf("context value %q is neither string nor number nor boolean", name)
		}
	}
	for i, s := range answer.PolicyDocument.Statement {
		st := statement{deny: s.Effect == "Deny"}
		if !st.deny && s.Effect != "Allow" || len(s.Action) == 0 || len(s.Resource) == 0 {
			return nil, fmt.Errorf("policy statement %d: effect %q with %d actions and %d resources", i, s.Effect, len(s.Action), len(s.Resource))
		}
		for _, action := range s.Action {
			st.actions = append(st.actions, wildcards("(?is)", action))
		}
		for _, resource := range s.Resource {
			if len(resource) > 512 {
				return nil, fmt.Errorf("policy statement %d: a resource of more than 512 characters", i)
			}
			st.resources = append(st.resources, wildcards("(?s)", resource))
		}
		for operator, keys := range s.Condition {
			for key, values := range keys {
				if operator != "DateLessThan" || !strings.EqualFold(key, "aws:CurrentTime") || len(values) != 1 {
					return nil, fmt.Errorf("policy statement %d: condition %s on %s with %d values", i, operator, key, len(values))
				}
				t, err := time.Parse(time.RFC3339, values[0])
				if err != nil {
					return nil, fmt.Errorf("policy statement %d: condition %s on %s: %w", i, operator, key, err)
				}
				st.before = append(st.before, t)
			}
		}
		res.statements = append(res.statements, st)
	}
	return res, nil
}

// wildcards compiles an IAM pattern: * is any text, slashes and colons included, ? one character.
func wildcards(flags, pattern string) *regexp.Regexp {
	quoted := strings.NewReplacer(`\*`, `.*`, `\?`, `.`).Replace(regexp.QuoteMeta(pattern))
	return regexp.MustCompile(flags + `\A` + quoted + `\z`)
}

// decide is nil when the policy allows execute-api:Invoke on the ARN at this moment. A Deny wins over every Allow.
func (r *result) decide(arn string, now time.Time) *problem {
	allowed := false
	for _, s := range r.statements {
		switch {
		case !s.covers(arn, now):
		case s.deny:
			return &problem{kind: "ACCESS_DENIED", message: "User is not authorized to access this resource with an explicit deny"}
		default:
			allowed = true
		}
	}
	if !allowed {
		return &problem{kind: "ACCESS_DENIED", message: "User is not authorized to access this resource"}
	}
	return nil
}

func (s *statement) covers(arn string, now time.Time) bool {
	for _, t := range s.before {
		if !now.Before(t) {
			return false
		}
	}
	return matches(s.actions, "execute-api:Invoke") && matches(s.resources, arn)
}

func matches(patterns []*regexp.Regexp, text string) bool {
	for _, p := range patterns {
		if p.MatchString(text) {
			return true
		}
	}
	return false
}
