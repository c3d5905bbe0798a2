package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"zuplo-lambda-authorizer/internal/config"
	"zuplo-lambda-authorizer/internal/issuer"
	"zuplo-lambda-authorizer/internal/jwks"
	"zuplo-lambda-authorizer/internal/jwt"
)

// quotes are what people paste a token in.
const quotes = "\"'`“”‘’"

// cleaned returns the value that was probably meant, and what is wrong with the one that came.
func cleaned(value, header, scheme string) (clean string, wrong []string) {
	clean = value
	step := func(changed, why string) {
		if changed != clean && !slices.Contains(wrong, why) {
			wrong = append(wrong, why)
		}
		clean = changed
	}
	step(strings.Trim(clean, quotes), "it stands in quotes: the header must hold it without them")
	if name, rest, ok := strings.Cut(clean, ":"); ok && (strings.EqualFold(strings.TrimSpace(name), header) || strings.EqualFold(strings.TrimSpace(name), "authorization")) {
		step(strings.TrimSpace(rest), "it begins with the header's name: the value is what follows the colon")
		step(strings.Trim(clean, quotes), "it stands in quotes: the header must hold it without them")
	}
	step(strings.NewReplacer("\r", "", "\n", "").Replace(clean), "a line break is inside: copy it as one line")
	token := strings.TrimSpace(clean)
	for n := 0; scheme != ""; n++ {
		first, rest, ok := strings.Cut(token, " ")
		if !ok || !strings.EqualFold(first, scheme) {
			if n == 0 {
				step(scheme+" "+clean, scheme+" and one space must stand before it: TOKEN_PREFIX is "+scheme)
			} else if n > 1 {
				step(scheme+" "+token, "the prefix stands in it "+strconv.Itoa(n)+" times: Zuplo, or the caller, adds one that is there already")
			}
			break
		}
		token = strings.TrimSpace(rest)
	}
	if scheme == "" && len(token) > 7 && strings.EqualFold(token[:7], "bearer ") {
		step(strings.TrimSpace(token[7:]), "Bearer stands before it, and TOKEN_PREFIX is none: the header must hold the token alone")
	}
	if scheme != "" {
		step(scheme+" "+token, "more than one space, or one at an end")
	} else {
		step(token, "a space at an end")
	}
	return clean, wrong
}

// form explains what is wrong with the header's value as a whole, and returns what was probably meant.
func (e *explainer) form(value string, err error) (c check, clean string) {
	c = check{Check: "form", Expected: "three parts of base64url, at most 8,192 bytes"}
	if e.config.Scheme != "" {
		c.Expected = e.config.Scheme + ", one space, " + c.Expected
	}
	clean, wrong := cleaned(value, e.config.Header, e.config.Scheme)
	token := strings.TrimPrefix(clean, e.config.Scheme+" ")
	parts := strings.Split(token, ".")
	c.Found = fmt.Sprintf("%d bytes, %d parts", len(value), len(parts))
	var rejection *jwt.Rejection
	switch errors.As(err, &rejection); {
	case strings.TrimSpace(token) == "" || strings.EqualFold(strings.TrimSpace(value), e.config.Scheme):
		c.Found = "nothing"
		wrong = []string{"there is no token: is the header " + show(e.config.Header) + " sent?"}
	case e.order.kind != "rest-token" && strings.Contains(value, ","):
		wrong = []string{"a comma is in it: the header stands twice, or was joined with another value"}
	case rejection.Detail == jwt.Size:
		wrong = append(wrong, "too large: ask Zuplo for fewer claims (additionalClaims)")
	case len(parts) == 5:
		wrong = append(wrong, "five parts are an encrypted token (JWE); the authorizer takes signed ones (JWS)")
	case len(parts) == 1:
		wrong = append(wrong, "one part is no JWT: this may be the caller's API key, which Zuplo must replace by its JWT (policy upstream-zuplo-jwt-auth-inbound)")
	case len(parts) != 3:
		wrong = append(wrong, "a JWT has three parts: this one was cut, or joined with something")
	default:
		for n, part := range parts {
			name := []string{"header", "payload", "signature"}[n]
			switch _, err := base64.RawURLEncoding.Strict().DecodeString(part); {
			case part == "":
				wrong = append(wrong, "its "+name+" is empty")
			case strings.HasSuffix(part, "="):
				wrong = append(wrong, "its "+name+" ends with =, which base64url in a JWT does not (RFC 7515 §2)")
			case strings.ContainsAny(part, "+/"):
				wrong = append(wrong, "its "+name+" is base64, not base64url: + and / stand for - and _ (RFC 7515 §2)")
			case err != nil && n == 2:
				wrong = append(wrong, "its signature is not base64url: it was cut, or its end was copied wrong")
			case err != nil:
				wrong = append(wrong, "its "+name+" is not base64url: it was cut, or something else is in it")
			}
		}
	}
	c.Hint = strings.Join(wrong, "; ")
	return c, clean
}

