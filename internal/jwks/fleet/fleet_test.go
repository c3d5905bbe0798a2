package fleet_test

import (
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"zuplo-lambda-authorizer/internal/jwks/storetest"
)

// What is the matter with a fleet.
var (
	well      = variant{name: "all is well"}
	slow      = variant{name: "the issuer takes 1 s", latency: time.Second}
	lagging   = variant{name: "eventually consistent reads 1 s behind", lag: time.Second}
	apart     = variant{name: "clocks 2 s apart", clock: func(i int) time.Duration { return time.Duration(i%3-1) * time.Second }}
	dayAhead  = variant{name: "one clock a day ahead", clock: func(i int) time.Duration { return time.Duration((i+1)/environments) * 24 * time.Hour }}
	refusing  = variant{name: "table: errors", fault: faultErrors}
	slowTable = variant{name: "table: 1 s slow", fault: faultSlow}
	losing    = variant{name: "table: answers lost", fault: faultLost}
	noTurn    = variant{name: "before it asks the issuer", freezesAt: "take"}
	noReply   = variant{name: "before it has the reply", freezesAt: "fetch"}
	noPut     = variant{name: "before it shares the set", freezesAt: "put"}
)

const (
	sec    = time.Second
	minute = time.Minute
)

// A scenario is what happens to a fleet, and a figure of it that must not be large.
type scenario[N int | time.Duration] struct {
	name   string
	figure string
	about  N // the figure differs from run to run without the table and is told in such steps, rounded up
	run    func(f *fleet) N
	cases  []bounds[N]
}

// bounds are what must hold in a variant.
type bounds[N int | time.Duration] struct {
	variant
	most   N             // of the figure
	newKid time.Duration // how long tokens of a new kid may be refused that would be allowed without the table
	step   N             // the figure differs from run to run and is told in such steps, rounded up
	wild   bool          // so does how many turns are lost
}

// asWithout bounds a figure to what it is without the table.
const asWithout = math.MaxInt

var counts = []scenario[int]{
	{
		"An hour, each asked every 5 s", "requests to the issuer", 0,
		func(f *fleet) int {
			f.every(5 * sec)
			time.Sleep(20 * minute)
			f.broken(func() { time.Sleep(20 * minute) })
			time.Sleep(20*minute - 1)
			all, _ := f.issuer.requests()
			return all
		},
		[]bounds[int]{
			{variant: well, most: 16},
			{variant: lagging, most: 16},
			{variant: apart, most: 16},
			{variant: dayAhead, most: 16 + 2*15, step: 45, wild: true}, // its sets are damaged to the others
			{variant: refusing, most: 15 * environments, step: 1100},
			{variant: slowTable, most: 15 * environments, step: 1100},
			{variant: losing, most: 15 * environments, step: 1100},
		},
	},
	{
		"A flood of forged kids for 90 s, 4 a second in each", "requests to the issuer in the busiest 60 s", 0,
		func(f *fleet) int {
			f.every(sec / 2)
			f.forged.Store(2)
			time.Sleep(15 * sec)
			f.broken(func() { time.Sleep(minute) })
			time.Sleep(15 * sec)
			_, busiest := f.issuer.requests()
			return busiest
		},
		[]bounds[int]{
			{variant: well, most: 10},
			{variant: apart, most: 11, step: 11},                              // who is 2 s ahead of the last to have had the turn takes it after 4 s, once
			{variant: dayAhead, most: 10 + 2*(2+60/10), step: 10, wild: true}, // it takes a turn whenever its own limit allows, and the others may again at once
			{variant: refusing, most: asWithout, step: 300},
			{variant: slowTable, most: asWithout, step: 300},
			{variant: losing, most: asWithout, step: 300},
		},
	},
	{
		"An outage of the issuer for 6 hours, in which each minute an environment ends and another starts", "valid tokens refused", 1000,
		func(f *fleet) int {
			f.every(10 * minute)
			time.Sleep(10 * minute)
			f.issuer.down.Store(true)
			twoHours := func() {
				for range 120 {
					f.replace()
					time.Sleep(minute)
				}
			}
			twoHours()
			f.broken(twoHours)
			twoHours()
			f.issuer.down.Store(false)
			time.Sleep(10 * minute)
			return len(f.refused())
		},
		[]bounds[int]{
			{variant: well},
			{variant: refusing, most: asWithout, step: 1000},
			{variant: slowTable, most: asWithout, step: 1000},
			{variant: losing, most: asWithout, step: 1000},
		},
	},
}

