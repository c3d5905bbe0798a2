// Package jwks judges keys: it parses JSON Web Key Sets (RFC 7517) key by key, and leaves out what cannot be used.
package jwks

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"
)

const (
	maxKeys    = 1000 // of a set
	maxSameKid = 4    // keys of one kid that are tried for one algorithm
	maxKidLog  = 64   // characters of a kid in a log line
)

// A Set is a parsed key set. It never changes.
type Set struct {
	keys    map[string]map[string][]Key // by kid, then by alg; a kid whose keys were all skipped is there with none
	hash    [sha256.Size]byte           // of the text that it came from
	entries int                         // in that text
}

// A Key reports whether signature is its own over signed.
type Key = func(signed, signature []byte) bool

// Keys returns what the set has for kid and alg, and whether it has the kid at all. A nil Set has nothing.
func (s *Set) Keys(kid, alg string) (fit []Key, known bool) {
	if s == nil {
		return nil, false
	}
	byAlg, known := s.keys[kid]
	return byAlg[alg], known
}

// Len is how many keys the text holds, those that cannot be used included.
func (s *Set) Len() int { return s.entries }

// IsOf reports whether the set was read from text.
func (s *Set) IsOf(text []byte) bool { return s != nil && s.hash == sha256.Sum256(text) }

// A Skipped is a key that the set holds and that cannot be used.
type Skipped struct{ KeyType, KeyID, Why string }

func (s Skipped) Error() string {
	return fmt.Sprintf("key with kty %q and kid %q: %s", s.KeyType, s.KeyID, s.Why)
}

// Parse reads a key set. Its frame is read leniently; a key that is broken, not supported or not safe to use is
// left out and returned as skipped. It is an error if there is no array of keys, more than 1,000 of them, or
// none usable among several. An explicitly empty array is a set: everything was withdrawn.
func Parse(text []byte) (*Set, []Skipped, error) {
	var frame map[string]json.RawMessage // a map, because a struct would also take "Keys"
	if json.Unmarshal(text, &frame) != nil {
		return nil, nil, errors.New("not a JSON object")
	}
	var raws []json.RawMessage
	if json.Unmarshal(frame["keys"], &raws) != nil || raws == nil {
		return nil, nil, errors.New(`no "keys" array in it`)
	}
	if len(raws) > maxKeys {
		return nil, nil, fmt.Errorf("%d keys in it, at most %d are taken", len(raws), maxKeys)
	}
	set := &Set{keys: make(map[string]map[string][]Key, len(raws)), hash: sha256.Sum256(text), entries: len(raws)}
	var skipped []Skipped
	usable := 0
	for _, raw := range raws {
		k := parseKey(raw)
		if set.keys[k.id] == nil {
			set.keys[k.id] = map[string][]Key{}
		}
		if k.why != "" {
			skipped = append(skipped, Skipped{ForLog(k.kty), ForLog(k.id), k.why})
			continue
		}
		usable++
		for _, alg := range k.algorithms {
			if same := set.keys[k.id][alg]; len(same) < maxSameKid {
				set.keys[k.id][alg] = append(same, verifying(alg, k.public))
			}
		}
	}
	if len(raws) > 0 && usable == 0 {
		return nil, skipped, fmt.Errorf("none of its %d keys is usable; the first is a %w", len(raws), skipped[0])
	}
	return set, skipped, nil
}

// ForLog shortens text from outside, such as a kid, to 64 characters at most, at a rune boundary.
func ForLog(s string) string {
	n := 0
	for i := range s {
		if n == maxKidLog {
			return s[:i]
		}
		n++
	}
	return s
}

// An entry is one JWK as far as it was understood; why says why it cannot be used.
type entry struct {
	kty, id, why string
	public       crypto.PublicKey
	algorithms   []string
}

