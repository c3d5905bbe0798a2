package storetest

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"zuplo-lambda-authorizer/internal/fleet"
)

// A Table is what Run tests: stores of many issuers, and the items behind them.
type Table interface {
	Issuer(issuer, uri string) fleet.Store
	Item(issuer, uri string) Item
	SetItem(issuer, uri string, i Item)
}

// Run runs the cases that every fleet.Store must pass. All run at once, each with an issuer of its own.
func Run(t *testing.T, table Table) {
	t.Helper()
	for name, test := range map[string]func(*fixture){
		"absent":                            absent,
		"damaged":                           damaged,
		"whose lease":                       whoseLease,
		"one of many takes the lease":       oneTakes,
		"the first lease":                   firstLease,
		"put with the lease":                put,
		"put without the lease":             putWithoutLease,
		"put after another took the lease":  overtaken,
		"put twice in one lease":            putTwice,
		"taking the lease keeps the set":    takeKeepsSet,
		"giving the lease back":             giveBack,
		"giving back what another has":      giveBackAnothers,
		"a set that is put ends failures":   putEndsFailures,
		"putting heals what is damaged":     heal,
		"too large to share":                tooLarge,
		"16 KB, every byte":                 everyByte,
		"issuers and URIs do not mix":       apart,
		"a consistent read sees every put":  consistent,
		"times are cut to the millisecond":  cut,
		"a context that is over":            over,
		"two clocks, one of them a day off": clocks,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &fixture{T: t, table: table, issuer: "https://issuer.example/" + name, uri: "https://keys.example/jwks.json"}
			f.Store = table.Issuer(f.issuer, f.uri)
			test(f)
		})
	}
}

// now is when the cases happen. No store reads a clock.
var now = time.UnixMilli(1_800_000_000_123)

var set = []byte(`{"keys":[{"kty":"OKP"}]}`)

type fixture struct {
	*testing.T
	fleet.Store
	table       Table
	issuer, uri string
}

// taken takes the lease, which must be free.
func (f *fixture) taken(at time.Time) (lease time.Time) {
	f.Helper()
	lease, err := f.Take(f.Context(), at)
	if err != nil || lease.IsZero() {
		f.Fatalf("taking the lease: %v, %v", lease, err)
	}
	return lease
}

// lost does not get the lease, which must not be free.
func (f *fixture) lost(at time.Time) {
	f.Helper()
	if lease, err := f.Take(f.Context(), at); err != nil || !lease.IsZero() {
		f.Fatalf("taking the lease gives %v, %v; another has it", lease, err)
	}
}

// put and fail write under a lease, and never say whether it still was the writer's.
func (f *fixture) put(lease time.Time, c fleet.Copy) {
	f.Helper()
	if err := f.Put(f.Context(), lease, c, now.Add(24*time.Hour)); err != nil {
		f.Fatalf("putting: %v", err)
	}
}

func (f *fixture) fail(lease, until time.Time, failures int) {
	f.Helper()
	if err := f.Fail(f.Context(), lease, until, failures); err != nil {
		f.Fatalf("giving the lease back: %v", err)
	}
}

// holds compares the copy with what is wanted, by a consistent read.
func (f *fixture) holds(want fleet.Copy) {
	f.Helper()
	got, err := f.Read(f.Context(), true)
	if err != nil {
		f.Fatal(err)
	}
	if !bytes.Equal(got.Set, want.Set) || !got.Sent.Equal(want.Sent) || !got.Lease.Equal(want.Lease) {
		f.Fatalf("the copy is %s, want %s", show(got), show(want))
	}
	if got.Sent.IsZero() != want.Sent.IsZero() || got.Lease.IsZero() != want.Lease.IsZero() || got.Failures != want.Failures {
		f.Fatal("a time that is missing must be zero")
	}
}

func show(c fleet.Copy) string {
	return fmt.Sprintf("%d bytes sent for at %v, lease until %v, %d failures", len(c.Set), c.Sent.UnixMilli(), c.Lease.UnixMilli(), c.Failures)
}

