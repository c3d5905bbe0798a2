package jwt

import (
	"context"
	"iter"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// checks are all that a token must pass, in order. Each may use what those that it comes after have found.
var checks = [...]struct {
	name  string
	pass  func(*examination, context.Context) error
	after []string
}{
	{"form", (*examination).form, nil},
	{"header", (*examination).readHeader, []string{"form"}},
	{"payload", (*examination).readPayload, []string{"form"}},
	{"alg", (*examination).alg, []string{"header"}},
	{"kid", (*examination).kid, []string{"header"}},
	{"crit", (*examination).crit, []string{"header"}},
	{"typ", (*examination).typ, []string{"header"}},
	// Yet unverified: these two only spare the rest for tokens that cannot pass.
	{"iss", (*examination).iss, []string{"payload"}},
	{"exp", (*examination).exp, []string{"payload"}},
	{"key", (*examination).key, []string{"kid", "iss"}},
	{"signature", (*examination).signature, []string{"key"}},
	{"nbf", (*examination).nbf, []string{"payload"}},
	{"iat", (*examination).iat, []string{"payload"}},
	{"aud", (*examination).aud, []string{"iss"}},
	{"age", (*examination).age, []string{"payload"}},
}

// An examination is a token on its way through the checks, with what they have found.
type examination struct {
	*Verifier
	value   string // of the header that carries the token
	now     time.Time
	compact compact
	header  header
	claims  Claims  // unverified, until all checks are passed
	issuer  Trusted // that the token names
	keys    []Key   // that may have signed it
	token   Token
}

// form: the scheme, and three parts of base64url.
func (e *examination) form(context.Context) (err error) {
	token, ok := credentials(e.value, e.Scheme)
	if !ok {
		return reject(Malformed, Form)
	}
	e.compact, err = parseCompact(token)
	return err
}

func (e *examination) readHeader(context.Context) (err error) {
	e.header, err = parseHeader(e.compact.header)
	e.token.Kid = e.header.kid
	return err
}

func (e *examination) readPayload(context.Context) (err error) {
	e.claims, err = parseClaims(e.compact.payload)
	return err
}

// alg. Key material in the header (jwk, jku, x5u, x5c) is never looked at: keys come from the issuer alone.
func (e *examination) alg(context.Context) error {
	alg := CanonicalAlgorithm(e.header.alg)
	if !slices.Contains(e.Algorithms, alg) {
		return reject(Algorithm, NoDetail)
	}
	e.token.Alg = alg
	return nil
}

func (e *examination) kid(context.Context) error {
	if e.header.kid == "" {
		return reject(KeyID, NoDetail)
	}
	return nil
}

// crit: no extension is understood, so none may be critical (RFC 7515 §4.1.11).
func (e *examination) crit(context.Context) error {
	if e.header.critical {
		return reject(Malformed, Crit)
	}
	return nil
}

// typ may be absent, or is a media type of ours, in any case and with or without the application prefix (RFC 7515 §4.1.9,
// RFC 9068 §2.1).
func (e *examination) typ(context.Context) error {
	if e.header.hasTyp && !slices.ContainsFunc([]string{"JWT", "application/jwt", "at+jwt", "application/at+jwt"},
		func(t string) bool { return strings.EqualFold(e.header.typ, t) }) {
		return reject(Malformed, Typ)
	}
	return nil
}

func (e *examination) iss(context.Context) error {
	issuer, ok := e.Issuers[e.claims.issuer]
	if !ok {
		return reject(Issuer, hint([]string{e.claims.issuer}, maps.Keys(e.Issuers)))
	}
	e.issuer, e.token.Issuer = issuer, e.claims.issuer
	return nil
}

func (e *examination) exp(context.Context) error {
	if !before(e.now, e.expires()) {
		return reject(Expired, NoDetail)
	}
	return nil
}

// key: the issuer has keys of this kid for this alg.
func (e *examination) key(ctx context.Context) error {
	keys, known, err := e.issuer.Keys.Keys(ctx, e.header.kid, CanonicalAlgorithm(e.header.alg))
	switch {
	case err != nil:
		return err
	case !known:
		return reject(UnknownKey, NoDetail)
	case len(keys) == 0:
		return reject(UnfitKey, NoDetail)
	}
	e.keys = keys
	return nil
}

func (e *examination) signature(context.Context) error {
	signed := []byte(e.compact.signed)
	if !slices.ContainsFunc(e.keys, func(k Key) bool { return k(signed, e.compact.signature) }) {
		return reject(Signature, NoDetail)
	}
	return nil
}

func (e *examination) nbf(context.Context) error {
	if before(e.now, e.claims.notBefore-e.Leeway.Seconds()) {
		return reject(NotYetValid, NoDetail)
	}
	return nil
}

func (e *examination) iat(context.Context) error {
	if before(e.now, e.claims.issuedAt-e.Leeway.Seconds()) {
		return reject(NotYetValid, NoDetail)
	}
	return nil
}

func (e *examination) aud(context.Context) error {
	audiences := e.issuer.Audiences
	if len(audiences) > 0 && !slices.ContainsFunc(e.claims.audience, func(a string) bool { return slices.Contains(audiences, a) }) {
		return reject(Audience, hint(e.claims.audience, slices.Values(audiences)))
	}
	return nil
}

func (e *examination) age(context.Context) error {
	if e.MaxTokenAge > 0 && !before(e.now, e.tooOld()) {
		return reject(TooOld, NoDetail)
	}
	return nil
}

// verified is the token once all checks are passed.
func (e *examination) verified() Token {
	e.claims.Encoded = e.compact.encoded
	e.token.Claims = e.claims
	e.token.Expires = e.expires()
	if e.MaxTokenAge > 0 {
		e.token.Expires = math.Min(e.token.Expires, e.tooOld())
	}
	return e.token
}

// expires and tooOld are when the checks exp and age begin to refuse the token, in seconds since 1970.
func (e *examination) expires() float64 { return e.claims.expiry + e.Leeway.Seconds() }
func (e *examination) tooOld() float64 {
	return e.claims.issuedAt + (e.MaxTokenAge + e.Leeway).Seconds()
}

// hint says how close a claim's values come to what is accepted, of which they have none.
func hint(values []string, accepted iter.Seq[string]) Detail {
	if strings.Join(values, "") == "" {
		return Absent
	}
	detail := NoDetail
	for want := range accepted {
		for _, value := range values {
			switch value, want := strings.TrimSuffix(value, "/"), strings.TrimSuffix(want, "/"); {
			case value == want:
				return TrailingSlash
			case strings.EqualFold(value, want):
				detail = Case
			}
		}
	}
	return detail
}

func before(now time.Time, seconds float64) bool {
	return float64(now.UnixNano())/1e9 < seconds
}
