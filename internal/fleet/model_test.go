package fleet_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"zuplo-lambda-authorizer/internal/fleet"
	"zuplo-lambda-authorizer/internal/fleet/storetest"
	"zuplo-lambda-authorizer/internal/issuer"
	"zuplo-lambda-authorizer/internal/keycache"
	"zuplo-lambda-authorizer/internal/keycache/keytest"
)

// The adapter: all that the model knows of the code. An environment is one process with its cache of one issuer's keys.
type environment struct {
	cache *keycache.Cache
	reads atomic.Int32 // of the shared copy
}

// newEnvironment has a process that asks the issuer through client, shares keys in table unless that is nil, and reads
// the wall clock from now. Whatever it leaves to chance, luck decides.
func newEnvironment(client *http.Client, table *storetest.Memory, now func() time.Time, luck float64) *environment {
	log, chance := slog.New(slog.DiscardHandler), func() float64 { return luck }
	c := &keycache.Cache{
		Name: keytest.URI, Source: issuer.Source{URI: keytest.URI, Client: client, Now: now, Log: log},
		TTL: fresh, MaxStale: mostStale, Now: now, Rand: chance, Log: log,
	}
	e := &environment{cache: c}
	if table != nil {
		c.Source = &fleet.Fleet{
			Store: reader{table.Issuer("https://issuer.example", keytest.URI), &e.reads}, Issuer: c.Source, TTL: fresh, MaxStale: mostStale,
			Now: now, Rand: chance, Log: log,
		}
		c.Detour, c.Early = tableCosts, early
	}
	return e
}

// A reader is a Store that counts reads.
type reader struct {
	fleet.Store
	reads *atomic.Int32
}

func (r reader) Read(ctx context.Context, consistent bool) (fleet.Copy, error) {
	r.reads.Add(1)
	return r.Store.Read(ctx, consistent)
}

// start fetches the keys before the first invocation.
func (e *environment) start() { _ = e.cache.Start(context.Background()) }

// ask says what comes of a token that names kid: "key", "unknown" or "fault".
func (e *environment) ask(ctx context.Context, kid string) string {
	fit, known, err := e.cache.Keys(ctx, kid, "EdDSA")
	switch {
	case err != nil:
		return "fault"
	case !known:
		return "unknown"
	case len(fit) == 0:
		return "known without a key"
	}
	return "key"
}

// age is how old the keys in memory are.
func (e *environment) age() (time.Duration, bool) { return e.cache.Age() }

// What is promised, in figures.
const (
	fresh     = 5 * time.Minute // JWKS_TTL
	early     = fresh / 5       // with the table, keys are due at random up to this much earlier
	mostStale = time.Hour       // JWKS_MAX_STALE

	fetchLimit   = 3 * time.Second         // a fetch takes no longer, by whatever clock
	fullWait     = 3200 * time.Millisecond // for one fetch
	shortWait    = time.Second             // where old keys may serve
	tableCosts   = 350 * time.Millisecond  // the table's, at most
	spare        = 200 * time.Millisecond  // before the invocation's deadline
	patience     = 6 * time.Second         // of an invocation: the function's timeout
	lease        = 6 * time.Second
	comeBack     = time.Second      // after a lease an environment may come back to it, at random
	longest      = 30 * time.Second // back-off
	longestBare  = 10 * time.Second // the same while no key is usable
	refill       = 10 * time.Second // of the allowance for unknown kids
	burst        = 3
	young        = 10 * time.Second                    // a set sent for that lately may refuse a kid where no fetch is permitted
	afterOutages = fullWait + tableCosts + time.Second // until what was begun in an outage is over
)

// A model is the history of a world: what its issuer published and when it was well, what it was asked, what an
// environment answered. All times are wall-clock.
type model struct {
	rand      *rand.Rand // the driver's
	table     *storetest.Memory
	trouble   atomic.Int32 // of the table: none, it fails, its answers are lost
	shook     time.Time    // when that changed last
	emptied   time.Time    // when it was
	freezes   bool         // after each answer
	crowd     int          // callers at once
	strangers bool         // tokens come that name kids that never were
	fair      []weather    // how the issuer answers when it is well
	outages   bool         // it is not always

	ahead atomic.Int64 // what the wall clock is ahead of the timers, by freezing

	mu        sync.Mutex
	fates     *rand.Rand // of connections in a freeze
	kids      map[string]*life
	set       []string // published now
	weather   weather
	wellSince time.Time // zero: it is not
	hangSince time.Time // zero: it does not
	thaw      chan struct{}
	freezing  time.Duration // the last one
	thawed    time.Time     // when it ended
	requests  []*request    // of all environments
	calls     []*call       // of this environment

	env        *environment
	process    int     // of env; the neighbours' are negative
	luck       float64 // of env, from 0 to 1
	neighbours int
	forged     int

	last    memory         // what was in memory when the model last looked
	looked  time.Time      // when that was
	changed [2]time.Time   // between which looks it changed last
	kept    memory         // what was in memory when the round began
	round0  time.Time      // when the round began
	idle    time.Time      // since when nobody asks anything, by the clock of timers
	judged  int            // requests so far
	waits   [][2]time.Time // of 1 s or more, in vain, for keys that are due, in one hanging outage

	broken map[string]*breach // by invariant
	trace  []string
}

// A weather is how the issuer answers: its keys after a delay, or an error, or never.
type weather struct {
	name  string
	delay time.Duration
	err   bool // 503 or a reset, at once
	hangs bool
}

var (
	fair = []weather{{name: "fast", delay: 10 * time.Millisecond}, {name: "slow", delay: 1500 * time.Millisecond}, {name: "slower", delay: 2400 * time.Millisecond}}
	foul = []weather{{name: "503", delay: 10 * time.Millisecond, err: true}, {name: "reset", delay: 10 * time.Millisecond, err: true}, {name: "hang", hangs: true}}
)

func (w weather) well() bool { return !w.err && !w.hangs }

// A life is when a kid was published, and until when; zero: it still is.
type life struct{ from, until time.Time }