func number(v int64) Number { return Number(strconv.FormatInt(v, 10)) }

func absent(f *fixture) {
	for _, consistent := range []bool{false, true} {
		if c, err := f.Read(f.Context(), consistent); err != nil || c.Set != nil || !c.Sent.IsZero() || !c.Lease.IsZero() {
			f.Errorf("an item that is not there reads as %s, %v", show(c), err)
		}
	}
	f.put(now.Add(fleet.LeaseTime), fleet.Copy{Set: set, Sent: now})
	if i := f.table.Item(f.issuer, f.uri); i != (Item{}) {
		f.Errorf("something was stored: %v", i)
	}
}

func damaged(f *fixture) {
	ms := now.UnixMilli()
	whole := fleet.Copy{Set: set, Sent: now, Lease: now}
	failed := whole
	failed.Failures = 3
	onlyLease := fleet.Copy{Lease: now}
	onlySet := fleet.Copy{Set: set, Sent: now}
	for _, row := range []struct {
		what string
		item Item
		want fleet.Copy
	}{
		{"nothing", Item{set, number(ms), number(ms), number(1), nil}, whole},
		{"no expires", Item{set, number(ms), number(ms), nil, nil}, whole},
		{"expires a string", Item{set, number(ms), number(ms), "soon", nil}, whole},
		{"no set", Item{nil, number(ms), number(ms), nil, nil}, onlyLease},
		{"set a string", Item{string(set), number(ms), number(ms), nil, nil}, onlyLease},
		{"set a number", Item{Number("1"), number(ms), number(ms), nil, nil}, onlyLease},
		{"set a boolean", Item{true, number(ms), number(ms), nil, nil}, onlyLease},
		{"no sent", Item{set, nil, number(ms), nil, nil}, onlyLease},
		{"sent a string", Item{set, string(number(ms)), number(ms), nil, nil}, onlyLease},
		{"sent binary", Item{set, []byte{1}, number(ms), nil, nil}, onlyLease},
		{"sent a boolean", Item{set, true, number(ms), nil, nil}, onlyLease},
		{"sent zero", Item{set, Number("0"), number(ms), nil, nil}, onlyLease},
		{"sent negative", Item{set, Number("-1"), number(ms), nil, nil}, onlyLease},
		{"sent a fraction", Item{set, Number("1.5"), number(ms), nil, nil}, onlyLease},
		{"sent huge", Item{set, Number("1" + zeros(30)), number(ms), nil, nil}, onlyLease},
		{"no lease", Item{set, number(ms), nil, nil, nil}, onlySet},
		{"lease a string", Item{set, number(ms), string(number(ms)), nil, nil}, onlySet},
		{"lease binary", Item{set, number(ms), []byte(number(ms)), nil, nil}, onlySet},
		{"lease a boolean", Item{set, number(ms), false, nil, nil}, onlySet},
		{"lease negative", Item{set, number(ms), Number("-1"), nil, nil}, onlySet},
		{"lease a fraction", Item{set, number(ms), Number("0.5"), nil, nil}, onlySet},
		{"lease huge", Item{set, number(ms), Number("1" + zeros(30)), nil, nil}, onlySet},
		{"failures", Item{set, number(ms), number(ms), nil, Number("3")}, failed},
		{"failures a string", Item{set, number(ms), number(ms), nil, "3"}, whole},
		{"failures binary", Item{set, number(ms), number(ms), nil, []byte("3")}, whole},
		{"failures a boolean", Item{set, number(ms), number(ms), nil, true}, whole},
		{"failures negative", Item{set, number(ms), number(ms), nil, Number("-3")}, whole},
		{"failures a fraction", Item{set, number(ms), number(ms), nil, Number("1.5")}, whole},
		{"failures huge", Item{set, number(ms), number(ms), nil, Number("1" + zeros(30))}, whole},
		{"all of it", Item{"", "", "", "", nil}, fleet.Copy{}},
		{"all of it away", Item{}, fleet.Copy{}},
	} {
		f.Run(row.what, func(t *testing.T) {
			f.table.SetItem(f.issuer, f.uri, row.item)
			g := *f
			g.T = t
			g.holds(row.want)
		})
	}
}

