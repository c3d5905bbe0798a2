package keycache

import (
	"context"
	"errors"
	"time"

	"zuplo-lambda-authorizer/internal/jwks"
)

// FetchTime is how long a request to the issuer may take, by whatever clock: a later reply is thrown away.
const FetchTime = 3 * time.Second

// ErrLeased says that the issuer may not be asked now, because another environment of the fleet does.
var ErrLeased = errors.New("another environment has the lease to ask the issuer")

// A Source is where a Cache searches for newer keys: the issuer, or what stands before it.
type Source interface {
	// Find searches until ctx is done. What it has found counts even if it returns an error: keys that are newer
	// than those in memory, and still not what is wanted. Without an error, if it asked the issuer, it has found a set.
	Find(ctx context.Context, w Want) (Found, error)
}

// A Want is what a Cache searches for, and what it lets a Source do.
type Want struct {
	// Sent is when the keys in memory were sent for; zero: there are none.
	Sent time.Time
	// Bare says that none of them may serve.
	Bare bool
	// Unknown says that none of them is of the kid that is wanted, so that the very newest are searched for.
	Unknown bool
	// Enough reports whether that set, sent for at that time, is what is wanted. Newer ones that are not are worth having.
	Enough func(set *jwks.Set, sent time.Time) bool
	// Judge reads the text of a key set. Its error says what is wrong with the text.
	Judge func(text []byte) (*jwks.Set, error)
	// Permit must be asked before the issuer is, and before a lease is taken. leased says that the issuer will be
	// asked under a lease, so that who waits does so in full. Its error is the search's.
	Permit func(leased bool) error
	// Frozen reports whether the process was frozen since the search began. What failed then says nothing about what
	// was asked.
	Frozen func() bool
}

// Found is what a Source came back with.
type Found struct {
	Set   *jwks.Set // nil: no newer keys
	Text  []byte    // that Set was read from
	Sent  time.Time // when Set was sent for
	Asked time.Time // when the issuer was asked; zero: it was not
	// Share does what is left to do for the fleet once the outcome stands; nil: nothing is.
	Share func(context.Context, Outcome)
}

// An Outcome is what came of asking the issuer, in the log's word.
type Outcome string

const (
	OK     Outcome = "ok"     // its keys are in memory
	Failed Outcome = "failed" // it sent none that can be used in time
	Frozen Outcome = "frozen" // the process was frozen meanwhile, so that nothing is known
)
