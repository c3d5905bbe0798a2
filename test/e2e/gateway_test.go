package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"
)

// TestGateway holds what API Gateway does with a verdict: its cache, its methods, its own answers.
func TestGateway(t *testing.T) {
	inTurn(t, []testCase{
		{"one policy for all methods, one invocation", []Need{Mint, Count}, func(t *testing.T, tg *target) {
			bearer := "Bearer " + tg.mint(t, order{}).Token
			before := tg.counted(t).Invocations
			r, err := send(http.MethodGet, tg.base+"/protected", bearer)
			check(t, err)
			check(t, allowed(r))
			for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
				r, err := send(method, tg.base+"/protected", bearer)
				check(t, err)
				if err := onOtherMethods(notAllowed)(r); err != nil {
					t.Errorf("%s with the same token: %v", method, err)
				}
			}
			r, err = send(http.MethodGet, tg.base+"/protected?again=1", bearer)
			check(t, err)
			check(t, allowed(r))
			if n := tg.counted(t).Invocations - before; n != 1 {
				t.Errorf("the authorizer was invoked %d times for one token, want once", n)
			}
		}},
		{"the first method may be another", []Need{Mint, Count}, func(t *testing.T, tg *target) {
			bearer := "Bearer " + tg.mint(t, order{}).Token
			before := tg.counted(t).Invocations
			r, err := send(http.MethodDelete, tg.base+"/protected", bearer)
			check(t, err)
			check(t, onOtherMethods(notAllowed)(r))
			r, err = send(http.MethodGet, tg.base+"/protected", bearer)
			check(t, err)
			check(t, allowed(r))
			if n := tg.counted(t).Invocations - before; n != 1 {
				t.Errorf("the authorizer was invoked %d times for one token, want once", n)
			}
		}},
		{"a refusal is not cached", []Need{Mint, Count}, func(t *testing.T, tg *target) {
			token := tg.mint(t, order{Foreign: true}).Token
			before := tg.counted(t).Invocations
			for range 3 {
				r, err := tg.ask(token)
				check(t, err)
				check(t, refused(r))
			}
			if n := tg.counted(t).Invocations - before; n != 3 {
				t.Errorf("the authorizer was invoked %d times for 3 requests, want 3", n)
			}
		}},
		{"what cannot be a JWT never reaches the authorizer", []Need{Mint, Count}, func(t *testing.T, tg *target) {
			token := tg.mint(t, order{}).Token
			before := tg.counted(t).Invocations
			for _, authorization := range []string{"", "Bearer", "Bearer " + token + ".e30", "Bearer YOUR_API_KEY", "Bearer a.b.", "Bearer  " + token, "Bearer Bearer " + token} {
				r, err := send(http.MethodGet, tg.base+"/protected", authorization)
				check(t, err)
				if err := turnedAway(r); err != nil {
					t.Errorf("Authorization %q: %v", authorization, err)
				}
			}
			if n := tg.counted(t).Invocations - before; n != 0 {
				t.Errorf("the authorizer was invoked %d times, want never", n)
			}
		}},
	})
	inParallel(t, []testCase{
		{"no method without a token", nil, func(t *testing.T, tg *target) {
			for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
				r, err := send(method, tg.base+"/protected", "")
				check(t, err)
				want := turnedAway
				if method != http.MethodGet {
					want = onOtherMethods(turnedAway)
				}
				if err := want(r); err != nil {
					t.Errorf("%s: %v", method, err)
				}
			}
		}},
		{"unknown path", []Need{Mint}, func(t *testing.T, tg *target) {
			bearer := "Bearer " + tg.mint(t, order{}).Token
			for _, path := range []string{"/nothing", "/", "/protected/more", "/Protected"} {
				for _, authorization := range []string{bearer, ""} {
					r, err := send(http.MethodGet, tg.base+path, authorization)
					check(t, err)
					if err := unknown(r); err != nil {
						t.Errorf("GET %s: %v", path, err)
					}
				}
			}
		}},
		{"a token that expires while its policy is cached", []Need{Mint}, func(t *testing.T, tg *target) {
			endsWithin(t, tg, order{}.claim("exp", at(2*time.Second)), 2*time.Second)
		}},
		{"a token that grows too old while its policy is cached", []Need{Mint, MaxAge}, func(t *testing.T, tg *target) {
			endsWithin(t, tg, order{}.claim("iat", at(2*time.Second-tg.maxAge)), 2*time.Second)
		}},
	})
}

