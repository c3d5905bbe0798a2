package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"zuplo-lambda-authorizer/internal/config"
	"zuplo-lambda-authorizer/internal/issuer"
	"zuplo-lambda-authorizer/internal/keycache"
)

// issuers looks at the configured issuers, without a token.
func (e *explainer) issuers(ctx context.Context) {
	var wg sync.WaitGroup
	discovered := make([]check, len(e.config.Issuers))
	for n, i := range e.config.Issuers {
		if cache, ok := e.keys[i.Name].(*keycache.Cache); ok {
			wg.Go(func() { _ = cache.Start(ctx) }) // the watch keeps the error
			wg.Go(func() { discovered[n] = discover(ctx, i) })
		}
	}
	wg.Wait()
	for n, i := range e.config.Issuers {
		known := true
		if w := e.watched[i.Name]; w != nil {
			reach := w.search().reach(i)
			e.note(reach, fault)
			e.note(discovered[n], reject)
			known = reach.OK
		}
		if known {
			e.note(e.fitting(i), reject)
		}
		e.list(i)
	}
	switch e.Verdict {
	case "":
		e.Verdict, e.Status = allow, 200
		e.Meaning = []string{"Tokens of these issuers can be verified."}
	case reject:
		e.Status, e.Meaning = 401, []string{"Tokens of an issuer will be refused: callers see 401, or 403 on an HTTP API."}
	default:
		e.Status, e.Meaning = 500, []string{"Without keys the authorizer answers with an error: callers see 500."}
	}
}

// note adds a check; if it was not passed, the worst verdict of all counts.
func (e *explainer) note(c check, otherwise verdict) {
	if c.Check == "" {
		return
	}
	e.Checks = append(e.Checks, c)
	if !c.OK && e.Verdict != fault {
		e.Verdict = otherwise
	}
}

// reach says whether keys came, and how.
func (s search) reach(i config.Issuer) check {
	c := check{Check: "reachable", OK: s.err == nil, Expected: "keys within 3 s"}
	secure := "no TLS"
	if s.reply.tls != "" {
		secure = s.reply.tls + ", certificate until " + moment(s.reply.until)
	}
	c.Found = fmt.Sprintf("%s: %d bytes in %v, %s", show(issuer.Name(i.JWKSURI)), len(s.Text), s.took.Round(time.Millisecond), secure)
	if s.err != nil {
		c.Found = fmt.Sprintf("%s: %s, after %v", show(issuer.Name(i.JWKSURI)), show(s.err.Error()), s.took.Round(time.Millisecond))
		c.Hint = "curl that URL from here; a function without a VPC reaches whatever the internet does, one in a VPC needs a NAT gateway"
	}
	if d := s.ahead(); d != 0 {
		c.Hint = strings.TrimPrefix(c.Hint+fmt.Sprintf("; the issuer's clock differs by %v from this machine's", d), "; ")
	}
	return c
}

// fitting says whether the issuer has keys for the algorithms that are accepted.
func (e *explainer) fitting(i config.Issuer) check {
	usable, skipped := e.entries(i)
	c := check{Check: "keys", Expected: "keys for one of " + strings.Join(e.config.Algorithms, ", ")}
	var signs []string
	for _, k := range usable {
		signs = append(signs, k.Algorithms...)
	}
	signs = slices.Compact(slices.Sorted(slices.Values(signs)))
	c.OK = slices.ContainsFunc(signs, func(alg string) bool { return slices.Contains(e.config.Algorithms, alg) })
	from := "published"
	if i.Pinned != nil {
		from = "pinned, none is fetched"
	}
	c.Found = fmt.Sprintf("%s: %d usable, %d skipped (%s), for %s", show(i.Name), len(usable), len(skipped), from, orDash(strings.Join(signs, ", ")))
	switch {
	case len(usable) == 0:
		c.Hint = "an empty key set refuses every token with 500"
	case !c.OK:
		c.Hint = "ALGORITHMS leaves out what the issuer's keys are for: every token would be refused"
	}
	return c
}

// discover compares the issuer's discovery document (OpenID Connect Discovery 1.0 §3), if it has one, with the configuration.
func discover(ctx context.Context, i config.Issuer) check {
	uri := strings.TrimSuffix(i.Name, "/") + "/.well-known/openid-configuration"
	c := check{Check: "discovery", OK: true, Expected: "issuer " + show(i.Name) + ", jwks_uri " + show(issuer.Name(i.JWKSURI))}
	ctx, cancel := context.WithTimeout(ctx, keycache.FetchTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, uri, nil)
	if err != nil {
		return check{} // the configuration has checked the URL
	}
	r.Header.Set("User-Agent", issuer.UserAgent)
	resp, err := issuer.NewClient(false).Do(r)
	if err != nil {
		c.Found = show(uri) + ": no answer, so it says nothing"
		return c
	}
	defer resp.Body.Close()
	var document struct {
		Issuer string `json:"issuer"`
		URI    string `json:"jwks_uri"`
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil || resp.StatusCode != http.StatusOK || json.Unmarshal(text, &document) != nil {
		c.Found = fmt.Sprintf("%s: none (status %d)", show(uri), resp.StatusCode)
		return c
	}
	c.Found = "issuer " + show(document.Issuer) + ", jwks_uri " + show(issuer.Name(document.URI))
	switch {
	case document.Issuer != i.Name:
		c.OK, c.Hint = false, "the issuer calls itself so, and writes that into iss: ISSUER must be exactly that, trailing slash included"
	case document.URI != i.JWKSURI:
		c.OK, c.Hint = false, "its keys are elsewhere: set JWKS_URI to that, or leave JWKS_URI unset if it points to old keys"
	}
	return c
}
