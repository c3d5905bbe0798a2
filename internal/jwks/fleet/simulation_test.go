package fleet_test

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"zuplo-lambda-authorizer/internal/jwks"
	"zuplo-lambda-authorizer/internal/jwks/storetest"
)

const (
	environments = 200
	ttl          = 5 * time.Minute
	maxStale     = 24 * time.Hour
	maxBackoff   = 30 * time.Second

	issuerURL = "https://issuer.example"
	jwksURI   = issuerURL + "/.well-known/jwks.json"
)

// A fleet is environments of one function, the table that they share and the issuer that they ask, in a bubble of
// testing/synctest. Its environments are released at once, whenever the time is a multiple of pace.
type fleet struct {
	*testing.T
	variant variant
	issuer  *issuer
	table   *storetest.Memory // nil: there is none
	replica *storetest.Memory // what eventually consistent reads see
	pace    atomic.Int64      // a time.Duration
	forged  atomic.Int64      // forged kids that each environment is asked for at a time, next to the valid ones
	kids    atomic.Value      // []string of the valid tokens that come
	old     atomic.Value      // string, the kid of tokens whose key was withdrawn; "": there are none

	presented map[string]time.Time // kids, for the first time

	envs    []*environment // that live
	all     []*environment // that ever lived
	running sync.WaitGroup

	failing atomic.Bool // the table, in the variant's way
	icy     atomic.Bool // the next environment to come to freezesAt freezes there

	mu   sync.Mutex
	sent int64 // of the stored set, in ms since 1970
}

// A variant is what is the matter with a fleet. The zero variant is well.
type variant struct {
	name      string
	alone     bool                      // there is no table
	fault     string                    // of the table, for a while in the middle
	clock     func(i int) time.Duration // what the clock of environment i is ahead
	latency   time.Duration             // the issuer's; 0: 100 ms
	lag       time.Duration             // what eventually consistent reads are behind; 0: 50 ms
	freezesAt string                    // "take", "fetch", "put": behind the first, in the second, before the third
}

const (
	faultErrors = "errors" // the table does nothing and says so
	faultSlow   = "slow"   // what it is asked arrives a second late
	faultLost   = "lost"   // it does what it is asked, and the answer is lost
)

func newFleet(t *testing.T, v variant) *fleet {
	v.latency = cmp.Or(v.latency, 100*time.Millisecond)
	v.lag = cmp.Or(v.lag, 50*time.Millisecond)
	f := &fleet{T: t, variant: v, issuer: &issuer{latency: v.latency}, presented: map[string]time.Time{}}
	if !v.alone {
		f.table = &storetest.Memory{Latency: 6 * time.Millisecond, Fail: f.beforeEffect, Lose: f.afterEffect}
		f.replica = &storetest.Memory{Latency: 6 * time.Millisecond, Fail: f.beforeEffect, Lose: f.afterEffect}
	}
	f.publish("a")
	f.present("a")
	f.withdrawn("")
	f.every(time.Second)
	for range environments {
		f.start()
	}
	return f
}

// start starts an environment.
func (f *fleet) start() {
	e := &environment{fleet: f, index: len(f.all), kids: map[string]experience{}}
	if f.variant.clock != nil {
		e.clock = f.variant.clock(len(f.all))
	}
	e.cache = &jwks.Cache{
		URI: jwksURI, Client: &http.Client{Transport: e}, TTL: ttl, MaxStale: maxStale,
		Now: func() time.Time { return time.Now().Add(e.clock) }, Log: slog.New(slog.DiscardHandler),
	}
	if f.table != nil {
		e.cache.Store = link{e}
	}
	f.envs, f.all = append(f.envs, e), append(f.all, e)
	f.running.Go(e.live)
}

// replace ends the oldest environment and starts a new one.
func (f *fleet) replace() {
	f.envs[0].ended.Store(true)
	f.envs = f.envs[1:]
	f.start()
}

// end ends all environments and waits for what they left behind.
func (f *fleet) end() {
	for _, e := range f.envs {
		e.ended.Store(true)
	}
	f.running.Wait()
	time.Sleep(10 * time.Second)
}

// publish sets the kids that the issuer has, present those of the valid tokens that come, and withdrawn the one of
// tokens that are valid no more.
func (f *fleet) publish(kids ...string) { f.issuer.set.Store(keySet(kids...)) }
func (f *fleet) present(kids ...string) {
	f.kids.Store(kids)
	for _, kid := range kids {
		if _, known := f.presented[kid]; !known {
			f.presented[kid] = time.Now()
		}
	}
}
func (f *fleet) withdrawn(kid string) { f.old.Store(kid) }

// every sets the pace.
func (f *fleet) every(pace time.Duration) { f.pace.Store(int64(pace)) }

// broken runs what happens while the table is broken, if the variant has a fault for it.
func (f *fleet) broken(meanwhile func()) {
	f.failing.Store(true)
	meanwhile()
	f.failing.Store(false)
}

