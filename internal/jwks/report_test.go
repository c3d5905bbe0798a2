package jwks

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Every fetch leaves one line, which metrics are made of.
func TestFetchesAreReported(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do   func(t *testing.T, w *world)
		want []map[string]any // level and what follows it
	}{
		"ok": {
			func(t *testing.T, w *world) {
				w.issuer.delay = 400 * time.Millisecond
				w.ask(t.Context(), "a")
			},
			[]map[string]any{{"level": "INFO", "outcome": "ok", "keys": 2.0, "duration_ms": 400.0}},
		},
		"failed": {
			func(t *testing.T, w *world) {
				w.issuer.set("503")
				w.ask(t.Context(), "a")
			},
			[]map[string]any{{"level": "WARN", "outcome": "failed", "error": "fetching: status 503", "duration_ms": 0.0}},
		},
		"too late": {
			func(t *testing.T, w *world) {
				w.issuer.delay, w.issuer.deaf = 3100*time.Millisecond, true
				_ = w.Refresh(t.Context())
				time.Sleep(time.Second)
			},
			[]map[string]any{{"level": "WARN", "outcome": "failed", "error": "the reply took 3.1s, at most 3s count", "duration_ms": 3100.0}},
		},
		"frozen": {
			func(t *testing.T, w *world) {
				w.issuer.set("hang")
				go w.Refresh(t.Context())
				time.Sleep(250 * time.Millisecond)
				w.step.Add(int64(time.Hour))
				close(w.issuer.cut)
			},
			[]map[string]any{{"level": "WARN", "outcome": "frozen", "error": "fetching: connection reset", "duration_ms": 3600250.0}},
		},
		"frozen and replaced": {
			func(t *testing.T, w *world) {
				w.issuer.delay, w.issuer.deaf = time.Second, true
				go w.Refresh(t.Context())
				time.Sleep(500 * time.Millisecond)
				w.step.Add(int64(5 * time.Second))
				w.issuer.mu.Lock()
				w.issuer.delay = 0
				w.issuer.mu.Unlock()
				w.ask(t.Context(), "a")
				time.Sleep(time.Second)
			},
			[]map[string]any{
				{"level": "INFO", "outcome": "ok", "keys": 2.0, "duration_ms": 0.0},
				{"level": "WARN", "outcome": "frozen", "error": "the reply took 6s, at most 3s count\nreplaced by a younger fetch", "duration_ms": 6000.0},
			},
		},
		"no fetch, no line": {func(t *testing.T, w *world) { w.Age() }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld("a b")
				var lines bytes.Buffer
				w.Fetches = slog.New(slog.NewJSONHandler(&lines, nil)).With("issuer", "https://issuer.example")
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
					line["msg"], line["issuer"], line["uri"] = "fetch", "https://issuer.example", uri
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
