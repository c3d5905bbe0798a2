// Package jwt verifies JSON Web Tokens signed in JWS compact form (RFC 7515, RFC 7519).
//
// It does no I/O and has no clock of its own: keys come from a KeySource, the time from Verifier.Now.
package jwt

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	maxTokenBytes = 8 << 10
	maxDepth      = 64
)

// A compact is a token in its three parts, decoded (RFC 7515 §7.1).
type compact struct {
	header, payload, signature []byte
	signed                     string // "header.payload" as it stands in the token: what the signature covers
	encoded                    string // payload as it stands in the token
}

// credentials returns what follows a scheme, which matches in any case (RFC 9110 §11.1) and is followed by exactly one space.
// Without a scheme they are the whole value.
func credentials(value, scheme string) (token string, ok bool) {
	if scheme == "" {
		return value, true
	}
	got, token, _ := strings.Cut(value, " ")
	return token, strings.EqualFold(got, scheme)
}

// parseCompact splits and decodes token. What it accepts has one spelling only: encoding the parts anew
// gives the same bytes.
func parseCompact(token string) (c compact, err error) {
	if len(token) > maxTokenBytes {
		return c, reject(Malformed, Size)
	}
	if strings.ContainsAny(token, "\r\n") { // base64 skips them, even when strict
		return c, reject(Malformed, Form)
	}
	header, rest, _ := strings.Cut(token, ".")
	payload, signature, _ := strings.Cut(rest, ".") // a fourth segment leaves a dot in the signature, which is not base64url
	if header == "" || payload == "" || signature == "" {
		return c, reject(Malformed, Form)
	}
	buf := make([]byte, 0, len(token))
	for _, part := range []struct {
		text string
		to   *[]byte
	}{{header, &c.header}, {payload, &c.payload}, {signature, &c.signature}} {
		start := len(buf)
		if buf, err = base64.RawURLEncoding.Strict().AppendDecode(buf, []byte(part.text)); err != nil {
			return c, reject(Malformed, Form)
		}
		*part.to = buf[start:]
	}
	c.signed, c.encoded = token[:len(header)+1+len(payload)], payload
	return c, nil
}

// A Member is one member of a JSON object: its unescaped name and its value as it was spelled.
type Member struct {
	Name  string
	Value jsontext.Value
}

// Members are those of one object, in its order.
type Members []Member

// Find returns the value of the member of that name, nil if there is none.
func (all Members) Find(name string) jsontext.Value {
	for _, m := range all {
		if m.Name == name {
			return m.Value
		}
	}
	return nil
}

// parseObject reads the members of the JSON object that data is. It refuses invalid UTF-8, duplicate
// names at any depth (RFC 7515 §4, RFC 7519 §4), nesting deeper than 64 and anything after the object.
// Values are slices of data.
func parseObject(data []byte) (members Members, ok bool) {
	if tooDeep(data) {
		return nil, false
	}
	d := jsontext.NewDecoder(bytes.NewBuffer(data))
	if begin, _ := d.ReadToken(); begin.Kind() != '{' {
		return nil, false
	}
	members = make(Members, 0, 8)
	for {
		name, err := d.ReadToken()
		if err != nil {
			return nil, false
		}
		if name.Kind() == '}' {
			_, err := d.ReadToken()
			return members, err == io.EOF
		}
		m := Member{Name: name.String()}
		value, err := d.ReadValue()
		if err != nil {
			return nil, false
		}
		// The decoder's buffer is data itself, but its contract does not say so.
		end := d.InputOffset()
		m.Value = data[end-int64(len(value)) : end]
		members = append(members, m)
	}
}

// tooDeep reports whether JSON text nests deeper than maxDepth. On text that is not JSON it may say
// anything: the decoder judges that afterwards.
func tooDeep(data []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '\\':
			i++
		case '"':
			quoted = !quoted
		case '{', '[':
			if !quoted {
				if depth++; depth > maxDepth {
					return true
				}
			}
		case '}', ']':
			if !quoted {
				depth--
			}
		}
	}
	return false
}

// A header holds the members of a JOSE header that this package reads (RFC 7515 §4.1).
type header struct {
	members       Members
	alg, kid, typ string
	hasTyp        bool
	critical      bool // a crit or b64 member, whatever its value
}

func parseHeader(data []byte) (h header, err error) {
	members, ok := parseObject(data)
	if !ok {
		return h, reject(Malformed, JSON)
	}
	h.members = members
	for _, m := range members {
		switch m.Name {
		case "alg":
			h.alg, ok = text(m.Value, ok)
		case "kid":
			h.kid, ok = text(m.Value, ok)
		case "typ":
			h.typ, ok = text(m.Value, ok)
			h.hasTyp = true
		case "crit", "b64":
			h.critical = true
		}
	}
	if !ok {
		return h, reject(Malformed, Type)
	}
	return h, nil
}

func parseClaims(payload []byte) (c Claims, err error) {
	members, ok := parseObject(payload)
	if !ok {
		return c, reject(Malformed, JSON)
	}
	c.JSON, c.Members = payload, members
	c.expiry, c.notBefore, c.issuedAt = math.Inf(-1), math.Inf(-1), math.Inf(-1)
	for _, m := range members {
		switch m.Name {
		case "iss":
			c.issuer, ok = text(m.Value, ok)
		case "exp":
			c.expiry, ok = date(m.Value, ok)
		case "nbf":
			c.notBefore, ok = date(m.Value, ok)
		case "iat":
			c.issuedAt, ok = date(m.Value, ok)
		case "aud":
			c.audience, ok = texts(m.Value, ok)
		}
	}
	if !ok {
		return c, reject(Malformed, Type)
	}
	return c, nil
}

// text, date and texts read one value and carry on whether everything before was right.

func text(v jsontext.Value, ok bool) (string, bool) {
	s, err := jsontext.AppendUnquote(nil, v) // an error for whatever is not a string
	return string(s), ok && err == nil
}

// date reads a NumericDate, in seconds since 1970 (RFC 7519 §2).
func date(v jsontext.Value, ok bool) (seconds float64, _ bool) {
	seconds, err := strconv.ParseFloat(string(v), 64) // of all JSON values it takes numbers alone
	return seconds, ok && err == nil
}

func texts(v jsontext.Value, ok bool) (list []string, _ bool) {
	if v.Kind() != '[' {
		s, ok := text(v, ok)
		return []string{s}, ok
	}
	var items []jsontext.Value
	_ = json.Unmarshal(v, &items) // it is an array: parseObject read it
	for _, item := range items {
		var s string
		s, ok = text(item, ok)
		list = append(list, s)
	}
	return list, ok
}
