package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// statement is one of an IAM policy. A member that is a string may be a list as well.
type statement struct {
	Effect       string
	Principal    principal
	NotPrincipal principal
	Action       texts
	NotAction    texts
	Condition    map[string]map[string]texts
}

// principal has the services, accounts and roles by their kind. "*" alone is {"*": ["*"]}.
type principal map[string]texts

func (p *principal) UnmarshalJSON(b []byte) error {
	if b[0] == '"' {
		*p = principal{"*": {"*"}}
		return nil
	}
	return json.Unmarshal(b, (*map[string]texts)(p))
}

// statements reads a policy. API Gateway gives a REST API's as the inside of a JSON string.
func statements(policy string) ([]statement, error) {
	if inner, err := strconv.Unquote(`"` + policy + `"`); err == nil { // a policy as it is has bare quotes, and is no such inside
		policy = inner
	}
	var whole struct{ Statement json.RawMessage }
	if err := json.Unmarshal([]byte(policy), &whole); err != nil {
		return nil, fmt.Errorf("reading the policy: %w", err)
	}
	var all []statement
	if err := json.Unmarshal(whole.Statement, &all); err == nil {
		return all, nil
	}
	var one statement
	if err := json.Unmarshal(whole.Statement, &one); err != nil {
		return nil, fmt.Errorf("reading the policy's statements: %w", err)
	}
	return []statement{one}, nil
}

// matches says whether IAM's pattern fits: * is any run of characters, ? is one.
func matches(pattern, s string) bool {
	e := strings.NewReplacer(`\*`, `.*`, `\?`, `.`).Replace(regexp.QuoteMeta(pattern))
	return regexp.MustCompile(`(?s)^` + e + `$`).MatchString(s)
}

func (t texts) match(s string) bool {
	for _, pattern := range t {
		if matches(pattern, s) {
			return true
		}
	}
	return false
}

func (s statement) acts(action string) bool {
	for _, a := range s.Action {
		if matches(strings.ToLower(a), strings.ToLower(action)) {
			return true
		}
	}
	return s.NotAction != nil && !s.NotAction.match(action)
}

// allows says whether a REST API's resource policy has a statement that allows calls.
func allows(policy string) (bool, error) {
	all, err := statements(policy)
	for _, s := range all {
		if s.Effect == "Allow" && s.acts("execute-api:Invoke") {
			return true, nil
		}
	}
	return false, err
}

// permission is what a function's resource policy says of an API's authorizer.
type permission struct {
	granted bool
	wide    bool   // to API Gateway for whichever API of whichever account
	odd     string // a condition that this program cannot judge
}

// mayInvoke judges a function's policy. source is the authorizer's ARN, account the API's.
func mayInvoke(policy, source, account string) (permission, error) {
	var p permission
	if policy == "" {
		return p, nil
	}
	all, err := statements(policy)
	if err != nil {
		return p, err
	}
	for _, s := range all {
		if s.NotPrincipal == nil && !s.Principal["Service"].match("apigateway.amazonaws.com") && s.Principal["*"] == nil && !s.Principal["AWS"].match("*") ||
			!s.acts("lambda:InvokeFunction") {
			continue
		}
		met, narrow, odd := true, false, ""
		for operator, keys := range s.Condition {
			for key, values := range keys {
				have, ok := map[string]string{"aws:sourcearn": source, "aws:sourceaccount": account}[strings.ToLower(key)]
				switch {
				case !ok:
					odd = operator + " " + key
				case operator == "ArnLike" || operator == "ArnEquals" || operator == "StringLike":
					met, narrow = met && values.match(have), true
				case operator == "StringEquals":
					met, narrow = met && slices.Contains(values, have), true
				default:
					odd = operator + " " + key
				}
			}
		}
		if s.NotPrincipal != nil {
			odd = "NotPrincipal"
		}
		switch {
		case !met:
		case s.Effect == "Deny":
			return permission{odd: odd}, nil
		case odd != "":
			p.odd = odd
		default:
			p.granted, p.wide = true, p.wide || !narrow
		}
	}
	return p, nil
}
