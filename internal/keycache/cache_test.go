package keycache_test

import (
	"zuplo-lambda-authorizer/internal/keycache"
	"zuplo-lambda-authorizer/internal/keycache/keytest"

	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// askAtOnce asks n times for the key a and waits for all the answers.
func askAtOnce(t *testing.T, w *keytest.World, n int) {
	t.Helper()
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			if got := w.Ask(t.Context(), "a"); got != "key" {
				t.Error(got)
			}
		})
	}
	all.Wait()
}

func TestCache(t *testing.T) {
	t.Parallel()
	const ms, s, m, h = time.Millisecond, time.Second, time.Minute, time.Hour
	type step struct {
		after    time.Duration // since the step before
		issuer   string        // what it does from now on
		kid      string
		want     string
		took     time.Duration
		asked    int           // requests so far
		deadline time.Duration // of the invocation
		set      time.Duration // what the wall clock is set forward by
	}
	first := step{kid: "a", want: "key", asked: 1}
	for name, steps := range map[string][]step{
		"fresh keys: no request":   {first, {after: 5*m - 1, kid: "a", want: "key", asked: 1}},
		"due keys: one request":    {first, {after: 5 * m, kid: "a", want: "key", asked: 2}, {kid: "a", want: "key", asked: 2}},
		"age counts from sending":  {{issuer: "a", kid: "a", want: "key", asked: 1}, {after: 5 * m, kid: "a", want: "key", asked: 2}},
		"a withdrawn key":          {first, {after: 5 * m, issuer: "b", kid: "a", want: "unknown", asked: 2}},
		"an unknown kid, rotation": {first, {issuer: "a b", kid: "b", want: "key", asked: 2}, {kid: "a", want: "key", asked: 2}},
		"due and rotated, nothing of the allowance": {
			first, {after: 5 * m, issuer: "a b", kid: "b", want: "key", asked: 2},
			{kid: "x", want: "unknown", asked: 3}, {kid: "x", want: "unknown", asked: 4}, {kid: "x", want: "unknown", asked: 5}, {kid: "x", want: "unknown", asked: 5},
		},
		"back-off doubles to 30 s while old keys serve": {
			first,
			{after: 5 * m, issuer: "503", kid: "a", want: "key", asked: 2}, {kid: "a", want: "key", asked: 2},
			{after: s - 1, kid: "a", want: "key", asked: 2}, {after: 1, kid: "a", want: "key", asked: 3},
			{after: 2*s - 1, kid: "a", want: "key", asked: 3}, {after: 1, kid: "a", want: "key", asked: 4},
			{after: 4*s - 1, kid: "a", want: "key", asked: 4}, {after: 1, kid: "a", want: "key", asked: 5},
			{after: 8*s - 1, kid: "a", want: "key", asked: 5}, {after: 1, kid: "a", want: "key", asked: 6},
			{after: 16*s - 1, kid: "a", want: "key", asked: 6}, {after: 1, kid: "a", want: "key", asked: 7},
			{after: 30*s - 1, kid: "a", want: "key", asked: 7}, {after: 1, kid: "a", want: "key", asked: 8},
			{after: 30*s - 1, kid: "a", want: "key", asked: 8}, {after: 1, kid: "a", want: "key", asked: 9},
			{after: 30 * s, issuer: "a", kid: "a", want: "key", asked: 10},
			{after: 5 * m, issuer: "503", kid: "a", want: "key", asked: 11}, {after: s, kid: "a", want: "key", asked: 12}, // it began anew
		},
		"back-off without keys: fault at once": {
			{issuer: "503", kid: "a", want: "fault", asked: 1}, {issuer: "a", kid: "a", want: "fault", asked: 1},
			{after: s, kid: "a", want: "key", asked: 2},
		},
		"back-off and an unknown kid: fault at once": {
			first, {issuer: "503", kid: "b", want: "fault", asked: 2}, {issuer: "a b", kid: "b", want: "fault", asked: 2},
			{kid: "a", want: "key", asked: 2}, {after: s, kid: "b", want: "key", asked: 3},
		},
		"keys grow stale": {
			first, {after: 24 * h, issuer: "503", kid: "a", want: "key", asked: 2}, {after: 1, kid: "a", want: "fault", asked: 2},
			{after: s, kid: "a", want: "fault", asked: 3}, {after: 2 * s, issuer: "a", kid: "a", want: "key", asked: 4},
		},
		"due, it hangs: 1 s, then in full, then at growing distances": {
			first, {after: 5 * m, issuer: "hang", kid: "a", want: "key", took: s, asked: 2},
			{kid: "a", want: "key", took: 2 * s, asked: 2}, {kid: "a", want: "key", asked: 2},
			{after: s - 1, kid: "a", want: "key", asked: 2}, {after: 1, kid: "a", want: "key", took: 3 * s, asked: 3},
			{after: 2*s - 1, kid: "a", want: "key", asked: 3}, {after: 1, kid: "a", want: "key", took: 3 * s, asked: 4},
			{after: 4 * s, issuer: "a", kid: "a", want: "key", asked: 5},
			{after: 5 * m, issuer: "hang", kid: "a", want: "key", took: s, asked: 6}, // it began anew
		},
		"due, it hangs, an unknown kid joins": {
			first, {after: 5 * m, issuer: "hang", kid: "a", want: "key", took: s, asked: 2}, {kid: "b", want: "fault", took: 2 * s, asked: 2},
		},
		"due, it hangs, unknown kid: 3 s": {first, {after: 5 * m, issuer: "hang", kid: "b", want: "fault", took: 3 * s, asked: 2}},
		"no keys, it hangs: 3 s":          {{issuer: "hang", kid: "a", want: "fault", took: 3 * s, asked: 1}, {kid: "a", want: "fault", asked: 1}},
		"due, it hangs, time enough: 1 s": {first, {after: 5 * m, issuer: "hang", kid: "a", want: "key", took: s, asked: 2, deadline: 6 * s}},
		"the invocation ends before":      {{issuer: "hang", kid: "a", want: "fault", took: 1800 * time.Millisecond, asked: 1, deadline: 2 * s}},
		"no time at all":                  {{issuer: "hang", kid: "a", want: "fault", asked: 1, deadline: 150 * time.Millisecond}},
		"due, no time for a second":       {first, {after: 5 * m, issuer: "hang", kid: "a", want: "key", took: 300 * time.Millisecond, asked: 2, deadline: s / 2}},
		"allowance: 3, and one each 10 s": {
			first, {kid: "x", want: "unknown", asked: 2}, {kid: "y", want: "unknown", asked: 3}, {kid: "z", want: "unknown", asked: 4},
			{kid: "x", want: "unknown", asked: 4}, {after: 10*s - 1, issuer: "a b", kid: "b", want: "unknown", asked: 4},
			{after: 1, kid: "b", want: "key", asked: 5}, {kid: "x", want: "unknown", asked: 5},
			{after: 10 * s, kid: "x", want: "unknown", asked: 6}, {kid: "x", want: "unknown", asked: 6},
			{after: 30 * s, kid: "x", want: "unknown", asked: 7}, {kid: "x", want: "unknown", asked: 8}, {kid: "x", want: "unknown", asked: 9},
			{kid: "x", want: "unknown", asked: 9},
		},
		"one comes each 10 s, whenever one is used": {
			first, {kid: "x", want: "unknown", asked: 2}, {kid: "x", want: "unknown", asked: 3}, {kid: "x", want: "unknown", asked: 4},
			{after: 15 * s, kid: "x", want: "unknown", asked: 5}, {after: 5*s - 1, kid: "x", want: "unknown", asked: 5},
			{after: 1, kid: "x", want: "unknown", asked: 6}, {kid: "x", want: "unknown", asked: 6},
		},
		"a failed fetch is not charged": {
			first, {issuer: "503", kid: "x", want: "fault", asked: 2}, {after: s, kid: "x", want: "fault", asked: 3},
			{after: 2 * s, kid: "x", want: "fault", asked: 4}, {after: 4 * s, kid: "x", want: "fault", asked: 5},
			{after: 8 * s, issuer: "a", kid: "x", want: "unknown", asked: 6}, {kid: "x", want: "unknown", asked: 7},
			{kid: "x", want: "unknown", asked: 8}, {kid: "x", want: "unknown", asked: 8},
		},
		"only a failed fetch is not charged": {
			first, {kid: "x", want: "unknown", asked: 2}, {kid: "x", want: "unknown", asked: 3}, {issuer: "503", kid: "x", want: "fault", asked: 4},
			{after: s, issuer: "a", kid: "x", want: "unknown", asked: 5}, {kid: "x", want: "unknown", asked: 5},
		},
		"frozen whenever an answer is given, while the issuer hangs: the same": {
			first, {after: 5 * m, issuer: "hang", kid: "a", want: "key", took: s, asked: 2},
			{set: 5 * s, kid: "a", want: "key", took: 3 * s, asked: 3},
			{set: s - 1, kid: "a", want: "key", asked: 3}, {set: 1, kid: "a", want: "key", took: 3 * s, asked: 4},
			{set: 2*s - 1, kid: "a", want: "key", asked: 4}, {set: 1, kid: "a", want: "key", took: 3 * s, asked: 5},
			{set: 3 * s, issuer: "a b", kid: "b", want: "fault", asked: 5}, {set: s, kid: "b", want: "key", asked: 6},
			{after: 5 * m, issuer: "hang", kid: "a", want: "key", took: s, asked: 7},
		},
		"a failed fetch leaves the allowance whole": {
			first, {issuer: "503", kid: "x", want: "fault", asked: 2}, {after: s, issuer: "a", kid: "x", want: "unknown", asked: 3},
			{kid: "x", want: "unknown", asked: 4}, {kid: "x", want: "unknown", asked: 5}, {kid: "x", want: "unknown", asked: 5},
		},
		"everything withdrawn: fault, within the allowance": {
			first, {after: 5 * m, issuer: "empty", kid: "a", want: "fault", asked: 2}, {kid: "a", want: "fault", asked: 3},
			{kid: "a", want: "fault", asked: 4}, {kid: "a", want: "fault", asked: 5}, {kid: "a", want: "fault", asked: 5},
			{after: 10 * s, issuer: "a", kid: "a", want: "key", asked: 6},
		},
		"clock back by 30 s: fresh":          {first, {set: -30 * s, kid: "a", want: "key", asked: 1}, {after: 5*m + 30*s, kid: "a", want: "key", asked: 2}},
		"clock back by more: due":            {first, {set: -30*s - 1, kid: "a", want: "key", asked: 2}},
		"clock back by more in an outage":    {first, {set: -1 * h, issuer: "503", kid: "a", want: "key", asked: 2}},
		"clock forward by a day: stale":      {first, {set: 25 * h, issuer: "503", kid: "a", want: "fault", asked: 2}},
		"clock back by more during back-off": {first, {after: 5 * m, issuer: "503", kid: "a", want: "key", asked: 2}, {set: -1 * h, kid: "a", want: "key", asked: 3}},
		"clock back by 20 s while the allowance is used up": {
			first, {kid: "x", want: "unknown", asked: 2}, {kid: "x", want: "unknown", asked: 3}, {kid: "x", want: "unknown", asked: 4},
			{set: -20 * s, kid: "x", want: "unknown", asked: 4}, {after: 30 * s, kid: "x", want: "unknown", asked: 5},
		},
		"clock back by more while the allowance is used up": {
			first, {kid: "x", want: "unknown", asked: 2}, {kid: "x", want: "unknown", asked: 3}, {kid: "x", want: "unknown", asked: 4},
			{set: -1 * h, kid: "x", want: "unknown", asked: 5}, {kid: "x", want: "unknown", asked: 6}, // the former because keys are due
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := keytest.New("a")
				defer time.Sleep(keycache.FetchTime) // what still hangs ends by then, or the test does not
				for n, step := range steps {
					time.Sleep(step.after)
					w.Step(step.set)
					if step.issuer != "" {
						w.Issuer.Set(step.issuer)
					}
					ctx := t.Context()
					if step.deadline > 0 {
						var cancel context.CancelFunc
						ctx, cancel = context.WithTimeout(ctx, step.deadline)
						defer cancel()
					}
					start := time.Now()
					got := w.Ask(ctx, step.kid)
					took := time.Since(start)
					synctest.Wait()
					if got != step.want || took != step.took || w.Issuer.Requests() != step.asked {
						t.Fatalf("step %d, kid %s: %s after %v and %d requests, want %s after %v and %d",
							n, step.kid, got, took, w.Issuer.Requests(), step.want, step.took, step.asked)
					}
				}
			})
		})
	}
}

