package storetest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"zuplo-lambda-authorizer/internal/fleet"
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
	if lease, err := s.Take(ctx, now); !lease.IsZero() || err != broken || m.Item("i", "u") != (Item{}) {
		t.Errorf("take gives %v, %v and leaves %v", lease, err, m.Item("i", "u"))
	}
	failing, losing = "", "take"
	if lease, err := s.Take(ctx, now); !lease.IsZero() || err != broken || m.Item("i", "u").Lease == nil {
		t.Errorf("take gives %v, %v and leaves %v", lease, err, m.Item("i", "u"))
	}
	lease := now.Add(fleet.LeaseTime)
	failing, losing = "put", ""
	if err := s.Put(ctx, lease, fleet.Copy{Set: set, Sent: now}, now); err != broken || m.Item("i", "u").Set != nil {
		t.Errorf("put gives %v and leaves %v", err, m.Item("i", "u"))
	}
	failing, losing = "", "put"
	if err := s.Put(ctx, lease, fleet.Copy{Set: set, Sent: now}, now); err != broken || m.Item("i", "u").Set == nil {
		t.Errorf("put gives %v and leaves %v", err, m.Item("i", "u"))
	}
	failing, losing = "fail", ""
	if err := s.Fail(ctx, lease, now, 1); err != broken || m.Item("i", "u").Failures != nil {
		t.Errorf("fail gives %v and leaves %v", err, m.Item("i", "u"))
	}
	for _, failing = range []string{"read", ""} {
		losing = map[string]string{"": "read"}[failing]
		if c, err := s.Read(ctx, true); err != broken || c.Set != nil {
			t.Errorf("read gives %s, %v", show(c), err)
		}
	}
	failing, losing = "", ""
	_, _ = s.Take(ctx, now)
	_ = s.Put(ctx, now, fleet.Copy{Set: set, Sent: now}, now)
	_, _ = s.Read(ctx, false)
	if got, want := m.Counts(), (Counts{Reads: 3, ConsistentReads: 2, Takes: 3, Puts: 3, Fails: 1, TakesLost: 1, PutsLost: 1}); got != want {
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
		lease, err := s.Take(t.Context(), now)
		if took := time.Since(begun); err != nil || lease.IsZero() || took != m.Latency {
			t.Errorf("take gives %v, %v after %v", lease, err, took)
		}
		// It takes effect halfway: who leaves before has done nothing, who leaves later does not hear of it.
		for wait, want := range map[time.Duration]bool{40 * time.Millisecond: false, 60 * time.Millisecond: true} {
			m.SetItem("i", "u", Item{Lease: milliseconds(lease)})
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			begun = time.Now()
			err := s.Put(ctx, lease, fleet.Copy{Set: set, Sent: now}, now)
			cancel()
			if took := time.Since(begun); !errors.Is(err, context.DeadlineExceeded) || took != wait {
				t.Errorf("put gives %v after %v", err, took)
			}
			if stored := m.Item("i", "u").Set != nil; stored != want {
				t.Errorf("stored: %v, although it left after %v", stored, wait)
			}
		}
	})
}
