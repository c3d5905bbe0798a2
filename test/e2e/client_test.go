package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// authorizer is the function's logical id, under which the Lambda host counts.
const authorizer = "AuthorizerFunction"

var client = &http.Client{
	Timeout:       15 * time.Second,
	Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 16},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// reply is one answer, read to its end.
type reply struct {
	status int
	header http.Header
	body   []byte
	took   time.Duration
}

func (r reply) String() string {
	body := r.body
	if len(body) > 300 {
		body = body[:300]
	}
	return fmt.Sprintf("%d %s after %s", r.status, body, r.took.Round(time.Millisecond))
}

// send makes one request; an empty authorization sends no such header.
func send(method, url, authorization string) (reply, error) {
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		return reply{}, err
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	start := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, body, time.Since(start)}, err
}

// ask sends the token to the protected endpoint.
func (tg *target) ask(token string) (reply, error) {
	return send(http.MethodGet, tg.base+"/protected", "Bearer "+token)
}

// asks mints what the order says and sends it to the protected endpoint.
func (tg *target) asks(o order, verdict func(reply) error) error {
	minted, err := tg.order(o)
	if err != nil {
		return err
	}
	r, err := tg.ask(minted.Token)
	if err != nil {
		return err
	}
	return verdict(r)
}

// explained says where the command explain, with the target's settings, expects another answer to that header than the caller got.
func (tg *target) explained(authorization string, r reply) error {
	if tg.explain == "" {
		return nil
	}
	c := exec.Command(tg.explain, "-json")
	c.Stdin = strings.NewReader(authorization)
	c.Env = []string{"ISSUER=" + tg.issuer, "AUDIENCE=" + tg.audience, "LEEWAY=" + tg.leeway.String()}
	if tg.maxAge > 0 {
		c.Env = append(c.Env, "MAX_TOKEN_AGE="+tg.maxAge.String())
	}
	out, err := c.Output()
	var report struct{ Status int }
	if json.Unmarshal(out, &report) != nil || report.Status != r.status {
		return fmt.Errorf("explain says %s (%v), the caller got %s", out, err, r)
	}
	return nil
}

// The answers that the path may give. Each says why a reply is not that answer.
var (
	// allowed: the claims of an allowed caller.
	allowed = verdict("200", func(r reply) error {
		switch {
		case r.status != 200:
			return fmt.Errorf("got %s, want 200", r)
		case r.header.Get("Cache-Control") != "no-store":
			return fmt.Errorf("200 with Cache-Control %q, want no-store", r.header.Get("Cache-Control"))
		}
		return isJSON(r)
	})
	// refused: the 401 of a token that the authorizer refused.
	refused = verdict("401 by the authorizer", challenged)
	// turnedAway: the 401 of a request with which the authorizer is not asked, because its header is none that could hold a JWT.
	turnedAway = verdict("401 by the gateway", challenged)
	// denied: the 403 of a policy that no longer holds.
	denied = verdict("403", func(r reply) error { return message(r, 403, "token expired or not permitted") })
	// unknown: the 404 of a path that is none of the API's.
	unknown = verdict("404", func(r reply) error { return message(r, 404, "not found") })
	// unavailable: the 500 of an authorizer without keys.
	unavailable = verdict("500", retryLater)
)

// refusedAs is who answers a bad header with 401: the gateway, when it is not one word or none and three segments, or the authorizer.
func refusedAs(authorization string) func(reply) error {
	if holdsJWT.MatchString(authorization) {
		return refused
	}
	return turnedAway
}

var holdsJWT = regexp.MustCompile("^([A-Za-z0-9!#$%&'*+.^_`|~-]+ )?" + `[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$`)

// onOtherMethods is the answer to a request for /protected that is no GET.
func onOtherMethods(right func(reply) error) func(reply) error {
	return verdict("other methods than GET", right)
}

func notAllowed(r reply) error {
	if r.status != 405 || r.header.Get("Allow") != http.MethodGet {
		return fmt.Errorf("got %s, Allow %q; want 405, Allow GET", r, r.header.Get("Allow"))
	}
	return nil
}

func retryLater(r reply) error {
	if err := message(r, 500, "authorizer unavailable"); err != nil {
		return err
	}
	if n, err := strconv.Atoi(r.header.Get("Retry-After")); err != nil || n < 1 {
		return fmt.Errorf("500 with Retry-After %q, want seconds", r.header.Get("Retry-After"))
	}
	return nil
}

func challenged(r reply) error {
	if err := message(r, 401, "Unauthorized"); err != nil {
		return err
	}
	challenge := r.header.Get("WWW-Authenticate")
	if !strings.HasPrefix(challenge, `Bearer realm="`) || strings.Contains(challenge, "error") {
		return fmt.Errorf("401 with WWW-Authenticate %q, want Bearer realm=… and no error code", challenge)
	}
	return nil
}

// message says why the reply is not that status with {"message": text}.
func message(r reply, status int, text string) error {
	var body struct{ Message string }
	if r.status != status || json.Unmarshal(r.body, &body) != nil || body.Message != text {
		return fmt.Errorf("got %s, want %d with message %q", r, status, text)
	}
	return isJSON(r)
}

func isJSON(r reply) error {
	if kind, _, _ := mime.ParseMediaType(r.header.Get("Content-Type")); kind != "application/json" {
		return fmt.Errorf("%d with Content-Type %q, want application/json", r.status, r.header.Get("Content-Type"))
	}
	if !json.Valid(r.body) {
		return fmt.Errorf("%d with a body that is not JSON: %q", r.status, r.body)
	}
	return nil
}

