package jwt

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	signer "github.com/golang-jwt/jwt/v5"
)

const now = 1_800_000_000

var private = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// sign makes a token whose every byte is the test's, with a signer that is not the code under test.
func sign(t testing.TB, header, payload string) string {
	t.Helper()
	signed := b64(header) + "." + b64(payload)
	signature, err := signer.SigningMethodEdDSA.Sign(signed, private)
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// source is a KeySource with fixed answers that counts what it was asked.
type source struct {
	asked int
	none  bool
	err   error
}

func (s *source) Keys(_ context.Context, kid, alg string) ([]func(signed, signature []byte) bool, bool, error) {
	s.asked++
	if s.none {
		return nil, true, nil
	}
	no := func(_, _ []byte) bool { return false }
	yes := func(signed, signature []byte) bool {
		return ed25519.Verify(private.Public().(ed25519.PublicKey), signed, signature)
	}
	return []func(signed, signature []byte) bool{no, yes}, kid == "k1", s.err
}

func trusted(keys KeySource, audiences ...string) map[string]Trusted {
	t := Trusted{Keys: keys, Audiences: audiences}
	return map[string]Trusted{"https://issuer.example": t, "https://slash.example/": t}
}

func verifier(s *source) *Verifier {
	return &Verifier{
		Scheme:     "Bearer",
		Issuers:    trusted(s, "us", "them"),
		Algorithms: []string{"EdDSA", "ES256"},
		Leeway:     30 * time.Second,
		Now:        func() time.Time { return time.Unix(now, 0) },
	}
}

// agrees holds that Examine says what Verify has said.
func agrees(t *testing.T, v *Verifier, value string, want error) {
	t.Helper()
	if all := v.Examine(t.Context(), value); !reflect.DeepEqual(all.Err(), want) {
		t.Errorf("Examine says %v, Verify %v", all.Err(), want)
	} else if want == nil && all.Token.Claims.JSON == nil {
		t.Error("Examine has no verified token")
	} else if want != nil && all.Token.Claims.JSON != nil {
		t.Error("Examine has verified claims of a token that is refused")
	}
}

// Examine goes on where Verify stops, except where there is nothing to check.
func TestExamine(t *testing.T) {
	t.Parallel()
	const all = "form header payload alg kid crit typ iss exp key signature nbf iat aud age"
	without := func(names string) string {
		left := slices.DeleteFunc(strings.Fields(all), func(name string) bool { return slices.Contains(strings.Fields(names), name) })
		return strings.Join(left, " ")
	}
	for _, c := range []struct{ name, header, payload, checks, fail string }{
		{"good", goodHeader, goodClaims, all, ""},
		{"form", "", goodClaims, "form", "form"},
		{"header", `[]`, goodClaims, without("alg kid crit typ key signature"), "header"},
		{"payload", goodHeader, `{"iss":7}`, without("iss exp key signature nbf iat aud age"), "payload"},
		{"alg", `{"alg":"HS256","kid":"k1"}`, goodClaims, all, "alg"},
		{"kid", `{"alg":"EdDSA"}`, goodClaims, without("key signature"), "kid"},
		{"iss", goodHeader, strings.Replace(goodClaims, "issuer", "other", 1), without("key signature aud"), "iss"},
		{"key", `{"alg":"EdDSA","kid":"k2"}`, goodClaims, without("signature"), "key"},
		{"everything else", `{"alg":"EdDSA","kid":"k1","typ":"x","crit":[]}`, `{"iss":"https://issuer.example","nbf":9e9,"iat":9e9}`, all, "crit typ exp nbf iat aud"},
	} {
		var checks, fail []string
		found := verifier(&source{}).Examine(t.Context(), "Bearer "+sign(t, c.header, c.payload))
		for _, f := range found.Findings {
			checks = append(checks, f.Check)
			if f.Err != nil {
				fail = append(fail, f.Check)
			}
		}
		if strings.Join(checks, " ") != c.checks || strings.Join(fail, " ") != c.fail {
			t.Errorf("%s: of %v fail %v, want %s of %s", c.name, checks, fail, c.fail, c.checks)
		}
		if read := c.name != "form" && c.name != "header"; read != (found.Header != nil) {
			t.Errorf("%s: members of the header %v", c.name, found.Header)
		}
	}
	v := verifier(&source{})
	v.MaxTokenAge, v.Leeway = time.Second, 0
	for _, f := range v.Examine(t.Context(), "Bearer "+sign(t, goodHeader, goodClaims)).Findings {
		if (f.Err != nil) != (f.Check == "age") {
			t.Errorf("of a token that is too old alone, %s: %v", f.Check, f.Err)
		}
	}
}

const (
	goodHeader = `{"alg":"EdDSA","kid":"k1","typ":"JWT"}`
	goodClaims = `{"iss":"https://issuer.example","aud":"us","sub":"caller","exp":1800000060,"iat":1799999990}`
)

func TestVerify(t *testing.T) {
	t.Parallel()
	claims := func(old, new string) string { return strings.Replace(goodClaims, old, new, 1) }
	deep := func(n int) string {
		return claims(`"sub"`, `"deep":`+strings.Repeat("[", n)+strings.Repeat("]", n)+`,"sub"`)
	}
	for _, c := range []struct {
		name, header, payload string
		want                  Reason // "" is allow
		detail                Detail
		fetched               bool
		with                  func(*Verifier)
	}{
		{name: "good", fetched: true},
		{name: "Ed25519 is EdDSA", header: `{"alg":"Ed25519","kid":"k1"}`, fetched: true},
		{name: "typ at+jwt", header: `{"alg":"EdDSA","kid":"k1","typ":"application/AT+jwt"}`, fetched: true},
		{name: "typ AT+JWT", header: `{"alg":"EdDSA","kid":"k1","typ":"AT+JWT"}`, fetched: true},
		{name: "typ application/jwt", header: `{"alg":"EdDSA","kid":"k1","typ":"APPLICATION/JWT"}`, fetched: true},
		{name: "typ in another case", header: `{"alg":"EdDSA","kid":"k1","typ":"jwt"}`, fetched: true},
		{name: "key material in the header is not looked at", header: `{"alg":"EdDSA","kid":"k1","jwk":7,"jku":null,"x5u":[],"x5c":{}}`, fetched: true},
		{name: "names match exactly", header: `{"ALG":7,"alg":"EdDSA","kid":"k1","KID":null}`, fetched: true},
		{name: "escaped kid", header: `{"alg":"EdDSA","kid":"\u006b1"}`, fetched: true},
		{name: "fractions", payload: claims("1800000060", "1800000060.25"), fetched: true},
		{name: "exponents", payload: claims("1800000060", "1.80000006e9"), fetched: true},
		{name: "64 deep", payload: deep(63), fetched: true},
		{name: "brackets in strings are no depth", payload: claims("caller", strings.Repeat(`[\"`, 200)), fetched: true},
		{name: "one after the other is no depth", payload: claims(`"sub"`, `"wide":[`+strings.Repeat(`[],{},`, 100)+`0],"sub"`), fetched: true},

		{name: "closing brackets in strings take no depth back", payload: `{"closed":"` + strings.Repeat("]}", 50) + `",` + deep(64)[1:], want: Malformed, detail: JSON},
		{name: "65 deep", payload: deep(64), want: Malformed, detail: JSON},
		{name: "header is an array", header: `[]`, want: Malformed, detail: JSON},
		{name: "header is no JSON", header: `{`, want: Malformed, detail: JSON},
		{name: "payload is a string", payload: `"x"`, want: Malformed, detail: JSON},
		{name: "payload ends early", payload: goodClaims[:len(goodClaims)-1], want: Malformed, detail: JSON},
		{name: "payload is followed by more", payload: goodClaims + "1", want: Malformed, detail: JSON},
		{name: "broken name", payload: `{"a`, want: Malformed, detail: JSON},
		{name: "broken value", payload: `{"a":x}`, want: Malformed, detail: JSON},
		{name: "invalid UTF-8", payload: claims("caller", "\xff"), want: Malformed, detail: JSON},
		{name: "lone surrogate", payload: claims("caller", `\ud800`), want: Malformed, detail: JSON},
		{name: "duplicate member", payload: claims(`"sub"`, `"iss":"x","sub"`), want: Malformed, detail: JSON},
		{name: "duplicate member, escaped", payload: claims(`"sub"`, `"\u0069ss":"x","sub"`), want: Malformed, detail: JSON},
		{name: "duplicate member, deep", payload: claims(`"sub"`, `"x":[{"a":1,"a":2}],"sub"`), want: Malformed, detail: JSON},
		{name: "duplicate in header", header: `{"alg":"EdDSA","kid":"k1","kid":"k1"}`, want: Malformed, detail: JSON},
		{name: "alg null", header: `{"alg":null,"kid":"k1"}`, want: Malformed, detail: Type},
		{name: "kid number", header: `{"alg":"EdDSA","kid":1}`, want: Malformed, detail: Type},
		{name: "typ number", header: `{"alg":"EdDSA","kid":"k1","typ":1}`, want: Malformed, detail: Type},
		{name: "typ empty", header: `{"alg":"EdDSA","kid":"k1","typ":""}`, want: Malformed, detail: Typ},
		{name: "typ of another kind of medium", header: `{"alg":"EdDSA","kid":"k1","typ":"message/xyz/jwt"}`, want: Malformed, detail: Typ},
		{name: "typ other", header: `{"alg":"EdDSA","kid":"k1","typ":"dpop+jwt"}`, want: Malformed, detail: Typ},
		{name: "crit", header: `{"alg":"EdDSA","kid":"k1","crit":null}`, want: Malformed, detail: Crit},
		{name: "b64", header: `{"alg":"EdDSA","kid":"k1","b64":true}`, want: Malformed, detail: Crit},
		{name: "iss null", payload: claims(`"https://issuer.example"`, "null"), want: Malformed, detail: Type},
		{name: "exp string", payload: claims("1800000060", `"1800000060"`), want: Malformed, detail: Type},
		{name: "exp beyond float64", payload: claims("1800000060", "1e400"), want: Malformed, detail: Type},
		{name: "nbf null", payload: claims(`"sub"`, `"nbf":null,"sub"`), want: Malformed, detail: Type},
		{name: "iat bool", payload: claims("1799999990", "true"), want: Malformed, detail: Type},
		{name: "aud number", payload: claims(`"us"`, "7"), want: Malformed, detail: Type},
		{name: "aud of a number", payload: claims(`"us"`, `["us",7]`), want: Malformed, detail: Type},
		{name: "aud of null", payload: claims(`"us"`, `["us",null]`), want: Malformed, detail: Type},
		{name: "aud null", payload: claims(`"us"`, `null`), want: Malformed, detail: Type},
		{name: "aud of an array", payload: claims(`"us"`, `[["us"]]`), want: Malformed, detail: Type},
		{name: "wrong type before an array", payload: claims(`"https://issuer.example","aud":"us"`, `null,"aud":["us"]`), want: Malformed, detail: Type},
		{name: "wrong type before a number", payload: claims(`1800000060`, `"","nbf":1`), want: Malformed, detail: Type},
		{name: "wrong type beats wrong algorithm", header: `{"alg":"none","kid":"k1"}`, payload: claims("1800000060", "null"), want: Malformed, detail: Type},

		{name: "alg absent", header: `{"kid":"k1"}`, want: Algorithm},
		{name: "alg none", header: `{"alg":"none","kid":"k1"}`, want: Algorithm},
		{name: "alg in other case", header: `{"alg":"eddsa","kid":"k1"}`, want: Algorithm},
		{name: "alg not accepted", header: `{"alg":"RS256","kid":"k1"}`, want: Algorithm},
		{name: "kid absent", header: `{"alg":"EdDSA"}`, want: KeyID},
		{name: "kid empty", header: `{"alg":"EdDSA","kid":""}`, want: KeyID},
		{name: "crit and typ", header: `{"alg":"EdDSA","kid":"k1","crit":["exp"],"typ":"JOSE"}`, want: Malformed, detail: Crit},
		{name: "typ JOSE", header: `{"alg":"EdDSA","kid":"k1","typ":"JOSE"}`, want: Malformed, detail: Typ},
		{name: "iss absent", payload: claims(`"iss":"https://issuer.example",`, ""), want: Issuer, detail: Absent},
		{name: "iss empty", payload: claims(`"https://issuer.example"`, `""`), want: Issuer, detail: Absent},
		{name: "iss other", payload: claims("issuer.example", "other.example"), want: Issuer},
		{name: "iss with a slash", payload: claims("issuer.example", "issuer.example/"), want: Issuer, detail: TrailingSlash},
		{name: "iss with two slashes", payload: claims("issuer.example", "issuer.example//"), want: Issuer},
		{name: "iss without its slash", payload: claims("https://issuer.example", "https://slash.example"), want: Issuer, detail: TrailingSlash},
		{name: "iss in another case", payload: claims("https://issuer.example", "https://Issuer.example"), want: Issuer, detail: Case},
		{name: "iss in another case with a slash", payload: claims("https://issuer.example", "https://Issuer.example/"), want: Issuer, detail: Case},
		{name: "iss within a longer one", payload: claims("https://issuer.example", "https://issuer.example.org"), want: Issuer},
		{name: "exp absent", payload: claims(`"exp":1800000060,`, ""), want: Expired},
		{name: "exp within leeway", payload: claims("1800000060", "1799999970.5"), fetched: true},
		{name: "exp at the end of leeway", payload: claims("1800000060", "1799999970"), want: Expired},
		{name: "exp negative", payload: claims("1800000060", "-1"), want: Expired},
		{name: "kid unknown", header: `{"alg":"EdDSA","kid":"k2"}`, want: UnknownKey, fetched: true},
		{name: "nbf within leeway", payload: claims(`"sub"`, `"nbf":1800000030,"sub"`), fetched: true},
		{name: "nbf in the future", payload: claims(`"sub"`, `"nbf":1800000031,"sub"`), want: NotYetValid, fetched: true},
		{name: "iat within leeway", payload: claims("1799999990", "1800000030"), fetched: true},
		{name: "iat in the future", payload: claims("1799999990", "1800000031"), want: NotYetValid, fetched: true},
		{name: "aud array", payload: claims(`"us"`, `["x","them"]`), fetched: true},
		{name: "aud other", payload: claims(`"us"`, `["x","y"]`), want: Audience, fetched: true},
		{name: "aud in another case", payload: claims(`"us"`, `["x","THEM"]`), want: Audience, detail: Case, fetched: true},
		{name: "aud with a slash", payload: claims(`"us"`, `["THEM","us/"]`), want: Audience, detail: TrailingSlash, fetched: true},
		{name: "aud with a slash, then another", payload: claims(`"us"`, `["us/","THEM"]`), want: Audience, detail: TrailingSlash, fetched: true},
		{name: "aud absent", payload: claims(`"aud":"us",`, ""), want: Audience, detail: Absent, fetched: true},
		{name: "aud empty", payload: claims(`"us"`, `""`), want: Audience, detail: Absent, fetched: true},
		{name: "aud empty, and another", payload: claims(`"us"`, `["","x"]`), want: Audience, fetched: true},
		{name: "aud empty array", payload: claims(`"us"`, "[]"), want: Audience, detail: Absent, fetched: true},
		{name: "aud not checked", payload: claims(`"aud":"us",`, ""), fetched: true, with: func(v *Verifier) { v.Issuers = trusted(v.Issuers["https://issuer.example"].Keys) }},
		{name: "old", payload: claims("1799999990", "1"), fetched: true},
		{name: "too old", payload: claims("1799999990", "1799999910"), want: TooOld, fetched: true, with: func(v *Verifier) { v.MaxTokenAge = time.Minute }},
		{name: "just young enough", payload: claims("1799999990", "1799999911"), fetched: true, with: func(v *Verifier) { v.MaxTokenAge = time.Minute }},
		{name: "age unknown", payload: claims(`,"iat":1799999990`, ""), want: TooOld, fetched: true, with: func(v *Verifier) { v.MaxTokenAge = 876000 * time.Hour }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := &source{}
			v := verifier(s)
			if c.with != nil {
				c.with(v)
			}
			if c.header == "" {
				c.header = goodHeader
			}
			if c.payload == "" {
				c.payload = goodClaims
			}
			got, err := v.Verify(t.Context(), "Bearer "+sign(t, c.header, c.payload))
			var r *Rejection
			errors.As(err, &r)
			switch {
			case c.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.want == "" && string(got.Claims.JSON) != c.payload:
				t.Errorf("claims are %s, want %s", got.Claims.JSON, c.payload)
			case c.want != "" && (r == nil || *r != Rejection{c.want, c.detail}):
				t.Errorf("got %v, want %v", err, reject(c.want, c.detail))
			}
			if (s.asked > 0) != c.fetched {
				t.Errorf("keys were asked for: %v, want %v", s.asked > 0, c.fetched)
			}
			agrees(t, v, "Bearer "+sign(t, c.header, c.payload), err)
		})
	}
}

