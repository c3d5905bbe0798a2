// Package jwkstable shares key sets among a fleet: each is a fleet.Store, one item of a DynamoDB table.
//
// The table's partition key is id, a string: a hash of the issuer and the URI of its JWKS, because the URI may hold a
// secret. The other attributes of an item are
//
//	jwks      binary  the key set as received; empty: it is too large to share
//	sent      number  when its request was sent, in milliseconds since 1970
//	lease     number  until when the issuer must not be asked, in milliseconds since 1970
//	failures  number  of those who had the lease, in a row; absent: none
//	expires   number  when DynamoDB may delete the item (TTL), in seconds since 1970
//
// A read is billed by 4 KB and a write by 1 KB, of the whole item: names are short, and nothing else is kept.
package jwkstable

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"zuplo-lambda-authorizer/internal/fleet"
	"zuplo-lambda-authorizer/internal/issuer"
)

// How long one call may take: what help may cost that does not come.
const callTime = 250 * time.Millisecond

// How long a connection is good for another call. One that was frozen is not.
const keepTime = 3 * time.Second

// A Table is a DynamoDB table of key sets. Its stores are safe for concurrent use.
type Table struct {
	name   string
	client *dynamodb.Client
	time   time.Duration // callTime
}

// Regular expressions would be compiled at the start of each process, those without a table, too, and take longer than
// most of it.
const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// CheckName says what is wrong with the name of a table.
func CheckName(name string) error {
	if len(name) < 3 || len(name) > 255 || strings.Trim(name, letters+"0123456789_.-") != "" {
		return errors.New("not the name of a DynamoDB table: 3 to 255 letters, digits, underscores, hyphens and dots")
	}
	return nil
}

// New returns the table of that name, which CheckName accepts, without asking for it. The rest comes from the variables
// of Lambda and of AWS's tools, once, and counts as for any program that is built on the SDK:
//
//	AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
//	AWS_REGION, else AWS_DEFAULT_REGION
//	AWS_ENDPOINT_URL_DYNAMODB, else AWS_ENDPOINT_URL; neither with AWS_IGNORE_CONFIGURED_ENDPOINT_URLS
//	AWS_USE_FIPS_ENDPOINT, AWS_USE_DUALSTACK_ENDPOINT
//	AWS_ACCOUNT_ID, AWS_ACCOUNT_ID_ENDPOINT_MODE
//
// AWS_CONFIG_FILE is refused: Lambda has no such file, and what reads it would triple the SDK. The error says which
// variables keep the table from being used and why, without a value that may hold a secret.
func New(getenv func(string) string, name string) (*Table, error) {
	var given []string // the variables that count
	var wrong error
	value := func(variables ...string) string {
		for _, variable := range variables {
			if v := getenv(variable); v != "" {
				given = append(given, variable)
				return v
			}
		}
		return ""
	}
	on := func(variable string) bool {
		v := strings.ToLower(value(variable))
		if v != "" && v != "true" && v != "false" {
			wrong = fmt.Errorf("%s: neither true nor false", variable)
		}
		return v == "true"
	}
	credentials := aws.Credentials{
		AccessKeyID: getenv("AWS_ACCESS_KEY_ID"), SecretAccessKey: getenv("AWS_SECRET_ACCESS_KEY"), SessionToken: getenv("AWS_SESSION_TOKEN"),
		AccountID: value("AWS_ACCOUNT_ID"),
	}
	o := dynamodb.Options{
		AppID:                 issuer.UserAgent,
		Region:                value("AWS_REGION", "AWS_DEFAULT_REGION"),
		AccountIDEndpointMode: aws.AccountIDEndpointMode(cmp.Or(value("AWS_ACCOUNT_ID_ENDPOINT_MODE"), aws.AccountIDEndpointModePreferred)),
		Credentials:           aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return credentials, nil }),
		HTTPClient:            &client{Client: issuer.NewClient(true), now: time.Now},
		Retryer:               aws.NopRetryer{}, // a second call is for the next invocation
	}
	if on("AWS_USE_FIPS_ENDPOINT") {
		o.EndpointOptions.UseFIPSEndpoint = aws.FIPSEndpointStateEnabled
	}
	if on("AWS_USE_DUALSTACK_ENDPOINT") {
		o.EndpointOptions.UseDualStackEndpoint = aws.DualStackEndpointStateEnabled
	}
	if !on("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS") {
		if v := value("AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL"); v != "" {
			o.BaseEndpoint = &v
			if err := issuer.CheckURL(v); err != nil { // keys come from there: the rules are those for the issuer
				wrong = fmt.Errorf("%s: %w", given[len(given)-1], err)
			}
		}
	}
	t := &Table{name, dynamodb.New(o), callTime}
	switch {
	case getenv("AWS_CONFIG_FILE") != "":
		wrong = errors.New("AWS_CONFIG_FILE: no file is read, only variables")
	case !credentials.HasKeys():
		wrong = errors.New("AWS_ACCESS_KEY_ID or AWS_SECRET_ACCESS_KEY: not set")
	case wrong == nil:
		// What the SDK has against its options it says when a call is about to be sent. This one is not.
		accepted := errors.New("accepted")
		o.HTTPClient = smithyhttp.ClientDoFunc(func(*http.Request) (*http.Response, error) { return nil, accepted })
		_, err := dynamodb.New(o).GetItem(context.Background(), &dynamodb.GetItemInput{TableName: &name, Key: map[string]types.AttributeValue{}})
		if op, ok := errors.AsType[*smithy.OperationError](err); ok && !errors.Is(err, accepted) {
			step, why, _ := strings.Cut(op.Err.Error(), ", ")
			wrong = errors.New(cmp.Or(strings.Join(given, ", "), "AWS_REGION") + ": " + cmp.Or(why, step))
		}
	}
	if wrong != nil {
		return nil, fmt.Errorf("the table %s: %w", name, wrong)
	}
	return t, nil
}

