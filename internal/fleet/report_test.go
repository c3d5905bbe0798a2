package fleet_test

import (
	"strings"
	"testing"
	"testing/synctest"

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