func TestVerifyForm(t *testing.T) {
	t.Parallel()
	token := sign(t, goodHeader, goodClaims)
	part := strings.Split(token, ".")
	size := func(n int) string { // a token of n bytes
		for pad := n * 7 / 10; pad < n; pad++ {
			for spaces := range 3 { // for base64 has no text of 1 byte more than a multiple of 4
				s := sign(t, goodHeader+strings.Repeat(" ", spaces), strings.Replace(goodClaims, "caller", strings.Repeat("x", pad), 1))
				if len(s) == n {
					return s
				}
			}
		}
		t.Fatalf("no token of %d bytes", n)
		return ""
	}
	for _, c := range []struct {
		name, value string
		want        Detail // NoDetail is allow
	}{
		{"good", "Bearer " + token, NoDetail},
		{"scheme in any case", "bEARER " + token, NoDetail},
		{"8 KiB", "Bearer " + size(8192), NoDetail},
		{"over 8 KiB", "Bearer " + size(8193), Size},
		{"over 8 KiB, and no token", "Bearer " + strings.Repeat("\n", 8193), Size},
		{"over 8 KiB, and no scheme", size(8193), Form},
		{"nothing", "", Form},
		{"no scheme", token, Form},
		{"other scheme", "Basic " + token, Form},
		{"two spaces", "Bearer  " + token, Form},
		{"tab", "Bearer\t" + token, Form},
		{"space at the end", "Bearer " + token + " ", Form},
		{"no token", "Bearer ", Form},
		{"the scheme alone", "Bearer", Form},
		{"one segment", "Bearer " + part[0], Form},
		{"two segments", "Bearer " + part[0] + "." + part[1], Form},
		{"four segments", "Bearer " + token + ".AA", Form},
		{"empty header", "Bearer ." + part[1] + "." + part[2], Form},
		{"empty payload", "Bearer " + part[0] + ".." + part[2], Form},
		{"empty signature", "Bearer " + part[0] + "." + part[1] + ".", Form},
		{"CR within", "Bearer " + part[0] + "." + part[1] + "\r." + part[2], Form},
		{"LF within", "Bearer " + part[0] + "." + part[1] + "\n." + part[2], Form},
		{"padding", "Bearer " + token + "==", Form},
		{"standard base64", "Bearer " + part[0] + "." + part[1] + ".+/AA", Form},
		{"stray bits", "Bearer " + part[0] + "." + part[1] + "." + part[2][:85] + "B", Form},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := verifier(&source{}).Verify(t.Context(), c.value)
			agrees(t, verifier(&source{}), c.value, err)
			var r *Rejection
			if errors.As(err, &r); c.want == NoDetail && err != nil || c.want != NoDetail && (r == nil || *r != Rejection{Malformed, c.want}) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if token, ok := strings.CutPrefix(c.value, "Bearer "); ok {
				if _, err := parseCompact(token); (err == nil) != (c.want == NoDetail) {
					t.Errorf("its three parts: %v, want %q", err, c.want)
				}
			}
		})
	}
}

