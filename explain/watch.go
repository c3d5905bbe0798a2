package main

import (
	"context"
	"crypto/tls"
	"net/http"
	"sync/atomic"
	"time"

	"zuplo-lambda-authorizer/internal/jwks"
	"zuplo-lambda-authorizer/internal/keycache"
)

// A watch is a source that keeps what its last search came to.
type watch struct {
	keycache.Source
	last atomic.Pointer[search]
}

// A search is one of a watch's. The zero search has not been made.
type search struct {
	keycache.Found
	err     error
	took    time.Duration
	reply   reply
	usable  []jwks.Usable
	skipped []jwks.Skipped // also where none is usable, so that there is no set
}

// A reply is what an issuer's answer said beside its body.
type reply struct {
	tls   string    // version; empty: none
	until time.Time // the end of the certificate's validity
	date  time.Time // by the issuer's clock; zero: it sent none
}

type replyKey struct{}

func (w *watch) Find(ctx context.Context, want keycache.Want) (keycache.Found, error) {
	start := time.Now()
	var s search
	s.Found, s.err = w.Source.Find(context.WithValue(ctx, replyKey{}, &s.reply), want)
	s.took = time.Since(start)
	_, s.skipped, _ = jwks.Parse(s.Text)
	if s.Set != nil {
		s.usable = s.Set.Usable()
	}
	w.last.Store(&s)
	return s.Found, s.err
}

// search is the last one, if there was one.
func (w *watch) search() search {
	if w != nil {
		if s := w.last.Load(); s != nil {
			return *s
		}
	}
	return search{}
}

// ahead is how far the issuer's clock is ahead of this machine's, if that is known and more than the few seconds that a
// request and a Date of whole seconds may hide.
func (s search) ahead() time.Duration {
	if s.reply.date.IsZero() {
		return 0
	}
	if d := s.reply.date.Sub(s.Asked); d.Abs() > s.took+5*time.Second {
		return d.Round(time.Second)
	}
	return 0
}

// An observer notes replies in the contexts that ask for it.
type observer struct{ http.RoundTripper }

func (o observer) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := o.RoundTripper.RoundTrip(r)
	if into, ok := r.Context().Value(replyKey{}).(*reply); ok && err == nil {
		into.date, _ = http.ParseTime(resp.Header.Get("Date"))
		if resp.TLS != nil {
			into.tls, into.until = tls.VersionName(resp.TLS.Version), resp.TLS.PeerCertificates[0].NotAfter
		}
	}
	return resp, err
}
