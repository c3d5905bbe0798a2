package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"testing"
	"testing/synctest"
	"time"

	"zuplo-lambda-authorizer/internal/fleet"
	"zuplo-lambda-authorizer/internal/fleet/storetest"
	"zuplo-lambda-authorizer/internal/keycache"
	"zuplo-lambda-authorizer/internal/keycache/keytest"
)

const (
	ms, s, m, h = time.Millisecond, time.Second, time.Minute, time.Hour

	ttl = 5 * m // of every World
)

// A shared is an environment whose keys are shared with others. It is the one that is looked at.
type shared struct {
	*keytest.World
	Fleet *fleet.Fleet
	table *storetest.Memory
}

func newShared(mode string) *shared {
	return join(keytest.New(mode), &storetest.Memory{})
}

// join makes w an environment that shares its keys in the table.
func join(w *keytest.World, table *storetest.Memory) *shared {
	f := &shared{w, &fleet.Fleet{
		Store: table.Issuer("i", "u"), Issuer: w.Source, TTL: w.TTL, MaxStale: w.MaxStale,
		Now: w.Now, Rand: w.Rand, Log: w.Log, Events: w.Log,
	}, table}
	w.Source, w.Detour, w.Early = f.Fleet, fleet.Detour, w.TTL/5
	return f
}

// slow makes the issuer so.
func slow(f *shared, d time.Duration) {
	f.Issuer.Be(func(b *keytest.Behaviour) { b.Delay = d })
}

// other is another environment of the fleet.
func (f *shared) other() *shared { return join(keytest.Beside(f.Issuer), f.table) }

func (f *shared) item() storetest.Item     { return f.table.Item("i", "u") }
func (f *shared) setItem(i storetest.Item) { f.table.SetItem("i", "u", i) }

// share replaces the shared set by one that was sent for that long ago, whichever environment has the lease.
func (f *shared) share(age time.Duration, text []byte) {
	i := f.item()
	i.Set, i.Sent = text, number(time.Now().Add(-age))
	f.setItem(i)
}

// taken gives the lease to an environment that is never heard of again.
func (f *shared) taken() { f.lease(fleet.LeaseTime) }

func (f *shared) lease(ends time.Duration) {
	i := f.item()
	i.Lease = number(time.Now().Add(ends))
	f.setItem(i)
}

func number(t time.Time) storetest.Number {
	return storetest.Number(strconv.FormatInt(t.UnixMilli(), 10))
}

// uses is a short way to write what came to a table so far.
func uses(reads, consistent, takes, puts int) storetest.Counts {
	return storetest.Counts{Reads: reads, ConsistentReads: consistent, Takes: takes, Puts: puts}
}