// A token is what could be read of one, for display.
type token struct {
	*explainer
	header, claims  jwt.Members
	parts           [2]string // header and payload, decoded
	size            int
	issuer          config.Issuer // that it names, or means
	expiry, issued  float64       // in seconds since 1970; NaN: none
	alg, kid, named string        // members of the header, and iss
}

func (e *explainer) read(value string, found jwt.Examination) token {
	t := token{explainer: e, header: found.Header, claims: found.Claims, size: len(value)}
	if e.config.Scheme != "" {
		_, value, _ = strings.Cut(value, " ")
	}
	for n, part := range strings.SplitN(value, ".", 3) {
		if n < 2 {
			text, _ := base64.RawURLEncoding.DecodeString(part)
			t.parts[n] = string(text)
		}
	}
	t.expiry, t.issued = number(t.claims.Find("exp")), number(t.claims.Find("iat"))
	t.alg, t.kid, t.named = text(t.header.Find("alg")), text(t.header.Find("kid")), text(t.claims.Find("iss"))
	for _, i := range e.config.Issuers {
		if i.Name == t.named {
			t.issuer = i
		}
	}
	return t
}

// text is the text of a JSON string, else nothing.
func text(v jsontext.Value) string {
	s, _ := jsontext.AppendUnquote(nil, v)
	return string(s)
}

func number(v jsontext.Value) float64 {
	f, err := strconv.ParseFloat(string(v), 64)
	if err != nil {
		return math.NaN()
	}
	return f
}

// member shows a member and its value.
func member(members jwt.Members, name string) string {
	v := members.Find(name)
	if v == nil {
		return "absent"
	}
	return show(string(v))
}

