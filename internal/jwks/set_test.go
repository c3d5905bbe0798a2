package jwks

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

// signers has one private key for each kind of key. They are made once, for RSA keys are slow to make.
var signers = sync.OnceValue(func() map[string]crypto.Signer {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	must(err)
	keys := map[string]crypto.Signer{"Ed25519": ed}
	for _, curve := range []elliptic.Curve{elliptic.P224(), elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		keys[curve.Params().Name], err = ecdsa.GenerateKey(curve, rand.Reader)
		must(err)
	}
	keys["RSA"], err = rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	return keys
})

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// public returns the JWK of a signer's public half, under the kid "k".
func public(kind string) map[string]any {
	switch k := signers()[kind].Public().(type) {
	case ed25519.PublicKey:
		return map[string]any{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": b64(k)}
	case *ecdsa.PublicKey:
		point, err := k.Bytes() // 4, x, y
		must(err)
		half := (len(point) - 1) / 2
		return map[string]any{"kty": "EC", "crv": kind, "kid": "k", "x": b64(point[1 : 1+half]), "y": b64(point[1+half:])}
	case *rsa.PublicKey:
		return map[string]any{"kty": "RSA", "kid": "k", "n": b64(k.N.Bytes()), "e": "AQAB"}
	}
	panic(kind)
}

// with returns the JWK with members replaced; nil removes one.
func with(jwk map[string]any, members map[string]any) map[string]any {
	jwk = maps.Clone(jwk)
	for name, value := range members {
		if jwk[name] = value; value == nil {
			delete(jwk, name)
		}
	}
	return jwk
}

func setOf(keys ...any) []byte {
	text, err := json.Marshal(map[string]any{"keys": keys})
	must(err)
	return text
}

// modulus is an odd number of that many bits, after that many zero bytes.
func modulus(bits, zeros int) string {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	return b64(append(make([]byte, zeros), n.SetBit(n, 0, 1).Bytes()...))
}

func TestKeys(t *testing.T) {
	t.Parallel()
	type m = map[string]any
	rs := []string{"PS256", "PS384", "PS512", "RS256", "RS384", "RS512"}
	offCurve := func(kind string) m {
		x, _ := base64.RawURLEncoding.DecodeString(public(kind)["x"].(string))
		x[len(x)-1] ^= 1
		return with(public(kind), m{"x": b64(x)})
	}
	bytes := func(n int) string { return b64(make([]byte, n)) }
	and := func(jwk m, members string) json.RawMessage { // as they are spelled
		return json.RawMessage(strings.TrimSuffix(string(mustJSON(jwk)), "}") + "," + members + "}")
	}
	notBase64url := func(name string) string { return "its " + name + " is not base64url without padding (RFC 7518 §2)" }
	const notStrict, exponent = "not strict JSON (invalid UTF-8 or a duplicate member)", "its e is not odd, or not within 3 to 2^31-1"
	for _, c := range []struct {
		name string
		jwk  any      // a json.RawMessage or what marshals to the JWK
		algs []string // that it fits; none: it is skipped
		why  string   // the reason then
	}{
		{name: "Ed25519", jwk: public("Ed25519"), algs: []string{"EdDSA"}},
		{name: "P-256", jwk: public("P-256"), algs: []string{"ES256"}},
		{name: "P-384", jwk: public("P-384"), algs: []string{"ES384"}},
		{name: "P-521", jwk: public("P-521"), algs: []string{"ES512"}},
		{name: "RSA", jwk: public("RSA"), algs: rs},
		{name: "use sig", jwk: with(public("RSA"), m{"use": "sig"}), algs: rs},
		{name: "key_ops with verify", jwk: with(public("RSA"), m{"key_ops": []string{"sign", "verify"}}), algs: rs},
		{name: "own alg", jwk: with(public("RSA"), m{"alg": "PS384"}), algs: []string{"PS384"}},
		{name: "own alg EdDSA", jwk: with(public("Ed25519"), m{"alg": "EdDSA"}), algs: []string{"EdDSA"}},
		{name: "own alg Ed25519", jwk: with(public("Ed25519"), m{"alg": "Ed25519"}), algs: []string{"EdDSA"}},
		{name: "unknown members", jwk: with(public("Ed25519"), m{"iss": m{"a": 1}, "X": 7}), algs: []string{"EdDSA"}},
		{name: "RSA with leading zeros", jwk: with(public("RSA"), m{"n": "AAAA" + public("RSA")["n"].(string)}), algs: rs},
		{name: "RSA 8192", jwk: with(public("RSA"), m{"n": modulus(8192, 0)}), algs: rs},
		{name: "exponent 3", jwk: with(public("RSA"), m{"e": "Aw"}), algs: rs},
		{name: "exponent 2^31-1", jwk: with(public("RSA"), m{"e": "f____w"}), algs: rs},

		// What is absent may be spelled null or as an empty list.
		{name: "nulls", jwk: and(public("RSA"), `"alg":null,"use":null,"key_ops":null,"d":null,"p":null,"q":null,"dp":null,"dq":null,"qi":null,"oth":null,"k":null`), algs: rs},
		{name: "empty lists", jwk: and(public("RSA"), `"alg":[],"use":[],"key_ops":[ ],"d":[],"p":[],"q":[],"dp":[],"dq":[],"qi":[],"oth":[],"k":[]`), algs: rs},
		// Members that are not used never decide.
		{name: "x5c is a string", jwk: with(public("RSA"), m{"x5c": "MIIB", "x5u": 7, "x5t": []int{1}, "x5t#S256": true}), algs: rs},
		{name: "members of other types of keys", jwk: with(public("RSA"), m{"crv": "X25519", "x": 7, "y": "+"}), algs: rs},
		{name: "a number beyond float64", jwk: and(public("Ed25519"), `"exp":1e999`), algs: []string{"EdDSA"}},
		{name: "names in another case", jwk: with(public("Ed25519"), m{"D": bytes(32), "USE": "enc", "Kty": "oct"}), algs: []string{"EdDSA"}},

		{name: "no kid", jwk: with(public("Ed25519"), m{"kid": nil}), why: "its kid is absent"},
		{name: "empty kid", jwk: with(public("Ed25519"), m{"kid": ""}), why: "its kid is empty"},
		{name: "kid is a number", jwk: with(public("Ed25519"), m{"kid": 1}), why: "its kid is not a string"},
		{name: "kid is null", jwk: json.RawMessage(`{"kty":"OKP","kid":null}`), why: "its kid is null"},
		{name: "not an object", jwk: []string{"a"}, why: "not a JSON object"},
		{name: "null", jwk: nil, why: "not a JSON object"},
		{name: "duplicate member", jwk: json.RawMessage(`{"kty":"OKP","kid":"k","kid":"k"}`), why: notStrict},
		{name: "duplicate member, deep", jwk: json.RawMessage(`{"kty":"OKP","kid":"k","a":[{"b":1,"b":2}]}`), why: notStrict},
		{name: "invalid UTF-8", jwk: json.RawMessage("{\"kty\":\"OKP\",\"kid\":\"k\",\"a\":\"\xff\"}"), why: notStrict},
		{name: "no kty", jwk: with(public("Ed25519"), m{"kty": nil}), why: "its kty is absent"},
		{name: "kty in another case", jwk: with(public("RSA"), m{"kty": "rsa"}), why: "its kty is not RSA, EC or OKP"},
		{name: "kty is a number", jwk: with(public("RSA"), m{"kty": 1}), why: "its kty is not a string"},
		{name: "symmetric", jwk: m{"kty": "oct", "kid": "k", "k": "c2VjcmV0"}, why: secret},
		{name: "symmetric without its key", jwk: m{"kty": "oct", "kid": "k"}, why: "its kty is not RSA, EC or OKP"},
		{name: "public key with a symmetric one", jwk: with(public("RSA"), m{"k": "c2VjcmV0"}), why: secret},
		{name: "private Ed25519", jwk: with(public("Ed25519"), m{"d": bytes(32)}), why: secret},
		{name: "private, without a kid", jwk: with(public("Ed25519"), m{"d": bytes(32), "kid": nil}), why: secret},
		{name: "private, for encryption", jwk: with(public("RSA"), m{"d": "Aw", "use": "enc"}), why: secret},
		{name: "private, not strict JSON", jwk: and(public("RSA"), `"d":"Aw","kid":"k"`), why: secret},
		{name: "private, a number", jwk: with(public("RSA"), m{"d": 3}), why: secret},
		{name: "a prime of RSA", jwk: with(public("RSA"), m{"p": "Aw"}), why: secret},
		{name: "the other prime", jwk: with(public("RSA"), m{"q": "Aw"}), why: secret},
		{name: "dp", jwk: with(public("RSA"), m{"dp": "Aw"}), why: secret},
		{name: "dq", jwk: with(public("RSA"), m{"dq": "Aw"}), why: secret},
		{name: "qi", jwk: with(public("RSA"), m{"qi": "Aw"}), why: secret},
		{name: "oth", jwk: with(public("RSA"), m{"oth": []m{{"r": "Aw"}}}), why: secret},
		{name: "use enc", jwk: with(public("RSA"), m{"use": "enc"}), why: "its use is not sig"},
		{name: "use is empty", jwk: with(public("RSA"), m{"use": ""}), why: "its use is not sig"},
		{name: "use of another type", jwk: with(public("RSA"), m{"use": []string{"sig"}}), why: "its use is not a string"},
		{name: "key_ops without verify", jwk: with(public("RSA"), m{"key_ops": []string{"encrypt"}}), why: "its key_ops do not hold verify"},
		{name: "key_ops is a string", jwk: with(public("RSA"), m{"key_ops": "verify"}), why: "its key_ops are not a list of strings"},
		{name: "key_ops of numbers", jwk: with(public("RSA"), m{"key_ops": []int{1}}), why: "its key_ops are not a list of strings"},
		{name: "alg of another type of key", jwk: with(public("RSA"), m{"alg": "ES256"}), why: "its alg is not RS256 or RS384 or RS512 or PS256 or PS384 or PS512"},
		{name: "alg of another curve", jwk: with(public("P-256"), m{"alg": "ES384"}), why: "its alg is not ES256"},
		{name: "alg of encryption", jwk: with(public("RSA"), m{"alg": "RSA-OAEP"}), why: "its alg is not RS256 or RS384 or RS512 or PS256 or PS384 or PS512"},
		{name: "alg is empty", jwk: with(public("Ed25519"), m{"alg": ""}), why: "its alg is not EdDSA"},
		{name: "alg is a number", jwk: with(public("Ed25519"), m{"alg": -8}), why: "its alg is not a string"},
		{name: "RSA 2047", jwk: with(public("RSA"), m{"n": modulus(2047, 0)}), why: "its n has 2047 bits, 2048 to 8192 are taken"},
		{name: "RSA 2047 with leading zeros", jwk: with(public("RSA"), m{"n": modulus(2047, 8)}), why: "its n has 2047 bits, 2048 to 8192 are taken"},
		{name: "RSA 8193", jwk: with(public("RSA"), m{"n": modulus(8193, 0)}), why: "its n has 8193 bits, 2048 to 8192 are taken"},
		{name: "RSA modulus of zeros", jwk: with(public("RSA"), m{"n": bytes(256)}), why: "its n has 0 bits, 2048 to 8192 are taken"},
		{name: "RSA modulus missing", jwk: with(public("RSA"), m{"n": nil}), why: "its n is absent"},
		{name: "a certificate alone", jwk: m{"kty": "RSA", "kid": "k", "use": "sig", "x5c": []string{"MIIB"}}, why: "its n is absent"},
		{name: "RSA modulus null", jwk: and(with(public("RSA"), m{"n": nil}), `"n":null`), why: "its n is null"},
		{name: "RSA modulus a list", jwk: with(public("RSA"), m{"n": []string{}}), why: "its n is not a string"},
		{name: "RSA modulus padded", jwk: with(public("RSA"), m{"n": public("RSA")["n"].(string) + "=="}), why: notBase64url("n")},
		{name: "RSA modulus in lines", jwk: with(public("RSA"), m{"n": public("RSA")["n"].(string) + "\r\n"}), why: notBase64url("n")},
		{name: "RSA modulus in standard base64", jwk: with(public("RSA"), m{"n": strings.Repeat("+/", 171)}), why: notBase64url("n")},
		{name: "exponent 1", jwk: with(public("RSA"), m{"e": "AQ"}), why: exponent},
		{name: "exponent 2", jwk: with(public("RSA"), m{"e": "Ag"}), why: exponent},
		{name: "exponent even", jwk: with(public("RSA"), m{"e": "AQAA"}), why: exponent},
		{name: "exponent 2^31+1", jwk: with(public("RSA"), m{"e": "gAAAAQ"}), why: exponent},
		{name: "exponent 2^64+1", jwk: with(public("RSA"), m{"e": "AQAAAAAAAAAB"}), why: exponent},
		{name: "exponent missing", jwk: with(public("RSA"), m{"e": nil}), why: "its e is absent"},
		{name: "exponent a number", jwk: with(public("RSA"), m{"e": 65537}), why: "its e is not a string"},
		{name: "exponent padded", jwk: with(public("RSA"), m{"e": "Aw=="}), why: notBase64url("e")},
		{name: "P-224", jwk: public("P-224"), why: "its crv is not P-256, P-384 or P-521"},
		{name: "secp256k1", jwk: with(public("P-256"), m{"crv": "secp256k1"}), why: "its crv is not P-256, P-384 or P-521"},
		{name: "EC without crv", jwk: with(public("P-256"), m{"crv": nil}), why: "its crv is absent"},
		{name: "EC off its curve", jwk: offCurve("P-256"), why: "its x and y are not a point of its crv"},
		{name: "EC of another curve", jwk: with(public("P-256"), m{"crv": "P-384"}), why: "its x has 32 bytes, P-384 has 48 (RFC 7518 §6.2.1.2)"},
		{name: "EC at infinity", jwk: with(public("P-256"), m{"x": bytes(32), "y": bytes(32)}), why: "its x and y are not a point of its crv"},
		{name: "EC x short", jwk: with(public("P-256"), m{"x": bytes(31)}), why: "its x has 31 bytes, P-256 has 32 (RFC 7518 §6.2.1.2)"},
		{name: "EC y long", jwk: with(public("P-256"), m{"y": bytes(33)}), why: "its y has 33 bytes, P-256 has 32 (RFC 7518 §6.2.1.2)"},
		{name: "EC y missing", jwk: with(public("P-521"), m{"y": nil}), why: "its y is absent"},
		{name: "EC y a number", jwk: with(public("P-521"), m{"y": 1}), why: "its y is not a string"},
		{name: "X25519", jwk: with(public("Ed25519"), m{"crv": "X25519"}), why: "its crv is not Ed25519"},
		{name: "Ed448", jwk: with(public("Ed25519"), m{"crv": "Ed448"}), why: "its crv is not Ed25519"},
		{name: "Ed25519 x short", jwk: with(public("Ed25519"), m{"x": bytes(31)}), why: "its x has 31 bytes, Ed25519 has 32 (RFC 8032 §5.1.5)"},
		{name: "Ed25519 x long", jwk: with(public("Ed25519"), m{"x": bytes(33)}), why: "its x has 33 bytes, Ed25519 has 32 (RFC 8032 §5.1.5)"},
		{name: "Ed25519 x empty", jwk: with(public("Ed25519"), m{"x": ""}), why: "its x has 0 bytes, Ed25519 has 32 (RFC 8032 §5.1.5)"},
		{name: "Ed25519 x with stray bits", jwk: with(public("Ed25519"), m{"x": strings.Repeat("A", 42) + "B"}), why: notBase64url("x")},
		{name: "Ed25519 x missing", jwk: with(public("Ed25519"), m{"x": nil}), why: "its x is absent"},
		{name: "Ed25519 x in another alphabet", jwk: with(public("Ed25519"), m{"x": strings.Repeat("+", 43)}), why: notBase64url("x")},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			good := with(public("Ed25519"), m{"kid": "good"})
			frame := setOf(good, json.RawMessage("0"))
			set, skipped, err := Parse([]byte(strings.Replace(string(frame), ",0]", ","+string(mustJSON(c.jwk))+"]", 1)))
			if err != nil {
				t.Fatal(err)
			}
			if fit, _ := set.Keys("good", "EdDSA"); len(fit) != 1 {
				t.Error("the good key beside it is gone")
			}
			if got := slices.Sorted(maps.Keys(set.keys["k"])); !slices.Equal(got, c.algs) {
				t.Errorf("fits %v, want %v", got, c.algs)
			}
			switch {
			case len(c.algs) > 0 && len(skipped) != 0:
				t.Errorf("skipped: %v", skipped)
			case len(c.algs) == 0 && (len(skipped) != 1 || skipped[0].Why != c.why):
				t.Errorf("skipped %v, want one for %q", skipped, c.why)
			}
		})
	}
}

