package fleet

import (
	"context"
	"time"
)

const (
	// LeaseTime is how long a lease lasts, and so the budget of the fleet: whatever its size, it asks an issuer that
	// answers at most once in each.
	LeaseTime = 6 * time.Second
	// LeaseAhead is how far ahead the end of a lease may lie for a lease that counts: LeaseTime, and what differs between
	// honest clocks.
	LeaseAhead = 10 * time.Second
)

// A Store is the fleet's shared copy of one issuer's key set, and the lease to ask that issuer. It is an optimisation, never a
// dependency: its user gets on without it when a method returns an error, of which it may assume nothing, not even
// that nothing was written.
//
// All times are wall-clock and are kept to the millisecond, the rest cut off. Methods return when ctx is done, and are
// safe for concurrent use.
type Store interface {
	// Read returns the shared copy, the zero Copy when there is none. If consistent, the copy shows every write that had
	// ended when Read began; else it may be older, by a second or so, and costs half.
	//
	// What is damaged reads as absent, without an error: Set and Sent together, because neither is worth anything without
	// the other, Lease, and Failures. Whether Set can be parsed and whether the times are likely is for the reader to judge.
	Read(ctx context.Context, consistent bool) (Copy, error)

	// Take takes the lease if it is free at now (Copy.Free): its end becomes now + LeaseTime, which is the proof of it
	// for Put and Fail. Without an error, a zero end says that another has it.
	Take(ctx context.Context, now time.Time) (end time.Time, err error)

	// Put stores Set and Sent of c, and forgets the failures, if the lease still is the one that the writer took: a
	// fencing token, so that a writer who was slow, frozen or has another clock loses, and its set with it. It is no
	// error when it loses. A set too large to share is put empty, with the time at which it was sent for, so that
	// others know that the issuer was asked. From expires on, to the second, the store may delete it all.
	Put(ctx context.Context, lease time.Time, c Copy, expires time.Time) error

	// Fail ends the lease at until instead, and stores the number of failures in a row, if the lease still is the one that
	// the writer took. It is no error when it is not.
	Fail(ctx context.Context, lease, until time.Time, failures int) error
}

// A Copy is what a Store holds of an issuer's key set.
type Copy struct {
	Set      []byte    // as received; empty if Sent is not zero: too large to share
	Sent     time.Time // when its request was sent; zero: nobody ever put one
	Lease    time.Time // its end; zero: nobody has it
	Failures int       // of those who had the lease, in a row
}

// Free reports whether the lease can be taken at now: nobody has it, or it has ended, or it ends so far ahead that no
// honest clock wrote it.
func (c Copy) Free(now time.Time) bool {
	return c.Lease.UnixMilli() <= now.UnixMilli() || c.Lease.UnixMilli() > now.Add(LeaseAhead).UnixMilli()
}

// Settled reports whether the set was sent for within the present lease. There is nothing newer before that ends.
func (c Copy) Settled() bool {
	return !c.Lease.IsZero() && !c.Sent.Before(c.Lease.Add(-LeaseTime))
}

// end is when a lease ends whose holder failed: 1 s after it was taken, then 2 s, 4 s and 6 s for failures in a row.
func end(lease time.Time, failures int) time.Time {
	return lease.Add(min(time.Second<<min(failures-1, 3), LeaseTime) - LeaseTime)
}