// A request is what the issuer saw of a fetch.
type request struct {
	process     int
	sent, ended time.Time // ended is zero while it is under way
	kids        []string  // published when it was sent
	fresh       bool      // the keys in memory were: it was for an unknown kid
	nearly      bool      // or they were when the search for it began, perhaps
	slept       bool      // the process was frozen meanwhile
	replaced    bool      // by a younger one
	outcome     string    // "ok", "failed", or "died" of a freeze
}

// A memory is what an environment has in memory: the set of the request sent then.
type memory struct {
	sent time.Time // zero: no keys
	kids []string
}

func (k memory) usable(now time.Time) bool { return !k.sent.IsZero() && now.Sub(k.sent) <= mostStale }
func (k memory) has(kid string, now time.Time) bool {
	return k.usable(now) && slices.Contains(k.kids, kid)
}

// bare says that no key may serve.
func (k memory) bare(now time.Time) bool { return !k.usable(now) || len(k.kids) == 0 }

// A call is an invocation.
type call struct {
	process       int
	kid, got      string
	begin, end    time.Time
	took, limit   time.Duration // limit is the time until its deadline
	before, after memory
	wellSince     time.Time // zero: the issuer was not, or not throughout
	hangSince     time.Time // zero: it did not, or not throughout
	weather       weather   // when it began
	steady        bool      // it did not change
}

// full says that the call had all the time that there is.
func (c *call) full() bool { return c.limit == patience }

// everythingWithdrawn says that the set in memory is the empty one.
func (c *call) everythingWithdrawn() bool { return c.after.usable(c.end) && len(c.after.kids) == 0 }

// inVain says that no newer keys came.
func (c *call) inVain() bool { return c.after.sent.Equal(c.before.sent) }
func (c *call) String() string {
	return fmt.Sprintf("%s for %s after %v", c.got, c.kid, c.took)
}

// now is the wall clock.
func (m *model) now() time.Time { return time.Now().Round(0).Add(time.Duration(m.ahead.Load())) }

// due is the age at which the keys of this process are.
func (m *model) due() time.Duration {
	if m.table != nil {
		return fresh - time.Duration(m.luck*float64(early))
	}
	return fresh
}

// extra is what the table may add to a wait.
func (m *model) extra() time.Duration {
	if m.table != nil {
		return tableCosts
	}
	return 0
}

// note and breaks are called with mu held.
func (m *model) note(format string, args ...any) {
	m.trace = append(m.trace, m.now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// The issuer, and the network before it.

// A wire is how one process reaches the issuer.
type wire struct {
	*model
	process int
	due     time.Duration // age of its keys
	age     func() (time.Duration, bool)
}

// RoundTrip answers by the wall clock, which a freeze does not stop: what came meanwhile lies in the socket after the
// thaw, unless the connection died.
func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	age, has := w.age()
	w.mu.Lock()
	now := w.now()
	q := &request{process: w.process, sent: now, kids: w.set, fresh: has && age < w.due, nearly: has && age < w.due+fetchLimit}
	for _, p := range w.requests {
		p.replaced = p.replaced || p.process == w.process && p.ended.IsZero()
	}
	w.requests = append(w.requests, q)
	weather := w.weather
	w.note("process %d asks the issuer: %s", w.process, weather.name)
	w.mu.Unlock()

	err := w.answer(r.Context(), now.Add(weather.delay), weather)

	w.mu.Lock()
	defer w.mu.Unlock()
	q.ended = w.now()
	q.slept = w.thawed.After(q.sent)
	switch {
	case q.replaced: // because the process slept
		q.outcome = "died"
	case err == nil && q.ended.Sub(q.sent) <= fetchLimit:
		q.outcome = "ok"
	case q.slept:
		q.outcome = "died"
	default:
		q.outcome = "failed"
	}
	w.note("process %d, asked %v ago: %s", w.process, q.ended.Sub(q.sent), q.outcome)
	if err != nil && weather.name != "503" {
		return nil, err
	}
	status := http.StatusOK
	if err != nil {
		status = http.StatusServiceUnavailable
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(bytes.NewReader(keytest.Text(q.kids...))), Request: r}, nil
}

var errConnection = errors.New("connection reset")

// answer waits until at, or for whatever else becomes of the connection.
func (w *wire) answer(ctx context.Context, at time.Time, weather weather) error {
	for silent := weather.hangs; ; {
		w.mu.Lock()
		thaw := w.thaw
		w.mu.Unlock()
		var comes <-chan time.Time
		if !silent {
			comes = time.After(at.Sub(w.now()))
		}
		select {
		case <-comes:
			if weather.err {
				return errConnection
			}
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-thaw:
		}
		w.mu.Lock()
		later, fate := time.Duration(w.fates.IntN(2))*5*time.Millisecond, 0
		if w.freezing >= fetchLimit {
			fate = w.fates.IntN(3)
		}
		w.mu.Unlock()
		time.Sleep(later)
		if fate == 1 {
			return errConnection
		}
		silent = silent || fate == 2
	}
}

// The driver.

func newModel(seed uint64) *model {
	m := &model{
		rand: rand.New(rand.NewPCG(seed, 1)), fates: rand.New(rand.NewPCG(seed, 2)), freezes: seed&2 > 0, crowd: 1,
		kids: map[string]*life{}, thaw: make(chan struct{}), broken: map[string]*breach{},
	}
	if seed&1 > 0 {
		in := func(trouble int32) func(string) error {
			return func(string) error {
				if m.trouble.Load() == trouble {
					return errConnection
				}
				return nil
			}
		}
		m.table = &storetest.Memory{Latency: []time.Duration{6, 6, 40, 200}[seed>>4&3] * time.Millisecond, Fail: in(1), Lose: in(2)}
	}
	if seed&4 > 0 {
		m.crowd = 8
	}
	m.strangers = seed&8 > 0
	switch seed >> 6 & 3 {
	case 1:
		m.fair = fair[1:2]
	case 2:
		m.fair = fair[2:3]
	default:
		m.fair, m.outages = fair, true
	}
	m.publish("new", "new")
	m.turn(m.next(m.outages && m.rand.IntN(2) == 0))
	return m
}

// next is how the issuer answers next, in an outage or not.
func (m *model) next(outage bool) weather {
	if outage {
		return foul[m.rand.IntN(len(foul))]
	}
	return m.fair[m.rand.IntN(len(m.fair))]
}

// publish replaces what the issuer publishes. "new" is a kid that never was.
func (m *model) publish(kids ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	for _, kid := range m.set {
		if !slices.Contains(kids, kid) {
			m.kids[kid].until = now
		}
	}
	for i, kid := range kids {
		if kid == "new" {
			kid = fmt.Sprint("k", len(m.kids))
			kids[i] = kid
		}
		if m.kids[kid] == nil {
			m.kids[kid] = &life{from: now}
		}
	}
	m.set = kids
	m.note("published: %v", kids)
}

// turn changes the weather for requests that are sent from now on.
func (m *model) turn(w weather) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.weather = w
	since := func(t *time.Time, is bool) {
		switch {
		case !is:
			*t = time.Time{}
		case t.IsZero():
			*t = m.now()
		}
	}
	since(&m.wellSince, w.well())
	since(&m.hangSince, w.hangs)
	m.note("weather: %s", w.name)
}