func TestSharedCopy(t *testing.T) {
	t.Parallel()
	type step struct {
		after  time.Duration
		do     func(*shared)
		issuer string
		kid    string
		want   string
		took   time.Duration
		asked  int // requests to the issuer so far
		uses   storetest.Counts
	}
	taken := (*shared).taken
	copied := func(age time.Duration, kids ...string) func(*shared) {
		return func(f *shared) { f.share(age, keytest.Text(kids...)) }
	}
	free := func(f *shared) { f.lease(0) }
	both := func(all ...func(*shared)) func(*shared) {
		return func(f *shared) {
			for _, do := range all {
				do(f)
			}
		}
	}
	failures := func(n int) func(*shared) {
		return func(f *shared) {
			i := f.item()
			i.Failures = storetest.Number(strconv.Itoa(n))
			f.setItem(i)
		}
	}
	later := func(d time.Duration, do func(*shared)) func(*shared) {
		return func(f *shared) { time.AfterFunc(d, func() { do(f) }) }
	}
	failed := func(c storetest.Counts, n int) storetest.Counts { c.Fails = n; return c }
	lost := func(c storetest.Counts) storetest.Counts { c.TakesLost = 1; return c }
	first := step{kid: "a", want: "key", asked: 1, uses: uses(1, 1, 1, 1)}
	for name, steps := range map[string][]step{
		"nobody shared anything: the lease, the issuer, and it is shared": {first, {after: ttl/5*4 - 1, kid: "a", want: "key", asked: 1, uses: uses(1, 1, 1, 1)}},
		"somebody shared fresh keys": {
			{do: copied(4*m-1*ms, "a"), kid: "a", want: "key", uses: uses(1, 1, 0, 0)},
			{kid: "a", want: "key", uses: uses(1, 1, 0, 0)},
		},
		"due: an eventually consistent read, the lease, the issuer": {first, {after: ttl, kid: "a", want: "key", asked: 2, uses: uses(2, 1, 2, 2)}},
		"due, somebody shared fresh keys": {
			first, {after: ttl, do: copied(4*m-1*ms, "a"), kid: "a", want: "key", asked: 1, uses: uses(2, 1, 1, 1)},
			{kid: "a", want: "key", asked: 1, uses: uses(2, 1, 1, 1)},
		},
		"due, the shared keys will be soon": {first, {after: ttl, do: copied(4*m, "a"), kid: "a", want: "key", asked: 2, uses: uses(2, 1, 2, 2)}},
		"due, and withdrawn by the shared keys": {
			first, {after: ttl, do: copied(s, "b"), issuer: "b", kid: "a", want: "unknown", asked: 2, uses: uses(2, 1, 2, 2)},
		},
		"younger keys become the old ones in an outage": {
			first, {after: 6 * m, issuer: "503", do: copied(5*m, "a", "b"), kid: "a", want: "key", asked: 2, uses: failed(uses(2, 1, 2, 1), 1)},
			{kid: "b", want: "key", asked: 2, uses: failed(uses(2, 1, 2, 1), 1)},
		},
		"older keys do not": {
			first, {after: 6 * m, issuer: "503", do: copied(7*m, "a", "b"), kid: "b", want: "fault", asked: 2, uses: failed(uses(2, 2, 2, 1), 1)},
		},
		"due, the lease is taken: three more looks, then old keys serve until it ends": {
			first, {after: ttl, do: taken, kid: "a", want: "key", took: 300 * ms, asked: 1, uses: uses(5, 1, 1, 1)},
			{kid: "a", want: "key", asked: 1, uses: uses(5, 1, 1, 1)},
			{after: 5700*ms - 1, kid: "a", want: "key", asked: 1, uses: uses(5, 1, 1, 1)},
			{after: 1, kid: "a", want: "key", asked: 2, uses: uses(6, 1, 2, 2)},
		},
		"due, the lease is taken, the keys come after the first look": {
			first, {after: ttl, do: both(taken, later(49*ms, copied(0, "a"))), kid: "a", want: "key", took: 50 * ms, asked: 1, uses: uses(3, 1, 1, 1)},
		},
		"due, the lease is taken, the keys come after the second": {
			first, {after: ttl, do: both(taken, later(51*ms, copied(0, "a"))), kid: "a", want: "key", took: 150 * ms, asked: 1, uses: uses(4, 1, 1, 1)},
		},
		"due, the lease is taken, the keys come after the third": {
			first, {after: ttl, do: both(taken, later(151*ms, copied(0, "a"))), kid: "a", want: "key", took: 300 * ms, asked: 1, uses: uses(5, 1, 1, 1)},
			{kid: "a", want: "key", asked: 1, uses: uses(5, 1, 1, 1)},
		},
		"due, the lease is taken, old keys that are younger come: no end of the wait": {
			first, {after: 6 * m, do: both(taken, later(10*ms, copied(5*m, "a"))), kid: "a", want: "key", took: 300 * ms, asked: 1, uses: uses(5, 1, 1, 1)},
		},
		"keys that a clock far ahead dated give way": {
			{do: func(f *shared) { f.Step(h) }, kid: "a", want: "key", asked: 1, uses: uses(1, 1, 1, 1)},
			{do: both(func(f *shared) { f.Step(-h) }, copied(s, "b")), kid: "b", want: "key", asked: 1, uses: uses(2, 2, 1, 1)},
			{kid: "b", want: "key", asked: 1, uses: uses(2, 2, 1, 1)},
		},
		"an unknown kid: a consistent read, and somebody saw the rotation": {
			first, {after: m, do: copied(s, "a", "b"), kid: "b", want: "key", asked: 1, uses: uses(2, 2, 1, 1)},
		},
		"an unknown kid: nobody saw it": {
			first, {after: m, issuer: "a b", kid: "b", want: "key", asked: 2, uses: uses(2, 2, 2, 2)},
		},
		"an unknown kid, the shared keys are newer and do not know it: the issuer": {
			first, {after: m, do: copied(s, "a", "c"), issuer: "a b", kid: "b", want: "key", asked: 2, uses: uses(2, 2, 2, 2)},
		},
		"an unknown kid, the lease is taken: three more looks, then a fault, and one look a second as long as a fetch may take": {
			first, {after: m, do: taken, kid: "x", want: "fault", took: 300 * ms, asked: 1, uses: uses(5, 2, 1, 1)},
			{kid: "x", want: "fault", asked: 1, uses: uses(5, 2, 1, 1)},
			{after: 700*ms - 1, kid: "x", want: "fault", asked: 1, uses: uses(5, 2, 1, 1)},
			{after: 1, kid: "x", want: "fault", asked: 1, uses: uses(6, 3, 1, 1)},
			{after: 2*s - 1, kid: "x", want: "fault", asked: 1, uses: uses(7, 4, 1, 1)},
			{after: s + 1, kid: "x", want: "fault", asked: 1, uses: uses(7, 4, 1, 1)},
			{after: 2 * s, issuer: "a b", kid: "b", want: "key", asked: 2, uses: uses(8, 5, 2, 2)},
		},
		"an unknown kid, the lease is taken after three failures: one look": {
			first, {after: m, do: both(taken, failures(3)), kid: "x", want: "fault", asked: 1, uses: uses(2, 2, 1, 1)},
			{after: s, kid: "x", want: "fault", asked: 1, uses: uses(2, 2, 1, 1)},
			{after: 5 * s, issuer: "a b", kid: "b", want: "key", asked: 2, uses: uses(3, 3, 2, 2)},
		},
		"due, the lease is taken after three failures: one look": {
			first, {after: ttl, do: both(taken, failures(3)), kid: "a", want: "key", asked: 1, uses: uses(2, 1, 1, 1)},
		},
		"the lease is taken after two failures: three more looks": {
			first, {after: m, do: both(taken, failures(2)), kid: "x", want: "fault", took: 300 * ms, asked: 1, uses: uses(5, 2, 1, 1)},
		},
		"no keys, the lease is taken after three failures: a wait in full": {
			{do: both(taken, failures(3)), kid: "a", want: "fault", took: 2900 * ms, uses: uses(11, 1, 0, 0)},
			{kid: "a", want: "fault", took: 2900 * ms, uses: uses(22, 2, 0, 0)},
		},
		"an unknown kid, the lease was given back: a look when it ends, however lately there was one": {
			first, {after: m, do: func(f *shared) { f.lease(500 * ms) }, kid: "x", want: "fault", asked: 1, uses: uses(2, 2, 1, 1)},
			{after: 500*ms - 1, kid: "x", want: "fault", asked: 1, uses: uses(2, 2, 1, 1)},
			{after: 1, do: func(f *shared) { f.lease(500 * ms) }, kid: "x", want: "fault", asked: 1, uses: uses(3, 3, 1, 1)},
		},
		"an unknown kid, the lease is taken, the keys come": {
			first, {after: m, do: both(taken, later(120*ms, copied(0, "a", "b"))), kid: "b", want: "key", took: 150 * ms, asked: 1, uses: uses(4, 2, 1, 1)},
		},
		"an unknown kid, the lease is taken, keys come that do not know it: no more waiting": {
			first, {after: m, do: both(taken, later(40*ms, copied(0, "a"))), kid: "x", want: "unknown", took: 50 * ms, asked: 1, uses: uses(3, 2, 1, 1)},
		},
		"an unknown kid, the lease is taken, keys just young enough": {
			first, {after: m, do: both(taken, copied(9699*ms, "a")), kid: "x", want: "unknown", took: 300 * ms, asked: 1, uses: uses(5, 2, 1, 1)},
			{after: s, kid: "x", want: "fault", asked: 1, uses: uses(6, 3, 1, 1)},
		},
		"an unknown kid, the lease is taken, keys of 10 s after the wait": {
			{do: both(copied(9700*ms, "a"), free), kid: "a", want: "key", uses: uses(1, 1, 0, 0)},
			{do: taken, kid: "x", want: "fault", took: 300 * ms, uses: lost(uses(4, 1, 1, 0))},
		},
		"an unknown kid, the lease is taken, keys of almost 10 s after the wait": {
			{do: both(copied(9699*ms, "a"), free), kid: "a", want: "key", uses: uses(1, 1, 0, 0)},
			{do: taken, kid: "x", want: "unknown", took: 300 * ms, uses: lost(uses(4, 1, 1, 0))},
		},
		"an unknown kid, the set was sent within the lease: nothing is read, and nobody waits": {
			first, {after: 2 * s, kid: "x", want: "unknown", asked: 1, uses: uses(1, 1, 1, 1)},
			{after: 4*s - 1*ms, kid: "x", want: "unknown", asked: 1, uses: uses(1, 1, 1, 1)},
			{after: 1 * ms, kid: "x", want: "unknown", asked: 2, uses: uses(2, 2, 2, 2)},
		},
		"the same, by the lease of another": {
			{do: both(copied(s, "a"), func(f *shared) { f.lease(5 * s) }), kid: "a", want: "key", uses: uses(1, 1, 0, 0)},
			{after: 2 * s, kid: "x", want: "unknown", uses: uses(1, 1, 0, 0)},
			{after: 3 * s, kid: "x", want: "unknown", asked: 1, uses: uses(2, 2, 1, 1)},
		},
		"a damaged set that was sent within the lease is not there": {
			{do: both(func(f *shared) { f.share(s, []byte("?")) }, func(f *shared) { f.lease(5 * s) }), kid: "a", want: "fault", took: 2900 * ms, uses: uses(11, 1, 0, 0)},
		},
		"back-off: nobody waits for keys that are due, unknown kids are looked for": {
			first,
			{after: ttl, issuer: "503", kid: "a", want: "key", asked: 2, uses: failed(uses(2, 1, 2, 1), 1)},
			{after: 6 * s, kid: "a", want: "key", asked: 3, uses: failed(uses(3, 1, 3, 1), 2)},
			{after: 6 * s, kid: "a", want: "key", asked: 4, uses: failed(uses(4, 1, 4, 1), 3)},
			{after: 6 * s, kid: "a", want: "key", asked: 5, uses: failed(uses(5, 1, 5, 1), 4)}, // 8 s
			{after: 6500 * ms, kid: "a", want: "key", asked: 5, uses: failed(uses(5, 1, 5, 1), 4)},
			{kid: "b", want: "fault", asked: 5, uses: failed(uses(6, 2, 5, 1), 4)},
			{after: s - 1, do: copied(20*s, "a", "b"), kid: "b", want: "fault", asked: 5, uses: failed(uses(6, 2, 5, 1), 4)},
			{after: 1, kid: "b", want: "key", asked: 5, uses: failed(uses(7, 3, 5, 1), 4)},
			{kid: "x", want: "fault", asked: 6, uses: failed(uses(7, 3, 6, 1), 5)}, // newer keys end the back-off
		},
		"failures in a row make leases long: 1, 2, 4, 6 s": {
			{issuer: "503", kid: "a", want: "fault", asked: 1, uses: failed(uses(1, 1, 1, 0), 1)},
			{after: s, kid: "a", want: "fault", asked: 2, uses: failed(uses(2, 2, 2, 0), 2)},
			{after: 2 * s, kid: "a", want: "fault", asked: 3, uses: failed(uses(3, 3, 3, 0), 3)},
			{after: 4 * s, kid: "a", want: "fault", asked: 4, uses: failed(uses(4, 4, 4, 0), 4)},
		},
		"back-off and no keys at all: looked for": {
			{issuer: "503", kid: "a", want: "fault", asked: 1, uses: failed(uses(1, 1, 1, 0), 1)},
			{after: 6 * s, kid: "a", want: "fault", asked: 2, uses: failed(uses(2, 2, 2, 0), 2)},
			{after: s, do: copied(h, "a"), kid: "a", want: "key", asked: 2, uses: failed(uses(3, 3, 2, 0), 2)},
		},
		"an empty set": {
			first, {after: m, do: copied(s), issuer: "empty", kid: "a", want: "key", asked: 1, uses: uses(1, 1, 1, 1)},
			{kid: "x", want: "fault", asked: 2, uses: uses(2, 2, 2, 2)}, // everything is withdrawn: the issuer is asked about it
			{after: s, kid: "a", want: "fault", asked: 2, uses: uses(2, 2, 2, 2)},
			{after: s, do: copied(m, "a"), kid: "a", want: "fault", asked: 2, uses: uses(2, 2, 2, 2)},
			{after: 4 * s, issuer: "a", kid: "a", want: "key", asked: 3, uses: uses(3, 3, 3, 3)},
		},
		"an empty set does not give way to an older one": {
			{do: copied(s), issuer: "503", kid: "a", want: "fault", asked: 1, uses: failed(uses(1, 1, 1, 0), 1)},
			{after: 2 * s, do: copied(4*s, "a"), kid: "a", want: "fault", asked: 2, uses: failed(uses(2, 2, 2, 0), 2)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newShared("a")
				for n, step := range steps {
					time.Sleep(step.after)
					if step.issuer != "" {
						f.Issuer.Set(step.issuer)
					}
					if step.do != nil {
						step.do(f)
					}
					start := time.Now()
					got := f.Ask(t.Context(), step.kid)
					took := time.Since(start)
					synctest.Wait()
					counts := f.table.Counts()
					if got != step.want || took != step.took || f.Issuer.Requests() != step.asked || counts != step.uses {
						t.Fatalf("step %d, kid %s: %s after %v, %d requests and %+v, want %s after %v, %d and %+v\n%s", n, step.kid,
							got, took, f.Issuer.Requests(), counts, step.want, step.took, step.asked, step.uses, f.Lines())
					}
				}
			})
		})
	}
}

