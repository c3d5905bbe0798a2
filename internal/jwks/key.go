package jwks

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"
)

// secret is what is wrong with a key that must not be published at all.
const secret = "holds a private or symmetric key"

// A key is one JWK (RFC 7517 §4) as far as it was understood.
type key struct {
	members    map[string]json.RawMessage
	kty, id    string
	why        string // it cannot be used; empty: it can
	algorithms []string
	public     crypto.PublicKey
}

// judge reads a JWK when it arrives, because jwx takes keys that make verification panic later or that are not what they
// seem. Members that are not used here never decide.
func judge(raw json.RawMessage) *key {
	k := &key{}
	k.must(json.Unmarshal(raw, &k.members) == nil && k.members != nil, "not a JSON object")
	for _, name := range []string{"d", "k", "p", "q", "dp", "dq", "qi", "oth"} {
		k.must(!k.has(name), secret)
	}
	k.must(jsontext.Value(raw).IsValid(), "not strict JSON (invalid UTF-8 or a duplicate member)")
	k.id, k.kty = k.text("kid"), k.text("kty")
	k.must(k.id != "", "its kid is empty")
	if k.has("use") {
		k.must(k.text("use") == "sig", "its use is not sig")
	}
	if k.has("key_ops") {
		var ops []string
		k.must(json.Unmarshal(k.members["key_ops"], &ops) == nil, "its key_ops are not a list of strings")
		k.must(slices.Contains(ops, "verify"), "its key_ops do not hold verify")
	}
	k.material()
	if k.has("alg") {
		own := k.text("alg")
		if own == "Ed25519" {
			own = "EdDSA" // RFC 9864 §2.2
		}
		k.must(slices.Contains(k.algorithms, own), "its alg is not %s", strings.Join(k.algorithms, " or "))
		k.algorithms = []string{own}
	}
	return k
}

// curves are those of the kty EC (RFC 7518 §6.2.1.1), with the algorithm and the bytes of a coordinate of each.
var curves = map[string]struct {
	alg   string
	bytes int
}{"P-256": {"ES256", 32}, "P-384": {"ES384", 48}, "P-521": {"ES512", 66}}

// material reads the members that make the key, and what algorithms it fits (RFC 7518 §3.1, RFC 8037 §3.1).
func (k *key) material() {
	switch k.kty {
	case "RSA":
		n, e := new(big.Int).SetBytes(k.bytes("n")), new(big.Int).SetBytes(k.bytes("e"))
		k.must(n.BitLen() >= 2048 && n.BitLen() <= 8192, "its n has %d bits, 2048 to 8192 are taken", n.BitLen())
		k.must(e.BitLen() >= 2 && e.BitLen() <= 31 && e.Bit(0) == 1, "its e is not odd, or not within 3 to 2^31-1")
		k.algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
		k.parse("n", "e")
	case "EC":
		crv := k.text("crv")
		curve, ok := curves[crv]
		k.must(ok, "its crv is not P-256, P-384 or P-521")
		for _, name := range []string{"x", "y"} {
			n := len(k.bytes(name))
			k.must(n == curve.bytes, "its %s has %d bytes, %s has %d (RFC 7518 §6.2.1.2)", name, n, crv, curve.bytes)
		}
		k.algorithms = []string{curve.alg}
		k.parse("crv", "x", "y")
	case "OKP":
		k.must(k.text("crv") == "Ed25519", "its crv is not Ed25519")
		x := k.bytes("x")
		k.must(len(x) == ed25519.PublicKeySize, "its x has %d bytes, Ed25519 has 32 (RFC 8032 §5.1.5)", len(x))
		if len(x) > 0 {
			x[len(x)-1] &^= 0x80 // the sign
		}
		k.must(!slices.Contains(smallOrder[:], hex.EncodeToString(x)), "its x is of small order: signatures for it need no private key")
		k.algorithms = []string{"EdDSA"}
		k.parse("crv", "x")
	default:
		k.must(false, "its kty is not RSA, EC or OKP")
	}
}

// parse makes the public key of these members alone.
func (k *key) parse(names ...string) {
	if k.why != "" {
		return
	}
	needed := map[string]json.RawMessage{"kty": k.members["kty"]}
	for _, name := range names {
		needed[name] = k.members[name]
	}
	text, _ := json.Marshal(needed) // it was JSON before
	parsed, err := jwk.ParseKey(text)
	if err == nil {
		err = parsed.Raw(&k.public)
	}
	k.must(err == nil, "its %s make no key", strings.Join(names, " and "))
	if point, ok := k.public.(*ecdsa.PublicKey); ok {
		_, err := point.ECDH()
		k.must(err == nil, "its x and y are not a point of its crv")
	}
}

// must notes why the key cannot be used, unless something is noted already.
func (k *key) must(ok bool, why string, args ...any) {
	if !ok && k.why == "" {
		k.why = fmt.Sprintf(why, args...)
	}
}

// has reports whether a member is there. One that is null or an empty list is not: some libraries write those for what is
// absent.
func (k *key) has(name string) bool {
	var list []json.RawMessage
	raw, ok := k.members[name]
	return ok && (json.Unmarshal(raw, &list) != nil || len(list) > 0)
}

// text returns a member that must be a string.
func (k *key) text(name string) (s string) {
	raw, ok := k.members[name]
	k.must(ok, "its %s is absent", name)
	k.must(string(raw) != "null", "its %s is null", name)
	k.must(json.Unmarshal(raw, &s) == nil, "its %s is not a string", name)
	return s
}

// bytes returns a member that must be base64url without padding.
func (k *key) bytes(name string) []byte {
	s := k.text(name)
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	k.must(err == nil && !strings.ContainsAny(s, "\r\n"), "its %s is not base64url without padding (RFC 7518 §2)", name) // the decoder skips CR and LF
	return b
}

// smallOrder are the encodings, without the sign, of the eight points of Ed25519 that a factor of 8 takes to zero. Among
// them is x all zeros, a key that somebody forgot to fill in.
var smallOrder = [...]string{
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // 0, not reduced
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // 1, not reduced
}

// verifying looks a signature algorithm up once for a key.
func verifying(alg string, public crypto.PublicKey) Key {
	if hash, ok := map[string]crypto.Hash{"PS256": crypto.SHA256, "PS384": crypto.SHA384, "PS512": crypto.SHA512}[alg]; ok {
		// jwx takes a salt of any length, RFC 7518 §3.5 wants the hash's.
		options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
		return func(signed, signature []byte) bool {
			h := hash.New()
			h.Write(signed)
			return rsa.VerifyPSS(public.(*rsa.PublicKey), hash, h.Sum(nil), signature, options) == nil
		}
	}
	v, _ := jws.NewVerifier(jwa.SignatureAlgorithm(alg)) // an error is for other names than those of algorithms
	return func(signed, signature []byte) bool { return v.Verify(signed, signature, public) == nil }
}
