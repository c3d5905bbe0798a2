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

	mu       sync.Mutex
	last     Copy             // as last seen, without its set
	mine     time.Time        // the end of the lease that this process took, or tried to, and has no outcome of; zero: none
	looked   time.Time        // the last look for an unknown kid, or without keys
	late     time.Duration    // from the end of the last lease until this process comes back, at random: not all at once
	rest     keycache.Backoff // of the Store
	tooLarge time.Time        // when a set too large to share was last sent for
	warned   time.Time
}

// Find looks at the shared copy, and then asks the issuer if w permits it and the lease is to be had.
func (f *Fleet) Find(ctx context.Context, w keycache.Want) (keycache.Found, error) {
	v := &visit{Fleet: f, want: w}
	if f.mayLook(w) && v.look(ctx) == came {
		return v.found, nil
	}
	if err := w.Permit(!f.resting()); err != nil {
		return v.found, err
	}
	switch v.lease(ctx) {
	case came:
		return v.found, nil
	case leased:
		return v.ask(ctx, true)
	case alone:
		if err := w.Permit(false); err != nil {
			return v.found, err
		}
		return v.ask(ctx, false)
	}
	return v.found, keycache.ErrLeased
}

// mayLook says whether the shared copy is worth a look before the lease is taken.
func (f *Fleet) mayLook(w keycache.Want) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	free := f.free(now, w)
	ended := free && f.looked.Before(f.last.Lease) // since the last look, and a look costs less than a lease lost
	switch {
	case f.restingAt(now):
		return false
	case !w.Unknown: // old keys serve
		return free
	case !free && !awaited(f.last, w, now), !ended && keycache.Age(f.looked, now) < lookEvery:
		return false
	}
	f.looked = now
	return true
}

// free says whether it is time to come back to the lease. Where no key may serve, it is as soon as that ends.
func (f *Fleet) free(now time.Time, w keycache.Want) bool {
	return f.last.Free(now) && (w.Bare || now.Sub(f.last.Lease).Abs() >= f.late)
}

// awaited says whether a newer set than that of c may come before its lease ends. Where keys may serve, that is not worth a
// look once the fetch must be over, or where it is likely to fail.
func awaited(c Copy, w keycache.Want, now time.Time) bool {
	return !c.Settled() && (w.Bare || c.Failures < hopeless && now.Before(c.Lease.Add(keycache.FetchTime-LeaseTime)))
}

// resting says whether the Store is left alone for a while, because it failed or the issuer's set is too large for it.
func (f *Fleet) resting() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.restingAt(f.now())
}

func (f *Fleet) restingAt(now time.Time) bool {
	return f.rest.Holds(now, maxRest) || keycache.Age(f.tooLarge, now) < f.TTL
}

// now strips the monotonic reading, which a suspended machine does not advance.
func (f *Fleet) now() time.Time { return f.Now().Round(0) }

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

// A way is how a visit goes on.
type way int

const (
	_      way = iota
	came       // the shared copy is what is wanted
	not        // it is not
	leased     // the lease is had
	theirs     // another environment has the lease
	alone      // without the Store
)

// lease takes the lease. Where another environment has it, it waits for what that one brings, or for the lease.
func (v *visit) lease(ctx context.Context) way {
	for n := 0; ; n++ {
		v.mu.Lock()
		now, last, mine := v.now(), v.last, v.mine
		resting, free := v.restingAt(now), v.free(now, v.want)
		v.mu.Unlock()
		switch {
		case resting:
			return alone
		case last.Lease.Equal(mine) && !last.Free(now): // its fetch died of a freeze
			return leased
		case !free && !((v.news || v.want.Bare) && awaited(last, v.want, now)):
			return theirs
		case free:
			if way := v.take(ctx, now); way != theirs {
				return way
			}
		}
		if !v.pause(ctx, n) {
			return theirs
		}
		if way := v.look(ctx); way == came || way == alone {
			return way
		}
	}
}

