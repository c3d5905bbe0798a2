package simulation_test

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"zuplo-lambda-authorizer/internal/fleet"
	"zuplo-lambda-authorizer/internal/fleet/storetest"
	"zuplo-lambda-authorizer/internal/issuer"
	"zuplo-lambda-authorizer/internal/keycache"
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
type world struct {
	*testing.T
	variant   variant
	issuer    *server
	table     *storetest.Memory // nil: there is none
	replica   *storetest.Memory // what eventually consistent reads see
	partition partition         // of the table
	pace      atomic.Int64      // a time.Duration
	forged    atomic.Int64      // forged kids that each environment is asked for at a time, next to the valid ones
	kids      atomic.Value      // []string of the valid tokens that come
	old       atomic.Value      // string, the kid of tokens whose key was withdrawn; "": there are none

	began     time.Time
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
	freezesAt string                    // "take", "fetch", "write": behind the first, in the second, before the third
	size      int                       // environments; 0: 200
	kb        int                       // of the item, in a partition with DynamoDB's cap; 0: as small as it is, without a cap
	starts    time.Duration             // within which the environments start, to go on at random moments; 0: all at once, always
}

const (
	faultErrors = "errors" // the table does nothing and says so
	faultSlow   = "slow"   // what it is asked arrives a second late
	faultLost   = "lost"   // it does what it is asked, and the answer is lost
)

func newWorld(t *testing.T, v variant) *world {
	v.latency = cmp.Or(v.latency, 100*time.Millisecond)
	v.lag = cmp.Or(v.lag, 50*time.Millisecond)
	v.size = cmp.Or(v.size, environments)
	w := &world{T: t, variant: v, issuer: &server{latency: v.latency}, presented: map[string]time.Time{}, began: time.Now()}
	if !v.alone {
		w.table = &storetest.Memory{Latency: 6 * time.Millisecond, Fail: w.beforeEffect, Lose: w.afterEffect}
		w.replica = &storetest.Memory{Latency: 6 * time.Millisecond, Fail: w.beforeEffect, Lose: w.afterEffect}
	}
	w.publish("a")
	w.present("a")
	w.withdrawn("")
	w.issuer.down.Store("")
	w.every(time.Second)
	for range v.size {
		w.start()
	}
	return w
}

// start starts an environment.
func (w *world) start() {
	e := &environment{world: w, index: len(w.all), kids: map[string]experience{}}
	if w.variant.clock != nil {
		e.clock = w.variant.clock(len(w.all))
	}
	log := slog.New(slog.DiscardHandler)
	e.cache = &keycache.Cache{
		Name: jwksURI, Source: issuer.Source{URI: jwksURI, Client: &http.Client{Transport: e}, Now: e.now, Log: log},
		TTL: ttl, MaxStale: maxStale, Now: e.now, Rand: rand.Float64, Log: log,
	}
	if w.table != nil {
		e.cache.Source = &fleet.Fleet{
			Store: link{e}, Issuer: e.cache.Source, TTL: ttl, MaxStale: maxStale, Now: e.now, Rand: rand.Float64, Log: log,
		}
		e.cache.Detour, e.cache.Early = fleet.Detour, ttl/5
	}
	w.envs, w.all = append(w.envs, e), append(w.all, e)
	w.running.Go(e.live)
}

// replace ends the oldest environment and starts a new one.
func (w *world) replace() {
	w.envs[0].ended.Store(true)
	w.envs = w.envs[1:]
	w.start()
}

// end ends all environments and waits for what they left behind.
func (w *world) end() {
	for _, e := range w.envs {
		e.ended.Store(true)
	}
	w.running.Wait()
	time.Sleep(10 * time.Second)
}

// publish sets the kids that the issuer has, present those of the valid tokens that come, and withdrawn the one of
// tokens that are valid no more.
func (w *world) publish(kids ...string) { w.issuer.set.Store(keySet(w.variant.kb, kids...)) }
func (w *world) present(kids ...string) {
	w.kids.Store(kids)
	for _, kid := range kids {
		if _, known := w.presented[kid]; !known {
			w.presented[kid] = time.Now()
		}
	}
}
func (w *world) withdrawn(kid string) { w.old.Store(kid) }

// every sets the pace.
func (w *world) every(pace time.Duration) { w.pace.Store(int64(pace)) }

// broken runs what happens while the table is broken, if the variant has a fault for it.
func (w *world) broken(meanwhile func()) {
	w.failing.Store(true)
	meanwhile()
	w.failing.Store(false)
}

func (w *world) fault(name string) bool { return w.variant.fault == name && w.failing.Load() }

func (w *world) beforeEffect(string) error {
	if w.fault(faultErrors) {
		return errors.New("throttled")
	}
	return nil
}