// begin starts a process, instead of the one that is there.
func (m *model) begin() {
	m.process++
	m.last, m.changed, m.waits = memory{}, [2]time.Time{m.now(), m.now()}, nil
	m.luck = m.rand.Float64()
	w := &wire{model: m, process: m.process, due: m.due()}
	m.env = newEnvironment(&http.Client{Transport: w}, m.table, m.now, m.luck)
	w.age = m.env.age
	m.mu.Lock()
	well, now := m.wellSince, m.now()
	m.mu.Unlock()
	start := time.Now()
	m.env.start()
	took := time.Since(start)
	m.idle = time.Now()
	synctest.Wait()
	m.look()
	m.judgeStart(well, &call{process: m.process, limit: patience, begin: now, end: now.Add(took), took: took, after: m.last})
}

func (m *model) asked() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.requests)
}

// neighbour is another process that shares the table: it starts, is asked for the newest kid, and ends.
func (m *model) neighbour() {
	m.neighbours++
	w := &wire{model: m, process: -m.neighbours, due: fresh}
	e := newEnvironment(&http.Client{Transport: w}, m.table, m.now, 0)
	w.age = e.age
	e.start()
	if kids := m.published(); len(kids) > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		e.ask(ctx, kids[len(kids)-1])
	}
}

// ghost is another process that takes the lease and is never heard of again. For the model it is one whose fetch died.
func (m *model) ghost() {
	m.neighbours++
	now := m.now()
	end, err := m.table.Issuer("https://issuer.example", keytest.URI).Take(context.Background(), now)
	if err != nil || !end.IsZero() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.requests = append(m.requests, &request{process: -m.neighbours, sent: now, ended: now, outcome: "died"})
		m.note("process %d takes the lease", -m.neighbours)
	}
}

func (m *model) published() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.set
}

// pass lets time pass between two invocations: frozen, if this world freezes.
func (m *model) pass(d time.Duration) {
	if !m.freezes {
		time.Sleep(d)
		return
	}
	d = max(d, time.Second)
	m.mu.Lock()
	m.ahead.Add(int64(d))
	m.freezing, m.thawed = d, m.now()
	close(m.thaw)
	m.thaw = make(chan struct{})
	m.note("frozen for %v", d)
	m.mu.Unlock()
	synctest.Wait()
}

