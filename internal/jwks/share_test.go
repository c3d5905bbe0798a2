package jwks_test

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

	"zuplo-lambda-authorizer/internal/jwks"
	"zuplo-lambda-authorizer/internal/jwks/storetest"
)

const (
	ms, s, m, h = time.Millisecond, time.Second, time.Minute, time.Hour

	ttl = 5 * m // of every World
)

// A fleet is environments that share a table and an issuer. The World is the one that is looked at.
type fleet struct {
	*jwks.World
	table *storetest.Memory
}

func newFleet(mode string) *fleet {
	f := &fleet{jwks.NewWorld(mode), &storetest.Memory{}}
	f.Store = f.table.Issuer("i", "u")
	return f
}

// other is another environment of the fleet.
func (f *fleet) other() *jwks.World {
	w := f.Beside()
	w.Store = f.table.Issuer("i", "u")
	return w
}

func (f *fleet) item() storetest.Item     { return f.table.Item("i", "u") }
func (f *fleet) setItem(i storetest.Item) { f.table.SetItem("i", "u", i) }

// share replaces the shared set by one that was sent for that long ago, whoever has the turn.
func (f *fleet) share(age time.Duration, text []byte) {
	i := f.item()
	i.Set, i.Sent = text, number(time.Now().Add(-age))
	f.setItem(i)
}

// taken gives the turn to an environment that is never heard of again.
func (f *fleet) taken() { f.turn(jwks.TurnTime) }

