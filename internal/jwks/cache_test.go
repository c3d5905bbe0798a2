package jwks

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const uri = "https://issuer.example/.well-known/jwks.json"

// An issuer answers requests as its mode says: "503", "hang", "empty", or the kids that it publishes, after its delay.
type issuer struct {
	mu    sync.Mutex
	mode  string
	delay time.Duration
	deaf  bool          // it answers even when nobody waits any more
	slow  time.Duration // how long it takes to notice that nobody waits any more
	cut   chan struct{} // closed: hanging requests end with a reset
	asked int
}

func (i *issuer) set(mode string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.mode = mode
}

func (i *issuer) requests() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked
}

func (i *issuer) RoundTrip(r *http.Request) (*http.Response, error) {
	i.mu.Lock()
	i.asked++
	mode, delay, deaf, slow, cut := i.mode, i.delay, i.deaf, i.slow, i.cut
	i.mu.Unlock()
	done := r.Context().Done()
	if deaf {
		done = nil
	}
	wait := time.After(delay)
	if mode == "hang" {
		wait = nil
	}
	select {
	case <-wait:
	case <-cut:
		return nil, errors.New("connection reset")
	case <-done:
		time.Sleep(slow)
		return nil, r.Context().Err()
	}
	status, body := 200, ""
	switch mode {
	case "503":
		status = 503
	case "empty":
		body = `{"keys":[]}`
	default:
		var keys []any
		for kid := range strings.FieldsSeq(mode) {
			keys = append(keys, with(public("Ed25519"), map[string]any{"kid": kid}))
		}
		body = string(setOf(keys...))
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

// A world is a cache, its issuer, and a wall clock that can be set apart from the clock that timers run by.
type world struct {
	*Cache
	issuer *issuer
	step   atomic.Int64 // what the wall clock was set forward by
	log    *bytes.Buffer
}

func newWorld(mode string) *world {
	w := &world{issuer: &issuer{mode: mode, cut: make(chan struct{})}, log: &bytes.Buffer{}}
	text := slog.New(slog.NewTextHandler(w.log, nil))
	w.Cache = &Cache{
		URI: uri, Client: &http.Client{Transport: w.issuer}, TTL: 5 * time.Minute, MaxStale: 24 * time.Hour,
		Now: func() time.Time { return time.Now().Add(time.Duration(w.step.Load())) },
		Log: text, Fetches: text,
	}
	return w
}

// ask says what came of a kid: "key", "unknown" or "fault".
func (w *world) ask(ctx context.Context, kid string) string {
	fit, known, err := w.Verifiers(ctx, kid, "EdDSA")
	switch {
	case err != nil && (known || len(fit) > 0):
		return "fault and an answer"
	case err != nil && !strings.Contains(err.Error(), uri):
		return "fault without the URI: " + err.Error()
	case err != nil:
		return "fault"
	case !known && len(fit) > 0:
		return "unknown and a key"
	case !known:
		return "unknown"
	case len(fit) == 0:
		return "known without a key"
	}
	return "key"
}

// askAtOnce asks n times for the key a and waits for all the answers.
func (w *world) askAtOnce(t *testing.T, n int) {
	t.Helper()
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			if got := w.ask(t.Context(), "a"); got != "key" {
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
		"due and rotated, no turn": {
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
		"due, it hangs: 1 s, then nobody waits": {
			first, {after: 5 * m, issuer: "hang", kid: "a", want: "key", took: s, asked: 2}, {kid: "a", want: "key", asked: 2},
			{after: 1900 * ms, kid: "a", want: "key", took: 100 * ms, asked: 2}, {after: 200 * ms, kid: "a", want: "key", asked: 2},
			{after: 900 * ms, kid: "a", want: "key", took: s, asked: 3},
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
		"turns: 3, and one each 10 s": {
			first, {kid: "x", want: "unknown", asked: 2}, {kid: "y", want: "unknown", asked: 3}, {kid: "z", want: "unknown", asked: 4},
			{kid: "x", want: "unknown", asked: 4}, {after: 10*s - 1, issuer: "a b", kid: "b", want: "unknown", asked: 4},
			{after: 1, kid: "b", want: "key", asked: 5}, {kid: "x", want: "unknown", asked: 5},
			{after: 10 * s, kid: "x", want: "unknown", asked: 6}, {kid: "x", want: "unknown", asked: 6},
			{after: 30 * s, kid: "x", want: "unknown", asked: 7}, {kid: "x", want: "unknown", asked: 8}, {kid: "x", want: "unknown", asked: 9},
			{kid: "x", want: "unknown", asked: 9},
		},
		"a turn comes each 10 s, whenever it is taken": {
			first, {kid: "x", want: "unknown", asked: 2}, {kid: "x", want: "unknown", asked: 3}, {kid: "x", want: "unknown", asked: 4},
			{after: 15 * s, kid: "x", want: "unknown", asked: 5}, {after: 5*s - 1, kid: "x", want: "unknown", asked: 5},
			{after: 1, kid: "x", want: "unknown", asked: 6}, {kid: "x", want: "unknown", asked: 6},
		},
		"a failed fetch gives its turn back": {
			first, {issuer: "503", kid: "x", want: "fault", asked: 2}, {after: s, kid: "x", want: "fault", asked: 3},
			{after: 2 * s, kid: "x", want: "fault", asked: 4}, {after: 4 * s, kid: "x", want: "fault", asked: 5},
			{after: 8 * s, issuer: "a", kid: "x", want: "unknown", asked: 6}, {kid: "x", want: "unknown", asked: 7},
			{kid: "x", want: "unknown", asked: 8}, {kid: "x", want: "unknown", asked: 8},
		},
		"a failed fetch gives back its own turn only": {
			first, {kid: "x", want: "unknown", asked: 2}, {kid: "x", want: "unknown", asked: 3}, {issuer: "503", kid: "x", want: "fault", asked: 4},
			{after: s, issuer: "a", kid: "x", want: "unknown", asked: 5}, {kid: "x", want: "unknown", asked: 5},
		},
		"frozen whenever an answer is given, while the issuer hangs: the waits grow rare": {
			first, {after: 5 * m, issuer: "hang", kid: "a", want: "key", took: s, asked: 2},
			{set: 900 * ms, kid: "a", want: "key", asked: 2},
			{set: 3 * s, kid: "a", want: "key", took: s, asked: 3},
			{set: 1900 * ms, kid: "a", want: "key", asked: 3},
			{set: 3 * s, kid: "a", want: "key", took: s, asked: 4},
			{set: 3900 * ms, kid: "a", want: "key", asked: 4},
			{set: s, issuer: "a b", kid: "b", want: "key", asked: 5}, // who must know does not hold back, and mends it
			{after: 5 * m, issuer: "hang", kid: "a", want: "key", took: s, asked: 6},
			{set: 900 * ms, kid: "a", want: "key", asked: 6},
			{set: 3 * s, kid: "a", want: "key", took: s, asked: 7},
		},
		"a failed fetch leaves all turns": {
			first, {issuer: "503", kid: "x", want: "fault", asked: 2}, {after: s, issuer: "a", kid: "x", want: "unknown", asked: 3},
			{kid: "x", want: "unknown", asked: 4}, {kid: "x", want: "unknown", asked: 5}, {kid: "x", want: "unknown", asked: 5},
		},
		"everything withdrawn: fault, within the turns": {
			first, {after: 5 * m, issuer: "empty", kid: "a", want: "fault", asked: 2}, {kid: "a", want: "fault", asked: 3},
			{kid: "a", want: "fault", asked: 4}, {kid: "a", want: "fault", asked: 5}, {kid: "a", want: "fault", asked: 5},
			{after: 10 * s, issuer: "a", kid: "a", want: "key", asked: 6},
		},
		"clock back by 30 s: fresh":          {first, {set: -30 * s, kid: "a", want: "key", asked: 1}, {after: 5*m + 30*s, kid: "a", want: "key", asked: 2}},
		"clock back by more: due":            {first, {set: -30*s - 1, kid: "a", want: "key", asked: 2}},
		"clock back by more in an outage":    {first, {set: -1 * h, issuer: "503", kid: "a", want: "key", asked: 2}},
		"clock forward by a day: stale":      {first, {set: 25 * h, issuer: "503", kid: "a", want: "fault", asked: 2}},
		"clock back by more during back-off": {first, {after: 5 * m, issuer: "503", kid: "a", want: "key", asked: 2}, {set: -1 * h, kid: "a", want: "key", asked: 3}},
		"clock back by 20 s while turns are used up": {
			first, {kid: "x", want: "unknown", asked: 2}, {kid: "x", want: "unknown", asked: 3}, {kid: "x", want: "unknown", asked: 4},
			{set: -20 * s, kid: "x", want: "unknown", asked: 4}, {after: 30 * s, kid: "x", want: "unknown", asked: 5},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld("a")
				defer time.Sleep(fetchTime) // what still hangs ends by then, or the test does not
				for n, step := range steps {
					time.Sleep(step.after)
					w.step.Add(int64(step.set))
					if step.issuer != "" {
						w.issuer.set(step.issuer)
					}
					ctx := t.Context()
					if step.deadline > 0 {
						var cancel context.CancelFunc
						ctx, cancel = context.WithTimeout(ctx, step.deadline)
						defer cancel()
					}
					start := time.Now()
					got := w.ask(ctx, step.kid)
					took := time.Since(start)
					synctest.Wait()
					if got != step.want || took != step.took || w.issuer.requests() != step.asked {
						t.Fatalf("step %d, kid %s: %s after %v and %d requests, want %s after %v and %d",
							n, step.kid, got, took, w.issuer.requests(), step.want, step.took, step.asked)
					}
				}
			})
		})
	}
}

// The monotonic clock stands still, or not, while the machine sleeps: ages must not come from it.
func TestWallClock(t *testing.T) {
	t.Parallel()
	c := &Cache{Now: time.Now}
	if now := c.now().String(); strings.Contains(now, " m=") {
		t.Errorf("%s has a monotonic reading", now)
	}
}

func TestAgeCountsFromSending(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("a")
		if _, ok := w.Age(); ok {
			t.Error("an age without keys")
		}
		w.issuer.delay = 900 * time.Millisecond
		if got := w.ask(t.Context(), "a"); got != "key" {
			t.Fatal(got)
		}
		if age, ok := w.Age(); age != 900*time.Millisecond || !ok {
			t.Errorf("age %v, %v", age, ok)
		}
		if log := w.log.String(); !strings.HasSuffix(log, "keys=1 uri=https://issuer.example/.well-known/jwks.json outcome=ok duration_ms=900\n") {
			t.Errorf("log %s", log)
		}
		w.step.Add(-int64(time.Hour))
		if age, _ := w.Age(); age != 0 {
			t.Errorf("age %v after the clock was set back", age)
		}
		w.step.Store(0)
		time.Sleep(5*time.Minute - 900*time.Millisecond)
		w.ask(t.Context(), "a")
		if n := w.issuer.requests(); n != 2 {
			t.Errorf("%d requests, want 2: the keys were asked for 5 minutes ago", n)
		}
	})
}

