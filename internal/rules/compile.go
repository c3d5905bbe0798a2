package rules

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	prefixBytes   = 128      // of a stage, as arn:aws:execute-api:REGION:ACCOUNT:API/STAGE/, for which a set is measured at its start
	MaxResource   = 512      // characters of a Resource that API Gateway takes
	maxPolicy     = 24 << 10 // bytes of the statements that rules make
	maxClaimBytes = 256      // of a claim's name
)

// methods are those that a route can name, and what * stands for. IAM's own * would match slashes, too.
var methods = []string{"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}

// Compile reads a list of rules, JSON. Its error names each mistake by the rule's number, from 1, and the member, and never
// repeats a value. Warnings are about rules that are right and may not do what they seem to.
func Compile(text string) (set *Set, warnings []string, err error) {
	if !jsontext.Value(text).IsValid() {
		return nil, nil, errors.New("not strict JSON (a syntax error, invalid UTF-8 or a duplicate member)")
	}
	var raws []json.RawMessage
	if json.Unmarshal([]byte(text), &raws) != nil || len(raws) == 0 {
		return nil, nil, errors.New(`not a list of rules, as [{"routes": ["GET /orders"], "scopes": ["orders:read"]}]`)
	}
	set = &Set{}
	var mistakes []error
	for n, raw := range raws {
		r, errs := compileRule(raw)
		for _, err := range errs {
			mistakes = append(mistakes, fmt.Errorf("rule %d: %w", n+1, err))
		}
		set.rules = append(set.rules, r)
		set.routes += len(r.routes)
	}
	if len(mistakes) > 0 {
		return nil, nil, errors.Join(mistakes...)
	}
	all := func(rule, route) bool { return true }
	if size := set.policyBytes(prefixBytes, all); size > maxPolicy {
		return nil, nil, tooLarge(size)
	}
	return set, set.warnings(), nil
}

// Fit returns what keeps the routes for an API or its WebSocket from standing behind a stage's prefix of that many characters
// in a policy. Up to 128 it is nothing: Compile has measured that.
func (s *Set) Fit(prefix int, api string, socket bool) error {
	if prefix <= prefixBytes {
		return nil
	}
	for n, rule := range s.rules {
		for _, route := range rule.routes {
			if size := prefix + len(route.resource); rule.counts(api) && route.socket == socket && size > MaxResource {
				return fmt.Errorf("rule %d: routes: with this stage's prefix a Resource has %d characters, at most %d are taken: shorten the path or the stage's name", n+1, size, MaxResource)
			}
		}
	}
	if size := s.policyBytes(prefix, func(rule rule, route route) bool { return rule.counts(api) && route.socket == socket }); size > maxPolicy {
		return tooLarge(size)
	}
	return nil
}

func tooLarge(size int) error {
	return fmt.Errorf("the policy that they make has up to %d bytes, at most %d are taken: join routes with wildcards, or give rules for less", size, maxPolicy)
}

// policyBytes is the size of the Resources of some routes behind a prefix, each twice: in Allow or in Deny, and in NotResource.
func (s *Set) policyBytes(prefix int, of func(rule, route) bool) (size int) {
	for _, rule := range s.rules {
		for _, route := range rule.routes {
			if of(rule, route) {
				size += 2 * (prefix + len(route.resource) + len(`"",`))
			}
		}
	}
	return size
}

func compileRule(raw json.RawMessage) (r rule, mistakes []error) {
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil || members == nil {
		return r, []error{errors.New("not an object")}
	}
	wrong := func(member string, err error) {
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("%s: %w", member, err))
		}
	}
	if members["routes"] == nil {
		wrong("routes", errors.New(`required, as ["GET /orders"]`))
	}
	for _, member := range slices.Sorted(maps.Keys(members)) {
		switch value := members[member]; member {
		case "routes":
			wrong(member, each(value, func(text string) (err error) {
				routes, err := compileRoute(text)
				r.routes = append(r.routes, routes...)
				return err
			}))
		case "apis":
			wrong(member, each(value, func(text string) error {
				if !made(text, lower+digits, 64) {
					return errors.New("not the id of an API, such as a1b2c3d4e5")
				}
				r.apis = append(r.apis, text)
				return nil
			}))
		case "scopes":
			wrong(member, each(value, func(text string) error {
				if !made(text, inScope, len(text)) {
					return errors.New("not a scope: printable ASCII without spaces, quotes and backslashes (RFC 6749 §3.3)")
				}
				r.scopes = append(r.scopes, text)
				return nil
			}))
		case "claims":
			claims, errs := compileClaims(value)
			r.claims = claims
			for _, err := range errs {
				wrong(member, err)
			}
		default:
			if !made(member, lower+upper+"_", 32) {
				member = "a member"
			}
			wrong(member, errors.New("none of routes, apis, scopes and claims"))
		}
	}
	return r, mistakes
}

// What names and paths are made of. Regular expressions would be compiled at the start of each process, those without rules, too.
const (
	lower   = "abcdefghijklmnopqrstuvwxyz"
	upper   = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits  = "0123456789"
	inScope = lower + upper + digits + "!#$%&'()*+,-./:;<=>?@[]^_`{|}~" // RFC 6749 §3.3
	inPath  = lower + upper + digits + "._~!$&'()*+,;=:@%/?-"           // RFC 3986 §3.3, and the wildcard ?
)

