package keycache

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"runtime/debug"
	"sync"
	"time"
)

// ClockSkew is how far a wall clock may step back, or another environment's be ahead, before what depends on it is asked for anew.
const ClockSkew = 30 * time.Second

// Age is how long ago t was. Up to ClockSkew in the future counts as young, more than that as endlessly long ago.
func Age(t, now time.Time) time.Duration {
	if d := now.Sub(t); d >= -ClockSkew {
		return max(0, d)
	}
	return math.MaxInt64
}

// A Backoff counts failures in a row. It holds for 1 s after the first one, doubling with each. The zero Backoff holds not.
type Backoff struct {
	failures int
	last     time.Time
	spared   float64 // of the time that it holds, so that a fleet that failed at once does not come back at once
}

// Start begins it anew after one more failure. spread, from 0 to 1, says where in the last fifth of its time it ends.
func (b *Backoff) Start(now time.Time, spread float64) {
	*b = Backoff{b.failures + 1, now, spread / 5}
}

// Failures is how many there were in a row.
func (b *Backoff) Failures() int { return b.failures }

// Holds reports whether it still holds. It never does so for longer than most.
func (b *Backoff) Holds(now time.Time, most time.Duration) bool {
	if b.failures == 0 {
		return false
	}
	full := min(time.Second<<min(b.failures-1, 10), most)
	return Age(b.last, now) < full-time.Duration(float64(full)*b.spared)
}

const (
	allowanceBurst = 3                // fetches for unknown kids at once
	allowanceEvery = 10 * time.Second // one more each
)

// An allowance limits the fetches that unknown kids cause: a burst of 3, and one more each 10 s.
type allowance struct {
	used int       // out of allowanceBurst
	last time.Time // when used last shrank, or began to grow
}

// spent reports whether there is none left at now.
func (a *allowance) spent(now time.Time) bool {
	back := Age(a.last, now) / allowanceEvery
	a.used = max(0, a.used-int(back))
	a.last = a.last.Add(back * allowanceEvery)
	if a.used == 0 {
		a.last = now
	}
	return a.used == allowanceBurst
}

// charge takes one. It must not be spent.
func (a *allowance) charge() { a.used++ }

// Safely makes an error of a panic, which in a goroutine of its own would end the process, and logs its stack.
func Safely(log *slog.Logger, doing string, do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic of type %T while %s", p, doing)
			log.Error("panic while "+doing, "stack", string(debug.Stack()))
		}
	}()
	return do()
}

// watch notices, until ctx is done, that the process was frozen: its ticks then come late. frozen says so.
func watch(ctx context.Context, now func() time.Time) (frozen func() bool) {
	const tick, late = 100 * time.Millisecond, 500 * time.Millisecond
	var mu sync.Mutex
	last, was := now(), false
	frozen = func() bool {
		mu.Lock()
		defer mu.Unlock()
		t := now()
		was = was || t.Sub(last) > late
		last = t
		return was
	}
	go func() {
		for ticks := time.Tick(tick); ; {
			select {
			case <-ctx.Done():
				return
			case <-ticks:
				frozen()
			}
		}
	}()
	return frozen
}
