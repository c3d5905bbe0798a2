package simulation_test

import (
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"zuplo-lambda-authorizer/internal/fleet/storetest"
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
	noLease   = variant{name: "before it asks the issuer", freezesAt: "take"}
	noReply   = variant{name: "before it has the reply", freezesAt: "fetch"}
	noPut     = variant{name: "before it shares the set", freezesAt: "write"}
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
	run    func(w *world) N
	cases  []bounds[N]
}

// bounds are what must hold in a variant.
type bounds[N int | time.Duration] struct {
	variant
	most   N             // of the figure
	newKid time.Duration // how long tokens of a new kid may be refused that would be allowed without the table
	step   N             // the figure differs from run to run and is told in such steps, rounded up
	wild   bool          // so does how many leases are lost
}

// asWithout bounds a figure to what it is without the table.
const asWithout = math.MaxInt

var counts = []scenario[int]{
	{
		"An hour, each asked every 5 s", "requests to the issuer", 0,
		func(w *world) int {
			w.every(5 * sec)
			time.Sleep(20 * minute)
			w.broken(func() { time.Sleep(20 * minute) })
			time.Sleep(20*minute - 1)
			all, _ := w.issuer.requests()
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
		func(w *world) int {
			w.every(sec / 2)
			w.forged.Store(2)
			time.Sleep(15 * sec)
			w.broken(func() { time.Sleep(minute) })
			time.Sleep(15 * sec)
			_, busiest := w.issuer.requests()
			return busiest
		},
		[]bounds[int]{
			{variant: well, most: 10},
			{variant: apart, most: 11, step: 11},                              // who is 2 s ahead of the last to have had the lease takes it after 4 s, once
			{variant: dayAhead, most: 10 + 2*(2+60/10), step: 10, wild: true}, // it takes a lease whenever its own allowance allows, and the others may again at once
			{variant: refusing, most: asWithout, step: 300},
			{variant: slowTable, most: asWithout, step: 300},
			{variant: losing, most: asWithout, step: 300},
		},
	},
	{
		"An outage of the issuer for 6 hours, in which each minute an environment ends and another starts", "valid tokens refused", 1000,
		func(w *world) int {
			w.every(10 * minute)
			time.Sleep(10 * minute)
			w.issuer.down.Store("all")
			twoHours := func() {
				for range 120 {
					w.replace()
					time.Sleep(minute)
				}
			}
			twoHours()
			w.broken(twoHours)
			twoHours()
			w.issuer.down.Store("")
			time.Sleep(10 * minute)
			return len(w.refused())
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
		(*world).rotations,
		[]bounds[time.Duration]{
			{variant: well, most: sec},
			{variant: apart, most: sec},
			{variant: dayAhead, most: 7 * sec, newKid: 6 * sec, step: 2 * sec, wild: true}, // it takes a lease that another has, whose set is then not stored
			{variant: slow, most: 7 * sec, newKid: 6 * sec},
			{variant: lagging, most: 7 * sec, newKid: 6 * sec},
			{variant: refusing, most: 7 * sec, newKid: 6 * sec},
			{variant: slowTable, most: 7 * sec, newKid: 6 * sec},
			{variant: losing, most: 7 * sec, newKid: 6 * sec},
		},
	},
	{
		"Rotations in such a flood", "until all environments allow the new kid", 0,
		func(w *world) time.Duration {
			w.forged.Store(2)
			return w.rotations()
		},
		[]bounds[time.Duration]{
			{variant: well, most: 10 * sec, newKid: 10 * sec},
			{variant: apart, most: 10 * sec, newKid: 10 * sec, step: 7 * sec},
			{variant: dayAhead, most: 11 * sec, newKid: 11 * sec, step: 11 * sec, wild: true}, // it takes the table's set for too old to serve
			{variant: refusing, most: 11 * sec, newKid: 11 * sec},                             // each has its own allowance, as without the table
			{variant: slowTable, most: 11 * sec, newKid: 11 * sec},
			{variant: losing, most: 11 * sec, newKid: 11 * sec},
		},
	},
	{
		"Rotations, in each of which the environment with the lease freezes for an hour", "until the others allow the new kid", 0,
		func(w *world) (worst time.Duration) {
			for _, kid := range []string{"b", "c", "d"} {
				w.every(sec / 2)
				time.Sleep(20 * sec)
				w.icy.Store(true)
				rotated := w.rotate(kid)
				time.Sleep(15 * sec)
				worst = max(worst, w.seen(kid, rotated))
				w.every(20 * sec)
				time.Sleep(10 * minute)
			}
			time.Sleep(frost)
			return worst
		},
		// The lease, the second in which they come back to it, and half a second from one invocation to the next.
		[]bounds[time.Duration]{
			{variant: noLease, most: 8 * sec, newKid: 8 * sec},
			{variant: noReply, most: 8 * sec, newKid: 8 * sec},
			{variant: noPut, most: 8 * sec, newKid: 8 * sec},
		},
	},
	{
		"A withdrawal, just after the keys were fetched", "until no environment allows the old kid", 0,
		func(w *world) time.Duration {
			w.publish("a", "b")
			w.every(5 * sec)
			time.Sleep(minute)
			w.nextRequest()
			time.Sleep(sec)
			withdrawn := w.withdraw("a", "b")
			w.broken(func() { time.Sleep(ttl + maxBackoff) })
			return w.gone("a", withdrawn)
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
		func(w *world) time.Duration {
			w.publish("a", "b")
			w.every(3 * sec)
			time.Sleep(5 * minute)
			w.withdraw("a", "b")
			w.issuer.down.Store("all")
			var up time.Time
			w.broken(func() {
				time.Sleep(7 * minute)
				w.issuer.down.Store("")
				up = time.Now()
				time.Sleep(40 * sec)
			})
			return w.gone("a", up)
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
func (w *world) rotations() (worst time.Duration) {
	w.every(sec / 2)
	time.Sleep(9 * sec)
	w.broken(func() {
		for _, kid := range []string{"b", "c", "d"} {
			time.Sleep(sec)
			rotated := w.rotate(kid)
			time.Sleep(12 * sec)
			worst = max(worst, w.seen(kid, rotated))
		}
	})
	return worst
}

// rotate adds a kid to the one before it, between two releases.
func (w *world) rotate(kid string) time.Time {
	time.Sleep(100 * time.Millisecond)
	both := []string{string(kid[0] - 1), kid}
	w.publish(both...)
	w.present(both...)
	return time.Now()
}

// withdraw takes old away, between two releases.
func (w *world) withdraw(old string, kids ...string) time.Time {
	time.Sleep(100 * time.Millisecond)
	w.publish(kids...)
	w.present(kids...)
	w.withdrawn(old)
	return time.Now()
}

// nextRequest waits until the issuer was asked.
func (w *world) nextRequest() {
	before, _ := w.issuer.requests()
	for n := before; n == before; n, _ = w.issuer.requests() {
		time.Sleep(100 * time.Millisecond)
	}
}

// An outcome is what a run came to.
type outcome[N int | time.Duration] struct {
	figure  N
	table   storetest.Counts
	refused map[invocation]time.Duration // valid tokens, and for how long such had been coming
	longest time.Duration                // of an invocation
	bare    time.Duration                // of one that began without any keys
	frozen  int                          // environments
}

func (s scenario[N]) in(t *testing.T, v variant) (o outcome[N]) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, v)
		o.figure = s.run(w)
		w.end()
		o.refused, o.frozen = w.refused(), w.frozen()
		o.longest, o.bare = w.longest()
		if w.table != nil {
			o.table = w.table.Counts()
		}
	})
	return o
}

// test runs all variants and returns what they came to as a table.
func (s scenario[N]) test(t *testing.T) string {
	var text strings.Builder
	fmt.Fprintf(&text, "\n## %s\n\n| | %s: bound | measured | without the table | leases lost |\n|---|---|---|---|---|\n", s.name, s.figure)
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
	if added := with.bare - without.bare; added > 350*time.Millisecond {
		t.Errorf("an invocation without any keys took %v, without the table %v at most", with.bare, without.bare)
	}
	if lost := with.table.TakesLost; lost <= 100 {
		t.Errorf("%d leases were lost: the environments did not meet", lost)
	}
	frozen, lost := 0, with.table.PutsLost
	switch b.freezesAt {
	case "take", "write":
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
		alone = "" // nobody has a lease there
	}
	leases := 100
	for _, n := range []int{1000, 10000} {
		if with.table.TakesLost > n && !b.wild {
			leases = n
		}
	}
	return fmt.Sprintf("| %s | %s | %s | %s | over %s |\n", b.name, bound, show(min(up(with.figure, b.step), b.bound(without))), alone, show(leases))
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
	large := make([]string, len(loads))
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
		for i, l := range loads {
			t.Run(l.name, func(t *testing.T) {
				t.Parallel()
				large[i] = l.test(t)
			})
		}
	})
	if path := os.Getenv("FLEET_TABLE"); path != "" && !t.Failed() {
		if err := os.WriteFile(path, []byte(page+strings.Join(tables, "")+pagePartition+strings.Join(large, "")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

const page = `# What the shared table does for a fleet

` + "`make fleet`" + ` writes this page. It runs 200 environments of the authorizer in one process and on a simulated clock, each
with a cache of its own, with one table and one issuer, at ` + "`JWKS_TTL=5m`" + ` and ` + "`JWKS_MAX_STALE=24h`" + `. All are asked at the
same instant, so that they meet wherever they can. The issuer answers after 100 ms, the table after 6 ms, and what an
eventually consistent read sees is 50 ms old, unless a row says otherwise. [Further down](#what-one-partition-can-do) fleets are
larger, and the table is as slow to give as DynamoDB.

Each row is a run of its own. Its bound is tested, and so is, in each of them: no set replaces a newer one, in the table or in a
memory; the table adds at most 350 ms to an invocation; and no valid token is refused that would be allowed without the
table. The exception is a token of a kid that its environment does not know yet, while the lease to ask the issuer is
taken or, in a flood, while the environment has used up its own allowance, which it does at other moments than without
the table. Where a rotation took longer than an invocation, such tokens were refused until then.

Figures that differ from run to run are rounded up. "Leases lost" are conditional writes that failed, because another
environment was first.

- "Table: errors", "1 s slow" and "answers lost" are what the table does for a third or more of the run, in its middle. A request
  to a slow table has its effect although nobody waits for it any more, and so has one whose answer is lost.
- With "clocks 2 s apart", an environment in three is a second ahead and another a second behind. One that is ahead may take a
  lease 2 s earlier from one that is behind: one request more in a minute.
- "One clock a day ahead" is that of one environment in 200. Leases and sets that it writes mean nothing to the others, nor
  theirs to it. It asks as often as an environment without a table, each time the others may ask once more, and whose
  lease it overrides does not get to share a set.
`

const pagePartition = `
## What one partition can do

An issuer is one item, hence one partition of DynamoDB: 3,000 read units and 1,000 write units a second. A consistent read takes one
unit for each 4 KB of the item, an eventually consistent one half of that, and a write one for each KB, also when its condition
fails. What is too much is refused at once, and an environment that is refused asks the issuer without a lease. So a fleet that is too large asks
too often. Here the table has that cap, and the environments are asked at random moments.

How large is too large follows from the cap, and from the reads of an environment in one second, at most:

| what comes | reads | item up to 4 KB: units | so the budget holds up to | item of 16 KB: units | up to |
|---|---|---|---|---|---|
| a flood of forged kids, in the second after a lease | a consistent one | 1 | 3,000 environments | 4 | 750 |
| the same, and an outage of the issuer begins | a consistent one and three others | 2.5 | 1,200 | 10 | 300 |
| all start in the same second, with nothing shared | a consistent one and five others | 3.5 | 850 | 3.5, no set is there | 850 |

Writes allow for more. An environment that comes back to a lease looks first, and few find it free at the same moment. Only those who start at the
same moment all try to take it: 1,000 can, at one unit each while there is no set.

The bound is 10 requests in 60 s, and 12 where an outage begins, because the first leases that bring nothing last 1, 2 and
4 s. "A minute later" is from the second minute on. Figures over 100 are rounded up to two digits. They, and small ones, differ a
little from run to run.
`