func (f *fleet) turn(ends time.Duration) {
	i := f.item()
	i.NextTurn = number(time.Now().Add(ends))
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
		do     func(*fleet)
		issuer string
		kid    string
		want   string
		took   time.Duration
		asked  int // requests to the issuer so far
		uses   storetest.Counts
	}
	taken := (*fleet).taken
	shared := func(age time.Duration, kids ...string) func(*fleet) {
		return func(f *fleet) { f.share(age, jwks.Text(kids...)) }
	}
	free := func(f *fleet) { f.turn(0) }
	both := func(all ...func(*fleet)) func(*fleet) {
		return func(f *fleet) {
			for _, do := range all {
				do(f)
			}
		}
	}
	later := func(d time.Duration, do func(*fleet)) func(*fleet) {
		return func(f *fleet) { time.AfterFunc(d, func() { do(f) }) }
	}
	lost := func(c storetest.Counts) storetest.Counts { c.TakesLost = 1; return c }
	first := step{kid: "a", want: "key", asked: 1, uses: uses(1, 1, 1, 1)}
	for name, steps := range map[string][]step{
		"nobody shared anything: the turn, the issuer, and it is shared": {first, {after: ttl/5*4 - 1, kid: "a", want: "key", asked: 1, uses: uses(1, 1, 1, 1)}},
		"somebody shared fresh keys": {
			{do: shared(4*m-1*ms, "a"), kid: "a", want: "key", uses: uses(1, 1, 0, 0)},
			{kid: "a", want: "key", uses: uses(1, 1, 0, 0)},
		},
		"due: an eventually consistent read, the turn, the issuer": {first, {after: ttl, kid: "a", want: "key", asked: 2, uses: uses(2, 1, 2, 2)}},
		"due, somebody shared fresh keys": {
			first, {after: ttl, do: shared(4*m-1*ms, "a"), kid: "a", want: "key", asked: 1, uses: uses(2, 1, 1, 1)},
			{kid: "a", want: "key", asked: 1, uses: uses(2, 1, 1, 1)},
		},
		"due, the shared keys will be soon": {first, {after: ttl, do: shared(4*m, "a"), kid: "a", want: "key", asked: 2, uses: uses(2, 1, 2, 2)}},
		"due, and withdrawn by the shared keys": {
			first, {after: ttl, do: shared(s, "b"), issuer: "b", kid: "a", want: "unknown", asked: 2, uses: uses(3, 2, 2, 2)},
		},
		"younger keys become the old ones in an outage": {
			first, {after: 6 * m, issuer: "503", do: shared(5*m, "a", "b"), kid: "a", want: "key", asked: 2, uses: uses(2, 1, 2, 1)},
			{kid: "b", want: "key", asked: 2, uses: uses(2, 1, 2, 1)},
		},
		"older keys do not": {
			first, {after: 6 * m, issuer: "503", do: shared(7*m, "a", "b"), kid: "b", want: "fault", asked: 2, uses: uses(2, 2, 2, 1)},
		},
		"due, the turn is taken: three more looks, then old keys serve until it ends": {
			first, {after: ttl, do: taken, kid: "a", want: "key", took: 300 * ms, asked: 1, uses: uses(5, 1, 1, 1)},
			{kid: "a", want: "key", asked: 1, uses: uses(5, 1, 1, 1)},
			{after: 5700*ms - 1, kid: "a", want: "key", asked: 1, uses: uses(5, 1, 1, 1)},
			{after: 1, kid: "a", want: "key", asked: 2, uses: uses(6, 1, 2, 2)},
		},
		"due, the turn is taken, the keys come after the first look": {
			first, {after: ttl, do: both(taken, later(49*ms, shared(0, "a"))), kid: "a", want: "key", took: 50 * ms, asked: 1, uses: uses(3, 1, 1, 1)},
		},
		"due, the turn is taken, the keys come after the second": {
			first, {after: ttl, do: both(taken, later(51*ms, shared(0, "a"))), kid: "a", want: "key", took: 150 * ms, asked: 1, uses: uses(4, 1, 1, 1)},
		},
		"due, the turn is taken, the keys come after the third": {
			first, {after: ttl, do: both(taken, later(151*ms, shared(0, "a"))), kid: "a", want: "key", took: 300 * ms, asked: 1, uses: uses(5, 1, 1, 1)},
			{kid: "a", want: "key", asked: 1, uses: uses(5, 1, 1, 1)},
		},
		"due, the turn is taken, old keys that are younger come: no end of the wait": {
			first, {after: 6 * m, do: both(taken, later(10*ms, shared(5*m, "a"))), kid: "a", want: "key", took: 300 * ms, asked: 1, uses: uses(5, 1, 1, 1)},
		},
		"keys that a clock far ahead dated give way": {
			{do: func(f *fleet) { f.Step(h) }, kid: "a", want: "key", asked: 1, uses: uses(1, 1, 1, 1)},
			{do: both(func(f *fleet) { f.Step(-h) }, shared(s, "b")), kid: "b", want: "key", asked: 1, uses: uses(2, 2, 1, 1)},
			{kid: "b", want: "key", asked: 1, uses: uses(2, 2, 1, 1)},
		},
		"an unknown kid: a consistent read, and somebody saw the rotation": {
			first, {after: m, do: shared(s, "a", "b"), kid: "b", want: "key", asked: 1, uses: uses(2, 2, 1, 1)},
		},
		"an unknown kid: nobody saw it": {
			first, {after: m, issuer: "a b", kid: "b", want: "key", asked: 2, uses: uses(2, 2, 2, 2)},
		},
		"an unknown kid, the shared keys are newer and do not know it: the issuer": {
			first, {after: m, do: shared(s, "a", "c"), issuer: "a b", kid: "b", want: "key", asked: 2, uses: uses(2, 2, 2, 2)},
		},
		"an unknown kid, the turn is taken: three more looks, then a fault": {
			first, {after: m, do: taken, kid: "x", want: "fault", took: 300 * ms, asked: 1, uses: uses(5, 2, 1, 1)},
			{kid: "x", want: "fault", asked: 1, uses: uses(5, 2, 1, 1)},
			{after: 6 * s, issuer: "a b", kid: "b", want: "key", asked: 2, uses: uses(6, 3, 2, 2)},
		},
		"an unknown kid, the turn is taken, the keys come": {
			first, {after: m, do: both(taken, later(120*ms, shared(0, "a", "b"))), kid: "b", want: "key", took: 150 * ms, asked: 1, uses: uses(4, 2, 1, 1)},
		},
		"an unknown kid, the turn is taken, keys come that do not know it: no more waiting": {
			first, {after: m, do: both(taken, later(40*ms, shared(0, "a"))), kid: "x", want: "unknown", took: 50 * ms, asked: 1, uses: uses(3, 2, 1, 1)},
		},
		"an unknown kid, the turn is taken, keys just young enough": {
			first, {after: m, do: both(taken, shared(9699*ms, "a")), kid: "x", want: "unknown", asked: 1, uses: uses(2, 2, 1, 1)},
			{after: s, kid: "x", want: "fault", took: 300 * ms, asked: 1, uses: uses(6, 3, 1, 1)},
		},
		"an unknown kid, the turn is taken, keys of 10 s after the wait": {
			{do: both(shared(9700*ms, "a"), free), kid: "a", want: "key", uses: uses(1, 1, 0, 0)},
			{do: taken, kid: "x", want: "fault", took: 300 * ms, uses: lost(uses(4, 1, 1, 0))},
		},
		"an unknown kid, the turn is taken, keys of almost 10 s after the wait": {
			{do: both(shared(9699*ms, "a"), free), kid: "a", want: "key", uses: uses(1, 1, 0, 0)},
			{do: taken, kid: "x", want: "unknown", took: 300 * ms, uses: lost(uses(4, 1, 1, 0))},
		},
		"an unknown kid: one look a second, and its own turn is not waited for": {
			first, {after: 2 * s, kid: "x", want: "unknown", asked: 1, uses: uses(2, 2, 1, 1)},
			{kid: "x", want: "unknown", asked: 1, uses: uses(2, 2, 1, 1)},
			{after: s - 1, kid: "x", want: "unknown", asked: 1, uses: uses(2, 2, 1, 1)},
			{after: 1, kid: "x", want: "unknown", asked: 1, uses: uses(3, 3, 1, 1)},
			{after: 3*s - 1, kid: "x", want: "unknown", asked: 1, uses: uses(4, 4, 1, 1)},
			{after: 1, kid: "x", want: "unknown", asked: 2, uses: uses(4, 4, 2, 2)}, // its turn is over; the look was just now
		},
		"looking without a turn of the limiter": {
			{kid: "a", do: func(f *fleet) { f.UseTurns() }, want: "key", asked: 1, uses: uses(1, 1, 1, 1)},
			{after: 7 * s, kid: "x", want: "unknown", asked: 1, uses: uses(2, 2, 1, 1)},
			{after: s, do: shared(s, "a", "b"), kid: "b", want: "key", asked: 1, uses: uses(3, 3, 1, 1)},
			{after: 1900 * ms, do: shared(0, "a", "c"), kid: "x", want: "unknown", asked: 1, uses: uses(4, 4, 1, 1)},
		},
		"back-off: nobody waits for keys that are due, unknown kids are looked for": {
			first,
			{after: ttl, issuer: "503", kid: "a", want: "key", asked: 2, uses: uses(2, 1, 2, 1)},
			{after: 6 * s, kid: "a", want: "key", asked: 3, uses: uses(3, 1, 3, 1)},
			{after: 6 * s, kid: "a", want: "key", asked: 4, uses: uses(4, 1, 4, 1)},
			{after: 6 * s, kid: "a", want: "key", asked: 5, uses: uses(5, 1, 5, 1)}, // 8 s
			{after: 6500 * ms, do: shared(20*s, "a", "b"), kid: "a", want: "key", asked: 5, uses: uses(5, 1, 5, 1)},
			{kid: "b", want: "key", asked: 5, uses: uses(6, 2, 5, 1)},
			{kid: "x", want: "fault", asked: 5, uses: uses(6, 2, 5, 1)},
			{after: s, kid: "x", want: "fault", asked: 5, uses: uses(7, 3, 5, 1)},
			{kid: "a", want: "key", asked: 5, uses: uses(7, 3, 5, 1)},
		},
		"back-off and no keys at all: looked for": {
			{issuer: "503", kid: "a", want: "fault", asked: 1, uses: uses(1, 1, 1, 0)},
			{after: 6 * s, kid: "a", want: "fault", asked: 2, uses: uses(2, 2, 2, 0)},
			{after: s, do: shared(h, "a"), kid: "a", want: "key", asked: 2, uses: uses(3, 3, 2, 0)},
		},
		"an empty set": {
			first, {after: m, do: shared(s), issuer: "empty", kid: "a", want: "key", asked: 1, uses: uses(1, 1, 1, 1)},
			{kid: "x", want: "fault", asked: 2, uses: uses(2, 2, 2, 2)}, // everything is withdrawn: the issuer is asked about it
			{after: s, kid: "a", want: "fault", asked: 2, uses: uses(3, 3, 2, 2)},
			{after: 5 * s, issuer: "a", kid: "a", want: "key", asked: 3, uses: uses(4, 4, 3, 3)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFleet("a")
				for n, step := range steps {
					time.Sleep(step.after)
					if step.issuer != "" {
						f.Issuer().Set(step.issuer)
					}
					if step.do != nil {
						step.do(f)
					}
					start := time.Now()
					got := jwks.Ask(f.World, t.Context(), step.kid)
					took := time.Since(start)
					synctest.Wait()
					counts := f.table.Counts()
					if got != step.want || took != step.took || f.Issuer().Requests() != step.asked || counts != step.uses {
						t.Fatalf("step %d, kid %s: %s after %v, %d requests and %+v, want %s after %v, %d and %+v\n%s", n, step.kid,
							got, took, f.Issuer().Requests(), counts, step.want, step.took, step.asked, step.uses, f.Lines())
					}
				}
			})
		})
	}
}

