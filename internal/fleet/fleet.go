// Package fleet shares one issuer's keys among the environments of a function: a copy of the key set that all read, and a
// lease that one of them takes to ask the issuer for all. It is an optimisation, never a dependency.
package fleet

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"zuplo-lambda-authorizer/internal/jwks"
	"zuplo-lambda-authorizer/internal/keycache"
)

const (
	// Detour is what the Store may add to a search, all in all.
	Detour = 350 * time.Millisecond

	// Reserve is how much longer than they are fresh keys must be able to serve: for another's lease, and for a fetch.
	Reserve = LeaseTime + mostLate + keycache.FetchTime

	lookEvery = time.Second // between two looks at the shared copy for an unknown kid, or for keys where there are none
	maxShared = 16 << 10    // bytes of a set that is shared; a write is billed by size
	maxRest   = 30 * time.Second
	warnEvery = time.Minute
	mostLate  = time.Second // within which a fleet comes back after a lease
	hopeless  = 3           // failures in a row, after which the next is expected
)

// pauses are the waits between looks for the set that another environment is fetching, the last one again and again.
var pauses = []time.Duration{50 * time.Millisecond, 100 * time.Millisecond, 150 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond}

// A Fleet is a keycache.Source that stands before another one, the issuer.
type Fleet struct {
	Store    Store
	Issuer   keycache.Source
	TTL      time.Duration    // how long a set is known to be too large to share
	MaxStale time.Duration    // how old a shared copy may be
	Now      func() time.Time // the wall clock
	Rand     func() float64   // 0 to 1, without 1
	Log      *slog.Logger
	Events   *slog.Logger // gets a line for each lease that was taken, and for each time that the Store begins to rest; nil: nobody wants them

	mu     sync.Mutex       // held by searches and sharing, except while they wait
	last   Copy             // as last seen; without a set and with a time: that is too large to share
	mine   time.Time        // the end of the lease that this process took, or tried to, and has no outcome of; zero: none
	looked time.Time        // the last look for an unknown kid, or without keys
	late   time.Duration    // from the end of the last lease until this process comes back, at random: not all at once
	rest   keycache.Backoff // of the Store
	warned time.Time
}

// Find looks at the shared copy, and then asks the issuer if w permits it and the lease is to be had.
func (f *Fleet) Find(ctx context.Context, w keycache.Want) (keycache.Found, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := &visit{Fleet: f, want: w}
	if v.mayLook() && v.look(ctx) == came {
		return v.found, nil
	}
	if err := w.Permit(!f.resting(f.now())); err != nil {
		return v.found, err
	}
	switch way := v.lease(ctx); way {
	case leased, alone:
		return v.ask(ctx, way == leased)
	case came:
		return v.found, nil
	}
	return v.found, keycache.ErrLeased
}

// resting says whether the Store is left alone for a while, because it failed or the issuer's set is too large for it.
func (f *Fleet) resting(now time.Time) bool {
	return f.rest.Holds(now, maxRest) || len(f.last.Set) == 0 && keycache.Age(f.last.Sent, now) < f.TTL
}

// now strips the monotonic reading, which a suspended machine does not advance.
func (f *Fleet) now() time.Time { return f.Now().Round(0) }

// apart does without the lock what has to be waited for.
func (f *Fleet) apart(wait func()) {
	f.mu.Unlock()
	defer f.mu.Lock()
	wait()
}

// warn logs what is wrong with the Store, once in warnEvery.
func (f *Fleet) warn(doing string, err error) {
	if now := f.now(); keycache.Age(f.warned, now) >= warnEvery {
		f.warned = now
		f.apart(func() { f.Log.Warn(doing, "error", err) })
	}
}

// event logs what metrics are made of.
func (f *Fleet) event(msg string) {
	if f.Events != nil {
		f.apart(func() { f.Events.Info(msg) })
	}
}

// A visit is one search.
type visit struct {
	*Fleet
	want   keycache.Want
	found  keycache.Found
	spent  time.Duration // on the Store and on pauses
	news   bool          // another environment took the lease since this process last looked, and may soon be done
	paused bool          // for another environment, so that what time is left says nothing about the Store
}

