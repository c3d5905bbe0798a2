package journal

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

// serve has one request answered by next, and returns what became of it and what was told.
func serve(t *testing.T, log string, next func(j *Journal, ctx context.Context, w http.ResponseWriter)) (*Request, string) {
	t.Helper()
	var out bytes.Buffer
	j := New(&out, log)
	q := j.Serve(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/protected", nil), func(w http.ResponseWriter, r *http.Request) {
		next(j, r.Context(), w)
	})
	return q, out.String()
}

// A request is one line for eyes. Lines of functions are told by that line, or have one of their own.
func TestLines(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		status int
		lines  []string // of the functions
		by     func(j *Journal, ctx context.Context)
		want   []string // parts of each line that is told
	}{
		{"allowed", 200, []string{`{"msg":"decision","verdict":"allow","kid":"k1","keys_age_s":7}`}, nil,
			[]string{"GET /protected                200  allow                k1          keys 7 s"}},
		{"rejected", 401, []string{`{"msg":"decision","verdict":"reject","reason":"issuer","detail":"trailing_slash","kid":"k1"}`}, nil,
			[]string{"401  reject issuer        k1  trailing_slash"}},
		{"forbidden", 403, []string{`{"msg":"decision","verdict":"forbid","rule":2}`}, nil, []string{"403  forbid  rule 2 is not met"}},
		{"forbidden by no rule", 403, []string{`{"msg":"decision","verdict":"forbid","rule":0}`}, nil, []string{"403  forbid  no rule names this route"}},
		{"would be forbidden", 200, []string{`{"msg":"decision","verdict":"allow","rule":2,"would_forbid":true}`}, nil,
			[]string{"200  allow  rule 2 is not met; RULES_MODE=log lets it pass"}},
		{"a fault is told once", 500, []string{
			`{"msg":"fetch","source":"issuer","outcome":"failed","error":"fetching: status 503","duration_ms":3}`,
			`{"msg":"no fresh keys at the start","error":"fetching: status 503"}`,
			`{"msg":"decision","verdict":"fault","error":"keys of u: fetching: status 503"}`,
			`2026/11/26 12:00:00 {"errorMessage":"keys of u: fetching: status 503","errorType":"wrapError"}`},
			nil, []string{"fetch: no keys from the issuer (failed): fetching: status 503, 3 ms", "500  fault  keys of u: fetching: status 503"}},
		{"keys", 200, []string{`{"msg":"fetch","source":"issuer","outcome":"ok","keys":3,"duration_ms":12}`}, nil, []string{"fetch: 3 keys from the issuer, 12 ms", "200"}},
		{"warned", 200, []string{`{"level":"WARN","msg":"key skipped","error":"too short"}`, "panic: text"}, nil, []string{"Fn: key skipped: too short", "Fn: panic: text", "200"}},
		{"not asked", 401, nil, func(j *Journal, ctx context.Context) { j.Answered(ctx, "gateway", "no Bearer JWT") }, []string{"401  -  no Bearer JWT"}},
		{"cached", 200, nil, func(j *Journal, ctx context.Context) {
			j.Note(ctx, func(q *Request) { q.Verdict, q.Cached = "allow", true })
		}, []string{"200  allow  (cached policy)"}},
		{"steers no terminal", 401, []string{`{"msg":"decision","verdict":"reject","reason":"unknown_key","kid":"\u001b[2J\u202e"}`}, nil, []string{"unknown_key  \uFFFD[2J\uFFFD"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, told := serve(t, "text", func(j *Journal, ctx context.Context, w http.ResponseWriter) {
				for _, line := range c.lines {
					j.Log(ctx, "Fn", line+"\n")
				}
				if c.by != nil {
					c.by(j, ctx)
				}
				w.WriteHeader(c.status)
			})
			lines := strings.Split(strings.TrimSuffix(told, "\n"), "\n")
			if len(lines) != len(c.want) {
				t.Fatalf("%d lines, want %d:\n%s", len(lines), len(c.want), told)
			}
			for n, want := range c.want {
				for part := range strings.SplitSeq(want, "  ") { // columns are wider or narrower
					if part = strings.TrimSpace(part); !strings.Contains(lines[n], part) {
						t.Errorf("line %d lacks %q: %q", n+1, part, lines[n])
					}
				}
			}
		})
	}
}

// A program gets the functions' lines as they are. What none of them tells has a line of its own.
func TestLinesForPrograms(t *testing.T) {
	t.Parallel()
	const decision = `{"msg":"decision","verdict":"fault","error":"x"}`
	_, told := serve(t, "json", func(j *Journal, ctx context.Context, w http.ResponseWriter) {
		j.Log(ctx, "Fn", decision+"\n")
		w.WriteHeader(500)
	})
	if told != decision+"\n" {
		t.Errorf("told %q, want the decision's line alone", told)
	}
	_, told = serve(t, "", func(j *Journal, ctx context.Context, w http.ResponseWriter) { // no terminal
		j.Event("told", "rotate")
		j.Answered(ctx, "protected", "status 700")
		w.WriteHeader(502)
	})
	if strings.Count(told, "\n") != 1 || !strings.Contains(told, `"level":"ERROR","msg":"request","method":"GET","path":"/protected","status":502,"error":"status 700"`) {
		t.Errorf("told %q", told)
	}
}