func (f *fleet) fault(name string) bool { return f.variant.fault == name && f.failing.Load() }

func (f *fleet) beforeEffect(string) error {
	if f.fault(faultErrors) {
		return errors.New("throttled")
	}
	return nil
}

func (f *fleet) afterEffect(op string) error {
	if op != "read" {
		item := f.table.Item(issuerURL, jwksURI)
		time.AfterFunc(f.variant.lag, func() { f.replica.SetItem(issuerURL, jwksURI, item) })
		if f.variant.name != dayAhead.name {
			f.neverOlder(item)
		}
	}
	if f.fault(faultLost) {
		return errors.New("connection reset")
	}
	return nil
}

// neverOlder fails when a write replaced a set by an older one.
func (f *fleet) neverOlder(item storetest.Item) {
	text, _ := item.Sent.(storetest.Number)
	sent, _ := strconv.ParseInt(string(text), 10, 64)
	f.mu.Lock()
	defer f.mu.Unlock()
	if sent < f.sent {
		f.Errorf("a set sent %v earlier replaced the stored one", time.Duration(f.sent-sent)*time.Millisecond)
	}
	f.sent = sent
}

// An environment has a cache of its own. It is its cache's way to the issuer, too.
type environment struct {
	fleet *fleet
	index int // among all that ever lived
	cache *jwks.Cache
	clock time.Duration // what it is ahead
	ended atomic.Bool
	thaws atomic.Pointer[time.Time] // when it is frozen, until then
	froze atomic.Bool               // ever

	forged  int           // kids so far
	newest  time.Time     // when the newest set in its memory was sent
	longest time.Duration // that an invocation took

	mu      sync.Mutex
	kids    map[string]experience // with the tokens of a kid
	refused []invocation          // though the token was valid
}

// experience is when an environment allowed tokens of a kid.
type experience struct{ first, last time.Time }

type invocation struct {
	env  int
	kid  string
	time time.Time
}

// live is a process's life: it starts, and answers an invocation at a time.
func (e *environment) live() {
	_ = e.cache.Refresh(context.Background())
	for n := 0; ; n++ {
		pace := time.Duration(e.fleet.pace.Load())
		time.Sleep(time.Until(time.Now().Truncate(pace).Add(pace)))
		if until := e.thaws.Swap(nil); until != nil {
			time.Sleep(time.Until(*until))
			continue
		}
		if e.ended.Load() {
			return
		}
		forged := int(e.fleet.forged.Load())
		for i := range forged { // before the valid token or after it, by turns
			if (i+n)%2 == 0 {
				e.forge()
			}
		}
		if kid := e.fleet.old.Load().(string); kid != "" {
			e.ask(kid, false)
		}
		for _, kid := range e.fleet.kids.Load().([]string) {
			e.ask(kid, true)
		}
		for i := range forged {
			if (i+n)%2 == 1 {
				e.forge()
			}
		}
	}
}