func zeros(n int) string { return fmt.Sprintf("%0*d", n, 0) }

func whoseLease(f *fixture) {
	at := func(d time.Duration) any { return number(now.Add(d).UnixMilli()) }
	const ms = time.Millisecond
	for _, row := range []struct {
		what  string
		lease any
		free  bool
	}{
		{"none", nil, true},
		{"ended long ago", at(-24 * time.Hour), true},
		{"ended just now", at(0), true},
		{"almost ended", at(ms), false},
		{"just taken", at(fleet.LeaseTime), false},
		{"taken by a clock 4 s ahead", at(fleet.LeaseAhead), false},
		{"taken by a clock further ahead", at(fleet.LeaseAhead + ms), true},
		{"a day ahead", at(24 * time.Hour), true},
		{"negative", Number("-1"), true},
		{"huge", Number("9" + zeros(30)), true},
		{"a string", string(number(now.Add(time.Second).UnixMilli())), true},
		{"binary", []byte("x"), true},
		{"a boolean", true, true},
	} {
		f.Run(row.what, func(t *testing.T) {
			g := *f
			g.T = t
			f.table.SetItem(f.issuer, f.uri, Item{Set: set, Sent: number(now.UnixMilli()), Lease: row.lease})
			c, err := f.Read(f.Context(), true)
			if err != nil {
				t.Fatal(err)
			}
			if c.Free(now) != row.free {
				t.Errorf("Free says %v", !row.free)
			}
			if !row.free {
				g.lost(now)
				g.holds(c)
				return
			}
			lease := g.taken(now)
			if want := now.Add(fleet.LeaseTime); !lease.Equal(want) {
				t.Errorf("the lease ends at %v, want %v", lease, want)
			}
			g.holds(fleet.Copy{Set: set, Sent: now, Lease: lease})
		})
	}
}

func oneTakes(f *fixture) {
	for round := range 5 {
		at := now.Add(time.Duration(round) * fleet.LeaseTime)
		var wg sync.WaitGroup
		var mu sync.Mutex
		var took []time.Time
		start := make(chan struct{})
		for n := range 20 {
			wg.Go(func() {
				<-start
				lease, err := f.Take(f.Context(), at.Add(time.Duration(n)*time.Millisecond)) // clocks differ
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					f.Error(err)
				}
				if !lease.IsZero() {
					took = append(took, lease)
				}
			})
		}
		close(start)
		wg.Wait()
		if len(took) != 1 {
			f.Fatalf("round %d: %d took the lease", round, len(took))
		}
		f.holds(fleet.Copy{Lease: took[0]})
		f.table.SetItem(f.issuer, f.uri, Item{Lease: number(at.UnixMilli())})
	}
}

func firstLease(f *fixture) {
	lease := f.taken(now)
	f.holds(fleet.Copy{Lease: lease})
	f.lost(now)
	f.lost(lease.Add(-time.Millisecond))
	f.holds(fleet.Copy{Lease: lease})
	f.holds(fleet.Copy{Lease: f.taken(lease)})
}

func put(f *fixture) {
	lease := f.taken(now)
	f.put(lease, fleet.Copy{Set: set, Sent: now, Lease: now.Add(time.Hour)}) // the lease is not for putting
	f.holds(fleet.Copy{Set: set, Sent: now, Lease: lease})
	i := f.table.Item(f.issuer, f.uri)
	if want := number(now.Add(24 * time.Hour).Unix()); i.Expires != want {
		f.Errorf("expires is %v, want %v: seconds", i.Expires, want)
	}
	f.lost(lease.Add(-time.Millisecond))
	f.taken(lease)
}