// left is what may be spent yet. Where no key may serve, another environment is waited for as long as a fetch takes.
func (v *visit) left() time.Duration {
	if v.want.Bare && v.paused && v.found.Set == nil {
		return keycache.FetchTime - v.spent
	}
	return Detour - v.spent
}

// mayLook says whether the shared copy is worth a look before the lease is taken.
func (v *visit) mayLook() bool {
	now := v.now()
	free := v.free(now)
	ended := free && v.looked.Before(v.last.Lease) // since the last look, and a look costs less than a lease lost
	switch {
	case v.resting(now):
		return false
	case !v.want.Unknown: // old keys serve
		return free
	case !free && !v.awaited(now), !ended && keycache.Age(v.looked, now) < lookEvery:
		return false
	}
	v.looked = now
	return true
}

// free says whether it is time to come back to the lease. Where no key may serve, it is as soon as that ends.
func (v *visit) free(now time.Time) bool {
	return v.last.Free(now) && (v.want.Bare || now.Sub(v.last.Lease).Abs() >= v.late)
}

// awaited says whether a newer set may come before the lease ends. Where keys may serve, that is not worth a look once the
// fetch must be over, or where it is likely to fail.
func (v *visit) awaited(now time.Time) bool {
	soon := v.last.Failures < hopeless && now.Before(v.last.Lease.Add(keycache.FetchTime-LeaseTime))
	return !v.last.Settled() && (v.want.Bare || soon)
}

// A way is how a visit goes on.
type way int

const (
	none   way = iota // neither keys nor the lease, which another environment has
	came              // the shared copy is what is wanted
	leased            // the lease is had
	alone             // without the Store
	done              // the Store did what it was asked to
)

// lease takes the lease. Where another environment has it, it waits for what that one brings, or for the lease.
func (v *visit) lease(ctx context.Context) way {
	for n := 0; ; n++ {
		now := v.now()
		free := v.free(now)
		switch {
		case v.resting(now):
			return alone
		case v.last.Lease.Equal(v.mine) && !v.last.Free(now): // its fetch died of a freeze
			return leased
		case !free && !((v.news || v.want.Bare) && v.awaited(now)):
			return none
		case free:
			if way := v.take(ctx, now); way != none {
				return way
			}
		}
		if !v.pause(ctx, n) {
			return none
		}
		if way := v.look(ctx); way != none {
			return way
		}
	}
}

// take tries to take the lease.
func (v *visit) take(ctx context.Context, now time.Time) way {
	var end time.Time
	way := v.do(ctx, "taking the lease to ask the issuer", func(ctx context.Context) (err error) {
		end, err = v.Store.Take(ctx, now)
		return err
	})
	switch {
	case way != done: // it may be had all the same: a look will tell
		v.mine = time.UnixMilli(now.Add(LeaseTime).UnixMilli())
		return way
	case end.IsZero():
		return none
	}
	v.mine, v.last.Lease = end, end
	v.event("lease")
	return leased
}

// pause waits before the next look, as long as that is worth it.
func (v *visit) pause(ctx context.Context, n int) bool {
	v.paused = true
	pause := pauses[min(n, len(pauses)-1)]
	if v.left() <= pause {
		return false
	}
	v.spent += pause
	v.apart(func() { time.Sleep(pause) })
	return ctx.Err() == nil
}

// look reads the shared copy and keeps it if it is newer than what is in memory.
func (v *visit) look(ctx context.Context) way {
	consistent := v.want.Unknown && !v.paused // it costs double, and is for one look a second
	var c Copy
	var set *jwks.Set
	var damage error
	way := v.do(ctx, "reading the shared key set", func(ctx context.Context) (err error) {
		c, err = v.Store.Read(ctx, consistent)
		set, damage = v.usable(c)
		return err
	})
	if way != done {
		return way
	}
	if damage != nil {
		v.warn("reading the shared key set, which is taken as absent", damage)
		c.Sent = time.Time{}
	}
	if !c.Lease.Equal(v.last.Lease) {
		v.late, v.news = time.Duration(v.Rand()*float64(mostLate)), true
	}
	v.last = c
	v.tellRest()
	if set == nil {
		return none
	}
	v.found = keycache.Found{Set: set, Sent: c.Sent}
	if !v.want.Enough(set, c.Sent) {
		return none
	}
	v.rest = keycache.Backoff{}
	return came
}

