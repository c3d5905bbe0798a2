// Package gateway plays the part of API Gateway that a SAM template describes: routes, a TOKEN authorizer with its cache
// and its policies, gateway responses, Lambda proxy integration.
package gateway

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"
)

const apiARN = "arn:aws:execute-api:us-east-1:123456789012:local12345"

// Invoke calls a function. With isError the answer is the error's JSON (errorMessage, errorType); err says that the
// function could not be called at all.
type Invoke func(ctx context.Context, event []byte) (answer []byte, isError bool, err error)

// Config holds all that New needs.
type Config struct {
	API       *API
	Functions map[string]Invoke // by logical id, all that the API names
	Now       func() time.Time
	Log       *log.Logger // why a request ended in a 5xx
}

// Gateway serves /{stage}/{path}.
type Gateway struct {
	Config
	mu    sync.Mutex
	cache map[string]*result // by token
}

// New refuses an API that names a function which is not given.
func New(c Config) (*Gateway, error) {
	ids := []string{c.API.Authorizer.Function}
	for _, r := range c.API.Routes {
		ids = append(ids, r.Function)
	}
	for _, id := range ids {
		if c.Functions[id] == nil {
			return nil, fmt.Errorf("setting up the API: there is no function %q", id)
		}
	}
	return &Gateway{Config: c, cache: map[string]*result{}}, nil
}

// problem is why API Gateway answers by itself.
type problem struct {
	kind  string // of gateway response
	cause error  // for the log alone
}

func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := rand.Text()
	w.Header().Set("X-Amzn-Requestid", id)
	if p := g.serve(w, r, id); p != nil {
		if p.cause != nil {
			g.Log.Printf("%s %s: %s: %v", r.Method, r.URL.Path, p.kind, p.cause)
		}
		g.API.Responses[p.kind].write(w)
	}
}

func (g *Gateway) serve(w http.ResponseWriter, r *http.Request, id string) *problem {
	path, inStage := strings.CutPrefix(r.URL.Path, "/"+g.API.Stage)
	route := g.API.route(r.Method, path)
	if !inStage || route == nil {
		return &problem{kind: "MISSING_AUTHENTICATION_TOKEN"}
	}
	authorizer, p := g.authorize(r, apiARN+"/"+g.API.Stage+"/"+r.Method+path)
	if p != nil {
		return p
	}
	if err := g.integrate(w, r, route, id, authorizer); err != nil {
		return &problem{"DEFAULT_5XX", err}
	}
	return nil
}

// route prefers a method's own to ANY.
func (a *API) route(method, path string) (found *Route) {
	for i, r := range a.Routes {
		if r.Path == path && (r.Method == method || r.Method == "ANY" && found == nil) {
			found = &a.Routes[i]
		}
	}
	return found
}

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
