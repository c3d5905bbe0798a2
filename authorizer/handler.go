package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/aws/aws-lambda-go/lambdacontext"

	"zuplo-lambda-authorizer/internal/apigw"
	"zuplo-lambda-authorizer/internal/config"
	"zuplo-lambda-authorizer/internal/jwks"
	"zuplo-lambda-authorizer/internal/jwt"
	"zuplo-lambda-authorizer/internal/rules"
)

// An authorizer answers API Gateway's questions about a token, of every kind of API. It is a lambda.Handler.
type authorizer struct {
	config    config.Config
	keys      map[string]config.KeySource // by issuer
	verifier  jwt.Verifier
	now       func() time.Time
	log       *slog.Logger
	decisions *slog.Logger // one line each, whatever LOG_LEVEL says
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
	if d.request, err = apigw.Parse(event, a.config.Header); err != nil {
		return err
	}
	if d.token, err = a.verifier.Verify(ctx, d.request.Token); err != nil {
		return err
	}
	d.answer, d.rules, err = a.config.Allow(d.request, &d.token)
	return err
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
	case err == nil && d.rules.Refused && a.config.RulesLog:
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
		d.answer, err = a.config.Reject(d.request, rejection.Reason)
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
			if verdict == "allow" && age > 2*a.config.TTL { // a token refused early, after a quiet hour, never asked for newer ones
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
