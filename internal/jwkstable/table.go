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
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"zuplo-lambda-authorizer/internal/fleet"
	"zuplo-lambda-authorizer/internal/issuer"
)

const (
	callTime = 250 * time.Millisecond // how long one call may take: what help may cost that does not come
	keepTime = 3 * time.Second        // how long a connection is good for another call; one that was frozen is not
)

// A Table is a DynamoDB table of key sets. Its stores are safe for concurrent use.
type Table struct {
	name   string
	client *dynamodb.Client
	time   time.Duration // callTime
}

const (
	lower  = "abcdefghijklmnopqrstuvwxyz"
	upper  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits = "0123456789"
)

// of reports whether s is of these characters, low to high of them. Regular expressions would be compiled at the start of
// each process, those without a table, too, and take longer than most of it.
func of(characters, s string, low, high int) bool {
	return len(s) >= low && len(s) <= high && strings.Trim(s, characters) == ""
}

// New returns the table of that name without asking for it. Credentials, region and endpoint come from the variables
// that Lambda and AWS's tools use: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN; AWS_REGION, else
// AWS_DEFAULT_REGION; AWS_ENDPOINT_URL_DYNAMODB, else AWS_ENDPOINT_URL, else the region's. They are read once. The
// error names everything that is wrong, a line each that begins with the variable's name; name stands as JWKS_TABLE.
func New(getenv func(string) string, name string) (*Table, error) {
	var errs []error
	wrong := func(variable, why string) { errs = append(errs, errors.New(variable+": "+why)) }
	first := func(variables ...string) (variable, value string) {
		for _, variable = range variables {
			if value = getenv(variable); value != "" {
				return variable, value
			}
		}
		return variables[0], ""
	}

	if !of(lower+upper+digits+"_.-", name, 3, 255) {
		wrong("JWKS_TABLE", "not the name of a DynamoDB table: 3 to 255 letters, digits, underscores, hyphens and dots")
	}
	for _, variable := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} {
		if getenv(variable) == "" {
			wrong(variable, "required by JWKS_TABLE")
		}
	}
	credentials := aws.Credentials{
		AccessKeyID: getenv("AWS_ACCESS_KEY_ID"), SecretAccessKey: getenv("AWS_SECRET_ACCESS_KEY"), SessionToken: getenv("AWS_SESSION_TOKEN"),
	}
	variable, region := first("AWS_REGION", "AWS_DEFAULT_REGION")
	switch {
	case region == "":
		wrong(variable, "required by JWKS_TABLE")
	case !of(lower+digits+"-", region, 1, 63):
		wrong(variable, "not the name of a region, such as us-east-1")
	}
	var endpoint *string
	if variable, value := first("AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL"); value != "" {
		// Keys come from there: the rules are those for the issuer.
		if err := issuer.CheckURL(value); err != nil {
			wrong(variable, err.Error())
		}
		endpoint = &value
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}

	return &Table{name: name, time: callTime, client: dynamodb.New(dynamodb.Options{
		AppID:        issuer.UserAgent,
		Region:       region,
		BaseEndpoint: endpoint,
		Credentials:  aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return credentials, nil }),
		HTTPClient:   &client{Client: issuer.NewClient(true), now: time.Now},
		Retryer:      aws.NopRetryer{}, // a second call is for the next invocation
	})}, nil
}

// A client keeps a connection for the calls of one search, and sends each request's body from memory.
//
// The SDK's own body is closed as soon as an answer begins, and when net/http then looks whether more of it follows,
// returns io.EOF from WriteTo, which no WriterTo may: net/http takes that for a failed request and closes the connection
// in the middle of the answer. It also costs a second packet.
type client struct {
	*http.Client
	now func() time.Time // the wall clock

	mu   sync.Mutex
	used time.Time
}

func (c *client) Do(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.Body, _ = r.GetBody()
	r.Header["X-Idempotency-Key"] = nil // net/http tries again if a kept connection turns out to be closed; it is not sent
	c.mu.Lock()
	now := c.now().Round(0)
	old := now.Sub(c.used).Abs() > keepTime
	c.used = now
	c.mu.Unlock()
	if old {
		c.CloseIdleConnections()
	}
	return c.Client.Do(r)
}

// Issuer returns the store of an issuer's key set, which is fetched from uri. Each call takes at most 250 ms.
func (t *Table) Issuer(issuer, uri string) fleet.Store {
	hash := sha256.Sum256([]byte(issuer + "\n" + uri)) // neither holds a line feed
	return &item{t, map[string]types.AttributeValue{"id": text(hex.EncodeToString(hash[:16]))}}
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
	set := c.Set
	if set == nil {
		set = []byte{} // nil would not be sent
	}
	_, err := i.update(ctx, "writing", "SET jwks = :jwks, sent = :sent, expires = :expires REMOVE failures", "lease = :lease",
		map[string]types.AttributeValue{
			":jwks":    &types.AttributeValueMemberB{Value: set},
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
	if _, lost := errors.AsType[*types.ConditionalCheckFailedException](err); lost {
		return false, nil
	}
	if err != nil {
		return false, i.failed(ctx, doing, err)
	}
	return true, nil
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
	status, code := response.HTTPStatusCode(), ""
	if named, ok := errors.AsType[smithy.APIError](err); ok {
		code = named.ErrorCode()
	}
	what := ""
	switch code {
	case "AccessDeniedException", "UnrecognizedClientException", "InvalidSignatureException", "MissingAuthenticationTokenException", "ExpiredTokenException":
		what = "denied: "
	case "ResourceNotFoundException":
		what = "absent: "
	case "ThrottlingException", "RequestLimitExceeded", "ProvisionedThroughputExceededException":
		what = "throttled: "
	case "UnknownError": // the SDK's word for an error without one
		code = ""
	}
	if !of(lower+upper, code, 1, 64) {
		return fmt.Errorf("an answer that is not DynamoDB's, status %d", status)
	}
	return fmt.Errorf("%s%s, status %d", what, code, status)
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
	n, ok := v.(*types.AttributeValueMemberN)
	if !ok {
		return 0
	}
	i, err := strconv.ParseInt(n.Value, 10, 64)
	if err != nil {
		return 0
	}
	return max(0, i)
}