// A fleet does not come back to a lease all at once when it ends, except where there are no keys.
func TestComingBackToALease(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		age time.Duration // of the keys
		kid string
	}{"an unknown kid": {m, "x"}, "due": {ttl, "a"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newShared("a")
				for n, late := range []time.Duration{0, 250 * ms, 750 * ms} { // drawn for each lease
					f.Ask(t.Context(), "a")
					time.Sleep(test.age)
					drawn := false
					f.Fleet.Rand = func() float64 {
						if drawn {
							return 0.9
						}
						drawn = true
						return late.Seconds()
					}
					ends := time.Now().Add(fleet.LeaseTime)
					f.taken()
					f.Ask(t.Context(), test.kid)
					time.Sleep(time.Until(ends) + late - 1)
					before := f.table.Counts()
					if f.Ask(t.Context(), test.kid); f.table.Counts() != before {
						t.Errorf("just before %v: %+v, then %+v", late, before, f.table.Counts())
					}
					time.Sleep(time.Nanosecond)
					if f.Ask(t.Context(), test.kid); f.Issuer.Requests() != n+2 {
						t.Errorf("%v: %d requests", late, f.Issuer.Requests())
					}
				}
			})
		})
	}
	t.Run("no keys", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := newShared("a")
			f.Fleet.Rand = func() float64 { return 0.5 }
			f.taken()
			start := time.Now()
			f.Ask(t.Context(), "a")
			time.Sleep(time.Until(start.Add(fleet.LeaseTime)))
			if got := f.Ask(t.Context(), "a"); got != "key" || time.Since(start) > fleet.LeaseTime {
				t.Errorf("%s after %v", got, time.Since(start))
			}
		})
	})
}

// A fetch that died of a freeze is not repeated under a lease that has ended, however soon after.
func TestFrozenBeyondTheLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newShared("a")
		f.Fleet.Rand = func() float64 { return 0.5 }
		f.Ask(t.Context(), "a")
		time.Sleep(m)
		f.taken()
		f.Ask(t.Context(), "x") // draws half a second
		time.Sleep(m)
		f.Issuer.Set("hang")
		go f.Ask(t.Context(), "x")
		time.Sleep(s)
		f.Step(fleet.LeaseTime - s)
		asked := f.Issuer.Requests()
		f.Ask(t.Context(), "x")
		if n := f.Issuer.Requests(); n != asked || n != 2 {
			t.Errorf("%d requests, then %d", asked, n)
		}
		time.Sleep(500 * ms)
		f.Issuer.Set("a x")
		if got := f.Ask(t.Context(), "x"); got != "key" || f.table.Counts().Takes != 3 {
			t.Errorf("%s, %+v", got, f.table.Counts())
		}
	})
}

// A request that may not ask the issuer for another unknown kid looks at the shared copy all the same.
func TestLookingWithoutAllowance(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newShared("a")
		f.Ask(t.Context(), "a")
		spend(t, f)
		asked := f.Issuer.Requests()
		for n, want := range []string{"unknown", "key"} { // after a look, and after another one a second later
			if got := f.Ask(t.Context(), "b"); got != want || f.Issuer.Requests() != asked {
				t.Errorf("%d: %s after %d requests", n, got, f.Issuer.Requests()-asked)
			}
			f.share(0, keytest.Text("a", "b"))
			time.Sleep(s)
		}
	})
}

// spend uses up what an environment may ask the issuer for unknown kids, within the fleet's leases.
func spend(t *testing.T, f *shared) {
	t.Helper()
	for n := 0; ; n++ {
		time.Sleep(fleet.LeaseTime)
		before := f.Issuer.Requests()
		f.Ask(t.Context(), fmt.Sprint("forged ", n))
		if f.Issuer.Requests() == before {
			return
		}
	}
}

// A copy that is damaged or too old counts as absent, and the next one with the lease replaces it.
func TestDamagedCopy(t *testing.T) {
	t.Parallel()
	good := keytest.Text("a")
	broken := []byte(`{"keys":[{"kty":"OKP","kid":"a"}]}`)
	for name, c := range map[string]struct {
		set     []byte
		age     time.Duration
		outage  string // what is said of the kid in one
		up      string // and by how many requests otherwise
		warning string
	}{
		"too large, long ago":        {nil, 100 * h, "fault", "1", ""},
		"not JSON":                   {[]byte("<html>"), 0, "fault", "1", "not a JSON object"},
		"no usable key":              {broken, 0, "fault", "1", "none of its 1 keys"},
		"dated 30 s ahead":           {good, -30 * s, "key", "0", ""},
		"dated further ahead":        {good, -30*s - ms, "fault", "1", "it is dated 30s ahead"},
		"dated a day ahead":          {good, -24 * h, "fault", "1", "it is dated 24h0m0s ahead"},
		"as old as keys may grow":    {good, 24 * h, "key", "1", ""},
		"older":                      {good, 24*h + ms, "fault", "1", ""},
		"too large, dated far ahead": {[]byte{}, -30*s - ms, "fault", "1", ""},
	} {
		for _, mode := range []string{"503", "a"} {
			t.Run(name+", issuer "+mode, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newShared(mode)
					f.share(c.age, c.set)
					got, asked := f.Ask(t.Context(), "a"), strconv.Itoa(f.Issuer.Requests())
					if mode == "503" && got != c.outage || mode == "a" && (got != "key" || asked != c.up) {
						t.Errorf("%s after %s requests\n%s", got, asked, f.Lines())
					}
					if n := strings.Count(f.Lines(), "level=WARN msg=\"reading the shared key set, which is taken as absent"); (n == 1) != (c.warning != "") ||
						!strings.Contains(f.Lines(), c.warning) {
						t.Errorf("log: %s", f.Lines())
					}
					i, expires := f.item(), storetest.Number(strconv.FormatInt(time.Now().Add(24*h).Unix(), 10))
					if set, ok := i.Set.([]byte); mode == "a" && (!ok || string(set) != string(good)) || c.up == "1" && mode == "a" && (i.Sent != number(time.Now()) || i.Expires != expires) {
						t.Errorf("it was not replaced: %s, %v", set, i)
					}
				})
			})
		}
	}
}

