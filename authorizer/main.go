package main

import (
	"bytes"
	"context"
	"io"
	"log"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/lambda"

	"zuplo-lambda-authorizer/internal/jwks"
	"zuplo-lambda-authorizer/internal/jwt"
)

func main() {
	c, err := readConfig(os.Getenv)
	if err != nil {
		for problem := range strings.SplitSeq(err.Error(), "\n") {
			slog.New(slog.NewJSONHandler(os.Stdout, nil)).Error("reading the configuration", "error", problem)
		}
		os.Exit(1)
	}
	a := newAuthorizer(c, os.Stdout, time.Now)
	a.warm(context.Background())
	log.SetOutput(dropRejections{os.Stderr})
	lambda.Start(a)
}

// dropRejections drops the line that aws-lambda-go prints about each rejection: the decision's line tells it already, and
// a flood of bad tokens would cost twice.
type dropRejections struct{ io.Writer }

func (d dropRejections) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte(`{"errorMessage":"Unauthorized"`)) {
		return len(line), nil
	}
	return d.Writer.Write(line)
}

// newAuthorizer wires the parts. Log lines go to out.
func newAuthorizer(c config, out io.Writer, now func() time.Time) *authorizer {
	log := slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: c.logLevel}))
	events := slog.New(slog.NewJSONHandler(out, nil)) // decisions and fetches, whatever LOG_LEVEL says: metrics are made of them
	if len(c.audiences) == 0 {
		log.Warn("AUDIENCE is not set: any token of the issuer is accepted, those for its other upstreams too")
	}
	client := jwks.NewClient()
	keys := make(map[string]keySource, len(c.issuers))
	sources := make(map[string]jwt.KeySource, len(c.issuers))
	for _, i := range c.issuers {
		if i.pinned != nil {
			keys[i.name] = i.pinned
		} else {
			cache := &jwks.Cache{
				URI: i.jwksURI, Client: client, TTL: c.ttl, MaxStale: c.maxStale, Now: now,
				Log: log, Fetches: events.With("issuer", i.name),
			}
			if c.table != nil {
				cache.Store = c.table.Issuer(i.name, i.jwksURI)
			}
			keys[i.name] = cache
		}
		sources[i.name] = keys[i.name]
	}
	return &authorizer{
		verifier: jwt.Verifier{
			Issuers:     sources,
			Audiences:   c.audiences,
			Algorithms:  c.algorithms,
			Leeway:      c.leeway,
			MaxTokenAge: c.maxTokenAge,
			Now:         now,
		},
		keys:           keys,
		principalClaim: c.principalClaim,
		policyExpiry:   c.policyExpiry,
		overdue:        2 * c.ttl,
		now:            now,
		decisions:      events,
	}
}

// warm asks all issuers for their keys at once, which takes as long as one fetch may: 3 s of the 10 s that Lambda allows
// for the start. An issuer that does not answer is asked again when a token needs it.
func (a *authorizer) warm(ctx context.Context) {
	var wg sync.WaitGroup
	for _, source := range a.keys {
		if cache, ok := source.(*jwks.Cache); ok {
			wg.Go(func() { _ = cache.Refresh(ctx) }) // the cache logs what went wrong
		}
	}
	wg.Wait()
}
