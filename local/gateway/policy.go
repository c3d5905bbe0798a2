package gateway

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// result is an authorizer's answer, checked when it arrived: evaluating it cannot go wrong.
type result struct {
	context    map[string]any // as the backend sees it
	policy     []byte         // as it was written, to be shown
	statements []statement
	until      time.Time // it may be used from the cache
}

type statement struct {
	Sid, Effect      string
	Action, Resource several[string]
	Condition        struct {
		DateLessThan map[string]time.Time // key, value
	}
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

// parseResult reads an authorizer's answer. Its member names count exactly as written and unknown ones are errors, as is all
// that API Gateway refuses and whatever this package cannot judge: it must never end as an Allow.
func parseResult(payload []byte) (*result, error) {
	var answer struct {
		PrincipalID    *string `json:"principalId"`
		PolicyDocument *struct {
			Version   string
			Statement several[statement]
		} `json:"policyDocument"`
		Context map[string]jsontext.Value `json:"context"`
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
	var written struct {
		PolicyDocument jsontext.Value `json:"policyDocument"`
	}
	_ = json.Unmarshal(payload, &written) // it was read above
	res := &result{context: map[string]any{}, policy: written.PolicyDocument, statements: answer.PolicyDocument.Statement}
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
	res.context["principalId"] = *answer.PrincipalID
	for i, s := range res.statements {
		if err := s.check(); err != nil {
			return nil, fmt.Errorf("policy statement %d: %w", i, err)
		}
	}
	return res, nil
}

func (s *statement) check() error {
	if s.Effect != "Allow" && s.Effect != "Deny" || len(s.Action) == 0 || len(s.Resource) == 0 {
		return fmt.Errorf("effect %q with %d actions and %d resources", s.Effect, len(s.Action), len(s.Resource))
	}
	if slices.ContainsFunc(s.Resource, func(pattern string) bool { return len(pattern) > 512 }) {
		return errors.New("a resource of more than 512 characters")
	}
	for key, t := range s.Condition.DateLessThan {
		if key != "aws:CurrentTime" || t.IsZero() {
			return fmt.Errorf("condition DateLessThan on %s with the value %s", key, t)
		}
	}
	return nil
}

// allows says whether the policy allows execute-api:Invoke on the ARN at this moment. A Deny wins over every Allow.
func (r *result) allows(arn string, now time.Time) bool {
	allowed := false
	for _, s := range r.statements {
		if s.covers(arn, now) {
			if s.Effect == "Deny" {
				return false
			}
			allowed = true
		}
	}
	return allowed
}

func (s *statement) covers(arn string, now time.Time) bool {
	for _, t := range s.Condition.DateLessThan {
		if !now.Before(t) {
			return false
		}
	}
	return matches("(?is)", s.Action, "execute-api:Invoke") && matches("(?s)", s.Resource, arn)
}

// matches tries IAM patterns: * is any text, slashes and colons included, ? one character.
func matches(flags string, patterns []string, text string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		quoted := strings.NewReplacer(`\*`, `.*`, `\?`, `.`).Replace(regexp.QuoteMeta(pattern))
		return regexp.MustCompile(flags + `\A` + quoted + `\z`).MatchString(text)
	})
}
