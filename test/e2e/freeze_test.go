package e2e

import (
	"fmt"
	"testing"
	"time"
)

// fetchLimit is the longest that a fetch may take by the wall clock; a reply behind it is thrown away.
const fetchLimit = 3 * time.Second

// TestFreeze holds that a process that was frozen does not take up where it stopped: the world went on
// meanwhile. The host freezes each process whenever it is idle, so waiting is freezing.
func TestFreeze(t *testing.T) {
	needs := []Need{Mint, Rotate, Freeze, Cold, Count, ShortTTL}
	inTurn(t, []testCase{
		{"idle", needs, func(t *testing.T, tg *target) {
			old := spareKey(t, tg)
			tg.withdraw(t, old)
			time.Sleep(tg.ttl + 200*time.Millisecond)
			unthawed := tg.counted(t).Starts
			check(t, tg.asks(order{Alg: "EdDSA", Kid: old}, within(dueLimit, refused)))
			check(t, tg.asks(order{}, within(dueLimit, allowed)))
			thesame(t, tg, unthawed)
		}},
		{"in the middle of a fetch that dies", append(needs, Outage), deadFetch},
		{"in the middle of a fetch whose old answer waits", append(needs, Outage), staleAnswer},
		{"in the middle of a fetch that is slow, again and again", append(needs, Outage), slowIssuer},
		{"between INIT and the first event", needs, func(t *testing.T, tg *target) {
			old := spareKey(t, tg)
			tg.recycle(t)
			tg.post(t, tg.lambda+"/functions/"+authorizer+"/start", nil, nil)
			started := tg.counted(t).Starts
			tg.withdraw(t, old)
			time.Sleep(tg.ttl + 200*time.Millisecond)
			check(t, tg.asks(order{Alg: "EdDSA", Kid: old}, within(dueLimit, refused)))
			check(t, tg.asks(order{}, within(dueLimit, allowed)))
			check(t, tg.asks(order{Alg: "RS256"}, within(dueLimit, allowed)))
			thesame(t, tg, started)
		}},
		{"between an INIT without keys and the first event", append(needs, Outage), func(t *testing.T, tg *target) {
			tg.warm(t)
			tg.mode(t, "503")
			tg.recycle(t)
			tg.post(t, tg.lambda+"/functions/"+authorizer+"/start", nil, nil)
			started := tg.counted(t).Starts
			tg.mode(t, "ok")
			time.Sleep(backoff + 200*time.Millisecond)
			check(t, tg.asks(order{}, within(answerLimit, allowed)))
			thesame(t, tg, started)
		}},
	})
}

// spareKey leaves one warm process that knows two keys of EdDSA, and names the one that signs no longer.
func spareKey(t *testing.T, tg *target) (old string) {
	t.Helper()
	_, old = tg.rotate(t, "EdDSA")
	tg.warm(t)
	check(t, tg.asks(order{Alg: "EdDSA", Kid: old}, allowed))
	return old
}

// thesame holds that it was the frozen process that answered, and no new one.
func thesame(t *testing.T, tg *target, starts int) {
	t.Helper()
	if n := tg.counted(t).Starts - starts; n != 0 {
		t.Errorf("%d more processes were started: what answered was never frozen", n)
	}
}

// stopped leaves the process frozen with a fetch in flight, which began at the time returned.
func stopped(t *testing.T, tg *target) (sent time.Time) {
	t.Helper()
	time.Sleep(tg.ttl + 100*time.Millisecond) // the keys are due
	sent = time.Now()
	check(t, tg.asks(order{}, within(dueLimit, allowed)))
	if _, open := tg.keyRequests(t); open != 1 {
		t.Fatalf("the issuer holds %d requests open, want the one that was frozen in flight", open)
	}
	return sent
}

// deadFetch cuts the connection of a fetch that was frozen in flight, for longer than a fetch may take.
func deadFetch(t *testing.T, tg *target) {
	old := spareKey(t, tg)
	tg.mode(t, "hang")
	starts := tg.counted(t).Starts
	sent := stopped(t, tg)
	tg.withdraw(t, old)
	time.Sleep(time.Until(sent.Add(fetchLimit + 500*time.Millisecond)))
	if _, open := tg.keyRequests(t); open != 1 {
		t.Fatalf("the issuer holds %d requests open after %s: the process was not frozen, its fetch ended", open, time.Since(sent))
	}
	tg.post(t, tg.admin+"/cut", nil, nil)
	tg.mode(t, "ok")
	start := time.Now()
	eventually(t, backoff+500*time.Millisecond, 50*time.Millisecond, func() error {
		return tg.asks(order{Alg: "EdDSA", Kid: old}, within(dueLimit, refused))
	})
	t.Logf("the withdrawn key was refused %s after the thaw", time.Since(start).Round(time.Millisecond))
	check(t, tg.asks(order{}, within(dueLimit, allowed)))
	check(t, tg.asks(order{Alg: "RS256"}, within(dueLimit, allowed)))
	thesame(t, tg, starts)
}

// staleAnswer has the fetch's answer arrive during the freeze and a key withdrawn behind it: what lies
// in the thawed process's socket is older than a fetch may be.
func staleAnswer(t *testing.T, tg *target) {
	old := spareKey(t, tg)
	tg.post(t, tg.admin+"/jwks", object{"mode": "slow", "delay_ms": 1500}, nil)
	starts := tg.counted(t).Starts
	sent := stopped(t, tg)
	eventually(t, 2*time.Second, 20*time.Millisecond, func() error {
		if _, open := tg.keyRequests(t); open > 0 {
			return fmt.Errorf("the issuer still holds %d requests open", open)
		}
		return nil
	})
	tg.withdraw(t, old)
	tg.mode(t, "ok")
	time.Sleep(time.Until(sent.Add(fetchLimit + 500*time.Millisecond)))
	check(t, tg.asks(order{}, within(dueLimit, allowed)))
	check(t, tg.asks(order{Alg: "EdDSA", Kid: old}, within(dueLimit, refused)))
	check(t, tg.asks(order{Alg: "RS256"}, within(dueLimit, allowed)))
	thesame(t, tg, starts)
}

// slowIssuer takes longer than a request waits while old keys may serve, so the process is frozen before it answers. The
// next request waits for it in full: a withdrawn key passes once more, and no longer.
func slowIssuer(t *testing.T, tg *target) {
	old := spareKey(t, tg)
	tg.post(t, tg.admin+"/jwks", object{"mode": "slow", "delay_ms": 1500}, nil)
	tg.withdraw(t, old)
	unthawed := tg.counted(t).Starts
	time.Sleep(tg.ttl + 200*time.Millisecond)
	check(t, tg.asks(order{Alg: "EdDSA", Kid: old}, within(dueLimit, allowed)))
	time.Sleep(time.Second) // frozen in the middle of it
	check(t, tg.asks(order{Alg: "EdDSA", Kid: old}, within(answerLimit, refused)))
	check(t, tg.asks(order{}, within(answerLimit, allowed)))
	thesame(t, tg, unthawed)
}
