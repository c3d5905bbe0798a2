package e2e

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// algorithm is an `alg` as tokens name it, and the issuer's name for the key that signs.
type algorithm struct{ name, signer string }

// Ed25519 is RFC 9864's name for what EdDSA was.
var algorithms = []algorithm{
	{"EdDSA", "EdDSA"}, {"Ed25519", "EdDSA"},
	{"RS256", "RS256"}, {"RS384", "RS384"}, {"RS512", "RS512"},
	{"PS256", "PS256"}, {"PS384", "PS384"}, {"PS512", "PS512"},
	{"ES256", "ES256"}, {"ES384", "ES384"}, {"ES512", "ES512"},
}

// order is a good token of this algorithm.
func (a algorithm) order() order {
	o := order{Alg: a.signer}
	if a.name != a.signer {
		o = o.head("alg", a.name)
	}
	return o
}

// at is a NumericDate (RFC 7519 §2) that far from now.
func at(d time.Duration) int64 { return time.Now().Add(d).Unix() }

// payload is the text of good claims with more members (text, may be empty) behind them.
func (tg *target) payload(more string) string {
	text := fmt.Sprintf(`{"iss":%q,"aud":%q,"sub":"black-box","jti":%q,"iat":%d,"exp":%d`,
		tg.issuer, tg.audience, rand.Text(), at(0), at(10*time.Minute))
	if more != "" {
		text += "," + more
	}
	return text + "}"
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// compose puts a token together by RFC 7515 §7.1, whatever the parts hold.
func compose(header, payload string, signature []byte) string {
	return encode([]byte(header)) + "." + encode([]byte(payload)) + "." + encode(signature)
}

// parts is the token taken apart; the signature is decoded.
func parts(t *testing.T, token string) (header, payload string, signature []byte) {
	t.Helper()
	segments := strings.Split(token, ".")
	if len(segments) != 3 {
		t.Fatalf("the issuer minted %q: %d segments", token, len(segments))
	}
	var decoded [3][]byte
	for i, s := range segments {
		var err error
		if decoded[i], err = base64.RawURLEncoding.DecodeString(s); err != nil {
			t.Fatalf("the issuer minted %q: %v", token, err)
		}
	}
	return string(decoded[0]), string(decoded[1]), decoded[2]
}

// trailingBits spells the same bytes otherwise: a bit is set in the last character that no byte takes from.
func trailingBits(token string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := len(token) - 1
	return token[:last] + string(alphabet[strings.IndexByte(alphabet, token[last])^1])
}

// forged is a token of a kid that nobody has; it looks good until its key is asked for.
func (tg *target) forged() string {
	signature := make([]byte, ed25519.SignatureSize)
	rand.Read(signature)
	return compose(`{"alg":"EdDSA","typ":"JWT","kid":"`+rand.Text()+`"}`, tg.payload(""), signature)
}

// jwk is one published key with its own text.
type jwk struct {
	Kid, Kty, Crv, N, E, X, Y string
	text                      []byte
}

// published is the issuer's key of that kid.
func (tg *target) published(t *testing.T, kid string) jwk {
	t.Helper()
	var set struct{ Keys []json.RawMessage }
	if err := call(http.MethodGet, strings.TrimSuffix(tg.issuer, "/")+"/.well-known/jwks.json", nil, &set); err != nil {
		t.Fatal(err)
	}
	for _, text := range set.Keys {
		k := jwk{text: text}
		if err := json.Unmarshal(text, &k); err != nil {
			t.Fatalf("the issuer publishes %s: %v", text, err)
		}
		if k.Kid == kid {
			return k
		}
	}
	t.Fatalf("the issuer publishes no key %q", kid)
	return jwk{}
}

// publicTexts are the spellings of a public key that a careless verifier may take for an HMAC secret.
func (k jwk) publicTexts(t *testing.T) map[string][]byte {
	t.Helper()
	raw := func(s string) []byte {
		b, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil {
			t.Fatalf("key %s: %v", k.text, err)
		}
		return b
	}
	texts := map[string][]byte{"JWK": k.text}
	var public crypto.PublicKey
	switch k.Kty {
	case "RSA":
		e, _ := strconv.Atoi(new(big.Int).SetBytes(raw(k.E)).String())
		key := &rsa.PublicKey{N: new(big.Int).SetBytes(raw(k.N)), E: e}
		texts["modulus"] = key.N.Bytes()
		texts["PKCS1 PEM"] = pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(key)})
		public = key
	case "EC":
		curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[k.Crv]
		point := append(append([]byte{4}, raw(k.X)...), raw(k.Y)...)
		key, err := ecdsa.ParseUncompressedPublicKey(curve, point)
		if err != nil {
			t.Fatalf("key %s: %v", k.text, err)
		}
		texts["point"] = point
		public = key
	case "OKP":
		texts["x"] = raw(k.X)
		public = ed25519.PublicKey(raw(k.X))
	default:
		t.Fatalf("key %s: of no known type", k.text)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatalf("key %s: %v", k.text, err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	texts["DER"], texts["PEM"], texts["PEM without its last newline"] = der, text, text[:len(text)-1]
	return texts
}

// hs256 signs as if the secret were a shared one.
func hs256(header, payload string, secret []byte) string {
	signed := encode([]byte(header)) + "." + encode([]byte(payload))
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(signed))
	return signed + "." + encode(mac.Sum(nil))
}