// memory is what is in memory. A reply that took longer than 3 s by the wall clock is thrown away.
func (m *model) memory() memory {
	age, ok := m.env.age()
	if !ok {
		return memory{}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	sent := m.now().Add(-age)
	for _, q := range slices.Backward(m.requests) {
		if q.sent.UnixMilli() == sent.UnixMilli() && q.outcome == "ok" { // the table cuts the rest off
			return memory{sent, q.kids}
		}
	}
	m.breaks("late reply", "the keys are said to be of %v, when nobody asked who was answered within 3 s", sent)
	return memory{sent: sent}
}

// A plan is an invocation to come.
type plan struct {
	token        token
	after, limit time.Duration
}

func (m *model) invoke(p plan) *call {
	time.Sleep(p.after)
	ctx, cancel := context.WithTimeout(context.Background(), p.limit)
	defer cancel()
	c := &call{process: m.process, kid: m.kid(p.token), limit: p.limit, before: m.memory()}
	m.mu.Lock()
	c.begin, c.wellSince, c.hangSince, c.weather = m.now(), m.wellSince, m.hangSince, m.weather
	m.mu.Unlock()
	start := time.Now()
	c.got = m.env.ask(ctx, c.kid)
	c.took, c.after = time.Since(start), m.memory()
	m.mu.Lock()
	defer m.mu.Unlock()
	c.end = m.now()
	c.steady = c.weather == m.weather
	if !c.wellSince.Equal(m.wellSince) {
		c.wellSince = time.Time{}
	}
	if !c.hangSince.Equal(m.hangSince) {
		c.hangSince = time.Time{}
	}
	m.note("%v", c)
	return c
}

// round has the invocations take place, and what happens while they do, at the latest when all are answered. It then
// holds the outcome against every invariant.
func (m *model) round(plans []plan, at time.Duration, happen func()) {
	m.look()
	m.round0, m.kept = m.now(), m.last
	reads := m.env.reads.Load()
	asked, uses := m.asked(), storetest.Counts{}
	if m.table != nil {
		uses = m.table.Counts()
	}
	calls := make([]*call, len(plans))
	var callers, all sync.WaitGroup
	answered := make(chan struct{})
	for i, p := range plans {
		callers.Go(func() { calls[i] = m.invoke(p) })
	}
	if happen != nil {
		all.Go(func() {
			select {
			case <-time.After(at):
			case <-answered:
			}
			happen()
		})
	}
	callers.Wait()
	close(answered)
	all.Wait()
	synctest.Wait()

	m.mu.Lock()
	slices.SortFunc(calls, func(a, b *call) int { return a.end.Compare(b.end) })
	used := len(m.requests) > asked || m.table != nil && m.table.Counts() != uses
	if quiet := happen == nil && time.Since(m.idle) > 5*time.Second; quiet && used && !slices.ContainsFunc(calls, func(c *call) bool { return !m.fresh(c) }) {
		m.breaks("fresh", "keys in memory were all that was asked for, and the issuer or the table was asked")
	}
	if m.table != nil && m.env.reads.Load() > reads && m.now().Before(m.settled()) {
		m.breaks("settled", "the shared copy was read, although its keys were sent for within the present lease")
	}
	for _, c := range calls {
		for _, i := range invariants {
			if wrong := i.holds(m, c); wrong != "" {
				m.breaks(i.name, "%s (%v)", wrong, c)
			}
		}
		m.calls = append(m.calls, c)
	}
	m.mu.Unlock()
	m.look()
	m.judgeRequests()
	m.idle = time.Now()
}

// look notes when the keys in memory change.
func (m *model) look() {
	now, keys := m.now(), m.memory()
	m.mu.Lock()
	defer m.mu.Unlock()
	if keys.sent.UnixMilli() < m.last.sent.UnixMilli() {
		m.breaks("no older set", "keys of %v replaced those of %v", keys.sent, m.last.sent)
	}
	if !keys.sent.Equal(m.last.sent) {
		m.changed, m.waits = [2]time.Time{m.looked, now}, nil
	}
	m.last, m.looked = keys, now
}

// A breach is how often an invariant was broken, and what led to the first time.
type breach struct {
	times int
	trace []string
}

func (m *model) breaks(invariant, format string, args ...any) {
	m.note("BROKEN "+invariant+": "+format, args...)
	if m.broken[invariant] == nil {
		m.broken[invariant] = &breach{trace: slices.Clone(m.trace[max(0, len(m.trace)-40):])}
	}
	m.broken[invariant].times++
}

// play is steps of what may happen.
func (m *model) play(steps int) {
	defer time.Sleep(10 * time.Second) // what is under way ends
	m.begin()
	for range steps {
		if m.rand.IntN(50) == 0 {
			m.begin()
		}
		m.pass(m.pause())
		happen := m.event()
		at := m.within(0, 3*time.Second)
		if happen != nil && m.rand.IntN(3) == 0 { // before the invocations
			happen()
			happen, m.idle = nil, time.Now()
		}
		plans := make([]plan, m.crowd)
		for i := range plans {
			plans[i] = plan{m.token(), 0, patience}
			if m.crowd > 1 {
				plans[i].after = m.within(0, 2*time.Second)
			}
			if m.rand.IntN(12) == 0 {
				plans[i].limit = m.within(700*time.Millisecond, 5*time.Second)
			}
		}
		m.round(plans, at, happen)
	}
}

func (m *model) within(from, to time.Duration) time.Duration {
	return from + time.Duration(m.rand.Int64N(int64(to-from)))
}

func (m *model) pause() time.Duration {
	switch n := m.rand.IntN(30); {
	case n < 10:
		return m.within(0, 3*time.Second)
	case n < 18:
		return m.within(3*time.Second, 12*time.Second)
	case n < 23:
		return m.within(12*time.Second, time.Minute)
	case n < 29:
		return m.within(time.Minute, 6*time.Minute)
	}
	return m.within(6*time.Minute, 70*time.Minute)
}

// A token says which kid the next invocation's names, when it comes.
type token int

const (
	newest token = iota
	oldest
	withdrawn // though still in memory, if there is such a kid
	forged
)

func (m *model) token() token {
	if m.strangers && m.rand.IntN(10) == 0 {
		return forged
	}
	return []token{newest, newest, oldest, withdrawn}[m.rand.IntN(4)]
}

func (m *model) kid(which token) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if which == withdrawn {
		for _, kid := range m.last.kids {
			if !slices.Contains(m.set, kid) {
				return kid
			}
		}
		which = oldest
	}
	if which == forged || len(m.set) == 0 {
		m.forged++
		return fmt.Sprint("forged", m.forged)
	}
	if which == oldest {
		return m.set[0]
	}
	return m.set[len(m.set)-1]
}

// event is what the world does next; nil: nothing.
func (m *model) event() func() {
	well := m.weather.well()
	switch n := m.rand.IntN(20); {
	case n < 4: // a rotation
		return m.rotate
	case n == 4: // everything before is withdrawn
		return func() { m.publish("new") }
	case n == 5 && m.rand.IntN(4) == 0:
		return func() { m.publish() }
	case n < 9 && !well, n == 9: // an outage ends, or the issuer is slower or faster
		next := m.next(false)
		return func() { m.turn(next) }
	case n == 6 && m.outages: // one begins
		next := m.next(true)
		return func() { m.turn(next) }
	case n < 13 && m.table != nil:
		return m.neighbour
	case n == 13 && m.table != nil:
		next := int32(0)
		if m.trouble.Load() == 0 {
			next = 1 + m.rand.Int32N(2)
		}
		return func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.trouble.Store(next)
			m.shook = m.now()
			m.note("the table's trouble: %v", next)
		}
	case n == 14 && m.table != nil:
		if m.rand.IntN(2) == 0 {
			return m.ghost
		}
		m.haunted()
	case n == 15 && well && m.outages:
		m.blip()
	case n == 16 && m.outages && m.rand.IntN(2) == 0:
		m.outage()
	}
	return nil
}

// outage is one that several fetches meet, perhaps from a process's start on. When it ends, a neighbour is first.
func (m *model) outage() {
	m.turn(m.next(true))
	if m.rand.IntN(2) == 0 {
		m.begin()
	}
	for range 3 + m.rand.IntN(4) {
		m.pass(m.within(12*time.Second, 40*time.Second))
		m.round([]plan{{forged, 0, patience}}, 0, nil)
	}
	m.turn(m.next(false))
	if m.table != nil {
		m.pass(m.within(lease, 2*lease))
		m.neighbour()
	}
	m.pass(m.within(lease, 2*longestBare))
}

