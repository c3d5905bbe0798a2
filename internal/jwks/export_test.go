package jwks

import (
	"net/http"
	"time"
)

// Tests of a Cache with a Store stand outside of the package, which storetest imports. This is what they use of it.
type (
	Issuer = issuer
	World  = world
)

const StoreTime = storeTime

var (
	NewWorld = newWorld
	ErrTaken = errTaken
)

func (i *issuer) Set(mode string) { i.set(mode) }
func (i *issuer) Requests() int   { return i.requests() }

// Delays makes the issuer slow, and deaf if it answers even when nobody waits any more.
func (i *issuer) Delays(d time.Duration, deaf bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.delay, i.deaf = d, deaf
}

// Beside returns another environment with the same issuer.
func (w *world) Beside() *World {
	other := newWorld("")
	other.issuer, other.Client = w.issuer, &http.Client{Transport: w.issuer}
	return other
}

var Ask = (*world).ask

func (w *world) Issuer() *Issuer      { return w.issuer }
func (w *world) Step(d time.Duration) { w.step.Add(int64(d)) }
func (w *world) Lines() string        { return w.log.String() }
func (c *Cache) Due() time.Duration   { return c.current.Load().due }
func (c *Cache) TurnsUsed() int       { c.mu.Lock(); defer c.mu.Unlock(); return c.turns.used }
func (c *Cache) UseTurns()            { c.mu.Lock(); defer c.mu.Unlock(); c.turns = turns{askBurst, c.now()} }
func (c *Cache) StoreFailures() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.share.failures.failures
}

// Text is the key set with those kids, as the issuer publishes it.
func Text(kids ...string) []byte {
	keys := []any{}
	for _, kid := range kids {
		keys = append(keys, with(public("Ed25519"), map[string]any{"kid": kid}))
	}
	return setOf(keys...)
}