var waits = []scenario[time.Duration]{
	{
		"Rotations", "until all environments allow the new kid", 0,
		(*fleet).rotations,
		[]bounds[time.Duration]{
			{variant: well, most: sec},
			{variant: apart, most: sec},
			{variant: dayAhead, most: 7 * sec, newKid: 6 * sec, step: 2 * sec, wild: true}, // it takes a turn that another has, whose set is then not stored
			{variant: slow, most: 7 * sec, newKid: 6 * sec},
			{variant: lagging, most: 7 * sec, newKid: 6 * sec},
			{variant: refusing, most: 7 * sec, newKid: 6 * sec},
			{variant: slowTable, most: 7 * sec, newKid: 6 * sec},
			{variant: losing, most: 7 * sec, newKid: 6 * sec},
		},
	},
	{
		"Rotations in such a flood", "until all environments allow the new kid", 0,
		func(f *fleet) time.Duration {
			f.forged.Store(2)
			return f.rotations()
		},
		[]bounds[time.Duration]{
			{variant: well, most: 10 * sec, newKid: 10 * sec},
			{variant: apart, most: 10 * sec, newKid: 10 * sec, step: 7 * sec},
			{variant: dayAhead, most: 11 * sec, newKid: 11 * sec, step: 11 * sec, wild: true}, // it takes the table's set for too old to serve
			{variant: refusing, most: 11 * sec, newKid: 11 * sec},                             // each has its own limit, as without the table
			{variant: slowTable, most: 11 * sec, newKid: 11 * sec},
			{variant: losing, most: 11 * sec, newKid: 11 * sec},
		},
	},
	{
		"Rotations, in each of which the environment with the turn freezes for an hour", "until the others allow the new kid", 0,
		func(f *fleet) (worst time.Duration) {
			for _, kid := range []string{"b", "c", "d"} {
				f.every(sec / 2)
				time.Sleep(20 * sec)
				f.icy.Store(true)
				rotated := f.rotate(kid)
				time.Sleep(15 * sec)
				worst = max(worst, f.seen(kid, rotated))
				f.every(20 * sec)
				time.Sleep(10 * minute)
			}
			time.Sleep(frost)
			return worst
		},
		[]bounds[time.Duration]{
			{variant: noTurn, most: 7 * sec, newKid: 7 * sec},
			{variant: noReply, most: 7 * sec, newKid: 7 * sec},
			{variant: noPut, most: 7 * sec, newKid: 7 * sec},
		},
	},
	{
		"A withdrawal, just after the keys were fetched", "until no environment allows the old kid", 0,
		func(f *fleet) time.Duration {
			f.publish("a", "b")
			f.every(5 * sec)
			time.Sleep(minute)
			f.nextRequest()
			time.Sleep(sec)
			withdrawn := f.withdraw("a", "b")
			f.broken(func() { time.Sleep(ttl + maxBackoff) })
			return f.gone("a", withdrawn)
		},
		[]bounds[time.Duration]{
			{variant: well, most: ttl + maxBackoff, step: minute},
			{variant: apart, most: ttl + maxBackoff, step: minute},
			{variant: dayAhead, most: ttl + maxBackoff, step: minute, wild: true},
			{variant: refusing, most: ttl + maxBackoff, step: minute},
			{variant: slowTable, most: ttl + maxBackoff, step: minute},
			{variant: losing, most: ttl + maxBackoff, step: minute},
		},
	},
	{
		"A withdrawal, and an outage of 7 minutes", "until no environment allows the old kid, from the end of the outage", 10 * sec,
		func(f *fleet) time.Duration {
			f.publish("a", "b")
			f.every(3 * sec)
			time.Sleep(5 * minute)
			f.withdraw("a", "b")
			f.issuer.down.Store(true)
			var up time.Time
			f.broken(func() {
				time.Sleep(7 * minute)
				f.issuer.down.Store(false)
				up = time.Now()
				time.Sleep(40 * sec)
			})
			return f.gone("a", up)
		},
		// Next to the back-off: the last fetch of the outage, and 3 s from one invocation to the next.
		[]bounds[time.Duration]{
			{variant: well, most: maxBackoff + 6*sec, step: 10 * sec},
			{variant: refusing, most: maxBackoff + 6*sec, step: 33 * sec},
			{variant: slowTable, most: maxBackoff + 6*sec, step: 33 * sec},
			{variant: losing, most: maxBackoff + 6*sec, step: 33 * sec},
		},
	},
}