func TestAgeCountsFromSending(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := keytest.New("a")
		if _, ok := w.Age(); ok {
			t.Error("an age without keys")
		}
		w.Issuer.Be(func(b *keytest.Behaviour) { b.Delay = 900 * time.Millisecond })
		if got := w.Ask(t.Context(), "a"); got != "key" {
			t.Fatal(got)
		}
		if age, ok := w.Age(); age != 900*time.Millisecond || !ok {
			t.Errorf("age %v, %v", age, ok)
		}
		if log := w.Lines(); !strings.HasSuffix(log, "uri=https://issuer.example/.well-known/jwks.json keys=1 kids=[a] source=issuer outcome=ok duration_ms=900\n") {
			t.Errorf("log %s", log)
		}
		w.Step(-time.Hour)
		if age, _ := w.Age(); age != 0 {
			t.Errorf("age %v after the clock was set back", age)
		}
		w.Step(time.Hour)
		time.Sleep(5*time.Minute - 900*time.Millisecond)
		w.Ask(t.Context(), "a")
		if n := w.Issuer.Requests(); n != 2 {
			t.Errorf("%d requests, want 2: the keys were asked for 5 minutes ago", n)
		}
	})
}

// A kid that may not be asked about is rejected only if the keys in memory are young enough to know it.
func TestNotAskingWithOlderKeys(t *testing.T) {
	t.Parallel()
	for age, want := range map[time.Duration]string{10*time.Second - 1: "unknown", 10 * time.Second: "fault"} {
		synctest.Test(t, func(t *testing.T) {
			w := keytest.New("a")
			w.Ask(t.Context(), "a")
			time.Sleep(age)
			w.UseAllowance()
			if got := w.Ask(t.Context(), "x"); got != want || w.Issuer.Requests() != 1 {
				t.Errorf("keys of %v: %s after %d requests, want %s after 1", age, got, w.Issuer.Requests(), want)
			}
		})
	}
}

func TestOneFetchForAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := keytest.New("a")
		w.Issuer.Be(func(b *keytest.Behaviour) { b.Delay = 500 * time.Millisecond })
		start := time.Now()
		askAtOnce(t, w, 50)
		if n, took := w.Issuer.Requests(), time.Since(start); n != 1 || took != 500*time.Millisecond {
			t.Errorf("%d requests in %v", n, took)
		}
	})
}

// The invocation that started a fetch may end; the fetch serves the next one.
func TestFetchOutlivesItsInvocation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := keytest.New("a")
		w.Issuer.Be(func(b *keytest.Behaviour) { b.Delay = 500 * time.Millisecond })
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		if got := w.Ask(ctx, "a"); got != "fault" {
			t.Error(got)
		}
		time.Sleep(time.Second)
		if got := w.Ask(t.Context(), "a"); got != "key" || w.Issuer.Requests() != 1 {
			t.Errorf("%s after %d requests", got, w.Issuer.Requests())
		}
	})
}

// The process is frozen in the middle of a fetch: timers stand still, the wall clock goes on.
func TestFreeze(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		frozen time.Duration
		cut    bool // the connection is gone after the thaw
		asked  int  // requests after the next invocation
		want   string
	}{
		"connection dead after the thaw: asked again at once": {time.Hour, true, 2, "key"},
		"connection dead without a freeze: back-off":          {0, true, 1, "fault"},
		"a short freeze counts too":                           {450*time.Millisecond + 1, true, 2, "key"}, // 500 ms after a tick
		"a hiccup is none":                                    {450 * time.Millisecond, true, 1, "fault"},
		"the reply is too late":                               {time.Hour, false, 2, "key"},
		"the reply is in time":                                {2600 * time.Millisecond, false, 1, "key"}, // 3 s after sending
		"the reply is a little late":                          {2600*time.Millisecond + 1, false, 2, "key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := keytest.New("a")
				cut := make(chan struct{})
				w.Issuer.Be(func(b *keytest.Behaviour) { b.Delay, b.Cut = 400*time.Millisecond, cut })
				go w.Start(t.Context())
				time.Sleep(250 * time.Millisecond)
				w.Step(c.frozen)
				if c.cut {
					close(cut)
				}
				time.Sleep(200 * time.Millisecond) // the fetch has ended by now
				w.Issuer.Be(func(b *keytest.Behaviour) { b.Delay, b.Cut = 0, nil })
				if got := w.Ask(t.Context(), "a"); got != c.want || w.Issuer.Requests() != c.asked {
					t.Errorf("%s after %d requests, want %s after %d", got, w.Issuer.Requests(), c.want, c.asked)
				}
			})
		})
	}
}

