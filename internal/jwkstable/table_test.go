package jwkstable

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"zuplo-lambda-authorizer/internal/fleet"
	"zuplo-lambda-authorizer/internal/issuer"
)

const (
	iss = "https://issuer.example/secret-issuer"
	uri = "https://keys.example/secret-uri?secret=secret"
	id  = "92b5cf90ba309dc9034233d6908f3925" // of both: what sha256sum says of them, a line feed between, its first half
)

var (
	set = []byte(`{"keys":["secret-set"]}`)
	now = time.UnixMilli(1_800_000_000_123)
)

// environment is a Lambda's, except for the endpoint.
func environment(endpoint string) map[string]string {
	return map[string]string{
		"AWS_ACCESS_KEY_ID": "secretid", "AWS_SECRET_ACCESS_KEY": "secret-key", "AWS_SESSION_TOKEN": "secret-session",
		"AWS_REGION": "eu-west-3", "AWS_ENDPOINT_URL_DYNAMODB": endpoint,
	}
}

func getenv(env map[string]string) func(string) string {
	return func(name string) string { return env[name] }
}

func tableAt(t *testing.T, endpoint string) *Table {
	t.Helper()
	table, err := New(getenv(environment(endpoint)), "the-table")
	if err != nil {
		t.Fatal(err)
	}
	if table.time != 250*time.Millisecond {
		t.Errorf("a call may take %v", table.time)
	}
	return table
}

func TestCheckName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"the-table": true, "a.b": true, "Zuplo_Keys-9": true, strings.Repeat("x", 255): true,
		"": false, "ab": false, strings.Repeat("x", 256): false, "table/name": false, "a b c": false,
		"arn:aws:dynamodb:us-east-1:123456789012:table/name": false,
	} {
		if err := CheckName(name); (err == nil) != want {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func noSecrets(t *testing.T, err error) {
	t.Helper()
	if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), base64.StdEncoding.EncodeToString(set)) {
		t.Errorf("the error tells a key or a value: %v", err)
	}
}

// doing is a client that does not need the network.
type doing func(*http.Request) (*http.Response, error)

func (d doing) Do(r *http.Request) (*http.Response, error) { return d(r) }

// through replaces a table's client.
func (t *Table) through(client doing) {
	t.client = dynamodb.New(t.client.Options(), func(o *dynamodb.Options) { o.HTTPClient = client })
}

