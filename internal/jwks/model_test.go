package jwks_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

	"zuplo-lambda-authorizer/internal/jwks"
	"zuplo-lambda-authorizer/internal/jwks/storetest"
)

// The adapter: all that the model knows of the code. An environment is one process with its cache of one issuer's keys.
type environment struct{ cache *jwks.Cache }

// newEnvironment has a process that asks the issuer through client, shares keys in table unless that is nil, and reads
// the wall clock from now.
func newEnvironment(client *http.Client, table *storetest.Memory, now func() time.Time) *environment {
	c := &jwks.Cache{
		URI: "https://issuer.example/jwks.json", Client: client, TTL: fresh, MaxStale: mostStale, Now: now, Log: slog.New(slog.DiscardHandler),
	}
	if table != nil {
		c.Store = table.Issuer("https://issuer.example", c.URI)
	}
	return &environment{c}
}

// start fetches the keys before the first invocation.
func (e *environment) start() { _ = e.cache.Refresh(context.Background()) }

// ask says what comes of a token that names kid: "key", "unknown" or "fault".
func (e *environment) ask(ctx context.Context, kid string) string {
	fit, known, err := e.cache.Verifiers(ctx, kid, "EdDSA")
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
	fresh       = 5 * time.Minute // JWKS_TTL
	freshShared = fresh * 4 / 5   // with the table, the first environment is due at this age
	mostStale   = time.Hour       // JWKS_MAX_STALE

	fetchLimit   = 3 * time.Second         // a fetch takes no longer, by whatever clock
	fullWait     = 3200 * time.Millisecond // for one fetch
	shortWait    = time.Second             // where old keys may serve
	tableCosts   = 350 * time.Millisecond  // the table's, at most
	spare        = 200 * time.Millisecond  // before the invocation's deadline
	patience     = 6 * time.Second         // of an invocation: the function's timeout
	lease        = 6 * time.Second
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
	shaky     atomic.Bool // the table fails
	shook     time.Time   // when that changed last
	freezes   bool        // after each answer
	crowd     int         // callers at once
	strangers bool        // tokens come that name kids that never were

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
	process    int // of env; the neighbours' are negative
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

var weathers = []weather{
	{name: "fast", delay: 10 * time.Millisecond}, {name: "slow", delay: 1500 * time.Millisecond}, {name: "slower", delay: 2400 * time.Millisecond},
	{name: "503", delay: 10 * time.Millisecond, err: true}, {name: "reset", delay: 10 * time.Millisecond, err: true}, {name: "hang", hangs: true},
}

func (w weather) well() bool { return !w.err && !w.hangs }

// A life is when a kid was published, and until when; zero: it still is.
type life struct{ from, until time.Time }

// A request is what the issuer saw of a fetch.
type request struct {
	process     int
	sent, ended time.Time // ended is zero while it is under way
	kids        []string  // published when it was sent
	early       bool      // the keys in memory were fresh: it was for an unknown kid
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

// A call is an invocation.
type call struct {
	process       int
	kid, got      string
	begin, end    time.Time
	took, limit   time.Duration // limit is the time until its deadline
	before, after memory
	wellSince     time.Time // zero: the issuer was not, or not throughout
	hangSince     time.Time // zero: it did not, or not throughout
}

// full says that the call had all the time that there is.
func (c *call) full() bool { return c.limit == patience }

// clearlyDue says that the keys were due, whatever chance makes of it.
func (c *call) clearlyDue() bool {
	return !c.before.usable(c.begin) || c.begin.Sub(c.before.sent) >= fresh
}

// everythingWithdrawn says that the set in memory is the empty one.
func (c *call) everythingWithdrawn() bool { return c.after.usable(c.end) && len(c.after.kids) == 0 }

// inVain says that no newer keys came.
func (c *call) inVain() bool { return c.after.sent.Equal(c.before.sent) }
func (c *call) String() string {
	return fmt.Sprintf("%s for %s after %v", c.got, c.kid, c.took)
}

// now is the wall clock.
func (m *model) now() time.Time { return time.Now().Round(0).Add(time.Duration(m.ahead.Load())) }

func (m *model) earliestDue() time.Duration {
	if m.table != nil {
		return freshShared
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
	age     func() (time.Duration, bool)
}

// RoundTrip answers by the wall clock, which a freeze does not stop: what came meanwhile lies in the socket after the
// thaw, unless the connection died.
func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	age, has := w.age()
	w.mu.Lock()
	now := w.now()
	q := &request{process: w.process, sent: now, kids: w.set, early: has && age < w.earliestDue()}
	w.requests = append(w.requests, q)
	weather := w.weather
	w.note("process %d asks the issuer: %s", w.process, weather.name)
	w.mu.Unlock()

	err := w.answer(r.Context(), now.Add(weather.delay), weather)

	w.mu.Lock()
	defer w.mu.Unlock()
	q.ended = w.now()
	slept := w.thawed.After(q.sent)
	switch {
	case err == nil && q.ended.Sub(q.sent) <= fetchLimit:
		q.outcome = "ok"
	case slept:
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
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(modelSet(q.kids))), Request: r}, nil
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

var modelKey = base64.RawURLEncoding.EncodeToString(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public().(ed25519.PublicKey))

// modelSet is the text of a key set. All its keys are one, because nothing is verified here.
func modelSet(kids []string) string {
	keys := []map[string]string{}
	for _, kid := range kids {
		keys = append(keys, map[string]string{"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": modelKey})
	}
	text, _ := json.Marshal(map[string]any{"keys": keys}) // maps of strings: no error
	return string(text)
}

// The driver.

func newModel(seed uint64) *model {
	m := &model{
		rand: rand.New(rand.NewPCG(seed, 1)), fates: rand.New(rand.NewPCG(seed, 2)), freezes: seed&2 > 0, crowd: 1,
		kids: map[string]*life{}, thaw: make(chan struct{}), broken: map[string]*breach{},
	}
	if seed&1 > 0 {
		m.table = &storetest.Memory{Latency: []time.Duration{6, 6, 40, 200}[seed>>4&3] * time.Millisecond, Fail: func(string) error {
			if m.shaky.Load() {
				return errConnection
			}
			return nil
		}}
	}
	if seed&4 > 0 {
		m.crowd = 8
	}
	m.strangers = seed&8 > 0
	m.publish("new", "new")
	m.turn(weathers[m.rand.IntN(len(weathers))])
	return m
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
	w := &wire{model: m, process: m.process}
	m.env = newEnvironment(&http.Client{Transport: w}, m.table, m.now)
	w.age = m.env.age
	m.mu.Lock()
	well, now := m.wellSince, m.now()
	m.mu.Unlock()
	start := time.Now()
	m.env.start()
	synctest.Wait()
	m.look()
	m.judgeStart(well, now, time.Since(start))
}

func (m *model) asked() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.requests)
}

