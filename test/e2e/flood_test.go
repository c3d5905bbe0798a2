package e2e

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"
)

// TestFlood holds that a sender of bad tokens cannot make the authorizer ask its issuer without end.
// It counts to the fetch, so the target's keys must stay fresh meanwhile (JWKS_TTL=5m).
func TestFlood(t *testing.T) {
	needs := []Need{Mint, Cold, Count, LongTTL}
	inTurn(t, []testCase{
		{"good tokens: one fetch per process", needs, func(t *testing.T, tg *target) {
			f := startFlood(t, tg)
			for range 50 {
				check(t, tg.asks(order{}, allowed))
			}
			f.run(4, time.Now().Add(2*time.Second), func() error { return tg.asks(order{}, allowed) })
			f.fetches(t, 0)
		}},
		{"bad signatures: no fetch", needs, func(t *testing.T, tg *target) {
			f := startFlood(t, tg)
			f.run(2, time.Now().Add(5*time.Second), func() error {
				return errors.Join(tg.asks(order{Foreign: true}, refused), tg.asks(order{Alg: "RS256", Foreign: true}, refused))
			})
			f.fetches(t, 0)
		}},
		{"tokens that a cheap check refuses: no fetch", needs, func(t *testing.T, tg *target) {
			f := startFlood(t, tg)
			for _, o := range []order{order{}.claim("exp", 0), order{}.claim("iss", "https://issuer.example"), order{}.head("crit", []string{"exp"}), order{}.head("typ", "JWE"), order{SignAs: "RS256"}.head("alg", "HS256")} {
				for range 5 {
					check(t, tg.asks(o.head("kid", fmt.Sprint("unknown-", time.Now().UnixNano())), refused))
				}
			}
			f.fetches(t, 0)
		}},
		{"forged kids, and a rotation among them", append(needs, Rotate), forgedKids},
	})
}

// flood counts from before the authorizer's cold start.
type flood struct {
	tg             *target
	start          time.Time
	starts, before int
	mu             sync.Mutex
	sent           int
	failed         []error
}

// startFlood begins with one process, whose limits nobody has used.
func startFlood(t *testing.T, tg *target) *flood {
	t.Helper()
	f := &flood{tg: tg, start: time.Now(), starts: tg.counted(t).Starts}
	f.before, _ = tg.keyRequests(t)
	tg.warm(t)
	return f
}

// run has workers try, with a breath between, until the time is up, and collects what they say.
func (f *flood) run(workers int, until time.Time, try func() error) {
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for ; time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
				err := try()
				f.mu.Lock()
				f.sent++
				if err != nil {
					f.failed = append(f.failed, err)
				}
				f.mu.Unlock()
			}
		})
	}
	all.Wait()
}

// fetches ends the flood: nothing went wrong, and each process asked for keys once at its start and at most that often again.
func (f *flood) fetches(t *testing.T, more int) {
	t.Helper()
	after, _ := f.tg.keyRequests(t)
	processes := f.tg.counted(t).Starts - f.starts
	n := after - f.before
	t.Logf("%d requests in %s, %d processes, %d fetches", f.sent, time.Since(f.start).Round(time.Millisecond), processes, n)
	if limit := processes * (1 + more); n < processes || n > limit {
		t.Errorf("%d fetches by %d processes, want %d to %d", n, processes, processes, limit)
	}
	if len(f.failed) > 0 {
		t.Errorf("%d of %d requests went wrong: %v", len(f.failed), f.sent, errors.Join(f.failed[:min(5, len(f.failed))]...))
	}
}

// forgedKids floods for 25 s. At 8 s a key is rotated: its tokens are good 10 s later at the latest.
func forgedKids(t *testing.T, tg *target) {
	const (
		length   = 25 * time.Second
		rotateAt = 8 * time.Second
		burst    = 3
		every    = 10 * time.Second // one more
		slack    = time.Second
	)
	f := startFlood(t, tg)
	end := f.start.Add(length)
	verdicts := map[int]int{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.run(2, end, func() error {
			r, err := tg.ask(tg.forged())
			if err != nil {
				return err
			}
			f.mu.Lock()
			verdicts[r.status]++
			f.mu.Unlock()
			if r.status == 500 {
				return within(answerLimit, unavailable)(r)
			}
			return within(answerLimit, refused)(r)
		})
	}()
	defer func() { <-done }()

	check(t, tg.asks(order{}, allowed))
	time.Sleep(time.Until(f.start.Add(rotateAt)))
	_, old := tg.rotate(t, "EdDSA")
	rotated := time.Now()
	eventually(t, every, 250*time.Millisecond, func() error { return tg.asks(order{Alg: "EdDSA"}, allowed) })
	t.Logf("the new key was good %s after the rotation", time.Since(rotated).Round(100*time.Millisecond))
	// Each process has an allowance of its own: by now all of them could ask.
	time.Sleep(time.Until(rotated.Add(every + slack)))
	always(t, end, 250*time.Millisecond, func() error {
		return errors.Join(tg.asks(order{Alg: "EdDSA"}, allowed), tg.asks(order{Alg: "EdDSA", Kid: old}, allowed), tg.asks(order{Alg: "RS256"}, allowed))
	})
	<-done
	t.Logf("verdicts: %v", verdicts)
	f.fetches(t, burst+int(math.Ceil(float64(length)/float64(every))))
}
