package main

import (
	"bytes"
	"context"
	"io"
	"log"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"

	"zuplo-lambda-authorizer/internal/config"
	"zuplo-lambda-authorizer/internal/issuer"
	"zuplo-lambda-authorizer/internal/keycache"
)

func main() {
	if os.Getenv("GOMAXPROCS") == "" && lambdacontext.MaxConcurrency() <= 1 {
		runtime.GOMAXPROCS(1) // two CPUs are visible where there is a fraction of one: handing over between them costs more than the work
	}
	a, err := start(context.Background(), os.Getenv, os.Stdout, time.Now)
	if err != nil {
		os.Exit(1)
	}
	log.SetOutput(dropRejections{os.Stderr})
	lambda.Start(a)
}

// start returns an authorizer as the variables say, with keys if they can be had. Each mistake in the variables is a line
// in out.
func start(ctx context.Context, getenv func(string) string, out io.Writer, now func() time.Time) (*authorizer, error) {
	c, err := config.Read(getenv)
	if err != nil {
		for problem := range strings.SplitSeq(err.Error(), "\n") {
			slog.New(slog.NewJSONHandler(out, nil)).Error("reading the configuration", "error", problem)
		}
		return nil, err
	}
	a := newAuthorizer(c, out, now)
	a.log.Info("start", "version", issuer.Version)
	a.warm(ctx)
	return a, nil
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
func newAuthorizer(c config.Config, out io.Writer, now func() time.Time) *authorizer {
	log := slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: c.LogLevel}))
	events := slog.New(slog.NewJSONHandler(out, nil)) // decisions and fetches, whatever LOG_LEVEL says: metrics are made of them
	keys := c.Keys(issuer.NewClient(false), log, events, now)
	return &authorizer{config: c, keys: keys, verifier: c.Verifier(keys, now), now: now, log: log, decisions: events}
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