// Each of these keys verifies a signature that nobody made: of so many texts, one hits.
func TestSmallOrder(t *testing.T) {
	t.Parallel()
	forgery := make([]byte, ed25519.SignatureSize)
	forgery[0] = 1 // R is the neutral element, S is 0
	for _, encoding := range smallOrder {
		for _, sign := range []byte{0, 0x80} {
			x, err := hex.DecodeString(encoding)
			must(err)
			x[31] |= sign
			hit := false
			for text := range 256 {
				hit = hit || ed25519.Verify(x, []byte{byte(text)}, forgery)
			}
			if !hit {
				t.Errorf("%x is not of small order", x)
			}
			_, skipped, err := Parse(setOf(with(public("Ed25519"), map[string]any{"x": b64(x)})))
			if err == nil || len(skipped) != 1 || !strings.Contains(skipped[0].Why, "small order") {
				t.Errorf("%x: %v, %v", x, skipped, err)
			}
		}
	}
}

func mustJSON(v any) []byte {
	if raw, ok := v.(json.RawMessage); ok {
		return raw // Marshal would mend or refuse it
	}
	text, err := json.Marshal(v)
	must(err)
	return text
}

func TestFrames(t *testing.T) {
	t.Parallel()
	key := string(mustJSON(public("Ed25519")))
	for _, c := range []struct {
		name, text string
		keys       int
		err        string
	}{
		{name: "one", text: `{"keys":[` + key + `]}`, keys: 1},
		{name: "more members, twice", text: `{"a":1,"a":2,"Keys":7,"keys":[` + key + `]}`, keys: 1},
		{name: "a byte order mark", text: "\ufeff" + `{"keys":[` + key + `]}`, keys: 1},
		{name: "a byte order mark alone", text: "\ufeff", err: "not a JSON object"},
		{name: "two byte order marks", text: "\ufeff\ufeff" + `{"keys":[]}`, err: "not a JSON object"},
		{name: "explicitly empty", text: `{"keys":[]}`, keys: 0},
		{name: "1000", text: `{"keys":[` + strings.Repeat(key+",", 999) + key + `]}`, keys: 1000},
		{name: "1001", text: `{"keys":[` + strings.Repeat(key+",", 1000) + key + `]}`, err: "1001 keys"},
		{name: "no members", text: `{}`, err: `no "keys" array`},
		{name: "null keys", text: `{"keys":null}`, err: `no "keys" array`},
		{name: "keys is an object", text: `{"keys":{}}`, err: `no "keys" array`},
		{name: "Keys", text: `{"Keys":[` + key + `]}`, err: `no "keys" array`},
		{name: "an array", text: `[` + key + `]`, err: "not a JSON object"},
		{name: "null", text: `null`, err: `no "keys" array`},
		{name: "nothing", text: ``, err: "not a JSON object"},
		{name: "HTML", text: `<html>`, err: "not a JSON object"},
		{name: "cut off", text: `{"keys":[` + key, err: "not a JSON object"},
		{name: "none usable", text: `{"keys":[{"kty":"oct","kid":"a"},{}]}`, err: "none of its 2 keys is usable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			set, _, err := Parse([]byte(c.text))
			switch {
			case c.err == "" && (err != nil || set.entries != c.keys):
				t.Errorf("%+v, %v, want %d keys", set, err, c.keys)
			case c.err == "" && !set.IsOf([]byte(c.text)):
				t.Error("it is not of its text")
			case c.err != "" && (set != nil || err == nil || !strings.Contains(err.Error(), c.err)):
				t.Errorf("%v, want %q", err, c.err)
			}
		})
	}
}

