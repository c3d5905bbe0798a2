package jwks

import (
	"context"
	"time"
)

const (
	// TurnTime is how long a turn lasts. It is lease and budget in one: a fleet of any size asks an issuer at most once in
	// each, whatever came of it.
	TurnTime = 6 * time.Second
	// TurnAhead is how far ahead the end of a turn may lie for a turn that counts: what differs between honest clocks, and
	// TurnTime.
	TurnAhead = 10 * time.Second
)

// A Store is the fleet's shared copy of one issuer's key set. It is help, never a condition: whoever uses it gets on
// without it when a method returns an error, of which it may assume nothing, not even that nothing was written.
//
// All times are wall-clock and are kept to the millisecond, the rest cut off. Methods return when ctx is done, and are
// safe for concurrent use.
type Store interface {
	// Read returns the shared copy, the zero Copy when there is none. If consistent, the copy shows every write that had
	// ended when Read began; else it may be older, by a second or so, and costs half.
	//
	// What is damaged reads as absent, without an error: Set and Sent together, for neither is worth anything without the
	// other, and NextTurn. Whether Set can be parsed and whether the times are likely is for the reader to judge.
	Read(ctx context.Context, consistent bool) (Copy, error)

	// Take takes the turn to ask the issuer, if it is free at now (Copy.Free): NextTurn becomes now + TurnTime, which is
	// turn, the proof of it for Put. ok is false, without an error, when another has the turn.
	Take(ctx context.Context, now time.Time) (turn time.Time, ok bool, err error)

	// Put stores Set and Sent of c, if NextTurn still is the turn that the writer took: a fencing token, so that a writer
	// who was slow, frozen or has another clock loses, and its set with it. ok is false, without an error, when it is
	// not. A set too large to share is put empty, with the time at which it was sent for, so that others know that the
	// issuer was asked. From expires on, to the second, the store may delete it all.
	Put(ctx context.Context, turn time.Time, c Copy, expires time.Time) (ok bool, err error)
}

// A Copy is what a Store holds of an issuer's key set.
type Copy struct {
	Set      []byte    // as received; empty if Sent is not zero: too large to share
	Sent     time.Time // when its request was sent; zero: nobody ever put one
	NextTurn time.Time // until when the issuer must not be asked; zero: whoever wants may take the turn
}

// Free reports whether the turn can be taken at now: nobody has it, or it has ended, or it ends so far ahead that no
// honest clock wrote it.
func (c Copy) Free(now time.Time) bool {
	return c.NextTurn.UnixMilli() <= now.UnixMilli() || c.NextTurn.UnixMilli() > now.Add(TurnAhead).UnixMilli()
}