// The scheme is the one that is set, in any case; without one the value is the token and nothing else.
func TestScheme(t *testing.T) {
	t.Parallel()
	token := sign(t, goodHeader, goodClaims)
	for _, c := range []struct {
		scheme, value string
		allowed       bool
	}{
		{"Token", "Token " + token, true}, {"Token", "tOKEN " + token, true}, {"Token", "Bearer " + token, false}, {"Token", token, false}, {"Token", "Token  " + token, false},
		{"", token, true}, {"", "Bearer " + token, false}, {"", " " + token, false}, {"", token + " ", false}, {"", "", false},
	} {
		v := verifier(&source{})
		v.Scheme = c.scheme
		got, err := v.Verify(t.Context(), c.value)
		agrees(t, v, c.value, err)
		if (err == nil) != c.allowed || err != nil && *err.(*Rejection) != (Rejection{Malformed, Form}) {
			t.Errorf("scheme %q, value %.12q: %v", c.scheme, c.value, err)
		}
		if err == nil && (got.Claims.Encoded != strings.Split(token, ".")[1] || string(got.Claims.Find("sub")) != `"caller"` || got.Claims.Find("SUB") != nil) {
			t.Errorf("claims %+v", got.Claims)
		}
	}
}

// An audience counts for the issuer that it was given for.
func TestAudiencesOfAnIssuer(t *testing.T) {
	t.Parallel()
	v := verifier(&source{})
	v.Issuers = map[string]Trusted{
		"https://issuer.example": {Keys: &source{}, Audiences: []string{"us"}},
		"https://other.example":  {Keys: &source{}, Audiences: []string{"them"}},
		"https://any.example":    {Keys: &source{}},
	}
	for claims, allowed := range map[[2]string]bool{
		{"issuer", "us"}: true, {"issuer", "them"}: false, {"other", "them"}: true, {"other", "us"}: false, {"any", "us"}: true, {"any", "whom"}: true,
	} {
		payload := strings.NewReplacer("issuer.example", claims[0]+".example", `"us"`, `"`+claims[1]+`"`).Replace(goodClaims)
		_, err := v.Verify(t.Context(), "Bearer "+sign(t, goodHeader, payload))
		agrees(t, v, "Bearer "+sign(t, goodHeader, payload), err)
		if r, _ := err.(*Rejection); (err == nil) != allowed || err != nil && r.Reason != Audience {
			t.Errorf("%v: %v", claims, err)
		}
	}
}

