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

// A Backoff holds for 1 s after the first of some failures in a row, doubling with each. The zero Backoff holds not.
type Backoff struct {
	Failures int // in a row
	last     time.Time
	spared   float64 // of the time that it holds, so that a fleet that failed at once does not come back at once
}

// Start begins it anew after one more failure. spread, from 0 to 1, says where in the last fifth of its time it ends.
func (b *Backoff) Start(now time.Time, spread float64) {
	*b = Backoff{b.Failures + 1, now, spread / 5}
}

// Holds reports whether it still holds. It never does so for longer than most.
func (b *Backoff) Holds(now time.Time, most time.Duration) bool {
	full := min(time.Second<<max(0, min(b.Failures-1, 10)), most)
	return Age(b.last, now) < full-time.Duration(float64(full)*b.spared)
}

const (
	allowanceBurst = 3                // fetches for unknown kids at once
	allowanceEvery = 10 * time.Second // one more each
)

// An allowance limits the fetches that unknown kids cause: a burst of 3, and one more each 10 s.
type allowance struct {
	whole time.Time // when the last one that was used has come back
}

// used is how long it takes to come back, allowanceEvery for each fetch.
func (a allowance) used(now time.Time) time.Duration {
	if used := a.whole.Sub(now); used <= allowanceBurst*allowanceEvery+ClockSkew {
		return max(0, used)
	}
	return 0 // by a clock that has stepped back
}

// spent reports whether there is none left at now.
func (a allowance) spent(now time.Time) bool {
	return a.used(now) > (allowanceBurst-1)*allowanceEvery
}

// charge takes one, used at now.
func (a *allowance) charge(now time.Time) { a.whole = now.Add(a.used(now) + allowanceEvery) }

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
		for ctx.Err() == nil {
			frozen()
			select {
			case <-time.After(tick):
			case <-ctx.Done():
			}
		}
	}()
	return frozen
}
