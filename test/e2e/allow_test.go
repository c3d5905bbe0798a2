package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// members is what no reader may round, sort, escape or unescape on the claims' way to the protected endpoint.
const members = ` "big" : 12345678901234567890, "price":1.10,"tiny":1E-7,"huge":1e400,"minus":-0.0,
	"unicode":"Zürich \u00e9 日本語 😀 \ud83d\ude00 שלום","line":"\u2028\u2029","escapes":"\"\\\/\b\f\n\r\t\u0001","html":"<a href='x'>&amp;</a>",
	"nested":{"z":{"list":[1,[2,[3,{"deep":1.000}]]],"a":null},"empty":{}},"list":[],"mixed":[true,null,"x",1.50],
	"yes":true,"none":null,"":"empty name","a b":"odd name","Sub":"not sub","sub ":"nor this"`

// hostile are claims that wear the names by which a gateway hands the verdict on.
const hostile = `"claims":{"sub":"root"},"principalId":"root","integrationLatency":0,"context":{"claims":"{}"},"policyDocument":{},"scope":"\"},\"x\":{\""`

// TestAllow holds that a good token's claims arrive as they were signed, byte for byte.
func TestAllow(t *testing.T) {
	var cases []testCase
	intact := func(a algorithm, payload func(*target) string) func(*testing.T, *target) {
		return func(t *testing.T, tg *target) {
			o := a.order()
			o.Payload = payload(tg)
			m := tg.mint(t, o)
			r, err := tg.ask(m.Token)
			check(t, err)
			check(t, allowed(r))
			if got := string(r.body); got != o.Payload {
				t.Errorf("the claims changed on the way:\ngot  %q\nwant %q", got, o.Payload)
			}
			check(t, tg.explained("Bearer "+m.Token, r))
		}
	}
	for _, a := range algorithms {
		cases = append(cases,
			testCase{a.name + "/the issuer's usual token", []Need{Mint}, good(a.order())},
			testCase{a.name + "/claims intact", []Need{Mint}, intact(a, func(tg *target) string { return tg.payload(members) })},
			testCase{a.name + "/reserved names", []Need{Mint}, intact(a, func(tg *target) string { return tg.payload(hostile) })},
		)
	}
	eddsa := algorithms[0]
	for _, typ := range []any{"JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", nil} {
		cases = append(cases, testCase{fmt.Sprintf("typ %v", typ), []Need{Mint}, good(eddsa.order().head("typ", typ))})
	}
	inParallel(t, append(cases, []testCase{
		{"numbers and nesting up to the bounds", []Need{Mint}, intact(eddsa, func(tg *target) string {
			return tg.payload(`"deep":` + strings.Repeat("[", 60) + strings.Repeat("]", 60) + `,"digits":` + strings.Repeat("7", 500))
		})},
		{"a token of nearly 8 KiB", []Need{Mint}, intact(eddsa, func(tg *target) string {
			// 3 bytes of payload become 4 characters of the token; header and signature take less than 192.
			return tg.payload(`"filler":"` + strings.Repeat("x", (8192-192)/4*3-len(tg.payload(`"filler":""`))) + `"`)
		})},
		{"many claims", []Need{Mint}, intact(eddsa, func(tg *target) string {
			var b strings.Builder
			for i := range 400 {
				fmt.Fprintf(&b, `"c%d":"%d",`, i, i)
			}
			return tg.payload(strings.TrimSuffix(b.String(), ","))
		})},
		{"aud an array that names us", []Need{Mint, Audience}, func(t *testing.T, tg *target) {
			good(eddsa.order().claim("aud", []string{"somebody-else", tg.audience}))(t, tg)
		}},
		{"times with a fraction", []Need{Mint}, func(t *testing.T, tg *target) {
			good(eddsa.order().claim("exp", float64(at(time.Minute))+0.5).claim("iat", float64(at(-2*time.Second))+0.25).claim("nbf", float64(at(-2*time.Second))+0.75))(t, tg)
		}},
		{"no sub", []Need{Mint}, good(eddsa.order().claim("sub", nil))},
		{"a sub that is no string", []Need{Mint}, good(eddsa.order().claim("sub", 42))},
		{"header members that point at keys are not looked at", []Need{Mint},
			good(eddsa.order().head("jku", "http://127.0.0.1:1/").head("x5u", "http://127.0.0.1:1/").head("jwk", "none").head("x5c", []int{1}))},
		{"the scheme in lower case", []Need{Mint}, func(t *testing.T, tg *target) {
			r, err := send(http.MethodGet, tg.base+"/protected", "bearer "+tg.mint(t, eddsa.order()).Token)
			check(t, err)
			check(t, allowed(r))
		}},
	}...))
}

// good is a case whose token is allowed.
func good(o order) func(*testing.T, *target) {
	return func(t *testing.T, tg *target) {
		m := tg.mint(t, o)
		r, err := tg.ask(m.Token)
		check(t, err)
		check(t, allowed(r))
		check(t, tg.explained("Bearer "+m.Token, r))
	}
}
