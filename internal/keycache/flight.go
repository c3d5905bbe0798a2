package keycache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync/atomic"
	"time"

	"zuplo-lambda-authorizer/internal/jwks"
)

// A flight is one search for newer keys, shared by all who wait for it.
type flight struct {
	want   Want
	due    bool // for keys that are due, not only for an unknown kid
	began  time.Time
	cancel context.CancelFunc
	done   chan struct{} // closed when the outcome stands: asked and err

	leased atomic.Bool // it may ask the issuer under the fleet's lease
	asking bool        // it may ask the issuer from now on; Cache.mu guards it
	failed bool        // it is counted as a failure; Cache.mu guards it

	asked bool // the issuer was asked
	err   error
}

// longest is how long a flight may take that is worth joining: time to wait for the fleet, and for a fetch.
const longest = 2 * fullWait

// renew waits until the keys in memory are as needed, or until there is no better to be had. Without an error, a kid that
// is still unknown is so to the issuer: it was asked after this wait began.
func (c *Cache) renew(ctx context.Context, in func(*jwks.Set) bool) error {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-answerTime))
		defer cancel()
	}
	for first := true; ; first = false {
		w, err := c.join(in)
		if err != nil || w.flight == nil {
			return err
		}
		// Nobody waits past the moment until which old keys may serve: who came before it has them.
		serve, cancel := context.WithTimeout(ctx, w.left)
		err = c.await(serve, w)
		cancel()
		if err != nil {
			return err
		}
		switch known := in(c.memory().set); {
		case w.err == nil && (known || w.asked && !(w.earlier && first)):
			return nil
		case w.err != nil && (w.asked || w.same):
			return w.err
		}
		// It asked before this wait began, or it was for another kid or for less, and did not ask.
	}
}

// A wait is what somebody has of a flight.
type wait struct {
	*flight               // nil: what is needed is in memory already
	earlier bool          // the flight may have asked the issuer before the wait began
	same    bool          // the flight is for the same as the wait
	short   bool          // old keys may serve, and no search was in vain since they came
	left    time.Duration // for which they may, less the time for the answer; endless where none may
}

// join returns a wait for the flight in progress, or for one that it starts. An error means that there is nothing to be
// done now.
func (c *Cache) join(in func(*jwks.Set) bool) (w wait, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.memory()
	known, due := in(s.set), !s.fresh()
	switch {
	case known && !due:
		return w, nil
	case known && c.held():
		return w, errBackoff
	}
	f := c.flight
	if f != nil && (f.want.Frozen() || Age(f.began, c.now()) >= c.Detour+longest) {
		f.cancel() // what it brings would be too old, if it brings anything
		c.unheard, f = true, nil
	}
	earlier := f != nil && f.asking
	if f == nil {
		// Its own context, because an invocation's dies with the invocation.
		ctx, cancel := context.WithCancel(context.Background())
		f = &flight{due: due, began: c.now(), cancel: cancel, done: make(chan struct{})}
		f.want = Want{
			Sent: s.sent, Bare: s.bare(), Unknown: !known, Judge: c.judge, Frozen: watch(ctx, c.now),
			Permit: func(leased bool) error { return c.permit(f, leased) },
			Enough: func(set *jwks.Set, sent time.Time) bool {
				return in(set) && (!due || Age(sent, c.now()) < c.TTL-c.Early)
			},
		}
		c.flight = f
		go c.run(ctx, f)
	}
	left := time.Duration(math.MaxInt64)
	if known {
		left = c.MaxStale - c.now().Sub(s.sent) - answerTime
	}
	return wait{f, earlier, f.want.Unknown == !known && f.due == due, known && !c.unheard, left}, nil
}

// permit says whether a flight may ask the issuer.
func (c *Cache) permit(f *flight, leased bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.held():
		return errBackoff
	case !f.due && c.allowance.spent(c.now()):
		return errAllowance
	}
	f.asking = true
	f.leased.Store(leased)
	return nil
}