// haunted is the start of a process that finds the lease taken, and no keys.
func (m *model) haunted() {
	m.pass(lease)
	m.table.SetItem("https://issuer.example", keytest.URI, storetest.Item{})
	m.emptied = m.now()
	m.ghost()
	m.begin()
	m.pass(m.within(time.Second, fetchLimit))
	m.round([]plan{{newest, 0, patience}}, 0, nil)
}

// blip is an outage that a single fetch meets, and a rotation soon after.
func (m *model) blip() {
	before := m.weather
	m.turn(foul[0])
	m.round([]plan{{forged, 0, patience}}, 0, nil)
	m.turn(before)
	m.pass(m.within(0, 4*time.Second))
	m.rotate()
	m.pass(lease + m.within(0, 4*time.Second))
	m.round([]plan{{newest, 0, patience}}, 0, nil)
}

func (m *model) rotate() {
	kids := m.published()
	m.publish(append(slices.Clone(kids[max(0, len(kids)-1):]), "new")...)
}

// What the invariants speak of.

// fresh says that nothing had to be asked for.
func (m *model) fresh(c *call) bool {
	return c.before.has(c.kid, c.begin) && c.begin.Sub(c.before.sent) < m.due()
}

// wasDue says that the keys in memory were, or that there were none.
func (m *model) wasDue(c *call) bool {
	return !c.before.usable(c.begin) || c.begin.Sub(c.before.sent) >= m.due()
}

// publishedThroughout says that the kid was published since before the call began and throughout.
func (m *model) publishedThroughout(c *call) bool {
	k := m.kids[c.kid]
	return k != nil && k.from.Before(c.begin) && (k.until.IsZero() || k.until.After(c.end))
}

// forgedKid says that the kid never was published.
func (m *model) forgedKid(c *call) bool { return m.kids[c.kid] == nil }

// wellFor says that the issuer was well for d before the call, and throughout.
func (c *call) wellFor(d time.Duration) bool {
	return !c.wellSince.IsZero() && c.begin.Sub(c.wellSince) >= d
}

// leased says that a lease may have stood in the call's way: another's, or one that this process took before.
func (m *model) leased(c *call) bool {
	return m.table != nil && slices.ContainsFunc(m.requests, func(q *request) bool {
		return q.sent.After(c.begin.Add(-lease-comeBack-tableCosts)) && (q.sent.Before(c.begin) || q.process != c.process && !q.sent.After(c.end))
	})
}

// leasedByOthers says that another's may have.
func (m *model) leasedByOthers(c *call) bool {
	return m.table != nil && slices.ContainsFunc(m.requests, func(q *request) bool {
		return q.process != c.process && q.sent.After(c.begin.Add(-lease-comeBack-tableCosts)) && !q.sent.After(c.end)
	})
}

// notPermitted says that no fetch for an unknown kid may have been: a lease stood, or the allowance was used up.
func (m *model) notPermitted(c *call) bool {
	n := 0
	for _, q := range m.requests {
		if q.process == c.process && q.nearly && q.outcome == "ok" && q.sent.After(c.begin.Add(-burst*refill-fetchLimit)) && q.sent.Before(c.end) {
			n++
		}
	}
	return n >= burst || m.leased(c)
}

// proof says that the issuer was asked after the wait began, and answered.
func (m *model) proof(c *call) bool {
	return slices.ContainsFunc(m.requests, func(q *request) bool {
		return q.process == c.process && !q.sent.Before(c.begin) && q.outcome == "ok" && !q.ended.After(c.end)
	})
}

// gaveUp are the calls that waited for a fetch, or for the lease before it, and ended before the fetch, the last one first.
func (m *model) gaveUp(q *request) iter.Seq[*call] {
	return func(yield func(*call) bool) {
		for _, c := range slices.Backward(m.calls) { // in the order in which they ended
			if c.end.Before(q.sent.Add(-m.poll())) {
				return
			}
			if c.process == q.process && c.took > 0 && (q.ended.IsZero() || c.end.Before(q.ended)) && !yield(c) {
				return
			}
		}
	}
}

// counts is when a fetch counts as a failure, zero when it does not: when it has failed, or when a wait for it was given
// up in full. Which waits were is not for the model to say: early believes that all were, and late that none was where
// the fetch failed.
func (m *model) counts(q *request) (early, late time.Time) {
	if q.outcome == "failed" {
		early, late = q.ended, q.ended
	}
	for c := range m.gaveUp(q) {
		if late.IsZero() {
			late = c.end
		}
		if !early.IsZero() {
			early = c.end
		}
	}
	return early, late
}

// failures are how many fetches failed in a row until then, after a newer set had come, and when the last one did: those
// that surely count, at the earliest, or those that may, at the latest.
func (m *model) failures(until, since time.Time, surely bool) (n int, last time.Time) {
	for _, q := range m.requests {
		if q.process != m.process || !q.sent.Before(until) {
			continue
		}
		early, at := m.counts(q)
		if surely {
			at = early
		}
		if !at.IsZero() && !at.Before(since) && !at.After(until) {
			n++
			last = at
		}
	}
	return n, last
}

// poll is how long a process may wait for another's lease.
func (m *model) poll() time.Duration {
	if m.table != nil {
		return fetchLimit
	}
	return 0
}

// cutShort says that since then somebody gave up because an invocation ended, which counts as a failure.
func (m *model) cutShort(c *call, since time.Time) bool {
	for _, p := range slices.Backward(m.calls) {
		if p.end.Before(since) {
			return false
		}
		if p.process == c.process && !p.full() && p.took > 0 && p.inVain() {
			return true
		}
	}
	return false
}

// backoff is how long nothing is fetched after so many failures in a row. Chance takes up to a fifth of it.
func (m *model) backoff(failures int, bare bool) time.Duration {
	if failures == 0 {
		return 0
	}
	full := min(time.Second<<min(failures-1, 5), longest)
	if bare {
		full = min(full, longestBare)
	}
	return full - time.Duration(float64(full)*m.luck/5)
}