// A set of more than 16 KB is not shared. Everybody learns so from the table and asks the issuer alone.
func TestTooLargeToShare(t *testing.T) {
	t.Parallel()
	most := strings.Repeat("k", 16<<10-len(keytest.Text(""))) // the kid that makes 16 KB
	synctest.Test(t, func(t *testing.T) {
		f := newShared(most)
		if got := f.Ask(t.Context(), most); got != "key" || len(f.item().Set.([]byte)) != 16<<10 {
			t.Fatalf("%s; %d bytes are shared", got, len(f.item().Set.([]byte)))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		large := most + "k"
		f := newShared(large)
		if got := f.Ask(t.Context(), large); got != "key" || len(f.item().Set.([]byte)) != 0 || f.item().Sent != number(time.Now()) {
			t.Fatalf("%s; shared: %v", got, f.item())
		}
		if want := "16385 bytes, at most 16384 are shared"; strings.Count(f.Lines(), "level=WARN") != 1 || !strings.Contains(f.Lines(), want) {
			t.Errorf("log: %s", f.Lines())
		}

		// While that is the newest that is known, the lease is no obstacle: it says nothing about one's own need.
		w := f.other()
		if err := w.Start(t.Context()); err != nil || f.Issuer.Requests() != 2 {
			t.Errorf("a new environment: %v after %d requests", err, f.Issuer.Requests())
		}
		for n := range 3 {
			if got := w.Ask(t.Context(), "x"); got != "unknown" || f.Issuer.Requests() != 3+n {
				t.Errorf("an unknown kid: %s after %d requests", got, f.Issuer.Requests())
			}
		}
		if got, want := f.table.Counts(), uses(2, 2, 1, 1); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}

		// It shrinks: who has the lease next shares it.
		time.Sleep(ttl)
		f.Issuer.Set(large + " b")
		f.Ask(t.Context(), large)
		if got, want := f.table.Counts(), uses(3, 2, 2, 2); got != want || f.Issuer.Requests() != 6 {
			t.Errorf("%+v, want %+v; %d requests", got, want, f.Issuer.Requests())
		}
		time.Sleep(ttl)
		f.Issuer.Set("a")
		w.Ask(t.Context(), large)
		if set := f.item().Set.([]byte); string(set) != string(keytest.Text("a")) {
			t.Errorf("shared: %s", set)
		}
		if got := f.Ask(t.Context(), "a"); got != "key" || f.Issuer.Requests() != 7 {
			t.Errorf("%s after %d requests", got, f.Issuer.Requests())
		}
	})
}

// A new environment that waits while the one with the lease finds a set too large to share goes on alone.
func TestTooLargeWhileWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newShared(strings.Repeat("k", 16<<10))
		slow(f, time.Second)
		go f.other().Ask(t.Context(), "k")
		synctest.Wait()
		start := time.Now()
		if err := f.Start(t.Context()); err != nil || f.Issuer.Requests() != 2 || time.Since(start) > 2500*ms {
			t.Errorf("%v after %d requests and %v", err, f.Issuer.Requests(), time.Since(start))
		}
	})
}

// Nothing is charged for an unknown kid when the issuer was not asked: three such are still to be had.
func TestNotAskingIsNotCharged(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(f *shared){
		"the copy came":      func(f *shared) { f.share(0, keytest.Text("a", "x")) },
		"the lease is taken": (*shared).taken,
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newShared("a")
			f.Ask(t.Context(), "a")
			for range 5 {
				time.Sleep(s)
				do(f)
				f.Ask(t.Context(), "x")
			}
			time.Sleep(fleet.LeaseAhead)
			f.Fleet.Store = nowhere{} // each asks by itself now
			f.Ask(t.Context(), "y")
			for asked, n := f.Issuer.Requests(), 1; n <= 2; n++ {
				if f.Ask(t.Context(), "y"); f.Issuer.Requests() != asked+n {
					t.Errorf("%s: %d requests, want %d", name, f.Issuer.Requests(), asked+n)
				}
			}
		})
	}
}

// A nowhere is a Store that fails.
type nowhere struct{}

func (nowhere) Read(context.Context, bool) (fleet.Copy, error)              { return fleet.Copy{}, errBroken }
func (nowhere) Take(context.Context, time.Time) (time.Time, error)          { return time.Time{}, errBroken }
func (nowhere) Put(context.Context, time.Time, fleet.Copy, time.Time) error { return errBroken }
func (nowhere) Fail(context.Context, time.Time, time.Time, int) error       { return errBroken }

func TestStart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do     func(f *shared)
		issuer string
		err    string
		took   time.Duration
		asked  int
		kid    string // what is said of "a" then
	}{
		"nothing there": {asked: 1, kid: "key"},
		"fresh keys":    {do: func(f *shared) { f.share(m, keytest.Text("a")) }, kid: "key"},
		"an outage": {
			do: func(f *shared) { f.share(6*h, keytest.Text("a")) }, issuer: "503", err: "status 503", asked: 1, kid: "key",
		},
		"the lease is taken": {do: (*shared).taken, err: keycache.ErrLeased.Error(), took: 2900 * ms, kid: "fault"},
		"the lease is taken, there are keys that are too old": {
			do: func(f *shared) { f.taken(); f.share(25*h, keytest.Text("a")) }, err: keycache.ErrLeased.Error(), took: 2900 * ms, kid: "fault",
		},
		"the lease is taken, and frees up": {
			do: func(f *shared) { f.lease(2 * s) }, took: 2100 * ms, asked: 1, kid: "key",
		},
		"the lease is taken, the keys come": {
			do: func(f *shared) { f.taken(); time.AfterFunc(2*s, func() { f.share(0, keytest.Text("a")) }) }, took: 2100 * ms, kid: "key",
		},
		"the lease is taken, old keys come": {
			do: func(f *shared) { f.taken(); time.AfterFunc(2*s, func() { f.share(h, keytest.Text("a")) }) }, err: keycache.ErrLeased.Error(), took: 2100 * ms, kid: "key",
		},
		"the lease is taken, there are old keys": {
			do: func(f *shared) { f.taken(); f.share(h, keytest.Text("a")) }, err: keycache.ErrLeased.Error(), took: 300 * ms, kid: "key",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newShared("a")
				if c.issuer != "" {
					f.Issuer.Set(c.issuer)
				}
				if c.do != nil {
					c.do(f)
				}
				start := time.Now()
				err := f.Start(t.Context())
				took := time.Since(start)
				if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) || took != c.took || f.Issuer.Requests() != c.asked {
					t.Errorf("%v after %v and %d requests", err, took, f.Issuer.Requests())
				}
				if got := f.Ask(t.Context(), "a"); got != c.kid {
					t.Errorf("then %s", got)
				}
			})
		})
	}
}

// A saboteur does harm to the operations of a Store that its field names; "" means all.
type saboteur struct {
	fleet.Store
	op   string
	harm func(ctx context.Context, do func() error) error

	mu     sync.Mutex
	came   int // operations,
	harmed int // and those of them that came to harm
}

func (s *saboteur) at(ctx context.Context, op string, do func() error) error {
	s.mu.Lock()
	s.came++
	harm := s.harm
	if s.op != "" && s.op != op {
		harm = nil
	}
	if harm != nil {
		s.harmed++
	}
	s.mu.Unlock()
	if harm == nil {
		return do()
	}
	return harm(ctx, do)
}

func (s *saboteur) Read(ctx context.Context, consistent bool) (c fleet.Copy, err error) {
	err = s.at(ctx, "read", func() (err error) { c, err = s.Store.Read(ctx, consistent); return err })
	if err != nil {
		return fleet.Copy{}, err
	}
	return c, nil
}

func (s *saboteur) Take(ctx context.Context, now time.Time) (lease time.Time, err error) {
	err = s.at(ctx, "take", func() (err error) { lease, err = s.Store.Take(ctx, now); return err })
	if err != nil {
		return time.Time{}, err
	}
	return lease, nil
}

func (s *saboteur) Put(ctx context.Context, lease time.Time, c fleet.Copy, expires time.Time) error {
	return s.at(ctx, "put", func() error { return s.Store.Put(ctx, lease, c, expires) })
}

func (s *saboteur) Fail(ctx context.Context, lease, until time.Time, failures int) error {
	return s.at(ctx, "fail", func() error { return s.Store.Fail(ctx, lease, until, failures) })
}

var errBroken = errors.New("broken store")

// harms are what can be wrong with an operation, before and after its effect.
var harms = map[string]func(ctx context.Context, do func() error) error{
	"fails":          func(context.Context, func() error) error { return errBroken },
	"loses":          func(_ context.Context, do func() error) error { _ = do(); return errBroken },
	"panics":         func(context.Context, func() error) error { panic("c2VjcmV0") },
	"panics after":   func(_ context.Context, do func() error) error { _ = do(); panic("c2VjcmV0") },
	"hangs":          func(ctx context.Context, _ func() error) error { <-ctx.Done(); return ctx.Err() },
	"hangs after":    func(ctx context.Context, do func() error) error { _ = do(); <-ctx.Done(); return ctx.Err() },
	"slow":           late(100 * ms),
	"slower":         late(170 * ms),
	"slow as can be": late(349 * ms),
}

