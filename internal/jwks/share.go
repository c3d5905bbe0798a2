package jwks

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	storeTime = 350 * time.Millisecond // what the Store may add to an invocation, all in all
	lookEvery = time.Second            // between two looks at the shared copy for an unknown kid
	maxShared = 16 << 10               // bytes of a set that is shared; a write is billed by size
	warnEvery = time.Minute
)

// polls are the waits between looks for the set that another environment is fetching.
var polls = []time.Duration{50 * time.Millisecond, 100 * time.Millisecond, 150 * time.Millisecond}

// earliestDue is the age at which the first environment of a fleet looks for newer keys; the last one does at ttl.
func earliestDue(ttl time.Duration) time.Duration { return ttl / 5 * 4 }

var errTaken = errors.New("the fleet's turn to ask the issuer is taken")

// share is what a Cache knows of its Store. Cache.mu guards it.
type share struct {
	last      Copy      // as last seen, without its set
	mine      time.Time // the turn that this process took last
	kidLook   time.Time // the last look for an unknown kid
	failures  backoff
	warnedAt  time.Time
	oversized time.Time // when a set too large to share was last sent for
}

// resting says whether the Store is left alone for a while, because it failed or the issuer's set is too large for it.
func (s *share) resting(now time.Time, ttl time.Duration) bool {
	return s.failures.holds(now) || age(s.oversized, now) < ttl
}

// mayLook says whether the shared copy is to be looked at now. It is an error when there is nothing to do at all: as
// last seen the turn is taken, and who only waits for keys that are due need not know before it ends.
func (c *Cache) mayLook(now time.Time, n need) (bool, error) {
	s := &c.share
	if c.Store == nil || s.resting(now, c.TTL) {
		return false, nil
	}
	free := s.last.Free(now)
	look := free
	if n.unknown {
		look = age(s.kidLook, now) >= lookEvery
	}
	switch {
	case !look && !free:
		return false, errTaken
	case look && n.unknown:
		s.kidLook = now
	}
	return look, nil
}

// A visit is what one flight does with the Store. It is help, never a condition: whatever goes wrong in it, the flight
// goes on without.
type visit struct {
	c    *Cache
	need need
	left time.Duration // of storeTime; negative: less than none
	turn time.Time     // what proves the turn; zero: it has none
}

// take takes the turn to ask the issuer. Where another environment has it, it waits for what that one brings; came says
// that it brought what the flight is for. Without an error, and nothing come, the issuer may be asked.
func (v *visit) take(ctx context.Context) (came bool, err error) {
	c := v.c
	c.mu.Lock()
	share, now := c.share, c.now()
	c.mu.Unlock()
	switch free := share.last.Free(now); {
	case c.Store == nil || share.resting(now, c.TTL):
		return false, nil
	case !free && share.last.NextTurn.Equal(share.mine): // nobody is asking: this process did, and it was not what it needs
		return false, errTaken
	case !free:
		return v.poll(ctx)
	}
	turn, ok := time.Time{}, false
	err = v.do(ctx, "taking a turn in", func(ctx context.Context) (err error) {
		turn, ok, err = c.Store.Take(ctx, now)
		return err
	})
	switch {
	case err != nil:
		v.fail(ctx, "taking the turn to ask the issuer", err)
		return false, nil
	case !ok:
		return v.poll(ctx)
	}
	v.turn = turn
	c.mu.Lock()
	c.share.mine, c.share.last.NextTurn = turn, turn
	c.mu.Unlock()
	return false, nil
}

// poll waits for the set that another environment is fetching: at the start, when no invocation waits, for as long as
// there are no keys at all. It does without consistent reads, which cost double and are for one look a second.
func (v *visit) poll(ctx context.Context) (came bool, err error) {
	bare := func() bool { return v.need.start && v.c.current.Load() == nil }
	if bare() {
		v.left += fetchTime - storeTime
	}
	for i := 0; i < len(polls) || bare(); i++ {
		pause := polls[min(i, len(polls)-1)]
		if v.left <= pause {
			break
		}
		time.Sleep(pause)
		v.left -= pause
		came, err := v.look(ctx, false)
		switch {
		case err != nil && v.left <= 0: // its time was cut: no failure of the Store
			return false, errTaken
		case err != nil:
			v.fail(ctx, "reading the shared key set", err)
			return false, nil
		case came || v.resting():
			return came, nil
		}
	}
	return false, errTaken
}

