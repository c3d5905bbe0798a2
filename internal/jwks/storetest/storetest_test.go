package storetest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"zuplo-lambda-authorizer/internal/jwks"
)

func TestMemory(t *testing.T) { Run(t, &Memory{}) }

func TestMemoryFails(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	var failing, losing string
	m := &Memory{
		Fail: func(op string) error { return is(op, failing, broken) },
		Lose: func(op string) error { return is(op, losing, broken) },
	}
	s, ctx := m.Issuer("i", "u"), t.Context()

	failing = "take"
	if _, ok, err := s.Take(ctx, now); ok || err != broken || m.Item("i", "u") != (Item{}) {
		t.Errorf("take gives %v, %v and leaves %v", ok, err, m.Item("i", "u"))
	}
	failing, losing = "", "take"
	if turn, ok, err := s.Take(ctx, now); ok || err != broken || !turn.IsZero() || m.Item("i", "u").NextTurn == nil {
		t.Errorf("take gives %v, %v and leaves %v", ok, err, m.Item("i", "u"))
	}
	turn := now.Add(jwks.TurnTime)
	failing, losing = "put", ""
	if ok, err := s.Put(ctx, turn, jwks.Copy{Set: set, Sent: now}, now); ok || err != broken || m.Item("i", "u").Set != nil {
		t.Errorf("put gives %v, %v and leaves %v", ok, err, m.Item("i", "u"))
	}
	failing, losing = "", "put"
	if ok, err := s.Put(ctx, turn, jwks.Copy{Set: set, Sent: now}, now); ok || err != broken || m.Item("i", "u").Set == nil {
		t.Errorf("put gives %v, %v and leaves %v", ok, err, m.Item("i", "u"))
	}
	for _, failing = range []string{"read", ""} {
		losing = map[string]string{"": "read"}[failing]
		if c, err := s.Read(ctx, true); err != broken || c.Set != nil {
			t.Errorf("read gives %s, %v", show(c), err)
		}
	}
	failing, losing = "", ""
	_, _, _ = s.Take(ctx, now)
	_, _ = s.Put(ctx, now, jwks.Copy{Set: set, Sent: now}, now)
	_, _ = s.Read(ctx, false)
	if got, want := m.Counts(), (Counts{Reads: 3, ConsistentReads: 2, Takes: 3, Puts: 3, TakesLost: 1, PutsLost: 1}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}

func is(op, which string, err error) error {
	if op == which {
		return err
	}
	return nil
}

func TestMemoryTakesItsTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &Memory{Latency: 100 * time.Millisecond}
		s, begun := m.Issuer("i", "u"), time.Now()
		turn, ok, err := s.Take(t.Context(), now)
		if took := time.Since(begun); err != nil || !ok || took != m.Latency {
			t.Errorf("take gives %v, %v after %v", ok, err, took)
		}
		// It takes effect halfway: who leaves before has done nothing, who leaves later does not hear of it.
		for wait, want := range map[time.Duration]bool{40 * time.Millisecond: false, 60 * time.Millisecond: true} {
			m.SetItem("i", "u", Item{NextTurn: milliseconds(turn)})
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			begun = time.Now()
			ok, err := s.Put(ctx, turn, jwks.Copy{Set: set, Sent: now}, now)
			cancel()
			if took := time.Since(begun); ok || !errors.Is(err, context.DeadlineExceeded) || took != wait {
				t.Errorf("put gives %v, %v after %v", ok, err, took)
			}
			if stored := m.Item("i", "u").Set != nil; stored != want {
				t.Errorf("stored: %v, although it left after %v", stored, wait)
			}
		}
	})
}