// After the thaw an old fetch is still there. It is not waited for, and what it brings is not used: it may hold a key
// that was withdrawn meanwhile.
func TestFrozenFetchIsReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := keytest.New("withdrawn")
		w.Issuer.Be(func(b *keytest.Behaviour) { b.Delay, b.Deaf = 2*time.Second, true })
		go func() {
			if err := w.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "replaced") {
				t.Errorf("who waited for it got %v", err)
			}
		}()
		time.Sleep(time.Second)
		w.Step(time.Hour)
		w.Issuer.Be(func(b *keytest.Behaviour) { b.Mode, b.Delay = "a", 0 })
		if got := w.Ask(t.Context(), "a"); got != "key" || w.Issuer.Requests() != 2 {
			t.Errorf("%s after %d requests", got, w.Issuer.Requests())
		}
		w.Step(-time.Hour) // even if by the clock that is then its reply comes in time
		time.Sleep(2 * time.Second)
		if got := w.Ask(t.Context(), "withdrawn"); got != "unknown" {
			t.Errorf("withdrawn key: %s", got)
		}
	})
}

// A fetch in which the process was frozen is not joined any more: it may be too old, or its connection dead.
func TestFrozenFetchIsNotJoined(t *testing.T) {
	t.Parallel()
	for frozen, asked := range map[time.Duration]int{500 * time.Millisecond: 1, 500*time.Millisecond + 1: 2} {
		synctest.Test(t, func(t *testing.T) {
			w := keytest.New("a")
			w.Issuer.Be(func(b *keytest.Behaviour) { b.Delay = 1500 * time.Millisecond })
			go w.Start(t.Context())
			time.Sleep(time.Second) // the last tick was now
			synctest.Wait()
			w.Step(frozen)
			go w.Ask(t.Context(), "a")
			synctest.Wait()
			if n := w.Issuer.Requests(); n != asked {
				t.Errorf("after %v: %d requests, want %d", frozen, n, asked)
			}
			time.Sleep(keycache.FetchTime)
		})
	}
}

// Nothing of a fetch runs on after it.
func TestFetchLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := keytest.New("a")
		var asked atomic.Int32
		clock := w.Now
		w.Now = func() time.Time { asked.Add(1); return clock() }
		w.Ask(t.Context(), "a")
		synctest.Wait()
		before := asked.Load()
		time.Sleep(time.Second)
		if n := asked.Load() - before; n > 0 {
			t.Errorf("the clock was read %d times", n)
		}
	})
}

// Only fetches for unknown kids are charged: not one for keys that are due, whatever came of it.
func TestDueFetchesAreNotCharged(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"503", "a"} {
		synctest.Test(t, func(t *testing.T) {
			w := keytest.New("a")
			w.Ask(t.Context(), "a")
			time.Sleep(5 * time.Minute)
			w.UseAllowance()
			w.Issuer.Set(mode)
			if got := w.Ask(t.Context(), "a"); got != "key" || w.Issuer.Requests() != 2 || w.AllowanceUsed() != 3 {
				t.Errorf("%s after %d requests, %d of the allowance used", got, w.Issuer.Requests(), w.AllowanceUsed())
			}
		})
	}
}