// neighbour is another process that shares the table: it starts, is asked for the newest kid, and ends.
func (m *model) neighbour() {
	m.neighbours++
	w := &wire{model: m, process: -m.neighbours}
	e := newEnvironment(&http.Client{Transport: w}, m.table, m.now)
	w.age = e.age
	e.start()
	if kids := m.published(); len(kids) > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		e.ask(ctx, kids[len(kids)-1])
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
	c.begin, c.wellSince, c.hangSince = m.now(), m.wellSince, m.hangSince
	m.mu.Unlock()
	start := time.Now()
	c.got = m.env.ask(ctx, c.kid)
	c.took, c.after = time.Since(start), m.memory()
	m.mu.Lock()
	defer m.mu.Unlock()
	c.end = m.now()
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
		m.broken[invariant] = &breach{trace: slices.Clone(m.trace[max(0, len(m.trace)-30):])}
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
		m.beClearlyDue()
		happen := m.event()
		at := m.within(0, 3*time.Second)
		if happen != nil && m.rand.IntN(3) == 0 { // before the invocations
			happen()
			happen = nil
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

// beClearlyDue passes the ages at which chance decides whether keys that are shared are due.
func (m *model) beClearlyDue() {
	age, ok := m.env.age()
	if m.table != nil && ok && age > freshShared-15*time.Second && age < fresh {
		m.pass(fresh - age)
	}
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
		next := weathers[m.rand.IntN(3)]
		return func() { m.turn(next) }
	case n == 6: // an outage begins
		next := weathers[3+m.rand.IntN(3)]
		return func() { m.turn(next) }
	case n < 13 && m.table != nil:
		return m.neighbour
	case n == 13 && m.table != nil:
		return func() {
			m.shaky.Store(!m.shaky.Load())
			m.shook = m.now()
		}
	case n == 15 && well:
		m.blip()
	case n == 16 && m.rand.IntN(2) == 0:
		m.outage()
	}
	return nil
}

// outage is one that several fetches meet, perhaps from a process's start on. When it ends, a neighbour is first.
func (m *model) outage() {
	m.turn(weathers[3+m.rand.IntN(3)])
	if m.rand.IntN(2) == 0 {
		m.begin()
	}
	for range 3 + m.rand.IntN(4) {
		m.pass(m.within(12*time.Second, 40*time.Second))
		m.round([]plan{{forged, 0, patience}}, 0, nil)
	}
	m.turn(weathers[m.rand.IntN(3)])
	if m.table != nil {
		m.pass(m.within(lease, 2*lease))
		m.neighbour()
	}
	m.pass(m.within(lease, 2*longestBare))
}

// blip is an outage that a single fetch meets, and a rotation soon after.
func (m *model) blip() {
	before := m.weather
	m.turn(weathers[3])
	m.round([]plan{{forged, 0, patience}}, 0, nil)
	m.turn(before)
	m.pass(m.within(0, 4*time.Second))
	m.rotate()
	m.pass(lease + m.within(0, 4*time.Second))
	m.beClearlyDue()
	m.round([]plan{{newest, 0, patience}}, 0, nil)
}

func (m *model) rotate() {
	kids := m.published()
	m.publish(append(slices.Clone(kids[max(0, len(kids)-1):]), "new")...)
}

// What the invariants speak of.

// fresh says that nothing had to be asked for.
func (m *model) fresh(c *call) bool {
	return c.before.has(c.kid, c.begin) && c.begin.Sub(c.before.sent) < m.earliestDue()
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
		return q.sent.After(c.begin.Add(-lease-tableCosts)) && (q.sent.Before(c.begin) || q.process != c.process && !q.sent.After(c.end))
	})
}

