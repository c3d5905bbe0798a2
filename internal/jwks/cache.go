package jwks

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
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

// A Cache holds one issuer's keys in memory. Readers see an immutable snapshot; one search for newer keys at a time is
// shared by all who wait for it. Its methods are safe for concurrent use.
//
// Ages are taken by the wall clock: the process may be frozen for hours, in the middle of anything.
type Cache struct {
	URI      string           // of the JWKS; required
	Client   *http.Client     // required
	TTL      time.Duration    // how long keys are fresh
	MaxStale time.Duration    // how old they may grow while the issuer cannot be reached; at least TTL
	Store    Store            // the fleet's shared copy, asked before the issuer; nil: there is none
	Now      func() time.Time // required
	Log      *slog.Logger     // required
	Fetches  *slog.Logger     // gets a line for each fetch and its outcome; nil: nobody wants them

	current atomic.Pointer[snapshot] // nil until the first set

	mu       sync.Mutex
	flight   *flight // the search in progress, if any
	failures backoff // of fetches that failed
	givenUp  backoff // of waits for keys that are due that ended without them: the process may be frozen before the fetch fails
	turns    turns
	share    share
}

type snapshot struct {
	set  *Set
	sent time.Time     // when its request was sent
	due  time.Duration // the age at which newer keys are wanted
}

// A need is what newer keys are wanted for.
type need struct {
	due     bool      // those in memory are due, or there are none
	unknown bool      // none in memory is good for the token
	start   bool      // the process starts
	since   time.Time // when the wait for them began
}

// A flight is one search for newer keys. done is closed when its outcome stands.
type flight struct {
	need   need
	began  time.Time
	sent   time.Time // after done: when the issuer was asked; zero: it was not
	err    error     // after done
	cancel context.CancelFunc
	done   chan struct{}
}

var (
	errBackoff   = errors.New("not asking again yet after a failed fetch")
	errEmptySet  = errors.New("the issuer publishes an empty key set")
	errNotAsking = errors.New("unknown kid, and too many were asked for to fetch the keys again yet")
)

// Verifiers returns the keys under kid that fit alg, and whether the issuer has that kid. When the keys in memory are
// older than TTL or do not know the kid, it looks for newer ones, within the limits of back-off and turns. An error
// means that no answer could be had: no keys young enough, or nobody to ask about the kid.
func (c *Cache) Verifiers(ctx context.Context, kid, alg string) (fit []Verifier, known bool, err error) {
	fit, known, fresh := c.lookup(kid, alg)
	if known && fresh {
		return fit, true, nil
	}
	ctx, cancel := c.patience(ctx, known)
	defer cancel()
	began := time.Now()
	asked, err := c.renew(ctx, need{due: !fresh, unknown: !known, since: began})
	for err == nil && !asked { // the shared copy came
		if fit, known, _ = c.lookup(kid, alg); known {
			return fit, true, nil
		}
		asked, err = c.renew(ctx, need{unknown: true, since: began})
	}
	if fit, known, _ = c.lookup(kid, alg); known { // by what came, or the old keys serve
		return fit, true, nil
	}
	s := c.current.Load()
	switch {
	case err == nil && s.set.entries > 0:
		return nil, false, nil
	case err == nil:
		err = errEmptySet
	case (errors.Is(err, errNotAsking) || errors.Is(err, errTaken)) && s != nil && age(s.sent, c.now()) < recentFetch && s.set.entries > 0:
		return nil, false, nil
	}
	return nil, false, fmt.Errorf("keys of %s: %w", c.name(), err)
}

// Refresh looks for keys at the start of the process and returns when they are there, when none could be had, or when
// ctx is done.
func (c *Cache) Refresh(ctx context.Context) error {
	ctx, cancel := c.patience(ctx, false)
	defer cancel()
	if _, err := c.renew(ctx, need{due: true, unknown: true, start: true, since: time.Now()}); err != nil {
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

// lookup asks the keys in memory. Too old, they know no kid.
func (c *Cache) lookup(kid, alg string) (fit []Verifier, known, fresh bool) {
	s, now := c.current.Load(), c.now()
	if s == nil {
		return nil, false, false
	}
	if now.Sub(s.sent) <= c.MaxStale {
		fit, known = s.set.verifiers(kid, alg)
	}
	return fit, known, age(s.sent, now) < s.due
}

// patience bounds an invocation's wait: short where old keys may serve, and never into the time that the answer needs.
func (c *Cache) patience(ctx context.Context, old bool) (context.Context, context.CancelFunc) {
	limit := outcomeWait
	if old {
		limit = dueWait
	}
	if c.Store != nil {
		limit += storeTime
	}
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline)-deadlineSpare)
	}
	return context.WithTimeout(ctx, limit)
}

// renew waits for newer keys until ctx is done. asked tells whether they came from the issuer.
func (c *Cache) renew(ctx context.Context, n need) (asked bool, err error) {
	for {
		f, own, err := c.join(c.now(), n)
		if err != nil {
			return false, err
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			c.giveUp()
			return false, fmt.Errorf("waiting for the fetch: %w", ctx.Err())
		}
		if asked = !f.sent.IsZero(); asked || own || f.err == nil {
			return asked, f.err
		}
		// It ended before the issuer: who started it needed less, or might do less.
	}
}

