package storetest

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"zuplo-lambda-authorizer/internal/jwks"
)

// A Table is what Run tests: stores of many issuers, and the items behind them.
type Table interface {
	Issuer(issuer, uri string) jwks.Store
	Item(issuer, uri string) Item
	SetItem(issuer, uri string, i Item)
}

// Run runs the cases that every jwks.Store must pass. All run at once, each with an issuer of its own.
func Run(t *testing.T, table Table) {
	t.Helper()
	for name, test := range map[string]func(*fixture){
		"absent":                            absent,
		"damaged":                           damaged,
		"whose turn":                        whoseTurn,
		"one of many takes the turn":        oneTakes,
		"a turn begins with the first one":  firstTurn,
		"put with the turn":                 put,
		"put without the turn":              putWithoutTurn,
		"put after another took the turn":   overtaken,
		"put twice in one turn":             putTwice,
		"taking the turn keeps the set":     takeKeepsSet,
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
	jwks.Store
	table       Table
	issuer, uri string
}

// taken takes the turn, which must be free.
func (f *fixture) taken(at time.Time) (turn time.Time) {
	f.Helper()
	turn, ok, err := f.Take(f.Context(), at)
	if err != nil || !ok {
		f.Fatalf("taking the turn: %v, %v", ok, err)
	}
	return turn
}

// lost does not get the turn, which must not be free.
func (f *fixture) lost(at time.Time) {
	f.Helper()
	if turn, ok, err := f.Take(f.Context(), at); err != nil || ok || !turn.IsZero() {
		f.Fatalf("taking the turn gives %v, %v, %v; another has it", turn, ok, err)
	}
}

func (f *fixture) put(turn time.Time, c jwks.Copy, want bool) {
	f.Helper()
	if ok, err := f.Put(f.Context(), turn, c, now.Add(24*time.Hour)); err != nil || ok != want {
		f.Fatalf("putting gives %v, %v, want %v", ok, err, want)
	}
}

// holds compares the copy with what is wanted, by a consistent read.
func (f *fixture) holds(want jwks.Copy) {
	f.Helper()
	got, err := f.Read(f.Context(), true)
	if err != nil {
		f.Fatal(err)
	}
	if !bytes.Equal(got.Set, want.Set) || !got.Sent.Equal(want.Sent) || !got.NextTurn.Equal(want.NextTurn) {
		f.Fatalf("the copy is %s, want %s", show(got), show(want))
	}
	if got.Sent.IsZero() != want.Sent.IsZero() || got.NextTurn.IsZero() != want.NextTurn.IsZero() {
		f.Fatal("a time that is missing must be zero")
	}
}

func show(c jwks.Copy) string {
	return fmt.Sprintf("%d bytes sent for at %v, next turn %v", len(c.Set), c.Sent.UnixMilli(), c.NextTurn.UnixMilli())
}

func number(v int64) Number { return Number(strconv.FormatInt(v, 10)) }

func absent(f *fixture) {
	for _, consistent := range []bool{false, true} {
		if c, err := f.Read(f.Context(), consistent); err != nil || c.Set != nil || !c.Sent.IsZero() || !c.NextTurn.IsZero() {
			f.Errorf("an item that is not there reads as %s, %v", show(c), err)
		}
	}
	f.put(now.Add(jwks.TurnTime), jwks.Copy{Set: set, Sent: now}, false)
	if i := f.table.Item(f.issuer, f.uri); i != (Item{}) {
		f.Errorf("something was stored: %v", i)
	}
}

func damaged(f *fixture) {
	ms := now.UnixMilli()
	whole := jwks.Copy{Set: set, Sent: now, NextTurn: now}
	onlyTurn := jwks.Copy{NextTurn: now}
	onlySet := jwks.Copy{Set: set, Sent: now}
	for _, row := range []struct {
		what string
		item Item
		want jwks.Copy
	}{
		{"nothing", Item{set, number(ms), number(ms), number(1)}, whole},
		{"no expires", Item{set, number(ms), number(ms), nil}, whole},
		{"expires a string", Item{set, number(ms), number(ms), "soon"}, whole},
		{"no set", Item{nil, number(ms), number(ms), nil}, onlyTurn},
		{"set a string", Item{string(set), number(ms), number(ms), nil}, onlyTurn},
		{"set a number", Item{Number("1"), number(ms), number(ms), nil}, onlyTurn},
		{"set a boolean", Item{true, number(ms), number(ms), nil}, onlyTurn},
		{"no sent", Item{set, nil, number(ms), nil}, onlyTurn},
		{"sent a string", Item{set, string(number(ms)), number(ms), nil}, onlyTurn},
		{"sent binary", Item{set, []byte{1}, number(ms), nil}, onlyTurn},
		{"sent a boolean", Item{set, true, number(ms), nil}, onlyTurn},
		{"sent zero", Item{set, Number("0"), number(ms), nil}, onlyTurn},
		{"sent negative", Item{set, Number("-1"), number(ms), nil}, onlyTurn},
		{"sent a fraction", Item{set, Number("1.5"), number(ms), nil}, onlyTurn},
		{"sent huge", Item{set, Number("1" + zeros(30)), number(ms), nil}, onlyTurn},
		{"no turn", Item{set, number(ms), nil, nil}, onlySet},
		{"turn a string", Item{set, number(ms), string(number(ms)), nil}, onlySet},
		{"turn binary", Item{set, number(ms), []byte(number(ms)), nil}, onlySet},
		{"turn a boolean", Item{set, number(ms), false, nil}, onlySet},
		{"turn negative", Item{set, number(ms), Number("-1"), nil}, onlySet},
		{"turn a fraction", Item{set, number(ms), Number("0.5"), nil}, onlySet},
		{"turn huge", Item{set, number(ms), Number("1" + zeros(30)), nil}, onlySet},
		{"all of it", Item{"", "", "", ""}, jwks.Copy{}},
		{"all of it away", Item{}, jwks.Copy{}},
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

func whoseTurn(f *fixture) {
	at := func(d time.Duration) any { return number(now.Add(d).UnixMilli()) }
	const ms = time.Millisecond
	for _, row := range []struct {
		what string
		turn any
		free bool
	}{
		{"none", nil, true},
		{"ended long ago", at(-24 * time.Hour), true},
		{"ended just now", at(0), true},
		{"almost ended", at(ms), false},
		{"just taken", at(jwks.TurnTime), false},
		{"taken by a clock 4 s ahead", at(jwks.TurnAhead), false},
		{"taken by a clock further ahead", at(jwks.TurnAhead + ms), true},
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
			f.table.SetItem(f.issuer, f.uri, Item{Set: set, Sent: number(now.UnixMilli()), NextTurn: row.turn})
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
			turn := g.taken(now)
			if want := now.Add(jwks.TurnTime); !turn.Equal(want) {
				t.Errorf("the turn ends at %v, want %v", turn, want)
			}
			g.holds(jwks.Copy{Set: set, Sent: now, NextTurn: turn})
		})
	}
}

func oneTakes(f *fixture) {
	for round := range 5 {
		at := now.Add(time.Duration(round) * jwks.TurnTime)
		var wg sync.WaitGroup
		var mu sync.Mutex
		var took []time.Time
		start := make(chan struct{})
		for n := range 20 {
			wg.Go(func() {
				<-start
				turn, ok, err := f.Take(f.Context(), at.Add(time.Duration(n)*time.Millisecond)) // clocks differ
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					f.Error(err)
				}
				if ok {
					took = append(took, turn)
				}
			})
		}
		close(start)
		wg.Wait()
		if len(took) != 1 {
			f.Fatalf("round %d: %d took the turn", round, len(took))
		}
		f.holds(jwks.Copy{NextTurn: took[0]})
		f.table.SetItem(f.issuer, f.uri, Item{NextTurn: number(at.UnixMilli())})
	}
}

