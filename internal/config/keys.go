package config

import (
	"log/slog"
	"math/rand/v2"
	"net/http"
	"time"

	"zuplo-lambda-authorizer/internal/fleet"
	"zuplo-lambda-authorizer/internal/issuer"
	"zuplo-lambda-authorizer/internal/jwt"
	"zuplo-lambda-authorizer/internal/keycache"
)

// A KeySource is an issuer's keys: a *jwks.Pinned or a *keycache.Cache.
type KeySource interface {
	jwt.KeySource
	Age() (age time.Duration, ok bool)
}

// Keys are the keys of each issuer, by its name, fetched by client. What is wrong without being a mistake is warned of in log; events
// gets the lines that metrics are made of, about fetches and the table.
func (c *Config) Keys(client *http.Client, log, events *slog.Logger, now func() time.Time) map[string]KeySource {
	for _, i := range c.Issuers {
		if len(i.Audiences) == 0 {
			log.Warn("no audience is set: any token of the issuer is accepted, those for its other upstreams too", "issuer", i.Name)
		}
	}
	for _, warning := range c.RulesWarnings {
		log.Warn("RULES: " + warning)
	}
	if c.Unshared != nil { // the table is an optimisation: what is wrong around it must not end the start
		log.Warn("shared key sets are not used, each environment asks the issuers itself", "error", c.Unshared)
	}
	keys := make(map[string]KeySource, len(c.Issuers))
	for _, i := range c.Issuers {
		keys[i.Name] = c.keys(i, client, log, events, now)
	}
	return keys
}

// keys returns an issuer's keys: pinned, or a cache before the issuer or, with a table, before the fleet.
func (c *Config) keys(i Issuer, client *http.Client, log, events *slog.Logger, now func() time.Time) KeySource {
	if i.Pinned != nil {
		for _, s := range i.Skipped {
			log.Warn("key skipped", "issuer", i.Name, "kty", s.KeyType, "kid", s.KeyID, "why", s.Why)
		}
		return i.Pinned
	}
	uri := issuer.Name(i.JWKSURI)
	log, events = log.With("uri", uri), events.With("issuer", i.Name, "uri", uri)
	cache := &keycache.Cache{
		Name: uri, Source: issuer.Source{URI: i.JWKSURI, Client: client, Now: now, Log: log},
		TTL: c.TTL, MaxStale: c.MaxStale, Now: now, Rand: rand.Float64, Log: log,
		Fetches: events.With("ttl_s", c.TTL.Seconds(), "max_stale_s", c.MaxStale.Seconds()), // lines of a graph, which knows no durations
	}
	if c.Table != nil {
		cache.Source = &fleet.Fleet{
			Store: c.Table.Issuer(i.Name, i.JWKSURI), Issuer: cache.Source,
			TTL: c.TTL, MaxStale: c.MaxStale, Now: now, Rand: rand.Float64, Log: log, Events: events,
		}
		cache.Detour, cache.Early = fleet.Detour, c.TTL/5
	}
	return cache
}

// Verifier measures tokens against the configuration.
func (c *Config) Verifier(keys map[string]KeySource, now func() time.Time) jwt.Verifier {
	trusted := make(map[string]jwt.Trusted, len(c.Issuers))
	for _, i := range c.Issuers {
		trusted[i.Name] = jwt.Trusted{Keys: keys[i.Name], Audiences: i.Audiences}
	}
	return jwt.Verifier{Scheme: c.Scheme, Issuers: trusted, Algorithms: c.Algorithms, Leeway: c.Leeway, MaxTokenAge: c.MaxTokenAge, Now: now}
}