func (w *world) afterEffect(op string) error {
	if op != "read" {
		item := w.table.Item(issuerURL, jwksURI)
		time.AfterFunc(w.variant.lag, func() { w.replica.SetItem(issuerURL, jwksURI, item) })
		if w.variant.name != dayAhead.name {
			w.neverOlder(item)
		}
	}
	if w.fault(faultLost) {
		return errors.New("connection reset")
	}
	return nil
}

// neverOlder fails when a write replaced a set by an older one.
func (w *world) neverOlder(item storetest.Item) {
	text, _ := item.Sent.(storetest.Number)
	sent, _ := strconv.ParseInt(string(text), 10, 64)
	w.mu.Lock()
	defer w.mu.Unlock()
	if sent < w.sent {
		w.Errorf("a set sent %v earlier replaced the stored one", time.Duration(w.sent-sent)*time.Millisecond)
	}
	w.sent = sent
}

// An environment has a cache of its own. It is its cache's way to the issuer, too.
type environment struct {
	world *world
	index int // among all that ever lived
	cache *keycache.Cache
	clock time.Duration // what it is ahead
	ended atomic.Bool
	thaws atomic.Pointer[time.Time] // when it is frozen, until then
	froze atomic.Bool               // ever

	forged  int           // kids so far
	newest  time.Time     // when the newest set in its memory was sent
	longest time.Duration // that an invocation took
	bare    time.Duration // that one took which began without any keys

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
	scattered := e.world.variant.starts > 0
	if scattered {
		time.Sleep(rand.N(e.world.variant.starts))
	}
	_ = e.cache.Start(context.Background())
	for n := 0; ; n++ {
		pace := time.Duration(e.world.pace.Load())
		if scattered {
			time.Sleep(rand.N(2 * pace))
		} else {
			time.Sleep(time.Until(time.Now().Truncate(pace).Add(pace)))
		}
		if until := e.thaws.Swap(nil); until != nil {
			time.Sleep(time.Until(*until))
			continue
		}
		if e.ended.Load() {
			return
		}
		forged := int(e.world.forged.Load())
		for i := range forged { // before the valid token or after it, by turns
			if (i+n)%2 == 0 {
				e.forge()
			}
		}
		if kid := e.world.old.Load().(string); kid != "" {
			e.ask(kid, false)
		}
		for _, kid := range e.world.kids.Load().([]string) {
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
		e.world.Errorf("kid %q was allowed", kid)
	}
}

func (e *environment) invoke(kid string) (allowed bool) {
	began := time.Now()
	_, serves := e.cache.Age()
	fit, _, err := e.cache.Keys(context.Background(), kid, "EdDSA")
	switch took := time.Since(began); {
	case e.froze.Load():
	case serves:
		e.longest = max(e.longest, took)
	default:
		e.bare = max(e.bare, took)
	}
	if age, ok := e.cache.Age(); ok && age > 0 {
		if sent := e.now().Add(-age); sent.Before(e.newest) {
			e.world.Errorf("a set sent %v earlier replaced the one in memory", e.newest.Sub(sent))
		} else {
			e.newest = sent
		}
	}
	return err == nil && len(fit) > 0
}

const frost = time.Hour

// freezes freezes the environment here, if the variant wants one to and it is the first to come.
func (e *environment) freezes(at string) {
	if e.world.variant.freezesAt != at || !e.world.icy.CompareAndSwap(true, false) {
		return
	}
	until := time.Now().Add(frost)
	e.thaws.Store(&until)
	e.froze.Store(true)
	time.Sleep(frost)
}

// now is its wall clock, which stands still for what runs on while it is frozen.
func (e *environment) now() time.Time {
	now := time.Now()
	if until := e.thaws.Load(); until != nil && now.Before(*until) {
		now = until.Add(-frost)
	}
	return now.Add(e.clock)
}

// A link is an environment's way to the table.
type link struct{ *environment }

// through makes one call to the table. A slow one still has its effect when nobody waits any more.
func through[T any](l link, ctx context.Context, m *storetest.Memory, read, write float64, call func(context.Context, fleet.Store) (T, error)) (T, error) {
	store := m.Issuer(issuerURL, jwksURI)
	if err := l.world.use(read, write); err != nil {
		var none T
		return none, err
	}
	if !l.world.fault(faultSlow) {
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

func (l link) Read(ctx context.Context, consistent bool) (fleet.Copy, error) {
	from, units := l.world.replica, 0.5
	if consistent {
		from, units = l.world.table, 1
	}
	return through(l, ctx, from, units, 0, func(ctx context.Context, s fleet.Store) (fleet.Copy, error) { return s.Read(ctx, consistent) })
}

func (l link) Take(ctx context.Context, now time.Time) (time.Time, error) {
	end, err := through(l, ctx, l.world.table, 0, 1, func(ctx context.Context, s fleet.Store) (time.Time, error) { return s.Take(ctx, now) })
	if err == nil && !end.IsZero() {
		l.freezes("take")
	}
	return end, err
}

func (l link) Put(ctx context.Context, lease time.Time, c fleet.Copy, expires time.Time) error {
	return l.write(ctx, func(ctx context.Context, s fleet.Store) error { return s.Put(ctx, lease, c, expires) })
}

func (l link) Fail(ctx context.Context, lease, until time.Time, failures int) error {
	return l.write(ctx, func(ctx context.Context, s fleet.Store) error { return s.Fail(ctx, lease, until, failures) })
}

// write tells what came of the lease.
func (l link) write(ctx context.Context, call func(context.Context, fleet.Store) error) error {
	l.freezes("write")
	if l.froze.Load() { // its timers froze, too
		ctx = context.WithoutCancel(ctx)
	}
	_, err := through(l, ctx, l.world.table, 0, 1, func(ctx context.Context, s fleet.Store) (struct{}, error) { return struct{}{}, call(ctx, s) })
	return err
}

// RoundTrip asks the issuer.
func (e *environment) RoundTrip(r *http.Request) (*http.Response, error) {
	if e.froze.Load() { // its timers froze, too
		r = r.WithContext(context.WithoutCancel(r.Context()))
	}
	resp, err := e.world.issuer.RoundTrip(r)
	e.freezes("fetch")
	return resp, err
}

// A server is the issuer's. It answers with its set, or fails in one way after the other while it is down.
type server struct {
	latency time.Duration
	set     atomic.Value // string
	down    atomic.Value // string: "" is up, "503", "hangs", "all": one way after the other

	mu    sync.Mutex
	asked []time.Time
}

func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	n := len(s.asked)
	s.asked = append(s.asked, time.Now())
	s.mu.Unlock()
	status, set := http.StatusOK, s.set.Load().(string)
	wait := s.latency
	way := s.down.Load().(string)
	if way == "all" {
		way = []string{"503", "resets", "hangs"}[n%3]
	}
	switch way {
	case "503":
		status, set = http.StatusServiceUnavailable, ""
	case "resets":
		return nil, errors.New("connection reset")
	case "hangs":
		wait = time.Minute
	}
	select {
	case <-time.After(wait):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(set)), Request: r}, nil
}

// requests is how many there were in all, and in the busiest minute.
func (s *server) requests() (all, busiest int) {
	return len(s.asked), s.busiestSince(time.Time{})
}

// busiestSince is how many there were in the busiest minute of those that began then or later.
func (s *server) busiestSince(then time.Time) (busiest int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := slices.DeleteFunc(slices.Clone(s.asked), then.After)
	first := 0
	for n, t := range asked {
		for t.Sub(asked[first]) >= time.Minute-10*time.Millisecond { // ten leases, each cut to the millisecond
			first++
		}
		busiest = max(busiest, n+1-first)
	}
	return busiest
}

// keySet is one with spaces at its end, so that an item which holds it has that many KB, if it is not 0.
func keySet(kb int, kids ...string) string {
	var keys []string
	for _, kid := range kids {
		seed := [ed25519.SeedSize]byte{kid[0]}
		x := base64.RawURLEncoding.EncodeToString(ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey))
		keys = append(keys, fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","kid":%q,"x":%q}`, kid, x))
	}
	text := `{"keys":[` + strings.Join(keys, ",") + `]}`
	return text + strings.Repeat(" ", max(0, kb<<10-attributes-len(text)))
}

// seen is how long after t the last environment allowed kid for the first time, of those that never froze.
func (w *world) seen(kid string, t time.Time) (worst time.Duration) {
	for _, e := range w.envs {
		x := e.experience(kid)
		switch {
		case e.froze.Load():
		case x.first.IsZero():
			w.Errorf("an environment never allowed kid %q", kid)
		default:
			worst = max(worst, x.first.Sub(t))
		}
	}
	return worst
}

// gone is how long after t an environment allowed kid for the last time.
func (w *world) gone(kid string, t time.Time) (worst time.Duration) {
	for _, e := range w.envs {
		worst = max(worst, e.experience(kid).last.Sub(t))
	}
	return worst
}

// refused is all valid tokens that were refused, with how long tokens of their kid had been coming then.
func (w *world) refused() map[invocation]time.Duration {
	all := map[invocation]time.Duration{}
	for _, e := range w.all {
		e.mu.Lock()
		for _, i := range e.refused {
			all[i] = i.time.Sub(w.presented[i.kid])
		}
		e.mu.Unlock()
	}
	return all
}

// frozen is how many environments ever froze.
func (w *world) frozen() (n int) {
	for _, e := range w.all {
		if e.froze.Load() {
			n++
		}
	}
	return n
}

// longest is how long an invocation took at most, and one that began without any keys.
func (w *world) longest() (longest, bare time.Duration) {
	for _, e := range w.all {
		longest, bare = max(longest, e.longest), max(bare, e.bare)
	}
	return longest, bare
}