func late(d time.Duration) func(ctx context.Context, do func() error) error {
	return func(ctx context.Context, do func() error) error {
		select {
		case <-time.After(d):
			return do()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Whatever is wrong with the Store, the answer is the one without it, at most 350 ms later.
func TestStoreInTrouble(t *testing.T) {
	t.Parallel()
	scenes := map[string]func(f *shared) (kid string){
		"start": func(*shared) string { return "a" },
		"due": func(f *shared) string {
			f.Ask(context.Background(), "a")
			time.Sleep(ttl)
			return "a"
		},
		"due and withdrawn": func(f *shared) string {
			f.Ask(context.Background(), "a")
			time.Sleep(ttl)
			f.Issuer.Set("b")
			return "a"
		},
		"rotated": func(f *shared) string {
			f.Ask(context.Background(), "a")
			time.Sleep(m)
			f.Issuer.Set("a b")
			return "b"
		},
		"rotated, the copy does not know": func(f *shared) string {
			f.Ask(context.Background(), "a")
			time.Sleep(m)
			f.Issuer.Set("a b")
			if f.Fleet != nil {
				f.share(10*s, keytest.Text("a", "c"))
			}
			return "b"
		},
		"unknown": func(f *shared) string {
			f.Ask(context.Background(), "a")
			time.Sleep(m)
			return "x"
		},
		"due in an outage": func(f *shared) string {
			f.Ask(context.Background(), "a")
			time.Sleep(ttl)
			f.Issuer.Set("503")
			return "a"
		},
	}
	for scene, prepare := range scenes {
		for _, op := range []string{"read", "take", "put", ""} {
			for name, harm := range harms {
				t.Run(fmt.Sprintf("%s, %s %s", scene, op, name), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						const delay = 900 * ms
						ask := func(f *shared, kid string) (string, time.Duration) {
							slow(f, delay)
							start := time.Now()
							got := f.Ask(t.Context(), kid)
							return got, time.Since(start)
						}
						alone := &shared{World: keytest.New("a"), table: &storetest.Memory{}}
						want, without := ask(alone, prepare(alone))

						f := newShared("a")
						trouble := &saboteur{Store: f.Fleet.Store, op: op}
						f.Fleet.Store = trouble
						kid := prepare(f)
						trouble.harm = harm
						got, took := ask(f, kid)
						if got != want || took > without+350*ms {
							t.Errorf("%s after %v, without it %s after %v\n%s", got, took, want, without, f.Lines())
						}
						if strings.HasPrefix(name, "panics") && trouble.harmed > 0 &&
							(!strings.Contains(f.Lines(), "level=ERROR msg=\"panic while ") || !strings.Contains(f.Lines(), "(*saboteur)")) {
							t.Errorf("a panic without a stack: %s", f.Lines())
						}
						if strings.Contains(f.Lines(), "c2VjcmV0") {
							t.Error("what the panic said is in the log")
						}
					})
				})
			}
		}
	}
}

// A Store that fails is left alone for 1 s, doubling to 30 s, and complained of once a minute.
func TestStoreRests(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"read", "take", "put"} {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newShared("a")
				trouble := &saboteur{Store: f.Fleet.Store, op: op, harm: harms["fails"]}
				f.Fleet.Store, f.TTL, f.Early = trouble, time.Nanosecond, 0 // always due
				var tries []time.Duration
				start := time.Now()
				for came := 0; time.Since(start) < 3*m; time.Sleep(100 * ms) {
					if got := f.Ask(t.Context(), "a"); got != "key" {
						t.Fatal(got)
					}
					if trouble.came > came {
						came = trouble.came
						tries = append(tries, time.Since(start))
					}
				}
				want := []time.Duration{0, s, 3 * s, 7 * s, 15 * s, 31 * s, 61 * s, 91 * s, 121 * s, 151 * s}
				if op == "put" { // what was taken before stands for 6 s
					want = []time.Duration{0, 6 * s, 12 * s, 18 * s, 26 * s, 42 * s, 72 * s, 102 * s, 132 * s, 162 * s}
				}
				if fmt.Sprint(tries) != fmt.Sprint(want) {
					t.Errorf("it was tried at %v, want %v", tries, want)
				}
				doing := map[string]string{"read": "reading the shared key set", "take": "taking the lease to ask the issuer", "put": "sharing the key set"}[op]
				line := "level=WARN msg=\"" + doing + "\" uri=https://issuer.example/.well-known/jwks.json error=\"broken store\""
				if n := strings.Count(f.Lines(), "level=WARN"); n != 3 || strings.Count(f.Lines(), line) != 3 {
					t.Errorf("%d warnings in 3 minutes, %d of them %s", n, strings.Count(f.Lines(), line), line)
				}
				trouble.harm = nil
				for what, works := range map[string]func(){
					"an exchange": func() {},
					"fresh keys":  func() { f.TTL = ttl; f.share(0, keytest.Text("a", "b")) },
				} {
					f.TTL = time.Nanosecond
					trouble.harm = harms["fails"]
					time.Sleep(h)
					f.Ask(t.Context(), "a")
					trouble.harm = nil
					time.Sleep(m)
					failures := f.Fleet.Failures()
					works()
					f.Ask(t.Context(), "a")
					if n := f.Fleet.Failures(); failures == 0 || n != 0 {
						t.Errorf("%s: of %d failures %d are remembered", what, failures, n)
					}
				}
			})
		})
	}
}

// A clock that is set back silences nothing.
func TestWarningAfterClockStep(t *testing.T) {
	t.Parallel()
	for step, warnings := range map[time.Duration]int{0: 1, -keycache.ClockSkew: 1, -h: 2} {
		synctest.Test(t, func(t *testing.T) {
			f := newShared("a")
			f.Fleet.Store, f.TTL, f.Early = nowhere{}, time.Nanosecond, 0 // always due
			f.Ask(t.Context(), "a")
			f.Step(step)
			time.Sleep(m - 1) // it no longer rests
			f.Ask(t.Context(), "a")
			if n := strings.Count(f.Lines(), "level=WARN"); n != warnings {
				t.Errorf("set by %v: %d warnings, want %d", step, n, warnings)
			}
		})
	}
}

// An operation that dies of a freeze is no failure of the Store.
func TestFreezeIsNoFailureOfTheStore(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"read", "take", "put"} {
		synctest.Test(t, func(t *testing.T) {
			f := newShared("a")
			f.Fleet.Store = &saboteur{Store: f.Fleet.Store, op: op, harm: func(context.Context, func() error) error {
				f.Step(m)
				return errBroken
			}}
			f.Ask(t.Context(), "a")
			if n := f.Fleet.Failures(); n > 0 || strings.Contains(f.Lines(), "broken store") {
				t.Errorf("%s: %d failures\n%s", op, n, f.Lines())
			}
		})
	}
}

// An environment is frozen for an hour in the middle of something. Meanwhile the issuer withdraws a key, and another
// environment learns of it.
func TestFrozenWithAStore(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"read", "take", "fetch", "put"} {
		for name, at := range map[string]func(thaw <-chan struct{}, do func() error) error{
			"before its effect":   func(thaw <-chan struct{}, do func() error) error { <-thaw; return do() },
			"after its effect":    func(thaw <-chan struct{}, do func() error) error { err := do(); <-thaw; return err },
			"its connection dies": func(thaw <-chan struct{}, do func() error) error { _ = do(); <-thaw; return errBroken },
		} {
			for _, first := range []string{"an invocation", "the thaw", "another has the lease, the thaw"} {
				t.Run(op+", "+name+", then "+first, func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						f := newShared("withdrawn")
						if op == "read" {
							f.share(0, keytest.Text("withdrawn"))
						}
						thaw := make(chan struct{})
						trouble := &saboteur{Store: f.Fleet.Store, op: op}
						trouble.harm = func(_ context.Context, do func() error) error {
							trouble.mu.Lock()
							trouble.harm = nil // once
							trouble.mu.Unlock()
							return at(thaw, do)
						}
						f.Fleet.Store = trouble
						if op == "fetch" {
							f.Issuer.Be(func(b *keytest.Behaviour) { b.Delay, b.Deaf = h, true })
						}
						go f.Start(t.Context())
						synctest.Wait()

						time.Sleep(h - m)
						f.Issuer.Set("a")
						slow(f, 0)
						if got := f.other().Ask(t.Context(), "a"); got != "key" {
							t.Errorf("the other environment: %s", got)
						}
						time.Sleep(m)
						switch first {
						case "an invocation":
							if got := f.Ask(t.Context(), "a"); got != "key" {
								t.Errorf("before the thaw: %s", got)
							}
							asked := f.Issuer.Requests()
							close(thaw)
							synctest.Wait()
							if n := f.Issuer.Requests() - asked; n > 0 || f.Fleet.Failures() > 0 && op != "put" {
								t.Errorf("what was given up asks %d times, and %d failures of the Store are counted", n, f.Fleet.Failures())
							}
						case "the thaw":
							close(thaw)
						default:
							f.taken()
							close(thaw)
						}
						synctest.Wait()
						if got := f.Ask(t.Context(), "a"); got != "key" {
							t.Errorf("after the thaw: %s\n%s", got, f.Lines())
						}
						if got := f.Ask(t.Context(), "withdrawn"); got == "key" {
							t.Error("the withdrawn key is still good")
						}
						if set := f.item().Set.([]byte); string(set) != string(keytest.Text("a")) {
							t.Errorf("shared: %s", set)
						}
					})
				})
			}
		}
	}
}

