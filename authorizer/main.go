package main

import (
	"bytes"
	"context"
	"io"
	"log"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"

	"zuplo-lambda-authorizer/internal/fleet"
	"zuplo-lambda-authorizer/internal/issuer"
	"zuplo-lambda-authorizer/internal/jwt"
	"zuplo-lambda-authorizer/internal/keycache"
)

func main() {
	if os.Getenv("GOMAXPROCS") == "" && lambdacontext.MaxConcurrency() <= 1 {
		runtime.GOMAXPROCS(1) // two CPUs are visible where there is a fraction of one: handing over between them costs more than the work
	}
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
	for _, i := range c.issuers {
		if len(i.audiences) == 0 {
			log.Warn("no audience is set: any token of the issuer is accepted, those for its other upstreams too", "issuer", i.name)
		}
	}
	for _, warning := range c.rulesWarnings {
		log.Warn("RULES: " + warning)
	}
	if c.unshared != nil { // the table is help: what is wrong around it must not end the start
		log.Warn("shared key sets are not used, each environment asks the issuers itself", "error", c.unshared)
	}
	client := issuer.NewClient(false)
	keys := make(map[string]keySource, len(c.issuers))
	trusted := make(map[string]jwt.Trusted, len(c.issuers))
	for _, i := range c.issuers {
		keys[i.name] = c.keys(i, client, log, events, now)
		trusted[i.name] = jwt.Trusted{Keys: keys[i.name], Audiences: i.audiences}
	}
	return &authorizer{
		verifier: jwt.Verifier{
			Scheme:      c.scheme,
			Issuers:     trusted,
			Algorithms:  c.algorithms,
			Leeway:      c.leeway,
			MaxTokenAge: c.maxTokenAge,
			Now:         now,
		},
		keys:           keys,
		header:         c.header,
		principalClaim: c.principalClaim,
		policyExpiry:   c.policyExpiry,
		rules:          c.rules,
		rulesLog:       c.rulesLog,
		explicitDeny:   c.explicitDeny,
		overdue:        2 * c.ttl,
		now:            now,
		log:            log,
		decisions:      events,
	}
}

// keys returns an issuer's keys: pinned, or a cache before the issuer or, with a table, before the fleet.
func (c *config) keys(i issuerConfig, client *http.Client, log, events *slog.Logger, now func() time.Time) keySource {
	if i.pinned != nil {
		for _, s := range i.skipped {
			log.Warn("key skipped", "issuer", i.name, "kty", s.KeyType, "kid", s.KeyID, "why", s.Why)
		}
		return i.pinned
	}
	uri := issuer.Name(i.jwksURI)
	log = log.With("uri", uri)
	cache := &keycache.Cache{
		Name: uri, Source: issuer.Source{URI: i.jwksURI, Client: client, Now: now, Log: log},
		TTL: c.ttl, MaxStale: c.maxStale, Now: now, Rand: rand.Float64, Log: log, Fetches: events.With("issuer", i.name, "uri", uri),
	}
	if c.table != nil {
		cache.Source = &fleet.Fleet{
			Store: c.table.Issuer(i.name, i.jwksURI), Issuer: cache.Source,
			TTL: c.ttl, MaxStale: c.maxStale, Now: now, Rand: rand.Float64, Log: log,
		}
		cache.Detour, cache.Early = fleet.Detour, c.ttl/5
	}
	return cache
}

// warm asks all issuers for their keys at once, which takes as long as one fetch may: 3 s of the 10 s that Lambda allows
// for the start. An issuer that does not answer is asked again when a token needs it.
func (a *authorizer) warm(ctx context.Context) {
	var wg sync.WaitGroup
	for name, source := range a.keys {
		if cache, ok := source.(*keycache.Cache); ok {
			wg.Go(func() {
				if err := cache.Start(ctx); err != nil {
					a.log.Warn("no fresh keys at the start", "issuer", name, "error", err)
				}
			})
		}
	}
	wg.Wait()
}