// A kid whose key was skipped is known, or every token with it would cause a fetch.
func TestKidOfSkippedKeyIsKnown(t *testing.T) {
	t.Parallel()
	set, skipped, err := Parse(setOf(public("RSA"), map[string]any{"kty": "OKP", "crv": "X25519", "kid": strings.Repeat("é", 70)},
		map[string]any{"kty": strings.Repeat("é", 65), "kid": strings.Repeat("é", 64)}, map[string]any{"kty": "OKP"}, public("P-256")))
	if err != nil {
		t.Fatal(err)
	}
	if fit, known := set.Keys(strings.Repeat("é", 70), "EdDSA"); len(fit) != 0 || !known {
		t.Errorf("%d keys, known %v", len(fit), known)
	}
	if fit, known := set.Keys("k", "ES384"); len(fit) != 0 || !known {
		t.Errorf("alg that does not fit: %d keys, known %v", len(fit), known)
	}
	if fit, known := set.Keys("other", "RS256"); len(fit) != 0 || known {
		t.Errorf("other kid: %d keys, known %v", len(fit), known)
	}
	if got := fmt.Sprint(set.KeyIDs()); got != fmt.Sprint([]string{"k", strings.Repeat("é", 70), strings.Repeat("é", 64)}) {
		t.Errorf("kids %s", got)
	}
	short := strings.Repeat("é", 64)
	if want := []Skipped{{"OKP", short, "its crv is not Ed25519"}, {short, short, "its kty is not RSA, EC or OKP"}, {"OKP", "", "its kid is absent"}}; !slices.Equal(skipped, want) {
		t.Errorf("%v, want %v", skipped, want)
	}
}