// Nor is a fetch that was replaced.
func TestReplacedFetchIsNotCharged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := keytest.New("a")
		w.Ask(t.Context(), "a")
		w.Issuer.Set("hang")
		go w.Ask(t.Context(), "x")
		time.Sleep(time.Second)
		w.Step(5 * time.Second) // too little for the allowance to grow
		w.Issuer.Set("a")
		for n := range 3 {
			if got := w.Ask(t.Context(), "x"); got != "unknown" || w.Issuer.Requests() != 3+n {
				t.Errorf("%d: %s after %d requests", n, got, w.Issuer.Requests())
			}
			synctest.Wait()
		}
	})
}

func TestReplyAfterThreeSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := keytest.New("a")
		w.Issuer.Be(func(b *keytest.Behaviour) { b.Delay, b.Deaf = 3100*time.Millisecond+1, true })
		if err := w.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "the reply took 3.1s, at most 3s count") {
			t.Errorf("%v", err)
		}
		time.Sleep(time.Second)
		if _, ok := w.Age(); ok {
			t.Error("its keys are used")
		}
	})
}

// Lambda freezes the process as soon as it has answered. The failure of a fetch that hung must stand by then, or the
// next invocation waits as long again.
func TestWaitOutlastsAFetchThatHangs(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		slow, deadline, took time.Duration
		heard                bool
	}{
		"the failure is waited for":       {slow: 150 * time.Millisecond, took: 3150 * time.Millisecond, heard: true},
		"not for ever":                    {slow: time.Second, took: 3200 * time.Millisecond},
		"not beyond the invocation's end": {slow: 150 * time.Millisecond, deadline: 3300 * time.Millisecond, took: 3100 * time.Millisecond},
	} {
		for call, by := range map[string]func(*keytest.World, context.Context) string{
			"a token": func(w *keytest.World, ctx context.Context) string { return w.Ask(ctx, "a") },
			"the start": func(w *keytest.World, ctx context.Context) string {
				if w.Start(ctx) == nil {
					return "key"
				}
				return "fault"
			},
		} {
			t.Run(name+", "+call, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := keytest.New("hang")
					w.Issuer.Be(func(b *keytest.Behaviour) { b.Slow = c.slow })
					ctx := t.Context()
					if c.deadline > 0 {
						var cancel context.CancelFunc
						ctx, cancel = context.WithTimeout(ctx, c.deadline)
						defer cancel()
					}
					start := time.Now()
					got := by(w, ctx)
					took := time.Since(start)
					counted := w.Failures() == 1
					if got != "fault" || took != c.took || !counted {
						t.Errorf("%s after %v, counted: %v; want fault after %v", got, took, counted, c.took)
					}
					time.Sleep(time.Second) // the fetch ends
					synctest.Wait()
					if log := w.Lines(); c.heard && !strings.Contains(log, "outcome=failed duration_ms=3150") {
						t.Errorf("the log does not say why: %s", log)
					}
				})
			})
		}
	}
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := keytest.New("503")
		if err := w.Start(t.Context()); err == nil || !strings.Contains(err.Error(), keytest.URI) || !strings.Contains(err.Error(), "503") {
			t.Errorf("%v", err)
		}
		time.Sleep(time.Second)
		w.Issuer.Set("hang")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := w.Start(ctx); err == nil || time.Since(start) > time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		time.Sleep(5 * time.Second)
		w.Issuer.Set("a")
		if err := w.Start(t.Context()); err != nil {
			t.Error(err)
		}
		if got := w.Ask(t.Context(), "a"); got != "key" || w.Issuer.Requests() != 3 || w.AllowanceUsed() != 0 {
			t.Errorf("%s after %d requests, %d of the allowance used", got, w.Issuer.Requests(), w.AllowanceUsed())
		}
	})
}

// The same text is not parsed again, and nothing is said again about the keys in it.
func TestSameReply(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := keytest.New("a b")
		w.Ask(t.Context(), "a")
		set := w.Set()
		time.Sleep(5 * time.Minute)
		w.Ask(t.Context(), "a")
		if w.Set() != set || w.Issuer.Requests() != 2 {
			t.Errorf("parsed again; %d requests", w.Issuer.Requests())
		}
		time.Sleep(5 * time.Minute)
		w.Issuer.Set("a")
		w.Ask(t.Context(), "a")
		if w.Set() == set {
			t.Error("another text is taken for the same")
		}
	})
}

