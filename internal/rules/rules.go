// Package rules says what a token must have for a route. Rules are compiled once, and applied to a token's claims: which
// routes the token may use, and which not, so that one policy is right for every route that it will be served for.
package rules

import (
	"bytes"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// A Set is a compiled list of rules. It never changes. A request must meet every rule that names its route; a route that
// no rule names is refused.
type Set struct {
	rules  []rule
	routes int // of all rules
}

// A rule asks something of a token for some routes.
type rule struct {
	apis   []string // none: it counts for all
	routes []route
	scopes []string
	claims []claim
}

// A route is a method and a path of IAM's wildcards: * is any run of characters, slashes too, ? is one.
type route struct {
	resource string // as it stands in a Resource behind the stage: METHOD/path, or $connect
	socket   bool   // it is $connect
}

// everything is the route * /*, the only one that is no method's.
const everything = "*"

// A claim is one that must have one of some values.
type claim struct {
	path   []string // of member names and array indexes; one name, if it was no JSON Pointer
	values []value
}

// A Request is what a decision is about.
type Request struct {
	API    string
	Method string
	Path   string // with its leading slash
	Socket bool   // it is a WebSocket's $connect: Method and Path do not count
}

// A Decision is what the rules say of one token, for all routes and for the one that was asked for. Routes are as they
// stand in a Resource behind the stage.
type Decision struct {
	Allow, Deny []string // routes of the rules that are met, and of those that are not
	Refused     bool     // the one that was asked for
	Rule        int      // that refused it first, counted from 1; 0: no rule names it
}

// Apply applies the rules to a token, whose claims are found by name.
func (s *Set) Apply(r Request, find func(name string) jsontext.Value) Decision {
	d := Decision{Allow: make([]string, 0, s.routes), Deny: make([]string, 0, s.routes), Refused: true}
	asked, named := r.Method+r.Path, false
	granted := scopes(find("scope"), find("scp"))
	for n, rule := range s.rules {
		if !rule.counts(r.API) {
			continue
		}
		met := rule.met(granted, find)
		names := false
		for _, route := range rule.routes {
			if route.socket != r.Socket {
				continue
			}
			names = names || r.Socket || matches(route.resource, asked)
			if met {
				d.Allow = append(d.Allow, route.resource)
			} else {
				d.Deny = append(d.Deny, route.resource)
			}
		}
		switch {
		case !names || named && d.Refused:
		case !met:
			named, d.Refused, d.Rule = true, true, n+1
		default:
			named, d.Refused = true, false
		}
	}
	return d
}

// Routes are all routes that the rules name for an API or its WebSocket, as they stand in a Resource behind the stage.
func (s *Set) Routes(api string, socket bool) (routes []string) {
	for _, rule := range s.rules {
		if !rule.counts(api) {
			continue
		}
		for _, route := range rule.routes {
			if route.socket == socket {
				routes = append(routes, route.resource)
			}
		}
	}
	return routes
}

// counts reports whether the rule is one for an API.
func (r *rule) counts(api string) bool {
	return len(r.apis) == 0 || slices.Contains(r.apis, api)
}

// met reports whether a token has all that the rule asks for.
func (r *rule) met(granted []string, find func(name string) jsontext.Value) bool {
	for _, s := range r.scopes {
		if !slices.Contains(granted, s) {
			return false
		}
	}
	for _, c := range r.claims {
		v := find(c.path[0])
		for _, step := range c.path[1:] {
			v = descend(v, step)
		}
		if !slices.ContainsFunc(c.values, func(want value) bool { return is(v, want) || contains(v, want) }) {
			return false
		}
	}
	return true
}

// scopes are those of a token: scope is a string of scopes, separated by spaces (RFC 8693 §4.2), scp such a string, or an
// array of scopes.
func scopes(scope, scp jsontext.Value) (granted []string) {
	for _, v := range []jsontext.Value{scope, scp} {
		if s, ok := scalar(v); ok && s.kind == '"' {
			granted = append(granted, strings.Split(s.text, " ")...)
		}
	}
	for element := range elements(scp) {
		if s, ok := scalar(element); ok && s.kind == '"' {
			granted = append(granted, s.text)
		}
	}
	return granted
}

// A value is a string, number or boolean as it must be in a token: types count, and numbers count by value.
type value struct {
	kind jsontext.Kind
	text string // unquoted, or the number's canonical spelling
}

// is reports whether v is that value.
func is(v jsontext.Value, want value) bool {
	if n := len(v); n > 1 && v[0] == '"' && bytes.IndexByte(v, '\\') < 0 { // nothing to unquote: no copy
		return want.kind == '"' && string(v[1:n-1]) == want.text
	}
	got, ok := scalar(v)
	return ok && got == want
}

// contains reports whether v is an array with that value among its elements.
func contains(v jsontext.Value, want value) bool {
	for element := range elements(v) {
		if is(element, want) {
			return true
		}
	}
	return false
}

// matches reports whether a pattern of IAM's wildcards matches text. Both count in characters, not in bytes.
func matches(pattern, text string) bool {
	star, at := -1, 0 // the last * seen, and where in text it was tried
	p, t := 0, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, at = p, t
			p++
		case p < len(pattern) && pattern[p] == '?':
			p++
			t += width(text[t:])
		case p < len(pattern) && pattern[p] == text[t]:
			p++
			t++
		case star >= 0:
			at += width(text[at:])
			p, t = star+1, at
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// width is the length of the first character in bytes.
func width(text string) int {
	_, n := utf8.DecodeRuneInString(text)
	return n
}
