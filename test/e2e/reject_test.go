package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// attempt makes the tokens of one way of being refused; each differs from a good one in one thing.
type attempt struct {
	name   string
	needs  []Need
	tokens func(t *testing.T, tg *target, a algorithm) []string
}

// TestReject holds that every fault of a token is a 401 that says no more, whatever signed it.
func TestReject(t *testing.T) {
	// orders is for faults that the issuer can sign.
	orders := func(name string, make func(tg *target, o order) []order, needs ...Need) attempt {
		return attempt{name, append(needs, Mint), func(t *testing.T, tg *target, a algorithm) (tokens []string) {
			for _, o := range make(tg, a.order()) {
				tokens = append(tokens, tg.mint(t, o).Token)
			}
			return tokens
		}}
	}
	claim := func(name string, values ...any) func(*target, order) []order {
		return func(_ *target, o order) (out []order) {
			for _, v := range values {
				out = append(out, o.claim(name, v))
			}
			return out
		}
	}
	head := func(name string, values ...any) func(*target, order) []order {
		return func(_ *target, o order) (out []order) {
			for _, v := range values {
				out = append(out, o.head(name, v))
			}
			return out
		}
	}
	// rawHeader signs a header text of our own with the key that usually signs; %[1]q is alg, %[2]q is kid.
	rawHeader := func(formats ...string) func(*testing.T, *target, algorithm) []string {
		return func(t *testing.T, tg *target, a algorithm) (tokens []string) {
			kid := tg.mint(t, a.order()).Kid
			for _, format := range formats {
				tokens = append(tokens, tg.mint(t, order{Alg: a.signer, RawHeader: fmt.Sprintf(format, a.name, kid)}).Token)
			}
			return tokens
		}
	}
	payloads := func(make func(tg *target) []string) func(*target, order) []order {
		return func(tg *target, o order) (out []order) {
			for _, o.Payload = range make(tg) {
				out = append(out, o)
			}
			return out
		}
	}

	attempts := []attempt{
		{"tampered payload", []Need{Mint}, func(t *testing.T, tg *target, a algorithm) []string {
			o := a.order()
			o.Payload = tg.payload(`"role":"user"`)
			header, payload, signature := parts(t, tg.mint(t, o).Token)
			return []string{compose(header, strings.Replace(payload, `"user"`, `"root"`, 1), signature)}
		}},
		{"tampered header", []Need{Mint}, func(t *testing.T, tg *target, a algorithm) []string {
			header, payload, signature := parts(t, tg.mint(t, a.order()).Token)
			return []string{compose(strings.Replace(header, "{", "{ ", 1), payload, signature)}
		}},
		{"tampered signature", []Need{Mint}, func(t *testing.T, tg *target, a algorithm) []string {
			header, payload, signature := parts(t, tg.mint(t, a.order()).Token)
			first, last, zero := clone(signature), clone(signature), make([]byte, len(signature))
			first[0] ^= 1
			last[len(last)-1] ^= 0x80
			return []string{
				compose(header, payload, first), compose(header, payload, last), compose(header, payload, zero),
				compose(header, payload, signature[:len(signature)-1]), compose(header, payload, append(clone(signature), 0)),
				compose(header, payload, append([]byte{0}, signature...)), compose(header, payload, nil),
			}
		}},
		{"another token's signature", []Need{Mint}, func(t *testing.T, tg *target, a algorithm) []string {
			header, payload, _ := parts(t, tg.mint(t, a.order()).Token)
			_, _, other := parts(t, tg.mint(t, a.order()).Token)
			return []string{compose(header, payload, other)}
		}},
		orders("foreign key with a known kid", func(_ *target, o order) []order { o.Foreign = true; return []order{o} }),
		orders("unknown kid", func(_ *target, o order) []order { return []order{o.head("kid", "unknown-"+rand.Text())} }),
		orders("no kid", head("kid", nil, "", 7, []string{"a"})),
		{"kid null", []Need{Mint}, rawHeader(`{"alg":%[1]q,"kid":null}`)},
		orders("expired", func(tg *target, o order) []order {
			return []order{o.claim("iat", at(-tg.leeway-time.Minute)).claim("exp", at(-tg.leeway-2*time.Second)), o.claim("exp", 0), o.claim("exp", -1)}
		}),
		orders("no exp", claim("exp", nil)),
		orders("exp of the wrong type", claim("exp", "4102444800", true, []int{4102444800}, object{})),
		orders("exp null or beyond float64", payloads(func(tg *target) []string {
			return []string{
				fmt.Sprintf(`{"iss":%q,"aud":%q,"iat":%d,"exp":null}`, tg.issuer, tg.audience, at(0)),
				fmt.Sprintf(`{"iss":%q,"aud":%q,"iat":%d,"exp":1e400}`, tg.issuer, tg.audience, at(0)),
			}
		})),
		orders("nbf in the future", func(tg *target, o order) []order { return []order{o.claim("nbf", at(tg.leeway+time.Minute))} }),
		orders("nbf of the wrong type", claim("nbf", "0")),
		orders("iat in the future", func(tg *target, o order) []order { return []order{o.claim("iat", at(tg.leeway+time.Minute))} }),
		orders("iat of the wrong type", claim("iat", "0")),
		orders("too old", func(tg *target, o order) []order {
			return []order{o.claim("iat", at(-tg.maxAge-tg.leeway-2*time.Second))}
		}, MaxAge),
		orders("no iat", claim("iat", nil), MaxAge),
		orders("wrong iss", func(tg *target, o order) []order {
			return []order{o.claim("iss", "https://issuer.example"), o.claim("iss", tg.issuer+"/"), o.claim("iss", strings.ToUpper(tg.issuer)),
				o.claim("iss", ""), o.claim("iss", nil), o.claim("iss", []string{tg.issuer}), o.claim("iss", nil).claim("Iss", tg.issuer)}
		}),
		orders("wrong aud", func(tg *target, o order) []order {
			others := slices.DeleteFunc([]string{"aws-origin", "another-origin", "third-origin"}, func(aud string) bool { return aud == tg.audience })
			return []order{o.claim("aud", others[0]), o.claim("aud", others[1]), o.claim("aud", others), o.claim("aud", []string{}),
				o.claim("aud", tg.audience+"2"), o.claim("aud", strings.ToUpper(tg.audience)), o.claim("aud", ""),
				o.claim("aud", []any{tg.audience, 1}), o.claim("aud", object{"0": tg.audience}), o.claim("aud", tg.audience+","+others[0])}
		}, Audience),
		orders("missing aud", claim("aud", nil), Audience),
		{"alg none", []Need{Mint}, func(t *testing.T, tg *target, a algorithm) (tokens []string) {
			m := tg.mint(t, a.order())
			_, payload, signature := parts(t, m.Token)
			for _, none := range []string{"none", "None", "NONE", ""} {
				header := fmt.Sprintf(`{"alg":%q,"typ":"JWT","kid":%q}`, none, m.Kid)
				tokens = append(tokens, compose(header, payload, nil), compose(header, payload, signature))
			}
			return tokens
		}},
		{"alg confusion: HS256 with the public key as its secret", []Need{Mint}, func(t *testing.T, tg *target, a algorithm) (tokens []string) {
			kid := tg.mint(t, a.order()).Kid
			for _, secret := range tg.published(t, kid).publicTexts(t) {
				tokens = append(tokens, hs256(fmt.Sprintf(`{"alg":"HS256","typ":"JWT","kid":%q}`, kid), tg.payload(""), secret),
					hs256(fmt.Sprintf(`{"alg":%q,"typ":"JWT","kid":%q}`, a.name, kid), tg.payload(""), secret))
			}
			return tokens
		}},
		{"alg switch: the key's own alg disagrees", []Need{Mint}, func(t *testing.T, tg *target, a algorithm) (tokens []string) {
			for _, other := range algorithms {
				if other.signer == a.signer {
					continue
				}
				o := order{Alg: a.signer, SignAs: a.signer}.head("alg", other.name)
				tokens = append(tokens, tg.mint(t, o).Token)
				// An RSA key can really make the other signature; the rest cannot.
				if isRSA(a) && isRSA(other) {
					o.SignAs = other.signer
					tokens = append(tokens, tg.mint(t, o).Token)
				}
			}
			return tokens
		}},
		{"another key's kid", []Need{Mint}, func(t *testing.T, tg *target, a algorithm) (tokens []string) {
			for _, other := range []string{"EdDSA", "RS256", "PS256", "ES256"} {
				if other != a.signer {
					tokens = append(tokens, tg.mint(t, a.order().head("kid", tg.mint(t, order{Alg: other}).Kid)).Token)
				}
			}
			return tokens
		}},
		orders("alg in another case or of the wrong type", func(_ *target, o order) []order {
			o.SignAs = o.Alg
			return []order{o.head("alg", strings.ToLower(o.Alg)), o.head("alg", 1), o.head("alg", nil), o.head("alg", []string{o.Alg})}
		}),
		orders("crit", head("crit", []string{"exp"}, []string{}, []string{"b64"})),
		{"crit null", []Need{Mint}, rawHeader(`{"alg":%[1]q,"kid":%[2]q,"crit":null}`)},
		orders("b64", head("b64", true, false)),
		{"b64 null", []Need{Mint}, rawHeader(`{"alg":%[1]q,"kid":%[2]q,"b64":null}`)},
		orders("typ wrong", head("typ", "JWE", "dpop+jwt", "", 1, "application/")),
		{"typ null", []Need{Mint}, rawHeader(`{"alg":%[1]q,"kid":%[2]q,"typ":null}`)},
		{"duplicate member in the header", []Need{Mint}, rawHeader(
			`{"alg":%[1]q,"kid":%[2]q,"kid":%[2]q}`, `{"alg":"none","alg":%[1]q,"kid":%[2]q}`, `{"alg":%[1]q,"kid":%[2]q,"\u0061lg":%[1]q}`, `{"alg":%[1]q,"kid":%[2]q,"x":{"y":1,"y":1}}`)},
		{"a header that is no strict JSON object", []Need{Mint}, rawHeader(`{"alg":%[1]q,"kid":%[2]q,}`, `[{"alg":%[1]q,"kid":%[2]q}]`, `{"alg":%[1]q,"kid":%[2]q} {}`)},
		orders("duplicate member in the payload", payloads(func(tg *target) []string {
			return []string{tg.payload(`"sub":"root"`), tg.payload(`"s\u0075b":"root"`), tg.payload(`"x":[{"y":1,"y":2}]`), tg.payload(fmt.Sprintf(`"iss":%q`, tg.issuer))}
		})),
		orders("a payload that is no strict JSON object", payloads(func(tg *target) []string {
			good := tg.payload("")
			return []string{"null", "[]", `"x"`, "[" + good + "]", good + good, strings.TrimSuffix(good, "}"), tg.payload(`"n":01`), tg.payload(`"n":NaN`), tg.payload(`"x":'y'`)}
		})),
		orders("nested too deep", payloads(func(tg *target) []string {
			return []string{tg.payload(`"deep":` + strings.Repeat("[", 70) + strings.Repeat("]", 70))}
		})),
		orders("over 8 KiB", payloads(func(tg *target) []string { return []string{tg.payload(`"filler":"` + strings.Repeat("x", 6200) + `"`)} })),
		{"segments that are not plain base64url", []Need{Mint}, func(t *testing.T, tg *target, a algorithm) []string {
			token := tg.mint(t, a.order()).Token
			header, rest, _ := strings.Cut(token, ".")
			payload, signature, _ := strings.Cut(rest, ".")
			tokens := []string{token + "=", token + "==", header + "=." + rest, header + ". " + rest, header + ".+" + rest, token + ".", "." + token,
				token + "." + signature, header + "." + payload, header + ".." + signature, "." + rest, header + "." + payload + "."}
			// Signatures of a multiple of three bytes leave no bit over.
			if len(signature)%4 != 0 {
				tokens = append(tokens, trailingBits(token))
			}
			return tokens
		}},
	}

	var cases []testCase
	for _, a := range algorithms {
		for _, try := range attempts {
			cases = append(cases, testCase{a.name + "/" + try.name, try.needs, func(t *testing.T, tg *target) {
				for i, token := range try.tokens(t, tg, a) {
					r, err := tg.ask(token)
					check(t, err)
					if err := refusedAs("Bearer " + token)(r); err != nil {
						t.Errorf("token %d, %s: %v", i+1, token, err)
					}
					check(t, tg.explained("Bearer "+token, r))
				}
			}})
		}
	}
	for _, alg := range []string{"ES256", "ES384", "ES512"} {
		cases = append(cases, testCase{alg + "/signature in ASN.1", []Need{Mint}, func(t *testing.T, tg *target) {
			header, payload, raw := parts(t, tg.mint(t, order{Alg: alg}).Token)
			half := len(raw) / 2
			der, err := asn1.Marshal([]*big.Int{new(big.Int).SetBytes(raw[:half]), new(big.Int).SetBytes(raw[half:])})
			check(t, err)
			r, err := tg.ask(compose(header, payload, der))
			check(t, err)
			check(t, refused(r))
		}})
	}
	cases = append(cases, testCase{"a key that the token brings along", []Need{Mint}, ownKey})
	for name, authorization := range map[string]func(token string) string{
		"no header":                     func(string) string { return "" },
		"no scheme":                     func(token string) string { return token },
		"Basic":                         func(token string) string { return "Basic " + token },
		"Bearer alone":                  func(string) string { return "Bearer" },
		"two spaces":                    func(token string) string { return "Bearer  " + token },
		"a tab":                         func(token string) string { return "Bearer\t" + token },
		"the scheme twice":              func(token string) string { return "Bearer Bearer " + token },
		"something behind the token":    func(token string) string { return "Bearer " + token + " x" },
		"two tokens":                    func(token string) string { return "Bearer " + token + "," + token },
		"four segments":                 func(token string) string { return "Bearer " + token + ".e30" },
		"five segments, as in JWE":      func(token string) string { return "Bearer " + token + ".e30.e30" },
		"two segments":                  func(token string) string { return "Bearer " + token[:strings.LastIndex(token, ".")] },
		"an API key instead of a token": func(string) string { return "Bearer YOUR_API_KEY" },
	} {
		cases = append(cases, testCase{"header: " + name, []Need{Mint}, func(t *testing.T, tg *target) {
			header := authorization(tg.mint(t, order{}).Token)
			r, err := send(http.MethodGet, tg.base+"/protected", header)
			check(t, err)
			check(t, refusedAs(header)(r))
			if name != "no scheme" { // explain takes a token alone for one behind its scheme
				check(t, tg.explained(header, r))
			}
		}})
	}
	inParallel(t, cases)
}