func TestKeysOfOneKid(t *testing.T) {
	t.Parallel()
	var same []any
	for range 6 {
		same = append(same, public("Ed25519"))
	}
	set, _, err := Parse(setOf(append(same, public("P-256"))...))
	if err != nil {
		t.Fatal(err)
	}
	if fit, _ := set.Keys("k", "EdDSA"); len(fit) != 4 {
		t.Errorf("%d keys are tried, want 4", len(fit))
	}
	if fit, _ := set.Keys("k", "ES256"); len(fit) != 1 {
		t.Errorf("%d keys of the other type, want 1", len(fit))
	}
}

var kinds = map[string]string{
	"EdDSA": "Ed25519", "ES256": "P-256", "ES384": "P-384", "ES512": "P-521",
	"RS256": "RSA", "RS384": "RSA", "RS512": "RSA", "PS256": "RSA", "PS384": "RSA", "PS512": "RSA",
}

func TestSignatures(t *testing.T) {
	t.Parallel()
	for alg, kind := range kinds {
		t.Run(alg, func(t *testing.T) {
			t.Parallel()
			set, _, err := Parse(setOf(public(kind)))
			if err != nil {
				t.Fatal(err)
			}
			fit, _ := set.Keys("k", alg)
			if len(fit) != 1 {
				t.Fatalf("%d keys", len(fit))
			}
			signature, err := jwt.GetSigningMethod(alg).Sign("a.b", signers()[kind])
			if err != nil {
				t.Fatal(err)
			}
			if !fit[0]([]byte("a.b"), signature) {
				t.Error("the signature does not verify")
			}
			if fit[0]([]byte("a.c"), signature) {
				t.Error("it verifies another text")
			}
			for name, bad := range map[string][]byte{
				"none": nil, "cut": signature[1:], "longer": append(slices.Clone(signature), 0), "zeros": make([]byte, len(signature)),
			} {
				if fit[0]([]byte("a.b"), bad) {
					t.Errorf("%s: verifies", name)
				}
			}
			for other, kindOfOther := range kinds {
				if kindOfOther == kind && other != alg {
					foreign, err := jwt.GetSigningMethod(other).Sign("a.b", signers()[kind])
					if err != nil {
						t.Fatal(err)
					}
					if fit[0]([]byte("a.b"), foreign) {
						t.Errorf("a signature of %s verifies", other)
					}
				}
			}
		})
	}
}

