package e2e

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Need is something that a case asks of its target.
type Need string

// What TARGET_CAN may name.
const (
	Mint   Need = "mint"   // tokens of any shape, by ADMIN_URL
	Rotate Need = "rotate" // keys come and go, by ADMIN_URL
	Outage Need = "outage" // the key set breaks in every way, by ADMIN_URL
	Freeze Need = "freeze" // processes are frozen whenever they are idle, connections can be cut
	Count  Need = "count"  // requests for keys and invocations are counted
)

// What follows from the other variables.
const (
	Zuplo    Need = "zuplo"    // ZUPLO_URL and ZUPLO_API_KEY: a gateway in front
	Cold     Need = "cold"     // LAMBDA_URL: cold starts on demand
	Audience Need = "audience" // AUDIENCE: the target checks it
	MaxAge   Need = "maxage"   // MAX_TOKEN_AGE: the target checks it
	ShortTTL Need = "shortttl" // JWKS_TTL at most 2s, JWKS_MAX_STALE 5s to 10s: ages can be waited for
	Shared   Need = "shared"   // JWKS_TABLE: the target's environments share their keys
	LongTTL  Need = "longttl"  // JWKS_TTL at least 1m: no due refresh blurs a count of fetches

	ExplicitDeny Need = "explicitdeny" // EXPLICIT_DENY=on, a rule for GET /protected alone, a resource policy that allows
	HTTPAPI      Need = "httpapi"      // HTTP_API: examples/apis/http.yaml with the same authorizer
)

// A case is one thing that must hold of the target.
type testCase struct {
	name  string
	needs []Need
	run   func(t *testing.T, tg *target)
}

// target is what the environment says about the stack under test.
type target struct {
	name, kind                 string // kind: the name up to its first comma
	base, zuplo, admin, lambda string // URLs without a trailing slash
	apiKey                     string
	explain                    string // the command explain, if it can ask the issuer from here
	issuer, audience           string
	ttl, maxStale              time.Duration
	leeway, maxAge             time.Duration // maxAge 0: not checked
	can                        map[Need]bool
}

var (
	stack   *target
	results struct {
		sync.Mutex
		cannot         []string
		passed, failed int
	}
)

func TestMain(m *testing.M) {
	flag.Parse()
	var err error
	if stack, err = fromEnv(os.Getenv); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	if os.Getenv("FACTS") != "" {
		facts()
	}
	start := time.Now()
	code := m.Run()
	if n := len(results.cannot); n > 0 {
		slices.Sort(results.cannot)
		fmt.Printf("skipped on %s (%d):\n  %s\n", stack.name, n, strings.Join(results.cannot, "\n  "))
	}
	// A variant of a kind, with something behind a comma, need not show all that the kind does.
	differs, err := report(stack.kind, stack.name == stack.kind && flag.Lookup("test.run").Value.String() == "")
	if len(differs) > 0 {
		fmt.Printf("differs on %s from what AWS documents (%d):\n  %s\n", stack.name, len(differs), strings.Join(differs, "\n  "))
	}
	if err != nil {
		fmt.Println(err)
		code = max(code, 1)
	}
	if results.passed == 0 { // nothing was shown
		code = max(code, 1)
	}
	fmt.Printf("%s: %d cases run, %d passed, %d skipped, %d answers differ from what AWS documents, %d s\n", stack.name,
		results.passed+results.failed, results.passed, len(results.cannot), len(differs), int(time.Since(start).Seconds()))
	os.Exit(code)
}

// fromEnv describes the target; every mistake is reported at once.
func fromEnv(getenv func(string) string) (*target, error) {
	if getenv("BASE_URL") == "" {
		return nil, errors.New("BASE_URL is not set. This suite asks a running stack over HTTP; `make test` starts one and runs the suite against it")
	}
	var errs []error
	url := func(name string) string { return strings.TrimSuffix(getenv(name), "/") }
	duration := func(name, preset string) time.Duration {
		d, err := time.ParseDuration(cmp.Or(getenv(name), preset))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
		return d
	}
	tg := &target{
		name: cmp.Or(getenv("TARGET"), "target"),
		base: url("BASE_URL"), zuplo: url("ZUPLO_URL"), admin: url("ADMIN_URL"), lambda: url("LAMBDA_URL"),
		apiKey: getenv("ZUPLO_API_KEY"), explain: getenv("EXPLAIN"), issuer: getenv("ISSUER"), audience: getenv("AUDIENCE"),
		ttl: duration("JWKS_TTL", "5m"), maxStale: duration("JWKS_MAX_STALE", "24h"),
		leeway: duration("LEEWAY", "30s"), maxAge: duration("MAX_TOKEN_AGE", "0s"),
	}
	tg.kind, _, _ = strings.Cut(tg.name, ",")
	tg.can = map[Need]bool{
		Zuplo:    tg.zuplo != "" && tg.apiKey != "",
		Cold:     tg.lambda != "",
		Audience: tg.audience != "",
		MaxAge:   tg.maxAge > 0,
		ShortTTL: tg.ttl <= 2*time.Second && tg.maxStale >= 5*time.Second && tg.maxStale <= 10*time.Second,
		Shared:   getenv("JWKS_TABLE") != "",
		LongTTL:  tg.ttl >= time.Minute,

		ExplicitDeny: getenv("EXPLICIT_DENY") == "on",
		HTTPAPI:      getenv("HTTP_API") != "",
	}
	if tg.issuer == "" {
		errs = append(errs, errors.New("ISSUER: not set"))
	}
	for word := range strings.FieldsFuncSeq(getenv("TARGET_CAN"), func(r rune) bool { return r == ',' || r == ' ' }) {
		need := Need(word)
		switch need {
		case Mint, Rotate, Outage, Freeze:
			if tg.admin == "" {
				errs = append(errs, fmt.Errorf("TARGET_CAN: %s needs ADMIN_URL", need))
			}
		case Count:
			if tg.admin == "" || tg.lambda == "" {
				errs = append(errs, errors.New("TARGET_CAN: count needs ADMIN_URL and LAMBDA_URL"))
			}
		default:
			errs = append(errs, fmt.Errorf("TARGET_CAN: %q is none of mint, rotate, outage, freeze, count", word))
		}
		tg.can[need] = true
	}
	return tg, errors.Join(errs...)
}

// inParallel runs cases that do not disturb each other.
func inParallel(t *testing.T, cases []testCase) { runCases(t, cases, true) }

// inTurn runs cases that break the issuer, count, or move its keys: one at a time.
func inTurn(t *testing.T, cases []testCase) { runCases(t, cases, false) }

func runCases(t *testing.T, cases []testCase, parallel bool) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var lacks []string
			for _, need := range c.needs {
				if stack.can[need] {
					continue
				}
				why, err := lack(stack.kind, need)
				check(t, err)
				lacks = append(lacks, why)
			}
			if len(lacks) > 0 {
				reason := strings.Join(lacks, "; ")
				results.Lock()
				results.cannot = append(results.cannot, t.Name()+": "+reason)
				results.Unlock()
				t.Skip(reason)
			}
			t.Cleanup(func() {
				results.Lock()
				defer results.Unlock()
				if t.Failed() {
					results.failed++
				} else {
					results.passed++
				}
			})
			if parallel {
				t.Parallel()
			}
			c.run(t, stack)
		})
	}
}
