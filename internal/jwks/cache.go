package jwks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	fetchTime     = 3 * time.Second                  // a fetch takes no longer, by whatever clock
	outcomeWait   = fetchTime + 200*time.Millisecond // lets a fetch that hung count as failed before Lambda freezes the process
	dueWait       = time.Second                      // how long a request waits for fresh keys while old ones may serve
	deadlineSpare = 200 * time.Millisecond           // what a waiter leaves of its deadline for the answer
	maxBackoff    = 30 * time.Second
	clockSkew     = 30 * time.Second // how far the wall clock may step back before ages count as due

	askBurst    = 3                // fetches for unknown kids at once
	askEvery    = 10 * time.Second // one more each
	recentFetch = 10 * time.Second // a set asked for this lately knows every kid that exists
)

// A Cache holds one issuer's keys in memory. Readers see an immutable snapshot; one fetch at a time is shared by
// all who wait for it. Its methods are safe for concurrent use.
//
// Ages are taken by the wall clock: the process may be frozen for hours, in the middle of anything.
type Cache struct {
	URI      string           // of the JWKS; required
	Client   *http.Client     // required
	TTL      time.Duration    // how long keys are fresh
	MaxStale time.Duration    // how old they may grow while the issuer cannot be reached; at least TTL
	Now      func() time.Time // required
	Log      *slog.Logger     // required
	Fetches  *slog.Logger     // gets a line for each fetch and its outcome; nil: nobody wants them

	current atomic.Pointer[snapshot] // nil until the first set

	mu       sync.Mutex
	flight   *flight // the fetch in progress, if any
	failures int     // in a row
	failedAt time.Time
	turns    turns
}

type snapshot struct {
	set  *Set
	sent time.Time // when its request was sent
}

// A flight is one fetch. done is closed when its outcome stands.
type flight struct {
	sent   time.Time
	cancel context.CancelFunc
	done   chan struct{}
	err    error // after done
}

var (
	errBackoff   = errors.New("not asking again yet after a failed fetch")
	errEmptySet  = errors.New("the issuer publishes an empty key set")
	errNotAsking = errors.New("unknown kid, and too many were asked for to fetch the keys again yet")
)

// Verifiers returns the keys under kid that fit alg, and whether the issuer has that kid. It asks the issuer when the
// keys in memory are older than TTL or do not know the kid, within the limits of back-off and turns. An error means
// that no answer could be had: no keys young enough, or nobody to ask about the kid.
func (c *Cache) Verifiers(ctx context.Context, kid, alg string) (fit []Verifier, known bool, err error) {
	now := c.now()
	s := c.current.Load()
	fresh := s != nil && age(s.sent, now) < c.TTL
	if s != nil && now.Sub(s.sent) <= c.MaxStale {
		fit, known = s.set.verifiers(kid, alg)
	}
	if fresh && known {
		return fit, true, nil
	}

	f, err := c.join(now, fresh)
	if err == nil {
		wait := outcomeWait
		if known {
			wait = dueWait
		}
		err = f.wait(ctx, wait)
	}
	if err != nil {
		if known {
			return fit, true, nil // old keys serve
		}
		if errors.Is(err, errNotAsking) && age(s.sent, now) < recentFetch && s.set.entries > 0 {
			return nil, false, nil
		}
		return nil, false, fmt.Errorf("keys of %s: %w", c.name(), err)
	}

	set := c.current.Load().set
	if set.entries == 0 {
		return nil, false, fmt.Errorf("keys of %s: %w", c.name(), errEmptySet)
	}
	fit, known = set.verifiers(kid, alg)
	return fit, known, nil
}

// Refresh fetches the keys for the start of the process and returns when they are there, when the fetch failed, or
// when ctx is done.
func (c *Cache) Refresh(ctx context.Context) error {
	f, err := c.join(c.now(), false)
	if err == nil {
		err = f.wait(ctx, outcomeWait)
	}
	if err != nil {
		return fmt.Errorf("keys of %s: %w", c.name(), err)
	}
	return nil
}

// Age returns how old the keys are since their request was sent; ok is false without keys.
func (c *Cache) Age() (d time.Duration, ok bool) {
	s := c.current.Load()
	if s == nil {
		return 0, false
	}
	return max(0, c.now().Sub(s.sent)), true
}