func TestVerifyKeys(t *testing.T) {
	t.Parallel()
	token := "Bearer " + sign(t, goodHeader, goodClaims)
	outage := errors.New("outage")
	agrees(t, verifier(&source{err: outage}), token, outage)
	agrees(t, verifier(&source{none: true}), token, reject(UnfitKey, NoDetail))
	if _, err := verifier(&source{err: outage}).Verify(t.Context(), token); !errors.Is(err, outage) {
		t.Errorf("no keys to be had: got %v, want the key source's error", err)
	}
	var r *Rejection
	if _, err := verifier(&source{none: true}).Verify(t.Context(), token); !errors.As(err, &r) || *r != (Rejection{UnfitKey, NoDetail}) {
		t.Errorf("no key fits: got %v", err)
	}
	s := &source{}
	forged := token[:len(token)-10] + "AAAAAAAAAA"
	if _, err := verifier(s).Verify(t.Context(), forged); !errors.As(err, &r) || r.Reason != Signature || s.asked != 1 {
		t.Errorf("forged: got %v after asking %d times", err, s.asked)
	}
	for r, want := range map[Rejection]string{
		{Signature, NoDetail}: "token rejected: signature", {Malformed, Typ}: "token rejected: malformed, typ",
	} {
		if got := r.Error(); got != want {
			t.Errorf("the rejection reads %s, want %s", got, want)
		}
	}
}