// Where the table is comes from the same variables, and means the same, as for any program that is built on the SDK. What
// cannot be is told, and there is no table.
func TestEndpoint(t *testing.T) {
	t.Parallel()
	type env map[string]string
	both := func(a, b env) env { a = maps.Clone(a); maps.Copy(a, b); return a }
	at := func(url string) env { return env{"AWS_ENDPOINT_URL_DYNAMODB": url} }
	everywhere := func(url string) env { return env{"AWS_ENDPOINT_URL": url} }
	in := func(region string) env { return env{"AWS_REGION": region} }
	var (
		fips      = env{"AWS_USE_FIPS_ENDPOINT": "true"}
		dualstack = env{"AWS_USE_DUALSTACK_ENDPOINT": "true"}
		account   = env{"AWS_ACCOUNT_ID": "123456789012"}
	)
	const paris = "https://dynamodb.eu-west-3.amazonaws.com/"
	for _, row := range []struct {
		env  env
		asks string // the URL
		why  string // or why there is no table
	}{
		{env{}, paris, ""},
		{env{"AWS_SESSION_TOKEN": ""}, paris, ""},
		{in("us-east-1"), "https://dynamodb.us-east-1.amazonaws.com/", ""},
		{in("cn-north-1"), "https://dynamodb.cn-north-1.amazonaws.com.cn/", ""},
		{in("us-gov-west-1"), "https://dynamodb.us-gov-west-1.amazonaws.com/", ""},
		{env{"AWS_REGION": "", "AWS_DEFAULT_REGION": "us-east-1"}, "https://dynamodb.us-east-1.amazonaws.com/", ""},
		{env{"AWS_DEFAULT_REGION": "US East"}, paris, ""},
		{in("local"), "http://localhost:8000/", ""},

		{fips, "https://dynamodb-fips.eu-west-3.amazonaws.com/", ""},
		{env{"AWS_USE_FIPS_ENDPOINT": "TRUE"}, "https://dynamodb-fips.eu-west-3.amazonaws.com/", ""},
		{env{"AWS_USE_FIPS_ENDPOINT": "False"}, paris, ""},
		{both(in("us-gov-west-1"), fips), "https://dynamodb.us-gov-west-1.amazonaws.com/", ""}, // FIPS as it is
		{in("fips-us-east-1"), "https://dynamodb-fips.us-east-1.amazonaws.com/", ""},
		{dualstack, "https://dynamodb.eu-west-3.api.aws/", ""},
		{both(in("cn-north-1"), dualstack), "https://dynamodb.cn-north-1.api.amazonwebservices.com.cn/", ""},
		{both(fips, dualstack), "https://dynamodb-fips.eu-west-3.api.aws/", ""},
		{account, "https://123456789012.ddb.eu-west-3.amazonaws.com/", ""},
		{both(account, env{"AWS_ACCOUNT_ID_ENDPOINT_MODE": "disabled"}), paris, ""},
		{both(account, env{"AWS_ACCOUNT_ID_ENDPOINT_MODE": "required"}), "https://123456789012.ddb.eu-west-3.amazonaws.com/", ""},

		{at("https://vpce-1.dynamodb.eu-west-3.vpce.amazonaws.com"), "https://vpce-1.dynamodb.eu-west-3.vpce.amazonaws.com/", ""},
		{everywhere("https://vpce-1.dynamodb.eu-west-3.vpce.amazonaws.com"), "https://vpce-1.dynamodb.eu-west-3.vpce.amazonaws.com/", ""},
		{both(at("https://a.example"), everywhere("http://emulator.example:4566")), "https://a.example/", ""},
		{both(at("https://a.example"), account), "https://a.example/", ""},
		{at("https://a.example/"), "https://a.example/", ""},
		{at("https://a.example:8443/some/path"), "https://a.example:8443/some/path", ""},
		{at("https://a.example/some/path/"), "https://a.example/some/path/", ""},
		{at("https://[2001:db8::1]:8443"), "https://[2001:db8::1]:8443/", ""},
		{at("https://a.example?query=x"), "https://a.example/", ""}, // the SDK leaves it out
		{at("http://localhost:8000"), "http://localhost:8000/", ""},
		{at("http://127.0.0.1:8000/"), "http://127.0.0.1:8000/", ""},
		{at("http://[::1]:8000"), "http://[::1]:8000/", ""},
		{both(everywhere("http://emulator.example:4566"), env{"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}), paris, ""},
		{both(at("https://a.example"), env{"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "True"}), paris, ""},
		{both(at("https://a.example"), env{"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false"}), "https://a.example/", ""},

		{everywhere("http://emulator.example:4566"), "", "AWS_ENDPOINT_URL: its scheme is not https"},
		{at("http://172.17.0.1:4566"), "", "AWS_ENDPOINT_URL_DYNAMODB: its scheme is not https"},
		{everywhere("localhost:8000"), "", "AWS_ENDPOINT_URL: not an absolute URL with a host"},
		{everywhere("127.0.0.1:8000"), "", "AWS_ENDPOINT_URL: not a URL"},
		{at("https://user:secret@a.example"), "", "AWS_ENDPOINT_URL_DYNAMODB: it holds userinfo"},
		{at(" https://secret.example"), "", "AWS_ENDPOINT_URL_DYNAMODB: not a URL"},
		{both(at("https://secret.example"), fips), "", "AWS_REGION, AWS_USE_FIPS_ENDPOINT, AWS_ENDPOINT_URL_DYNAMODB: " +
			"endpoint rule error, Invalid Configuration: FIPS and custom endpoint are not supported"},
		{both(everywhere("https://secret.example"), dualstack), "", "AWS_REGION, AWS_USE_DUALSTACK_ENDPOINT, AWS_ENDPOINT_URL: " +
			"endpoint rule error, Invalid Configuration: Dualstack and custom endpoint are not supported"},
		{both(in("local"), fips), "", "AWS_REGION, AWS_USE_FIPS_ENDPOINT: endpoint rule error, Invalid Configuration: FIPS and local endpoint are not supported"},
		{env{"AWS_USE_FIPS_ENDPOINT": "secret"}, "", "AWS_USE_FIPS_ENDPOINT: neither true nor false"},
		{env{"AWS_USE_DUALSTACK_ENDPOINT": "1"}, "", "AWS_USE_DUALSTACK_ENDPOINT: neither true nor false"},
		{env{"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "yes"}, "", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS: neither true nor false"},
		{env{"AWS_ACCOUNT_ID_ENDPOINT_MODE": "required"}, "", "AWS_REGION, AWS_ACCOUNT_ID_ENDPOINT_MODE: invalid accountID set: accountID is required but not set"},
		{env{"AWS_ACCOUNT_ID_ENDPOINT_MODE": "secret"}, "", "AWS_REGION, AWS_ACCOUNT_ID_ENDPOINT_MODE: must be preferred/required/disabled"},
		{env{"AWS_REGION": ""}, "", "AWS_REGION: endpoint rule error, Invalid Configuration: Missing Region"},
		{in("a.evil.example/"), "", "AWS_REGION: invalid input region a.evil.example/"},
		{env{"AWS_REGION": "", "AWS_DEFAULT_REGION": "x y"}, "", "AWS_DEFAULT_REGION: invalid input region x y"},
		{env{"AWS_ACCESS_KEY_ID": ""}, "", "AWS_ACCESS_KEY_ID or AWS_SECRET_ACCESS_KEY: not set"},
		{env{"AWS_SECRET_ACCESS_KEY": ""}, "", "AWS_ACCESS_KEY_ID or AWS_SECRET_ACCESS_KEY: not set"},
		{env{"AWS_CONFIG_FILE": "/opt/secret"}, "", "AWS_CONFIG_FILE: no file is read, only variables"},
	} {
		table, err := New(getenv(both(environment(""), row.env)), "the-table")
		if row.why != "" {
			if table != nil || err == nil || err.Error() != "the table the-table: "+row.why {
				t.Errorf("with %v: %v, want %s", row.env, err, row.why)
			} else {
				noSecrets(t, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("with %v: %v", row.env, err)
			continue
		}
		var asked string
		table.through(func(r *http.Request) (*http.Response, error) {
			asked = r.URL.String()
			return nil, errors.New("not asked")
		})
		if _, err := table.Issuer(iss, uri).Read(t.Context(), false); err == nil || asked != row.asks {
			t.Errorf("with %v it asks %q, want %q (%v)", row.env, asked, row.asks, err)
		}
	}
}

// A call is a request as it came in.
type call struct {
	*http.Request
	body map[string]any
}

// answering serves one answer to everything and keeps what came in.
func answering(t *testing.T, status int, answer string) (table *Table, calls func() []call) {
	t.Helper()
	var mu sync.Mutex
	var got []call
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := call{Request: r}
		if err := json.NewDecoder(r.Body).Decode(&c.body); err != nil {
			t.Error(err)
		}
		mu.Lock()
		got = append(got, c)
		mu.Unlock()
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(s.Close)
	table = tableAt(t, s.URL)
	table.time = 10 * time.Second // how fast it is is not asked
	return table, func() []call {
		mu.Lock()
		defer mu.Unlock()
		return got
	}
}

// operations are those of a store; do says whether anything came of one.
var operations = []struct {
	doing string // how its errors begin
	do    func(context.Context, fleet.Store) (ok bool, err error)
}{
	{"reading the table the-table: ", func(ctx context.Context, s fleet.Store) (bool, error) {
		c, err := s.Read(ctx, false)
		return c.Set != nil || !c.Sent.IsZero() || !c.Lease.IsZero(), err
	}},
	{"reading the table the-table: ", func(ctx context.Context, s fleet.Store) (bool, error) {
		c, err := s.Read(ctx, true)
		return c.Set != nil || !c.Sent.IsZero() || !c.Lease.IsZero(), err
	}},
	{"taking the lease in the table the-table: ", func(ctx context.Context, s fleet.Store) (bool, error) {
		lease, err := s.Take(ctx, now)
		return !lease.IsZero(), err
	}},
	{"writing the table the-table: ", func(ctx context.Context, s fleet.Store) (bool, error) {
		return false, s.Put(ctx, now, fleet.Copy{Set: set, Sent: now}, now)
	}},
	{"writing the table the-table: ", func(ctx context.Context, s fleet.Store) (bool, error) {
		return false, s.Fail(ctx, now, now, 1)
	}},
}

// What goes over the wire, which DynamoDB bills and its policies see: one GetItem or one UpdateItem.
func TestRequests(t *testing.T) {
	t.Parallel()
	key := map[string]any{"id": map[string]any{"S": id}} // a hash: the URI may hold a secret
	n := func(v string) any { return map[string]any{"N": v} }
	for what, row := range map[string]struct {
		do     func(context.Context, fleet.Store) error
		target string
		values map[string]any
		body   map[string]any
	}{
		"a read": {
			do:     func(ctx context.Context, s fleet.Store) error { _, err := s.Read(ctx, false); return err },
			target: "GetItem", body: map[string]any{"ConsistentRead": false},
		},
		"a consistent read": {
			do:     func(ctx context.Context, s fleet.Store) error { _, err := s.Read(ctx, true); return err },
			target: "GetItem", body: map[string]any{"ConsistentRead": true},
		},
		"taking the lease": {
			do:     func(ctx context.Context, s fleet.Store) error { _, err := s.Take(ctx, now); return err },
			target: "UpdateItem", body: map[string]any{
				"UpdateExpression":    "SET lease = :end",
				"ConditionExpression": "attribute_not_exists(lease) OR NOT attribute_type(lease, :number) OR lease <= :now OR lease > :ahead",
			},
			values: map[string]any{":end": n("1800000006123"), ":now": n("1800000000123"), ":ahead": n("1800000010123"), ":number": map[string]any{"S": "N"}},
		},
		"a put": {
			do: func(ctx context.Context, s fleet.Store) error {
				return s.Put(ctx, now.Add(time.Second), fleet.Copy{Set: set, Sent: now}, now.Add(time.Hour))
			},
			target: "UpdateItem", body: map[string]any{
				"UpdateExpression":    "SET jwks = :jwks, sent = :sent, expires = :expires REMOVE failures",
				"ConditionExpression": "lease = :lease",
			},
			values: map[string]any{":lease": n("1800000001123"), ":sent": n("1800000000123"), ":expires": n("1800003600"),
				":jwks": map[string]any{"B": base64.StdEncoding.EncodeToString(set)}},
		},
		"giving the lease back": {
			do: func(ctx context.Context, s fleet.Store) error {
				return s.Fail(ctx, now.Add(time.Second), now.Add(time.Millisecond), 2)
			},
			target: "UpdateItem", body: map[string]any{
				"UpdateExpression":    "SET lease = :until, failures = :failures",
				"ConditionExpression": "lease = :lease",
			},
			values: map[string]any{":lease": n("1800000001123"), ":until": n("1800000000124"), ":failures": n("2")},
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			table, calls := answering(t, 200, "{}")
			if err := row.do(t.Context(), table.Issuer(iss, uri)); err != nil {
				t.Fatal(err)
			}
			if len(calls()) != 1 {
				t.Fatalf("%d requests", len(calls()))
			}
			c := calls()[0]
			equal(t, "target", c.Header.Get("X-Amz-Target"), "DynamoDB_20120810."+row.target)
			equal(t, "protocol", c.Proto, "HTTP/1.1")
			if agent := c.Header.Get("User-Agent"); !strings.Contains(agent, " app/zuplo-lambda-authorizer-"+issuer.Version) {
				t.Errorf("user agent %s", agent)
			}
			equal(t, "session token", c.Header.Get("X-Amz-Security-Token"), "secret-session")
			if auth := c.Header.Get("Authorization"); !strings.Contains(auth, "Credential=secretid/") || !strings.Contains(auth, "/eu-west-3/dynamodb/aws4_request") {
				t.Errorf("signed as %s", auth)
			}
			equal(t, "table", c.body["TableName"], "the-table")
			equal(t, "key", c.body["Key"], any(key))
			for member, want := range row.body {
				equal(t, member, c.body[member], want)
			}
			if row.values != nil {
				equal(t, "values", c.body["ExpressionAttributeValues"], any(row.values))
			}
			// DynamoDB refuses an expression without all of its values, and a value without its expression.
			for name := range row.values {
				if all := c.body["UpdateExpression"].(string) + " " + c.body["ConditionExpression"].(string) + " "; !strings.Contains(all, name) {
					t.Errorf("%s is in no expression", name)
				}
			}
		})
	}
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s is %v, want %v", what, got, want)
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	table, _ := answering(t, 200, `{"Item":{"issuer":{"S":"x"},"jwks":{"B":"`+base64.StdEncoding.EncodeToString(set)+
		`"},"sent":{"N":"1800000000123"},"lease":{"N":"1800000000124"},"failures":{"N":"3"},"more":{"M":{"a":{"NULL":true}}}}}`)
	c, err := table.Issuer(iss, uri).Read(t.Context(), false)
	if err != nil || string(c.Set) != string(set) || !c.Sent.Equal(now) || !c.Lease.Equal(now.Add(time.Millisecond)) || c.Failures != 3 {
		t.Errorf("read %q, %v, %v, %v", c.Set, c.Sent, c.Lease, err)
	}

	table, _ = answering(t, 200, "{}")
	lease, err := table.Issuer(iss, uri).Take(t.Context(), now)
	if want := now.Add(fleet.LeaseTime); err != nil || !lease.Equal(want) {
		t.Errorf("taking the lease gives %v, %v", lease, err)
	}
	if err := table.Issuer(iss, uri).Put(t.Context(), lease, fleet.Copy{Sent: now}, now); err != nil {
		t.Errorf("putting: %v", err)
	}

	table, _ = answering(t, 400, `{"__type":"com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException","message":"The conditional request failed"}`)
	if lease, err := table.Issuer(iss, uri).Take(t.Context(), now); err != nil || !lease.IsZero() {
		t.Errorf("taking another's lease gives %v, %v", lease, err)
	}
	if err := table.Issuer(iss, uri).Put(t.Context(), now, fleet.Copy{Set: set, Sent: now}, now); err != nil {
		t.Errorf("putting under another's lease: %v", err)
	}
	if err := table.Issuer(iss, uri).Fail(t.Context(), now, now, 1); err != nil {
		t.Errorf("giving another's lease back: %v", err)
	}
}

// The calls of one search share a connection. One that may have been frozen is not used again.
func TestConnectionIsKept(t *testing.T) {
	t.Parallel()
	var connections atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Values("X-Idempotency-Key") != nil {
			t.Error("what is for net/http was sent")
		}
		_, _ = io.WriteString(w, "{}")
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	table := tableAt(t, s.URL)
	table.time = 10 * time.Second // how fast it is is not asked
	var clock time.Time
	table.client.Options().HTTPClient.(*client).now = func() time.Time { return clock }
	for _, step := range []struct {
		after time.Duration
		want  int32
	}{{0, 1}, {0, 1}, {keepTime, 1}, {keepTime + 1, 2}, {0, 2}, {-time.Hour, 3}, {time.Second, 3}} {
		clock = clock.Add(step.after)
		if _, err := table.Issuer(iss, uri).Read(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		if n := connections.Load(); n != step.want {
			t.Errorf("%v later it is connection %d, want %d", step.after, n, step.want)
		}
	}
}

// A fault between client and table costs its time and an error that tells what to do about it.
func TestFaults(t *testing.T) {
	t.Parallel()
	refusal := func(status int, code string) func(net.Conn) {
		body := `{"__type":"` + code + `","message":"secret-issuer secret-set secret-key"}`
		return whole(status, body)
	}
	item := `{"Item":{"jwks":{"B":"` + base64.StdEncoding.EncodeToString(set) + `"},"sent":{"N":"1"},"lease":{"N":"1"}}}`
	for what, row := range map[string]struct {
		answer func(net.Conn)
		want   string
		hangs  bool
	}{
		"no answer":       {func(c net.Conn) { wait(c) }, "no answer in time: context deadline exceeded", true},
		"half an answer":  {func(c net.Conn) { write(c, head(200, len(item))+item[:20]); wait(c) }, "no answer in time: context deadline exceeded", true},
		"half its header": {func(c net.Conn) { write(c, "HTTP/1.1 200 OK\r\nContent-Le"); wait(c) }, "no answer in time: context deadline exceeded", true},
		"a byte each 10 ms": {func(c net.Conn) {
			for _, b := range []byte(head(200, len(item)) + item) {
				write(c, string(b))
				<-time.After(10 * time.Millisecond)
			}
		}, "no answer in time: context deadline exceeded", true},

		"a reset":                     {reset, "connection reset by peer", false},
		"a reset within the answer":   {func(c net.Conn) { write(c, head(200, len(item))+item[:20]); reset(c) }, "connection reset by peer", false},
		"an end within the answer":    {func(c net.Conn) { write(c, head(200, len(item))+item[:20]) }, "an answer that is not DynamoDB's, status 200", false},
		"an end before the answer":    {func(net.Conn) {}, "no answer, or none that is HTTP", false},
		"what is not HTTP":            {func(c net.Conn) { write(c, "secret-set\r\n\r\n") }, "no answer, or none that is HTTP", false},
		"garbage":                     {whole(200, "secret-set"), "an answer that is not DynamoDB's, status 200", false},
		"an array":                    {whole(200, "[1]"), "an answer that is not DynamoDB's, status 200", false},
		"half a document":             {whole(200, item[:len(item)-4]), "an answer that is not DynamoDB's, status 200", false},
		"a redirect":                  {whole(307, ""), "an answer that is not DynamoDB's, status 307", false},
		"an error page":               {whole(502, "<html>secret-set</html>"), "an answer that is not DynamoDB's, status 502", false},
		"an error without a name":     {whole(400, "{}"), "an answer that is not DynamoDB's, status 400", false},
		"an error with a wild name":   {refusal(400, `secret set: \n`), "an answer that is not DynamoDB's, status 400", false},
		"a service that is down":      {refusal(500, "InternalServerError"), "InternalServerError, status 500", false},
		"a service that is busy":      {refusal(503, "ServiceUnavailable"), "ServiceUnavailable, status 503", false},
		"no permission":               {refusal(400, "com.amazon.coral.service#AccessDeniedException"), "AccessDeniedException, status 400", false},
		"credentials that are over":   {refusal(400, "com.amazon.coral.service#ExpiredTokenException"), "ExpiredTokenException, status 400", false},
		"credentials of nobody":       {refusal(400, "com.amazon.coral.service#UnrecognizedClientException"), "UnrecognizedClientException, status 400", false},
		"no such table":               {refusal(400, "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException"), "ResourceNotFoundException, status 400", false},
		"a table of another kind":     {refusal(400, "com.amazon.coral.validate#ValidationException"), "ValidationException, status 400", false},
		"a table that is throttled":   {refusal(400, "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException"), "ProvisionedThroughputExceededException, status 400", false},
		"an account that is":          {refusal(400, "com.amazonaws.dynamodb.v20120810#RequestLimitExceeded"), "RequestLimitExceeded, status 400", false},
		"a control plane that is":     {refusal(400, "com.amazon.coral.availability#ThrottlingException"), "ThrottlingException, status 400", false},
		"a condition, in a wrong way": {refusal(500, "ConditionalCheckFailed"), "ConditionalCheckFailed, status 500", false},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			endpoint, asked := listen(t, row.answer)
			table := tableAt(t, endpoint)
			if !row.hangs {
				table.time = 10 * time.Second // the answer ends it, however busy the machine
			}
			s := table.Issuer(iss, uri)
			n := int32(0)
			for _, o := range operations {
				begun := time.Now()
				ok, err := o.do(t.Context(), s)
				took := time.Since(begun)
				n++
				if err == nil || ok {
					t.Fatalf("%s: %v, %v", o.doing, ok, err)
				}
				noSecrets(t, err)
				if text := err.Error(); !strings.HasPrefix(text, o.doing) || !strings.Contains(text, row.want) || strings.Contains(text, "\n") {
					t.Errorf("the error is %q, want %q", text, row.want)
				}
				if row.hangs && (took < 250*time.Millisecond || took > 2*time.Second) { // the machine may be busy
					t.Errorf("%s took %v", o.doing, took)
				}
				if got := asked.Load(); got != n {
					t.Fatalf("%d connections after %d calls: each has one of its own, and nothing is tried again", got, n)
				}
			}
		})
	}
}

// What no DynamoDB sends is an error, not an absent item.
func TestItemsThatAreNone(t *testing.T) {
	t.Parallel()
	for _, item := range []string{`1`, `[]`, `{"jwks":1}`, `{"jwks":{"B":1}}`, `{"jwks":{"B":"secret-set"}}`, `{"sent":{"N":1}}`} {
		endpoint, _ := listen(t, whole(200, `{"Item":`+item+`}`))
		c, err := tableAt(t, endpoint).Issuer(iss, uri).Read(t.Context(), false)
		if err == nil || err.Error() != "reading the table the-table: an answer that is not DynamoDB's, status 200" || c.Set != nil || !c.Lease.IsZero() {
			t.Errorf("%s reads as %v, %v", item, c, err)
		}
	}
}

// An answer comes in parts, more often the larger it is.
func TestAnswerInParts(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("AAAA", 6000)
	answer := `{"Item":{"jwks":{"B":"` + big + `"},"sent":{"N":"1"},"lease":{"N":"1"}}}`
	endpoint, _ := listen(t, func(c net.Conn) {
		write(c, head(200, len(answer))+answer[:100])
		<-time.After(5 * time.Millisecond)
		write(c, answer[100:])
	})
	table := tableAt(t, endpoint)
	table.time = 10 * time.Second // how fast it is is not asked
	s := table.Issuer(iss, uri)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				if c, err := s.Read(t.Context(), false); err != nil || len(c.Set) != 18000 {
					t.Errorf("%d bytes, %v", len(c.Set), err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// Whatever the answer: a copy, or an error in words of ours.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []struct {
		status int
		body   string
	}{
		{200, `{}`}, {200, `{"Item":{"jwks":{"B":"e30="},"sent":{"N":"1"},"lease":{"N":"1"}}}`}, {200, `{"Item":{"jwks":{"M":{"a":{"L":[{"BOOL":true}]}}}}}`},
		{200, `{"Item":null}`}, {200, `null`}, {200, ``}, {200, `{"Item":{"sent":{"N":"1e400"},"jwks":{"BS":["AA=="]},"lease":{"NULL":true}}}`},
		{400, `{"__type":"a#ConditionalCheckFailedException","Item":{"jwks":{"B":1}}}`}, {400, `{"__type":1}`}, {400, `{"__type":"a#"}`}, {500, `{"code":"x y"}`}, {0, `{}`}, {-1, ``},
		{200, `{"Item":{"":{"L":[,{} ]`}, // the SDK's later versions panic
	} {
		f.Add(seed.status, seed.body)
	}
	f.Fuzz(func(t *testing.T, status int, body string) {
		table, err := New(getenv(environment("http://localhost")), "the-table")
		if err != nil {
			t.Fatal(err)
		}
		table.through(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
		})
		for _, o := range operations {
			ok, err := o.do(t.Context(), table.Issuer(iss, uri))
			if err == nil {
				continue
			}
			noSecrets(t, err)
			ours := regexp.MustCompile(`^[a-z -]+: ((an answer that is not DynamoDB's|[A-Za-z]{1,64}), status -?\d+|no answer, or none that is HTTP)$`)
			if ok || !ours.MatchString(err.Error()) {
				t.Errorf("%v, %q", ok, err)
			}
		}
	})
}

// A call ends with its caller's time, too, and without time there is none.
func TestContext(t *testing.T) {
	t.Parallel()
	endpoint, asked := listen(t, wait)
	table := tableAt(t, endpoint)
	table.time = time.Hour
	s := table.Issuer(iss, uri)
	for _, o := range operations {
		begun := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, err := o.do(ctx, s)
		if took := time.Since(begun); err == nil || took > time.Minute {
			t.Errorf("%s: %v after %v", o.doing, err, took)
		}
		cancel()
		before := asked.Load()
		if _, err := o.do(ctx, s); err == nil || asked.Load() != before {
			t.Errorf("%s: %v, and it asked", o.doing, err)
		}
	}
}

// Nobody listens: the network's error says where.
func TestNobodyListens(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	for _, o := range operations {
		if _, err := o.do(t.Context(), tableAt(t, "http://"+address).Issuer(iss, uri)); err == nil || !strings.Contains(err.Error(), address+": connect: connection refused") {
			t.Errorf("%s: %v", o.doing, err)
		}
	}
}

// listen answers each connection, after its request has come in, and closes it.
func listen(t *testing.T, answer func(net.Conn)) (endpoint string, connections *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	connections = new(atomic.Int32)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			wg.Go(func() {
				defer c.Close()
				defer context.AfterFunc(t.Context(), func() { _ = c.Close() })() // net/http may dial one more than it uses
				buf := make([]byte, 4096)
				for request := ""; !strings.Contains(request, "\r\n\r\n{") || !strings.HasSuffix(request, "}"); {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					request += string(buf[:n])
				}
				answer(c)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return "http://" + l.Addr().String(), connections
}

func write(c net.Conn, s string) { _, _ = io.WriteString(c, s) }

// wait returns when the client has gone.
func wait(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

func reset(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) }

func head(status, length int) string {
	return "HTTP/1.1 " + strconv.Itoa(status) + " X\r\nContent-Type: application/x-amz-json-1.0\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: " + strconv.Itoa(length) + "\r\n\r\n"
}

func whole(status int, body string) func(net.Conn) {
	return func(c net.Conn) { write(c, head(status, len(body))+body) }
}
