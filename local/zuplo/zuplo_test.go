package zuplo

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A stack is the stand-in in front of an upstream that records what reaches it.
type stack struct {
	t        *testing.T
	url      string
	server   *http.Server
	upstream []*http.Request
}

func newStack(t *testing.T, change func(*Config)) *stack {
	t.Helper()
	s := &stack{t: t}
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.upstream = append(s.upstream, r)
		w.Header().Set("X-Upstream", "yes")
		w.WriteHeader(418)
		io.WriteString(w, "short and stout")
	}))
	t.Cleanup(up.Close)
	srv := httptest.NewUnstartedServer(nil)
	s.url = "http://" + srv.Listener.Addr().String()
	cfg := Config{APIKey: "key", Alg: "EdDSA", Tokens: "fresh", Audience: "aws", ExpiresIn: time.Hour, Upstream: up.URL + "/prod", Issuer: s.url + "/__zuplo/issuer"}
	if change != nil {
		change(&cfg)
	}
	z, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.server, srv.Config = z, z
	srv.Start()
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	return s
}

func (s *stack) send(method, path, authorization, body string) (*http.Response, string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return res, string(text)
}

// admin posts to the admin API, which must answer 200, and reads the answer.
func (s *stack) admin(path, body string) map[string]any {
	s.t.Helper()
	method := "POST"
	if path == "counters" {
		method = "GET"
	}
	res, text := s.send(method, "/__admin/"+path, "", body)
	var answer map[string]any
	if err := json.Unmarshal([]byte(text), &answer); res.StatusCode != 200 || err != nil {
		s.t.Fatalf("%s %s: %d %s", path, body, res.StatusCode, text)
	}
	return answer
}

func (s *stack) mint(body string) string {
	s.t.Helper()
	return s.admin("mint", body)["token"].(string)
}

func decode(t *testing.T, part string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func object(t *testing.T, text []byte) (m map[string]any) {
	t.Helper()
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return m
}

// jwks returns the published keys by kid.
func (s *stack) jwks() map[string]map[string]any {
	s.t.Helper()
	_, text := s.send("GET", "/__zuplo/issuer/.well-known/jwks.json", "", "")
	var set struct{ Keys []map[string]any }
	if err := json.Unmarshal([]byte(text), &set); err != nil {
		s.t.Fatalf("%s: %v", text, err)
	}
	keys := map[string]map[string]any{}
	for _, k := range set.Keys {
		keys[k["kid"].(string)] = k
	}
	return keys
}

// verifies judges a token by the published key of its kid, with nothing but the standard library (RFC 7518 §3).
func (s *stack) verifies(token, alg string) bool {
	s.t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		s.t.Fatalf("not a token: %s", token)
	}
	k := s.jwks()[object(s.t, decode(s.t, parts[0]))["kid"].(string)]
	if k == nil {
		return false
	}
	member := func(name string) []byte { return decode(s.t, k[name].(string)) }
	number := func(b []byte) *big.Int { return new(big.Int).SetBytes(b) }
	signed, signature := []byte(parts[0]+"."+parts[1]), decode(s.t, parts[2])
	if alg == "EdDSA" {
		return ed25519.Verify(member("x"), signed, signature)
	}
	hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[alg[2:]]
	h := hash.New()
	h.Write(signed)
	sum := h.Sum(nil)
	if alg[:2] == "ES" {
		curve := map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()}[alg]
		public, err := ecdsa.ParseUncompressedPublicKey(curve, append(append([]byte{4}, member("x")...), member("y")...))
		if err != nil {
			s.t.Fatal(err)
		}
		half := len(signature) / 2
		return ecdsa.Verify(public, sum, number(signature[:half]), number(signature[half:]))
	}
	public := &rsa.PublicKey{N: number(member("n")), E: int(number(member("e")).Int64())}
	if alg[:2] == "PS" {
		return rsa.VerifyPSS(public, hash, sum, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
	}
	return rsa.VerifyPKCS1v15(public, hash, sum, signature) == nil
}

func TestForward(t *testing.T) {
	t.Parallel()
	s := newStack(t, nil)
	for _, wrong := range []string{"", "key", "Bearer", "Bearer wrong", "Bearer key2", "bearer key"} {
		if res, _ := s.send("GET", "/protected", wrong, ""); res.StatusCode != 401 {
			t.Errorf("%q: %d", wrong, res.StatusCode)
		}
	}
	if len(s.upstream) > 0 {
		t.Fatalf("the upstream was asked: %v", s.upstream[0])
	}
	res, body := s.send("PUT", "/protected?a=b", "Bearer key", "x")
	if res.StatusCode != 418 || body != "short and stout" || res.Header.Get("X-Upstream") != "yes" || len(s.upstream) != 1 {
		t.Fatalf("%d %s, upstream asked %d times", res.StatusCode, body, len(s.upstream))
	}
	r := s.upstream[0]
	token, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if r.Method != "PUT" || r.URL.String() != "/prod/protected?a=b" || !bearer || !s.verifies(token, "EdDSA") {
		t.Errorf("%s %s, %v", r.Method, r.URL, r.Header)
	}
	claims := object(t, decode(t, strings.Split(token, ".")[1]))
	if claims["iss"] != s.url+"/__zuplo/issuer" || claims["aud"] != "aws" || claims["exp"].(float64)-claims["iat"].(float64) != 3600 {
		t.Errorf("claims %v", claims)
	}
}

