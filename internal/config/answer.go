package config

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"zuplo-lambda-authorizer/internal/apigw"
	"zuplo-lambda-authorizer/internal/jwt"
	"zuplo-lambda-authorizer/internal/rules"
)

// ErrUnauthorized is how a rejection is answered: API Gateway answers 401 to a function error of exactly this text, and 500 to
// any other.
var ErrUnauthorized = errors.New("Unauthorized")

// everywhere is where a good token may go, unless there are rules.
var everywhere = []string{apigw.All}

// Allow returns the answer for a verified token, a policy, and what the rules say of it.
func (c *Config) Allow(r apigw.Request, t *jwt.Token) (answer []byte, d rules.Decision, err error) {
	policy, d, err := c.policy(r, t)
	if err != nil {
		return nil, d, err
	}
	claims := apigw.Claims{
		Principal: t.Claims.Principal(c.PrincipalClaim), JSON: t.Claims.JSON, Encoded: t.Claims.Encoded,
		Members: func(yield func(string, jsontext.Value) bool) {
			for _, m := range t.Claims.Members {
				if !yield(m.Name, m.Value) {
					return
				}
			}
		},
	}
	resources := len(policy.Allow) + len(policy.Deny) + len(policy.Only)
	size := 1024 + 4*len(claims.JSON) + resources*(len(r.Stage)+32) // more is taken if need be
	answer, err = r.Append(make([]byte, 0, size), policy, claims)
	return answer, d, err
}

// policy is what a verified token may do.
func (c *Config) policy(r apigw.Request, t *jwt.Token) (p apigw.Policy, d rules.Decision, err error) {
	p.Allow = everywhere
	if c.PolicyExpiry {
		p.Expires = &t.Expires
	}
	if c.ExplicitDeny {
		p.Only = p.Allow
	}
	if c.Rules != nil {
		socket := r.Kind == apigw.WebSocket
		d = c.Rules.Apply(rules.Request{API: r.API, Method: r.Method, Path: r.Path, Socket: socket}, t.Claims.Find)
		if !c.RulesLog {
			if err := c.Rules.Fit(len(r.Stage), r.API, socket); err != nil {
				return p, d, fmt.Errorf("answering: RULES: %w", err)
			}
			p.Allow, p.Deny = d.Allow, d.Deny
			if c.ExplicitDeny {
				p.Only = c.Rules.Routes(r.API, socket)
			}
		}
	}
	return p, d, nil
}

// Reject returns the answer for a rejection: the error of a text that API Gateway knows. An HTTP API may take that for a fault of
// ours, so there it is a policy, which is cached; except where time may cure what is wrong.
func (c *Config) Reject(r apigw.Request, reason jwt.Reason) (answer []byte, err error) {
	if r.Kind.API() != "http" || reason == jwt.NotYetValid || reason == jwt.UnknownKey {
		return nil, ErrUnauthorized
	}
	return r.AppendDenial(nil), nil
}