// A client keeps a connection for the calls of one search, and sends each request's body from memory.
//
// The SDK's own body is closed as soon as an answer begins, and when net/http then looks whether more of it follows,
// returns io.EOF from WriteTo, which no WriterTo may: net/http takes that for a failed request and closes the connection
// in the middle of the answer. It also costs a second packet.
type client struct {
	*http.Client
	now  func() time.Time // the wall clock
	used atomic.Int64     // the last time, in nanoseconds since 1970
}

func (c *client) Do(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.Body, _ = r.GetBody()
	r.Header["X-Idempotency-Key"] = nil // net/http tries again if a kept connection turns out to be closed; it is not sent
	if now := c.now().UnixNano(); time.Duration(now-c.used.Swap(now)).Abs() > keepTime {
		c.CloseIdleConnections()
	}
	return c.Client.Do(r)
}

// Issuer returns the store of an issuer's key set, which is fetched from uri. Each call takes at most 250 ms.
func (t *Table) Issuer(issuer, uri string) fleet.Store {
	hash := sha256.Sum256([]byte(issuer + "\n" + uri)) // neither holds a line feed
	return &item{t, map[string]types.AttributeValue{"id": text(fmt.Sprintf("%x", hash[:16]))}}
}

// An item is the store of one issuer and URI.
type item struct {
	*Table
	key map[string]types.AttributeValue
}

func (i *item) Read(ctx context.Context, consistent bool) (fleet.Copy, error) {
	ctx, cancel := context.WithTimeout(ctx, i.time)
	defer cancel()
	out, err := i.client.GetItem(ctx, &dynamodb.GetItemInput{TableName: &i.name, Key: i.key, ConsistentRead: &consistent})
	if err != nil {
		return fleet.Copy{}, i.failed(ctx, "reading", err)
	}
	c := fleet.Copy{Lease: moment(out.Item["lease"]), Failures: int(min(integer(out.Item["failures"]), math.MaxInt32))}
	set, isSet := out.Item["jwks"].(*types.AttributeValueMemberB)
	if sent := moment(out.Item["sent"]); isSet && !sent.IsZero() {
		c.Set, c.Sent = set.Value, sent
	}
	return c, nil
}