// A kid that may not be asked about is rejected only if the keys in memory are young enough to know it.
func TestNotAskingWithOlderKeys(t *testing.T) {
	t.Parallel()
	for age, want := range map[time.Duration]string{10*time.Second - 1: "unknown", 10 * time.Second: "fault"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld("a")
			w.ask(t.Context(), "a")
			time.Sleep(age)
			w.turns = turns{used: askBurst, last: w.now()}
			if got := w.ask(t.Context(), "x"); got != want || w.issuer.requests() != 1 {
				t.Errorf("keys of %v: %s after %d requests, want %s after 1", age, got, w.issuer.requests(), want)
			}
		})
	}
}

func TestOneFetchForAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("a")
		w.issuer.delay = 500 * time.Millisecond
		start := time.Now()
		w.askAtOnce(t, 50)
		if n, took := w.issuer.requests(), time.Since(start); n != 1 || took != 500*time.Millisecond {
			t.Errorf("%d requests in %v", n, took)
		}
	})
}

// The invocation that started a fetch may end; the fetch serves the next one.
func TestFetchOutlivesItsInvocation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("a")
		w.issuer.delay = 500 * time.Millisecond
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		if got := w.ask(ctx, "a"); got != "fault" {
			t.Error(got)
		}
		time.Sleep(time.Second)
		if got := w.ask(t.Context(), "a"); got != "key" || w.issuer.requests() != 1 {
			t.Errorf("%s after %d requests", got, w.issuer.requests())
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
				w := newWorld("a")
				w.issuer.delay = 400 * time.Millisecond
				go w.Refresh(t.Context())
				time.Sleep(250 * time.Millisecond)
				w.step.Add(int64(c.frozen))
				if c.cut {
					close(w.issuer.cut)
				}
				time.Sleep(200 * time.Millisecond) // the fetch has ended by now
				w.issuer.mu.Lock()
				w.issuer.delay, w.issuer.cut = 0, nil
				w.issuer.mu.Unlock()
				if got := w.ask(t.Context(), "a"); got != c.want || w.issuer.requests() != c.asked {
					t.Errorf("%s after %d requests, want %s after %d", got, w.issuer.requests(), c.want, c.asked)
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
		w := newWorld("withdrawn")
		w.issuer.delay, w.issuer.deaf = 2*time.Second, true
		go func() {
			if err := w.Refresh(t.Context()); err == nil || !strings.Contains(err.Error(), "replaced") {
				t.Errorf("who waited for it got %v", err)
			}
		}()
		time.Sleep(time.Second)
		w.step.Add(int64(time.Hour))
		w.issuer.mu.Lock()
		w.issuer.mode, w.issuer.delay = "a", 0
		w.issuer.mu.Unlock()
		if got := w.ask(t.Context(), "a"); got != "key" || w.issuer.requests() != 2 {
			t.Errorf("%s after %d requests", got, w.issuer.requests())
		}
		w.step.Store(0) // even if by the clock that is then its reply comes in time
		time.Sleep(2 * time.Second)
		if got := w.ask(t.Context(), "withdrawn"); got != "unknown" {
			t.Errorf("withdrawn key: %s", got)
		}
	})
}