// ownKey signs with a key that is in the token itself (jwk), or where the token says (jku, x5u). Nobody may look there.
func ownKey(t *testing.T, tg *target) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	kid := tg.mint(t, order{Alg: "EdDSA"}).Kid
	key := fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","kid":%q,"alg":"EdDSA","x":%q}`, kid, encode(public))
	var asked atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Store(true)
		fmt.Fprintf(w, `{"keys":[%s]}`, key)
	}))
	defer server.Close()
	for _, member := range []string{`"jwk":` + key, `"jku":"` + server.URL + `"`, `"x5u":"` + server.URL + `"`} {
		signed := compose(fmt.Sprintf(`{"alg":"EdDSA","kid":%q,%s}`, kid, member), tg.payload(""), nil)
		signed = strings.TrimSuffix(signed, ".")
		r, err := tg.ask(signed + "." + encode(ed25519.Sign(private, []byte(signed))))
		check(t, err)
		if err := refused(r); err != nil {
			t.Errorf("%s: %v", member, err)
		}
	}
	if asked.Load() {
		t.Error("somebody fetched the address that a token named")
	}
}

func isRSA(a algorithm) bool {
	return strings.HasPrefix(a.name, "RS") || strings.HasPrefix(a.name, "PS")
}

func clone(b []byte) []byte { return append([]byte(nil), b...) }