// usable is the set of a shared copy, judged like one from the network; nil if it is absent, too large, too old to serve
// or no newer than the one in memory, and with an error if it is damaged.
func (v *visit) usable(c Copy) (*jwks.Set, error) {
	now := v.now()
	switch age := now.Sub(c.Sent); {
	case len(c.Set) == 0 || age > v.MaxStale:
		return nil, nil
	case age < -keycache.ClockSkew:
		return nil, fmt.Errorf("it is dated %v ahead", -age.Round(time.Second))
	case !c.Sent.After(v.want.Sent) && now.Sub(v.want.Sent) >= -keycache.ClockSkew:
		return nil, nil
	}
	return v.want.Judge(c.Set)
}

// ask asks the issuer, under the lease or without.
func (v *visit) ask(ctx context.Context, leased bool) (found keycache.Found, err error) {
	w, lease := v.want, v.mine
	if leased { // for which it was permitted
		w.Permit = func(bool) error { return nil }
	}
	v.apart(func() { found, err = v.Issuer.Find(ctx, w) })
	if err != nil {
		v.found.Asked = found.Asked
		found = v.found
	}
	if leased {
		text, sent := found.Text, found.Sent
		found.Share = func(ctx context.Context, o keycache.Outcome) {
			v.share(ctx, o, Copy{Set: text, Sent: sent, Lease: lease})
		}
	}
	return found, err
}

// share tells the fleet what came of its lease. An environment that was overtaken loses: its set may be older than the one that is there.
func (v *visit) share(ctx context.Context, o keycache.Outcome, c Copy) {
	if o == keycache.Frozen { // the lease is good for another fetch
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mine = time.Time{}
	lease := c.Lease
	doing, write := "sharing the key set", func(ctx context.Context) error {
		return v.Store.Put(ctx, lease, c, c.Sent.Add(v.MaxStale))
	}
	switch {
	case o != keycache.OK:
		failures := v.last.Failures + 1
		c = Copy{Lease: end(lease, failures), Failures: failures}
		doing, write = "giving the lease back", func(ctx context.Context) error { return v.Store.Fail(ctx, lease, c.Lease, failures) }
	case len(c.Set) > maxShared:
		v.warn(doing, fmt.Errorf("it has %d bytes, at most %d are shared: each environment asks the issuer by itself", len(c.Set), maxShared))
		c.Set = nil
	}
	if v.do(ctx, doing, write) == done {
		v.last, v.rest = c, keycache.Backoff{}
		v.tellRest()
	}
}

// tellRest logs that the Store rests from now on.
func (v *visit) tellRest() {
	if v.resting(v.now()) {
		v.event("rest")
	}
}

// do makes one call to the Store in the time that is left. A panic in it is its error. After an error the Store rests for a
// while, except where it is not to blame: this search was given up, the process was frozen, or the time was spent on
// waiting for another environment.
func (v *visit) do(ctx context.Context, doing string, call func(context.Context) error) way {
	limited, cancel := context.WithTimeout(ctx, min(v.left(), Detour))
	defer cancel()
	start := time.Now()
	var err error
	v.apart(func() { err = keycache.Safely(v.Log, doing, func() error { return call(limited) }) })
	v.spent += time.Since(start)
	switch {
	case err == nil && ctx.Err() == nil:
		return done
	case ctx.Err() != nil || v.want.Frozen() || v.paused && v.left() <= 0:
		return none
	}
	v.rest.Start(v.now(), v.Rand())
	v.tellRest()
	v.warn(doing, err)
	return alone
}
