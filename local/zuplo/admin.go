package zuplo

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// modes are those of the JWKS endpoint.
var modes = append([]string{"ok", "503", "hang", "slow", "reset", "redirect", "huge"}, slices.Sorted(maps.Keys(badBodies))...)

// A mintRequest asks for a token. Its zero value is what a forwarded request carries.
type mintRequest struct {
	Alg       string                     `json:"alg" what:"default: the configured one"`
	Kid       string                     `json:"kid" what:"default: alg's signing key; a withdrawn one signs too"`
	Header    map[string]json.RawMessage `json:"header" what:"members to set; null removes one"`
	Claims    map[string]json.RawMessage `json:"claims" what:"members to set; null removes one"`
	Payload   string                     `json:"payload" what:"replaces the claims altogether"`
	RawHeader string                     `json:"raw_header" what:"replaces the header altogether"`
	SignAs    string                     `json:"sign_as" what:"signs with this algorithm and its key whatever the header says"`
	Foreign   bool                       `json:"foreign" what:"signs with a key that nobody published"`
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
	handle(s, mux, "GET /__admin/{$}", "what there is", func(struct{}) (any, error) {
		return map[string]any{"endpoints": s.endpoints}, nil
	})
	handle(s, mux, "GET /__admin/state", "how the stand-ins are", func(struct{}) (any, error) { return s.state(), nil })
	handle(s, mux, "GET /__admin/requests", "the last requests, the newest first", func(struct{}) (any, error) {
		return map[string]any{"requests": s.cfg.Journal.Requests()}, nil
	})
	handle(s, mux, "GET /__admin/counters", "how often the key set was asked for, and by how many now", func(struct{}) (any, error) {
		return map[string]int{"jwks_requests": s.requests, "jwks_open": len(s.open)}, nil
	})
	handle(s, mux, "POST /__admin/send", "sends a request and says what became of it", s.send)
	handle(s, mux, "POST /__admin/mint", "signs a token", func(m mintRequest) (any, error) {
		token, kid, err := s.mint(m)
		return map[string]string{"token": token, "kid": kid}, err
	})
	handle(s, mux, "POST /__admin/rotate", "a new key signs; the one before stays published", func(m struct {
		Alg string `json:"alg" what:"default: the configured one"`
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
	handle(s, mux, "POST /__admin/withdraw", "a key is published no longer", func(m struct {
		Kid string `json:"kid" what:"of the key"`
	}) (any, error) {
		k, err := s.keys.find(m.Kid)
		if err == nil {
			k.published = false
		}
		return struct{}{}, err
	})
	handle(s, mux, "POST /__admin/jwks", "how the issuer answers who asks for its keys", func(m struct {
		Mode    string `json:"mode" what:"{modes}"`
		DelayMS int    `json:"delay_ms" what:"of the mode slow"`
	}) (any, error) {
		if !slices.Contains(modes, m.Mode) {
			return nil, fmt.Errorf("no mode %q, there are %s", m.Mode, strings.Join(modes, ", "))
		}
		s.mode, s.delay = m.Mode, time.Duration(m.DelayMS)*time.Millisecond
		return struct{}{}, nil
	})
	handle(s, mux, "POST /__admin/cut", "ends the connections on which the issuer has not answered yet", func(struct{}) (any, error) {
		for conn := range s.open {
			reset(conn)
		}
		return struct{}{}, nil
	})
	handle(s, mux, "POST /__admin/reset", "the issuer answers, and publishes the keys that sign and no others", func(struct{}) (any, error) {
		s.mode = "ok"
		for _, k := range s.keys.signing {
			k.published = true
		}
		return struct{}{}, nil
	})
	if local := s.cfg.Local; local != nil {
		handle(s, mux, "POST /__admin/freeze", "keeps the authorizer's environments from being used, so that the next request starts another", func(m struct {
			On bool `json:"on" what:"false: they serve again"`
		}) (any, error) {
			local.Freeze(m.On)
			return struct{}{}, nil
		})
		handle(s, mux, "POST /__admin/environment", "ends the authorizer's environments; the next request starts one", func(struct{}) (any, error) {
			local.End()
			s.cfg.Journal.KeysSent(time.Time{})
			return struct{}{}, nil
		})
		handle(s, mux, "POST /__admin/flush", "empties API Gateway's cache", func(struct{}) (any, error) {
			local.Flush()
			return struct{}{}, nil
		})
	}
	mux.HandleFunc("/__admin/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusNotFound, fmt.Errorf("there is no %s %s; GET /__admin/ lists what there is", r.Method, r.URL.Path))
	})
	return mux
}

// handle reads a request of type T strictly; an empty body is T's zero value. do is called with s.mu held.
func handle[T any](s *server, mux *http.ServeMux, pattern, what string, do func(T) (any, error)) {
	method, path, _ := strings.Cut(strings.TrimSuffix(pattern, "{$}"), " ")
	members := map[string]string{}
	for field := range reflect.TypeFor[T]().Fields() {
		members[field.Tag.Get("json")] = strings.Replace(field.Tag.Get("what"), "{modes}", strings.Join(modes, ", "), 1)
	}
	s.endpoints = append(s.endpoints, map[string]any{"method": method, "path": path, "what": what, "body": members})
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		var in T
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if d := json.NewDecoder(strings.NewReader(string(body))); err == nil && len(body) > 0 {
			d.DisallowUnknownFields()
			if err = d.Decode(&in); err != nil {
				err = fmt.Errorf("reading the body: %w; its members: %s", err, strings.Join(slices.Sorted(maps.Keys(members)), ", "))
			}
		}
		var out any
		if err == nil {
			s.mu.Lock()
			out, err = do(in)
			s.mu.Unlock()
		}
		if err != nil {
			refuse(w, http.StatusBadRequest, err)
			return
		}
		if name := strings.TrimPrefix(path, "/__admin/"); method == http.MethodPost && name != "mint" && name != "send" {
			s.cfg.Journal.Event("told", name+" "+string(body))
		}
		reply(w, http.StatusOK, out)
	})
}

func refuse(w http.ResponseWriter, status int, err error) {
	reply(w, status, map[string]string{"error": err.Error()})
}