func firstTurn(f *fixture) {
	turn := f.taken(now)
	f.holds(jwks.Copy{NextTurn: turn})
	f.lost(now)
	f.lost(turn.Add(-time.Millisecond))
	f.holds(jwks.Copy{NextTurn: turn})
	f.holds(jwks.Copy{NextTurn: f.taken(turn)})
}

func put(f *fixture) {
	turn := f.taken(now)
	f.put(turn, jwks.Copy{Set: set, Sent: now, NextTurn: now.Add(time.Hour)}, true) // the turn is not for putting
	f.holds(jwks.Copy{Set: set, Sent: now, NextTurn: turn})
	i := f.table.Item(f.issuer, f.uri)
	if want := number(now.Add(24 * time.Hour).Unix()); i.Expires != want {
		f.Errorf("expires is %v, want %v: seconds", i.Expires, want)
	}
	f.lost(turn.Add(-time.Millisecond))
	f.taken(turn)
}

func putWithoutTurn(f *fixture) {
	turn := f.taken(now)
	for _, wrong := range []time.Time{{}, now, turn.Add(time.Millisecond), turn.Add(-time.Millisecond), time.UnixMilli(0)} {
		f.put(wrong, jwks.Copy{Set: set, Sent: now}, false)
	}
	f.holds(jwks.Copy{NextTurn: turn})
	for _, i := range []Item{{}, {NextTurn: string(number(turn.UnixMilli()))}, {NextTurn: []byte("x")}} {
		f.table.SetItem(f.issuer, f.uri, i)
		f.put(turn, jwks.Copy{Set: set, Sent: now}, false)
		f.holds(jwks.Copy{})
	}
}