// A writer who was overtaken in the middle of its fetch keeps its keys to itself.
func TestOvertakenWriterLoses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newShared("a")
		slow(f, s)
		go f.Ask(t.Context(), "a")
		time.Sleep(500 * ms)
		f.lease(fleet.LeaseTime)
		f.share(0, keytest.Text("theirs"))
		before := f.item()
		time.Sleep(s)
		if n := f.table.Counts().PutsLost; n != 1 || string(f.item().Set.([]byte)) != string(before.Set.([]byte)) || f.Fleet.Failures() != 0 {
			t.Errorf("%d writes were refused, shared: %v; %d failures of the Store", n, f.item(), f.Fleet.Failures())
		}
		if got := f.Ask(t.Context(), "a"); got != "key" {
			t.Error(got)
		}
	})
}

// Taking the lease may succeed without an answer. A look then tells whose it is: the issuer is asked again under it, as
// if the answer had come.
func TestLostAnswerOfTaking(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newShared("a")
		f.table.Lose = func(op string) error {
			if op == "take" {
				return errBroken
			}
			return nil
		}
		time.Sleep(ms / 2) // what is shared is cut to the millisecond
		f.Ask(t.Context(), "a")
		f.table.Lose = nil
		time.Sleep(s)
		f.Issuer.Set("a b")
		start := time.Now()
		if got := f.Ask(t.Context(), "b"); got != "key" || time.Since(start) > 0 || f.Issuer.Requests() != 2 || f.table.Counts().Takes != 1 {
			t.Errorf("%s after %v and %d requests, %+v", got, time.Since(start), f.Issuer.Requests(), f.table.Counts())
		}
		if n := f.table.Counts().PutsLost; n > 0 || f.item().Sent != number(time.Now()) {
			t.Errorf("%d writes were refused, shared: %v", n, f.item())
		}
	})
}

// The lease's holder waits for its fetch in full, although old keys could serve, and the table's time comes on top.
func TestHolderWaitsInFull(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kid, want string
		known     bool // there are old keys
	}{
		"old keys could serve": {"a", "unknown", true},
		"an unknown kid":       {"b", "key", true},
		"no keys":              {"b", "key", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newShared("a")
				if c.known {
					f.Ask(t.Context(), "a")
					time.Sleep(ttl)
				}
				f.Issuer.Set("b")
				slow(f, 2950*ms)
				f.table.Latency = 170 * ms
				start := time.Now()
				if got := f.Ask(t.Context(), c.kid); got != c.want || time.Since(start) < 3290*ms || time.Since(start) > 3300*ms {
					t.Errorf("%s after %v", got, time.Since(start))
				}
			})
		})
	}
}

// It does not wait for ever.
func TestHolderGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newShared("a")
		f.Ask(t.Context(), "a")
		time.Sleep(ttl)
		f.Issuer.Be(func(b *keytest.Behaviour) { b.Mode, b.Slow = "hang", s })
		start := time.Now()
		if got := f.Ask(t.Context(), "a"); got != "key" || time.Since(start) != 3550*ms {
			t.Errorf("%s after %v", got, time.Since(start))
		}
		time.Sleep(s)
	})
}

// A wait for keys that are due is no full one if the invocation ends before it could be: it is no failure of the issuer.
func TestDueWaitIsCut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newShared("a")
		f.Ask(t.Context(), "a")
		time.Sleep(ttl)
		f.Issuer.Set("b")
		slow(f, 2*s)
		ctx, cancel := context.WithTimeout(t.Context(), s)
		defer cancel()
		first := f.Ask(ctx, "a")
		if second := f.Ask(t.Context(), "a"); first != "key" || second != "unknown" {
			t.Errorf("%s, then %s", first, second)
		}
	})
}

// A request that gives up while keys that came are being shared does not count that as a failure.
func TestGivingUpWhileSharing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newShared("a")
		f.Fleet.Store = &saboteur{Store: f.Fleet.Store, op: "put", harm: harms["hangs"]}
		slow(f, s)
		ctx, cancel := context.WithTimeout(t.Context(), 1400*ms) // 1.2 s
		defer cancel()
		got := f.Ask(ctx, "a")
		f.Issuer.Set("a b")
		time.Sleep(400 * ms) // the table fails by then, and no back-off would have ended
		if then := f.Ask(t.Context(), "b"); got != "key" || then != "key" {
			t.Errorf("%s, then %s", got, then)
		}
	})
}

// A fetch that was replaced leaves the lease to the one that replaced it.
func TestReplacedFetchLeavesTheLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newShared("hang")
		f.Issuer.Be(func(b *keytest.Behaviour) { b.Slow = 500 * ms })
		go f.Ask(t.Context(), "a")
		time.Sleep(s)
		f.Step(2 * s)
		f.Issuer.Set("a")
		slow(f, s)
		if got := f.Ask(t.Context(), "a"); got != "key" {
			t.Error(got)
		}
		if n := f.table.Counts(); n.Takes != 1 || n.Puts != 1 || n.Fails+n.PutsLost > 0 {
			t.Errorf("%+v", n)
		}
	})
}

// A look that outlasts its search tells nothing about the table as it is by then.
func TestReplacedLookChangesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newShared("a")
		thaw := make(chan struct{})
		f.Fleet.Store = &lateReader{Store: f.Fleet.Store, thaw: thaw}
		go f.Ask(t.Context(), "a")
		synctest.Wait()
		f.Step(2 * s)
		if got := f.Ask(t.Context(), "a"); got != "key" {
			t.Error(got)
		}
		close(thaw)
		synctest.Wait()
		before := f.table.Counts()
		if got := f.Ask(t.Context(), "x"); got != "unknown" || f.table.Counts() != before { // the set was sent within the lease
			t.Errorf("%s, and %+v after %+v", got, f.table.Counts(), before)
		}
	})
}

// A lateReader is a Store whose first read ends after the thaw.
type lateReader struct {
	fleet.Store
	thaw chan struct{}
	read atomic.Bool
}

func (l *lateReader) Read(ctx context.Context, consistent bool) (fleet.Copy, error) {
	c, err := l.Store.Read(ctx, consistent)
	if l.read.CompareAndSwap(false, true) {
		<-l.thaw
	}
	return c, err
}

// A search that waited for another's lease, and then asks, is joined as long as it may take.
func TestJoiningALongSearch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newShared("a")
		f.lease(2500 * ms)
		slow(f, 2900*ms)
		go f.Start(t.Context())
		time.Sleep(5 * s)
		if got := f.Ask(t.Context(), "a"); got != "key" || f.Issuer.Requests() != 1 {
			t.Errorf("%s after %d requests", got, f.Issuer.Requests())
		}
	})
}

// A request with a kid that nobody knows joins a search that is only for keys that are due: when that may not ask the
// issuer, the shared copy is looked at for the kid.
func TestJoiningASearchForDueKeys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newShared("a")
		f.Ask(t.Context(), "a")
		time.Sleep(ttl)
		f.taken()
		f.table.Latency = 6 * ms
		go f.Ask(t.Context(), "a")
		time.Sleep(323 * ms) // its last look was now
		f.share(0, keytest.Text("a", "b"))
		if got := f.Ask(t.Context(), "b"); got != "key" {
			t.Error(got)
		}
	})
}

