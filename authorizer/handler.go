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
)

// errUnauthorized is the verdict "reject": API Gateway answers 401 to a function error of exactly this text, and
// 500 to any other.
var errUnauthorized = errors.New("Unauthorized")

// keySource is an issuer's keys as the handler needs them.
type keySource interface {
	jwt.KeySource
	Age() (age time.Duration, ok bool)
}

// An authorizer answers API Gateway's TOKEN events. It is a lambda.Handler.
type authorizer struct {
	verifier       jwt.Verifier
	keys           map[string]keySource // by issuer
	principalClaim string
	policyExpiry   bool
	overdue        time.Duration // keys that serve at a greater age are called overdue in the log
	now            func() time.Time
	log            *slog.Logger
	decisions      *slog.Logger // one line each, whatever LOG_LEVEL says
}

// Invoke decides about one event and logs the decision.
func (a *authorizer) Invoke(ctx context.Context, event []byte) (answer []byte, err error) {
	start := a.now()
	var token jwt.Token
	defer func() {
		var stack []byte
		if p := recover(); p != nil {
			answer, err, stack = nil, fmt.Errorf("panic of type %T while deciding", p), debug.Stack()
		}
		err = a.conclude(ctx, start, token, err, stack)
	}()
	answer, token, err = a.decide(ctx, event)
	return answer, err
}

// decide takes a token from the event to the policy.
func (a *authorizer) decide(ctx context.Context, payload []byte) (answer []byte, token jwt.Token, err error) {
	event, err := apigw.ParseTokenEvent(payload)
	if err != nil {
		return nil, token, err
	}
	resource, err := apigw.StageResource(event.MethodARN)
	if err != nil {
		return nil, token, err
	}
	token, err = a.verifier.Verify(ctx, event.AuthorizationToken)
	if err != nil {
		return nil, token, err
	}
	allow := apigw.Allow{
		Principal: token.Claims.Principal(a.principalClaim),
		Resource:  resource,
		Payload:   token.Claims.JSON,
		Claims: func(yield func(string, jsontext.Value) bool) {
			for _, m := range token.Claims.Members {
				if !yield(m.Name, m.Value) {
					return
				}
			}
		},
	}
	if a.policyExpiry {
		allow.Expires = &token.Expires
	}
	return allow.AppendTo(make([]byte, 0, 1024+4*len(token.Claims.JSON))), token, nil
}

// conclude logs the decision that err stands for and returns the error to answer with.
func (a *authorizer) conclude(ctx context.Context, start time.Time, t jwt.Token, err error, stack []byte) error {
	level, verdict := slog.LevelInfo, "allow"
	attrs := make([]slog.Attr, 0, 10)
	if lc, ok := lambdacontext.FromContext(ctx); ok {
		attrs = append(attrs, slog.String("request_id", lc.AwsRequestID))
	}
	var rejection *jwt.Rejection
	switch {
	case err == nil:
	case errors.As(err, &rejection):
		verdict = "reject"
		attrs = append(attrs, slog.String("reason", string(rejection.Reason)))
		if rejection.Detail != jwt.NoDetail {
			attrs = append(attrs, slog.String("detail", string(rejection.Detail)))
		}
		err = errUnauthorized
	default:
		level, verdict = slog.LevelError, "fault"
		attrs = append(attrs, slog.String("error", err.Error()))
		if stack != nil {
			attrs = append(attrs, slog.String("stack", string(stack)))
		}
	}
	attrs = append(attrs, slog.String("verdict", verdict))
	if t.Issuer != "" {
		attrs = append(attrs, slog.String("issuer", t.Issuer))
		if age, ok := a.keys[t.Issuer].Age(); ok {
			attrs = append(attrs, slog.Int64("keys_age_s", int64(age.Seconds())))
			if verdict == "allow" && age > a.overdue { // a token refused early, after a quiet hour, never asked for newer ones
				attrs = append(attrs, slog.Bool("keys_overdue", true))
			}
		}
	}
	if t.Alg != "" {
		attrs = append(attrs, slog.String("alg", t.Alg))
	}
	if t.Kid != "" {
		attrs = append(attrs, slog.String("kid", jwks.ForLog(t.Kid)))
	}
	attrs = append(attrs, slog.Int64("duration_us", a.now().Sub(start).Microseconds()))
	a.decisions.LogAttrs(ctx, level, "decision", attrs...)
	return err
}