// A writer freezes with the turn; after an hour it wakes with an old set.
func overtaken(f *fixture) {
	frozen := f.taken(now)
	later := now.Add(time.Hour)
	turn := f.taken(later)
	f.put(frozen, jwks.Copy{Set: []byte("old"), Sent: now}, false)
	f.holds(jwks.Copy{NextTurn: turn})
	fresh := jwks.Copy{Set: set, Sent: later, NextTurn: turn}
	f.put(turn, fresh, true)
	f.put(frozen, jwks.Copy{Set: []byte("old"), Sent: now}, false)
	f.holds(fresh)
}

func putTwice(f *fixture) {
	turn := f.taken(now)
	f.put(turn, jwks.Copy{Set: []byte("first"), Sent: now}, true)
	f.put(turn, jwks.Copy{Set: set, Sent: now.Add(time.Second)}, true)
	f.holds(jwks.Copy{Set: set, Sent: now.Add(time.Second), NextTurn: turn})
}

func takeKeepsSet(f *fixture) {
	turn := f.taken(now)
	f.put(turn, jwks.Copy{Set: set, Sent: now}, true)
	before := f.table.Item(f.issuer, f.uri)
	turn = f.taken(now.Add(time.Minute))
	f.holds(jwks.Copy{Set: set, Sent: now, NextTurn: turn})
	if after := f.table.Item(f.issuer, f.uri); after.Expires != before.Expires {
		f.Errorf("expires became %v, it was %v", after.Expires, before.Expires)
	}
}

func heal(f *fixture) {
	f.table.SetItem(f.issuer, f.uri, Item{"", true, "", "never"})
	turn := f.taken(now)
	f.put(turn, jwks.Copy{Set: set, Sent: now}, true)
	f.holds(jwks.Copy{Set: set, Sent: now, NextTurn: turn})
	if _, ok := f.table.Item(f.issuer, f.uri).Expires.(Number); !ok {
		f.Error("expires is no number")
	}
}

