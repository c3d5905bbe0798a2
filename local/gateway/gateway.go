// Package gateway plays the part of API Gateway that a SAM template describes: routes, a TOKEN authorizer with its cache
// and its policies, gateway responses, Lambda proxy integration.
package gateway

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"io"
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

// API Gateway's limit on a request's body, in bytes.
const maxBody = 10 << 20

// Invoke calls a function. With isError the answer is the error's JSON (errorMessage, errorType); err says that the
// function could not be called at all.
type Invoke func(ctx context.Context, event []byte) (answer []byte, isError bool, err error)

// Config holds all that New needs.
type Config struct {
	API       *API
	Functions map[string]Invoke // by logical id, all that the API names
	Now       func() time.Time  // nil: time.Now
	Log       *log.Logger       // why a request ended in a 5xx; nil: discarded
}

// Gateway serves /{stage}/{path}.
type Gateway struct {
	Config
	mu    sync.Mutex
	cache map[string]cached // by authorizer and token
}

// New refuses an API that names a function which is not given.
func New(c Config) (*Gateway, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = log.New(io.Discard, "", 0)
	}
	for _, r := range c.API.Routes {
		for _, id := range []string{r.Function, cmp.Or(c.API.Authorizers[r.Authorizer].Function, r.Function)} {
			if c.Functions[id] == nil {
				return nil, fmt.Errorf("setting up %s: there is no function %q", r.Path, id)
			}
		}
	}
	return &Gateway{Config: c, cache: map[string]cached{}}, nil
}

func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := rand.Text()
	w.Header().Set("X-Amzn-Requestid", id)
	if p := g.serve(w, r, id); p != nil {
		if p.cause != nil {
			g.Log.Printf("%s %s: %s: %v", r.Method, r.URL.Path, p.kind, p.cause)
		}
		g.API.respond(w, p)
	}
}

func (g *Gateway) serve(w http.ResponseWriter, r *http.Request, id string) *problem {
	path, inStage := strings.CutPrefix(r.URL.Path, "/"+g.API.Stage)
	route := g.API.route(r.Method, path)
	if !inStage || route == nil {
		return &problem{kind: "MISSING_AUTHENTICATION_TOKEN", message: "Missing Authentication Token"}
	}
	var authorizer map[string]any
	if route.Authorizer != "" {
		arn := fmt.Sprintf("arn:aws:execute-api:%s:%s:%s/%s/%s%s", region, account, apiID, g.API.Stage, r.Method, path)
		var p *problem
		if authorizer, p = g.authorize(r, route.Authorizer, arn); p != nil {
			return p
		}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return &problem{kind: "REQUEST_TOO_LARGE", message: "Request Too Long"}
	}
	event := proxyEvent(r, g.API.Stage, id, route, body, authorizer, g.Now())
	if err := g.integrate(w, r.Context(), route.Function, event); err != nil {
		g.Log.Printf("%s %s: %v", r.Method, r.URL.Path, err)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadGateway)
		io.WriteString(w, `{"message": "Internal server error"}`)
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

func last(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[len(values)-1]
}