// RFC 7518 §3.5: the salt is as long as the hash.
func TestSaltOfPSS(t *testing.T) {
	t.Parallel()
	set, _, err := Parse(setOf(public("RSA")))
	if err != nil {
		t.Fatal(err)
	}
	for alg, hash := range map[string]crypto.Hash{"PS256": crypto.SHA256, "PS384": crypto.SHA384, "PS512": crypto.SHA512} {
		fit, _ := set.Keys("k", alg)
		h := hash.New()
		h.Write([]byte("a.b"))
		for salt, want := range map[int]bool{hash.Size(): true, hash.Size() - 1: false, 20: false, rsa.PSSSaltLengthAuto: false} {
			signature, err := rsa.SignPSS(rand.Reader, signers()["RSA"].(*rsa.PrivateKey), hash, h.Sum(nil), &rsa.PSSOptions{SaltLength: salt})
			if err != nil {
				t.Fatal(err)
			}
			if got := fit[0]([]byte("a.b"), signature); got != want {
				t.Errorf("%s, salt %d: %v, want %v", alg, salt, got, want)
			}
		}
	}
}

func TestPinned(t *testing.T) {
	t.Parallel()
	type m = map[string]any
	good := public("Ed25519")
	encryption := with(public("RSA"), m{"kid": "e", "use": "enc"})
	private := with(public("RSA"), m{"kid": "p", "d": "AQ"})
	for _, c := range []struct {
		name, text string
		skipped    []Skipped
		err        string
	}{
		{"good", string(setOf(good)), nil, ""},
		{"a key for encryption beside it", string(setOf(encryption, good)), []Skipped{{"RSA", "e", "its use is not sig"}}, ""},
		{"not JSON", "{", nil, "not a JSON object"},
		{"empty", `{"keys":[]}`, nil, "no keys"},
		{"nothing usable", string(setOf(encryption)), nil, "its use is not sig"},
		{"a private key", string(setOf(good, private)), nil, `kid "p": ` + secret},
		{"a private key, and nothing usable", string(setOf(encryption, private)), nil, `kid "p": ` + secret},
		{"a symmetric key", string(setOf(good, m{"kty": "oct", "k": "AQ"})), nil, secret},
	} {
		p, skipped, err := NewPinned([]byte(c.text))
		switch {
		case c.err != "":
			if p != nil || err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, %v, want %q", c.name, p, err, c.err)
			}
		case err != nil || !slices.Equal(skipped, c.skipped):
			t.Errorf("%s: skipped %v, %v, want %v", c.name, skipped, err, c.skipped)
		default:
			if fit, known, err := p.Keys(t.Context(), "k", "EdDSA"); len(fit) != 1 || !known || err != nil {
				t.Errorf("%s: %d, %v, %v", c.name, len(fit), known, err)
			}
			if _, ok := p.Age(); ok {
				t.Errorf("%s: it has an age", c.name)
			}
		}
	}
}