// endsWithin holds that the token is allowed now, and that its cached policy ends when the token does:
// to the second (a policy's times have no fraction), and never as anything but a 403.
func endsWithin(t *testing.T, tg *target, o order, life time.Duration) {
	t.Helper()
	before := time.Now()
	token := tg.mint(t, o).Token
	r, err := tg.ask(token)
	check(t, err)
	check(t, allowed(r))
	for r.status == 200 && time.Since(before) < life+tg.leeway+2*time.Second {
		time.Sleep(50 * time.Millisecond)
		r, err = tg.ask(token)
		check(t, err)
	}
	check(t, denied(r))
	if early := life - time.Second; time.Since(before) < early {
		t.Errorf("the policy ended after %s, the token lives %s", time.Since(before), life)
	}
	r, err = send(http.MethodPost, tg.base+"/protected", "Bearer "+token)
	check(t, err)
	check(t, onOtherMethods(denied)(r))
}

// TestZuplo holds the whole path: API key in, claims out.
func TestZuplo(t *testing.T) {
	inParallel(t, []testCase{
		{"API key in, claims out", []Need{Zuplo}, func(t *testing.T, tg *target) {
			r, err := send(http.MethodGet, tg.zuplo+"/protected", "Bearer "+tg.apiKey)
			check(t, err)
			check(t, allowed(r))
			var claims struct {
				Iss, Sub string
				Aud      any
				Exp      float64
			}
			check(t, json.Unmarshal(r.body, &claims))
			if claims.Iss != tg.issuer || claims.Sub == "" || claims.Exp < float64(at(0)) {
				t.Errorf("claims %s, want iss %q, a sub and an exp to come", r.body, tg.issuer)
			}
			if tg.audience != "" && fmt.Sprint(claims.Aud) != tg.audience && fmt.Sprint(claims.Aud) != "["+tg.audience+"]" {
				t.Errorf("claims %s, want aud %q", r.body, tg.audience)
			}
		}},
		{"again and again", []Need{Zuplo}, func(t *testing.T, tg *target) {
			for range 5 {
				r, err := send(http.MethodGet, tg.zuplo+"/protected", "Bearer "+tg.apiKey)
				check(t, err)
				check(t, allowed(r))
			}
		}},
		{"method and reply are handed through", []Need{Zuplo}, func(t *testing.T, tg *target) {
			r, err := send(http.MethodPost, tg.zuplo+"/protected", "Bearer "+tg.apiKey)
			check(t, err)
			check(t, onOtherMethods(notAllowed)(r))
		}},
		{"unknown path", []Need{Zuplo}, func(t *testing.T, tg *target) {
			r, err := send(http.MethodGet, tg.zuplo+"/nothing", "Bearer "+tg.apiKey)
			check(t, err)
			check(t, unknown(r))
		}},
		{"wrong API key", []Need{Zuplo}, func(t *testing.T, tg *target) {
			for _, authorization := range []string{"", "Bearer wrong", "Bearer " + tg.apiKey + "2", "Basic " + tg.apiKey, tg.apiKey} {
				r, err := send(http.MethodGet, tg.zuplo+"/protected", authorization)
				check(t, err)
				if r.status != 401 || isJSON(r) != nil {
					t.Errorf("Authorization %q: %s, want 401 with JSON", authorization, r)
				}
			}
		}},
		{"a token is no API key", []Need{Zuplo, Mint}, func(t *testing.T, tg *target) {
			r, err := send(http.MethodGet, tg.zuplo+"/protected", "Bearer "+tg.mint(t, order{}).Token)
			check(t, err)
			if r.status != 401 {
				t.Errorf("got %s, want 401", r)
			}
		}},
	})
}