// However many failures in a row are counted, a lease whose holder failed ends 6 s after it was taken.
func TestLeaseAfterManyFailures(t *testing.T) {
	t.Parallel()
	for _, counted := range []string{"4", "63", "9223372036854775807"} {
		synctest.Test(t, func(t *testing.T) {
			f := newShared("503")
			f.setItem(storetest.Item{Failures: storetest.Number(counted)})
			ends := number(time.Now().Add(fleet.LeaseTime))
			f.Ask(t.Context(), "a")
			if f.item().Lease != ends || f.table.Counts().Fails != 1 || strings.Contains(f.Lines(), "panic") {
				t.Errorf("%s failures: %+v\n%s", counted, f.item(), f.Lines())
			}
		})
	}
}

// Where the table does not give the lease, nobody waits as if he had it.
func TestAloneIsNoHolder(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"read", "take"} {
		synctest.Test(t, func(t *testing.T) {
			f := newShared("a")
			f.Ask(t.Context(), "a")
			time.Sleep(ttl)
			f.Issuer.Set("hang")
			f.Fleet.Store = &saboteur{Store: f.Fleet.Store, op: op, harm: harms["fails"]}
			start := time.Now()
			if got := f.Ask(t.Context(), "a"); got != "key" || time.Since(start) != s+fleet.Detour {
				t.Errorf("%s fails: %s after %v", op, got, time.Since(start))
			}
			time.Sleep(3 * s)
		})
	}
}

// A search that was replaced looks no more.
func TestReplacedSearchEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newShared("a")
		f.taken()
		go f.Start(t.Context())
		time.Sleep(s)
		f.Step(2 * s)
		f.share(0, keytest.Text("a"))
		reads := f.table.Counts().Reads
		if got := f.Ask(t.Context(), "a"); got != "key" {
			t.Error(got)
		}
		time.Sleep(3 * s)
		if n := f.table.Counts().Reads - reads; n != 1 {
			t.Errorf("%d looks", n)
		}
	})
}

// A machine that is suspended does not advance the clock that Go prefers for differences.
func TestWallClock(t *testing.T) {
	t.Parallel()
	f := newShared("a")
	watched := &clock{Store: f.Fleet.Store}
	f.Fleet.Store = watched
	f.Ask(t.Context(), "a")
	if watched.now == "" || strings.Contains(watched.now, " m=") {
		t.Errorf("the lease was taken at %q, which must be of the wall clock", watched.now)
	}
}

// A clock notes when the lease was taken.
type clock struct {
	fleet.Store
	now string
}

func (c *clock) Take(ctx context.Context, now time.Time) (time.Time, error) {
	c.now = now.String()
	return c.Store.Take(ctx, now)
}

// Clocks differ, and one is a day off. Everybody finds the keys. The issuer is asked once in 4 minutes by all, or by each
// where what one shares is damaged to the others, and once more for each rotation.
func TestClocksApart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		steps []time.Duration
		most  int // requests in 2 hours
	}{
		"2 s apart":        {[]time.Duration{0, 0, 2 * s}, 2*15 + 2},
		"one a day ahead":  {[]time.Duration{0, 0, 24 * h}, 3 * (2*15 + 2)},
		"one a day behind": {[]time.Duration{0, 0, -24 * h}, 3 * (2*15 + 2)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newShared("k0")
				all := []*shared{f, f.other(), f.other()}
				for n, w := range all {
					w.Step(c.steps[n])
				}
				for tick := range 1440 { // of 5 s
					hour := tick / 720
					f.Issuer.Set(fmt.Sprintf("k%d k%d", hour, hour+1))
					for n, w := range all {
						kid := fmt.Sprintf("k%d", hour+1)
						if tick == 0 {
							kid = "k0"
						}
						if got := w.Ask(t.Context(), kid); got != "key" && tick%720 > 2 { // a lease may take 6 s
							t.Fatalf("environment %d after %v: %s for %s\n%s", n, time.Duration(tick)*5*s, got, kid, w.Lines())
						}
					}
					time.Sleep(5 * s)
				}
				if n := f.Issuer.Requests(); n > c.most {
					t.Errorf("%d requests, want at most %d", n, c.most)
				}
			})
		})
	}
}

// Whatever happens to the table, whatever other environments do with the lease, no invocation fails that would have
// succeeded without a Store, except for an unknown kid while a lease is taken; and none waits more than 350 ms longer.
func TestNoWorseThanWithout(t *testing.T) {
	t.Parallel()
	const runs, steps = 200, 60
	for part := range 4 {
		t.Run(fmt.Sprint(part), func(t *testing.T) {
			t.Parallel()
			for seed := part; seed < runs; seed += 4 {
				synctest.Test(t, func(t *testing.T) { newGamble(t, uint64(seed)).play(steps) })
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}
		})
	}
}

// A gamble is an environment to which things happen at random.
type gamble struct {
	*testing.T
	*shared
	mu    sync.Mutex // guards rand: harm is done elsewhere
	rand  *rand.Rand
	delay time.Duration
	sets  []published
	up    time.Time       // since when the issuer answers; zero: it does not
	taken time.Time       // until when a lease stands that an honest clock took
	held  map[string]bool // kids that this environment was seen to have
}

// A published set stands from then on.
type published struct {
	from time.Time
	kids []string
}

func newGamble(t *testing.T, seed uint64) *gamble {
	g := &gamble{T: t, rand: rand.New(rand.NewPCG(seed, 0)), shared: newShared(""), held: map[string]bool{}}
	g.Fleet.Store = &saboteur{Store: g.Fleet.Store, harm: g.harm}
	g.sets = []published{{time.Now(), []string{"k0", "k1"}}}
	g.restore()
	return g
}

func (g *gamble) draw(n int) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.rand.IntN(n)
}

func (g *gamble) within(d time.Duration) time.Duration { return time.Duration(g.draw(int(d))) }

// harm lets most operations pass, and breaks some in one of the ways there are.
func (g *gamble) harm(ctx context.Context, do func() error) error {
	if g.draw(3) > 0 {
		return do()
	}
	names := []string{"fails", "loses", "panics", "panics after", "hangs", "hangs after", "slow", "slower", "slow as can be"}
	return harms[names[g.draw(len(names))]](ctx, do)
}

func (g *gamble) newest() published { return g.sets[len(g.sets)-1] }

func (g *gamble) restore() {
	g.up = time.Now()
	g.Issuer.Set(strings.Join(g.newest().kids, " "))
}

// watch notes who has the lease.
func (g *gamble) watch() {
	n, _ := g.item().Lease.(storetest.Number)
	if at, err := strconv.ParseInt(string(n), 10, 64); err == nil {
		if ends := time.UnixMilli(at); ends.After(g.taken) && !(fleet.Copy{Lease: ends}).Free(time.Now()) {
			g.taken = ends
		}
	}
}

func (g *gamble) play(steps int) {
	defer time.Sleep(10 * time.Second) // whatever is under way ends
	for range steps {
		time.Sleep([]time.Duration{0, 10 * ms, s, 7 * s, 40 * s, 5 * m}[g.draw(6)])
		g.happen()
		g.watch()
		kids := g.newest().kids
		g.ask(kids[g.draw(len(kids))], true)
		if g.draw(4) == 0 && len(g.sets) > 2 {
			g.ask(g.sets[0].kids[0], false)
		}
	}
}

// happen is what the world does between two invocations.
func (g *gamble) happen() {
	what := g.draw(10)
	if what < 3 { // what the issuer does is for requests that are sent from then on
		time.Sleep(4 * s)
	}
	now := time.Now()
	switch what {
	case 0: // a rotation
		if now.Sub(g.newest().from) > 20*m {
			last := g.newest().kids[1]
			g.sets = append(g.sets, published{now, []string{last, fmt.Sprint("k", len(g.sets)+1)}})
			if !g.up.IsZero() {
				g.Issuer.Set(strings.Join(g.newest().kids, " "))
			}
		}
	case 1: // an outage begins or ends
		if g.up.IsZero() {
			g.restore()
		} else {
			g.up = time.Time{}
			g.Issuer.Set("503")
		}
	case 2:
		g.delay = g.within(2900 * ms)
		slow(g.shared, g.delay)
	case 3, 4: // another environment takes the lease, and may be heard of again
		g.lease(g.within(fleet.LeaseAhead))
		if g.draw(2) == 0 && !g.up.IsZero() {
			set := keytest.Text(g.newest().kids...)
			time.AfterFunc(g.within(350*ms), func() { g.share(time.Since(now), set) })
		}
	case 5: // what is shared is older
		age := g.within(10 * m)
		for _, set := range g.sets {
			if !set.from.After(now.Add(-age)) {
				g.share(age, keytest.Text(set.kids...))
			}
		}
	case 6:
		g.share(g.within(10*m), [][]byte{{}, []byte("?"), []byte(`{"keys":[{}]}`)}[g.draw(3)])
	case 7: // a confused clock
		g.share(-24*h-g.within(24*h), keytest.Text("k0"))
		g.lease(48 * h)
	case 8:
		g.setItem(storetest.Item{})
	}
}