// take tries to take the lease.
func (v *visit) take(ctx context.Context, now time.Time) way {
	var end time.Time
	err := v.do(ctx, "taking the lease in", func(ctx context.Context) (err error) {
		end, err = v.Store.Take(ctx, now)
		return err
	})
	switch {
	case err != nil: // it may be had all the same: a look will tell
		v.mu.Lock()
		v.mine = time.UnixMilli(now.Add(LeaseTime).UnixMilli())
		v.mu.Unlock()
		return v.failed(ctx, "taking the lease to ask the issuer", err)
	case end.IsZero():
		return theirs
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mine, v.last.Lease = end, end
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
	select {
	case <-time.After(pause):
		return true
	case <-ctx.Done():
		return false
	}
}

// look reads the shared copy and keeps it if it is newer than what is in memory.
func (v *visit) look(ctx context.Context) way {
	consistent := v.want.Unknown && !v.paused // it costs double, and is for one look a second
	var copy Copy
	err := v.do(ctx, "reading", func(ctx context.Context) (err error) {
		copy, err = v.Store.Read(ctx, consistent)
		return err
	})
	if err != nil {
		return v.failed(ctx, "reading the shared key set", err)
	}
	set, err := v.usable(copy)
	if err != nil {
		v.warn("reading the shared key set, which is taken as absent", err)
		copy.Sent = time.Time{}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if !copy.Lease.Equal(v.last.Lease) {
		v.late, v.news = time.Duration(v.Rand()*float64(mostLate)), true
	}
	v.last = Copy{Sent: copy.Sent, Lease: copy.Lease, Failures: copy.Failures}
	if len(copy.Set) == 0 {
		v.tooLarge = copy.Sent
	}
	if set == nil {
		return not
	}
	v.found = keycache.Found{Set: set, Sent: copy.Sent}
	if !v.want.Enough(set, copy.Sent) {
		return not
	}
	v.rest = keycache.Backoff{}
	return came
}

// usable is the set of a shared copy, judged like one from the network; nil if it is absent, too large, too old to serve
// or no newer than the one in memory, and with an error if it is damaged.
func (v *visit) usable(copy Copy) (*jwks.Set, error) {
	now := v.now()
	switch age := now.Sub(copy.Sent); {
	case len(copy.Set) == 0 || age > v.MaxStale:
		return nil, nil
	case age < -keycache.ClockSkew:
		return nil, fmt.Errorf("it is dated %v ahead", -age.Round(time.Second))
	case !copy.Sent.After(v.want.Sent) && now.Sub(v.want.Sent) >= -keycache.ClockSkew:
		return nil, nil
	}
	return v.want.Judge(copy.Set)
}

// ask asks the issuer, under a lease or without.
func (v *visit) ask(ctx context.Context, leased bool) (keycache.Found, error) {
	v.mu.Lock()
	lease := v.mine
	v.mu.Unlock()
	w := v.want
	w.Permit = func(bool) error { return nil }
	found, err := v.Issuer.Find(ctx, w)
	if err != nil {
		v.found.Asked = found.Asked
		found = v.found
	}
	if leased {
		text, sent := found.Text, found.Sent
		found.Share = func(ctx context.Context, o keycache.Outcome) { v.share(ctx, lease, o, text, sent) }
	}
	return found, err
}

// share tells the fleet what came of its lease. Who was overtaken loses: his set may be older than the one that is there.
func (v *visit) share(ctx context.Context, lease time.Time, o keycache.Outcome, text []byte, sent time.Time) {
	if o == keycache.Frozen { // the lease is good for another fetch
		return
	}
	v.mu.Lock()
	v.mine = time.Time{}
	failures := v.last.Failures + 1
	v.mu.Unlock()
	next := Copy{Lease: lease, Sent: sent}
	doing, write := "sharing the key set", func(ctx context.Context) error {
		return v.Store.Put(ctx, lease, Copy{Set: text, Sent: sent}, sent.Add(v.MaxStale))
	}
	switch {
	case o != keycache.OK:
		next = Copy{Lease: end(lease, failures), Failures: failures}
		doing, write = "giving the lease back", func(ctx context.Context) error { return v.Store.Fail(ctx, lease, next.Lease, failures) }
	case len(text) > maxShared:
		v.warn(doing, fmt.Errorf("it has %d bytes, at most %d are shared: each environment asks the issuer by itself", len(text), maxShared))
		text = nil
	}
	if err := v.do(ctx, "writing", write); err != nil {
		v.failed(ctx, doing, err)
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.last.Lease.Equal(lease) {
		v.last = next
	}
	v.rest = keycache.Backoff{}
}

// do makes one call to the Store in the time that is left. A panic in it is its error.
func (v *visit) do(ctx context.Context, doing string, call func(context.Context) error) error {
	start := time.Now()
	defer func() { v.spent += time.Since(start) }()
	ctx, cancel := context.WithTimeout(ctx, min(v.left(), Detour))
	defer cancel()
	return keycache.Safely(v.Log, doing+" the store of shared key sets", func() error { return call(ctx) })
}

// failed lets the Store rest for a while, except where it is not to blame: this search was given up, the process was
// frozen, or the time was spent on waiting for another environment.
func (v *visit) failed(ctx context.Context, doing string, err error) way {
	if ctx.Err() != nil || v.want.Frozen() || v.paused && v.left() <= 0 {
		return theirs
	}
	v.mu.Lock()
	v.rest.Start(v.now(), v.Rand())
	v.mu.Unlock()
	v.warn(doing, err)
	return alone
}

// warn logs what is wrong with the Store, once in warnEvery.
func (f *Fleet) warn(doing string, err error) {
	f.mu.Lock()
	now := f.now()
	silent := keycache.Age(f.warned, now) < warnEvery
	if !silent {
		f.warned = now
	}
	f.mu.Unlock()
	if !silent {
		f.Log.Warn(doing, "error", err)
	}
}
