package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"zuplo-lambda-authorizer/internal/fleet"
	"zuplo-lambda-authorizer/internal/issuer"
	"zuplo-lambda-authorizer/internal/jwks"
	"zuplo-lambda-authorizer/internal/jwkstable"
	"zuplo-lambda-authorizer/internal/jwt"
)

// A config is the authorizer's configuration. All of it comes from the environment, once.
type config struct {
	issuers        []issuerConfig
	audiences      []string // none: aud is not checked
	algorithms     []string
	leeway         time.Duration
	maxTokenAge    time.Duration // 0: not checked
	principalClaim string
	ttl, maxStale  time.Duration
	policyExpiry   bool
	table          *jwkstable.Table // nil: keys are not shared
	unshared       error            // why they are not, although a table is named
	logLevel       slog.Level
}

// An issuerConfig is one value of iss and where its keys are: fetched from jwksURI, or pinned.
type issuerConfig struct {
	name, jwksURI string
	pinned        *jwks.Pinned
	skipped       []jwks.Skipped // of the pinned set
}

// readConfig reads the environment. Its error names every variable that is wrong, for a half-configured authorizer
// must not answer. An empty variable counts as unset.
func readConfig(getenv func(string) string) (config, error) {
	r := reader{getenv: getenv}
	c := config{
		audiences:      r.list("AUDIENCE", "", nil),
		algorithms:     r.list("ALGORITHMS", strings.Join(jwt.Algorithms[:], ","), checkAlgorithm),
		leeway:         r.duration("LEEWAY", "30s", 0, 5*time.Minute),
		maxTokenAge:    r.duration("MAX_TOKEN_AGE", "0s", time.Second, 876000*time.Hour),
		principalClaim: r.text("PRINCIPAL_CLAIM", "sub"),
		ttl:            r.duration("JWKS_TTL", "5m", time.Second, 24*time.Hour),
		policyExpiry:   r.choice("POLICY_EXPIRY", "on", "off") == "on",
	}
	least := c.ttl
	if getenv("JWKS_TABLE") != "" { // renewing keys may have to wait for the fleet
		least += fleet.Reserve
	}
	c.maxStale = r.duration("JWKS_MAX_STALE", max(24*time.Hour, least).String(), least, 7*24*time.Hour)
	for i, alg := range c.algorithms {
		c.algorithms[i] = jwt.CanonicalAlgorithm(alg)
	}
	_ = c.logLevel.UnmarshalText([]byte(r.choice("LOG_LEVEL", "INFO", "DEBUG", "WARN", "ERROR"))) // all are names of slog's

	names := r.list("ISSUER", "", checkIssuer)
	if getenv("ISSUER") == "" {
		r.wrong("ISSUER", errors.New("required: the issuer's URL, as https://DEPLOYMENT.zuplo.app/__zuplo/issuer"))
	}
	uri, set := getenv("JWKS_URI"), getenv("JWKS")
	switch {
	case uri != "" && len(names) > 1:
		r.wrong("JWKS_URI", errors.New("only with a single issuer"))
	case uri != "":
		if err := issuer.CheckURL(uri); err != nil {
			r.wrong("JWKS_URI", err)
		}
	}
	var pinned *jwks.Pinned
	var skipped []jwks.Skipped
	if set != "" {
		var err error
		if pinned, skipped, err = jwks.NewPinned([]byte(set)); err != nil {
			r.wrong("JWKS", err)
		}
		if len(names) > 1 {
			r.wrong("JWKS", errors.New("only with a single issuer"))
		}
		if uri != "" {
			r.wrong("JWKS", errors.New("not together with JWKS_URI"))
		}
	}
	if name := getenv("JWKS_TABLE"); name != "" {
		if err := jwkstable.CheckName(name); err != nil {
			r.wrong("JWKS_TABLE", err)
		} else {
			c.table, c.unshared = jwkstable.New(getenv, name)
		}
	}
	for _, name := range names {
		at := uri
		if at == "" {
			at = strings.TrimSuffix(name, "/") + "/.well-known/jwks.json"
		}
		c.issuers = append(c.issuers, issuerConfig{name, at, pinned, skipped})
	}
	return c, errors.Join(r.errs...)
}

// A reader reads variables and collects what is wrong with them.
type reader struct {
	getenv func(string) string
	errs   []error
}

func (r *reader) wrong(name string, err error) {
	r.errs = append(r.errs, fmt.Errorf("%s: %w", name, err))
}

func (r *reader) text(name, byDefault string) string {
	if v := r.getenv(name); v != "" {
		return v
	}
	return byDefault
}

// choice returns the variable if it is one of the values, the first of which is the default.
func (r *reader) choice(name string, values ...string) string {
	v := r.text(name, values[0])
	if !slices.Contains(values, v) {
		r.wrong(name, fmt.Errorf("one of %s", strings.Join(values, ", ")))
	}
	return v
}

// duration returns the variable if it lies within low and high. The default need not.
func (r *reader) duration(name, byDefault string, low, high time.Duration) time.Duration {
	d, err := time.ParseDuration(r.text(name, byDefault))
	switch {
	case err != nil:
		r.wrong(name, errors.New("not a duration such as 30s, 5m or 24h"))
	case r.getenv(name) != "" && (d < low || d > high):
		r.wrong(name, fmt.Errorf("%v is not within %v to %v", d, low, high))
	}
	return d
}

// list returns the comma-separated items of a variable. check may be nil. What is wrong is told by the item's number,
// from 1, and not by its text, for a secret may have ended up there.
func (r *reader) list(name, byDefault string, check func(string) error) (items []string) {
	v := r.text(name, byDefault)
	if v == "" {
		return nil
	}
	for item := range strings.SplitSeq(v, ",") {
		item = strings.TrimSpace(item)
		number := len(items) + 1
		switch {
		case item == "":
			r.wrong(name, fmt.Errorf("item %d is empty", number))
		case slices.Contains(items, item):
			r.wrong(name, fmt.Errorf("item %d stands twice in the list", number))
		case check != nil:
			if err := check(item); err != nil {
				r.wrong(name, fmt.Errorf("item %d: %w", number, err))
			}
		}
		items = append(items, item)
	}
	return items
}

func checkAlgorithm(alg string) error {
	if !slices.Contains(jwt.Algorithms[:], jwt.CanonicalAlgorithm(alg)) {
		return fmt.Errorf("not one of %s", strings.Join(jwt.Algorithms[:], ", "))
	}
	return nil
}

// checkIssuer refuses what could not be a principal, too, as issuer.CheckURL does: the issuer is one where the token names none.
func checkIssuer(name string) error {
	if strings.Contains(name, "?") {
		return errors.New("it holds a query")
	}
	if u, err := url.Parse(name); err == nil && strings.HasSuffix(strings.ToLower(u.Host), ".zuplo.app") && u.Host != strings.ToLower(u.Host) {
		return errors.New("its host has a capital, as no deployment of Zuplo's does: DEPLOYMENT stands for the name of your own")
	}
	return issuer.CheckURL(name)
}
