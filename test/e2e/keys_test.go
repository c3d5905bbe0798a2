package e2e

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// backoff is the wait after a first failed fetch.
const backoff = time.Second

// TestKeys holds that keys come and go without anybody noticing who should not.
func TestKeys(t *testing.T) {
	inTurn(t, []testCase{
		{"rotation without a failed request", []Need{Mint, Rotate, ShortTTL}, rotation},
		{"a key withdrawn", []Need{Mint, Rotate, ShortTTL}, withdrawal},
		{"a key that signs before it is published", []Need{Mint, Rotate, ShortTTL}, unpublished},
		{"one fetch for many requests", []Need{Mint, Cold, Count, ShortTTL}, fewFetches},
	})
}

// rotation moves three keys, one after the other, under requests that never pause. It stays
// below the three unknown kids for which a process asks at once.
func rotation(t *testing.T, tg *target) {
	tg.warm(t)
	algs := []string{"EdDSA", "ES256", "RS256"}
	stop := make(chan struct{})
	var (
		workers  sync.WaitGroup
		mu       sync.Mutex
		requests int
		failed   []error
	)
	concurrent := 2
	if !tg.can[Cold] {
		concurrent = 1 // a second process would be left to the cases that follow, at an age that they do not know
	}
	for w := range concurrent {
		workers.Go(func() {
			for i := w; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(2 * time.Millisecond):
				}
				err := tg.asks(order{Alg: algs[i%len(algs)]}, within(dueLimit, allowed))
				mu.Lock()
				requests++
				if err != nil {
					failed = append(failed, fmt.Errorf("request %d: %w", requests, err))
				}
				mu.Unlock()
			}
		})
	}
	for _, alg := range algs {
		time.Sleep(700 * time.Millisecond)
		if current, previous := tg.rotate(t, alg); current == previous {
			t.Errorf("%s: the issuer rotated from %q to %q", alg, previous, current)
		}
	}
	time.Sleep(700 * time.Millisecond)
	close(stop)
	workers.Wait()
	if len(failed) > 0 {
		t.Errorf("%d of %d requests failed: %v", len(failed), requests, errors.Join(failed[:min(5, len(failed))]...))
	}
	if requests < 10*concurrent {
		t.Errorf("%d requests while the keys moved: too few to say anything", requests)
	}
}

// withdrawal takes a key away: its tokens, made afresh each time, end with the keys' freshness, the others never.
func withdrawal(t *testing.T, tg *target) {
	tg.warm(t)
	_, old := tg.rotate(t, "EdDSA")
	check(t, tg.asks(order{}, allowed))
	check(t, tg.asks(order{Alg: "EdDSA", Kid: old}, allowed))
	tg.withdraw(t, old)
	others := func() error {
		return errors.Join(tg.asks(order{Alg: "EdDSA"}, within(dueLimit, allowed)), tg.asks(order{Alg: "PS256"}, within(dueLimit, allowed)))
	}
	gone := func() error { return tg.asks(order{Alg: "EdDSA", Kid: old}, within(dueLimit, refused)) }
	eventually(t, tg.ttl+backoff+500*time.Millisecond, 50*time.Millisecond, func() error {
		check(t, others())
		return gone()
	})
	always(t, time.Now().Add(500*time.Millisecond), 50*time.Millisecond, func() error { return errors.Join(gone(), others()) })
}

// unpublished has a key sign that nobody can know yet: refused until the set holds it, then allowed.
func unpublished(t *testing.T, tg *target) {
	tg.warm(t)
	current, previous := tg.rotate(t, "ES256")
	tg.withdraw(t, current) // before anybody has asked for the keys
	token := tg.mint(t, order{Alg: "ES256"})
	if token.Kid != current {
		t.Fatalf("the issuer signs with %q, not with its new key %q", token.Kid, current)
	}
	for range 5 {
		r, err := tg.ask(token.Token)
		check(t, err)
		check(t, refused(r))
	}
	check(t, tg.asks(order{Alg: "ES256", Kid: previous}, allowed))
	tg.post(t, tg.admin+"/reset", object{}, nil) // publishes what signs
	// A refused token is not cached: the same one is good now.
	eventually(t, tg.ttl+time.Second, 50*time.Millisecond, func() error {
		r, err := tg.ask(token.Token)
		check(t, err)
		return within(dueLimit, allowed)(r)
	})
}

// fewFetches counts the issuer's requests under many different tokens.
func fewFetches(t *testing.T, tg *target) {
	tg.warm(t)
	starts := tg.counted(t).Starts
	before, _ := tg.keyRequests(t)
	start := time.Now()
	const requests = 40
	for range requests {
		check(t, tg.asks(order{}, allowed))
	}
	elapsed := time.Since(start)
	after, _ := tg.keyRequests(t)
	processes := 1 + tg.counted(t).Starts - starts
	if n, limit := after-before, processes*(int(elapsed/tg.ttl)+2); n > limit {
		t.Errorf("%d requests in %s to %d processes cost %d fetches, want at most %d", requests, elapsed, processes, n, limit)
	}
}