// However many stop waiting together, the next one waits in full, and what comes of that counts once.
func TestGivingUpTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := keytest.New("a")
		w.Ask(t.Context(), "a")
		w.Issuer.Set("hang")
		time.Sleep(5 * time.Minute)
		askAtOnce(t, w, 10)
		w.Step(4 * time.Second) // frozen at once
		start := time.Now()
		askAtOnce(t, w, 10)
		if time.Since(start) != keycache.FetchTime || w.Failures() != 1 || w.Issuer.Requests() != 3 {
			t.Errorf("after %v and %d requests %d failures", time.Since(start), w.Issuer.Requests(), w.Failures())
		}
	})
}

// A full wait that ends before its fetch counts as a failure, and the fetch's own failure does not count again.
func TestAFullWaitIsCountedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := keytest.New("hang")
		for range 2 { // the second one joins
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if got := w.Ask(ctx, "a"); got != "fault" || w.Failures() != 1 {
				t.Errorf("%s, %d failures", got, w.Failures())
			}
			cancel()
		}
		time.Sleep(keycache.FetchTime)
		if w.Failures() != 1 || w.Issuer.Requests() != 1 {
			t.Errorf("%d failures of %d requests", w.Failures(), w.Issuer.Requests())
		}
	})
}

// A withdrawn key passes no longer than the second request while the issuer answers within 2.5 s, even if the process is
// frozen after each answer.
func TestSlowIssuerIsHeard(t *testing.T) {
	t.Parallel()
	for _, delay := range []time.Duration{1500 * time.Millisecond, 2500 * time.Millisecond} {
		for _, pause := range []time.Duration{0, time.Millisecond, 400 * time.Millisecond, time.Second, 1900 * time.Millisecond, 5 * time.Second, time.Hour} {
			synctest.Test(t, func(t *testing.T) {
				w := keytest.New("a")
				w.Ask(t.Context(), "a")
				w.Issuer.Be(func(b *keytest.Behaviour) { b.Mode, b.Delay = "b", delay })
				time.Sleep(5 * time.Minute)
				first := w.Ask(t.Context(), "a")
				w.Step(pause)
				start := time.Now()
				second := w.Ask(t.Context(), "a")
				if first != "key" || second != "unknown" || time.Since(start) > 2*keycache.FetchTime {
					t.Errorf("issuer of %v, frozen for %v: %s, then %s after %v", delay, pause, first, second, time.Since(start))
				}
				time.Sleep(keycache.FetchTime)
			})
		}
	}
}

// Keys that grow stale while younger ones are waited for end that wait while they may serve.
func TestKeysGrowStaleInAWait(t *testing.T) {
	t.Parallel()
	for left, took := range map[time.Duration]time.Duration{
		700 * time.Millisecond: 500 * time.Millisecond, 200 * time.Millisecond: 0, 0: 0, 2 * time.Second: time.Second,
	} {
		synctest.Test(t, func(t *testing.T) {
			w := keytest.New("a")
			w.Ask(t.Context(), "a")
			w.Issuer.Set("hang")
			time.Sleep(w.MaxStale - left)
			for range 2 { // the second one would wait in full
				start := time.Now()
				if got := w.Ask(t.Context(), "a"); got != "key" || time.Since(start) != took {
					t.Errorf("%v before they are stale: %s after %v, want %v", left, got, time.Since(start), took)
				}
				if took > 0 {
					break
				}
			}
			time.Sleep(keycache.FetchTime)
		})
	}
	synctest.Test(t, func(t *testing.T) { // a full wait
		w := keytest.New("a")
		w.Ask(t.Context(), "a")
		w.Issuer.Set("hang")
		time.Sleep(w.MaxStale - 3*time.Second)
		w.Ask(t.Context(), "a")
		start := time.Now()
		if got := w.Ask(t.Context(), "a"); got != "key" || time.Since(start) != 1800*time.Millisecond {
			t.Errorf("%s after %v", got, time.Since(start))
		}
		time.Sleep(keycache.FetchTime)
	})
}

// A fetch that was sent before the wait began is no proof that a kid does not exist.
func TestProofIsSentAfterTheWaitBegan(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kid  string
		want string
		took time.Duration
	}{
		"a kid published since then": {"b", "key", 1510 * time.Millisecond},
		"a kid that nobody has":      {"x", "unknown", 1510 * time.Millisecond},
		"a kid withdrawn since then": {"old", "unknown", 1510 * time.Millisecond},
		"a kid that it brings":       {"a", "key", 1500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := keytest.New("a old")
				w.Ask(t.Context(), "a")
				time.Sleep(5 * time.Minute)
				w.Issuer.Be(func(b *keytest.Behaviour) { b.Mode, b.Delay = "a", 2500*time.Millisecond })
				w.Ask(t.Context(), "a")
				w.Issuer.Be(func(b *keytest.Behaviour) { b.Mode, b.Delay = "a b", 10*time.Millisecond })
				start := time.Now()
				if got := w.Ask(t.Context(), c.kid); got != c.want || time.Since(start) != c.took {
					t.Errorf("%s after %v", got, time.Since(start))
				}
			})
		})
	}
}

