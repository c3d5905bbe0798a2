// Package keycache keeps one issuer's keys in memory, by rules that hold through outages, rotations and the freezing of
// the process. What a request waits for:
//
//	keys in memory               known kid                               unknown kid
//	fresh  age < TTL             nothing                                 a search for newer keys
//	due    TTL <= age            a search for young keys, 1 s at most;   a search for young keys,
//	                             in full if the last one failed, was     then for newer ones
//	                             given up or died of a freeze, or if
//	                             this one has the fleet's lease
//	stale  MaxStale < age        (no kid is known)                       a search for young keys
//	none                         (no kid is known)                       a search for young keys
//
// While the back-off holds, nobody waits and the issuer is not asked. Keys that are due serve whatever came of a search.
package keycache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"zuplo-lambda-authorizer/internal/jwks"
)

const (
	dueWait    = time.Second                      // how long a request waits for fresh keys while old ones may serve
	fullWait   = FetchTime + 200*time.Millisecond // lets a fetch that hung count as failed before Lambda freezes the process
	answerTime = 200 * time.Millisecond           // what a waiter leaves of its deadline for the answer
	recent     = 10 * time.Second                 // keys sent for this lately hold every kid that exists, where nobody may be asked

	maxBackoff     = 30 * time.Second
	maxBackoffBare = 10 * time.Second // while no key is usable
)

// A Cache holds one issuer's keys. Readers see an immutable snapshot; one search for newer keys at a time is shared by
// all who wait for it. Its methods are safe for concurrent use.
//
// Ages are taken by the wall clock: the process may be frozen for hours, in the middle of anything.
type Cache struct {
	Name     string           // of the keys in errors, such as the URI of the JWKS; required
	Source   Source           // required
	Detour   time.Duration    // what Source may take beside the issuer's time, in each search
	TTL      time.Duration    // how long keys are fresh
	Early    time.Duration    // how much earlier they are due at most, at random, so that a fleet is not due at once
	MaxStale time.Duration    // how old keys may grow while the issuer cannot be reached; at least TTL
	Now      func() time.Time // required
	Rand     func() float64   // 0 to 1, without 1; required
	Log      *slog.Logger     // required
	Fetches  *slog.Logger     // gets a line for each time that the issuer was asked, or newer keys came from the table; nil: nobody wants them

	current atomic.Pointer[snapshot] // nil until the first set

	mu        sync.Mutex
	flight    *flight // the search in progress, if any
	backoff   Backoff // of fetches that failed
	unheard   bool    // since the last keys a search failed, was given up, or died of a freeze
	allowance allowance
}

// A snapshot is the keys in memory. The zero snapshot has none.
type snapshot struct {
	set  *jwks.Set     // nil: none that may serve
	sent time.Time     // when its request was sent
	due  time.Duration // the age from which newer keys are wanted
	age  time.Duration // when it was read from memory
}

// bare reports whether none of the keys may serve.
func (s snapshot) bare() bool { return s.set == nil || s.set.Len() == 0 }

func (s snapshot) fresh() bool { return s.age < s.due }

// memory reads the keys in memory, without a set that is too old.
func (c *Cache) memory() (s snapshot) {
	if last := c.current.Load(); last != nil {
		s = *last
	}
	now := c.now()
	s.age = Age(s.sent, now)
	if now.Sub(s.sent) > c.MaxStale {
		s.set = nil
	}
	return s
}

var (
	errBackoff   = errors.New("backing off after a failed fetch")
	errAllowance = errors.New("unknown kid, and the allowance to fetch the keys again for such is used up")
	errEmptySet  = errors.New("the issuer publishes an empty key set")
	errStale     = errors.New("the newest keys are too old to serve already")
)

// Keys returns the keys under kid that fit alg, and whether the issuer has that kid. When the keys in memory are due or
// do not hold the kid, it searches for newer ones, within the limits of back-off and allowance. An error means that no
// answer could be had: no keys young enough, or nobody to ask about the kid.
func (c *Cache) Keys(ctx context.Context, kid, alg string) (fit []jwks.Key, known bool, err error) {
	s := c.memory()
	if fit, known = s.set.Keys(kid, alg); known && s.fresh() {
		return fit, true, nil
	}
	err = c.renew(ctx, func(set *jwks.Set) bool { _, known := set.Keys(kid, ""); return known })
	s = c.memory()
	if fit, known = s.set.Keys(kid, alg); known { // by what came, or the old keys serve
		return fit, true, nil
	}
	notAsked := errors.Is(err, errAllowance) || errors.Is(err, ErrLeased)
	switch {
	case !s.bare() && (err == nil || notAsked && s.age < recent):
		return nil, false, nil
	case err == nil && s.set == nil:
		err = errStale
	case err == nil:
		err = errEmptySet
	}
	return nil, false, fmt.Errorf("keys of %s: %w", c.Name, err)
}

// Start searches for the first keys and returns when they are there, when none could be had, or when ctx is done.
func (c *Cache) Start(ctx context.Context) error {
	if err := c.renew(ctx, func(set *jwks.Set) bool { return set != nil }); err != nil {
		return fmt.Errorf("keys of %s: %w", c.Name, err)
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

// install makes set the current one, with c.mu held. Whatever went wrong before is over.
func (c *Cache) install(set *jwks.Set, sent time.Time) {
	c.current.Store(&snapshot{set: set, sent: sent, due: c.TTL - time.Duration(c.Rand()*float64(c.Early))})
	c.backoff, c.unheard = Backoff{}, false
}

// judge reads a key set. When it is the text that the current set came from, that is the set.
func (c *Cache) judge(text []byte) (set *jwks.Set, err error) {
	if s := c.current.Load(); s != nil && s.set.IsOf(text) {
		return s.set, nil
	}
	err = Safely(c.Log, "judging keys", func() error {
		parsed, skipped, err := jwks.Parse(text)
		for _, s := range skipped {
			c.Log.Warn("key skipped", "kty", s.KeyType, "kid", s.KeyID, "why", s.Why)
		}
		set = parsed
		return err
	})
	return set, err
}

// held reports whether the back-off holds, with c.mu held.
func (c *Cache) held() bool {
	if c.memory().bare() {
		return c.backoff.Holds(c.now(), maxBackoffBare)
	}
	return c.backoff.Holds(c.now(), maxBackoff)
}

// now strips the monotonic reading, which a suspended machine does not advance.
func (c *Cache) now() time.Time { return c.Now().Round(0) }