// look reads the shared copy and installs it if it is newer than what is in memory. It came if it is what the flight is
// for: keys that nobody would call due, or for an unknown kid newer ones than before.
func (v *visit) look(ctx context.Context, consistent bool) (came bool, err error) {
	c := v.c
	var copy Copy
	err = v.do(ctx, "reading", func(ctx context.Context) (err error) {
		copy, err = c.Store.Read(ctx, consistent)
		return err
	})
	if err != nil {
		return false, err
	}
	var set *Set
	err = c.safely("judging the shared key set", func() (err error) {
		set, err = c.usable(copy)
		return err
	})
	if err != nil {
		c.storeWarns("reading the shared key set, which is taken as absent", err)
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	c.share.last = Copy{NextTurn: copy.NextTurn}
	if len(copy.Set) == 0 {
		c.share.oversized = copy.Sent
	}
	if set == nil || ctx.Err() != nil { // or replaced in the meantime
		return false, nil
	}
	c.install(set, copy.Sent)
	if v.need.due && age(copy.Sent, c.now()) >= earliestDue(c.TTL) {
		return false, nil
	}
	c.share.failures = backoff{}
	return true, nil
}

// usable is the set of a shared copy, judged like one from the network; nil if it is absent, too large, too old to serve
// or no newer than the one in memory, and with an error if it is damaged.
func (c *Cache) usable(copy Copy) (*Set, error) {
	now, s := c.now(), c.current.Load()
	switch d := now.Sub(copy.Sent); {
	case len(copy.Set) == 0 || d > c.MaxStale:
		return nil, nil
	case d < -clockSkew:
		return nil, fmt.Errorf("it is dated %v ahead", -d.Round(time.Second))
	case s != nil && d >= age(s.sent, now):
		return nil, nil
	}
	return c.parse(copy.Set)
}

// resting says whether the Store turned out to be of no use to this flight.
func (v *visit) resting() bool {
	v.c.mu.Lock()
	defer v.c.mu.Unlock()
	return v.c.share.resting(v.c.now(), v.c.TTL)
}

// put shares the set that the turn was for. Who was overtaken loses: his set may be older than the one that is there.
func (v *visit) put(ctx context.Context, text []byte, sent time.Time) {
	c := v.c
	if v.turn.IsZero() {
		return
	}
	if len(text) > maxShared {
		c.storeWarns("sharing the key set", fmt.Errorf("it has %d bytes, at most %d are shared: each environment asks the issuer by itself", len(text), maxShared))
		text = nil
	}
	err := v.do(ctx, "writing", func(ctx context.Context) error {
		_, err := c.Store.Put(ctx, v.turn, Copy{Set: text, Sent: sent}, sent.Add(c.MaxStale))
		return err
	})
	if err != nil {
		v.fail(ctx, "sharing the key set", err)
		return
	}
	c.mu.Lock()
	c.share.failures = backoff{}
	c.mu.Unlock()
}

// do makes one call to the Store in the time that is left. A panic in it is its error.
func (v *visit) do(ctx context.Context, doing string, call func(context.Context) error) error {
	start := time.Now()
	defer func() { v.left -= time.Since(start) }()
	ctx, cancel := context.WithTimeout(ctx, min(v.left, storeTime))
	defer cancel()
	return v.c.safely(doing+" the store of shared key sets", func() error { return call(ctx) })
}

// fail lets the Store rest for a while, unless it is this flight that was given up.
func (v *visit) fail(ctx context.Context, doing string, err error) {
	if ctx.Err() != nil {
		return
	}
	c := v.c
	c.mu.Lock()
	c.share.failures.start(c.now())
	c.mu.Unlock()
	c.storeWarns(doing, err)
}

// storeWarns logs what is wrong with the Store, once in warnEvery.
func (c *Cache) storeWarns(doing string, err error) {
	c.mu.Lock()
	now := c.now()
	silent := age(c.share.warnedAt, now) < warnEvery
	if !silent {
		c.share.warnedAt = now
	}
	c.mu.Unlock()
	if !silent {
		c.Log.Warn(doing, "uri", c.name(), "error", err)
	}
}