// made reports whether text is of 1 to most characters, all of those.
func made(text, characters string, most int) bool {
	return text != "" && len(text) <= most && strings.Trim(text, characters) == ""
}

// each reads a list of different strings, at least one, and tells the first mistake by the item's number.
func each(raw json.RawMessage, item func(text string) error) error {
	var items []jsontext.Value
	if json.Unmarshal(raw, &items) != nil || len(items) == 0 {
		return errors.New("not a list with at least one string")
	}
	seen := map[string]bool{}
	for n, raw := range items {
		v, ok := scalar(raw)
		if !ok || v.kind != '"' {
			return fmt.Errorf("item %d is not a string", n+1)
		}
		if seen[v.text] {
			return fmt.Errorf("item %d stands twice in the list", n+1)
		}
		seen[v.text] = true
		if err := item(v.text); err != nil {
			return fmt.Errorf("item %d: %w", n+1, err)
		}
	}
	return nil
}

// compileRoute reads a route and returns one for each of its methods.
func compileRoute(text string) (routes []route, err error) {
	if text == "$connect" {
		return []route{{resource: text, socket: true}}, nil
	}
	list, path, ok := strings.Cut(text, " ")
	if !ok {
		return nil, errors.New("not a method, a space and a path, as GET /orders, and not $connect")
	}
	if list == "*" && path == "/*" {
		return []route{{resource: everything}}, nil
	}
	named := methods
	if list != "*" {
		named = strings.Split(list, ",")
	}
	for n, method := range named {
		if !slices.Contains(methods, method) {
			return nil, fmt.Errorf("its method is not * and none of %s", strings.Join(methods, ", "))
		}
		if slices.Contains(named[:n], method) {
			return nil, errors.New("a method stands twice in it")
		}
	}
	switch {
	case !strings.HasPrefix(path, "/"):
		return nil, errors.New("its path does not begin with a slash")
	case strings.Contains(path, "${"):
		return nil, errors.New("its path holds ${, which begins a variable of IAM's")
	case strings.ContainsAny(path, "{}"):
		return nil, errors.New("its path is a template: where API Gateway has {id} or {proxy+}, a rule has *")
	case !made(path, inPath, len(path)):
		return nil, errors.New("its path holds a character that no path of a URL has")
	}
	for _, method := range named {
		r := route{resource: method + path}
		if prefixBytes+len(r.resource) > MaxResource {
			return nil, fmt.Errorf("its path is longer than %d characters, with which a Resource may pass %d", MaxResource-prefixBytes-len(method), MaxResource)
		}
		routes = append(routes, r)
	}
	return routes, nil
}

func compileClaims(raw json.RawMessage) (claims []claim, mistakes []error) {
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil || len(members) == 0 {
		return nil, []error{errors.New(`not an object with at least one claim, as {"role": ["admin"]}`)}
	}
	for n, name := range slices.Sorted(maps.Keys(members)) {
		wrong := func(text string) {
			mistakes = append(mistakes, fmt.Errorf("claim %d in the order of names: %s", n+1, text))
		}
		c := claim{path: []string{name}}
		if strings.HasPrefix(name, "/") {
			var ok bool
			if c.path, ok = pointer(name); !ok {
				wrong("a name that begins with a slash is a JSON Pointer, in which ~ stands before 0 or 1 (RFC 6901 §3)")
			}
		}
		if name == "" || len(name) > maxClaimBytes {
			wrong(fmt.Sprintf("its name is not of 1 to %d bytes", maxClaimBytes))
		}
		var items []jsontext.Value
		if json.Unmarshal(members[name], &items) != nil || len(items) == 0 {
			wrong("not a list with at least one value")
		}
		for i, item := range items {
			v, ok := scalar(item)
			switch {
			case !ok:
				wrong(fmt.Sprintf("value %d is not a string, a number or a boolean", i+1))
			case slices.Contains(c.values, v):
				wrong(fmt.Sprintf("value %d stands twice in the list", i+1))
			}
			c.values = append(c.values, v)
		}
		claims = append(claims, c)
	}
	return claims, mistakes
}

// warnings tells where a wildcard takes in routes of a stricter rule: there only Deny protects them, and paths that a
// backend may treat alike are different to API Gateway.
func (s *Set) warnings() (all []string) {
	for i, wide := range s.rules {
		for j, strict := range s.rules {
			if i == j || len(strict.scopes)+len(strict.claims) == 0 || !slices.ContainsFunc(wide.routes, func(w route) bool {
				return slices.ContainsFunc(strict.routes, func(n route) bool { return w.resource != n.resource && covers(w.resource, n.resource) })
			}) {
				continue
			}
			all = append(all, fmt.Sprintf("rule %d has a wildcard that takes in a route of rule %d: /x and /x/, /X or /%%78 are different to API Gateway, and may not be to the backend", i+1, j+1))
		}
	}
	return all
}

// covers reports whether a pattern with a wildcard takes in another one. It takes the other one's wildcards for
// characters, so that it may warn once too often.
func covers(pattern, other string) bool {
	return strings.ContainsAny(pattern, "*?") && matches(pattern, other)
}
