package keycache

import (
	"time"

	"zuplo-lambda-authorizer/internal/jwks"
)

// What tests see of a Cache's inside.

func (c *Cache) Failures() int { c.mu.Lock(); defer c.mu.Unlock(); return c.backoff.Failures }

func (c *Cache) AllowanceUsed() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return int((c.allowance.used(c.now()) + allowanceEvery - 1) / allowanceEvery)
}

func (c *Cache) UseAllowance() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.allowance = allowance{c.now().Add(allowanceBurst * allowanceEvery)}
}

func (c *Cache) Clock() time.Time { return c.now() }

func (c *Cache) Set() *jwks.Set { return c.current.Load().set }
