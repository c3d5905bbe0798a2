package zuplo

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"zuplo-lambda-authorizer/local/journal"
)

// Config is what the stand-in is started with. What is not said to be optional is required.
type Config struct {
	APIKey    string        // what a caller sends as Authorization: Bearer …
	Alg       string        // signs the forwarded requests' tokens
	Tokens    string        // fresh: one for each request; cached: one until half of its life is over
	Audience  string        // of the tokens
	ExpiresIn time.Duration // their life
	Upstream  string        // base URL of the API, its stage included
	Issuer    string        // URL of the issuer, {this server}/__zuplo/issuer
	KeysFile  string        // where the issuer's keys are kept; empty: nowhere

	Header, Prefix string           // that carry the token, and stand before it; empty: Authorization, Bearer; none: nothing before it
	Rules          json.RawMessage  // the authorizer's, to be shown; nil: it has none
	Local          *Local           // nil: the API is a deployed one
	Journal        *journal.Journal // optional
}

// A server is the gateway, its issuer and the admin API.
type server struct {
	cfg      Config
	upstream *url.URL
	proxy    *httputil.ReverseProxy

	endpoints []any // of the admin API

	mu          sync.Mutex // guards all below
	keys        *keys
	strangers   *keys // that nobody publishes
	cached      string
	cachedUntil time.Time
	mode        string // how the JWKS endpoint behaves
	delay       time.Duration
	requests    int
	open        map[net.Conn]bool // connections that a JWKS request holds
}

type connKey struct{}

// New returns an HTTP server to be given a listener. It makes the keys, which takes about as long as two RSA keys.
func New(cfg Config) (*http.Server, error) {
	if !slices.Contains(Algorithms, cfg.Alg) {
		return nil, fmt.Errorf("no algorithm %q, there are %v", cfg.Alg, Algorithms)
	}
	if cfg.Tokens != "fresh" && cfg.Tokens != "cached" {
		return nil, fmt.Errorf("tokens are fresh or cached, not %q", cfg.Tokens)
	}
	upstream, err := url.Parse(cfg.Upstream)
	if err != nil {
		return nil, fmt.Errorf("reading the upstream's URL: %w", err)
	}
	cfg.Header, cfg.Prefix = cmp.Or(cfg.Header, "Authorization"), cmp.Or(cfg.Prefix, "Bearer")
	cfg.Journal = cmp.Or(cfg.Journal, journal.New(io.Discard, "json"))
	s := &server{cfg: cfg, upstream: upstream, mode: "ok", open: map[net.Conn]bool{}}
	s.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(upstream)
			cfg.Journal.Note(r.In.Context(), func(q *journal.Request) { r.Out.Header.Set(journal.ID, q.ID) })
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			cfg.Journal.Answered(r.Context(), "zuplo", fmt.Sprintf("asking API Gateway: %v", err))
			w.WriteHeader(http.StatusBadGateway)
		},
	}
	for _, k := range []**keys{&s.keys, &s.strangers} {
		if *k, err = newKeys(); err != nil {
			return nil, fmt.Errorf("making keys: %w", err)
		}
	}
	if cfg.KeysFile != "" {
		if err := s.keys.keep(cfg.KeysFile); err != nil {
			return nil, err
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /__zuplo/issuer/.well-known/jwks.json", s.serveJWKS)
	mux.HandleFunc("GET /__zuplo/issuer/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]any{"issuer": cfg.Issuer, "jwks_uri": cfg.Issuer + "/.well-known/jwks.json", "id_token_signing_alg_values_supported": Algorithms})
	})
	mux.Handle("/__admin/", s.guarded(s.admin()))
	served := s.guarded(http.HandlerFunc(servePage))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && r.URL.Path == "/" && r.Header.Get("Authorization") == "" {
			served(w, r)
		} else {
			s.forward(w, r)
		}
	})
	withConn := func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }
	return &http.Server{Handler: mux, ConnContext: withConn}, nil
}

// forward checks the API key and calls the upstream with a JWT, as the policy upstream-zuplo-jwt-auth-inbound does.
func (s *server) forward(w http.ResponseWriter, r *http.Request) {
	s.cfg.Journal.Serve(w, r, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+s.cfg.APIKey {
			const why = "no API key, or a wrong one"
			s.cfg.Journal.Hop(r.Context(), "caller", "zuplo", r.Method+" "+r.URL.Path+", "+why)
			s.cfg.Journal.Answered(r.Context(), "zuplo", why)
			reply(w, http.StatusUnauthorized, map[string]string{"title": "Unauthorized", "detail": why})
			return
		}
		token, err := s.token()
		if err != nil {
			s.cfg.Journal.Answered(r.Context(), "zuplo", err.Error())
			reply(w, http.StatusInternalServerError, map[string]string{"title": err.Error()})
			return
		}
		s.passWithKey(w, r, token)
	})
}

// passWithKey calls the upstream for a caller who has shown the API key.
func (s *server) passWithKey(w http.ResponseWriter, r *http.Request, token string) {
	s.cfg.Journal.Hop(r.Context(), "caller", "zuplo", r.Method+" "+r.URL.Path+", API key")
	s.pass(w, r, "zuplo", token)
}

// pass calls the upstream with the token, or without one when it is empty.
func (s *server) pass(w http.ResponseWriter, r *http.Request, from, token string) {
	what := "no JWT"
	r.Header.Del("Authorization")
	if token != "" {
		value := token
		if !strings.EqualFold(s.cfg.Prefix, "none") {
			value = s.cfg.Prefix + " " + token
		}
		r.Header.Set(s.cfg.Header, value)
		s.cfg.Journal.Carries(r.Context(), value)
		what = s.cfg.Header + " with a JWT"
	}
	s.cfg.Journal.Hop(r.Context(), from, "gateway", r.Method+" "+s.upstream.Path+r.URL.Path+", "+what)
	s.cfg.Journal.Answered(r.Context(), "gateway", "") // a local one will say so itself
	s.proxy.ServeHTTP(w, r)
}

func (s *server) token() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cfg.Tokens == "fresh" || !time.Now().Before(s.cachedUntil) {
		token, _, err := s.mint(mintRequest{})
		if err != nil {
			return "", err
		}
		s.cached, s.cachedUntil = token, time.Now().Add(s.cfg.ExpiresIn/2)
	}
	return s.cached, nil
}

// badBodies are what an issuer may answer, with status 200, instead of its keys; by mode.
var badBodies = map[string]string{
	"html": "<!DOCTYPE html><title>Sorry</title>", "garbage": "\x00\xff{{{\"keys\"",
	"empty": "{}", "null_keys": `{"keys":null}`, "no_keys": `{"keys":[]}`,
}

// serveJWKS answers with the published keys, or as badly as the admin API asked for.
func (s *server) serveJWKS(w http.ResponseWriter, r *http.Request) {
	conn := r.Context().Value(connKey{}).(net.Conn)
	s.mu.Lock()
	s.requests++
	s.open[conn] = true
	mode, delay, body := s.mode, s.delay, s.keys.jwks()
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, conn)
	}()
	if bad, ok := badBodies[mode]; ok {
		body = []byte(bad)
	}
	switch mode {
	case "hang":
		<-r.Context().Done()
		return
	case "slow":
		time.Sleep(delay)
	case "503":
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case "reset":
		reset(conn)
		return
	case "redirect":
		http.Redirect(w, r, s.cfg.Issuer+"/.well-known/openid-configuration", http.StatusFound)
		return
	case "huge":
		body = append(body, make([]byte, 2<<20)...)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(body)
}

// reset ends a connection with a TCP RST.
func reset(c net.Conn) {
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}