func TestFreshAndCachedTokens(t *testing.T) {
	t.Parallel()
	for tokens, distinct := range map[string]int{"fresh": 3, "cached": 1} {
		s := newStack(t, func(c *Config) { c.Tokens = tokens })
		seen := map[string]bool{}
		for range 3 {
			s.send("GET", "/", "Bearer key", "")
			seen[s.upstream[len(s.upstream)-1].Header.Get("Authorization")] = true
		}
		if len(seen) != distinct {
			t.Errorf("%s: %d tokens, want %d", tokens, len(seen), distinct)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []Config{{Alg: "HS256", Tokens: "fresh"}, {Alg: "EdDSA", Tokens: "x"}, {Alg: "EdDSA", Tokens: "fresh", Upstream: ":"}} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}

func TestMint(t *testing.T) {
	t.Parallel()
	s := newStack(t, nil)
	for _, alg := range Algorithms {
		token := s.mint(`{"alg":"` + alg + `"}`)
		if !s.verifies(token, alg) {
			t.Errorf("%s does not verify", alg)
		}
		if foreign := s.mint(`{"alg":"` + alg + `","foreign":true}`); s.verifies(foreign, alg) {
			t.Errorf("%s by a stranger verifies", alg)
		}
	}
	part := func(token string, n int) string { return string(decode(t, strings.Split(token, ".")[n])) }
	if got := part(s.mint(`{"raw_header":"{\"kid\":\"x\"}","payload":"[1, 2]"}`), 0); got != `{"kid":"x"}` {
		t.Errorf("header %s", got)
	}
	if got := part(s.mint(`{"payload":"[1, 2]"}`), 1); got != `[1, 2]` {
		t.Errorf("payload %s", got)
	}
	token := s.mint(`{"header":{"typ":null,"crit":["a"]},"claims":{"sub":null,"n":12345678901234567890}}`)
	header, claims := object(t, []byte(part(token, 0))), object(t, []byte(part(token, 1)))
	if _, typ := header["typ"]; typ || header["crit"] == nil {
		t.Errorf("header %v", header)
	}
	if _, sub := claims["sub"]; sub || !strings.Contains(part(token, 1), "12345678901234567890") {
		t.Errorf("claims %v", claims)
	}
	if token := s.mint(`{"alg":"RS256","sign_as":"PS256"}`); s.verifies(token, "RS256") || !s.verifies(token, "PS256") {
		t.Error("sign_as does not sign with the other algorithm and the same key")
	}
	if token := s.mint(`{"alg":"EdDSA","sign_as":"ES256"}`); object(t, []byte(part(token, 0)))["alg"] != "EdDSA" {
		t.Error("sign_as changes the header")
	}
}

func TestRotation(t *testing.T) {
	t.Parallel()
	s := newStack(t, nil)
	old := s.mint("{}")
	if got := s.admin("rotate", ""); got["kid"] != "eddsa-2" || got["previous"] != "eddsa-1" {
		t.Fatal(got)
	}
	if !s.verifies(old, "EdDSA") || !s.verifies(s.mint("{}"), "EdDSA") {
		t.Error("after a rotation both keys are published")
	}
	s.admin("withdraw", `{"kid":"eddsa-1"}`)
	if s.verifies(old, "EdDSA") || s.mint(`{"kid":"eddsa-1"}`) == "" {
		t.Error("a withdrawn key is not published, but signs on demand")
	}
	s.admin("withdraw", `{"kid":"eddsa-2"}`)
	third := s.mint("{}")
	if s.verifies(third, "EdDSA") {
		t.Error("a withdrawn signing key is published")
	}
	s.admin("jwks", `{"mode":"503"}`)
	s.admin("reset", "")
	if !s.verifies(third, "EdDSA") || s.verifies(old, "EdDSA") {
		t.Error("a reset publishes the signing keys, and no others")
	}
}

func TestDiscovery(t *testing.T) {
	t.Parallel()
	s := newStack(t, nil)
	_, text := s.send("GET", "/__zuplo/issuer/.well-known/openid-configuration", "", "")
	if got := object(t, []byte(text)); got["issuer"] != s.url+"/__zuplo/issuer" || got["jwks_uri"] != s.url+"/__zuplo/issuer/.well-known/jwks.json" {
		t.Error(text)
	}
}

func TestBrokenKeySets(t *testing.T) {
	t.Parallel()
	s := newStack(t, nil)
	good, _ := json.Marshal(s.jwks())
	for mode, want := range map[string]string{
		"503": "503 ", "garbage": "200 \x00", "html": "200 <!DOCTYPE", "empty": "200 {}", "null_keys": `200 {"keys":null}`,
		"no_keys": `200 {"keys":[]}`, "slow": `200 {"keys":[{`, "redirect": "302 ", "huge": `200 {"keys":[{`,
	} {
		s.admin("jwks", `{"mode":"`+mode+`","delay_ms":1}`)
		res, text := s.send("GET", "/__zuplo/issuer/.well-known/jwks.json", "", "")
		if got := res.Status[:4] + text; !strings.HasPrefix(got, want) || mode == "huge" && len(text) <= 1<<20 {
			t.Errorf("%s: %.40q, %d bytes, want %q", mode, got, len(text), want)
		}
	}
	s.admin("jwks", `{"mode":"ok"}`)
	if again, _ := json.Marshal(s.jwks()); !bytes.Equal(good, again) {
		t.Error("ok is not as before")
	}
	if got := s.admin("counters", ""); got["jwks_requests"] != 11.0 || got["jwks_open"] != 0.0 {
		t.Errorf("counters %v", got)
	}
}

// open waits until a number of requests for the key set is being answered.
func (s *stack) open(n float64) {
	s.t.Helper()
	for end := time.Now().Add(10 * time.Second); s.admin("counters", "")["jwks_open"] != n; {
		if time.Now().After(end) {
			s.t.Fatalf("not %v requests open: %v", n, s.admin("counters", ""))
		}
	}
}

func TestHangingRequestsEnd(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(s *stack, cancel func()){
		"cut":       func(s *stack, _ func()) { s.admin("cut", "") },
		"cancelled": func(_ *stack, cancel func()) { cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStack(t, nil)
			s.admin("jwks", `{"mode":"hang"}`)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			req, _ := http.NewRequestWithContext(ctx, "GET", s.url+"/__zuplo/issuer/.well-known/jwks.json", nil)
			answered := make(chan bool)
			go func() {
				_, err := (&http.Transport{}).RoundTrip(req)
				answered <- err == nil
			}()
			s.open(1)
			end(s, cancel)
			if <-answered {
				t.Error("it was answered")
			}
			s.open(0)
		})
	}
}

func TestReset(t *testing.T) {
	t.Parallel()
	s := newStack(t, nil)
	s.admin("jwks", `{"mode":"reset"}`)
	req, _ := http.NewRequestWithContext(t.Context(), "GET", s.url+"/__zuplo/issuer/.well-known/jwks.json", nil)
	if res, err := (&http.Transport{}).RoundTrip(req); err == nil {
		t.Errorf("status %d", res.StatusCode)
	}
}

func TestAdminRefuses(t *testing.T) {
	t.Parallel()
	s := newStack(t, nil)
	for path, body := range map[string]string{
		"mint":     `{"alg":"HS256"}`,
		"mint?1":   `{"kid":"nobody"}`,
		"mint?2":   `{"claim":{}}`,
		"mint?3":   `{"sign_as":"HS256"}`,
		"mint?4":   `{`,
		"rotate":   `{"alg":"HS256"}`,
		"withdraw": `{"kid":"nobody"}`,
		"jwks":     `{"mode":"weird"}`,
		"jwks?1":   `{"mode":"slow","delay_ms":"long"}`,
	} {
		res, text := s.send("POST", "/__admin/"+path, "", body)
		if res.StatusCode != 400 || object(t, []byte(text))["error"] == "" {
			t.Errorf("%s %s: %d %s", path, body, res.StatusCode, text)
		}
	}
}

func TestAdminIsForLoopbackOnly(t *testing.T) {
	t.Parallel()
	s := newStack(t, nil)
	for peer, status := range map[string]int{"127.0.0.1:1234": 200, "[::1]:1234": 200, "192.0.2.1:1234": 403, "": 403} {
		for _, path := range []string{"mint", "rotate", "jwks", "cut", "reset"} {
			body := "{}"
			if path == "jwks" {
				body = `{"mode":"ok"}`
			}
			r := httptest.NewRequest("POST", "/__admin/"+path, strings.NewReader(body))
			r.RemoteAddr, r.Host = peer, "localhost:9000"
			w := httptest.NewRecorder()
			s.server.Handler.ServeHTTP(w, r)
			if w.Code != status {
				t.Errorf("%s from %q: %d, want %d", path, peer, w.Code, status)
			}
		}
	}
}

// Keys in a file outlive the stand-in: a key set that was deployed somewhere stays good.
func TestKeysFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "keys.json")
	published := func() string {
		s := newStack(t, func(c *Config) { c.KeysFile = file })
		_, body := s.send("GET", "/__zuplo/issuer/.well-known/jwks.json", "", "")
		return body
	}
	first := published()
	if second := published(); second != first {
		t.Errorf("keys of the first run: %s, of the second: %s", first, second)
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("private keys lie in a file of mode %v (%v), want 0600", info.Mode(), err)
	}
	for name, text := range map[string]string{"no JSON": "x", "no keys": "{}", "no key": `{"EdDSA":"AAAA"}`} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := New(Config{APIKey: "key", Alg: "EdDSA", Tokens: "fresh", Upstream: "http://127.0.0.1", KeysFile: file})
		if err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: got %v, want an error that names the file", name, err)
		}
		if now, _ := os.ReadFile(file); string(now) != text {
			t.Errorf("%s: the file was overwritten with %s", name, now)
		}
	}
}