// join returns the flight in progress or starts one, its own. A flight that may not ask the issuer can still look at the
// shared copy; an error means that there is nothing to be done now.
func (c *Cache) join(now time.Time, n need) (f *flight, own bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	held := c.failures.holds(now)
	if !n.unknown && (held || c.givenUp.holds(now)) {
		return nil, false, errBackoff
	}
	longest := fetchTime
	if c.Store != nil {
		longest += storeTime
	}
	if f := c.flight; f != nil {
		if age(f.began, now) < longest {
			return f, false, nil
		}
		f.cancel() // frozen in mid-flight: whatever it brings is too old
	}
	look, err := c.mayLook(now, n)
	if err != nil {
		return nil, false, err
	}
	var refusal error
	switch {
	case held:
		refusal = errBackoff
	case !n.due && !c.turns.take(now): // for an unknown kid
		refusal = errNotAsking
	}
	if refusal != nil && !look {
		return nil, false, refusal
	}
	// Its own context, because an invocation's dies with the invocation.
	ctx, cancel := context.WithCancel(context.Background())
	f = &flight{need: n, began: now, cancel: cancel, done: make(chan struct{})}
	c.flight = f
	go c.run(ctx, f, look, refusal)
	return f, true, nil
}

// giveUp notes that a wait ended without an outcome. Those that end together count once.
func (c *Cache) giveUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now(); !c.givenUp.holds(now) {
		c.givenUp.start(now)
	}
}

// run searches, settles the flight and shares what came.
func (c *Cache) run(ctx context.Context, f *flight, look bool, refusal error) {
	defer f.cancel()
	defer close(f.done)
	frozen := c.watch(ctx)
	v := visit{c: c, need: f.need, left: storeTime - time.Since(f.need.since)}
	var set *Set
	var text []byte
	err := c.safely("fetching keys", func() (err error) {
		set, text, err = c.search(ctx, f, &v, look, refusal)
		return err
	})
	if c.settle(f, set, err, frozen(), refusal == nil && !f.need.due) {
		v.put(ctx, text, f.sent)
	}
}

// search looks for newer keys where they may be, in this order: the shared copy, then the issuer. It returns what the
// issuer sent; the shared copy is installed already.
func (c *Cache) search(ctx context.Context, f *flight, v *visit, look bool, refusal error) (set *Set, text []byte, err error) {
	if look {
		if came, err := v.look(ctx, f.need.unknown); came {
			return nil, nil, nil
		} else if err != nil {
			v.fail(ctx, "reading the shared key set", err)
		}
	}
	if refusal != nil {
		return nil, nil, refusal
	}
	if came, err := v.take(ctx); came || err != nil {
		return nil, nil, err
	}
	if err := ctx.Err(); err != nil { // replaced in the meantime
		return nil, nil, err
	}
	f.sent = c.now()
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	if text, err = fetch(ctx, c.Client, c.URI); err != nil {
		return nil, nil, err
	}
	if set, err = c.parse(text); err != nil {
		return nil, nil, fmt.Errorf("reading the reply: %w", err)
	}
	return set, text, nil
}

// safely makes an error of a panic, which in a goroutine of its own would end the process, and logs its stack.
func (c *Cache) safely(doing string, do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic of type %T while %s", p, doing)
			c.Log.Error("panic while "+doing, "uri", c.name(), "stack", string(debug.Stack()))
		}
	}()
	return do()
}

// settle installs what the issuer sent, unless it is too late, and says whether it did. It counts a failure, unless the
// process slept: a fetch that died of a freeze tells nothing about the issuer. A turn that was taken for an unknown kid
// is given back when nothing came of it.
func (c *Cache) settle(f *flight, set *Set, err error, slept, tookTurn bool) (installed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	asked, took := !f.sent.IsZero(), c.now().Sub(f.sent)
	if asked && err == nil && took > fetchTime {
		err = fmt.Errorf("the reply took %v, at most %v count", took.Round(time.Millisecond), fetchTime)
	}
	if tookTurn && (!asked || err != nil) {
		c.turns.used--
	}
	replaced := c.flight != f
	if replaced {
		err = errors.Join(err, errors.New("replaced by a younger fetch"))
	} else {
		c.flight = nil
	}
	f.err = err
	switch {
	case !asked:
	case err == nil:
		c.install(set, f.sent)
		c.failures = backoff{}
		c.report(f, "ok", took, slog.Int("keys", set.entries))
		return true
	case slept || replaced:
		c.report(f, "frozen", took)
	default:
		c.failures.start(c.now())
		c.report(f, "failed", took)
	}
	return false
}

// install makes set the current one, with c.mu held. In a fleet with a Store, not all are due at once.
func (c *Cache) install(set *Set, sent time.Time) {
	due := c.TTL
	if c.Store != nil {
		due = earliestDue(c.TTL) + rand.N(c.TTL-earliestDue(c.TTL)+1)
	}
	c.current.Store(&snapshot{set, sent, due})
	c.givenUp = backoff{}
}

// parse reads a key set. When it is the text that the current set came from, that is the set.
func (c *Cache) parse(text []byte) (*Set, error) {
	if s := c.current.Load(); s != nil && s.set.hash == sha256.Sum256(text) {
		return s.set, nil
	}
	set, skipped, err := Parse(text)
	for _, s := range skipped {
		c.Log.Warn("key skipped", "uri", c.name(), "kty", s.KeyType, "kid", s.KeyID, "why", s.Why)
	}
	if err != nil {
		return nil, err
	}
	return set, nil
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

// A backoff holds for 1 s after the first of several failures in a row, doubling to 30 s.
type backoff struct {
	failures int
	last     time.Time
}

func (b *backoff) start(now time.Time) {
	b.failures++
	b.last = now
}

func (b *backoff) holds(now time.Time) bool {
	return b.failures > 0 && age(b.last, now) < min(time.Second<<min(b.failures-1, 5), maxBackoff)
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
