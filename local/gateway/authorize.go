package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"time"

	"github.com/aws/aws-lambda-go/events"
)

// cached is one authorizer's answer to one token. It serves every method and path of the stage.
type cached struct {
	result *result
	until  time.Time
}

// authorize returns requestContext.authorizer, or why the request goes no further. Whether the answer is a cached one or
// not, it is judged anew for this request.
func (g *Gateway) authorize(r *http.Request, name, arn string) (map[string]any, *problem) {
	auth := g.API.Authorizers[name]
	token := last(r.Header.Values(auth.Header))
	if token == "" || !auth.Validation.MatchString(token) {
		return nil, &problem{kind: "UNAUTHORIZED", message: "Unauthorized"}
	}

	key := name + " " + token
	g.mu.Lock()
	entry, ok := g.cache[key]
	g.mu.Unlock()
	var latency time.Duration
	if now := g.Now(); !ok || !now.Before(entry.until) {
		res, p := g.ask(r.Context(), auth, token, arn)
		if p != nil {
			return nil, p // never cached
		}
		entry = cached{res, g.Now().Add(auth.TTL)}
		latency = g.Now().Sub(now)
		g.keep(key, entry)
	}
	if p := entry.result.decide(arn, g.Now()); p != nil {
		return nil, p
	}
	values := map[string]any{"principalId": entry.result.principal, "integrationLatency": latency.Milliseconds()}
	for name, value := range entry.result.context {
		if _, reserved := values[name]; !reserved {
			values[name] = value
		}
	}
	return values, nil
}

// keep also lets go of what has run out, or the cache would grow with every fresh token.
func (g *Gateway) keep(key string, entry cached) {
	now := g.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	maps.DeleteFunc(g.cache, func(_ string, e cached) bool { return !now.Before(e.until) })
	if now.Before(entry.until) {
		g.cache[key] = entry
	}
}

// ask calls the authorizer's function.
func (g *Gateway) ask(ctx context.Context, auth Authorizer, token, arn string) (*result, *problem) {
	event, _ := json.Marshal(events.APIGatewayCustomAuthorizerRequest{Type: "TOKEN", AuthorizationToken: token, MethodArn: arn})
	payload, isError, err := g.Functions[auth.Function](ctx, event)
	if err != nil {
		return nil, &problem{kind: "AUTHORIZER_FAILURE", cause: err}
	}
	if isError {
		var answer struct{ ErrorMessage string }
		if json.Unmarshal(payload, &answer) == nil && answer.ErrorMessage == "Unauthorized" {
			return nil, &problem{kind: "UNAUTHORIZED", message: "Unauthorized"}
		}
		return nil, &problem{kind: "AUTHORIZER_FAILURE", cause: fmt.Errorf("%s: %s", auth.Function, payload)}
	}
	res, err := parseResult(payload)
	if err != nil {
		return nil, &problem{kind: "AUTHORIZER_CONFIGURATION_ERROR", cause: fmt.Errorf("%s's answer: %w", auth.Function, err)}
	}
	return res, nil
}