// With a Store, an environment is due at a random time, so that the fleet is not due at once; alone it is at TTL.
func TestRandomlyDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet("a")
		var seen [5]int
		for range 200 {
			w := f.other()
			if got := jwks.Ask(w, t.Context(), "a"); got != "key" {
				t.Fatal(got)
			}
			if w.Due() < 4*m || w.Due() > ttl {
				t.Fatalf("due at %v", w.Due())
			}
			seen[min(4, int((w.Due()-4*m)/(12*s)))]++
		}
		for n, times := range seen {
			if times < 10 {
				t.Errorf("%d of 200 are due between %v and %v", times, 4*m+time.Duration(n)*12*s, 4*m+time.Duration(n+1)*12*s)
			}
		}
		alone := f.Beside()
		for range 5 {
			jwks.Ask(alone, t.Context(), "a")
			if alone.Due() != ttl {
				t.Errorf("without a Store due at %v", alone.Due())
			}
			time.Sleep(ttl)
		}
	})
}

// A copy that is damaged or too old counts as absent, and the next turn replaces it.
func TestDamagedCopy(t *testing.T) {
	t.Parallel()
	good := jwks.Text("a")
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
					f := newFleet(mode)
					f.share(c.age, c.set)
					got, asked := jwks.Ask(f.World, t.Context(), "a"), strconv.Itoa(f.Issuer().Requests())
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
	most := strings.Repeat("k", 16<<10-len(jwks.Text(""))) // the kid that makes 16 KB
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(most)
		if got := jwks.Ask(f.World, t.Context(), most); got != "key" || len(f.item().Set.([]byte)) != 16<<10 {
			t.Fatalf("%s; %d bytes are shared", got, len(f.item().Set.([]byte)))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		large := most + "k"
		f := newFleet(large)
		if got := jwks.Ask(f.World, t.Context(), large); got != "key" || len(f.item().Set.([]byte)) != 0 || f.item().Sent != number(time.Now()) {
			t.Fatalf("%s; shared: %v", got, f.item())
		}
		if want := "16385 bytes, at most 16384 are shared"; strings.Count(f.Lines(), "level=WARN") != 1 || !strings.Contains(f.Lines(), want) {
			t.Errorf("log: %s", f.Lines())
		}

		// While that is the newest that is known, the turn is no obstacle: it says nothing about one's own need.
		w := f.other()
		if err := w.Refresh(t.Context()); err != nil || f.Issuer().Requests() != 2 {
			t.Errorf("a new environment: %v after %d requests", err, f.Issuer().Requests())
		}
		for n := range 3 {
			if got := jwks.Ask(w, t.Context(), "x"); got != "unknown" || f.Issuer().Requests() != 3+n {
				t.Errorf("an unknown kid: %s after %d requests", got, f.Issuer().Requests())
			}
		}
		if got, want := f.table.Counts(), uses(2, 2, 1, 1); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}

		// It shrinks: whose turn is next shares it.
		time.Sleep(ttl)
		f.Issuer().Set(large + " b")
		jwks.Ask(f.World, t.Context(), large)
		if got, want := f.table.Counts(), uses(3, 2, 2, 2); got != want || f.Issuer().Requests() != 6 {
			t.Errorf("%+v, want %+v; %d requests", got, want, f.Issuer().Requests())
		}
		time.Sleep(ttl)
		f.Issuer().Set("a")
		jwks.Ask(w, t.Context(), large)
		if set := f.item().Set.([]byte); string(set) != string(jwks.Text("a")) {
			t.Errorf("shared: %s", set)
		}
		if got := jwks.Ask(f.World, t.Context(), "a"); got != "key" || f.Issuer().Requests() != 7 {
			t.Errorf("%s after %d requests", got, f.Issuer().Requests())
		}
	})
}

