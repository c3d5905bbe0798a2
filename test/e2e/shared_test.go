package e2e

import (
	"testing"
	"time"
)

// TestShared holds what keys that the fleet shares are for: a new environment has them without the issuer.
func TestShared(t *testing.T) {
	inTurn(t, []testCase{
		{"new environments do not ask the issuer", []Need{Shared, Mint, Cold, Count}, func(t *testing.T, tg *target) {
			check(t, tg.asks(order{}, allowed)) // the first environment fetches and shares
			before, _ := tg.keyRequests(t)
			for range 3 {
				tg.recycle(t)
				check(t, tg.asks(order{}, allowed))
				check(t, tg.asks(order{Foreign: true}, refused))
			}
			if n, _ := tg.keyRequests(t); n != before {
				t.Errorf("the issuer had %d requests for its keys, want none", n-before)
			}
		}},
		{"new environments in an outage", []Need{Shared, Mint, Outage, Cold}, func(t *testing.T, tg *target) {
			check(t, tg.asks(order{}, allowed))
			tg.mode(t, "503")
			t.Cleanup(func() { tg.post(t, tg.admin+"/reset", object{}, nil) })
			for range 3 {
				tg.recycle(t)
				check(t, tg.asks(order{}, within(dueLimit, allowed)))
			}
		}},
		{"a rotation that another environment has seen", []Need{Shared, Mint, Rotate, Cold, Count}, func(t *testing.T, tg *target) {
			check(t, tg.asks(order{}, allowed))
			tg.rotate(t, "EdDSA")
			// The first one to see it needs the lease, which the fetch before may have taken for 6 s.
			eventually(t, 10*time.Second, 100*time.Millisecond, func() error { return tg.asks(order{}, allowed) })
			before, _ := tg.keyRequests(t)
			tg.recycle(t)
			check(t, tg.asks(order{}, allowed))
			if n, _ := tg.keyRequests(t); n != before {
				t.Errorf("the issuer had %d requests for its keys, want none", n-before)
			}
		}},
	})
}