func putWithoutLease(f *fixture) {
	lease := f.taken(now)
	for _, wrong := range []time.Time{{}, now, lease.Add(time.Millisecond), lease.Add(-time.Millisecond), time.UnixMilli(0)} {
		f.put(wrong, fleet.Copy{Set: set, Sent: now})
	}
	f.holds(fleet.Copy{Lease: lease})
	for _, i := range []Item{{}, {Lease: string(number(lease.UnixMilli()))}, {Lease: []byte("x")}} {
		f.table.SetItem(f.issuer, f.uri, i)
		f.put(lease, fleet.Copy{Set: set, Sent: now})
		f.holds(fleet.Copy{})
	}
}

// A writer freezes with the lease; after an hour it wakes with an old set.
func overtaken(f *fixture) {
	frozen := f.taken(now)
	later := now.Add(time.Hour)
	lease := f.taken(later)
	f.put(frozen, fleet.Copy{Set: []byte("old"), Sent: now})
	f.holds(fleet.Copy{Lease: lease})
	fresh := fleet.Copy{Set: set, Sent: later, Lease: lease}
	f.put(lease, fresh)
	f.put(frozen, fleet.Copy{Set: []byte("old"), Sent: now})
	f.holds(fresh)
}

func putTwice(f *fixture) {
	lease := f.taken(now)
	f.put(lease, fleet.Copy{Set: []byte("first"), Sent: now})
	f.put(lease, fleet.Copy{Set: set, Sent: now.Add(time.Second)})
	f.holds(fleet.Copy{Set: set, Sent: now.Add(time.Second), Lease: lease})
}

func giveBack(f *fixture) {
	lease := f.taken(now)
	f.put(lease, fleet.Copy{Set: set, Sent: now})
	lease = f.taken(lease)
	for failures, lasts := range []time.Duration{time.Second, 2 * time.Second, -time.Second} { // -1 s: it has ended
		until := lease.Add(lasts - fleet.LeaseTime)
		f.fail(lease, until, failures+1)
		f.holds(fleet.Copy{Set: set, Sent: now, Lease: until, Failures: failures + 1})
		f.lost(until.Add(-time.Millisecond))
		lease = f.taken(until)
		f.holds(fleet.Copy{Set: set, Sent: now, Lease: lease, Failures: failures + 1})
	}
}

func giveBackAnothers(f *fixture) {
	old := f.taken(now)
	lease := f.taken(old)
	f.fail(old, now, 1)
	f.fail(time.Time{}, now, 1)
	f.holds(fleet.Copy{Lease: lease})
	f.table.SetItem(f.issuer, f.uri, Item{})
	f.fail(lease, now, 1)
	if i := f.table.Item(f.issuer, f.uri); i != (Item{}) {
		f.Errorf("something was stored: %v", i)
	}
}

func putEndsFailures(f *fixture) {
	lease := f.taken(now)
	f.fail(lease, now, 7)
	lease = f.taken(now)
	f.holds(fleet.Copy{Lease: lease, Failures: 7})
	f.put(lease, fleet.Copy{Set: set, Sent: now})
	f.holds(fleet.Copy{Set: set, Sent: now, Lease: lease})
}

func takeKeepsSet(f *fixture) {
	lease := f.taken(now)
	f.put(lease, fleet.Copy{Set: set, Sent: now})
	before := f.table.Item(f.issuer, f.uri)
	lease = f.taken(now.Add(time.Minute))
	f.holds(fleet.Copy{Set: set, Sent: now, Lease: lease})
	if after := f.table.Item(f.issuer, f.uri); after.Expires != before.Expires {
		f.Errorf("expires became %v, it was %v", after.Expires, before.Expires)
	}
}

func heal(f *fixture) {
	f.table.SetItem(f.issuer, f.uri, Item{"", true, "", "never", true})
	lease := f.taken(now)
	f.put(lease, fleet.Copy{Set: set, Sent: now})
	f.holds(fleet.Copy{Set: set, Sent: now, Lease: lease})
	if _, ok := f.table.Item(f.issuer, f.uri).Expires.(Number); !ok {
		f.Error("expires is no number")
	}
}

func tooLarge(f *fixture) {
	lease := f.taken(now)
	f.put(lease, fleet.Copy{Set: set, Sent: now})
	for _, empty := range [][]byte{nil, {}} {
		f.put(lease, fleet.Copy{Set: empty, Sent: now.Add(time.Second)})
		f.holds(fleet.Copy{Sent: now.Add(time.Second), Lease: lease})
	}
}