// A new environment that waits while the one with the turn finds a set too large to share goes on alone.
func TestTooLargeWhileWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(strings.Repeat("k", 16<<10))
		f.Issuer().Delays(time.Second, false)
		go jwks.Ask(f.other(), t.Context(), "k")
		synctest.Wait()
		start := time.Now()
		if err := f.Refresh(t.Context()); err != nil || f.Issuer().Requests() != 2 || time.Since(start) > 2200*ms {
			t.Errorf("%v after %d requests and %v", err, f.Issuer().Requests(), time.Since(start))
		}
	})
}

// The limiter's turn comes back when the issuer was not asked.
func TestNotAskingGivesTheLimitersTurnBack(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(f *fleet){
		"the copy came":     func(f *fleet) { f.share(0, jwks.Text("a", "x")) },
		"the turn is taken": (*fleet).taken,
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet("a")
			jwks.Ask(f.World, t.Context(), "a")
			time.Sleep(m)
			do(f)
			if jwks.Ask(f.World, t.Context(), "x"); f.TurnsUsed() != 0 || f.Issuer().Requests() != 1 {
				t.Errorf("%s: %d turns used, %d requests", name, f.TurnsUsed(), f.Issuer().Requests())
			}
		})
	}
}

func TestStart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do     func(f *fleet)
		issuer string
		err    string
		took   time.Duration
		asked  int
		kid    string // what is said of "a" then
	}{
		"nothing there": {asked: 1, kid: "key"},
		"fresh keys":    {do: func(f *fleet) { f.share(m, jwks.Text("a")) }, kid: "key"},
		"an outage": {
			do: func(f *fleet) { f.share(6*h, jwks.Text("a")) }, issuer: "503", err: "status 503", asked: 1, kid: "key",
		},
		"the turn is taken": {do: (*fleet).taken, err: jwks.ErrTaken.Error(), took: 2850 * ms, kid: "fault"},
		"the turn is taken, there are keys that are too old": {
			do: func(f *fleet) { f.taken(); f.share(25*h, jwks.Text("a")) }, err: jwks.ErrTaken.Error(), took: 2850 * ms, kid: "fault",
		},
		"the turn is taken, the keys come": {
			do: func(f *fleet) { f.taken(); time.AfterFunc(2*s, func() { f.share(0, jwks.Text("a")) }) }, took: 2100 * ms, kid: "key",
		},
		"the turn is taken, old keys come": {
			do: func(f *fleet) { f.taken(); time.AfterFunc(2*s, func() { f.share(h, jwks.Text("a")) }) }, err: jwks.ErrTaken.Error(), took: 2100 * ms, kid: "key",
		},
		"the turn is taken, there are old keys": {
			do: func(f *fleet) { f.taken(); f.share(h, jwks.Text("a")) }, err: jwks.ErrTaken.Error(), took: 300 * ms, kid: "key",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFleet("a")
				if c.issuer != "" {
					f.Issuer().Set(c.issuer)
				}
				if c.do != nil {
					c.do(f)
				}
				start := time.Now()
				err := f.Refresh(t.Context())
				took := time.Since(start)
				if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) || took != c.took || f.Issuer().Requests() != c.asked {
					t.Errorf("%v after %v and %d requests", err, took, f.Issuer().Requests())
				}
				if got := jwks.Ask(f.World, t.Context(), "a"); got != c.kid {
					t.Errorf("then %s", got)
				}
			})
		})
	}
}