// within adds a bound on the time that the reply took.
func within(limit time.Duration, verdict func(reply) error) func(reply) error {
	return func(r reply) error {
		if r.took > limit {
			return fmt.Errorf("got %s, want an answer within %s", r, limit)
		}
		return verdict(r)
	}
}

// order is what ADMIN_URL/mint takes. Entries of Header and Claims override its defaults, nil removes.
type order struct {
	Alg       string         `json:"alg,omitempty"`
	Kid       string         `json:"kid,omitempty"`
	Header    map[string]any `json:"header,omitempty"`
	Claims    map[string]any `json:"claims,omitempty"`
	Payload   string         `json:"payload,omitempty"`
	RawHeader string         `json:"raw_header,omitempty"`
	SignAs    string         `json:"sign_as,omitempty"`
	Foreign   bool           `json:"foreign,omitempty"`
}

func (o order) claim(name string, value any) order {
	o.Claims = with(o.Claims, name, value)
	return o
}

func (o order) head(name string, value any) order {
	o.Header = with(o.Header, name, value)
	return o
}

func with(m map[string]any, name string, value any) map[string]any {
	if m = maps.Clone(m); m == nil {
		m = map[string]any{}
	}
	m[name] = value
	return m
}

type minted struct{ Token, Kid string }

// order has a token minted. Each is unlike every other (a claim `jti`), or the gateway's cache would answer.
func (tg *target) order(o order) (m minted, err error) {
	if _, given := o.Claims["jti"]; !given && o.Payload == "" {
		o = o.claim("jti", rand.Text())
	}
	err = call(http.MethodPost, tg.admin+"/mint", o, &m)
	return m, err
}

func (tg *target) mint(t *testing.T, o order) minted {
	t.Helper()
	m, err := tg.order(o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// call exchanges JSON with a control API; in or out may be nil.
func call(method, url string, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %d %s", method, url, resp.StatusCode, text)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("%s %s: %w in %s", method, url, err, text)
	}
	return nil
}

func (tg *target) post(t *testing.T, url string, in, out any) {
	t.Helper()
	if err := call(http.MethodPost, url, in, out); err != nil {
		t.Fatal(err)
	}
}

type object = map[string]any

// mode breaks the issuer's key set, or mends it ("ok").
func (tg *target) mode(t *testing.T, mode string) {
	t.Helper()
	tg.post(t, tg.admin+"/jwks", object{"mode": mode}, nil)
}

// rotate gives alg a new key; the one before stays published.
func (tg *target) rotate(t *testing.T, alg string) (current, previous string) {
	t.Helper()
	var out struct{ Kid, Previous string }
	tg.post(t, tg.admin+"/rotate", object{"alg": alg}, &out)
	return out.Kid, out.Previous
}

func (tg *target) withdraw(t *testing.T, kid string) {
	t.Helper()
	tg.post(t, tg.admin+"/withdraw", object{"kid": kid}, nil)
}

// keyRequests is how many requests for its keys the issuer has had, and how many it holds open.
func (tg *target) keyRequests(t *testing.T) (total, open int) {
	t.Helper()
	var out struct {
		Total int `json:"jwks_requests"`
		Open  int `json:"jwks_open"`
	}
	if err := call(http.MethodGet, tg.admin+"/counters", nil, &out); err != nil {
		t.Fatal(err)
	}
	return out.Total, out.Open
}

type functionCount struct{ Invocations, Starts, Processes int }

func (tg *target) counted(t *testing.T) functionCount {
	t.Helper()
	var out map[string]functionCount
	if err := call(http.MethodGet, tg.lambda+"/functions", nil, &out); err != nil {
		t.Fatal(err)
	}
	count, ok := out[authorizer]
	if !ok {
		t.Fatalf("the Lambda host counts %v, not %s", out, authorizer)
	}
	return count
}

// recycle ends the authorizer's processes: the next invocation is a cold start.
func (tg *target) recycle(t *testing.T) {
	t.Helper()
	tg.post(t, tg.lambda+"/functions/"+authorizer+"/recycle", nil, nil)
}

// warm mends the issuer now and at the end of the case, and leaves the target with one process of the authorizer that has
// just fetched its keys: by a cold start where there is one to be had, else when they are due. (The cases that use it take
// turns, and a target without cold starts gets its requests one by one.) It returns the moment before that fetch.
func (tg *target) warm(t *testing.T) (before time.Time) {
	t.Helper()
	mend := func() { tg.post(t, tg.admin+"/reset", object{}, nil) }
	mend()
	t.Cleanup(mend)
	before = time.Now()
	fetches, _ := tg.keyRequests(t)
	if tg.can[Cold] {
		tg.recycle(t)
	}
	eventually(t, recovery+tg.ttl, 100*time.Millisecond, func() error {
		if err := tg.asks(order{}, allowed); err != nil {
			return err
		}
		if n, _ := tg.keyRequests(t); n == fetches {
			return errors.New("the keys have not been fetched again")
		}
		return nil
	})
	return before
}

// eventually polls until try has nothing to say; it fails with its last word.
func eventually(t *testing.T, within, every time.Duration, try func() error) {
	t.Helper()
	start := time.Now()
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Since(start) > within {
			t.Fatalf("still so after %s: %v", within, err)
		}
		time.Sleep(every)
	}
}

// always polls until the time is up and fails as soon as try has something to say.
func always(t *testing.T, until time.Time, every time.Duration, try func() error) {
	t.Helper()
	for start := time.Now(); time.Now().Before(until); time.Sleep(every) {
		if err := try(); err != nil {
			t.Fatalf("after %s: %v", time.Since(start).Round(time.Millisecond), err)
		}
	}
}

// check fails the case at the first error.
func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
