package e2e

import (
	"fmt"
	"testing"
	"time"
)

// outages are the ways in which the issuer's key set is no use, by the admin API's names.
var outages = []struct{ name, mode string }{
	{"503", "503"}, {"hang", "hang"}, {"reset", "reset"}, {"{}", "empty"}, {"keys null", "null_keys"},
	{"HTML", "html"}, {"garbage", "garbage"}, {"redirect", "redirect"}, {"huge", "huge"},
}

const (
	// answerLimit is what a fault may take: less than the 6 s at which Lambda ends the function.
	answerLimit = 5 * time.Second
	// dueLimit is what a request may take whose keys are due: 1 s for the refresh, and some for a slow machine.
	dueLimit = 2500 * time.Millisecond
	// fullLimit is the same for the request that waits in full, 3 s, because the last one did so in vain.
	fullLimit = 4 * time.Second
	// recovery is the longest back-off, and some.
	recovery = 35 * time.Second
)

// TestOutage holds that an outage is never the caller's fault, never takes long, and ends by itself.
func TestOutage(t *testing.T) {
	var cases []testCase
	for _, o := range outages {
		cases = append(cases, testCase{"cold start/" + o.name, []Need{Mint, Outage, Cold, Count}, func(t *testing.T, tg *target) { coldOutage(t, tg, o.mode) }})
	}
	// An empty set is an answer, no failure: everything was withdrawn, and nobody is let in.
	cases = append(cases, testCase{"cold start/no keys at all", []Need{Mint, Outage, Cold, Count}, func(t *testing.T, tg *target) { coldOutage(t, tg, "no_keys") }})
	cases = append(cases, testCase{"cold start/slow but in time", []Need{Mint, Outage, Cold}, func(t *testing.T, tg *target) {
		tg.warm(t)
		tg.post(t, tg.admin+"/jwks", object{"mode": "slow", "delay_ms": 1500}, nil)
		tg.recycle(t)
		check(t, tg.asks(order{}, within(answerLimit, allowed)))
	}})
	for _, o := range outages {
		cases = append(cases, testCase{"warm/" + o.name, []Need{Mint, Outage, ShortTTL}, func(t *testing.T, tg *target) { warmOutage(t, tg, o.mode) }})
	}
	cases = append(cases,
		testCase{"warm/no keys at all", []Need{Mint, Outage, ShortTTL}, func(t *testing.T, tg *target) {
			tg.warm(t)
			tg.mode(t, "no_keys")
			eventually(t, tg.ttl+time.Second, 100*time.Millisecond, func() error { return tg.asks(order{}, within(dueLimit, unavailable)) })
			check(t, tg.asks(order{Alg: "RS256"}, unavailable))
			tg.mode(t, "ok")
			recovers(t, tg)
		}},
		testCase{"keys grow too old", []Need{Mint, Outage, ShortTTL}, tooOld},
		testCase{"hanging issuer, due keys", []Need{Mint, Outage, Cold, ShortTTL}, hanging},
	)
	inTurn(t, cases)
}

// coldOutage starts the authorizer while its issuer is broken: a fault, in time, and by no restart.
func coldOutage(t *testing.T, tg *target, mode string) {
	tg.warm(t)
	tg.mode(t, mode)
	tg.recycle(t)
	starts := tg.counted(t).Starts
	check(t, tg.asks(order{}, within(answerLimit, unavailable)))
	// A bad token is refused, if at all, because of what is wrong with it: never let in, never a crash.
	check(t, tg.asks(order{Foreign: true}, within(answerLimit, unavailable)))
	check(t, tg.asks(order{}.claim("exp", 0), within(answerLimit, refused)))
	tg.mode(t, "ok")
	recovers(t, tg)
	if n := tg.counted(t).Starts - starts; n != 1 {
		t.Errorf("the authorizer was started %d times during the outage, want once: did it crash or time out?", n)
	}
}

// recovers waits for the mended issuer's keys. What is answered before that is a fault, never a refusal.
func recovers(t *testing.T, tg *target) {
	t.Helper()
	start := time.Now()
	eventually(t, recovery, 100*time.Millisecond, func() error {
		return tg.asks(order{}, func(r reply) error {
			err := allowed(r)
			if err != nil {
				check(t, within(answerLimit, unavailable)(r))
			}
			return err
		})
	})
	t.Logf("recovered after %s", time.Since(start).Round(100*time.Millisecond))
}

// warmOutage breaks the issuer of a process that has keys: when a refresh has been tried, the old ones serve.
func warmOutage(t *testing.T, tg *target, mode string) {
	tg.warm(t)
	tg.mode(t, mode)
	before, _ := tg.keyRequests(t)
	serves := func() error { return tg.asks(order{}, within(dueLimit, allowed)) }
	eventually(t, tg.ttl+time.Second, 100*time.Millisecond, func() error {
		check(t, serves())
		if n, _ := tg.keyRequests(t); n == before {
			return fmt.Errorf("no refresh was tried, though the keys are due after %s", tg.ttl)
		}
		return nil
	})
	for range 3 {
		check(t, serves())
	}
	check(t, tg.asks(order{Alg: "RS256"}, within(dueLimit, allowed)))
	check(t, tg.asks(order{Foreign: true}, within(dueLimit, refused)))
	// Whether a new kid is good nobody can know now.
	check(t, tg.asks(order{}.head("kid", "unknown"), within(answerLimit, unavailable)))
}

// tooOld outlasts JWKS_MAX_STALE: before it every request is allowed, behind it none, and then all again.
func tooOld(t *testing.T, tg *target) {
	earliest := tg.warm(t) // the keys were fetched after this …
	tg.mode(t, "503")
	latest := time.Now() // … and before this
	before, _ := tg.keyRequests(t)
	always(t, earliest.Add(tg.maxStale-300*time.Millisecond), 150*time.Millisecond, func() error { return tg.asks(order{}, within(dueLimit, allowed)) })
	time.Sleep(time.Until(latest.Add(tg.maxStale + 100*time.Millisecond)))
	always(t, time.Now().Add(500*time.Millisecond), 100*time.Millisecond, func() error { return tg.asks(order{}, within(answerLimit, unavailable)) })
	// The back-off doubles from 1 s: fetches at 1, 2, 4 (and 8) s after the keys were due.
	if n, _ := tg.keyRequests(t); n-before > 5 {
		t.Errorf("the issuer had %d requests in %s of outage, want at most 5: no back-off?", n-before, time.Since(latest))
	}
	tg.mode(t, "ok")
	recovers(t, tg)
}

// hanging holds that nobody waits long for an issuer that does not answer while old keys may serve.
func hanging(t *testing.T, tg *target) {
	fetched := tg.warm(t)
	tg.mode(t, "hang")
	before, _ := tg.keyRequests(t)
	always(t, fetched.Add(tg.maxStale-time.Second), 100*time.Millisecond, func() error { return tg.asks(order{}, within(fullLimit, allowed)) })
	if n, _ := tg.keyRequests(t); n-before < 1 || n-before > 4 {
		t.Errorf("the issuer had %d requests, want 1 to 4", n-before)
	}
	tg.mode(t, "ok")
	recovers(t, tg)
	tg.recycle(t) // a process may still wait for an answer from before
}