// A saboteur does harm to the operations of a Store that its field names; "" means all.
type saboteur struct {
	jwks.Store
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

func (s *saboteur) Read(ctx context.Context, consistent bool) (c jwks.Copy, err error) {
	err = s.at(ctx, "read", func() (err error) { c, err = s.Store.Read(ctx, consistent); return err })
	if err != nil {
		return jwks.Copy{}, err
	}
	return c, nil
}

func (s *saboteur) Take(ctx context.Context, now time.Time) (turn time.Time, ok bool, err error) {
	err = s.at(ctx, "take", func() (err error) { turn, ok, err = s.Store.Take(ctx, now); return err })
	if err != nil {
		return time.Time{}, false, err
	}
	return turn, ok, nil
}

func (s *saboteur) Put(ctx context.Context, turn time.Time, c jwks.Copy, expires time.Time) (ok bool, err error) {
	err = s.at(ctx, "put", func() (err error) { ok, err = s.Store.Put(ctx, turn, c, expires); return err })
	return ok && err == nil, err
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
	"slow":           slow(100 * ms),
	"slower":         slow(170 * ms),
	"slow as can be": slow(349 * ms),
}

func slow(d time.Duration) func(ctx context.Context, do func() error) error {
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
	scenes := map[string]func(f *fleet) (kid string){
		"start": func(*fleet) string { return "a" },
		"due": func(f *fleet) string {
			jwks.Ask(f.World, context.Background(), "a")
			time.Sleep(ttl)
			return "a"
		},
		"due and withdrawn": func(f *fleet) string {
			jwks.Ask(f.World, context.Background(), "a")
			time.Sleep(ttl)
			f.Issuer().Set("b")
			return "a"
		},
		"rotated": func(f *fleet) string {
			jwks.Ask(f.World, context.Background(), "a")
			time.Sleep(m)
			f.Issuer().Set("a b")
			return "b"
		},
		"rotated, the copy does not know": func(f *fleet) string {
			jwks.Ask(f.World, context.Background(), "a")
			time.Sleep(m)
			f.Issuer().Set("a b")
			if f.Store != nil {
				f.share(10*s, jwks.Text("a", "c"))
			}
			return "b"
		},
		"unknown": func(f *fleet) string {
			jwks.Ask(f.World, context.Background(), "a")
			time.Sleep(m)
			return "x"
		},
		"due in an outage": func(f *fleet) string {
			jwks.Ask(f.World, context.Background(), "a")
			time.Sleep(ttl)
			f.Issuer().Set("503")
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
						ask := func(f *fleet, kid string) (string, time.Duration) {
							f.Issuer().Delays(delay, false)
							start := time.Now()
							got := jwks.Ask(f.World, t.Context(), kid)
							return got, time.Since(start)
						}
						alone := newFleet("a")
						alone.Store = nil
						want, without := ask(alone, prepare(alone))

						f := newFleet("a")
						trouble := &saboteur{Store: f.Store, op: op}
						f.Store = trouble
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
				f := newFleet("a")
				trouble := &saboteur{Store: f.Store, op: op, harm: harms["fails"]}
				f.Store, f.TTL = trouble, time.Nanosecond // always due
				var tries []time.Duration
				start := time.Now()
				for came := 0; time.Since(start) < 3*m; time.Sleep(100 * ms) {
					if got := jwks.Ask(f.World, t.Context(), "a"); got != "key" {
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
				doing := map[string]string{"read": "reading the shared key set", "take": "taking the turn to ask the issuer", "put": "sharing the key set"}[op]
				line := "level=WARN msg=\"" + doing + "\" uri=https://issuer.example/.well-known/jwks.json error=\"broken store\""
				if n := strings.Count(f.Lines(), "level=WARN"); n != 3 || strings.Count(f.Lines(), line) != 3 {
					t.Errorf("%d warnings in 3 minutes, %d of them %s", n, strings.Count(f.Lines(), line), line)
				}
				trouble.harm = nil
				for what, works := range map[string]func(){
					"an exchange": func() {},
					"fresh keys":  func() { f.TTL = ttl; f.share(0, jwks.Text("a", "b")) },
				} {
					f.TTL = time.Nanosecond
					trouble.harm = harms["fails"]
					time.Sleep(h)
					jwks.Ask(f.World, t.Context(), "a")
					trouble.harm = nil
					time.Sleep(m)
					failures := f.StoreFailures()
					works()
					jwks.Ask(f.World, t.Context(), "a")
					if n := f.StoreFailures(); failures == 0 || n != 0 {
						t.Errorf("%s: of %d failures %d are remembered", what, failures, n)
					}
				}
			})
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
			for _, first := range []string{"an invocation", "the thaw", "another has the turn, the thaw"} {
				t.Run(op+", "+name+", then "+first, func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						f := newFleet("withdrawn")
						if op == "read" {
							f.share(0, jwks.Text("withdrawn"))
						}
						thaw := make(chan struct{})
						trouble := &saboteur{Store: f.Store, op: op}
						trouble.harm = func(_ context.Context, do func() error) error {
							trouble.mu.Lock()
							trouble.harm = nil // once
							trouble.mu.Unlock()
							return at(thaw, do)
						}
						f.Store = trouble
						if op == "fetch" {
							f.Issuer().Delays(h, true)
						}
						go f.Refresh(t.Context())
						synctest.Wait()

						time.Sleep(h - m)
						f.Issuer().Set("a")
						f.Issuer().Delays(0, false)
						if got := jwks.Ask(f.other(), t.Context(), "a"); got != "key" {
							t.Errorf("the other environment: %s", got)
						}
						time.Sleep(m)
						switch first {
						case "an invocation":
							if got := jwks.Ask(f.World, t.Context(), "a"); got != "key" {
								t.Errorf("before the thaw: %s", got)
							}
							asked := f.Issuer().Requests()
							close(thaw)
							synctest.Wait()
							if n := f.Issuer().Requests() - asked; n > 0 || f.StoreFailures() > 0 && op != "put" {
								t.Errorf("what was given up asks %d times, and %d failures of the Store are counted", n, f.StoreFailures())
							}
						case "the thaw":
							close(thaw)
						default:
							f.taken()
							close(thaw)
						}
						synctest.Wait()
						if got := jwks.Ask(f.World, t.Context(), "a"); got != "key" {
							t.Errorf("after the thaw: %s\n%s", got, f.Lines())
						}
						if got := jwks.Ask(f.World, t.Context(), "withdrawn"); got == "key" {
							t.Error("the withdrawn key is still good")
						}
						if set := f.item().Set.([]byte); string(set) != string(jwks.Text("a")) {
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
		f := newFleet("a")
		f.Issuer().Delays(s, false)
		go jwks.Ask(f.World, t.Context(), "a")
		time.Sleep(500 * ms)
		f.turn(jwks.TurnTime)
		f.share(0, jwks.Text("theirs"))
		before := f.item()
		time.Sleep(s)
		if n := f.table.Counts().PutsLost; n != 1 || string(f.item().Set.([]byte)) != string(before.Set.([]byte)) || f.StoreFailures() != 0 {
			t.Errorf("%d writes were refused, shared: %v; %d failures of the Store", n, f.item(), f.StoreFailures())
		}
		if got := jwks.Ask(f.World, t.Context(), "a"); got != "key" {
			t.Error(got)
		}
	})
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
				f := newFleet("k0")
				all := []*jwks.World{f.World, f.other(), f.other()}
				for n, w := range all {
					w.Step(c.steps[n])
				}
				for tick := range 1440 { // of 5 s
					hour := tick / 720
					f.Issuer().Set(fmt.Sprintf("k%d k%d", hour, hour+1))
					for n, w := range all {
						kid := fmt.Sprintf("k%d", hour+1)
						if tick == 0 {
							kid = "k0"
						}
						if got := jwks.Ask(w, t.Context(), kid); got != "key" && tick%720 > 2 { // whose turn it is may take 6 s
							t.Fatalf("environment %d after %v: %s for %s\n%s", n, time.Duration(tick)*5*s, got, kid, w.Lines())
						}
					}
					time.Sleep(5 * s)
				}
				if n := f.Issuer().Requests(); n > c.most {
					t.Errorf("%d requests, want at most %d", n, c.most)
				}
			})
		})
	}
}