// explain says what a check found, what it expected and, where it can, what to do.
func (t token) explain(f jwt.Finding) (c check) {
	c.Check = f.Check
	bad := f.Err != nil
	detail := jwt.NoDetail
	var rejection *jwt.Rejection
	if errors.As(f.Err, &rejection) {
		detail = rejection.Detail
	}
	switch f.Check {
	case "form":
		c.Found = fmt.Sprintf("three parts of base64url, %d bytes", t.size)
	case "header":
		c.Found, c.Expected, c.Hint = object(t.parts[0], t.header, detail, "alg", "kid", "typ")
	case "payload":
		c.Found, c.Expected, c.Hint = object(t.parts[1], t.claims, detail, "iss", "aud", "exp", "nbf", "iat")
	case "alg":
		c.Found, c.Expected = member(t.header, "alg"), strings.Join(t.config.Algorithms, ", ")
		if bad {
			c.Hint = t.algHint()
		}
	case "kid":
		c.Found, c.Expected = member(t.header, "kid"), "the kid of a key that the issuer publishes"
		if bad {
			c.Hint = "Zuplo's tokens have a kid; another signer must be told to set one"
		}
	case "crit":
		c.Found, c.Expected = "neither crit nor b64", "neither crit nor b64"
		if bad {
			c.Found, c.Hint = "crit "+member(t.header, "crit")+", b64 "+member(t.header, "b64"), "the token asks for an extension of JWS, and the authorizer knows none"
		}
	case "typ":
		c.Found, c.Expected = member(t.header, "typ"), "JWT or at+jwt, or none"
		if bad {
			c.Hint = "the signer must write JWT, or leave typ out; another type is a token for another purpose, such as a proof of possession"
		}
	case "iss":
		c.Found, c.Expected = member(t.claims, "iss"), list(t.names())
		if bad {
			c.Hint = t.issHint(detail)
		}
	case "exp":
		c.Found, c.Expected = t.when("exp"), "after "+moment(t.now.Add(-t.config.Leeway))+" (now, less LEEWAY "+t.config.Leeway.String()+")"
		if bad {
			c.Hint = t.expHint()
		}
	case "key":
		c.Found, c.Expected, c.Hint = t.key(f.Err)
	case "signature":
		c.Found, c.Expected = "verified", "a signature by the key of this kid"
		if bad {
			c.Found = "no key of this kid verifies it"
			c.Hint = "the token was changed after it was signed, or it is forged, or another key signed it under the same kid (another environment, keys made anew)"
		}
	case "nbf", "iat":
		c.Found, c.Expected = t.when(f.Check), "absent, or not after "+moment(t.now.Add(t.config.Leeway))+" (now, plus LEEWAY "+t.config.Leeway.String()+")"
		if bad {
			c.Hint = t.earlyHint(f.Check)
		}
	case "aud":
		c.Found, c.Expected = member(t.claims, "aud"), list(t.issuer.Audiences)
		if len(t.issuer.Audiences) == 0 {
			c.Expected, c.Hint = "anything", "AUDIENCE is not set: tokens that Zuplo made for other upstreams are accepted, too"
		}
		if bad {
			c.Hint = t.audHint(detail)
		}
	case "age":
		c.Found, c.Expected = t.when("iat"), "iat after "+moment(t.now.Add(-t.config.MaxTokenAge-t.config.Leeway))+" (MAX_TOKEN_AGE "+t.config.MaxTokenAge.String()+", LEEWAY "+t.config.Leeway.String()+")"
		if t.config.MaxTokenAge == 0 {
			c.Expected = "any: MAX_TOKEN_AGE is not set"
		}
		if bad {
			c.Hint = "the caller, or something before it, keeps tokens longer than MAX_TOKEN_AGE"
			if math.IsNaN(t.issued) {
				c.Hint = "with MAX_TOKEN_AGE the token must say when it was issued (iat)"
			}
		}
	}
	return c
}

// object says what is wrong with the JSON of a part, or which of the members that are read has a wrong type.
func object(part string, members jwt.Members, detail jwt.Detail, read ...string) (found, expected, hint string) {
	expected = "one JSON object, strict: valid UTF-8, no name twice, at most 64 deep"
	if detail == jwt.NoDetail {
		return fmt.Sprintf("a JSON object with %d members", len(members)), expected, ""
	}
	if detail == jwt.JSON {
		switch v := jsontext.Value(part); {
		case !json.Valid(v):
			return "no JSON: " + show(part), expected, "the token was changed, or another encoding than base64url of JSON was used"
		case v.Kind() != '{':
			return "JSON, and no object", expected, ""
		case v.IsValid():
			return "JSON that nests deeper", expected, ""
		}
		return "JSON with a name that stands twice, or with text that is not UTF-8", expected, "libraries disagree about which of two members counts: none is taken"
	}
	var wrong []string
	for _, name := range read {
		v := members.Find(name)
		switch name {
		case "exp", "nbf", "iat":
			if v != nil && math.IsNaN(number(v)) {
				wrong = append(wrong, name+" is "+show(string(v))+", a number of seconds since 1970 is needed")
			}
		case "aud":
			if v != nil && !isText(v) && !isTexts(v) {
				wrong = append(wrong, name+" is "+show(string(v))+", a string or a list of strings is needed")
			}
		default:
			if v != nil && !isText(v) {
				wrong = append(wrong, name+" is "+show(string(v))+", a string is needed")
			}
		}
	}
	return strings.Join(wrong, "; "), "members of their types (RFC 7515 §4.1, RFC 7519 §4.1)", "the signer writes this member in a wrong type; null counts as one, absent does not"
}

