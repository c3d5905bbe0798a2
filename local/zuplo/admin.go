package zuplo

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"time"
)

var modes = []string{"ok", "503", "hang", "garbage", "html", "empty", "null_keys", "no_keys", "slow", "reset", "redirect", "huge"}

// A mintRequest asks for a token. Its zero value is what a forwarded request carries.
type mintRequest struct {
	Alg       string                     `json:"alg"`        // default: the configured one
	Kid       string                     `json:"kid"`        // default: alg's signing key; a withdrawn one signs too
	Header    map[string]json.RawMessage `json:"header"`     // members to set; null removes one
	Claims    map[string]json.RawMessage `json:"claims"`     // likewise
	ExpiresIn string                     `json:"expires_in"` // a Go duration, negative ones too
	Payload   string                     `json:"payload"`    // replaces the claims altogether
	RawHeader string                     `json:"raw_header"` // replaces the header altogether
	SignAs    string                     `json:"sign_as"`    // signs with this algorithm and its key whatever the header says
	Foreign   bool                       `json:"foreign"`    // signs with a key that nobody published
}

func (s *Server) mint(m mintRequest) (token, kid string, err error) {
	if m.Alg == "" {
		m.Alg = s.cfg.Alg
	}
	k := s.keys.signer(m.Alg)
	if m.Kid != "" {
		k = s.keys.find(m.Kid)
	}
	if k == nil {
		return "", "", fmt.Errorf("no key of alg %q and kid %q", m.Alg, m.Kid)
	}
	alg, private := k.alg, k.private
	if m.SignAs != "" {
		other := s.keys.signer(m.SignAs)
		if other == nil {
			return "", "", fmt.Errorf("no algorithm %q", m.SignAs)
		}
		alg = m.SignAs
		if fmt.Sprintf("%T", other.private) != fmt.Sprintf("%T", private) {
			private = other.private
		}
	}
	if m.Foreign {
		if private, err = s.keys.stranger(alg); err != nil {
			return "", "", err
		}
	}
	// jti makes each token one of its own: EdDSA would sign the same claims the same way.
	life := s.cfg.ExpiresIn
	if m.ExpiresIn != "" {
		if life, err = time.ParseDuration(m.ExpiresIn); err != nil {
			return "", "", fmt.Errorf("expires_in: %w", err)
		}
	}
	now := time.Now()
	header := override(map[string]any{"alg": k.alg, "kid": k.kid, "typ": "JWT"}, m.Header)
	claims := override(map[string]any{
		"iss": s.cfg.Issuer, "aud": s.cfg.Audience, "sub": "api-key-consumer", "jti": rand.Text(), "iat": now.Unix(), "exp": now.Add(life).Unix(),
	}, m.Claims)
	if m.RawHeader != "" {
		header = []byte(m.RawHeader)
	}
	if m.Payload != "" {
		claims = []byte(m.Payload)
	}
	token, err = sign(header, claims, alg, private)
	return token, k.kid, err
}

func override(members map[string]any, with map[string]json.RawMessage) []byte {
	for name, value := range with {
		if string(value) == "null" {
			delete(members, name)
		} else {
			members[name] = value
		}
	}
	text, _ := json.Marshal(members)
	return text
}

// admin is the admin API: JSON in, JSON out.
func (s *Server) admin() http.Handler {
	mux := http.NewServeMux()
	handle(mux, "POST /__admin/mint", func(m mintRequest) (any, error) {
		token, kid, err := s.mint(m)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		s.minted++
		s.mu.Unlock()
		return map[string]string{"token": token, "kid": kid}, nil
	})
	handle(mux, "POST /__admin/rotate", func(m struct {
		Alg         string `json:"alg"`
		Unpublished bool   `json:"unpublished"`
	}) (any, error) {
		if m.Alg == "" {
			m.Alg = s.cfg.Alg
		}
		now, before, err := s.keys.rotate(m.Alg, !m.Unpublished)
		if err != nil {
			return nil, err
		}
		return map[string]string{"kid": now.kid, "previous": before.kid}, nil
	})
	type kidRequest struct {
		Kid string `json:"kid"`
	}
	handle(mux, "POST /__admin/publish", func(m kidRequest) (any, error) { return m, s.keys.publish(m.Kid, true) })
	handle(mux, "POST /__admin/withdraw", func(m kidRequest) (any, error) { return m, s.keys.publish(m.Kid, false) })
	handle(mux, "POST /__admin/jwks", func(m struct {
		Mode    string `json:"mode"`
		Delay   string `json:"delay"`
		Release bool   `json:"release"`
	}) (any, error) {
		var delay time.Duration
		if m.Delay != "" {
			var err error
			if delay, err = time.ParseDuration(m.Delay); err != nil {
				return nil, fmt.Errorf("delay: %w", err)
			}
		}
		if !slices.Contains(modes, m.Mode) {
			return nil, fmt.Errorf("no mode %q, there are %v", m.Mode, modes)
		}
		s.setMode(m.Mode, delay, m.Release)
		return m, nil
	})
	handle(mux, "POST /__admin/cut", func(struct{}) (any, error) {
		s.mu.Lock()
		conns := slices.Collect(maps.Keys(s.open))
		s.mu.Unlock()
		for _, c := range conns {
			cut(c)
		}
		return map[string]int{"cut": len(conns)}, nil
	})
	handle(mux, "POST /__admin/reset", func(struct{}) (any, error) {
		s.setMode("ok", 0, false)
		s.keys.reset()
		return map[string]string{}, nil
	})
	mux.HandleFunc("GET /__admin/counters", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		reply(w, http.StatusOK, map[string]int{"jwks_requests": s.requests, "jwks_open": len(s.open), "minted": s.minted})
	})
	return mux
}

func (s *Server) setMode(mode string, delay time.Duration, release bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mode, s.delay = mode, delay
	if release {
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

// handle reads a request of type T, strictly; an empty body is T's zero value.
func handle[T any](mux *http.ServeMux, pattern string, do func(T) (any, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		var in T
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
		d.DisallowUnknownFields()
		var out any
		var err error
		if r.ContentLength != 0 {
			err = d.Decode(&in)
		}
		if err == nil {
			out, err = do(in)
		}
		if err != nil {
			reply(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
			return
		}
		reply(w, http.StatusOK, out)
	})
}

func loopbackOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		if !net.ParseIP(host).IsLoopback() {
			reply(w, http.StatusForbidden, map[string]string{"error": "the admin API answers on loopback only"})
			return
		}
		next.ServeHTTP(w, r)
	})
}
