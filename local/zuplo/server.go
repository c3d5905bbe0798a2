package zuplo

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync"
	"time"
)

// Config is what the stand-in is started with. All of it is required.
type Config struct {
	APIKey    string        // what a caller sends as Authorization: Bearer …
	Alg       string        // signs the forwarded requests' tokens
	Tokens    string        // fresh: one for each request; cached: one until half of its life is over
	Audience  string        // of the tokens
	ExpiresIn time.Duration // their life
	Upstream  string        // base URL of the API, its stage included
	Issuer    string        // URL of the issuer, {this server}/__zuplo/issuer
}

// A Server is the gateway, its issuer and the admin API.
type Server struct {
	cfg   Config
	keys  *keys
	proxy *httputil.ReverseProxy

	mu          sync.Mutex
	cached      string
	cachedUntil time.Time
	minted      int
	mode        string // how the JWKS endpoint behaves
	delay       time.Duration
	changed     chan struct{} // closed when hung requests are to be released
	requests    int
	open        map[net.Conn]struct{} // connections that a JWKS request holds
	handler     http.Handler
}

// New makes the keys; it takes about as long as one RSA key.
func New(cfg Config) (*Server, error) {
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
	k, err := newKeys()
	if err != nil {
		return nil, fmt.Errorf("making keys: %w", err)
	}
	s := &Server{cfg: cfg, keys: k, mode: "ok", changed: make(chan struct{}), open: map[net.Conn]struct{}{}}
	s.proxy = &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(upstream)
		r.Out.Header.Set("Authorization", "Bearer "+r.In.Context().Value(tokenKey{}).(string))
	}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /__zuplo/issuer/.well-known/jwks.json", s.serveJWKS)
	mux.HandleFunc("GET /__zuplo/issuer/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]any{"issuer": cfg.Issuer, "jwks_uri": cfg.Issuer + "/.well-known/jwks.json", "id_token_signing_alg_values_supported": Algorithms})
	})
	mux.Handle("/__admin/", loopbackOnly(s.admin()))
	mux.HandleFunc("/", s.forward)
	s.handler = mux
	return s, nil
}

type (
	tokenKey struct{}
	connKey  struct{}
)

// Server returns an HTTP server for the stand-in, to be given a listener.
func (s *Server) Server() *http.Server {
	return &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: 10 * time.Second,
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
	}
}

// forward checks the API key and calls the upstream with a JWT, as the policy upstream-zuplo-jwt-auth-inbound does.
func (s *Server) forward(w http.ResponseWriter, r *http.Request) {
	if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+s.cfg.APIKey)) != 1 {
		reply(w, http.StatusUnauthorized, map[string]string{"title": "Unauthorized", "detail": "no API key, or a wrong one"})
		return
	}
	token, err := s.token()
	if err != nil {
		reply(w, http.StatusInternalServerError, map[string]string{"title": err.Error()})
		return
	}
	s.proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), tokenKey{}, token)))
}

func (s *Server) token() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cfg.Tokens == "cached" && time.Now().Before(s.cachedUntil) {
		return s.cached, nil
	}
	token, _, err := s.mint(mintRequest{Alg: s.cfg.Alg})
	s.cached, s.cachedUntil = token, time.Now().Add(s.cfg.ExpiresIn/2)
	s.minted++
	return token, err
}

// serveJWKS answers with the published keys, or as badly as the admin API asked for.
func (s *Server) serveJWKS(w http.ResponseWriter, r *http.Request) {
	conn, _ := r.Context().Value(connKey{}).(net.Conn)
	s.mu.Lock()
	s.requests++
	s.open[conn] = struct{}{}
	mode, delay, changed := s.mode, s.delay, s.changed
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.open, conn)
		s.mu.Unlock()
	}()
	if mode == "hang" {
		select {
		case <-r.Context().Done():
			return
		case <-changed:
		}
		s.mu.Lock()
		mode, delay = s.mode, s.delay
		s.mu.Unlock()
	}
	body := s.keys.jwks()
	switch mode {
	case "slow":
		select {
		case <-r.Context().Done():
			return
		case <-time.After(delay):
		}
	case "503":
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case "reset":
		cut(conn)
		panic(http.ErrAbortHandler)
	case "redirect":
		http.Redirect(w, r, s.cfg.Issuer+"/.well-known/openid-configuration", http.StatusFound)
		return
	case "huge":
		body = append(body, make([]byte, 2<<20)...)
	}
	if wrong, ok := wrongBodies[mode]; ok {
		body = []byte(wrong)
	} else {
		w.Header().Set("Content-Type", "application/json")
	}
	_, _ = w.Write(body)
}

// wrongBodies are what an issuer may answer, with status 200, instead of its keys.
var wrongBodies = map[string]string{
	"html": "<!DOCTYPE html><title>Sorry</title>", "garbage": "\x00\xff{{{\"keys\"",
	"empty": "{}", "null_keys": `{"keys":null}`, "no_keys": `{"keys":[]}`,
}

// cut ends a connection with a reset.
func cut(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
		_ = tcp.Close()
	}
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