// leasedByOthers says that another's may have.
func (m *model) leasedByOthers(c *call) bool {
	return m.table != nil && slices.ContainsFunc(m.requests, func(q *request) bool {
		return q.process != c.process && q.sent.After(c.begin.Add(-lease-tableCosts)) && !q.sent.After(c.end)
	})
}

// notPermitted says that no fetch for an unknown kid may have been: a lease stood, or the allowance was used up.
func (m *model) notPermitted(c *call) bool {
	n := 0
	for _, q := range m.requests {
		if q.process == c.process && q.sent.After(c.begin.Add(-burst*refill-fetchLimit)) && q.sent.Before(c.begin) {
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

// failures are how many fetches failed in a row until then, after a newer set had come, and when the last one did.
func (m *model) failures(until, since time.Time) (n int, last time.Time) {
	for _, q := range m.requests {
		if q.process == m.process && q.outcome == "failed" && !q.ended.Before(since) && !q.ended.After(until) {
			n++
			last = q.ended
		}
	}
	return n, last
}

// backoff is how long nothing is fetched after so many failures in a row.
func backoff(failures int, most time.Duration) time.Duration {
	if failures == 0 {
		return 0
	}
	return min(time.Second<<min(failures-1, 5), most)
}

// undisturbed says that no back-off ran when the call began, counted exactly, and that nothing failed until its end.
func (m *model) undisturbed(c *call) bool {
	since := m.changed[0]
	if !c.before.sent.Equal(m.kept.sent) {
		since = m.round0
	}
	n, last := m.failures(c.begin, since)
	if c.begin.Before(last.Add(backoff(n, longest))) || !c.wellFor(0) {
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
	case c.got != "fault" || !c.full() || m.notPermitted(c) || c.everythingWithdrawn():
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
		if !p.end.After(c.begin) && p.full() && p.clearlyDue() && p.before.sent.Equal(c.before.sent) &&
			!p.begin.Before(from) && p.wellSince.Equal(c.wellSince) && p.wellFor(longest+afterOutages) && !m.leasedByOthers(p) {
			return p
		}
	}
	return nil
}

// The invariants of an invocation: README's sentences on how keys are cached. Each says what is wrong, or nothing.
var invariants = []struct {
	name  string
	holds func(*model, *call) string
}{
	{"fresh", (*model).freshKeysCostNothing},
	{"old keys serve", (*model).oldKeysServe},
	{"rotation", (*model).rotationCostsNothing},
	{"outage ends", (*model).outageEnds},
	{"bare outage ends", (*model).bareOutageEnds},
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

// Fresh: no request to the issuer, whatever comes, and no time. (That the table is not asked either, round looks.)
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
	case c.got == "fault" && c.full() && joined && c.everythingWithdrawn() && !m.notPermitted(c):
		return fmt.Sprintf("a valid token is refused, its kid published %v before", published)
	}
	return ""
}

// An outage is over 30 s after it ended.
func (m *model) outageEnds(c *call) string {
	if !c.wellFor(longest + afterOutages) {
		return ""
	}
	return m.refused(c)
}

// While no key is usable, an outage is over 10 s after it ended.
func (m *model) bareOutageEnds(c *call) string {
	if c.before.usable(c.begin) || !c.wellFor(longestBare+afterOutages) {
		return ""
	}
	return m.refused(c)
}

// After a failed fetch the next comes 1 s later, then 2 s, up to 30 s. Any newer set, from wherever, ends that.
func (m *model) backoffIsForgotten(c *call) string {
	if m.diedLast(c) || !c.before.usable(c.begin) || !m.undisturbed(c) {
		return ""
	}
	return m.refused(c)
}

// A fetch that died of a freeze tells nothing about the issuer.
func (m *model) freezeIsNoFailure(c *call) string {
	if !m.diedLast(c) || !m.undisturbed(c) {
		return ""
	}
	return m.refused(c)
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

// Due: a request waits a second at most; in full only after one that waited in vain, or as the holder of the lease. An
// unknown kid may wait for a fetch that it joined and one of its own. Nobody waits into the last 200 ms before the
// deadline. The table adds 350 ms at most.
func (m *model) waitIsShort(c *call) string {
	limit := 2 * (fullWait + m.extra())
	if c.before.has(c.kid, c.begin) && (c.inVain() || c.after.has(c.kid, c.end)) {
		limit = shortWait
		if m.table != nil || slices.ContainsFunc(m.calls, func(p *call) bool {
			return p.process == c.process && p.took > 0 && p.inVain() && p.after.sent.Equal(c.before.sent) && !p.end.After(c.begin)
		}) {
			limit = fullWait + m.extra()
		}
	}
	if c.took > min(limit, c.limit-spare) {
		return fmt.Sprintf("longer than %v", min(limit, c.limit-spare))
	}
	return ""
}

// After a full wait in vain there are only full ones until one succeeds, at distances of 1 s doubling to 30 s.
func (m *model) waitsAreSeldom(c *call) string {
	switch last := len(m.waits) - 1; {
	case c.took < shortWait || !c.inVain() || !c.before.has(c.kid, c.begin) || c.hangSince.IsZero():
	case last < 0 || m.waits[0][0].Before(c.hangSince):
		m.waits = [][2]time.Time{{c.begin, c.end}}
	case !c.begin.After(m.waits[last][1]): // waited together
		m.waits[last][1] = c.end
	case last > 0 && c.begin.Sub(m.waits[last][1]) < backoff(last, longest):
		return fmt.Sprintf("wait %d in an outage is %v after the one before", last+2, c.begin.Sub(m.waits[last][1]))
	default:
		m.waits = append(m.waits, [2]time.Time{c.begin, c.end})
	}
	return ""
}

// The table is help, never a condition: it costs 350 ms at most in each of the two searches that a call may wait for.
// Without a table a call waits for the issuer's answers alone.
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
		if q.process == c.process && to.After(from) {
			rest, until = rest-to.Sub(from), to
		}
	}
	if rest > 2*m.extra() {
		return fmt.Sprintf("%v were not for the issuer", rest)
	}
	return ""
}

// At start all issuers are asked, 3 s in all.
func (m *model) judgeStart(well, began time.Time, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &call{process: m.process, begin: began, end: m.now()}
	switch {
	case took > fullWait+m.extra():
		m.breaks("start", "it took %v", took)
	case !well.IsZero() && well.Equal(m.wellSince) && !m.leased(c) && m.last.sent.IsZero():
		m.breaks("start", "the issuer is well, and there are no keys after %v", took)
	}
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

// After a failed fetch the next comes 1 s later, then 2 s, up to 30 s (10 s while no key is usable, where chance may
// halve it), whatever asks for it.
func (m *model) backsOff(q *request) {
	most, share := longest, time.Duration(1)
	if !m.kept.usable(q.sent) {
		most, share = longestBare, 2
	}
	n, last := m.failures(q.sent, m.changed[1])
	if m.last.sent.Equal(m.kept.sent) && n > 0 && q.sent.Before(last.Add(backoff(n, most)/share)) {
		m.breaks("requests", "asked %v after failure %d in a row", q.sent.Sub(last), n)
	}
}

// Unknown kids: three times in a row, and once more every 10 s. A fetch that fails is not charged.
func (m *model) isAllowed(newest int) {
	q, n := m.requests[newest], 0
	if !q.early || q.outcome != "ok" {
		return
	}
	for _, p := range slices.Backward(m.requests[:newest+1]) {
		if p.process != q.process || !p.early || p.outcome != "ok" {
			continue
		}
		if n++; n > burst+int((q.sent.Sub(p.sent)+fetchLimit)/refill) {
			m.breaks("allowance", "asked %d times for unknown kids in %v", n, q.sent.Sub(p.sent))
			return
		}
	}
}

// Who asks the issuer takes the lease first: nobody asks while another's stands. A table that is slow or fails, or did of
// late, is left alone.
func (m *model) holdsLease(newest int) {
	q := m.requests[newest]
	if m.table == nil || m.table.Latency > tableCosts/10 || m.shaky.Load() || q.sent.Sub(m.shook) < longest+afterOutages {
		return
	}
	for _, p := range m.requests[:newest] {
		stands := lease
		if p.outcome == "failed" {
			stands = time.Second
		}
		if p.process != q.process && q.sent.Sub(p.sent) < stands-tableCosts {
			m.breaks("lease", "process %d asked %v after process %d", q.process, q.sent.Sub(p.sent), p.process)
		}
	}
}

// unmended are the invariants that the cache as it is breaks, with worlds in which it does. All others hold in every world.
// Whoever mends one takes its line away: the test fails where a world no longer shows what it stands for.
var unmended = map[string][]int{
	"withdrawn":        {202, 203}, // the process is frozen while a slow issuer answers, without the table and with it
	"renewed":          {2, 3},     // the same, for any key
	"rotation":         {52, 130},  // a fetch that was sent before the kid was published is joined, or comes out of a freeze
	"proof":            {50, 52},   // the same, for any kid that is rejected
	"back-off":         {15, 293},  // it outlives the shared copy that came since
	"bare outage ends": {9, 144},   // it lasts 30 s where no key is usable, too
}

// A seed is a world: its lowest bits say whether there is a table, whether the process freezes, whether callers are eight,
// whether forged kids come; the next two how slow the table is.
func TestModel(t *testing.T) {
	t.Parallel()
	const worlds, parts, steps = 320, 4, 60
	for part := range parts {
		t.Run(fmt.Sprint(part), func(t *testing.T) {
			t.Parallel()
			for seed := part; seed < worlds; seed += parts {
				t.Run(fmt.Sprint(seed), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						m := newModel(uint64(seed))
						m.play(steps)
						m.judge(t, seed)
					})
				})
			}
		})
	}
}

// judge fails the test for what is broken, and for what should be and is not.
func (m *model) judge(t *testing.T, seed int) {
	for _, name := range slices.Sorted(maps.Keys(m.broken)) {
		if b := m.broken[name]; unmended[name] == nil {
			t.Errorf("%s is broken %d times, first:\n%s", name, b.times, strings.Join(b.trace, "\n"))
		}
	}
	for name, seeds := range unmended {
		if m.broken[name] == nil && slices.Contains(seeds, seed) {
			t.Errorf("%s holds in this world: it is not one to show that it is broken", name)
		}
	}
}
