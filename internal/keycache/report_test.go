package keycache_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"zuplo-lambda-authorizer/internal/keycache/keytest"
)

// Every fetch leaves one line, which metrics are made of.
func TestFetchesAreReported(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do   func(t *testing.T, w *keytest.World)
		want []map[string]any // level and what follows it
	}{
		"ok": {
			func(t *testing.T, w *keytest.World) {
				w.Issuer.Be(func(b *keytest.Behaviour) { b.Delay = 400 * time.Millisecond })
				w.Ask(t.Context(), "a")
			},
			[]map[string]any{{"level": "INFO", "outcome": "ok", "keys": 2.0, "kids": []string{"a", "b"}, "duration_ms": 400.0}},
		},
		"many kids, and a long one": {
			func(t *testing.T, w *keytest.World) {
				w.Issuer.Set(strings.Repeat("é", 70) + " b c b d e f g h i j k l")
				w.Ask(t.Context(), "l")
			},
			[]map[string]any{{"level": "INFO", "outcome": "ok", "keys": 13.0, "duration_ms": 0.0,
				"kids": []string{strings.Repeat("é", 64), "b", "c", "d", "e", "f", "g", "h", "i", "j"}, "more_kids": 2.0}},
		},
		"ten kids": {
			func(t *testing.T, w *keytest.World) {
				w.Issuer.Set("a b c d e f g h i j")
				w.Ask(t.Context(), "a")
			},
			[]map[string]any{{"level": "INFO", "outcome": "ok", "keys": 10.0, "duration_ms": 0.0,
				"kids": []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}}},
		},
		"none": {
			func(t *testing.T, w *keytest.World) {
				w.Issuer.Set("empty")
				w.Ask(t.Context(), "a")
			},
			[]map[string]any{{"level": "INFO", "outcome": "ok", "keys": 0.0, "kids": []string{}, "duration_ms": 0.0}},
		},
		"failed": {
			func(t *testing.T, w *keytest.World) {
				w.Issuer.Set("503")
				w.Ask(t.Context(), "a")
			},
			[]map[string]any{{"level": "WARN", "outcome": "failed", "error": "fetching: status 503", "duration_ms": 0.0}},
		},
		"too late": {
			func(t *testing.T, w *keytest.World) {
				w.Issuer.Be(func(b *keytest.Behaviour) { b.Delay, b.Deaf = 3100*time.Millisecond, true })
				_ = w.Start(t.Context())
				time.Sleep(time.Second)
			},
			[]map[string]any{{"level": "WARN", "outcome": "failed", "error": "the reply took 3.1s, at most 3s count", "duration_ms": 3100.0}},
		},
		"frozen": {
			func(t *testing.T, w *keytest.World) {
				cut := make(chan struct{})
				w.Issuer.Be(func(b *keytest.Behaviour) { b.Mode, b.Cut = "hang", cut })
				go w.Start(t.Context())
				time.Sleep(250 * time.Millisecond)
				w.Step(time.Hour)
				close(cut)
			},
			[]map[string]any{{"level": "WARN", "outcome": "frozen", "error": "fetching: connection reset", "duration_ms": 3600250.0}},
		},
		"frozen and replaced": {
			func(t *testing.T, w *keytest.World) {
				w.Issuer.Be(func(b *keytest.Behaviour) { b.Delay, b.Deaf = time.Second, true })
				go w.Start(t.Context())
				time.Sleep(500 * time.Millisecond)
				w.Step(5 * time.Second)
				w.Issuer.Be(func(b *keytest.Behaviour) { b.Delay = 0 })
				w.Ask(t.Context(), "a")
				time.Sleep(time.Second)
			},
			[]map[string]any{
				{"level": "INFO", "outcome": "ok", "keys": 2.0, "kids": []string{"a", "b"}, "duration_ms": 0.0},
				{"level": "WARN", "outcome": "frozen", "error": "replaced by a younger search", "duration_ms": 6000.0},
			},
		},
		"no fetch, no line": {func(t *testing.T, w *keytest.World) { w.Age() }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := keytest.New("a b")
				var lines bytes.Buffer
				w.Fetches = slog.New(slog.NewJSONHandler(&lines, nil)).With("issuer", "https://issuer.example", "uri", keytest.URI)
				c.do(t, w)
				synctest.Wait()
				var got []string
				for text := range strings.Lines(lines.String()) {
					var line map[string]any
					if err := json.Unmarshal([]byte(text), &line); err != nil || line["time"] == nil {
						t.Fatalf("%v in %s", err, text)
					}
					delete(line, "time")
					got = append(got, jsonOf(line))
				}
				var want []string
				for _, line := range c.want {
					line["msg"], line["issuer"], line["uri"], line["source"] = "fetch", "https://issuer.example", keytest.URI, "issuer"
					want = append(want, jsonOf(line))
				}
				if strings.Join(got, "\n") != strings.Join(want, "\n") {
					t.Errorf("lines:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
			})
		})
	}
}

// jsonOf sorts members by name.
func jsonOf(line map[string]any) string {
	text, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	return string(text)
}