// undisturbed says that no back-off ran when the call began, counted exactly, and that nothing failed until its end.
func (m *model) undisturbed(c *call) bool {
	since := m.changed[0]
	if !c.before.sent.Equal(m.kept.sent) {
		since = m.round0
	}
	if m.table != nil && m.cutShort(c, since) { // the issuer may not have been asked
		return false
	}
	n, last := m.failures(c.begin, since, false)
	if c.begin.Before(last.Add(m.backoff(n, c.before.bare(c.begin)))) || !c.wellFor(0) {
		return false
	}
	return !slices.ContainsFunc(m.requests, func(q *request) bool {
		underWay := q.ended.IsZero() || q.ended.After(c.begin)
		return q.process == c.process && (underWay && q.sent.Before(c.wellSince) || q.outcome == "failed" && underWay && !q.ended.After(c.end))
	})
}

// diedLast says that the last fetch before the call died of a freeze.
func (m *model) diedLast(c *call) bool {
	last := &request{}
	for _, q := range m.requests {
		if q.process == c.process && !q.ended.IsZero() && !q.ended.After(c.begin) && q.ended.After(last.ended) {
			last = q
		}
	}
	return last.outcome == "died"
}

// refused says that a fault came of a kid although the issuer could be asked about it, and would have known.
func (m *model) refused(c *call) string {
	switch {
	case c.got != "fault" || !c.full() || c.everythingWithdrawn():
	case m.publishedThroughout(c):
		return "a valid token is refused"
	case m.forgedKid(c):
		return "nobody told that there is no such kid"
	}
	return ""
}

// attempted is the last call before c that may have had keys that were due already renewed.
func (m *model) attempted(c *call, from time.Time) *call {
	for _, p := range slices.Backward(m.calls) {
		if p.process != c.process || p.after.sent.Before(c.before.sent) {
			break
		}
		if !p.end.After(c.begin) && p.full() && m.wasDue(p) && p.before.sent.Equal(c.before.sent) &&
			!p.begin.Before(from) && p.wellSince.Equal(c.wellSince) && p.wellFor(longest+afterOutages) && !m.cutShort(p, p.wellSince) && !m.leasedByOthers(p) {
			return p
		}
	}
	return nil
}

// The invariants of an invocation: docs/shared-keys.md's sentences on how keys are cached. Each says what is wrong, or nothing.
var invariants = []struct {
	name  string
	holds func(*model, *call) string
}{
	{"fresh", (*model).freshKeysCostNothing},
	{"old keys serve", (*model).oldKeysServe},
	{"rotation", (*model).rotationCostsNothing},
	{"outage ends", (*model).outageEnds},
	{"bare outage ends", (*model).bareOutageEnds},
	{"lease frees up", (*model).freeLeaseIsTaken},
	{"back-off", (*model).backoffIsForgotten},
	{"freeze", (*model).freezeIsNoFailure},
	{"proof", (*model).rejectionIsProven},
	{"renewed", (*model).dueKeysAreRenewed},
	{"withdrawn", (*model).withdrawnKeysEnd},
	{"empty", (*model).emptySetRefuses},
	{"wait", (*model).waitIsShort},
	{"waits", (*model).waitsAreSeldom},
	{"table", (*model).tableCostsLittle},
}

// Fresh: no request to the issuer, except for an unknown kid, and no time. (That the table is not asked either, round looks.)
func (m *model) freshKeysCostNothing(c *call) string {
	if m.fresh(c) && c.took > 0 {
		return "keys in memory were fresh, and somebody waited"
	}
	return ""
}

// Outage: the old keys serve for JWKS_MAX_STALE, never longer.
func (m *model) oldKeysServe(c *call) string {
	switch {
	case c.before.has(c.kid, c.begin) && c.inVain() && c.after.usable(c.end) && c.got != "key":
		return "old keys did not serve"
	case c.got == "key" && !c.after.usable(c.end):
		return fmt.Sprintf("keys of %v served", c.end.Sub(c.after.sent))
	}
	return ""
}

// Unknown kid: the issuer is asked at once, so a rotation costs no failed request, except for a kid used within 10 s of its
// publication where no fetch is permitted.
func (m *model) rotationCostsNothing(c *call) string {
	if !m.publishedThroughout(c) {
		return ""
	}
	published := c.begin.Sub(m.kids[c.kid].from)
	switch joined := !c.inVain() && c.after.sent.Before(c.begin); {
	case c.got == "unknown" && !(m.notPermitted(c) && c.end.Sub(m.kids[c.kid].from) < young):
		return fmt.Sprintf("a valid token is rejected, its kid published %v before", published)
	case c.got == "fault" && c.full() && c.wellFor(0) && joined && c.everythingWithdrawn() && !m.notPermitted(c):
		return fmt.Sprintf("a valid token is refused, its kid published %v before", published)
	}
	return ""
}

// An outage is over 30 s after it ended.
func (m *model) outageEnds(c *call) string {
	wrong := m.refused(c)
	if wrong == "" || m.notPermitted(c) || !c.wellFor(longest+afterOutages) || m.cutShort(c, c.wellSince) {
		return ""
	}
	return wrong
}

// While no key is usable, an outage is over 10 s after it ended.
func (m *model) bareOutageEnds(c *call) string {
	wrong := m.refused(c)
	if wrong == "" || m.notPermitted(c) || !c.before.bare(c.begin) || !c.wellFor(longestBare+afterOutages) || m.cutShort(c, c.wellSince) {
		return ""
	}
	return wrong
}

// A request that waits takes a lease that frees up, while no key is usable.
func (m *model) freeLeaseIsTaken(c *call) string {
	wrong := m.refused(c)
	if wrong == "" || !c.before.bare(c.begin) || !c.steady || !c.wellFor(longestBare+afterOutages) || m.cutShort(c, c.wellSince) || !m.tableWell(c.end) {
		return ""
	}
	at := c.begin
	if m.crowd == 1 { // nobody else began to wait earlier
		at = at.Add(min(fetchLimit, fullWait+tableCosts-c.weather.delay) - time.Second/2)
	}
	for i, q := range m.requests {
		if !q.sent.After(c.end) && q.sent.Add(m.standsAtMost(i)+m.table.Latency).After(at) {
			return ""
		}
	}
	return wrong
}