// await waits for a flight: for a second where that will do, except where the flight has the lease, which the fleet would
// wait for in vain. A wait that ends before it is given up: the process may be frozen before there is an outcome. A full
// wait counts as a failure then.
func (c *Cache) await(ctx context.Context, w wait) error {
	if w.ends(ctx, c.Detour+dueWait) {
		return nil
	}
	short := w.short && (ctx.Err() != nil || !w.leased.Load())
	if !short && w.ends(ctx, fullWait-dueWait) {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flight == w.flight {
		c.unheard = true
		if !short && w.asking {
			c.fail(w.flight)
		}
	}
	return errors.New("no answer of the issuer in time")
}

// ends waits for the end of the flight, for d at most, and reports whether it came.
func (f *flight) ends(ctx context.Context, d time.Duration) bool {
	select {
	case <-f.done:
		return true
	case <-ctx.Done():
	case <-time.After(d):
	}
	return false
}

// fail counts the failure of a flight, once, with c.mu held.
func (c *Cache) fail(f *flight) {
	c.unheard = true
	if !f.failed {
		f.failed = true
		c.backoff.Start(c.now(), c.Rand())
	}
}

// run searches, settles the flight and shares what came.
func (c *Cache) run(ctx context.Context, f *flight) {
	defer f.cancel()
	defer close(f.done)
	var found Found
	err := Safely(c.Log, "searching for keys", func() (err error) {
		found, err = c.Source.Find(ctx, f.want)
		return err
	})
	took := c.now().Sub(found.Asked)
	outcome, copied := c.settle(f, found, took, err)
	if copied {
		c.line(slog.LevelInfo, append(keys(found.Set), slog.String("source", "table"), slog.String("outcome", string(OK))))
	}
	c.report(f, outcome, took, found.Set)
	if found.Share != nil {
		_ = Safely(c.Log, "sharing keys", func() error { found.Share(ctx, outcome); return nil })
	}
}

// settle installs what was found, unless it is too late, and returns the outcome, and whether what it installed is a copy and not
// what the issuer answered. A fetch that died of a freeze is no failure.
func (c *Cache) settle(f *flight, found Found, took time.Duration, err error) (o Outcome, copied bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.asked, f.err = !found.Asked.IsZero(), err
	if c.flight != f {
		f.err = errors.Join(err, errors.New("replaced by a younger search"))
		return Frozen, false
	}
	c.flight = nil
	if f.asked && err == nil && took > FetchTime {
		f.err = fmt.Errorf("the reply took %v, at most %v count", took.Round(time.Millisecond), FetchTime)
		found.Set = nil
	}
	if found.Set != nil {
		c.install(found.Set, found.Sent)
		copied = !f.asked || err != nil
	}
	switch {
	case !f.asked:
		return "", copied
	case f.err == nil:
		if !f.due {
			c.allowance.charge(found.Asked)
		}
		return OK, copied
	case f.want.Frozen():
		c.unheard = true
		return Frozen, copied
	}
	c.fail(f)
	return Failed, copied
}

// report logs that the issuer was asked, and what came of it.
func (c *Cache) report(f *flight, o Outcome, took time.Duration, set *jwks.Set) {
	if !f.asked {
		return
	}
	level, attrs := slog.LevelWarn, []slog.Attr{slog.String("error", fmt.Sprint(f.err))}
	if f.err == nil {
		level, attrs = slog.LevelInfo, keys(set)
	}
	c.line(level, append(attrs, slog.String("source", "issuer"), slog.String("outcome", string(o)), slog.Int64("duration_ms", took.Milliseconds())))
}

// keys are what a line tells of a set: how many keys, and what kids, ten at most.
func keys(set *jwks.Set) []slog.Attr {
	all := set.KeyIDs()
	kids := make([]string, min(len(all), 10))
	for i := range kids {
		kids[i] = jwks.ForLog(all[i])
	}
	attrs := []slog.Attr{slog.Int("keys", set.Len()), slog.Any("kids", kids)}
	if more := len(all) - len(kids); more > 0 {
		attrs = append(attrs, slog.Int("more_kids", more))
	}
	return attrs
}

// line logs where keys came from, or did not.
func (c *Cache) line(level slog.Level, attrs []slog.Attr) {
	if c.Fetches != nil {
		c.Fetches.LogAttrs(context.Background(), level, "fetch", attrs...)
	}
}
