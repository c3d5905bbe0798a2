package fleet_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"zuplo-lambda-authorizer/internal/keycache/keytest"
)

// Keys that came from the table leave a line, too: whether the fleet knows a kid is one query.
func TestKeysOfTheTableAreReported(t *testing.T) {
	t.Parallel()
	const uri = "level=INFO msg=fetch uri=" + keytest.URI
	for name, c := range map[string]struct {
		do   func(t *testing.T, f *shared)
		want []string
	}{
		"newer keys": {
			func(t *testing.T, f *shared) {
				f.share(s, keytest.Text("a", "b"))
				f.Ask(t.Context(), "a")
			},
			[]string{uri + " keys=2 kids=\"[a b]\" source=table outcome=ok"},
		},
		"newer keys that are due, and the issuer fails": {
			func(t *testing.T, f *shared) {
				f.share(ttl, keytest.Text("a"))
				f.Issuer.Set("503")
				f.Ask(t.Context(), "a")
			},
			[]string{
				uri + " keys=1 kids=[a] source=table outcome=ok",
				"level=WARN msg=fetch uri=" + keytest.URI + " error=\"fetching: status 503\" source=issuer outcome=failed duration_ms=0",
			},
		},
		"newer keys that are due, and the issuer answers": {
			func(t *testing.T, f *shared) {
				f.share(ttl, keytest.Text("a"))
				f.Ask(t.Context(), "a")
			},
			[]string{uri + " keys=1 kids=[a] source=issuer outcome=ok duration_ms=0"},
		},
		"a copy that is no newer": {
			func(t *testing.T, f *shared) {
				f.Ask(t.Context(), "a")
				f.taken()
				f.Ask(t.Context(), "x")
			},
			[]string{uri + " keys=1 kids=[a] source=issuer outcome=ok duration_ms=0"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newShared("a")
				c.do(t, f)
				synctest.Wait()
				var got []string
				for line := range strings.Lines(f.Lines()) {
					if _, line, _ = strings.Cut(strings.TrimSpace(line), " "); strings.Contains(line, "msg=fetch ") { // without the time
						got = append(got, line)
					}
				}
				if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
					t.Errorf("lines:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
				}
			})
		})
	}
}

// Metrics are made of these: each lease that was taken, and each time that the table is left alone from then on.
func TestTableIsReported(t *testing.T) {
	t.Parallel()
	fails := func(f *shared, op string) {
		f.Fleet.Store = &saboteur{Store: f.Fleet.Store, op: op, harm: harms["fails"]}
	}
	large := strings.Repeat("k", 16<<10)
	for name, c := range map[string]struct {
		do   func(t *testing.T, f *shared)
		want string
	}{
		"the lease":           {func(t *testing.T, f *shared) { f.Ask(t.Context(), "a") }, "lease"},
		"the lease, each TTL": {func(t *testing.T, f *shared) { f.Ask(t.Context(), "a"); time.Sleep(ttl); f.Ask(t.Context(), "a") }, "lease lease"},
		"another's lease":     {func(t *testing.T, f *shared) { f.taken(); f.Ask(t.Context(), "a") }, ""},
		"the copy is enough":  {func(t *testing.T, f *shared) { f.share(s, keytest.Text("a")); f.Ask(t.Context(), "a") }, ""},
		"it fails": {func(t *testing.T, f *shared) {
			fails(f, "")
			for range 40 { // rests of 1, 2 and 4 s begin
				f.Ask(t.Context(), "x")
				time.Sleep(100 * ms)
			}
		}, "rest rest rest"},
		"it fails after the lease": {func(t *testing.T, f *shared) { fails(f, "put"); f.Ask(t.Context(), "a"); synctest.Wait() }, "lease rest"},
		"too large to share":       {func(t *testing.T, f *shared) { f.Issuer.Set(large); f.Ask(t.Context(), "a"); synctest.Wait() }, "lease rest"},
		"another's is too large": {func(t *testing.T, f *shared) {
			f.share(s, nil)
			f.Ask(t.Context(), "a")
			f.Ask(t.Context(), "x")
		}, "rest"},
		"nobody wants to know": {func(t *testing.T, f *shared) { f.Fleet.Events = nil; fails(f, "put"); f.Ask(t.Context(), "a") }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newShared("a")
				var lines bytes.Buffer
				f.Fleet.Events = slog.New(slog.NewTextHandler(&lines, nil))
				c.do(t, f)
				synctest.Wait()
				var got []string
				for line := range strings.Lines(lines.String()) {
					_, msg, _ := strings.Cut(strings.TrimSpace(line), "level=INFO msg=")
					got = append(got, msg)
				}
				if strings.Join(got, " ") != c.want {
					t.Errorf("%q, want %q", got, c.want)
				}
			})
		})
	}
}
