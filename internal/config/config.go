// Package config reads the authorizer's variables, once, and builds from them what judges and answers, so that all who judge
// tokens start from the same.
package config

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"zuplo-lambda-authorizer/internal/fleet"
	"zuplo-lambda-authorizer/internal/issuer"
	"zuplo-lambda-authorizer/internal/jwks"
	"zuplo-lambda-authorizer/internal/jwkstable"
	"zuplo-lambda-authorizer/internal/jwt"
	"zuplo-lambda-authorizer/internal/rules"
)

// A Config is the authorizer's configuration. All of it comes from the environment, once.
type Config struct {
	Issuers        []Issuer
	Algorithms     []string
	Leeway         time.Duration
	MaxTokenAge    time.Duration // 0: not checked
	PrincipalClaim string
	Header, Scheme string     // of the token; no scheme: the header holds the bare token
	Rules          *rules.Set // nil: a good token may go everywhere
	RulesWarnings  []string
	RulesLog       bool // rules are told of in the log, and not enforced
	ExplicitDeny   bool
	TTL, MaxStale  time.Duration
	PolicyExpiry   bool
	Table          *jwkstable.Table // nil: keys are not shared
	Unshared       error            // why they are not, although a table is named
	LogLevel       slog.Level
}

// An Issuer is one value of iss and where its keys are: fetched from JWKSURI, or pinned.
type Issuer struct {
	Name, JWKSURI string
	Audiences     []string // none: aud is not checked
	Pinned        *jwks.Pinned
	Skipped       []jwks.Skipped // of the pinned set
}

// Read reads the environment. Its error names every variable that is wrong, for a half-configured authorizer
// must not answer. An empty variable counts as unset.
func Read(getenv func(string) string) (Config, error) {
	r := reader{getenv: getenv}
	c := Config{
		Algorithms:     r.list("ALGORITHMS", strings.Join(jwt.Algorithms[:], ","), checkAlgorithm),
		Leeway:         r.duration("LEEWAY", "30s", 0, 5*time.Minute),
		MaxTokenAge:    r.duration("MAX_TOKEN_AGE", "0s", time.Second, 876000*time.Hour),
		PrincipalClaim: r.text("PRINCIPAL_CLAIM", "sub"),
		TTL:            r.duration("JWKS_TTL", "5m", time.Second, 24*time.Hour),
		PolicyExpiry:   r.choice("POLICY_EXPIRY", "on", "off") == "on",
		Header:         r.token("TOKEN_HEADER", "Authorization"),
		Scheme:         r.token("TOKEN_PREFIX", "Bearer"),
		RulesLog:       r.choice("RULES_MODE", "enforce", "log") == "log",
		ExplicitDeny:   r.choice("EXPLICIT_DENY", "off", "on") == "on",
	}
	if strings.EqualFold(c.Scheme, "none") {
		c.Scheme = ""
	}
	if text := getenv("RULES"); text != "" {
		var err error
		c.Rules, c.RulesWarnings, err = rules.Compile(text)
		r.wrong("RULES", err)
	}
	least := c.TTL
	if getenv("JWKS_TABLE") != "" { // renewing keys may have to wait for the fleet
		least += fleet.Reserve
	}
	c.MaxStale = r.duration("JWKS_MAX_STALE", max(24*time.Hour, least).String(), least, 7*24*time.Hour)
	for i, alg := range c.Algorithms {
		c.Algorithms[i] = jwt.CanonicalAlgorithm(alg)
	}
	_ = c.LogLevel.UnmarshalText([]byte(r.choice("LOG_LEVEL", "INFO", "DEBUG", "WARN", "ERROR"))) // all are names of slog's

	if getenv("ISSUERS") != "" {
		c.Issuers = r.issuers()
	} else {
		c.Issuers = r.issuer()
	}
	if name := getenv("JWKS_TABLE"); name != "" {
		if err := jwkstable.CheckName(name); err != nil {
			r.wrong("JWKS_TABLE", err)
		} else {
			c.Table, c.Unshared = jwkstable.New(getenv, name)
		}
	}
	return c, errors.Join(r.errs...)
}

// A reader reads variables and collects what is wrong with them.
type reader struct {
	getenv func(string) string
	errs   []error
}

// wrong notes a mistake, each line of it, if there is one.
func (r *reader) wrong(name string, err error) {
	if err == nil {
		return
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		r.errs = append(r.errs, fmt.Errorf("%s: %s", name, line))
	}
}

// token returns the variable if it is a token of HTTP's (RFC 9110 §5.6.2), as the name of a header or of a scheme is.
func (r *reader) token(name, byDefault string) string {
	v := r.text(name, byDefault)
	if strings.Trim(v, tokenCharacters) != "" {
		r.wrong(name, errors.New("not a word of letters, digits and - (RFC 9110 §5.6.2)"))
	}
	return v
}

const tokenCharacters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.!#$%&'*+^`|~"