// ask asks for a kid that the issuer publishes, or has not for long.
func (g *gamble) ask(kid string, good bool) {
	start := time.Now()
	age, some := g.Age()
	got := g.Ask(g.Context(), kid)
	took := time.Since(start)
	synctest.Wait()
	g.watch()
	limit := g.delay + fleet.Detour
	if !some || age > g.MaxStale { // for another environment as long as for the issuer
		limit += keycache.FetchTime
	}
	if !good || !g.held[kid] { // a search that it joined, and one of its own
		limit *= 2
	}
	if took > limit {
		g.Errorf("%s for %s after %v, the issuer takes %v\n%s", got, kid, took, g.delay, g.Lines())
	}
	open := !start.Before(g.taken)                              // no lease in the way
	sound := !g.up.IsZero() && start.Sub(g.up) > 30*time.Second // nor a back-off
	switch {
	case good && got != "key" && (g.held[kid] || sound && open):
		g.Errorf("%s for %s, which is published; held before: %v\n%s", got, kid, g.held[kid], g.Lines())
	case !good && got == "key" && sound && open && g.delay < time.Second && start.Sub(g.sets[1].from) > ttl:
		g.Errorf("%s is withdrawn and still good\n%s", kid, g.Lines())
	}
	if good && got == "key" {
		g.held[kid] = true
	}
}

// Copies that were being judged when the process froze are not installed over younger keys; one that panics is damaged.
func TestJudgingTheCopy(t *testing.T) {
	t.Parallel()
	strange := []byte(strings.Replace(string(keytest.Text("withdrawn")), "[", `[{"kty":"?"},`, 1))
	t.Run("it panics", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := newShared("a")
			f.share(0, strange)
			f.Log = slog.New(judging{f.Log.Handler(), func() { panic("c2VjcmV0") }})
			got := f.Ask(t.Context(), "a")
			if log := f.Lines(); got != "key" || string(f.item().Set.([]byte)) != string(keytest.Text("a")) ||
				!strings.Contains(log, `error="panic of type string while judging keys"`) || !strings.Contains(log, "stack=") {
				t.Errorf("%s; shared: %s\n%s", got, f.item().Set, log)
			}
		})
	})
	t.Run("it panics, and the issuer is away", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := newShared("503")
			f.share(0, strange)
			f.Log = slog.New(judging{f.Log.Handler(), func() { panic("c2VjcmV0") }})
			got := f.Ask(t.Context(), "a")
			if _, some := f.Age(); got != "fault" || some {
				t.Errorf("%s, keys: %v", got, some)
			}
		})
	})
	t.Run("frozen", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := newShared("a")
			f.share(0, strange)
			thaw := make(chan struct{})
			var frozen atomic.Bool
			f.Log = slog.New(judging{f.Log.Handler(), func() {
				if frozen.CompareAndSwap(false, true) {
					<-thaw
				}
			}})
			go f.Start(t.Context())
			time.Sleep(h)
			check := func(when string) {
				if got := f.Ask(t.Context(), "a"); got != "key" || f.Ask(t.Context(), "withdrawn") == "key" {
					t.Errorf("%s: %s\n%s", when, got, f.Lines())
				}
			}
			check("before the thaw")
			close(thaw)
			synctest.Wait()
			if age, _ := f.Age(); age > 0 {
				t.Errorf("keys of %v are back", age)
			}
			check("after it")
		})
	})
}

// A judging handler does something when a key is skipped, which is in the middle of judging a set.
type judging struct {
	slog.Handler
	do func()
}

func (j judging) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "key skipped" {
		j.do()
	}
	return j.Handler.Handle(ctx, r)
}

// One search serves all that wait in an environment.
func TestOneSearchForAll(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do    func(f *shared)
		kid   string
		want  string
		asked int
		uses  storetest.Counts
	}{
		"due":                         {func(*shared) { time.Sleep(ttl) }, "a", "key", 2, uses(2, 1, 2, 2)},
		"due, the lease is taken":     {func(f *shared) { time.Sleep(ttl); f.taken() }, "a", "key", 1, uses(5, 1, 1, 1)},
		"rotated":                     {func(f *shared) { time.Sleep(m); f.Issuer.Set("a b") }, "b", "key", 2, uses(2, 2, 2, 2)},
		"unknown, the lease is taken": {func(f *shared) { time.Sleep(m); f.taken() }, "x", "fault", 1, uses(5, 2, 1, 1)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newShared("a")
				f.Ask(t.Context(), "a")
				c.do(f)
				slow(f, 500*ms)
				var all sync.WaitGroup
				for range 50 {
					all.Go(func() {
						if got := f.Ask(t.Context(), c.kid); got != c.want {
							t.Error(got)
						}
					})
				}
				all.Wait()
				if got := f.table.Counts(); got != c.uses || f.Issuer.Requests() != c.asked {
					t.Errorf("%+v, want %+v; %d requests", got, c.uses, f.Issuer.Requests())
				}
			})
		})
	}
}

// A Store that hangs does not take the time that the answer needs.
func TestStoreHangsUntilTheDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newShared("a")
		f.Ask(t.Context(), "a")
		time.Sleep(ttl)
		f.Fleet.Store = &saboteur{Store: f.Fleet.Store, harm: harms["hangs"]}
		ctx, cancel := context.WithTimeout(t.Context(), 500*ms)
		defer cancel()
		start := time.Now()
		if got := f.Ask(ctx, "a"); got != "key" || time.Since(start) != 300*ms {
			t.Errorf("%s after %v", got, time.Since(start))
		}
		time.Sleep(s)
	})
}

// A read that the budget cuts short while another environment has the lease is no failure of the Store.
func TestWaitIsCut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newShared("a")
		f.Ask(t.Context(), "a")
		time.Sleep(ttl)
		f.table.Latency = 90 * ms // 90, and with the pauses 140 and 190: 20 too many
		f.taken()
		start := time.Now()
		got := f.Ask(t.Context(), "a")
		if took := time.Since(start); got != "key" || took != fleet.Detour || f.Issuer.Requests() > 1 || f.Fleet.Failures() > 0 {
			t.Errorf("%s after %v, %d requests, %d failures of the Store", got, took, f.Issuer.Requests(), f.Fleet.Failures())
		}
	})
}

// The Store fails while a new environment waits for another's keys: it goes on alone, and the issuer has its 3 s.
func TestStoreFailsAtTheStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newShared("a")
		slow(f, 2900*ms)
		f.taken()
		trouble := &saboteur{Store: f.Fleet.Store}
		trouble.harm = func(ctx context.Context, do func() error) error {
			if trouble.came > 5 {
				return harms["hangs"](ctx, do)
			}
			return do()
		}
		f.Fleet.Store = trouble
		start := time.Now()
		if err := f.Start(t.Context()); err == nil || time.Since(start) > 3550*ms || f.Issuer.Requests() != 1 {
			t.Errorf("%v after %v and %d requests", err, time.Since(start), f.Issuer.Requests())
		}
		time.Sleep(3 * s)
		if _, ok := f.Age(); !ok {
			t.Errorf("no keys: %s", f.Lines())
		}
	})
}

// A fetch that began late, for the Store took its time, is joined as long as it may take.
func TestJoiningALateFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newShared("a")
		slow(f, 2900*ms)
		f.Fleet.Store = &saboteur{Store: f.Fleet.Store, op: "read", harm: harms["slow as can be"]}
		go f.Start(t.Context())
		time.Sleep(3100 * ms)
		if got := f.Ask(t.Context(), "a"); got != "key" || f.Issuer.Requests() != 1 {
			t.Errorf("%s after %d requests", got, f.Issuer.Requests())
		}
	})
}

// Keys newer than those in memory are what an unknown kid is looked for in, however old both are.
func TestUnknownKidInAgingKeys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newShared("a")
		f.Ask(t.Context(), "a")
		asked := f.Issuer.Requests()
		time.Sleep(ttl - 10*ms)
		f.share(ttl-20*ms, keytest.Text("a", "b"))
		if got := f.Ask(t.Context(), "b"); got != "key" || f.Issuer.Requests() != asked {
			t.Errorf("%s after %d more requests", got, f.Issuer.Requests()-asked)
		}
	})
}