func isText(v jsontext.Value) bool { return v.Kind() == '"' }

func isTexts(v jsontext.Value) bool {
	var items []jsontext.Value
	return json.Unmarshal(v, &items) == nil && !slices.ContainsFunc(items, func(i jsontext.Value) bool { return !isText(i) })
}

func (t token) names() (all []string) {
	for _, i := range t.config.Issuers {
		all = append(all, i.Name)
	}
	return all
}

// list shows values that one may have, each quoted as JSON.
func list(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = show(strconv.Quote(v))
	}
	return strings.Join(quoted, " or ")
}

func (t token) algHint() string {
	alg := jwt.CanonicalAlgorithm(t.alg)
	switch {
	case alg == "":
		return "the header says no algorithm"
	case strings.EqualFold(alg, "none"):
		return "an unsigned token is never accepted"
	case strings.HasPrefix(alg, "HS"):
		return "a symmetric signature is never accepted: let the issuer sign with EdDSA, RS, PS or ES"
	case slices.Contains(jwt.Algorithms[:], alg):
		return fmt.Sprintf("ALGORITHMS leaves %s out; EdDSA is Zuplo's default: add %[1]s to ALGORITHMS, or change what Zuplo signs with", alg)
	}
	return "this algorithm is none that the authorizer knows; names are case-sensitive"
}

// near says what a claim that should name one of ours has instead.
func near(detail jwt.Detail, claim, variable string) string {
	switch detail {
	case jwt.Absent:
		return "the token has no " + claim
	case jwt.TrailingSlash:
		return "only the trailing slash differs: " + variable + " must be exactly what the token says, slash included"
	case jwt.Case:
		return "only capitals differ (and perhaps a trailing slash): " + variable + " must be exactly what the token says"
	}
	return ""
}

func (t token) issHint(detail jwt.Detail) string {
	if hint := near(detail, "iss", "ISSUER"); hint != "" {
		return hint
	}
	for _, ours := range t.names() {
		a, b := project(t.named), project(ours)
		switch _, rest, _ := strings.Cut(t.named, "://"); {
		case strings.HasSuffix(ours, rest) && rest != "":
			return "only the scheme differs: ISSUER must be exactly what the token says, and https"
		case strings.HasPrefix(ours, strings.TrimSuffix(t.named, "/")+"/"), strings.HasPrefix(t.named, strings.TrimSuffix(ours, "/")+"/"):
			return "one is the other with more path behind it: ISSUER is the token's iss, not where its keys are"
		case a != "" && a == b:
			return fmt.Sprintf("the token is of another environment of the project %s: each branch of Zuplo's has an issuer of its own; take this one into ISSUER, or call the environment that you configured", show(a))
		}
	}
	return "ISSUER must be exactly the token's iss; if this issuer is yours, add it to ISSUER"
}

// project is the first word of a host of Zuplo's, {project}-{branch}-{hash}.zuplo.app, and nothing for another host.
func project(iss string) string {
	u, err := url.Parse(iss)
	if err != nil || !strings.HasSuffix(u.Hostname(), ".zuplo.app") {
		return ""
	}
	name, _, several := strings.Cut(u.Hostname(), "-")
	if !several {
		return ""
	}
	return name
}

// when shows a time claim, as it stands in the token and for people.
func (t token) when(claim string) string {
	v := number(t.claims.Find(claim))
	if math.IsNaN(v) {
		return "absent"
	}
	return member(t.claims, claim) + " (" + at(v) + ")"
}

// at is a NumericDate for people.
func at(seconds float64) string {
	if math.Abs(seconds) > 253402300799 { // the year 9999
		return "beyond the year 9999"
	}
	return moment(time.Unix(int64(seconds), 0))
}

