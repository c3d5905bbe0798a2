package zuplo

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

//go:embed page.html
var page []byte

// Local is what the admin API may see of the API behind, and do to it, when that runs in this process.
type Local struct {
	State  func() (authorizer, gateway map[string]any)
	Freeze func(on bool)
	End    func() // all environments of the authorizer
	Flush  func() // API Gateway's cache
}

// guarded serves the page and the admin API to this machine alone. Another site's page in the browser here must not reach it:
// not by a name of its own that leads here (a foreign Host), and not from its own origin.
func (s *server) guarded(next http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := foreign(r); err != nil {
			refuse(w, http.StatusForbidden, err)
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "+
			"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	}
}

var hosts = []string{"127.0.0.1", "localhost", "::1"}

func foreign(r *http.Request) error {
	if peer, _, _ := net.SplitHostPort(r.RemoteAddr); !net.ParseIP(peer).IsLoopback() {
		return errors.New("the page and the admin API answer on loopback only")
	}
	host, port, err := net.SplitHostPort(r.Host)
	here, _ := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if err != nil || !slices.Contains(hosts, host) || here != nil && port != fmt.Sprint(here.Port) {
		return fmt.Errorf("the page and the admin API are not for the host %q, only for %s with the port", r.Host, strings.Join(hosts, ", "))
	}
	changing := *r
	changing.Method = http.MethodPost // else the check would let every GET pass
	if http.NewCrossOriginProtection().Check(&changing) != nil {
		return errors.New("the page and the admin API are for requests from their own origin, and from no browser at all")
	}
	return nil
}

func servePage(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(page))
}

// state is what the page shows beside requests. The caller holds s.mu.
func (s *server) state() any {
	keys := []map[string]any{}
	for _, k := range s.keys.all {
		keys = append(keys, map[string]any{"kid": k.kid, "alg": k.alg, "published": k.published, "signing": s.keys.signing[k.alg] == k})
	}
	out := map[string]any{
		"issuer":     map[string]any{"url": s.cfg.Issuer, "mode": s.mode, "delay_ms": s.delay.Milliseconds(), "modes": modes, "requests": s.requests, "keys": keys},
		"authorizer": nil, "gateway": nil, "rules": s.cfg.Rules, "api": s.cfg.Upstream, "api_key": s.cfg.APIKey,
	}
	if local := s.cfg.Local; local != nil {
		authorizer, gateway := local.State()
		authorizer["keys_age_s"], authorizer["ttl_s"], authorizer["max_stale_s"] = s.cfg.Journal.Keys()
		out["authorizer"], out["gateway"] = authorizer, gateway
	}
	return out
}

// A sendRequest asks for a request.
type sendRequest struct {
	Token    string `json:"token" what:"as mint signs it; empty: Zuplo's own, or straight none"`
	Straight bool   `json:"straight" what:"goes round Zuplo, with the token as it is, straight to API Gateway"`
	Method   string `json:"method" what:"default: GET"`
	Path     string `json:"path" what:"default: /protected"`
}

var methods = []string{"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}

// send makes a request as a caller would. It lets go of s.mu, with which it is called, until that is answered.
func (s *server) send(m sendRequest) (any, error) {
	method, path := cmp.Or(m.Method, http.MethodGet), cmp.Or(m.Path, "/protected")
	if !slices.Contains(methods, method) {
		return nil, fmt.Errorf("no method %q, there are %s", method, strings.Join(methods, ", "))
	}
	u, err := url.ParseRequestURI(path)
	if err != nil || u.Host != "" {
		return nil, fmt.Errorf("%q is no path, as /protected", path)
	}
	if m.Token == "" && !m.Straight {
		if m.Token, _, err = s.mint(mintRequest{}); err != nil {
			return nil, err
		}
	}
	s.mu.Unlock()
	defer s.mu.Lock()
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	r := (&http.Request{Method: method, URL: u, Header: http.Header{}}).WithContext(ctx)
	return s.cfg.Journal.Serve(nobody{}, r, func(w http.ResponseWriter, r *http.Request) {
		if m.Straight {
			s.pass(w, r, "caller", m.Token)
		} else {
			s.passWithKey(w, r, m.Token)
		}
	}), nil
}

// nobody takes an answer that the journal keeps.
type nobody http.Header

func (n nobody) Header() http.Header       { return http.Header(n) }
func (nobody) Write(p []byte) (int, error) { return len(p), nil }
func (nobody) WriteHeader(int)             {}
