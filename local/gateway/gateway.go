// Package gateway plays the part of API Gateway that a SAM template describes: routes, a TOKEN authorizer with its cache
// and its policies, gateway responses, Lambda proxy integration.
package gateway

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"zuplo-lambda-authorizer/local/journal"
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
	Journal   *journal.Journal
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

// Cached is how many tokens have an answer in the cache.
func (g *Gateway) Cached() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.clean()
	return len(g.cache)
}

// Flush empties the cache.
func (g *Gateway) Flush() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.cache)
}

// A problem is the kind of gateway response that the caller gets, and what of it is for the journal alone: the hop that decided
// so, the verdict where the authorizer logs none, and why.
type problem struct{ kind, by, verdict, why string }

func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.Journal.Serve(w, r, func(w http.ResponseWriter, r *http.Request) {
		id := rand.Text()
		w.Header().Set("X-Amzn-Requestid", id)
		p := g.serve(w, r, id)
		g.Journal.Answered(r.Context(), p.by, p.why)
		g.Journal.Note(r.Context(), func(q *journal.Request) { q.Verdict = cmp.Or(q.Verdict, p.verdict) })
		if p.kind != "" {
			g.API.Responses[p.kind].write(w)
		}
	})
}

func (g *Gateway) serve(w http.ResponseWriter, r *http.Request, id string) problem {
	path, inStage := strings.CutPrefix(r.URL.Path, "/"+g.API.Stage)
	g.Journal.Carries(r.Context(), r.Header.Get(g.API.Authorizer.Header))
	g.Journal.Note(r.Context(), func(q *journal.Request) {
		if len(q.Hops) == 0 {
			q.Path, q.Hops = path, []journal.Hop{{From: "caller", To: "gateway", What: r.Method + " " + r.URL.Path}}
		}
	})
	route := g.API.route(r.Method, path)
	if !inStage || route == nil {
		return problem{"MISSING_AUTHENTICATION_TOKEN", "gateway", "", "no route of the API; the authorizer was not asked"}
	}
	authorizer, p := g.authorize(r, apiARN+"/"+g.API.Stage+"/"+r.Method+path)
	if p != nil {
		return *p
	}
	if err := g.integrate(w, r, route, id, authorizer); err != nil {
		return problem{"DEFAULT_5XX", "protected", "allow", err.Error()}
	}
	return problem{by: "protected", verdict: "allow"}
}

// route prefers a method's own to ANY.
func (a *API) route(method, path string) (found *Route) {
	for i, r := range a.Routes {
		if r.Path == path && (r.Method == method || r.Method == "ANY" && found == nil) {
			found = &a.Routes[i]
		}
	}
	if found == nil {
		return a.Rest
	}
	return found
}

// authorize returns requestContext.authorizer, or why the request goes no further. Whether the answer is a cached one or
// not, it is judged anew for this request.
func (g *Gateway) authorize(r *http.Request, arn string) (map[string]any, *problem) {
	token := r.Header.Get(g.API.Authorizer.Header)
	if token == "" || !g.API.Authorizer.Validation.MatchString(token) {
		return nil, &problem{"UNAUTHORIZED", "gateway", "", "no " + g.API.Authorizer.Expects + " in " + g.API.Authorizer.Header + "; the authorizer was not asked"}
	}
	res := g.cached(token)
	denied := &problem{"ACCESS_DENIED", "gateway", "forbid", "the cached policy does not allow this route"}
	g.Journal.Note(r.Context(), func(q *journal.Request) { q.Cached = res != nil })
	if res == nil {
		var p *problem
		if res, p = g.ask(r.Context(), token, arn); p != nil {
			return nil, p // never cached
		}
		g.keep(token, res)
		denied.by, denied.why = "authorizer", ""
	}
	g.Journal.Note(r.Context(), func(q *journal.Request) { q.Policy = res.policy })
	switch {
	case res.allows(arn, g.Now()):
		return res.context, nil
	case res.allows(arn, time.Time{}): // when no condition has run out
		denied.why = "the token has expired since its policy was cached"
	}
	return nil, denied
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
	res.until = g.Now().Add(g.API.Authorizer.TTL)
	g.clean()
	g.cache[token] = res
}

func (g *Gateway) clean() {
	now := g.Now()
	maps.DeleteFunc(g.cache, func(_ string, old *result) bool { return !now.Before(old.until) })
}

// ask calls the authorizer's function.
func (g *Gateway) ask(ctx context.Context, token, arn string) (*result, *problem) {
	function := g.API.Authorizer.Function
	event, _ := json.Marshal(events.APIGatewayCustomAuthorizerRequest{Type: "TOKEN", AuthorizationToken: token, MethodArn: arn})
	g.Journal.Hop(ctx, "gateway", "authorizer", "TOKEN event: the token and "+arn)
	payload, isError, err := g.Functions[function](ctx, event)
	fault := func(kind string, err error) (*result, *problem) {
		return nil, &problem{kind, "authorizer", "fault", err.Error()}
	}
	if err != nil {
		return fault("AUTHORIZER_FAILURE", err)
	}
	if isError {
		var answer struct{ ErrorMessage string }
		if json.Unmarshal(payload, &answer) == nil && answer.ErrorMessage == "Unauthorized" {
			return nil, &problem{"UNAUTHORIZED", "authorizer", "reject", ""}
		}
		return fault("AUTHORIZER_FAILURE", fmt.Errorf("%s: %s", function, payload))
	}
	res, err := parseResult(payload)
	if err != nil {
		return fault("AUTHORIZER_CONFIGURATION_ERROR", fmt.Errorf("%s's answer: %w", function, err))
	}
	return res, nil
}
