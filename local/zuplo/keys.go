// Package zuplo stands in for Zuplo: an API gateway that takes API keys and calls its upstream with a JWT of its own,
// and the issuer of that JWT. It signs with golang-jwt, every other byte of a token is its own.
package zuplo

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/golang-jwt/jwt/v5"
)

// Algorithms are those that Zuplo can sign with, its default first.
var Algorithms = []string{"EdDSA", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"}

// A key has one kid and one algorithm.
type key struct {
	kid, alg  string
	private   crypto.Signer
	published bool
}

// keys are an issuer's keys: one of each algorithm signs, older ones may still be published.
type keys struct {
	mu      sync.Mutex
	all     []*key
	signing map[string]*key // by alg
	rsa     *rsa.PrivateKey // RSA keys are slow to make: the first of all RSA algorithms is the same
	foreign map[string]crypto.Signer
}

func newKeys() (*keys, error) {
	k := &keys{signing: map[string]*key{}, foreign: map[string]crypto.Signer{}}
	for _, alg := range Algorithms {
		if _, _, err := k.rotate(alg, true); err != nil {
			return nil, err
		}
	}
	return k, nil
}

func (k *keys) generate(alg string, first bool) (crypto.Signer, error) {
	switch {
	case alg == "EdDSA":
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	case alg == "ES256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case alg == "ES384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case alg == "ES512":
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case first && k.rsa != nil:
		return k.rsa, nil
	}
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if k.rsa == nil {
		k.rsa = private
	}
	return private, err
}

// rotate makes a new key the signing one of alg. The one before stays published.
func (k *keys) rotate(alg string, publish bool) (now, before *key, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !slices.Contains(Algorithms, alg) {
		return nil, nil, fmt.Errorf("no algorithm %q, there are %s", alg, strings.Join(Algorithms, ", "))
	}
	n := 1
	for _, other := range k.all {
		if other.alg == alg {
			n++
		}
	}
	private, err := k.generate(alg, n == 1)
	if err != nil {
		return nil, nil, err
	}
	now, before = &key{fmt.Sprintf("%s-%d", strings.ToLower(alg), n), alg, private, publish}, k.signing[alg]
	k.all = append(k.all, now)
	k.signing[alg] = now
	return now, before, nil
}

// find returns the key of that kid, nil if there is none.
func (k *keys) find(kid string) *key {
	k.mu.Lock()
	defer k.mu.Unlock()
	if i := slices.IndexFunc(k.all, func(k *key) bool { return k.kid == kid }); i >= 0 {
		return k.all[i]
	}
	return nil
}

func (k *keys) publish(kid string, published bool) error {
	key := k.find(kid)
	if key == nil {
		return fmt.Errorf("no key of kid %q", kid)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	key.published = published
	return nil
}

// reset lets the youngest published key of each algorithm sign, the youngest of all if none is published.
func (k *keys) reset() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range k.all {
		if s := k.signing[key.alg]; key.published || !s.published {
			k.signing[key.alg] = key
		}
	}
	for _, key := range k.signing {
		key.published = true
	}
}

func (k *keys) signer(alg string) *key {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.signing[alg]
}

// stranger returns a private key for alg that nobody publishes.
func (k *keys) stranger(alg string) (crypto.Signer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.foreign[alg] == nil {
		private, err := k.generate(alg, false)
		if err != nil {
			return nil, err
		}
		k.foreign[alg] = private
	}
	return k.foreign[alg], nil
}

// sign returns header.payload.signature.
func sign(header, payload []byte, alg string, private crypto.Signer) (string, error) {
	signed := b64(header) + "." + b64(payload)
	signature, err := jwt.GetSigningMethod(alg).Sign(signed, private)
	if err != nil {
		return "", fmt.Errorf("signing with %s: %w", alg, err)
	}
	return signed + "." + b64(signature), nil
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// jwks is the published set (RFC 7517).
func (k *keys) jwks() []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := []map[string]string{}
	for _, key := range k.all {
		if !key.published {
			continue
		}
		j := map[string]string{"kid": key.kid, "alg": key.alg, "use": "sig"}
		switch public := key.private.Public().(type) {
		case ed25519.PublicKey:
			j["kty"], j["crv"], j["x"] = "OKP", "Ed25519", b64(public)
		case *ecdsa.PublicKey:
			point, _ := public.Bytes() // 4, x, y (SEC 1 §2.3.3)
			half := len(point) / 2
			j["kty"], j["crv"], j["x"], j["y"] = "EC", public.Curve.Params().Name, b64(point[1:1+half]), b64(point[1+half:])
		case *rsa.PublicKey:
			j["kty"], j["n"], j["e"] = "RSA", b64(public.N.Bytes()), "AQAB"
		}
		list = append(list, j)
	}
	text, _ := json.Marshal(map[string]any{"keys": list})
	return text
}