func TestTokenTellsOnlyConfiguredNames(t *testing.T) {
	t.Parallel()
	v := verifier(&source{})
	got, _ := v.Verify(t.Context(), "Bearer "+sign(t, `{"alg":"HS256","kid":"k1"}`, goodClaims))
	if got.Alg != "" || got.Issuer != "" || got.Kid != "k1" {
		t.Errorf("alg not accepted: %+v", got)
	}
	got, _ = v.Verify(t.Context(), "Bearer "+sign(t, `{"alg":"Ed25519","kid":"k1"}`, `{"iss":"evil"}`))
	if got.Alg != "EdDSA" || got.Issuer != "" {
		t.Errorf("issuer not configured: %+v", got)
	}
	got, err := v.Verify(t.Context(), "Bearer "+sign(t, `{"alg":"EdDSA","kid":"k2"}`, goodClaims))
	if err == nil || got.Alg != "EdDSA" || got.Issuer != "https://issuer.example" || got.Claims.JSON != nil {
		t.Errorf("a rejected token: %+v", got)
	}
}

func TestExpires(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		age  time.Duration
		want float64
	}{{0, 1800000090}, {time.Hour, 1800000090}, {time.Minute, 1800000080}} {
		v := verifier(&source{})
		v.MaxTokenAge = c.age
		got, err := v.Verify(t.Context(), "Bearer "+sign(t, goodHeader, goodClaims))
		if err != nil || math.Abs(got.Expires-c.want) > 0 {
			t.Errorf("with MaxTokenAge %v: %v, %v, want %v", c.age, got.Expires, err, c.want)
		}
	}
}

