package jwks

import (
	"context"
	"errors"
	"time"
)

// Pinned is a key set that came with the deployment. It is never fetched and never stale.
type Pinned struct{ set *Set }

// NewPinned reads a pinned set, and returns beside it the keys that cannot be used, as a copy of an issuer's set may hold
// some. It is an error if one of them is private or symmetric, or if there is no other.
func NewPinned(text []byte) (*Pinned, []Skipped, error) {
	set, skipped, err := Parse(text)
	for _, s := range skipped {
		if s.Why == secret {
			return nil, nil, s
		}
	}
	switch {
	case err != nil:
		return nil, nil, err
	case set.entries == 0:
		return nil, nil, errors.New("no keys in it")
	}
	return &Pinned{set}, skipped, nil
}

// Keys returns the keys under kid that fit alg, and whether the set has that kid. It has no errors.
func (p *Pinned) Keys(_ context.Context, kid, alg string) ([]Key, bool, error) {
	fit, known := p.set.Keys(kid, alg)
	return fit, known, nil
}

// Usable are the keys that can be used.
func (p *Pinned) Usable() []Usable { return p.set.Usable() }

// Age says that there is none.
func (p *Pinned) Age() (time.Duration, bool) { return 0, false }