// parseKey judges a JWK when it arrives, for jwx takes keys that make verification panic later or that are
// not what they seem.
func parseKey(raw json.RawMessage) (k entry) {
	if !jsontext.Value(raw).IsValid() {
		k.why = "not strict JSON (invalid UTF-8 or a duplicate member)"
		return k
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil || members == nil {
		k.why = "not a JSON object"
		return k
	}
	k.kty, k.id = member(members, "kty"), member(members, "kid")
	k.why = k.judge(raw, members)
	return k
}

func (k *entry) judge(raw []byte, members map[string]json.RawMessage) (why string) {
	if k.id == "" {
		return "no kid, or one that is not a string"
	}
	for _, private := range []string{"d", "k", "p", "q", "dp", "dq", "qi", "oth"} {
		if _, ok := members[private]; ok {
			return "holds a private or symmetric key"
		}
	}
	if _, present := members["use"]; present && member(members, "use") != "sig" {
		return "its use is not sig"
	}
	if ops, ok := members["key_ops"]; ok {
		var list []string
		if json.Unmarshal(ops, &list) != nil || !slices.Contains(list, "verify") {
			return "its key_ops do not hold verify"
		}
	}
	fit, why := algorithms(k.kty, members)
	if why != "" {
		return why
	}
	if _, present := members["alg"]; present {
		own := member(members, "alg")
		if own == "Ed25519" {
			own = "EdDSA" // RFC 9864 §2.2
		}
		if !slices.Contains(fit, own) {
			return "its alg does not fit its type and curve"
		}
		fit = []string{own}
	}
	k.algorithms = fit

	parsed, err := jwk.ParseKey(raw)
	if err == nil {
		err = parsed.Raw(&k.public)
	}
	if err != nil {
		return "its parameters are broken"
	}
	switch public := k.public.(type) {
	case *rsa.PublicKey, ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if _, err := public.ECDH(); err != nil {
			return "its point is not on its curve"
		}
	default:
		return "not a public RSA, EC or Ed25519 key"
	}
	return ""
}

// algorithms returns those that a key of this type and curve can verify (RFC 7518 §3.1, RFC 8037 §3.1), once its
// parameters, read from its own bytes, have the size that they must have.
func algorithms(kty string, members map[string]json.RawMessage) (fit []string, why string) {
	crv := member(members, "crv")
	switch kty {
	case "RSA":
		n, e := decoded(members, "n"), decoded(members, "e")
		if bits := bitLen(n); bits < 2048 || bits > 8192 {
			return nil, fmt.Sprintf("its modulus has %d bits, 2048 to 8192 are taken", bits)
		}
		if bits := bitLen(e); bits < 2 || bits > 31 || e[len(e)-1]%2 == 0 {
			return nil, "its exponent is not odd or not within 3 to 2^31-1"
		}
		return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}, ""
	case "EC":
		curve, ok := map[string]struct {
			alg   string
			bytes int
		}{"P-256": {"ES256", 32}, "P-384": {"ES384", 48}, "P-521": {"ES512", 66}}[crv]
		if !ok {
			return nil, "its curve is not P-256, P-384 or P-521"
		}
		if len(decoded(members, "x")) != curve.bytes || len(decoded(members, "y")) != curve.bytes {
			return nil, fmt.Sprintf("its coordinates are not of %d bytes (RFC 7518 §6.2.1.2)", curve.bytes)
		}
		return []string{curve.alg}, ""
	case "OKP":
		if crv != "Ed25519" {
			return nil, "its curve is not Ed25519"
		}
		x := decoded(members, "x")
		if len(x) != ed25519.PublicKeySize {
			return nil, "its x is not of 32 bytes (RFC 8032 §5.1.5)"
		}
		if x[len(x)-1] &^= 0x80; slices.Contains(smallOrder[:], hex.EncodeToString(x)) { // without the sign
			return nil, "its point is of small order: signatures for it need no private key"
		}
		return []string{"EdDSA"}, ""
	}
	return nil, "its kty is not RSA, EC or OKP"
}

// smallOrder are the encodings, without the sign, of the eight points of Ed25519 that a factor of 8 takes to zero. Among
// them is x all zeros, the key of whoever forgot to fill it in.
var smallOrder = [...]string{
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // 0, not reduced
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // 1, not reduced
}

// member returns a string member, "" if it is absent or of any other type, null included.
func member(members map[string]json.RawMessage, name string) (s string) {
	_ = json.Unmarshal(members[name], &s) // which leaves s alone when it fails
	return s
}

// decoded returns a member's bytes, none if it is not unpadded base64url (RFC 7518 §2).
func decoded(members map[string]json.RawMessage, name string) []byte {
	b, err := base64.RawURLEncoding.Strict().DecodeString(member(members, name))
	if err != nil {
		return nil
	}
	return b
}

// bitLen counts the bits of a big-endian number without its leading zeros.
func bitLen(b []byte) int {
	for len(b) > 0 && b[0] == 0 {
		b = b[1:]
	}
	if len(b) == 0 {
		return 0
	}
	n := len(b) * 8
	for top := b[0]; top&0x80 == 0; top <<= 1 {
		n--
	}
	return n
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