func (i *item) Take(ctx context.Context, now time.Time) (end time.Time, err error) {
	end = time.UnixMilli(now.Add(fleet.LeaseTime).UnixMilli())
	held, err := i.update(ctx, "taking the lease in", "SET lease = :end",
		"attribute_not_exists(lease) OR NOT attribute_type(lease, :number) OR lease <= :now OR lease > :ahead",
		map[string]types.AttributeValue{
			":end":    milliseconds(end),
			":number": text("N"),
			":now":    milliseconds(now),
			":ahead":  milliseconds(now.Add(fleet.LeaseAhead)),
		})
	if !held {
		return time.Time{}, err
	}
	return end, nil
}

func (i *item) Put(ctx context.Context, lease time.Time, c fleet.Copy, expires time.Time) error {
	_, err := i.update(ctx, "writing", "SET jwks = :jwks, sent = :sent, expires = :expires REMOVE failures", "lease = :lease",
		map[string]types.AttributeValue{
			":jwks":    &types.AttributeValueMemberB{Value: append([]byte{}, c.Set...)}, // nil would not be sent
			":sent":    milliseconds(c.Sent),
			":expires": number(expires.Unix()),
			":lease":   milliseconds(lease),
		})
	return err
}

func (i *item) Fail(ctx context.Context, lease, until time.Time, failures int) error {
	_, err := i.update(ctx, "writing", "SET lease = :until, failures = :failures", "lease = :lease",
		map[string]types.AttributeValue{
			":until":    milliseconds(until),
			":failures": number(int64(failures)),
			":lease":    milliseconds(lease),
		})
	return err
}

// update writes if the condition holds. held is false, without an error, when it does not.
func (i *item) update(ctx context.Context, doing, update, condition string, values map[string]types.AttributeValue) (held bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, i.time)
	defer cancel()
	_, err = i.client.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName: &i.name, Key: i.key,
		UpdateExpression: &update, ConditionExpression: &condition, ExpressionAttributeValues: values,
	})
	if _, lost := errors.AsType[*types.ConditionalCheckFailedException](err); err == nil || lost {
		return !lost, nil
	}
	return false, i.failed(ctx, doing, err)
}

// failed says what came back, in words of ours: what an endpoint writes into its errors may hold anything.
func (t *Table) failed(ctx context.Context, doing string, err error) error {
	return fmt.Errorf("%s the table %s: %w", doing, t.name, cause(ctx, err))
}

func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("no answer in time: %w", ctx.Err())
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op
	}
	if certificate, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return certificate
	}
	response, ok := errors.AsType[*smithyhttp.ResponseError](err)
	if !ok || response.HTTPStatusCode() == 0 {
		return errors.New("no answer, or none that is HTTP")
	}
	status, code := response.HTTPStatusCode(), "UnknownError" // the SDK's word for an error without one
	if named, ok := errors.AsType[smithy.APIError](err); ok {
		code = named.ErrorCode()
	}
	if code == "UnknownError" || code == "" || len(code) > 64 || strings.Trim(code, letters) != "" {
		return fmt.Errorf("an answer that is not DynamoDB's, status %d", status)
	}
	return fmt.Errorf("%s, status %d", code, status)
}

func text(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

func number(n int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(n, 10)}
}

func milliseconds(t time.Time) types.AttributeValue { return number(t.UnixMilli()) }

// moment is the time that an attribute holds in milliseconds since 1970, and zero if it holds none.
func moment(v types.AttributeValue) (t time.Time) {
	if ms := integer(v); ms > 0 {
		t = time.UnixMilli(ms)
	}
	return t
}

// integer is the positive integer that an attribute holds, and 0 if it holds none.
func integer(v types.AttributeValue) int64 {
	if n, ok := v.(*types.AttributeValueMemberN); ok {
		if i, err := strconv.ParseInt(n.Value, 10, 64); err == nil {
			return max(0, i)
		}
	}
	return 0
}