// rotations rotates at several phases of whatever has a period, and returns how long the slowest took to be seen by all.
func (f *fleet) rotations() (worst time.Duration) {
	f.every(sec / 2)
	time.Sleep(9 * sec)
	f.broken(func() {
		for _, kid := range []string{"b", "c", "d"} {
			time.Sleep(sec)
			rotated := f.rotate(kid)
			time.Sleep(12 * sec)
			worst = max(worst, f.seen(kid, rotated))
		}
	})
	return worst
}

// rotate adds a kid to the one before it, between two releases.
func (f *fleet) rotate(kid string) time.Time {
	time.Sleep(100 * time.Millisecond)
	both := []string{string(kid[0] - 1), kid}
	f.publish(both...)
	f.present(both...)
	return time.Now()
}

// withdraw takes old away, between two releases.
func (f *fleet) withdraw(old string, kids ...string) time.Time {
	time.Sleep(100 * time.Millisecond)
	f.publish(kids...)
	f.present(kids...)
	f.withdrawn(old)
	return time.Now()
}

// nextRequest waits until the issuer was asked.
func (f *fleet) nextRequest() {
	before, _ := f.issuer.requests()
	for n := before; n == before; n, _ = f.issuer.requests() {
		time.Sleep(100 * time.Millisecond)
	}
}

// An outcome is what a run came to.
type outcome[N int | time.Duration] struct {
	figure  N
	table   storetest.Counts
	refused map[invocation]time.Duration // valid tokens, and for how long such had been coming
	longest time.Duration                // of an invocation
	frozen  int                          // environments
}

func (s scenario[N]) in(t *testing.T, v variant) (o outcome[N]) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, v)
		o.figure = s.run(f)
		f.end()
		o.refused, o.longest, o.frozen = f.refused(), f.longest(), f.frozen()
		if f.table != nil {
			o.table = f.table.Counts()
		}
	})
	return o
}

// test runs all variants and returns what they came to as a table.
func (s scenario[N]) test(t *testing.T) string {
	var text strings.Builder
	fmt.Fprintf(&text, "\n## %s\n\n| | %s: bound | measured | without the table | turns lost |\n|---|---|---|---|---|\n", s.name, s.figure)
	without := map[time.Duration]outcome[N]{} // by the issuer's latency
	for _, b := range s.cases {
		if _, ran := without[b.latency]; !ran {
			without[b.latency] = s.in(t, variant{alone: true, latency: b.latency})
		}
		t.Run(b.name, func(t *testing.T) {
			with, without := s.in(t, b.variant), without[b.latency]
			b.check(t, with, without)
			text.WriteString(b.row(with, without, s.about))
		})
	}
	return text.String()
}

func (b bounds[N]) check(t *testing.T, with, without outcome[N]) {
	t.Logf("measured %v, without the table %v; %d valid tokens refused; %+v", with.figure, without.figure, len(with.refused), with.table)
	if most := b.bound(without); with.figure > most {
		t.Errorf("measured %v, at most %v", with.figure, most)
	}
	for i, since := range with.refused {
		if _, too := without.refused[i]; !too && since > b.newKid {
			t.Errorf("environment %d refused a token of kid %q, %v after the first such, and would not have without the table", i.env, i.kid, since)
			break
		}
	}
	if added := with.longest - without.longest; added > 350*time.Millisecond {
		t.Errorf("an invocation took %v, without the table %v at most", with.longest, without.longest)
	}
	if lost := with.table.TakesLost; lost <= 100 {
		t.Errorf("%d turns were lost: the environments did not meet", lost)
	}
	frozen, lost := 0, with.table.PutsLost
	switch b.freezesAt {
	case "take", "put":
		frozen, lost = 3, 3
	case "fetch": // so late a reply is thrown away
		frozen, lost = 3, 0
	}
	if with.frozen != frozen || with.table.PutsLost != lost {
		t.Errorf("%d environments froze and %d sets were not stored, want %d and %d", with.frozen, with.table.PutsLost, frozen, lost)
	}
}

