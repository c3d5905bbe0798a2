// Package journal keeps what the stand-ins saw of each request: the terminal and the page tell it from here.
package journal

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/golang-jwt/jwt/v5"
)

// ID is the header by which a request is known again that goes on from one stand-in to the other.
const ID = "X-Local-Request"

// A Request is what became of one.
type Request struct {
	ID         string            `json:"id"`
	Time       time.Time         `json:"time"`
	Method     string            `json:"method"`
	Path       string            `json:"path"`
	Status     int               `json:"status"` // 0: on its way
	Body       string            `json:"body"`   // of the answer, not all of a long one
	Duration   float64           `json:"duration_ms"`
	AnsweredBy string            `json:"answered_by"` // the hop that decided the answer
	Why        string            `json:"why"`
	Verdict    string            `json:"verdict"` // empty: there was none
	Reason     string            `json:"reason"`
	Kid        string            `json:"kid"`
	KeysAge    *int64            `json:"keys_age_s"`
	Cached     bool              `json:"cached_policy"`
	Hops       []Hop             `json:"hops"`
	Policy     json.RawMessage   `json:"policy"`
	Decision   json.RawMessage   `json:"decision"` // the authorizer's line
	Fetches    []json.RawMessage `json:"fetches"`  // its lines about keys
	Token      map[string]any    `json:"token"`    // header and claims, not verified
}

// A Hop is a step between caller, zuplo, gateway, authorizer, issuer and protected.
type Hop struct {
	From   string `json:"from"`
	To     string `json:"to"`
	What   string `json:"what"`
	Failed bool   `json:"failed,omitempty"`
}

// A Journal keeps the last 50 requests and tells of each when it is answered.
type Journal struct {
	out          io.Writer
	eyes, colour bool

	mu   sync.Mutex // guards all below, and requests on their way
	last []*Request // the newest at the end
	keys time.Time  // when the authorizer asked for those in its memory; zero: it has none
	ttl  [2]float64 // and how old they may grow, in seconds: until they are due, and until they are too old
}