// standsAtMost is how long a lease does at most.
func (m *model) standsAtMost(request int) time.Duration {
	for _, p := range slices.Backward(m.requests[:request]) {
		if p.sent.Sub(m.shook) < longest+afterOutages || m.requests[request].outcome != "failed" {
			break
		}
		if p.outcome == "ok" {
			return m.stands(request)
		}
	}
	return lease
}

// After a failed fetch the next comes 1 s later, then 2 s, up to 30 s. Any newer set, from wherever, ends that.
func (m *model) backoffIsForgotten(c *call) string {
	wrong := m.refused(c)
	if wrong == "" || m.notPermitted(c) || m.diedLast(c) || !c.before.usable(c.begin) || !m.undisturbed(c) {
		return ""
	}
	return wrong
}

// A fetch that died of a freeze tells nothing about the issuer.
func (m *model) freezeIsNoFailure(c *call) string {
	wrong := m.refused(c)
	if wrong == "" || m.notPermitted(c) || !m.diedLast(c) || !m.undisturbed(c) {
		return ""
	}
	return wrong
}

// A token is rejected only if this process asked the issuer after the wait began, or, where no fetch is permitted, if the
// keys are younger than 10 s. A kid that never was is never good.
func (m *model) rejectionIsProven(c *call) string {
	switch {
	case c.got == "key" && m.forgedKid(c):
		return "a key that never was"
	case c.got == "unknown" && !m.proof(c) && !(m.notPermitted(c) && c.after.usable(c.end) && c.end.Sub(c.after.sent) < young):
		return fmt.Sprintf("rejected without proof, by keys of %v", c.end.Sub(c.after.sent))
	case c.got != "key" && c.got != "unknown" && c.got != "fault":
		return "not an answer"
	}
	return ""
}

// While the issuer answers within 2.5 s, keys that are due are renewed by the second request at the latest, whatever the
// freezing, with the table as without.
func (m *model) dueKeysAreRenewed(c *call) string {
	if p := m.attempted(c, time.Time{}); p != nil && c.full() && c.wellFor(0) && c.inVain() && !m.leasedByOthers(c) {
		return fmt.Sprintf("keys of %v were not renewed, as %v before", c.end.Sub(c.after.sent), c.begin.Sub(p.end))
	}
	return ""
}

// A withdrawn key is refused after JWKS_TTL and the back-off, while the issuer can be reached.
func (m *model) withdrawnKeysEnd(c *call) string {
	k := m.kids[c.kid]
	if c.got != "key" || k == nil || k.until.IsZero() || !c.full() || !c.wellFor(0) || m.leasedByOthers(c) || m.attempted(c, k.until.Add(fresh)) == nil {
		return ""
	}
	return fmt.Sprintf("withdrawn %v ago, and good", c.end.Sub(k.until))
}

// Everything withdrawn refuses everything, as a fault.
func (m *model) emptySetRefuses(c *call) string {
	if c.everythingWithdrawn() && (c.got == "unknown" || c.got == "key" && c.inVain()) {
		return "the set is empty"
	}
	return ""
}

// Due: a request waits a second at most; in full if since the last keys a search failed, was given up or died of a freeze,
// or as the holder of the lease. An unknown kid may wait for a fetch that it joined and one of its own. Nobody waits into
// the last 200 ms before the deadline. The table adds 350 ms at most.
func (m *model) waitIsShort(c *call) string {
	limit := 2 * (fullWait + m.extra())
	switch known := c.before.has(c.kid, c.begin.Add(shortWait+m.extra())) && (c.inVain() || c.after.has(c.kid, c.end)); {
	case known && (m.inVainBefore(c) || m.leasedByUs(c)):
		limit = fullWait + m.extra()
	case known:
		limit = shortWait + m.extra()
	}
	if c.took > min(limit, c.limit-spare) {
		return fmt.Sprintf("longer than %v", min(limit, c.limit-spare))
	}
	return ""
}

// inVainBefore says that since the last keys a search failed, was given up or died of a freeze.
func (m *model) inVainBefore(c *call) bool {
	return slices.ContainsFunc(m.calls, func(p *call) bool {
		return p.process == c.process && p.took > 0 && p.inVain() && !p.after.sent.After(c.before.sent) && !p.end.After(c.begin)
	}) || slices.ContainsFunc(m.requests, func(q *request) bool {
		return q.process == c.process && q.sent.After(c.before.sent) && q.sent.Before(c.begin) && (q.outcome == "failed" || m.thawed.After(q.sent)) && !q.ended.After(c.end)
	})
}

// leasedByUs says that the process was asking the issuer under a lease during the call.
func (m *model) leasedByUs(c *call) bool {
	return m.table != nil && slices.ContainsFunc(m.requests, func(q *request) bool {
		return q.process == c.process && !q.sent.After(c.end) && (q.ended.IsZero() || !q.ended.Before(c.begin))
	})
}

// After a full wait in vain there are only full ones until one succeeds, at distances of 1 s doubling to 30 s.
func (m *model) waitsAreSeldom(c *call) string {
	switch last := len(m.waits) - 1; {
	case c.took < shortWait || !c.inVain() || !c.before.has(c.kid, c.begin) || c.hangSince.IsZero():
	case last < 0 || m.waits[0][0].Before(c.hangSince):
		m.waits = [][2]time.Time{{c.begin, c.end}}
	case !c.begin.After(m.waits[last][1]): // waited together
		m.waits[last][1] = c.end
	case last > 0 && c.begin.Sub(m.waits[last][1]) < m.backoff(last, false) && !m.cutShort(c, c.hangSince):
		return fmt.Sprintf("wait %d in an outage is %v after the one before", last+2, c.begin.Sub(m.waits[last][1]))
	default:
		m.waits = append(m.waits, [2]time.Time{c.begin, c.end})
	}
	return ""
}

