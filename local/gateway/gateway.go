// Package gateway plays the part of API Gateway that a SAM template describes: routes, a TOKEN authorizer with its cache
// and its policies, gateway responses, Lambda proxy integration.
package gateway

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	region  = "us-east-1"
	account = "123456789012"
	apiID   = "local12345"
)

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
	arn := fmt.Sprintf("arn:aws:execute-api:%s:%s:%s/%s/%s%s", region, account, apiID, g.API.Stage, r.Method, path)
	authorizer, p := g.authorize(r, arn)
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