func TestPrincipal(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ value, want string }{
		{`"caller"`, "caller"}, {`"x"`, "x"}, {`"\u0063aller"`, "caller"}, {`"` + strings.Repeat("ü", 256) + `"`, strings.Repeat("ü", 256)},
		{`"` + strings.Repeat("x", 257) + `"`, "iss"}, {`""`, "iss"}, {`7`, "iss"}, {`null`, "iss"}, {`["a"]`, "iss"},
		{`"a\"b"`, "iss"}, {`"a\\b"`, "iss"}, {`"a\nb"`, "iss"}, {`"a\u0085b"`, "iss"},
	} {
		claims, err := parseClaims([]byte(`{"iss":"iss","id":` + c.value + `}`))
		if got := claims.Principal("id"); err != nil || got != c.want {
			t.Errorf("claim %s: principal %q, want %q", c.value, got, c.want)
		}
	}
	claims, _ := parseClaims([]byte(`{"iss":"iss"}`))
	if got := claims.Principal("sub"); got != "iss" {
		t.Errorf("absent: principal %q", got)
	}
}

func FuzzParseCompact(f *testing.F) {
	f.Add("e30.e30.AA")
	f.Add(sign(f, goodHeader, goodClaims))
	f.Fuzz(func(t *testing.T, token string) {
		c, err := parseCompact(token)
		if err != nil {
			return
		}
		enc := base64.RawURLEncoding.EncodeToString
		if got := enc(c.header) + "." + enc(c.payload) + "." + enc(c.signature); got != token || c.signed != token[:strings.LastIndexByte(token, '.')] {
			t.Errorf("%q was read as %q", token, got)
		}
		parseHeader(c.header)
		parseClaims(c.payload)
	})
}