// issuer reads ISSUER and what goes with it: each has the same audiences.
func (r *reader) issuer() (all []Issuer) {
	names, audiences := r.list("ISSUER", "", checkIssuer), r.list("AUDIENCE", "", nil)
	if r.getenv("ISSUER") == "" {
		r.wrong("ISSUER", errors.New("required, or ISSUERS: the issuer's URL, as https://DEPLOYMENT.zuplo.app/__zuplo/issuer"))
	}
	for _, name := range []string{"JWKS_URI", "JWKS"} {
		if r.getenv(name) != "" && len(names) > 1 {
			r.wrong(name, errors.New("only with a single issuer; ISSUERS has one for each"))
		}
	}
	if r.getenv("JWKS_URI") != "" && r.getenv("JWKS") != "" {
		r.wrong("JWKS", errors.New("not together with JWKS_URI"))
	}
	for _, name := range names {
		i, uri, set := newIssuer(name, r.getenv("JWKS_URI"), r.getenv("JWKS"))
		i.Audiences = audiences
		if len(all) == 0 {
			r.wrong("JWKS_URI", uri)
			r.wrong("JWKS", set)
		}
		all = append(all, i)
	}
	return all
}

// newIssuer makes an issuer of its name and of where its keys are: at uri, in set, or where issuers put them. It returns what is
// wrong with either.
func newIssuer(name, uri, set string) (i Issuer, wrongURI, wrongSet error) {
	i.Name, i.JWKSURI = name, cmp.Or(uri, strings.TrimSuffix(name, "/")+"/.well-known/jwks.json")
	if uri != "" {
		wrongURI = issuer.CheckURL(uri)
	}
	if set != "" {
		i.Pinned, i.Skipped, wrongSet = jwks.NewPinned([]byte(set))
	}
	return i, wrongURI, wrongSet
}

// issuers reads ISSUERS, JSON: each has audiences of its own. What is wrong is told by the issuer's number, from 1, and the
// member.
func (r *reader) issuers() (all []Issuer) {
	for _, other := range []string{"ISSUER", "JWKS_URI", "JWKS", "AUDIENCE"} {
		if r.getenv(other) != "" {
			r.wrong("ISSUERS", fmt.Errorf("not together with %s", other))
		}
	}
	text := r.getenv("ISSUERS")
	if !jsontext.Value(text).IsValid() {
		r.wrong("ISSUERS", errors.New("not strict JSON (a syntax error, invalid UTF-8 or a duplicate member)"))
		return nil
	}
	var raws []map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &raws) != nil || len(raws) == 0 {
		r.wrong("ISSUERS", errors.New(`not a list of issuers, as [{"issuer": "https://…", "audiences": ["…"]}]`))
		return nil
	}
	for n, raw := range raws {
		wrong := func(member string, err error) {
			if err != nil {
				r.wrong("ISSUERS", fmt.Errorf("issuer %d: %s: %w", n+1, member, err))
			}
		}
		var name, uri string
		var audiences []string
		for _, member := range slices.Sorted(maps.Keys(raw)) {
			switch value := raw[member]; member {
			case "issuer":
				if json.Unmarshal(value, &name) != nil || name == "" {
					wrong(member, errors.New("not a URL in a string"))
				}
			case "jwks_uri":
				if json.Unmarshal(value, &uri) != nil || uri == "" {
					wrong(member, errors.New("not a URL in a string"))
				}
			case "audiences":
				if json.Unmarshal(value, &audiences) != nil || len(audiences) == 0 || slices.Contains(audiences, "") {
					wrong(member, errors.New("not a list with at least one string, none of them empty"))
				} else if len(slices.Compact(slices.Sorted(slices.Values(audiences)))) < len(audiences) {
					wrong(member, errors.New("one stands twice in the list"))
				}
			case "jwks":
			default:
				wrong("a member", errors.New("none of issuer, jwks_uri, jwks and audiences"))
			}
		}
		switch {
		case raw["issuer"] == nil:
			wrong("issuer", errors.New("required"))
		case name != "":
			wrong("issuer", checkIssuer(name))
		}
		if slices.ContainsFunc(all, func(other Issuer) bool { return name != "" && other.Name == name }) {
			wrong("issuer", errors.New("stands twice in the list"))
		}
		i, wrongURI, wrongSet := newIssuer(name, uri, string(raw["jwks"]))
		wrong("jwks_uri", wrongURI)
		wrong("jwks", wrongSet)
		if uri != "" && raw["jwks"] != nil {
			wrong("jwks", errors.New("not together with jwks_uri"))
		}
		i.Audiences = audiences
		all = append(all, i)
	}
	return all
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
// from 1, and not by its text, because a secret may have ended up there.
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
	if strings.Contains(name, "*") {
		return errors.New("it holds a wildcard, but an issuer is one exact string: *.zuplo.app would trust every customer of the gateway")
	}
	if u, err := url.Parse(name); err == nil && strings.HasSuffix(strings.ToLower(u.Host), ".zuplo.app") && u.Host != strings.ToLower(u.Host) {
		return errors.New("its host has a capital, as no deployment of Zuplo's does: DEPLOYMENT stands for the name of your own")
	}
	return issuer.CheckURL(name)
}
