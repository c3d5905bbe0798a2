package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/go-json-experiment/json/jsontext"

	"zuplo-lambda-authorizer/internal/apigw"
	"zuplo-lambda-authorizer/internal/jwks"
	"zuplo-lambda-authorizer/internal/jwt"
	"zuplo-lambda-authorizer/internal/rules"
)

// errUnauthorized is the verdict "reject": API Gateway answers 401 to a function error of exactly this text, and
// 500 to any other.
var errUnauthorized = errors.New("Unauthorized")

// everywhere is where a good token may go, unless there are rules.
var everywhere = []string{apigw.All}

// keySource is an issuer's keys as the handler needs them.
type keySource interface {
	jwt.KeySource
	Age() (age time.Duration, ok bool)
}

// An authorizer answers API Gateway's questions about a token, of every kind of API. It is a lambda.Handler.
type authorizer struct {
	verifier       jwt.Verifier
	keys           map[string]keySource // by issuer
	header         string               // that carries the token, where the event has all of them
	principalClaim string
	policyExpiry   bool
	rules          *rules.Set // nil: a good token may go everywhere
	rulesLog       bool       // rules are told of in the log, and not enforced
	explicitDeny   bool
	overdue        time.Duration // keys that serve at a greater age are called overdue in the log
	now            func() time.Time
	log            *slog.Logger
	decisions      *slog.Logger // one line each, whatever LOG_LEVEL says
}

// A decision is what became of an event, as far as it came.
type decision struct {
	request apigw.Request
	token   jwt.Token
	answer  []byte         // a policy
	rules   rules.Decision // if there are rules, and the token is good
}

// Invoke decides about one event and logs the decision.
func (a *authorizer) Invoke(ctx context.Context, event []byte) (answer []byte, err error) {
	start := a.now()
	var d decision
	defer func() {
		var stack []byte
		if p := recover(); p != nil {
			err, stack = fmt.Errorf("panic of type %T while deciding", p), debug.Stack()
		}
		answer, err = a.conclude(ctx, start, &d, err, stack)
	}()
	return nil, a.decide(ctx, event, &d)
}

// decide takes a token from the event to the policy.
func (a *authorizer) decide(ctx context.Context, event []byte, d *decision) (err error) {
	if d.request, err = apigw.Parse(event, a.header); err != nil {
		return err
	}
	if d.token, err = a.verifier.Verify(ctx, d.request.Token); err != nil {
		return err
	}
	claims := apigw.Claims{
		Principal: d.token.Claims.Principal(a.principalClaim), JSON: d.token.Claims.JSON, Encoded: d.token.Claims.Encoded,
		Members: func(yield func(string, jsontext.Value) bool) {
			for _, m := range d.token.Claims.Members {
				if !yield(m.Name, m.Value) {
					return
				}
			}
		},
	}
	policy, err := a.policy(d)
	if err != nil {
		return err
	}
	resources := len(policy.Allow) + len(policy.Deny) + len(policy.Only)
	size := 1024 + 4*len(claims.JSON) + resources*(len(d.request.Stage)+32) // more is taken if need be
	d.answer, err = d.request.Append(make([]byte, 0, size), policy, claims)
	return err
}

// policy is what a verified token may do.
func (a *authorizer) policy(d *decision) (p apigw.Policy, err error) {
	p.Allow = everywhere
	if a.policyExpiry {
		p.Expires = &d.token.Expires
	}
	if a.explicitDeny {
		p.Only = p.Allow
	}
	if a.rules != nil {
		r := d.request
		socket := r.Kind == apigw.WebSocket
		d.rules = a.rules.Apply(rules.Request{API: r.API, Method: r.Method, Path: r.Path, Socket: socket}, d.token.Claims.Find)
		if !a.rulesLog {
			if err := a.rules.Fit(len(r.Stage), r.API, socket); err != nil {
				return p, fmt.Errorf("answering: RULES: %w", err)
			}
			p.Allow, p.Deny = d.rules.Allow, d.rules.Deny
			if a.explicitDeny {
				p.Only = a.rules.Routes(r.API, socket)
			}
		}
	}
	return p, nil
}

// rejected is how a rejection is answered: by the error of a text that API Gateway knows. An HTTP API may take that for a fault
// of ours, so there it is a policy, which is cached; except where time may cure what is wrong.
func (d *decision) rejected(reason jwt.Reason) error {
	if d.request.Kind.API() != "http" || reason == jwt.NotYetValid || reason == jwt.UnknownKey {
		return errUnauthorized
	}
	d.answer = d.request.AppendDenial(nil)
	return nil
}

// conclude logs the decision that err stands for, and returns what to answer with.
func (a *authorizer) conclude(ctx context.Context, start time.Time, d *decision, err error, stack []byte) ([]byte, error) {
	level, verdict := slog.LevelInfo, "allow"
	attrs := make([]slog.Attr, 0, 14)
	if lc, ok := lambdacontext.FromContext(ctx); ok {
		attrs = append(attrs, slog.String("request_id", lc.AwsRequestID))
	}
	var rejection *jwt.Rejection
	switch {
	case err == nil && d.rules.Refused && a.rulesLog:
		attrs = append(attrs, slog.Bool("would_forbid", true), slog.Int("rule", d.rules.Rule))
	case err == nil && d.rules.Refused:
		verdict = "forbid"
		attrs = append(attrs, slog.Int("rule", d.rules.Rule))
	case err == nil:
	case errors.As(err, &rejection):
		verdict = "reject"
		attrs = append(attrs, slog.String("reason", string(rejection.Reason)))
		if rejection.Detail != jwt.NoDetail {
			attrs = append(attrs, slog.String("detail", string(rejection.Detail)))
		}
		err = d.rejected(rejection.Reason)
	default:
		level, verdict = slog.LevelError, "fault"
		attrs = append(attrs, slog.String("error", err.Error()))
		if stack != nil {
			attrs = append(attrs, slog.String("stack", string(stack)))
		}
	}
	attrs = append(attrs, slog.String("verdict", verdict))
	if api := d.request.Kind.API(); api != "" {
		attrs = append(attrs, slog.String("api", api))
	}
	if err != nil {
		attrs = append(attrs, slog.String("answer", "error"))
	} else {
		attrs = append(attrs, slog.String("answer", "policy"))
	}
	if t := d.token; t.Issuer != "" {
		attrs = append(attrs, slog.String("issuer", t.Issuer))
		if age, ok := a.keys[t.Issuer].Age(); ok {
			attrs = append(attrs, slog.Int64("keys_age_s", int64(age.Seconds())))
			if verdict == "allow" && age > a.overdue { // a token refused early, after a quiet hour, never asked for newer ones
				attrs = append(attrs, slog.Bool("keys_overdue", true))
			}
		}
	}
	if d.token.Alg != "" {
		attrs = append(attrs, slog.String("alg", d.token.Alg))
	}
	if d.token.Kid != "" {
		attrs = append(attrs, slog.String("kid", jwks.ForLog(d.token.Kid)))
	}
	attrs = append(attrs, slog.Int64("duration_us", a.now().Sub(start).Microseconds()))
	a.decisions.LogAttrs(ctx, level, "decision", attrs...)
	return d.answer, err
}