// A fetch that was sent 3 s ago by the wall clock is not joined any more.
func TestAgeOfAFetchThatIsJoined(t *testing.T) {
	t.Parallel()
	for frozen, asked := range map[time.Duration]int{2*time.Second - 1: 1, 2 * time.Second: 2} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld("a")
			w.issuer.delay = 1500 * time.Millisecond
			go w.Refresh(t.Context())
			time.Sleep(time.Second)
			w.step.Add(int64(frozen))
			go w.ask(t.Context(), "a")
			synctest.Wait()
			if n := w.issuer.requests(); n != asked {
				t.Errorf("after %v: %d requests, want %d", frozen+time.Second, n, asked)
			}
			time.Sleep(fetchTime)
		})
	}
}

// Nothing of a fetch runs on after it.
func TestFetchLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("a")
		var asked atomic.Int32
		clock := w.Now
		w.Now = func() time.Time { asked.Add(1); return clock() }
		w.ask(t.Context(), "a")
		synctest.Wait()
		before := asked.Load()
		time.Sleep(time.Second)
		if n := asked.Load() - before; n > 0 {
			t.Errorf("the clock was read %d times", n)
		}
	})
}

// A fetch that nobody's unknown kid caused took no turn, so it gives none back.
func TestFailureOfADueFetchGivesNoTurnBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("a")
		w.ask(t.Context(), "a")
		time.Sleep(5 * time.Minute)
		w.turns = turns{used: askBurst, last: w.now()}
		w.issuer.set("503")
		if got := w.ask(t.Context(), "a"); got != "key" || w.issuer.requests() != 2 || w.turns.used != askBurst {
			t.Errorf("%s after %d requests, %d turns used", got, w.issuer.requests(), w.turns.used)
		}
	})
}