// New tells out: for eyes if log is text, or if it is empty and out a terminal, else the functions' own lines, JSON.
func New(out io.Writer, log string) *Journal {
	terminal := false
	if f, ok := out.(*os.File); ok {
		info, err := f.Stat()
		terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return &Journal{out: out, eyes: log == "text" || log == "" && terminal, colour: terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

// Serve lets next answer and returns what became of the request; nil: it is one that is on its way already.
func (j *Journal) Serve(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) (q *Request) {
	start, id := time.Now(), r.Header.Get(ID)
	r.Header.Del(ID)
	j.mu.Lock()
	n := slices.IndexFunc(j.last, func(q *Request) bool { return q.ID == id && q.Status == 0 })
	if n >= 0 {
		q = j.last[n]
	} else {
		q = &Request{ID: rand.Text(), Time: start.UTC().Truncate(time.Millisecond), Method: r.Method, Path: r.URL.Path, Hops: []Hop{}, Fetches: []json.RawMessage{}}
		j.last = append(j.last[max(0, len(j.last)-49):], q)
	}
	j.mu.Unlock()
	r = r.WithContext(context.WithValue(r.Context(), key{}, q))
	if n >= 0 {
		next(w, r)
		return nil
	}
	answer := &recorder{ResponseWriter: w, status: http.StatusOK}
	defer func() { // next may panic, with http.ErrAbortHandler
		j.Note(r.Context(), func(q *Request) {
			q.Duration, q.Body, q.Status = float64(time.Since(start).Microseconds())/1000, string(answer.body), answer.status
		})
		j.tell(q)
	}()
	next(answer, r)
	return q
}

type key struct{}

// Note changes the context's request, if there is one and it is on its way.
func (j *Journal) Note(ctx context.Context, change func(*Request)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if q, ok := ctx.Value(key{}).(*Request); ok && q.Status == 0 {
		change(q)
	}
}

// Hop adds a step of its way.
func (j *Journal) Hop(ctx context.Context, from, to, what string) {
	j.Note(ctx, func(q *Request) { q.Hops = append(q.Hops, Hop{From: from, To: to, What: what}) })
}

// Answered says which hop decided the answer, and why if the authorizer has not said so itself.
func (j *Journal) Answered(ctx context.Context, by, why string) {
	j.Note(ctx, func(q *Request) { q.AnsweredBy, q.Why = by, cmp.Or(q.Why, why) })
}

// Carries notes the token in a header's value, if it can be read.
func (j *Journal) Carries(ctx context.Context, value string) {
	t, _, _ := jwt.NewParser(jwt.WithJSONNumber()).ParseUnverified(value[strings.LastIndex(value, " ")+1:], jwt.MapClaims{})
	if t != nil {
		j.Note(ctx, func(q *Request) {
			q.Token = map[string]any{"header": t.Header, "claims": t.Claims}
			q.Kid, _ = t.Header["kid"].(string)
		})
	}
}

// Requests are the last ones that were answered, the newest first.
func (j *Journal) Requests() []*Request {
	j.mu.Lock()
	defer j.mu.Unlock()
	answered := slices.DeleteFunc(slices.Clone(j.last), func(q *Request) bool { return q.Status == 0 })
	slices.Reverse(answered)
	return answered
}

// KeysSent sets when the keys in the authorizer's memory were asked for; zero: it has none.
func (j *Journal) KeysSent(at time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.keys = at
}

// Keys are their age in seconds, nil where there are none, and its bounds.
func (j *Journal) Keys() (age *int64, ttl, maxStale float64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.keys.IsZero() {
		age = new(int64(time.Since(j.keys).Seconds()))
	}
	return age, j.ttl[0], j.ttl[1]
}

// Log takes a line that a function wrote during the context's request.
func (j *Journal) Log(ctx context.Context, function, line string) {
	line = strings.TrimSuffix(line, "\n")
	var l struct {
		Time                                                      time.Time
		Msg, Verdict, Reason, Detail, Kid, Error, Source, Outcome string
		Rule                                                      *int
		WouldForbid                                               bool   `json:"would_forbid"`
		KeysAge                                                   *int64 `json:"keys_age_s"`
		Keys                                                      int
		Duration                                                  time.Duration `json:"duration_ms"`
		TTL                                                       float64       `json:"ttl_s"`
		MaxStale                                                  float64       `json:"max_stale_s"`
	}
	_ = json.Unmarshal([]byte(line), &l) // any other line is shown as it is
	switch {
	case strings.Contains(line, `"errorMessage":`): // the runtime's; the request tells it
		return
	case l.Msg == "decision":
		j.Note(ctx, func(q *Request) {
			q.Decision, q.Verdict, q.Reason, q.Kid, q.KeysAge, q.Why = []byte(line), l.Verdict, l.Reason, l.Kid, l.KeysAge, cmp.Or(l.Error, l.Detail)
			if l.Rule != nil {
				q.Why = strings.Replace(fmt.Sprintf("rule %d is not met", *l.Rule), "rule 0 is not met", "no rule names this route", 1)
			}
			if l.WouldForbid {
				q.Why += "; RULES_MODE=log lets it pass"
			}
		})
		if l.KeysAge != nil {
			j.KeysSent(l.Time.Add(-time.Duration(*l.KeysAge) * time.Second))
		}
	case l.Msg == "fetch":
		what, failed := fmt.Sprintf("%d keys from the %s", l.Keys, l.Source), l.Error != ""
		if failed {
			what = fmt.Sprintf("no keys from the %s (%s): %s", l.Source, l.Outcome, l.Error)
		} else {
			j.KeysSent(l.Time.Add(-l.Duration * time.Millisecond))
		}
		j.mu.Lock()
		j.ttl = [2]float64{l.TTL, l.MaxStale}
		j.mu.Unlock()
		j.Note(ctx, func(q *Request) {
			q.Fetches = append(q.Fetches, []byte(line))
			if l.Source == "issuer" {
				q.Hops = append(q.Hops, Hop{"authorizer", "issuer", what, failed})
			}
		})
		j.Event("fetch", fmt.Sprintf("%s, %d ms", what, l.Duration))
	case l.Msg == "start" || l.Msg == "no fresh keys at the start": // the fetch tells it
	case l.Msg != "":
		j.Event(function, l.Msg+": "+cmp.Or(l.Error, line))
	default:
		j.Event(function, line)
	}
	if !j.eyes {
		j.print(line)
	}
}

// Event is told on a terminal.
func (j *Journal) Event(who, what string) {
	if j.eyes {
		j.print(j.paint("2", time.Now().Format(clock)), j.paint("36", who+": "+what))
	}
}

const clock = "15:04:05.000"

// tell tells of a request that was answered; to a program only a fault that no line of the functions tells.
func (j *Journal) tell(q *Request) {
	if !j.eyes {
		if q.Status >= 500 && q.Decision == nil {
			j.mu.Lock()
			defer j.mu.Unlock()
			slog.New(slog.NewJSONHandler(j.out, nil)).Error("request", "method", q.Method, "path", q.Path, "status", q.Status, "error", q.Why)
		}
		return
	}
	hue, age, why := map[int]string{2: "32", 5: "31"}[q.Status/100], "", q.Why
	if q.KeysAge != nil {
		age = fmt.Sprintf("keys %d s", *q.KeysAge)
	}
	if q.Cached {
		why = "(cached policy) " + why
	}
	hue = cmp.Or(hue, "33")
	j.print(j.paint("2", q.Time.Local().Format(clock)), j.paint("", fmt.Sprintf("%-28s", q.Method+" "+q.Path)), j.paint(hue, fmt.Sprint(q.Status)),
		j.paint(hue, fmt.Sprintf("%-20s", cmp.Or(q.Verdict, "-")+" "+q.Reason)), j.paint("", fmt.Sprintf("%-15s  %-13s  %7.1f ms", q.Kid, age, q.Duration)), j.paint("", why))
}

// paint colours a text, in which nothing that a stranger sent can steer the terminal.
func (j *Journal) paint(colour, text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
	if !j.colour || colour == "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

func (j *Journal) print(columns ...string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	io.WriteString(j.out, strings.TrimRight(strings.Join(columns, "  "), " ")+"\n")
}

// recorder keeps what is answered.
type recorder struct {
	http.ResponseWriter
	status int
	body   []byte
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	r.body = append(r.body, p[:min(len(p), 32<<10-len(r.body))]...)
	return r.ResponseWriter.Write(p)
}
