package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"

	"github.com/aws/aws-lambda-go/events"
)

// authorize returns requestContext.authorizer, or why the request goes no further. Whether the answer is a cached one or
// not, it is judged anew for this request.
func (g *Gateway) authorize(r *http.Request, arn string) (map[string]any, *problem) {
	token := r.Header.Get(g.API.Authorizer.Header)
	if token == "" || !g.API.Authorizer.Validation.MatchString(token) {
		return nil, &problem{kind: "UNAUTHORIZED"}
	}
	res := g.cached(token)
	if res == nil {
		var p *problem
		if res, p = g.ask(r.Context(), token, arn); p != nil {
			return nil, p // never cached
		}
		g.keep(token, res)
	}
	if !res.allows(arn, g.Now()) {
		return nil, &problem{kind: "ACCESS_DENIED"}
	}
	return res.context, nil
}

// cached is the answer kept for the token, nil if there is none. It serves every method and path of the stage.
func (g *Gateway) cached(token string) *result {
	g.mu.Lock()
	defer g.mu.Unlock()
	if res := g.cache[token]; res != nil && g.Now().Before(res.until) {
		return res
	}
	return nil
}

// keep also lets go of what has run out, or the cache would grow with every fresh token.
func (g *Gateway) keep(token string, res *result) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.Now()
	res.until = now.Add(g.API.Authorizer.TTL)
	maps.DeleteFunc(g.cache, func(_ string, old *result) bool { return !now.Before(old.until) })
	g.cache[token] = res
}

// ask calls the authorizer's function.
func (g *Gateway) ask(ctx context.Context, token, arn string) (*result, *problem) {
	function := g.API.Authorizer.Function
	event, _ := json.Marshal(events.APIGatewayCustomAuthorizerRequest{Type: "TOKEN", AuthorizationToken: token, MethodArn: arn})
	payload, isError, err := g.Functions[function](ctx, event)
	if err != nil {
		return nil, &problem{"AUTHORIZER_FAILURE", err}
	}
	if isError {
		var answer struct{ ErrorMessage string }
		if json.Unmarshal(payload, &answer) == nil && answer.ErrorMessage == "Unauthorized" {
			return nil, &problem{kind: "UNAUTHORIZED"}
		}
		return nil, &problem{"AUTHORIZER_FAILURE", fmt.Errorf("%s: %s", function, payload)}
	}
	res, err := parseResult(payload)
	if err != nil {
		return nil, &problem{"AUTHORIZER_CONFIGURATION_ERROR", fmt.Errorf("%s's answer: %w", function, err)}
	}
	return res, nil
}