// A search that might only look, for a forged kid, is joined by who may ask the issuer: then it is asked.
func TestJoiningWhoMayOnlyLook(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet("a")
		jwks.Ask(f.World, t.Context(), "a")
		time.Sleep(f.Due() - 50*ms)
		f.table.Latency = 100 * ms
		f.Issuer().Set("b")
		f.UseTurns()
		go jwks.Ask(f.World, t.Context(), "x")
		time.Sleep(50 * ms)
		if got := jwks.Ask(f.World, t.Context(), "b"); got != "key" {
			t.Error(got)
		}
	})
}

// Whatever happens to the table, whatever other environments do with the turn, no invocation fails that would have
// succeeded without a Store, but for an unknown kid while a turn is taken; and none waits more than 350 ms longer.
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
	*fleet
	mu    sync.Mutex // guards rand: harm is done elsewhere
	rand  *rand.Rand
	delay time.Duration
	sets  []published
	up    time.Time       // since when the issuer answers; zero: it does not
	taken time.Time       // until when a turn stands that an honest clock took
	held  map[string]bool // kids that this environment was seen to have
}

// A published set stands from then on.
type published struct {
	from time.Time
	kids []string
}

func newGamble(t *testing.T, seed uint64) *gamble {
	g := &gamble{T: t, rand: rand.New(rand.NewPCG(seed, 0)), fleet: newFleet(""), held: map[string]bool{}}
	g.Store = &saboteur{Store: g.Store, harm: g.harm}
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
	g.Issuer().Set(strings.Join(g.newest().kids, " "))
}