// The table is an optimisation, never a dependency: it costs 350 ms at most in each of the two searches that a call may wait for, except
// that while no key may serve another's fetch is waited for like one's own.
// Without a table a call waits for the issuer's answers alone, and for none that was asked for before a freeze.
func (m *model) tableCostsLittle(c *call) string {
	rest, until := c.took, c.begin
	for _, q := range m.requests { // in the order in which they were sent
		from, to := q.sent, q.ended
		if from.Before(until) {
			from = until
		}
		if to.IsZero() || to.After(c.end) {
			to = c.end
		}
		if q.process == c.process && to.After(from) && !m.frozen(q, c) {
			rest, until = rest-to.Sub(from), to
		}
	}
	most := m.extra()
	if most > 0 && (c.before.bare(c.begin) || c.everythingWithdrawn()) && m.leased(c) {
		most = fetchLimit
	}
	if rest > 2*most {
		return fmt.Sprintf("%v were not for the issuer", rest)
	}
	return ""
}

// frozen says that the process was frozen after it had sent q and before c.
func (m *model) frozen(q *request, c *call) bool {
	return m.thawed.After(q.sent) && !m.thawed.After(c.begin)
}

// At start all issuers are asked, 3 s in all.
func (m *model) judgeStart(well time.Time, c *call) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case c.took > fullWait+m.extra():
		m.breaks("start", "it took %v", c.took)
	case !well.IsZero() && well.Equal(m.wellSince) && !m.leased(c) && m.last.sent.IsZero():
		m.breaks("start", "the issuer is well, and there are no keys after %v", c.took)
	}
	m.calls = append(m.calls, c)
}

// judgeRequests holds what this process asked the issuer against what is allowed.
func (m *model) judgeRequests() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := m.judged; i < len(m.requests); i++ {
		if q := m.requests[i]; q.process == m.process {
			m.backsOff(q)
			m.isAllowed(i)
		}
		m.holdsLease(i)
	}
	m.judged = len(m.requests)
}

// After a failed fetch the next comes 1 s later, then 2 s, up to 30 s (10 s while no key is usable), or up to a fifth
// earlier by chance, whatever asks for it.
func (m *model) backsOff(q *request) {
	n, last := m.failures(q.sent, m.changed[1], true)
	if m.last.sent.Equal(m.kept.sent) && n > 0 && q.sent.Before(last.Add(m.backoff(n, m.kept.bare(q.sent)))) {
		m.breaks("requests", "asked %v after failure %d in a row", q.sent.Sub(last), n)
	}
}

// Unknown kids: three times in a row, and once more every 10 s. A fetch that fails is not charged.
func (m *model) isAllowed(newest int) {
	q, n := m.requests[newest], 0
	if !q.fresh || q.outcome != "ok" {
		return
	}
	for _, p := range slices.Backward(m.requests[:newest+1]) {
		if p.process != q.process || !p.fresh || p.outcome != "ok" || p.slept { // it may have been replaced before it was answered
			continue
		}
		if n++; n > burst+int((q.sent.Sub(p.sent)+fetchLimit)/refill) {
			m.breaks("allowance", "asked %d times for unknown kids in %v", n, q.sent.Sub(p.sent))
			return
		}
	}
}

// An environment takes the lease before it asks the issuer: nobody asks while another's stands. A table that is slow or fails, or did of
// late, is left alone.
func (m *model) holdsLease(newest int) {
	q := m.requests[newest]
	if !m.tableWell(q.sent) {
		return
	}
	for i, p := range m.requests[:newest] {
		if p.process != q.process && q.sent.Sub(m.taken(i)) < m.stands(i)-tableCosts {
			m.breaks("lease", "process %d asked %v after process %d", q.process, q.sent.Sub(p.sent), p.process)
		}
	}
}

// tableWell says that the table is fast and nothing ails it, nor did so lately that it may still be left alone.
func (m *model) tableWell(now time.Time) bool {
	return m.table != nil && m.table.Latency <= tableCosts/10 && m.trouble.Load() == 0 && now.Sub(m.shook) >= longest+afterOutages
}

// settled is until when there is nothing newer to be read when the round began: the process had the keys under a lease
// that it took, and shared them.
func (m *model) settled() (until time.Time) {
	for i, q := range m.requests {
		shared := q.ended.Add(2 * m.table.Latency)
		if q.process == m.process && q.outcome == "ok" && m.tableWell(q.sent) && shared.Before(m.round0) && (m.thawed.Before(q.sent) || m.thawed.Add(-m.freezing).After(shared)) {
			until = m.taken(i).Add(lease - 2*m.table.Latency)
		}
	}
	return until
}

// taken is when the lease for a request was, at the latest: that of one that died of a freeze is good for another.
func (m *model) taken(request int) time.Time {
	q := m.requests[request]
	at := q.sent
	for _, p := range m.requests[:request] {
		if p.process == q.process && p.outcome == "died" && p.sent.After(q.sent.Add(-lease)) && p.sent.Before(at) {
			at = p.sent
		}
	}
	return at
}

// stands is how long a lease does at least: 6 s, and after failures in a row 1 s, 2 s, 4 s.
func (m *model) stands(request int) time.Duration {
	n := 0
	for _, p := range slices.Backward(m.requests[:request+1]) {
		if unheard := p.sent.Sub(m.shook) < longest+afterOutages || p.sent.Before(m.emptied); n > 0 && (unheard || p.outcome == "ok") {
			break
		}
		if p.outcome == "failed" {
			n++
		} else if n == 0 {
			return lease
		}
	}
	return min(time.Second<<min(n-1, 3), lease)
}

// A seed is a world: its lowest bits say whether there is a table, whether the process freezes, whether callers are eight,
// whether forged kids come; the next two how slow the table is, and two more whether the issuer is always slow.
func TestModel(t *testing.T) {
	t.Parallel()
	const worlds, parts, steps = 768, 4, 60
	for part := range parts {
		t.Run(fmt.Sprint(part), func(t *testing.T) {
			t.Parallel()
			for seed := part; seed < worlds; seed += parts {
				t.Run(fmt.Sprint(seed), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						m := newModel(uint64(seed))
						m.play(steps)
						m.judge(t)
					})
				})
			}
		})
	}
}

// judge fails the test for what is broken.
func (m *model) judge(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(m.broken)) {
		b := m.broken[name]
		t.Errorf("%s is broken %d times, first:\n%s", name, b.times, strings.Join(b.trace, "\n"))
	}
}
