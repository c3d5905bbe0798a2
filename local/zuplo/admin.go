package zuplo

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// modes are those of the JWKS endpoint besides badBodies.
var modes = []string{"ok", "503", "hang", "slow", "reset", "redirect", "huge"}

// A mintRequest asks for a token. Its zero value is what a forwarded request carries.
type mintRequest struct {
	Alg       string                     `json:"alg"`        // default: the configured one
	Kid       string                     `json:"kid"`        // default: alg's signing key; a withdrawn one signs too
	Header    map[string]json.RawMessage `json:"header"`     // members to set; null removes one
	Claims    map[string]json.RawMessage `json:"claims"`     // likewise
	Payload   string                     `json:"payload"`    // replaces the claims altogether
	RawHeader string                     `json:"raw_header"` // replaces the header altogether
	SignAs    string                     `json:"sign_as"`    // signs with this algorithm and its key whatever the header says
	Foreign   bool                       `json:"foreign"`    // signs with a key that nobody published
}

// mint makes a token. The caller holds s.mu.
func (s *server) mint(m mintRequest) (token, kid string, err error) {
	k, err := s.keys.signer(cmp.Or(m.Alg, s.cfg.Alg))
	if m.Kid != "" {
		k, err = s.keys.find(m.Kid)
	}
	if err != nil {
		return "", "", err
	}
	alg, private := k.alg, k.private
	if m.SignAs != "" {
		other, err := s.keys.signer(m.SignAs)
		if err != nil {
			return "", "", err
		}
		alg = m.SignAs
		if fmt.Sprintf("%T", other.private) != fmt.Sprintf("%T", private) {
			private = other.private
		}
	}
	if m.Foreign {
		private = s.strangers.signing[alg].private
	}
	now := time.Now()
	header := override(map[string]any{"alg": k.alg, "kid": k.kid, "typ": "JWT"}, m.Header)
	// jti makes each token one of its own: EdDSA would sign the same claims the same way.
	claims := override(map[string]any{
		"iss": s.cfg.Issuer, "aud": s.cfg.Audience, "sub": "api-key-consumer", "jti": rand.Text(), "iat": now.Unix(), "exp": now.Add(s.cfg.ExpiresIn).Unix(),
	}, m.Claims)
	signed := b64(cmp.Or(m.RawHeader, header)) + "." + b64(cmp.Or(m.Payload, claims))
	signature, err := jwt.GetSigningMethod(alg).Sign(signed, private)
	if err != nil {
		return "", "", fmt.Errorf("signing with %s: %w", alg, err)
	}
	return signed + "." + b64(signature), k.kid, nil
}

func override(members map[string]any, with map[string]json.RawMessage) string {
	for name, value := range with {
		if string(value) == "null" {
			delete(members, name)
		} else {
			members[name] = value
		}
	}
	text, _ := json.Marshal(members)
	return string(text)
}

// admin is the admin API: JSON in, JSON out.
func (s *server) admin() http.Handler {
	mux := http.NewServeMux()
	handle(s, mux, "POST /__admin/mint", func(m mintRequest) (any, error) {
		token, kid, err := s.mint(m)
		return map[string]string{"token": token, "kid": kid}, err
	})
	handle(s, mux, "POST /__admin/rotate", func(m struct {
		Alg string `json:"alg"`
	}) (any, error) {
		before, err := s.keys.signer(cmp.Or(m.Alg, s.cfg.Alg))
		if err != nil {
			return nil, err
		}
		private, err := generate(before.alg)
		if err != nil {
			return nil, err
		}
		now := s.keys.add(before.alg, private)
		return map[string]string{"kid": now.kid, "previous": before.kid}, nil
	})
	handle(s, mux, "POST /__admin/withdraw", func(m struct {
		Kid string `json:"kid"`
	}) (any, error) {
		k, err := s.keys.find(m.Kid)
		if err == nil {
			k.published = false
		}
		return struct{}{}, err
	})
	handle(s, mux, "POST /__admin/jwks", func(m struct {
		Mode    string `json:"mode"`
		DelayMS int    `json:"delay_ms"` // of the mode slow
	}) (any, error) {
		if _, bad := badBodies[m.Mode]; !bad && !slices.Contains(modes, m.Mode) {
			return nil, fmt.Errorf("no mode %q", m.Mode)
		}
		s.mode, s.delay = m.Mode, time.Duration(m.DelayMS)*time.Millisecond
		return struct{}{}, nil
	})
	handle(s, mux, "POST /__admin/cut", func(struct{}) (any, error) {
		for conn := range s.open {
			reset(conn)
		}
		return struct{}{}, nil
	})
	handle(s, mux, "POST /__admin/reset", func(struct{}) (any, error) {
		s.mode = "ok"
		for _, k := range s.keys.signing {
			k.published = true
		}
		return struct{}{}, nil
	})
	handle(s, mux, "GET /__admin/counters", func(struct{}) (any, error) {
		return map[string]int{"jwks_requests": s.requests, "jwks_open": len(s.open)}, nil
	})
	return mux
}

// handle reads a request of type T from a loopback peer, strictly; an empty body is T's zero value. do is called with s.mu
// held.
func handle[T any](s *server, mux *http.ServeMux, pattern string, do func(T) (any, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if host, _, _ := net.SplitHostPort(r.RemoteAddr); !net.ParseIP(host).IsLoopback() {
			reply(w, http.StatusForbidden, map[string]string{"error": "the admin API answers on loopback only"})
			return
		}
		var in T
		var out any
		d := json.NewDecoder(r.Body)
		d.DisallowUnknownFields()
		err := d.Decode(&in)
		if err == nil || err == io.EOF {
			s.mu.Lock()
			out, err = do(in)
			s.mu.Unlock()
		}
		if err != nil {
			reply(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
			return
		}
		reply(w, http.StatusOK, out)
	})
}
