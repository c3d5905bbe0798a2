package zuplo

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// Algorithms are those that Zuplo can sign with, its default first.
var Algorithms = []string{"EdDSA", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"}

// A key has one kid and one algorithm.
type key struct {
	kid, alg  string
	private   crypto.Signer
	published bool
}

// keys are an issuer's keys: one of each algorithm signs, older ones may still be published. Server.mu guards them.
type keys struct {
	all     []*key
	signing map[string]*key // by alg
}

// newKeys makes one key of each algorithm; those for RSA share theirs, for they are slow to make.
func newKeys() (*keys, error) {
	k := &keys{signing: map[string]*key{}}
	shared, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	for _, alg := range Algorithms {
		var private crypto.Signer = shared
		if !strings.HasPrefix(alg, "RS") && !strings.HasPrefix(alg, "PS") {
			if private, err = generate(alg); err != nil {
				return nil, err
			}
		}
		k.add(alg, private)
	}
	return k, nil
}

// keep replaces the keys by those in the file (PKCS #8 by algorithm, RFC 5958), or writes them there when there is none.
func (k *keys) keep(file string) error {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		stored := map[string][]byte{}
		for alg, key := range k.signing {
			stored[alg], _ = x509.MarshalPKCS8PrivateKey(key.private)
		}
		text, _ = json.Marshal(stored)
		return os.WriteFile(file, text, 0o600)
	}
	stored := map[string][]byte{}
	if err = cmp.Or(err, json.Unmarshal(text, &stored)); err != nil {
		return fmt.Errorf("reading keys from %s: %w", file, err)
	}
	for _, key := range k.all {
		private, err := x509.ParsePKCS8PrivateKey(stored[key.alg])
		signer, ok := private.(crypto.Signer)
		if !ok {
			return fmt.Errorf("reading the key for %s from %s: %w", key.alg, file, cmp.Or(err, errors.New("it cannot sign")))
		}
		key.private = signer
	}
	return nil
}

func generate(alg string) (crypto.Signer, error) {
	switch alg {
	case "EdDSA":
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	case "ES256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	}
	return rsa.GenerateKey(rand.Reader, 2048)
}

// add makes a private key the signing one of alg. The one before stays published.
func (k *keys) add(alg string, private crypto.Signer) *key {
	n := 1
	for _, other := range k.all {
		if other.alg == alg {
			n++
		}
	}
	added := &key{fmt.Sprintf("%s-%d", strings.ToLower(alg), n), alg, private, true}
	k.all = append(k.all, added)
	k.signing[alg] = added
	return added
}

func (k *keys) signer(alg string) (*key, error) {
	if k.signing[alg] == nil {
		return nil, fmt.Errorf("no algorithm %q, there are %s", alg, strings.Join(Algorithms, ", "))
	}
	return k.signing[alg], nil
}

func (k *keys) find(kid string) (*key, error) {
	for _, key := range k.all {
		if key.kid == kid {
			return key, nil
		}
	}
	return nil, fmt.Errorf("no key of kid %q", kid)
}

func b64[T ~string | ~[]byte](b T) string { return base64.RawURLEncoding.EncodeToString([]byte(b)) }

// jwks is the published set (RFC 7517).
func (k *keys) jwks() []byte {
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
