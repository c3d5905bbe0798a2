// Package keytest has what tests of key caches have in common: an issuer that does as it is told, and a cache before it
// with a wall clock that can be set apart from the clock that timers run by. It works inside a bubble of
// testing/synctest.
package keytest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"zuplo-lambda-authorizer/internal/issuer"
	"zuplo-lambda-authorizer/internal/keycache"
)

// URI is where the issuer's keys are.
const URI = "https://issuer.example/.well-known/jwks.json"

// An Issuer is an http.RoundTripper that answers as its mode says: "503", "reset", "hang", "empty", or the kids that it publishes.
type Issuer struct {
	mu    sync.Mutex
	is    Behaviour
	asked []time.Time
}

// A Behaviour is what an Issuer does to requests that come from now on.
type Behaviour struct {
	Mode  string
	Delay time.Duration // before it answers
	Deaf  bool          // it answers even when nobody waits any more
	Slow  time.Duration // how long it takes to notice that nobody waits any more
	Cut   chan struct{} // closed: requests that wait end with a reset
}

// Set changes the mode.
func (i *Issuer) Set(mode string) { i.Be(func(b *Behaviour) { b.Mode = mode }) }

// Be changes what it does.
func (i *Issuer) Be(change func(*Behaviour)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change(&i.is)
}

// Requests is how many there were.
func (i *Issuer) Requests() int { return len(i.Asked()) }

// Asked is when they came, by the clock of timers.
func (i *Issuer) Asked() []time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked
}

// RoundTrip answers a request.
func (i *Issuer) RoundTrip(r *http.Request) (*http.Response, error) {
	i.mu.Lock()
	i.asked = append(i.asked, time.Now())
	is := i.is
	i.mu.Unlock()
	done := r.Context().Done()
	if is.Deaf {
		done = nil
	}
	wait := time.After(is.Delay)
	if is.Mode == "hang" {
		wait = nil
	}
	select {
	case <-wait:
	case <-is.Cut:
		return nil, errors.New("connection reset")
	case <-done:
		time.Sleep(is.Slow)
		return nil, r.Context().Err()
	}
	status, body := http.StatusOK, ""
	switch is.Mode {
	case "503":
		status = http.StatusServiceUnavailable
	case "reset":
		return nil, errors.New("connection reset")
	case "empty":
		body = `{"keys":[]}`
	default:
		body = string(Text(strings.Fields(is.Mode)...))
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

// Text is the key set with those kids, as an Issuer publishes it.
func Text(kids ...string) []byte {
	var keys []string
	for _, kid := range kids {
		x := base64.RawURLEncoding.EncodeToString(public)
		keys = append(keys, fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","kid":%q,"x":%q}`, kid, x))
	}
	return []byte(`{"keys":[` + strings.Join(keys, ",") + `]}`)
}

var public = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public().(ed25519.PublicKey)

// A World is a cache and its issuer.
type World struct {
	*keycache.Cache
	Issuer *Issuer
	step   atomic.Int64 // what the wall clock was set forward by
	log    lines
}

// New returns a World whose issuer answers as mode says. Nothing in it is random.
func New(mode string) *World { return Beside(&Issuer{is: Behaviour{Mode: mode}}) }

// Beside returns a World whose cache asks that issuer.
func Beside(i *Issuer) *World {
	w := &World{Issuer: i}
	log := slog.New(slog.NewTextHandler(&w.log, nil)).With("uri", URI)
	w.Cache = &keycache.Cache{
		Name: URI, TTL: 5 * time.Minute, MaxStale: 24 * time.Hour,
		Now:  func() time.Time { return time.Now().Add(time.Duration(w.step.Load())) },
		Rand: func() float64 { return 0 }, Log: log, Fetches: log,
	}
	w.Source = issuer.Source{URI: URI, Client: &http.Client{Transport: i}, Now: w.Now, Log: log}
	return w
}

// Step sets the wall clock forward, as a freeze does, or back.
func (w *World) Step(d time.Duration) { w.step.Add(int64(d)) }

// Lines is the log so far.
func (w *World) Lines() string {
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	return w.log.text.String()
}

// Ask says what comes of a kid: "key", "unknown" or "fault".
func (w *World) Ask(ctx context.Context, kid string) string {
	fit, known, err := w.Keys(ctx, kid, "EdDSA")
	switch {
	case err != nil && (known || len(fit) > 0):
		return "fault and an answer"
	case err != nil && !strings.Contains(err.Error(), URI):
		return "fault without the URI: " + err.Error()
	case err != nil:
		return "fault"
	case !known && len(fit) > 0:
		return "unknown and a key"
	case !known:
		return "unknown"
	case len(fit) == 0:
		return "known without a key"
	}
	return "key"
}

type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}