// ask is an invocation with a token that was signed by a key of the issuer.
func (e *environment) ask(kid string, valid bool) {
	began := time.Now()
	allowed := e.invoke(kid)
	if e.thaws.Load() != nil { // it froze in the midst of it
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.kids[kid]
	switch {
	case allowed && x.first.IsZero():
		x.first = time.Now()
		fallthrough
	case allowed:
		x.last = time.Now()
	case valid:
		e.refused = append(e.refused, invocation{e.index, kid, began})
	}
	e.kids[kid] = x
}

func (e *environment) experience(kid string) experience {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.kids[kid]
}

// forge is an invocation with a token of a kid that nobody ever had.
func (e *environment) forge() {
	e.forged++
	if kid := fmt.Sprintf("forged %d", e.forged); e.invoke(kid) {
		e.fleet.Errorf("kid %q was allowed", kid)
	}
}

func (e *environment) invoke(kid string) (allowed bool) {
	began := time.Now()
	fit, _, err := e.cache.Verifiers(context.Background(), kid, "EdDSA")
	if !e.froze.Load() {
		e.longest = max(e.longest, time.Since(began))
	}
	if age, ok := e.cache.Age(); ok && age > 0 {
		if sent := time.Now().Add(e.clock - age); sent.Before(e.newest) {
			e.fleet.Errorf("a set sent %v earlier replaced the one in memory", e.newest.Sub(sent))
		} else {
			e.newest = sent
		}
	}
	return err == nil && len(fit) > 0
}

const frost = time.Hour

// freezes freezes the environment here, if the variant wants one to and it is the first to come.
func (e *environment) freezes(at string) {
	if e.fleet.variant.freezesAt != at || !e.fleet.icy.CompareAndSwap(true, false) {
		return
	}
	until := time.Now().Add(frost)
	e.thaws.Store(&until)
	e.froze.Store(true)
	time.Sleep(frost)
}

// A link is an environment's way to the table.
type link struct{ *environment }

// through makes one call to the table. A slow one still has its effect when nobody waits any more.
func through[T any](l link, ctx context.Context, m *storetest.Memory, call func(context.Context, jwks.Store) (T, error)) (T, error) {
	store := m.Issuer(issuerURL, jwksURI)
	if !l.fleet.fault(faultSlow) {
		return call(ctx, store)
	}
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		time.Sleep(time.Second)
		v, err := call(context.WithoutCancel(ctx), store)
		answers <- answer{v, err}
	}()
	select {
	case a := <-answers:
		return a.value, a.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

func (l link) Read(ctx context.Context, consistent bool) (jwks.Copy, error) {
	from := l.fleet.replica
	if consistent {
		from = l.fleet.table
	}
	return through(l, ctx, from, func(ctx context.Context, s jwks.Store) (jwks.Copy, error) { return s.Read(ctx, consistent) })
}

func (l link) Take(ctx context.Context, now time.Time) (turn time.Time, ok bool, err error) {
	turn, err = through(l, ctx, l.fleet.table, func(ctx context.Context, s jwks.Store) (turn time.Time, err error) {
		turn, ok, err = s.Take(ctx, now)
		return turn, err
	})
	if err == nil && ok {
		l.freezes("take")
	}
	return turn, ok, err
}

func (l link) Put(ctx context.Context, turn time.Time, c jwks.Copy, expires time.Time) (bool, error) {
	l.freezes("put")
	if l.froze.Load() { // its timers froze, too
		ctx = context.WithoutCancel(ctx)
	}
	return through(l, ctx, l.fleet.table, func(ctx context.Context, s jwks.Store) (bool, error) { return s.Put(ctx, turn, c, expires) })
}

// RoundTrip asks the issuer.
func (e *environment) RoundTrip(r *http.Request) (*http.Response, error) {
	if e.froze.Load() { // its timers froze, too
		r = r.WithContext(context.WithoutCancel(r.Context()))
	}
	resp, err := e.fleet.issuer.RoundTrip(r)
	e.freezes("fetch")
	return resp, err
}

// An issuer answers with its set, or fails in one way after the other while it is down.
type issuer struct {
	latency time.Duration
	set     atomic.Value // string
	down    atomic.Bool

	mu    sync.Mutex
	asked []time.Time
}

func (i *issuer) RoundTrip(r *http.Request) (*http.Response, error) {
	i.mu.Lock()
	n := len(i.asked)
	i.asked = append(i.asked, time.Now())
	i.mu.Unlock()
	status, set := http.StatusOK, i.set.Load().(string)
	wait := i.latency
	if i.down.Load() {
		switch n % 3 {
		case 0:
			status, set = http.StatusServiceUnavailable, ""
		case 1:
			return nil, errors.New("connection reset")
		case 2:
			wait = time.Minute
		}
	}
	select {
	case <-time.After(wait):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(set)), Request: r}, nil
}

// requests is how many there were in all, and in the busiest minute.
func (i *issuer) requests() (all, busiest int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	first := 0
	for n, t := range i.asked {
		for t.Sub(i.asked[first]) >= time.Minute {
			first++
		}
		busiest = max(busiest, n+1-first)
	}
	return len(i.asked), busiest
}

func keySet(kids ...string) string {
	var keys []string
	for _, kid := range kids {
		seed := [ed25519.SeedSize]byte{kid[0]}
		x := base64.RawURLEncoding.EncodeToString(ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey))
		keys = append(keys, fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","kid":%q,"x":%q}`, kid, x))
	}
	return `{"keys":[` + strings.Join(keys, ",") + `]}`
}

// seen is how long after t the last environment allowed kid for the first time, of those that never froze.
func (f *fleet) seen(kid string, t time.Time) (worst time.Duration) {
	for _, e := range f.envs {
		x := e.experience(kid)
		switch {
		case e.froze.Load():
		case x.first.IsZero():
			f.Errorf("an environment never allowed kid %q", kid)
		default:
			worst = max(worst, x.first.Sub(t))
		}
	}
	return worst
}

// gone is how long after t an environment allowed kid for the last time.
func (f *fleet) gone(kid string, t time.Time) (worst time.Duration) {
	for _, e := range f.envs {
		worst = max(worst, e.experience(kid).last.Sub(t))
	}
	return worst
}

// refused is all valid tokens that were refused, with how long tokens of their kid had been coming then.
func (f *fleet) refused() map[invocation]time.Duration {
	all := map[invocation]time.Duration{}
	for _, e := range f.all {
		e.mu.Lock()
		for _, i := range e.refused {
			all[i] = i.time.Sub(f.presented[i.kid])
		}
		e.mu.Unlock()
	}
	return all
}

// frozen is how many environments ever froze.
func (f *fleet) frozen() (n int) {
	for _, e := range f.all {
		if e.froze.Load() {
			n++
		}
	}
	return n
}

// longest is how long an invocation took at most.
func (f *fleet) longest() (worst time.Duration) {
	for _, e := range f.all {
		worst = max(worst, e.longest)
	}
	return worst
}