func everyByte(f *fixture) {
	big := make([]byte, 16<<10)
	for i := range big {
		big[i] = byte(i ^ i>>8)
	}
	lease := f.taken(now)
	f.put(lease, fleet.Copy{Set: big, Sent: now})
	f.holds(fleet.Copy{Set: big, Sent: now, Lease: lease})
}

func apart(f *fixture) {
	lease := f.taken(now)
	f.put(lease, fleet.Copy{Set: set, Sent: now})
	for _, other := range [][2]string{
		{f.issuer, f.uri + "x"}, {f.issuer + "x", f.uri}, {f.issuer + "/", f.uri}, {f.uri, f.issuer},
		{f.issuer + " " + f.uri, f.uri}, {f.issuer, f.issuer}, {f.uri, f.uri},
	} {
		g := *f
		g.issuer, g.uri = other[0], other[1]
		g.Store = f.table.Issuer(g.issuer, g.uri)
		g.holds(fleet.Copy{})
		g.put(lease, fleet.Copy{Set: []byte("other"), Sent: now})
		g.taken(now)
	}
	f.holds(fleet.Copy{Set: set, Sent: now, Lease: lease})
}

func consistent(f *fixture) {
	for n := range 20 {
		at := now.Add(time.Duration(n) * time.Minute)
		lease := f.taken(at)
		f.holds(fleet.Copy{Set: setNo(n - 1), Sent: sentNo(n - 1), Lease: lease})
		f.put(lease, fleet.Copy{Set: setNo(n), Sent: sentNo(n)})
		f.holds(fleet.Copy{Set: setNo(n), Sent: sentNo(n), Lease: lease})
	}
}

func setNo(n int) []byte {
	if n < 0 {
		return nil
	}
	return strconv.AppendInt(nil, int64(n), 10)
}

func sentNo(n int) time.Time {
	if n < 0 {
		return time.Time{}
	}
	return now.Add(time.Duration(n) * time.Minute)
}

func cut(f *fixture) {
	const most = time.Millisecond - 1
	lease := f.taken(now.Add(most))
	if want := now.Add(fleet.LeaseTime); !lease.Equal(want) {
		f.Errorf("the lease ends at %v, want %v", lease, want)
	}
	f.put(lease, fleet.Copy{Set: set, Sent: now.Add(most)})
	f.holds(fleet.Copy{Set: set, Sent: now, Lease: lease})
	f.lost(lease.Add(-1))
	f.taken(lease.Add(most))
}

func over(f *fixture) {
	ctx, cancel := context.WithCancel(f.Context())
	cancel()
	if c, err := f.Read(ctx, true); err == nil || c.Set != nil || !c.Sent.IsZero() || !c.Lease.IsZero() {
		f.Errorf("reading gives %s, %v", show(c), err)
	}
	if lease, err := f.Take(ctx, now); err == nil || !lease.IsZero() {
		f.Errorf("taking the lease gives %v, %v", lease, err)
	}
	if err := f.Put(ctx, now, fleet.Copy{Set: set, Sent: now}, now); err == nil {
		f.Error("putting gives no error")
	}
	if err := f.Fail(ctx, now, now, 1); err == nil {
		f.Error("giving the lease back gives no error")
	}
	if i := f.table.Item(f.issuer, f.uri); i != (Item{}) {
		f.Errorf("something was stored: %v", i)
	}
}

// An environment whose clock is a day ahead or behind takes a lease that the others do not count, and loses it to them.
func clocks(f *fixture) {
	for _, off := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		f.table.SetItem(f.issuer, f.uri, Item{})
		astray := f.taken(now.Add(off))
		lease := f.taken(now)
		f.put(astray, fleet.Copy{Set: []byte("astray"), Sent: now.Add(off)})
		f.put(lease, fleet.Copy{Set: set, Sent: now})
		f.holds(fleet.Copy{Set: set, Sent: now, Lease: lease})
	}
}