// Leeway and the clock count with all their digits, as far as float64 has them.
func TestTimesAreExact(t *testing.T) {
	t.Parallel()
	const leeway = 1500*time.Millisecond + 500*time.Microsecond
	limit := time.Unix(1_800_000_030, 0)
	for name, c := range map[string]struct {
		old, new string // in goodClaims
		with     func(*Verifier)
		turns    time.Time // when the verdict changes
		before   Reason
		after    Reason
	}{
		"exp": {`"exp":1800000060`, `"exp":1800000030`, nil, limit.Add(leeway), "", Expired},
		"nbf": {`"sub"`, `"nbf":1800000030,"sub"`, nil, limit.Add(-leeway), NotYetValid, ""},
		"iat": {`"iat":1799999990`, `"iat":1800000030`, nil, limit.Add(-leeway), NotYetValid, ""},
		"age": {`"iat":1799999990`, `"iat":1800000020`, func(v *Verifier) { v.MaxTokenAge = 10 * time.Second }, limit.Add(leeway), "", TooOld},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			payload := strings.Replace(goodClaims, c.old, c.new, 1)
			if payload == goodClaims {
				t.Fatalf("%s is not in %s", c.old, goodClaims)
			}
			token := "Bearer " + sign(t, goodHeader, payload)
			for at, want := range map[time.Duration]Reason{-time.Microsecond: c.before, 0: c.after, time.Microsecond: c.after} {
				v := verifier(&source{})
				v.Leeway = leeway
				v.Now = func() time.Time { return c.turns.Add(at) }
				if c.with != nil {
					c.with(v)
				}
				_, err := v.Verify(t.Context(), token)
				agrees(t, v, token, err)
				var r *Rejection
				if errors.As(err, &r); want == "" && err != nil || want != "" && (r == nil || r.Reason != want) {
					t.Errorf("%v from the limit: %v, want %q", at, err, want)
				}
			}
		})
	}
}
