package jwt

import (
	"context"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// A Reason says which check refused a token. It is for logs and metrics, never for the caller.
type Reason string

const (
	Malformed   Reason = "malformed"     // not a token at all, or one with a member of the wrong type
	Algorithm   Reason = "algorithm"     // alg not accepted, or no key of that kid fits it
	KeyID       Reason = "kid"           // no kid
	Issuer      Reason = "issuer"        // iss absent or not configured
	Expired     Reason = "expired"       // exp absent or past
	NotYetValid Reason = "not_yet_valid" // nbf or iat in the future
	Audience    Reason = "audience"      // aud names none of ours
	UnknownKey  Reason = "unknown_key"   // the issuer has no key of that kid
	Signature   Reason = "signature"     // no key verifies it
	TooOld      Reason = "too_old"       // iat absent or older than the maximum age
)

// A Rejection is the verdict that the token is at fault. Every other error of Verify means that we could
// not know.
type Rejection struct{ Reason Reason }

func (r *Rejection) Error() string { return "token rejected: " + string(r.Reason) }

func reject(r Reason) error { return &Rejection{r} }

// A KeySource knows the keys of one issuer.
type KeySource interface {
	// Keys returns the keys under kid that fit alg; known is whether the issuer's set has the kid at all. An error means
	// that this could not be found out.
	Keys(ctx context.Context, kid, alg string) (fit []Key, known bool, err error)
}

// A Key reports whether signature is its own over signed.
type Key = func(signed, signature []byte) bool

// Algorithms are the signature algorithms that exist here (RFC 7518 §3.1, RFC 8037 §3.1).
var Algorithms = [...]string{"EdDSA", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"}

// CanonicalAlgorithm gives Ed25519 (RFC 9864 §2.2) its older name, EdDSA, and returns any other name as it is.
func CanonicalAlgorithm(alg string) string {
	if alg == "Ed25519" {
		return "EdDSA"
	}
	return alg
}

// A Verifier holds what tokens are measured against. It is read only, so one serves any number of goroutines.
type Verifier struct {
	Issuers     map[string]KeySource // by iss, compared byte for byte; required
	Audiences   []string             // aud must name one of them; none: aud is not checked
	Algorithms  []string             // accepted alg values, by canonical name; required
	Leeway      time.Duration        // clock difference allowed on exp, nbf and iat
	MaxTokenAge time.Duration        // 0: iat is not required; else the largest age of a token
	Now         func() time.Time     // required
}

// A Token is what Verify found out about a token, as far as it came. Alg and Issuer are set only once
// they turned out to be configured ones; Kid is the sender's text until the token is verified.
type Token struct {
	Alg, Kid, Issuer string
	Claims           Claims
	// Expires is when Verify begins to refuse this token: exp + Leeway or, if earlier, iat + MaxTokenAge +
	// Leeway; in seconds since 1970. Set once the token is verified.
	Expires float64
}

// Claims are a token's claims.
type Claims struct {
	JSON    []byte   // the payload, byte for byte as signed
	Members []Member // the same, member by member, in its order

	issuer                      string
	audience                    []string
	expiry, notBefore, issuedAt float64 // in seconds since 1970; absent: endlessly long ago
}

// Principal returns the claim of that name if it can identify a caller: a string of 1 to 256 characters
// without control characters, quotes or backslashes. Otherwise it returns the issuer.
func (c *Claims) Principal(name string) string {
	for _, m := range c.Members {
		if m.Name != name {
			continue
		}
		s, ok := text(m.Value, true)
		if n := utf8.RuneCountInString(s); ok && n >= 1 && n <= 256 &&
			!strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == '"' || r == '\\' }) {
			return s
		}
	}
	return c.issuer
}

// Verify judges the value of an Authorization header. The error is a *Rejection if the token is at fault,
// and any other one if its keys could not be had. Checks come in the order of their cost; nothing is
// asked of a KeySource for a token that a cheap check refuses.
func (v *Verifier) Verify(ctx context.Context, authorization string) (t Token, err error) {
	token, ok := bearer(authorization)
	if !ok {
		return t, reject(Malformed)
	}
	c, ok := parseCompact(token)
	if !ok {
		return t, reject(Malformed)
	}
	h, ok := parseHeader(c.header)
	if !ok {
		return t, reject(Malformed)
	}
	claims, ok := parseClaims(c.payload)
	if !ok {
		return t, reject(Malformed)
	}
	now := v.Now()

	// The header. Key material in it (jwk, jku, x5u, x5c) is never looked at: keys come from the issuer alone.
	t.Kid = h.kid
	alg := CanonicalAlgorithm(h.alg)
	if !slices.Contains(v.Algorithms, alg) {
		return t, reject(Algorithm)
	}
	t.Alg = alg
	if h.kid == "" {
		return t, reject(KeyID)
	}
	if h.critical || h.hasTyp && !isJWT(h.typ) {
		return t, reject(Malformed)
	}

	// Yet unverified: this only spares the rest for tokens that cannot pass.
	issuer, ok := v.Issuers[claims.issuer]
	if !ok {
		return t, reject(Issuer)
	}
	t.Issuer = claims.issuer
	if !before(now, claims.expiry+v.Leeway.Seconds()) {
		return t, reject(Expired)
	}

	fit, known, err := issuer.Keys(ctx, h.kid, alg)
	switch {
	case err != nil:
		return t, err
	case !known:
		return t, reject(UnknownKey)
	case len(fit) == 0:
		return t, reject(Algorithm)
	}
	signed := []byte(c.signed)
	if !slices.ContainsFunc(fit, func(k Key) bool { return k(signed, c.signature) }) {
		return t, reject(Signature)
	}

	if reason := v.checkClaims(&claims, now); reason != "" {
		return t, reject(reason)
	}
	t.Claims = claims
	t.Expires = claims.expiry + v.Leeway.Seconds()
	if v.MaxTokenAge > 0 {
		t.Expires = math.Min(t.Expires, claims.issuedAt+(v.MaxTokenAge+v.Leeway).Seconds())
	}
	return t, nil
}

// checkClaims returns why verified claims are refused at now, or nothing (RFC 7519 §4.1).
func (v *Verifier) checkClaims(c *Claims, now time.Time) Reason {
	leeway := v.Leeway.Seconds()
	switch {
	case before(now, c.notBefore-leeway):
		return NotYetValid
	case before(now, c.issuedAt-leeway):
		return NotYetValid
	case len(v.Audiences) > 0 && !slices.ContainsFunc(c.audience, func(a string) bool { return slices.Contains(v.Audiences, a) }):
		return Audience
	case v.MaxTokenAge > 0 && !before(now, c.issuedAt+v.MaxTokenAge.Seconds()+leeway):
		return TooOld
	}
	return ""
}

// isJWT reports whether typ is a media type of ours, in any case and with or without the application
// prefix (RFC 7515 §4.1.9, RFC 9068 §2.1).
func isJWT(typ string) bool {
	return slices.ContainsFunc([]string{"JWT", "application/jwt", "at+jwt", "application/at+jwt"},
		func(t string) bool { return strings.EqualFold(typ, t) })
}

func before(now time.Time, seconds float64) bool {
	return float64(now.UnixNano())/1e9 < seconds
}