// join returns the fetch in progress or starts one. fresh says that the keys in memory would do but for an
// unknown kid; starting a fetch then takes a turn.
func (c *Cache) join(now time.Time, fresh bool) (*flight, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failures > 0 && age(c.failedAt, now) < backoff(c.failures) {
		return nil, errBackoff
	}
	if f := c.flight; f != nil {
		if age(f.sent, now) < fetchTime {
			return f, nil
		}
		f.cancel() // frozen in mid-flight: whatever it brings is too old
	}
	if fresh && !c.turns.take(now) {
		return nil, errNotAsking
	}
	// Its own context, because an invocation's dies with the invocation.
	ctx, cancel := context.WithTimeout(context.Background(), fetchTime)
	f := &flight{sent: now, cancel: cancel, done: make(chan struct{})}
	c.flight = f
	go c.run(ctx, f, fresh)
	return f, nil
}

// run fetches, installs what came and settles the flight.
func (c *Cache) run(ctx context.Context, f *flight, tookTurn bool) {
	defer f.cancel()
	frozen := c.watch(ctx)
	set, err := fetch(ctx, c.Client, c.URI, c.current.Load(), c.Log.With("uri", c.name()))
	slept := frozen()

	c.mu.Lock()
	defer c.mu.Unlock()
	defer close(f.done)
	took := c.now().Sub(f.sent)
	if err == nil && took > fetchTime {
		err = fmt.Errorf("the reply took %v, at most %v count", took.Round(time.Millisecond), fetchTime)
	}
	if err != nil && tookTurn {
		c.turns.used--
	}
	if c.flight != f {
		f.err = errors.Join(err, errors.New("replaced by a younger fetch"))
		c.report(f, "frozen", took)
		return
	}
	f.err = err
	c.flight = nil
	switch {
	case err == nil:
		c.current.Store(&snapshot{set, f.sent})
		c.failures = 0
		c.report(f, "ok", took, slog.Int("keys", set.entries))
	case slept:
		c.report(f, "frozen", took)
	default:
		c.failures++
		c.failedAt = c.now()
		c.report(f, "failed", took)
	}
}

// report logs a fetch's outcome: ok, failed, or frozen when it died of a freeze.
func (c *Cache) report(f *flight, outcome string, took time.Duration, more ...slog.Attr) {
	if c.Fetches == nil {
		return
	}
	level := slog.LevelInfo
	if f.err != nil {
		level = slog.LevelWarn
		more = append(more, slog.String("error", f.err.Error()))
	}
	more = append(more, slog.String("uri", c.name()), slog.String("outcome", outcome), slog.Int64("duration_ms", took.Milliseconds()))
	c.Fetches.LogAttrs(context.Background(), level, "fetch", more...)
}

// watch notices, until ctx is done, that the process was frozen: its ticks then come late. The function that it returns
// says so. A fetch that died of a freeze tells nothing about the issuer.
func (c *Cache) watch(ctx context.Context) (slept func() bool) {
	const tick, late = 100 * time.Millisecond, 500 * time.Millisecond
	var mu sync.Mutex
	last, frozen := c.now(), false
	look := func() bool {
		mu.Lock()
		defer mu.Unlock()
		now := c.now()
		frozen = frozen || now.Sub(last) > late
		last = now
		return frozen
	}
	go func() {
		ticks := time.Tick(tick)
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticks:
				look()
			}
		}
	}()
	return look
}

// wait returns the flight's outcome, or an error when limit or ctx's deadline, less what the answer needs, comes first.
func (f *flight) wait(ctx context.Context, limit time.Duration) error {
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline)-deadlineSpare)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return fmt.Errorf("waiting for the fetch: %w", ctx.Err())
	}
}

// name is the URI for errors and logs: without its query, which may hold a secret.
func (c *Cache) name() string {
	name, _, _ := strings.Cut(c.URI, "?")
	return name
}

// now strips the monotonic reading, which a suspended machine does not advance.
func (c *Cache) now() time.Time { return c.Now().Round(0) }

// age is how long ago t was. A clock that stepped back a little makes it negative, which counts as young; one that
// stepped back further makes it endless, so that what depends on it is asked for anew.
func age(t, now time.Time) time.Duration {
	if d := now.Sub(t); d >= -clockSkew {
		return d
	}
	return math.MaxInt64
}

// backoff is 1 s after the first failure, doubling to 30 s.
func backoff(failures int) time.Duration {
	return min(time.Second<<min(failures-1, 5), maxBackoff)
}

// turns limits the fetches that unknown kids cause: a burst of 3, and one more each 10 s. Nobody waits for a turn.
type turns struct {
	used int       // out of askBurst
	last time.Time // when used last shrank, or began to grow
}

func (t *turns) take(now time.Time) bool {
	back := max(0, age(t.last, now)/askEvery) // 0 if the clock stepped back a little
	t.used = max(0, t.used-int(back))
	t.last = t.last.Add(back * askEvery)
	if t.used == 0 {
		t.last = now
	}
	if t.used == askBurst {
		return false
	}
	t.used++
	return true
}