func TestRequest(t *testing.T) {
	t.Parallel()
	const token = "eyJhbGciOiJFZERTQSIsImtpZCI6ImsxIn0.eyJuIjoxMjM0NTY3ODkwMTIzNDU2Nzg5MH0.AAAA"
	sent := time.Now().Add(-time.Minute)
	q, _ := serve(t, "json", func(j *Journal, ctx context.Context, w http.ResponseWriter) {
		j.Carries(ctx, "Bearer "+token)
		j.Hop(ctx, "gateway", "authorizer", "TOKEN event")
		j.Log(ctx, "Fn", `{"msg":"fetch","source":"issuer","outcome":"timeout","error":"e"}`)
		j.Log(ctx, "Fn", `{"msg":"fetch","source":"table","outcome":"ok","keys":2,"ttl_s":300,"max_stale_s":86400,"time":"`+sent.Format(time.RFC3339Nano)+`"}`)
		if age, ttl, maxStale := j.Keys(); age == nil || *age < 60 || *age > 120 || ttl != 300 || maxStale != 86400 {
			t.Errorf("the keys' age is %v of %v and %v, want a minute of 300 and 86,400 s", age, ttl, maxStale)
		}
		j.Log(ctx, "Fn", `{"msg":"decision","verdict":"allow","kid":"k1","keys_age_s":60}`)
		j.Answered(ctx, "protected", "")
		io.WriteString(w, strings.Repeat("x", 40<<10))
	})
	hops := fmt.Sprint(q.Hops)
	if q.Status != 200 || len(q.Body) != 32<<10 || q.AnsweredBy != "protected" || q.Verdict != "allow" || *q.KeysAge != 60 || len(q.Fetches) != 2 ||
		hops != "[{gateway authorizer TOKEN event false} {authorizer issuer no keys from the issuer (timeout): e true}]" ||
		fmt.Sprint(q.Token) != "map[claims:map[n:12345678901234567890] header:map[alg:EdDSA kid:k1]]" {
		t.Errorf("%+v", q)
	}
	q, _ = serve(t, "json", func(j *Journal, ctx context.Context, _ http.ResponseWriter) { j.Carries(ctx, "Bearer a.b") })
	if q.Token != nil {
		t.Errorf("what is no token is %v", q.Token)
	}
}

// A request that goes on to the other stand-in is the same one. The last 50 are kept, the newest first.
func TestRequestsAreKept(t *testing.T) {
	t.Parallel()
	j := New(io.Discard, "json")
	for n := range 60 {
		path := fmt.Sprintf("/%d", n)
		j.Serve(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil), func(_ http.ResponseWriter, r *http.Request) {
			again := httptest.NewRequest(http.MethodGet, "/prod"+path, nil)
			j.Note(r.Context(), func(q *Request) { again.Header.Set(ID, q.ID) })
			if q := j.Serve(httptest.NewRecorder(), again, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get(ID) != "" {
					t.Error("the backend sees the stand-ins' header")
				}
				j.Hop(r.Context(), "zuplo", "gateway", path)
			}); q != nil {
				t.Errorf("%s is a request of its own", path)
			}
		})
	}
	all := j.Requests()
	if len(all) != 50 || all[0].Path != "/59" || all[49].Path != "/10" || len(all[0].Hops) != 1 || all[0].Hops[0].What != "/59" {
		t.Errorf("%d requests, the first %+v", len(all), all[0])
	}
}

// Columns stand below each other, whatever is in them.
func TestColumns(t *testing.T) {
	t.Parallel()
	var ends []int
	for _, decision := range []string{
		`{"msg":"decision","verdict":"allow","kid":"k1","keys_age_s":7}`,
		`{"msg":"decision","verdict":"reject","reason":"not_yet_valid","kid":"never-published","keys_age_s":86400}`,
		`{"msg":"decision","verdict":"fault"}`,
	} {
		_, told := serve(t, "text", func(j *Journal, ctx context.Context, _ http.ResponseWriter) { j.Log(ctx, "Fn", decision) })
		ends = append(ends, strings.Index(told, " ms"))
	}
	if ends[0] < 0 || ends[1] != ends[0] || ends[2] != ends[0] {
		t.Errorf("the durations end in columns %v", ends)
	}
}

// Colours are for terminals whose user wants them. The null device stands for a terminal: it is a character device, too.
func TestColour(t *testing.T) {
	terminal, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	for _, c := range []struct {
		name          string
		out           io.Writer
		log, no, term string
		eyes, colour  bool
	}{
		{"terminal", terminal, "", "", "xterm", true, true},
		{"terminal, NO_COLOR", terminal, "", "1", "xterm", true, false},
		{"dumb terminal", terminal, "", "", "dumb", true, false},
		{"terminal, LOG=json", terminal, "json", "", "xterm", false, true},
		{"no terminal", io.Discard, "", "", "xterm", false, false},
		{"no terminal, LOG=text", io.Discard, "text", "", "xterm", true, false},
	} {
		t.Setenv("NO_COLOR", c.no)
		t.Setenv("TERM", c.term)
		if j := New(c.out, c.log); j.eyes != c.eyes || j.colour != c.colour {
			t.Errorf("%s: for eyes %t, in colour %t", c.name, j.eyes, j.colour)
		}
	}
}