// watch notes whose turn it is.
func (g *gamble) watch() {
	n, _ := g.item().NextTurn.(storetest.Number)
	if at, err := strconv.ParseInt(string(n), 10, 64); err == nil {
		if ends := time.UnixMilli(at); ends.After(g.taken) && !(jwks.Copy{NextTurn: ends}).Free(time.Now()) {
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
				g.Issuer().Set(strings.Join(g.newest().kids, " "))
			}
		}
	case 1: // an outage begins or ends
		if g.up.IsZero() {
			g.restore()
		} else {
			g.up = time.Time{}
			g.Issuer().Set("503")
		}
	case 2:
		g.delay = g.within(2900 * ms)
		g.Issuer().Delays(g.delay, false)
	case 3, 4: // another environment takes the turn, and may be heard of again
		g.turn(g.within(jwks.TurnAhead))
		if g.draw(2) == 0 && !g.up.IsZero() {
			set := jwks.Text(g.newest().kids...)
			time.AfterFunc(g.within(350*ms), func() { g.share(time.Since(now), set) })
		}
	case 5: // what is shared is older
		age := g.within(10 * m)
		for _, set := range g.sets {
			if !set.from.After(now.Add(-age)) {
				g.share(age, jwks.Text(set.kids...))
			}
		}
	case 6:
		g.share(g.within(10*m), [][]byte{{}, []byte("?"), []byte(`{"keys":[{}]}`)}[g.draw(3)])
	case 7: // a confused clock
		g.share(-24*h-g.within(24*h), jwks.Text("k0"))
		g.turn(48 * h)
	case 8:
		g.setItem(storetest.Item{})
	}
}