func (b bounds[N]) bound(without outcome[N]) N {
	if b.most == asWithout {
		return without.figure
	}
	return b.most
}

// row is a line of the table, the same for every run.
func (b bounds[N]) row(with, without outcome[N], about N) string {
	bound, alone := show(b.most), show(up(without.figure, about))
	if b.most == asWithout {
		bound = "as without"
	}
	if b.freezesAt != "" {
		alone = "" // nobody has a turn there
	}
	turns := 100
	for _, n := range []int{1000, 10000} {
		if with.table.TakesLost > n && !b.wild {
			turns = n
		}
	}
	return fmt.Sprintf("| %s | %s | %s | %s | over %s |\n", b.name, bound, show(min(up(with.figure, b.step), b.bound(without))), alone, show(turns))
}

// up rounds a figure up to steps.
func up[N int | time.Duration](figure, step N) N {
	if step == 0 {
		step = 1
		if _, is := any(figure).(time.Duration); is {
			step = N(sec)
		}
	}
	return (figure + step - 1) / step * step
}

func show[N int | time.Duration](n N) string {
	if d, is := any(n).(time.Duration); is {
		return fmt.Sprintf("%v s", d.Seconds())
	}
	text := fmt.Sprint(int(n))
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// TestFleet writes what it measures to FLEET_TABLE, if that is set.
func TestFleet(t *testing.T) {
	t.Parallel()
	tables := make([]string, len(counts)+len(waits))
	t.Run("scenarios", func(t *testing.T) {
		for i, s := range counts {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				tables[i] = s.test(t)
			})
		}
		for i, s := range waits {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				tables[len(counts)+i] = s.test(t)
			})
		}
	})
	if path := os.Getenv("FLEET_TABLE"); path != "" && !t.Failed() {
		if err := os.WriteFile(path, []byte(about+strings.Join(tables, "")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

const about = `# What the shared table does for a fleet

` + "`make fleet`" + ` writes this page. It runs 200 environments of the authorizer in one process and on a simulated clock, each
with a cache of its own, with one table and one issuer, at ` + "`JWKS_TTL=5m`" + ` and ` + "`JWKS_MAX_STALE=24h`" + `. All are asked at the
same instant, so that they meet wherever they can. The issuer answers after 100 ms, the table after 6 ms, and what an
eventually consistent read sees is 50 ms old, unless a row says otherwise.

Each row is a run of its own. Its bound is tested, and so is, in each of them: no set replaces a newer one, in the table or in a
memory; the table adds at most 350 ms to an invocation; and no valid token is refused that would be allowed without the
table. The exception is a token of a kid that its environment does not know yet, while the turn to ask the issuer is
taken or, in a flood, while the environment has used up its own limit, which it does at other moments than without
the table. Where a rotation took longer than an invocation, such tokens were refused until then.

Figures that differ from run to run are rounded up. "Turns lost" are conditional writes that failed, because another
environment was first.

- "Table: errors", "1 s slow" and "answers lost" are what the table does for a third or more of the run, in its middle. A request
  to a slow table has its effect although nobody waits for it any more, and so has one whose answer is lost.
- With "clocks 2 s apart", an environment in three is a second ahead and another a second behind. Whoever is ahead may take a turn
  2 s earlier from one who is behind: one request more in a minute.
- "One clock a day ahead" is that of one environment in 200. Turns and sets that it writes mean nothing to the others, nor
  theirs to it. It asks as often as an environment without a table, each time the others may ask once more, and whose
  turn it overrides does not get to share a set.
`