// While no key may serve, the back-off ends at 10 s.
func TestBackoffWithoutKeys(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		mode     string
		maxStale time.Duration
	}{
		"none ever":                  {"503", time.Hour},
		"stale":                      {"a", 2 * time.Minute},
		"everything withdrawn, then": {"empty", time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := keytest.New(c.mode)
				w.TTL, w.MaxStale = time.Minute, c.maxStale
				w.Ask(t.Context(), "a")
				w.Issuer.Set("503")
				for start := time.Now(); time.Since(start) < 5*time.Minute; time.Sleep(time.Second) {
					w.Ask(t.Context(), "a")
				}
				asked := w.Issuer.Asked()
				if n := len(asked); asked[n-1].Sub(asked[n-2]) != 10*time.Second {
					t.Errorf("asked again after %v", asked[n-1].Sub(asked[n-2]))
				}
				w.Issuer.Set("a")
				start := time.Now()
				for w.Ask(t.Context(), "a") != "key" {
					time.Sleep(100 * time.Millisecond)
				}
				if took := time.Since(start); took > 10*time.Second {
					t.Errorf("good again only after %v", took)
				}
			})
		})
	}
}

// The back-off ends up to a fifth earlier, at random.
func TestBackoffIsSpread(t *testing.T) {
	t.Parallel()
	for spread, holds := range map[float64]time.Duration{0: time.Second, 0.5: 900 * time.Millisecond, 0.999999: 800 * time.Millisecond} {
		var b keycache.Backoff
		now := time.Now().Round(0)
		b.Start(now, spread)
		if !b.Holds(now.Add(holds-time.Millisecond), time.Minute) || b.Holds(now.Add(holds+time.Millisecond), time.Minute) {
			t.Errorf("at %v it does not hold for %v", spread, holds)
		}
	}
}

// It holds however many failures there were.
func TestBackoffOfManyFailures(t *testing.T) {
	t.Parallel()
	var b keycache.Backoff
	now := time.Now().Round(0)
	for n := range 100 {
		b.Start(now, 0)
		if !b.Holds(now.Add(time.Second-1), time.Minute) || b.Holds(now.Add(time.Minute), time.Minute) {
			t.Errorf("after %d failures it does not hold for 1 s to 1 min", n+1)
		}
	}
}

// A machine that is suspended does not advance the clock that Go prefers for differences.
func TestWallClock(t *testing.T) {
	t.Parallel()
	w := keytest.New("a")
	if now := w.Clock().String(); strings.Contains(now, " m=") {
		t.Errorf("%s has a monotonic reading", now)
	}
}

// A clock that is set while a fetch is under way does not keep its keys from being used and, in time, renewed.
func TestClockStepsInAFlight(t *testing.T) {
	t.Parallel()
	for _, step := range []time.Duration{-time.Hour, -31 * time.Second, -20 * time.Second, 20 * time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			w := keytest.New("a")
			w.Issuer.Be(func(b *keytest.Behaviour) { b.Delay = time.Second })
			first := make(chan string, 1)
			go func() { first <- w.Ask(t.Context(), "a") }()
			time.Sleep(500 * time.Millisecond)
			w.Step(step)
			if step < 0 {
				if got := <-first; got != "key" { // nobody knows that it is too late
					t.Errorf("set by %v, the one that waited: %s", step, got)
				}
			}
			if got := w.Ask(t.Context(), "a"); got != "key" {
				t.Errorf("set by %v: %s", step, got)
			}
			w.Issuer.Set("b")
			time.Sleep(5 * time.Minute)
			w.Ask(t.Context(), "b")
			if got := w.Ask(t.Context(), "a"); got != "unknown" {
				t.Errorf("set by %v, 5 minutes later: %s", step, got)
			}
		})
	}
}

// A fetch that was replaced changes nothing any more, even if it is given up or fails later.
func TestReplacedFetchFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := keytest.New("hang")
		w.Issuer.Be(func(b *keytest.Behaviour) { b.Slow = 4 * time.Second })
		go w.Ask(t.Context(), "a")
		time.Sleep(time.Second)
		w.Step(time.Hour)
		w.Issuer.Set("a")
		if got := w.Ask(t.Context(), "a"); got != "key" {
			t.Error(got)
		}
		time.Sleep(2500 * time.Millisecond) // who waited for it has given up
		if w.Failures() != 0 {
			t.Errorf("%d failures", w.Failures())
		}
		time.Sleep(5 * time.Second)
		if w.Failures() != 0 || strings.Count(w.Lines(), "outcome=failed") != 0 {
			t.Errorf("%d failures\n%s", w.Failures(), w.Lines())
		}
	})
}

// The next one is waited for in full after a search that died of a freeze, whether it was replaced or ended by itself.
func TestSearchWithoutAnAnswerLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, ends := range map[string]bool{"replaced": false, "its connection is dead": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := keytest.New("a")
				w.Ask(t.Context(), "a")
				cut := make(chan struct{})
				w.Issuer.Be(func(b *keytest.Behaviour) { b.Mode, b.Cut = "hang", cut })
				go w.Ask(t.Context(), "x")
				time.Sleep(time.Second)
				w.Step(5 * time.Minute)
				if ends {
					close(cut)
					synctest.Wait()
				}
				w.Issuer.Be(func(b *keytest.Behaviour) { b.Mode, b.Delay, b.Cut = "b", 2*time.Second, nil })
				if got := w.Ask(t.Context(), "a"); got != "unknown" {
					t.Error(got)
				}
			})
		})
	}
}