// ask asks for a kid that the issuer publishes, or has not for long.
func (g *gamble) ask(kid string, good bool) {
	start := time.Now()
	got := jwks.Ask(g.World, g.Context(), kid)
	took := time.Since(start)
	synctest.Wait()
	g.watch()
	limit := g.delay + jwks.StoreTime
	if g.held[kid] && good {
		limit = min(limit, time.Second+jwks.StoreTime)
	}
	if took > limit {
		g.Errorf("%s for %s after %v, the issuer takes %v\n%s", got, kid, took, g.delay, g.Lines())
	}
	open := !start.Before(g.taken)                              // no turn in the way
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
	strange := []byte(strings.Replace(string(jwks.Text("withdrawn")), "[", `[{"kty":"?"},`, 1))
	t.Run("it panics", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := newFleet("a")
			f.share(0, strange)
			f.Log = slog.New(judging{f.Log.Handler(), func() { panic("c2VjcmV0") }})
			got := jwks.Ask(f.World, t.Context(), "a")
			if log := f.Lines(); got != "key" || string(f.item().Set.([]byte)) != string(jwks.Text("a")) ||
				!strings.Contains(log, `error="panic of type string while judging the shared key set"`) || !strings.Contains(log, "stack=") {
				t.Errorf("%s; shared: %s\n%s", got, f.item().Set, log)
			}
		})
	})
	t.Run("frozen", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			f := newFleet("a")
			f.share(0, strange)
			thaw := make(chan struct{})
			var frozen atomic.Bool
			f.Log = slog.New(judging{f.Log.Handler(), func() {
				if frozen.CompareAndSwap(false, true) {
					<-thaw
				}
			}})
			go f.Refresh(t.Context())
			time.Sleep(h)
			check := func(when string) {
				if got := jwks.Ask(f.World, t.Context(), "a"); got != "key" || jwks.Ask(f.World, t.Context(), "withdrawn") == "key" {
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
		do    func(f *fleet)
		kid   string
		want  string
		asked int
		uses  storetest.Counts
	}{
		"due":                        {func(*fleet) { time.Sleep(ttl) }, "a", "key", 2, uses(2, 1, 2, 2)},
		"due, the turn is taken":     {func(f *fleet) { time.Sleep(ttl); f.taken() }, "a", "key", 1, uses(5, 1, 1, 1)},
		"rotated":                    {func(f *fleet) { time.Sleep(m); f.Issuer().Set("a b") }, "b", "key", 2, uses(2, 2, 2, 2)},
		"unknown, the turn is taken": {func(f *fleet) { time.Sleep(m); f.taken() }, "x", "fault", 1, uses(5, 2, 1, 1)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFleet("a")
				jwks.Ask(f.World, t.Context(), "a")
				c.do(f)
				f.Issuer().Delays(500*ms, false)
				var all sync.WaitGroup
				for range 50 {
					all.Go(func() {
						if got := jwks.Ask(f.World, t.Context(), c.kid); got != c.want {
							t.Error(got)
						}
					})
				}
				all.Wait()
				if got := f.table.Counts(); got != c.uses || f.Issuer().Requests() != c.asked {
					t.Errorf("%+v, want %+v; %d requests", got, c.uses, f.Issuer().Requests())
				}
			})
		})
	}
}

// A Store that hangs does not take the time that the answer needs.
func TestStoreHangsUntilTheDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet("a")
		jwks.Ask(f.World, t.Context(), "a")
		time.Sleep(ttl)
		f.Store = &saboteur{Store: f.Store, harm: harms["hangs"]}
		ctx, cancel := context.WithTimeout(t.Context(), 500*ms)
		defer cancel()
		start := time.Now()
		if got := jwks.Ask(f.World, ctx, "a"); got != "key" || time.Since(start) != 300*ms {
			t.Errorf("%s after %v", got, time.Since(start))
		}
		time.Sleep(s)
	})
}

// A read that the budget cuts short while another environment has the turn is no failure of the Store.
func TestWaitIsCut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet("a")
		f.table.Latency = 90 * ms // 90, and with the pauses 140 and 190: 20 too many
		f.taken()
		start := time.Now()
		got := jwks.Ask(f.World, t.Context(), "a")
		if took := time.Since(start); got != "fault" || took != jwks.StoreTime || f.Issuer().Requests() > 0 || f.StoreFailures() > 0 {
			t.Errorf("%s after %v, %d requests, %d failures of the Store", got, took, f.Issuer().Requests(), f.StoreFailures())
		}
	})
}

// The Store fails while a new environment waits for another's keys: it goes on alone, and the issuer has its 3 s.
func TestStoreFailsAtTheStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet("a")
		f.Issuer().Delays(2900*ms, false)
		f.taken()
		trouble := &saboteur{Store: f.Store}
		trouble.harm = func(ctx context.Context, do func() error) error {
			if trouble.came > 10 {
				return harms["hangs"](ctx, do)
			}
			return do()
		}
		f.Store = trouble
		start := time.Now()
		if err := f.Refresh(t.Context()); err == nil || time.Since(start) > 3550*ms || f.Issuer().Requests() != 1 {
			t.Errorf("%v after %v and %d requests", err, time.Since(start), f.Issuer().Requests())
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
		f := newFleet("a")
		f.Issuer().Delays(2900*ms, false)
		f.Store = &saboteur{Store: f.Store, op: "read", harm: harms["slow as can be"]}
		go f.Refresh(t.Context())
		time.Sleep(3100 * ms)
		if got := jwks.Ask(f.World, t.Context(), "a"); got != "key" || f.Issuer().Requests() != 1 {
			t.Errorf("%s after %d requests", got, f.Issuer().Requests())
		}
	})
}

// Keys newer than those in memory are what an unknown kid is looked for in, however old both are.
func TestUnknownKidInAgingKeys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet("a")
		for jwks.Ask(f.World, t.Context(), "a"); f.Due() < 4*m+s; jwks.Ask(f.World, t.Context(), "a") {
			time.Sleep(ttl)
		}
		asked := f.Issuer().Requests()
		time.Sleep(f.Due() - 10*ms)
		f.share(f.Due()-20*ms, jwks.Text("a", "b"))
		if got := jwks.Ask(f.World, t.Context(), "b"); got != "key" || f.Issuer().Requests() != asked {
			t.Errorf("%s after %d more requests", got, f.Issuer().Requests()-asked)
		}
	})
}