func tooLarge(f *fixture) {
	turn := f.taken(now)
	f.put(turn, jwks.Copy{Set: set, Sent: now}, true)
	for _, empty := range [][]byte{nil, {}} {
		f.put(turn, jwks.Copy{Set: empty, Sent: now.Add(time.Second)}, true)
		f.holds(jwks.Copy{Sent: now.Add(time.Second), NextTurn: turn})
	}
}

func everyByte(f *fixture) {
	big := make([]byte, 16<<10)
	for i := range big {
		big[i] = byte(i ^ i>>8)
	}
	turn := f.taken(now)
	f.put(turn, jwks.Copy{Set: big, Sent: now}, true)
	f.holds(jwks.Copy{Set: big, Sent: now, NextTurn: turn})
}

func apart(f *fixture) {
	turn := f.taken(now)
	f.put(turn, jwks.Copy{Set: set, Sent: now}, true)
	for _, other := range [][2]string{
		{f.issuer, f.uri + "x"}, {f.issuer + "x", f.uri}, {f.issuer + "/", f.uri}, {f.uri, f.issuer},
		{f.issuer + " " + f.uri, f.uri}, {f.issuer, f.issuer}, {f.uri, f.uri},
	} {
		g := *f
		g.issuer, g.uri = other[0], other[1]
		g.Store = f.table.Issuer(g.issuer, g.uri)
		g.holds(jwks.Copy{})
		g.put(turn, jwks.Copy{Set: []byte("other"), Sent: now}, false)
		g.taken(now)
	}
	f.holds(jwks.Copy{Set: set, Sent: now, NextTurn: turn})
}

func consistent(f *fixture) {
	for n := range 20 {
		at := now.Add(time.Duration(n) * time.Minute)
		turn := f.taken(at)
		f.holds(jwks.Copy{Set: setNo(n - 1), Sent: sentNo(n - 1), NextTurn: turn})
		f.put(turn, jwks.Copy{Set: setNo(n), Sent: sentNo(n)}, true)
		f.holds(jwks.Copy{Set: setNo(n), Sent: sentNo(n), NextTurn: turn})
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
	turn := f.taken(now.Add(most))
	if want := now.Add(jwks.TurnTime); !turn.Equal(want) {
		f.Errorf("the turn ends at %v, want %v", turn, want)
	}
	f.put(turn, jwks.Copy{Set: set, Sent: now.Add(most)}, true)
	f.holds(jwks.Copy{Set: set, Sent: now, NextTurn: turn})
	f.lost(turn.Add(-1))
	f.taken(turn.Add(most))
}

func over(f *fixture) {
	ctx, cancel := context.WithCancel(f.Context())
	cancel()
	if c, err := f.Read(ctx, true); err == nil || c.Set != nil || !c.Sent.IsZero() || !c.NextTurn.IsZero() {
		f.Errorf("reading gives %s, %v", show(c), err)
	}
	if turn, ok, err := f.Take(ctx, now); err == nil || ok || !turn.IsZero() {
		f.Errorf("taking the turn gives %v, %v, %v", turn, ok, err)
	}
	if ok, err := f.Put(ctx, now, jwks.Copy{Set: set, Sent: now}, now); err == nil || ok {
		f.Errorf("putting gives %v, %v", ok, err)
	}
	if i := f.table.Item(f.issuer, f.uri); i != (Item{}) {
		f.Errorf("something was stored: %v", i)
	}
}

// Whoever has the clock that is a day ahead or behind takes a turn that the others do not count, and loses it to them.
func clocks(f *fixture) {
	for _, off := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		f.table.SetItem(f.issuer, f.uri, Item{})
		astray := f.taken(now.Add(off))
		turn := f.taken(now)
		f.put(astray, jwks.Copy{Set: []byte("astray"), Sent: now.Add(off)}, false)
		f.put(turn, jwks.Copy{Set: set, Sent: now}, true)
		f.holds(jwks.Copy{Set: set, Sent: now, NextTurn: turn})
	}
}
