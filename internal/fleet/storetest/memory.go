// Package storetest has a fleet.Store in memory, for tests of what uses one, and the cases that every fleet.Store must
// pass, that one included.
package storetest

import (
	"context"
	"strconv"
	"sync"
	"time"

	"zuplo-lambda-authorizer/internal/fleet"
)

// A Memory holds shared copies in memory, under the conditions of fleet.Store. The fields must be set before its first
// use; Fail and Lose may change their minds. It works inside a bubble of testing/synctest.
type Memory struct {
	// Latency is how long each operation takes. It takes effect halfway.
	Latency time.Duration
	// Fail is asked, unless nil, when an operation ("read", "take", "put", "fail") arrives. Its error is the operation's, which
	// then has no effect.
	Fail func(op string) error
	// Lose is asked, unless nil, after an operation's effect. Its error is the operation's: the answer is lost.
	Lose func(op string) error

	mu     sync.Mutex
	items  map[key]Item
	counts Counts
}

type key struct{ issuer, uri string }

// An Item is a stored copy as the store sees it. Each attribute is a Number, a string, a []byte, a bool, or nil when the
// item does not have it. What is not damaged is a []byte in Set and a Number elsewhere.
type Item struct {
	Set      any
	Sent     any // ms since 1970
	Lease    any // its end, ms since 1970
	Expires  any // s since 1970
	Failures any // in a row
}

// A Number is written in decimal.
type Number string

// Counts are the operations that arrived, whether they failed or not, and the conditional writes whose condition did
// not hold.
type Counts struct {
	Reads, ConsistentReads int // the former include the latter
	Takes, Puts, Fails     int
	TakesLost, PutsLost    int // the latter include fails
}

// Counts returns the operations so far.
func (m *Memory) Counts() Counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.counts
}

// Issuer returns the store for one issuer and the URI of its JWKS.
func (m *Memory) Issuer(issuer, uri string) fleet.Store { return store{m, key{issuer, uri}} }

// Item returns what is stored, the zero Item when nothing is.
func (m *Memory) Item(issuer, uri string) Item {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.items[key{issuer, uri}]
}

// SetItem replaces what is stored, without any condition.
func (m *Memory) SetItem(issuer, uri string, i Item) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.set(key{issuer, uri}, i)
}

func (m *Memory) set(k key, i Item) {
	if m.items == nil {
		m.items = map[key]Item{}
	}
	m.items[k] = i
}

// do runs an operation's effect, with the counters' and the items' lock held, between the halves of its latency.
func (m *Memory) do(ctx context.Context, op string, count, effect func()) error {
	m.mu.Lock()
	count()
	m.mu.Unlock()
	if err := sleep(ctx, m.Latency/2); err != nil {
		return err
	}
	if m.Fail != nil {
		if err := m.Fail(op); err != nil {
			return err
		}
	}
	m.mu.Lock()
	effect()
	m.mu.Unlock()
	if m.Lose != nil {
		if err := m.Lose(op); err != nil {
			return err
		}
	}
	return sleep(ctx, m.Latency-m.Latency/2)
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 || ctx.Err() != nil {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

type store struct {
	m   *Memory
	key key
}

func (s store) Read(ctx context.Context, consistent bool) (c fleet.Copy, err error) {
	err = s.m.do(ctx, "read", func() {
		s.m.counts.Reads++
		if consistent {
			s.m.counts.ConsistentReads++
		}
	}, func() { c = s.m.items[s.key].copy() })
	if err != nil {
		return fleet.Copy{}, err
	}
	return c, nil
}

func (s store) Take(ctx context.Context, now time.Time) (end time.Time, err error) {
	err = s.m.do(ctx, "take", func() { s.m.counts.Takes++ }, func() {
		i := s.m.items[s.key]
		if !i.copy().Free(now) {
			s.m.counts.TakesLost++
			return
		}
		end = time.UnixMilli(now.Add(fleet.LeaseTime).UnixMilli())
		i.Lease = milliseconds(end)
		s.m.set(s.key, i)
	})
	if err != nil {
		return time.Time{}, err
	}
	return end, nil
}

func (s store) Put(ctx context.Context, lease time.Time, c fleet.Copy, expires time.Time) error {
	set := append([]byte{}, c.Set...)
	return s.m.do(ctx, "put", func() { s.m.counts.Puts++ }, func() {
		s.write(lease, func(i *Item) {
			i.Set, i.Sent, i.Failures = set, milliseconds(c.Sent), nil
			i.Expires = Number(strconv.FormatInt(expires.Unix(), 10))
		})
	})
}

func (s store) Fail(ctx context.Context, lease, until time.Time, failures int) error {
	return s.m.do(ctx, "fail", func() { s.m.counts.Fails++ }, func() {
		s.write(lease, func(i *Item) { i.Lease, i.Failures = milliseconds(until), Number(strconv.Itoa(failures)) })
	})
}

// write changes the item under a lease, with the items' lock held.
func (s store) write(lease time.Time, change func(*Item)) {
	i := s.m.items[s.key]
	if i.Lease != milliseconds(lease) {
		s.m.counts.PutsLost++
		return
	}
	change(&i)
	s.m.set(s.key, i)
}

func milliseconds(t time.Time) any { return Number(strconv.FormatInt(t.UnixMilli(), 10)) }

func (i Item) copy() (c fleet.Copy) {
	c.Lease, _ = moment(i.Lease)
	n, _ := integer(i.Failures)
	c.Failures = int(n)
	set, ok := i.Set.([]byte)
	if sent, isTime := moment(i.Sent); ok && isTime {
		c.Set, c.Sent = append([]byte(nil), set...), sent
	}
	return c
}

func moment(v any) (time.Time, bool) {
	ms, ok := integer(v)
	if !ok {
		return time.Time{}, false
	}
	return time.UnixMilli(ms), true
}

func integer(v any) (int64, bool) {
	n, _ := v.(Number)
	i, err := strconv.ParseInt(string(n), 10, 64)
	if err != nil || i <= 0 {
		return 0, false
	}
	return i, true
}