// The turn of a fetch that was replaced comes back, too.
func TestReplacedFetchGivesItsTurnBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("a")
		w.ask(t.Context(), "a")
		w.issuer.set("hang")
		go w.ask(t.Context(), "x")
		time.Sleep(time.Second)
		w.step.Add(int64(5 * time.Second)) // too little for a turn of its own to come back
		w.issuer.set("a")
		for n := range 3 {
			if got := w.ask(t.Context(), "x"); got != "unknown" || w.issuer.requests() != 3+n {
				t.Errorf("%d: %s after %d requests", n, got, w.issuer.requests())
			}
			synctest.Wait()
		}
	})
}

func TestReplyAfterThreeSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("a")
		w.issuer.delay, w.issuer.deaf = 3100*time.Millisecond+1, true
		if err := w.Refresh(t.Context()); err == nil || !strings.Contains(err.Error(), "the reply took 3.1s, at most 3s count") {
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
		counted              bool
	}{
		"the failure is waited for":       {slow: 150 * time.Millisecond, took: 3150 * time.Millisecond, counted: true},
		"not for ever":                    {slow: time.Second, took: 3200 * time.Millisecond},
		"not beyond the invocation's end": {slow: 150 * time.Millisecond, deadline: 3300 * time.Millisecond, took: 3100 * time.Millisecond},
	} {
		for call, by := range map[string]func(*world, context.Context) string{
			"a token": func(w *world, ctx context.Context) string { return w.ask(ctx, "a") },
			"the start": func(w *world, ctx context.Context) string {
				if w.Refresh(ctx) == nil {
					return "key"
				}
				return "fault"
			},
		} {
			t.Run(name+", "+call, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld("hang")
					w.issuer.slow = c.slow
					ctx := t.Context()
					if c.deadline > 0 {
						var cancel context.CancelFunc
						ctx, cancel = context.WithTimeout(ctx, c.deadline)
						defer cancel()
					}
					start := time.Now()
					got := by(w, ctx)
					took := time.Since(start)
					w.mu.Lock()
					counted := w.failures.failures == 1
					w.mu.Unlock()
					if got != "fault" || took != c.took || counted != c.counted {
						t.Errorf("%s after %v, counted: %v; want fault after %v, %v", got, took, counted, c.took, c.counted)
					}
					time.Sleep(time.Second) // the fetch ends
					synctest.Wait()
					if log := w.log.String(); c.counted && !strings.Contains(log, "outcome=failed duration_ms=3150") {
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
		w := newWorld("503")
		if err := w.Refresh(t.Context()); err == nil || !strings.Contains(err.Error(), uri) || !strings.Contains(err.Error(), "503") {
			t.Errorf("%v", err)
		}
		time.Sleep(time.Second)
		w.issuer.set("hang")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := w.Refresh(ctx); err == nil || time.Since(start) > time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		time.Sleep(5 * time.Second)
		w.issuer.set("a")
		if err := w.Refresh(t.Context()); err != nil {
			t.Error(err)
		}
		if got := w.ask(t.Context(), "a"); got != "key" || w.issuer.requests() != 3 || w.turns.used != 0 {
			t.Errorf("%s after %d requests and %d turns", got, w.issuer.requests(), w.turns.used)
		}
	})
}

// The same text is not parsed again, and nothing is said again about the keys in it.
func TestSameReply(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("a b")
		w.ask(t.Context(), "a")
		set := w.current.Load().set
		time.Sleep(5 * time.Minute)
		w.ask(t.Context(), "a")
		if w.current.Load().set != set || w.issuer.requests() != 2 {
			t.Errorf("parsed again; %d requests", w.issuer.requests())
		}
		time.Sleep(5 * time.Minute)
		w.issuer.set("a")
		w.ask(t.Context(), "a")
		if w.current.Load().set == set {
			t.Error("another text is taken for the same")
		}
	})
}

// However many stop waiting together, the next one waits a second later.
func TestGivingUpTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("a")
		defer time.Sleep(fetchTime)
		w.ask(t.Context(), "a")
		w.issuer.set("hang")
		time.Sleep(5 * time.Minute)
		w.askAtOnce(t, 10)
		w.step.Add(int64(4 * time.Second)) // frozen at once
		start := time.Now()
		if got := w.ask(t.Context(), "a"); got != "key" || time.Since(start) != dueWait {
			t.Errorf("%s after %v, want key after %v", got, time.Since(start), dueWait)
		}
	})
}
