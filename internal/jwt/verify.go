package jwt

import (
	"context"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// A Reason says which check refused a token. It is for logs and metrics, never for the caller.
type Reason string

const (
	Malformed   Reason = "malformed"     // not a token at all, or one with a member of the wrong type
	Algorithm   Reason = "algorithm"     // alg not accepted
	KeyID       Reason = "kid"           // no kid
	Issuer      Reason = "issuer"        // iss absent or not configured
	Expired     Reason = "expired"       // exp absent or past
	NotYetValid Reason = "not_yet_valid" // nbf or iat in the future
	Audience    Reason = "audience"      // aud names none of ours
	UnknownKey  Reason = "unknown_key"   // the issuer has no key of that kid
	UnfitKey    Reason = "key"           // it has, but none that can be used for this alg
	Signature   Reason = "signature"     // no key verifies it
	TooOld      Reason = "too_old"       // iat absent or older than the maximum age
)

// A Detail says more about a Reason. It is one of these, so that nothing of the caller's gets into a log with it.
type Detail string

const (
	NoDetail Detail = ""

	// of Malformed
	Size Detail = "size" // longer than 8 KiB
	Form Detail = "form" // not a Bearer token in three parts of base64url
	JSON Detail = "json" // header or payload is not a JSON object, or not a strict one
	Type Detail = "type" // a member has the wrong type
	Crit Detail = "crit" // crit or b64 in the header
	Typ  Detail = "typ"  // typ is not JWT or at+jwt

	// of Issuer and Audience
	Absent        Detail = "absent"         // or empty
	TrailingSlash Detail = "trailing_slash" // it, or the lack of one, is all that differs from one of ours
	Case          Detail = "case"           // all that differs, except perhaps a trailing slash
)

// A Rejection is the verdict that the token is at fault. Every other error of Verify means that we could
// not know.
type Rejection struct {
	Reason Reason
	Detail Detail
}

func (r *Rejection) Error() string {
	if r.Detail == NoDetail {
		return "token rejected: " + string(r.Reason)
	}
	return "token rejected: " + string(r.Reason) + ", " + string(r.Detail)
}

func reject(r Reason, d Detail) error { return &Rejection{r, d} }

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
	Scheme      string             // before the token, such as Bearer, in any case; empty: there is none
	Issuers     map[string]Trusted // by iss, which must match exactly; required
	Algorithms  []string           // accepted alg values, by canonical name; required
	Leeway      time.Duration      // clock difference allowed on exp, nbf and iat
	MaxTokenAge time.Duration      // 0: iat is not required; else the largest age of a token
	Now         func() time.Time   // required
}

// A Trusted is an issuer whose tokens are taken.
type Trusted struct {
	Keys      KeySource // required
	Audiences []string  // aud must name one of them; none: aud is not checked
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
	JSON    []byte  // the payload, byte for byte as signed
	Encoded string  // the same in base64url, as it stands in the token
	Members Members // the same, member by member, in its order

	issuer                      string
	audience                    []string
	expiry, notBefore, issuedAt float64 // in seconds since 1970; absent: endlessly long ago
}

// Principal returns the claim of that name if it can identify a caller: a string of 1 to 256 characters
// without control characters, quotes or backslashes. Otherwise it returns the issuer.
func (c *Claims) Principal(name string) string {
	s, ok := text(c.Find(name), true)
	if n := utf8.RuneCountInString(s); ok && n >= 1 && n <= 256 &&
		!strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == '"' || r == '\\' }) {
		return s
	}
	return c.issuer
}

// Find returns the value of the claim of that name, nil if there is none.
func (c *Claims) Find(name string) jsontext.Value { return c.Members.Find(name) }

// Verify judges the value of the header that carries the token. The error is a *Rejection if the token is at fault,
// and any other one if its keys could not be had. Checks come in the order of their cost; nothing is
// asked of a KeySource for a token that a cheap check refuses.
func (v *Verifier) Verify(ctx context.Context, value string) (Token, error) {
	e := examination{Verifier: v, value: value, now: v.Now()}
	for _, c := range checks {
		if err := c.pass(&e, ctx); err != nil {
			return e.token, err
		}
	}
	return e.verified(), nil
}

// An Examination is what all checks say of a token, also those behind one that refused it.
type Examination struct {
	Findings       []Finding // in Verify's order; without checks that those before left nothing to check
	Header, Claims Members   // as far as they could be read, and whether verified or not
	Token          Token     // as from Verify
}

// A Finding is what one check says: nothing, or the error that Verify would return if it came so far.
type Finding struct {
	Check string
	Err   error
}

// Err is the error that Verify returns.
func (e *Examination) Err() error {
	for _, f := range e.Findings {
		if f.Err != nil {
			return f.Err
		}
	}
	return nil
}

// Examine judges a token as Verify does, but goes on where that stops.
func (v *Verifier) Examine(ctx context.Context, value string) (all Examination) {
	e := examination{Verifier: v, value: value, now: v.Now()}
	passed := map[string]bool{}
	for _, c := range checks {
		if slices.ContainsFunc(c.after, func(name string) bool { return !passed[name] }) {
			continue
		}
		err := c.pass(&e, ctx)
		passed[c.name] = err == nil
		all.Findings = append(all.Findings, Finding{c.name, err})
	}
	all.Header, all.Claims, all.Token = e.header.members, e.claims.Members, e.token
	if all.Err() == nil {
		all.Token = e.verified()
	}
	return all
}