// Whatever an issuer sends, its keys do not panic when they are used, now or later.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"keys":[]}`))
	f.Add([]byte(`{"keys":[{"kty":"oct","kid":"a","k":"AA"}]}`))
	for kind := range signers() {
		f.Add(setOf(public(kind)))
		f.Add(setOf(with(public(kind), map[string]any{"use": "sig", "alg": "RS256", "key_ops": []string{"verify"}}), nil, 7))
	}
	signature := make([]byte, 512)
	f.Fuzz(func(t *testing.T, text []byte) {
		set, skipped, err := Parse(text)
		if (set == nil) != (err != nil) {
			t.Fatalf("%v, %v", set, err)
		}
		if err != nil {
			return
		}
		if set.entries < len(skipped) || set.entries > maxKeys {
			t.Errorf("%d keys, %d skipped", set.entries, len(skipped))
		}
		for kid, byAlg := range set.keys {
			for alg, all := range byAlg {
				if kinds[alg] == "" || kid == "" || len(all) > maxSameKid {
					t.Errorf("kid %q has %d keys for %q", kid, len(all), alg)
				}
				for _, verify := range all {
					for _, n := range []int{0, 1, 64, 96, 132, 256, 512} {
						if verify([]byte("a.b"), signature[:n]) && alg != "EdDSA" { // a key of small order verifies zeros
							t.Errorf("%s: %d zeros verify", alg, n)
						}
					}
				}
			}
		}
		again, _, err := Parse(text)
		if err != nil || fmt.Sprint(slices.Sorted(maps.Keys(again.keys))) != fmt.Sprint(slices.Sorted(maps.Keys(set.keys))) {
			t.Errorf("read twice, not the same: %v", err)
		}
	})
}