// A before does something first, and is a Source that then asks another.
type before struct {
	keycache.Source
	do func(context.Context, keycache.Want) (keycache.Found, error, bool) // true: that is it
}

func (b before) Find(ctx context.Context, w keycache.Want) (keycache.Found, error) {
	if found, err, ended := b.do(ctx, w); ended {
		return found, err
	}
	return b.Source.Find(ctx, w)
}

// A request that joins a search that does not ask the issuer is not told what it told the request that began it.
func TestJoiningASearch(t *testing.T) {
	t.Parallel()
	slow := func(context.Context, keycache.Want) (keycache.Found, error, bool) {
		time.Sleep(100 * time.Millisecond)
		return keycache.Found{}, nil, false
	}
	for name, c := range map[string]struct {
		age   time.Duration // of the keys when the search begins, 50 ms before it is joined
		spent bool          // no fetch for unknown kids is allowed
		do    func(context.Context, keycache.Want) (keycache.Found, error, bool)
		asked int
	}{
		"a copy of other kids came": {time.Minute, false, func(ctx context.Context, w keycache.Want) (keycache.Found, error, bool) {
			time.Sleep(100 * time.Millisecond)
			set, err := w.Judge(keytest.Text("a", "x"))
			found := keycache.Found{Set: set, Sent: w.Sent.Add(time.Second)}
			return found, err, err == nil && w.Enough(set, found.Sent)
		}, 2},
		"it was for less: keys that have come to be due": {5*time.Minute - 20*time.Millisecond, true, slow, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := keytest.New("a")
				w.Ask(t.Context(), "a")
				time.Sleep(c.age)
				w.Source = before{w.Source, c.do}
				if c.spent {
					w.UseAllowance()
				}
				w.Issuer.Set("a b")
				go w.Ask(t.Context(), "x")
				time.Sleep(50 * time.Millisecond)
				if got := w.Ask(t.Context(), "b"); got != "key" || w.Issuer.Requests() != c.asked {
					t.Errorf("%s after %d requests", got, w.Issuer.Requests())
				}
			})
		})
	}
}

// A request that joins a fetch that fails is told of it, and does not begin a search that may not ask.
func TestJoiningAFetchThatFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := keytest.New("a")
		w.Ask(t.Context(), "a")
		time.Sleep(5 * time.Minute)
		w.Issuer.Be(func(b *keytest.Behaviour) { b.Mode, b.Delay = "503", 500*time.Millisecond })
		go w.Ask(t.Context(), "a")
		time.Sleep(100 * time.Millisecond)
		if _, _, err := w.Keys(t.Context(), "b", "EdDSA"); err == nil || !strings.Contains(err.Error(), "503") {
			t.Errorf("%v", err)
		}
	})
}

// A Source that panics, while it searches or while it shares, ends its search and nothing else.
func TestSourcePanics(t *testing.T) {
	t.Parallel()
	for name, find := range map[string]func(context.Context, keycache.Want) (keycache.Found, error, bool){
		"searching for keys": func(context.Context, keycache.Want) (keycache.Found, error, bool) { panic("c2VjcmV0") },
		"sharing keys": func(context.Context, keycache.Want) (keycache.Found, error, bool) {
			return keycache.Found{Share: func(context.Context, keycache.Outcome) { panic("c2VjcmV0") }}, keycache.ErrLeased, true
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := keytest.New("a")
			issuer := w.Source
			w.Source = before{issuer, find}
			if got, log := w.Ask(t.Context(), "a"), w.Lines(); got != "fault" || !strings.Contains(log, "panic while "+name) || !strings.Contains(log, "stack=") {
				t.Errorf("%s: %s\n%s", name, got, log)
			}
			w.Source = issuer
			if got := w.Ask(t.Context(), "a"); got != "key" || strings.Contains(w.Lines(), "c2VjcmV0") {
				t.Errorf("%s, then: %s\n%s", name, got, w.Lines())
			}
		})
	}
}

// A reply that is too old to serve as soon as it is there proves nothing of a kid that it holds.
func TestReplyTooOldToServe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := keytest.New("a")
		w.TTL, w.MaxStale = time.Second, time.Second
		w.Issuer.Be(func(b *keytest.Behaviour) { b.Delay = 1500 * time.Millisecond })
		if got := w.Ask(t.Context(), "a"); got != "fault" || w.Issuer.Requests() != 1 {
			t.Errorf("%s after %d requests", got, w.Issuer.Requests())
		}
	})
}

// However those who wait and the end of a search fall together, there is one search for all.
func TestOneFetchHoweverTheyCome(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := keytest.New("a")
		for round := 1; round <= 3000; round++ {
			askAtOnce(t, w, 8)
			if n := w.Issuer.Requests(); n != round {
				t.Fatalf("round %d: %d requests", round, n)
			}
			w.Step(5 * time.Minute)
		}
	})
}
