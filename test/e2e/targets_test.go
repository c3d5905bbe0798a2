package e2e

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
)

// A limit is something that a kind of target cannot do. The cases that need it are listed at the end of a run.
type limit struct {
	kind, why string
	need      Need
}

// limits of the targets in this repository; TestMain refuses a target of these kinds that lacks anything else.
var limits = []limit{
	{"local", "one stack has short times or long ones; make test starts both", ShortTTL},
	{"local", "one stack has short times or long ones; make test starts both", LongTTL},
	{"local", "make test is Go only; make e2e-store has a table", Shared},
	{"ministack", "it starts a function's processes when it likes", Shared},
	{"sam local", "pinned keys are not shared", Shared},
	{"AWS", "the table is the stack's own affair", Shared},
	{"ministack", "it neither freezes the functions' processes nor cuts their connections", Freeze},
	{"ministack", "it starts a function's processes when it likes", Cold},
	{"ministack", "it does not count invocations", Count},
	{"ministack", "the stage with pinned keys stands in for one on AWS", Rotate},
	{"ministack", "the stage with pinned keys stands in for one on AWS", Outage},
	{"ministack", "the stage with pinned keys stands in for one on AWS", ShortTTL},
	{"ministack", "the stage with pinned keys stands in for one on AWS", MaxAge},
	{"ministack", "the stack has short times, so that keys grow due and stale", LongTTL},
	{"sam local", "the container cannot reach an issuer on loopback: the keys are pinned", Rotate},
	{"sam local", "the container cannot reach an issuer on loopback: the keys are pinned", Outage},
	{"sam local", "the container cannot reach an issuer on loopback: the keys are pinned", ShortTTL},
	{"sam local", "it does not count invocations", Count},
	{"AWS", "a gateway's own keys stay as they are, and pinned ones are never fetched", Rotate},
	{"AWS", "a gateway's own keys stay as they are, and pinned ones are never fetched", Outage},
	{"AWS", "keys grow due and stale in times that nobody waits for", ShortTTL},
	{"AWS", "a real gateway signs no token to order", Mint},
	{"AWS", "without MAX_TOKEN_AGE in the stage there is nothing to see", MaxAge},
	{"AWS", "the stage alone was named", Zuplo},
	{"AWS", "Lambda freezes a function's processes when it likes", Freeze},
	{"AWS", "Lambda starts a function's processes when it likes", Cold},
	{"AWS", "nobody counts invocations", Count},
	{"sam local", "it pauses no container", Freeze},
	{"sam local", "it starts a container when it likes", Cold},
}

// A difference is an answer that a kind of target is known to give where AWS gives another one. It has to be exactly that
// answer; when it is AWS's after all, the case fails, and the difference has to go.
type difference struct {
	kind, want string // want is the verdict's name
	status     int
	body       string // *: any
	why        string
	seen       *atomic.Int64 // how often
}

// differences at most eight for a kind.
var differences = []difference{
	differs("ministack", "401 by the authorizer", 401, `{"message":"Unauthorized"}`, "gateway responses in a SAM template are not applied"),
	differs("ministack", "401 by the gateway", 401, `{"message":"Unauthorized"}`, "gateway responses in a SAM template are not applied"),
	differs("ministack", "500", 500, `{"message":null}`, "gateway responses in a SAM template are not applied"),
	differs("ministack", "404", 403, `{"message":"Missing Authentication Token"}`, "gateway responses in a SAM template are not applied"),
	differs("ministack", "other methods than GET", 403, `{"message":"Missing Authentication Token"}`, "a method ANY is not read"),
	differs("sam local", "401 by the authorizer", 502, `{"message":"Internal server error"}`, "it does not know the text Unauthorized"),
	differs("sam local", "401 by the gateway", 401, `{"message":"Unauthorized"}`, "gateway responses are not read"),
	differs("sam local", "404", 403, `{"message":"Missing Authentication Token"}`, "gateway responses are not read"),
	differs("sam local", "403", 502, `{"message":"Internal server error"}`, "no result is cached: the authorizer is asked again, and refuses"),
	differs("ministack", "403", 200, "*", "a policy's Condition is not evaluated"),
}

func differs(kind, want string, status int, body, why string) difference {
	return difference{kind, want, status, body, why, new(atomic.Int64)}
}

// lack says why targets of that kind cannot do what a case needs. It is an error where nobody has said so.
func lack(kind string, need Need) (string, error) {
	known := false
	for _, l := range limits {
		if known = known || l.kind == kind; l.kind == kind && l.need == need {
			return fmt.Sprintf("%s (%s)", need, l.why), nil
		}
	}
	if known {
		return "", fmt.Errorf("%s lacks %s, and the limits in test/e2e/targets_test.go do not say why", kind, need)
	}
	return string(need), nil
}

// report lists the differences that a target of that kind has shown. It is an error when the kind has more than eight, or
// when one did not show though all cases were run.
func report(kind string, all bool) (lines []string, err error) {
	n := 0
	for _, d := range differences {
		if d.kind != kind {
			continue
		}
		n++
		if d.seen.Load() > 0 {
			lines = append(lines, d.String())
		} else if all {
			err = errors.Join(err, fmt.Errorf("a difference has not shown: delete it from test/e2e/targets_test.go: %s", d))
		}
	}
	if n > 8 {
		err = errors.Join(err, fmt.Errorf("%d differences are too many to call %s a stand-in for AWS", n, kind))
	}
	return lines, err
}

func (d difference) matches(r reply) bool {
	return r.status == d.status && (d.body == "*" || d.body == strings.TrimSuffix(string(r.body), "\n"))
}

func (d difference) String() string {
	return fmt.Sprintf("%s where AWS answers %s: %d %s (%d times): %s", d.kind, d.want, d.status, d.body, d.seen.Load(), d.why)
}

// verdict names an answer and lets a target's known difference from it pass.
func verdict(name string, right func(reply) error) func(reply) error {
	return func(r reply) error {
		err := right(r)
		for _, d := range differences {
			switch {
			case d.kind != stack.kind || d.want != name:
			case err == nil:
				return fmt.Errorf("%s now answers %s as AWS does: delete the difference from test/e2e/targets_test.go", d.kind, name)
			case d.matches(r):
				d.seen.Add(1)
				return nil
			}
		}
		return err
	}
}
