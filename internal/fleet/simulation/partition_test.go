package simulation_test

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// What DynamoDB lets one partition do in a second, and what an item holds beside the set.
const (
	readUnits, writeUnits = 3000, 1000
	attributes            = 100 // bytes
)

// A partition counts what is asked of it, and throttles what is too much for its second.
type partition struct {
	mu          sync.Mutex
	second      time.Time
	read, write float64
	throttled   int
	busiest     float64 // the most read units in a second
}

// use charges a call, whose read is by 4 KB and write by 1 KB of the item.
func (w *world) use(read, write float64) error {
	if w.variant.kb == 0 {
		return nil
	}
	bytes := float64(attributes)
	if set, ok := w.table.Item(issuerURL, jwksURI).Set.([]byte); ok {
		bytes += float64(len(set))
	}
	read *= math.Ceil(bytes / (4 << 10))
	write *= math.Ceil(bytes / (1 << 10))
	p := &w.partition
	p.mu.Lock()
	defer p.mu.Unlock()
	if second := time.Now().Truncate(sec); !second.Equal(p.second) {
		p.second, p.read, p.write = second, 0, 0
	}
	if p.read+read > readUnits || p.write+write > writeUnits {
		p.throttled++
		return errors.New("throttled")
	}
	p.read, p.write = p.read+read, p.write+write
	p.busiest = max(p.busiest, p.read)
	return nil
}

// A load is what a large fleet does and meets. It returns since when the issuer is asked steadily.
type load struct {
	name    string
	most    int  // requests to the issuer in 60 s
	refuses bool // valid tokens
	run     func(*world) time.Time
}

var loads = []load{
	{"A start within 10 s, and a flood of forged kids for 100 s, 2 a second in each", inFlood, false, func(w *world) time.Time {
		w.flood()
		time.Sleep(100 * sec)
		return w.began
	}},
	{"Such a flood, and after 30 s the issuer answers 503 for 3 minutes", inOutage, false, floodInOutage("503")},
	{"Such a flood, and after 30 s the issuer hangs for 3 minutes", inOutage, false, floodInOutage("hangs")},
	{"A valid token a second in each, and the issuer answers 503 for 5 minutes, from before the keys are due", inOutage, false, dueInOutage("503")},
	{"A valid token a second in each, and the issuer hangs for 5 minutes, from before the keys are due", inOutage, false, dueInOutage("hangs")},
	{"A start within 10 s without anything shared, while the issuer answers 503 for 2 minutes", inOutage, true, startInOutage("503")},
	{"A start within 10 s without anything shared, while the issuer hangs for 2 minutes", inOutage, true, startInOutage("hangs")},
}

const (
	inFlood  = 10
	inOutage = 12 // the first leases last 1, 2 and 4 s
)

func (w *world) flood() {
	w.every(sec / 2)
	w.forged.Store(1)
}

func floodInOutage(way string) func(*world) time.Time {
	return func(w *world) time.Time {
		w.flood()
		time.Sleep(30 * sec)
		w.issuer.down.Store(way)
		began := time.Now()
		time.Sleep(3 * minute)
		return began
	}
}

func dueInOutage(way string) func(*world) time.Time {
	return func(w *world) time.Time {
		time.Sleep(3 * minute)
		w.issuer.down.Store(way)
		w.nextRequest()
		began := time.Now()
		time.Sleep(5 * minute)
		return began
	}
}

// startInOutage ends well: all have keys at once.
func startInOutage(way string) func(*world) time.Time {
	return func(w *world) time.Time {
		w.issuer.down.Store(way)
		time.Sleep(2 * minute)
		w.issuer.down.Store("")
		up := time.Now()
		time.Sleep(20 * sec)
		for i := range w.refused() {
			if after := i.time.Sub(up); after > 3*sec {
				w.Errorf("a valid token was refused %v after the outage", after)
			}
		}
		return w.began
	}
}

// A sized is fleets that share an item of so many KB. One of up to within environments stays within what the partition can do
// under any load; inFlood, while the issuer is well.
type sized struct {
	kb, within, inFlood int
	environments        []int
}

func fleets() []sized {
	if os.Getenv("FLEET_TABLE") == "" { // what takes longer is for make fleet
		return []sized{{3, 200, 200, []int{200}}, {16, 200, 200, []int{200}}}
	}
	return []sized{{3, 1200, 1500, []int{200, 1200, 1500}}, {16, 300, 750, []int{200, 300, 400, 750, 1500}}}
}

// test runs the load on each fleet and returns what came of it as a table.
func (l load) test(t *testing.T) string {
	var text strings.Builder
	fmt.Fprintf(&text, `
### %s

| environments | item | requests in the busiest 60 s: bound | measured | a minute later | reads | units in the busiest second | leases lost | calls throttled | valid tokens refused |
|---|---|---|---|---|---|---|---|---|---|
`, l.name)
	for _, s := range fleets() {
		within := s.within
		if l.most == inFlood {
			within = s.inFlood
		}
		for _, n := range s.environments {
			t.Run(fmt.Sprintf("%d, %d KB", n, s.kb), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, variant{name: "large", size: n, kb: s.kb, starts: 10 * sec})
					steady := l.run(w).Add(minute)
					w.end()
					text.WriteString(l.check(w, steady, n <= within))
				})
			})
		}
	}
	return text.String()
}

// check returns a row of the table.
func (l load) check(w *world, steady time.Time, within bool) string {
	_, busiest := w.issuer.requests()
	later := w.issuer.busiestSince(steady)
	counts, refused := w.table.Counts(), len(w.refused())
	reads := counts.Reads + w.replica.Counts().Reads
	throttled, units := w.partition.throttled, int(w.partition.busiest)
	w.Logf("%d requests in 60 s, later %d; %d reads, %d units in a second; %d calls throttled; %d valid tokens refused; %+v",
		busiest, later, reads, units, throttled, refused, counts)
	bound := "none"
	if within {
		bound = show(l.most)
		if busiest > l.most || later > inFlood || throttled > 0 {
			w.Errorf("%d requests in 60 s, at most %d; later %d, at most %d; %d calls throttled", busiest, l.most, later, inFlood, throttled)
		}
	}
	if units == 0 {
		w.Error("no read was counted")
	}
	if refused > 0 != l.refuses {
		w.Errorf("%d valid tokens were refused", refused)
	}
	row := fmt.Sprintf("| %s | %d KB | %s |", show(w.variant.size), w.variant.kb, bound)
	for _, n := range []int{busiest, later, reads, units, counts.TakesLost, throttled, refused} {
		row += " " + show(about(n)) + " |"
	}
	return row + "\n"
}

// about rounds up to two digits.
func about(n int) int {
	step := 1
	for n > 100*step {
		step *= 10
	}
	return (n + step - 1) / step * step
}