// milliseconds is what a time claim is that lies millennia ahead.
func milliseconds(seconds float64) string {
	if seconds > 1e11 {
		return "it looks like milliseconds; a JWT counts seconds (RFC 7519 §2)"
	}
	return ""
}

// until is the time from now until then, for people. A Duration ends after 292 years.
func (t token) until(seconds float64) string {
	d := time.Duration(min(math.Abs(seconds-float64(t.now.Unix())), 9e9)) * time.Second
	if d >= 48*time.Hour {
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	return d.String()
}

// clocks tells of a difference between the issuer's clock and this machine's, if the issuer was asked.
func (t token) clocks() string {
	ahead := t.watched[t.issuer.Name].search().ahead()
	switch {
	case ahead > 0:
		return fmt.Sprintf("; the issuer's clock is %v ahead of this machine's", ahead)
	case ahead < 0:
		return fmt.Sprintf("; the issuer's clock is %v behind this machine's", -ahead)
	}
	return ""
}

func (t token) expHint() string {
	if math.IsNaN(t.expiry) {
		return "a token without an end is never accepted"
	}
	hint := fmt.Sprintf("it expired %s ago", t.until(t.expiry))
	if life := t.expiry - t.issued; life > 0 && life < 1e9 {
		hint += fmt.Sprintf(", after a life of %v", time.Duration(life)*time.Second)
	}
	return hint + ": take a new one, or say when it was refused with -at" + t.clocks()
}

func (t token) earlyHint(claim string) string {
	seconds := number(t.claims.Find(claim))
	if hint := milliseconds(seconds); hint != "" {
		return hint
	}
	return fmt.Sprintf("it lies %s ahead: the clock of its signer is ahead by more than LEEWAY (at most 5m), or the token is meant for later", t.until(seconds)) + t.clocks()
}

func (t token) audHint(detail jwt.Detail) string {
	switch hint := near(detail, "aud", "AUDIENCE"); {
	case detail == jwt.Absent:
		return hint + ": set the option audience of the policy upstream-zuplo-jwt-auth-inbound to " + list(t.issuer.Audiences)
	case hint != "":
		return hint
	}
	if u, err := url.Parse(text(t.claims.Find("aud"))); err == nil && u.Scheme != "" && u.Host != "" {
		return "this is a URL: unless its option audience is set, Zuplo's policy upstream-zuplo-jwt-auth-inbound puts the request's URL here; set it to " + list(t.issuer.Audiences)
	}
	return "the token is meant for another upstream, or AUDIENCE is not what Zuplo's policy has as audience; both must match exactly"
}

// key says what the issuer has for the token's kid and alg.
func (t token) key(err error) (found, expected, hint string) {
	alg := jwt.CanonicalAlgorithm(t.alg)
	found, expected = "kid "+member(t.header, "kid")+" for "+show(alg), "one of the issuer's keys, which are below"
	var rejection *jwt.Rejection
	switch {
	case err == nil:
	case !errors.As(err, &rejection):
		found, expected = show(err.Error()), "keys from "+issuer.Name(t.issuer.JWKSURI)
		hint = "this is the issuer's or the network's fault, not the token's; curl the URL from here, and look at the function's log for its own fetches"
		if strings.Contains(err.Error(), "while in the TLS handshake") {
			hint = "a firewall may drop large TLS handshakes; GODEBUG=tlsmlkem=0 makes them smaller; " + hint
		}
	case rejection.Reason == jwt.UnknownKey:
		hint = "the issuer does not publish this kid (any more): the key was withdrawn or rotated out, or the token is another issuer's" + t.clocks()
	default:
		hint = "the key of this kid cannot be used for " + show(alg)
		_, skipped := t.entries(t.issuer)
		for _, k := range skipped {
			if k.KeyID == jwks.ForLog(t.kid) {
				hint += ": " + show(k.Why)
			}
		}
	}
	return found, expected, hint
}
