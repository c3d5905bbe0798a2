// Package jwkstable shares key sets among a fleet: each is a jwks.Store, one item of a DynamoDB table.
//
// The table's partition key is issuer, its sort key is uri, both strings: the issuer and the URI of its JWKS. The other
// attributes of an item are
//
//	jwks       binary  the key set as received; empty: it is too large to share
//	sent       number  when its request was sent, in milliseconds since 1970
//	next_turn  number  until when the issuer must not be asked, in milliseconds since 1970
//	expires    number  when DynamoDB may delete the item (TTL), in seconds since 1970
//
// A read is billed by 4 KB and a write by 1 KB, of the whole item: names are short, and nothing else is kept.
package jwkstable

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"zuplo-lambda-authorizer/internal/jwks"
)

// callTime is how long one call may take: what help may cost that does not come.
const callTime = 250 * time.Millisecond

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
	credentials := aws.Credentials{
		AccessKeyID:     getenv("AWS_ACCESS_KEY_ID"),
		SecretAccessKey: getenv("AWS_SECRET_ACCESS_KEY"),
		SessionToken:    getenv("AWS_SESSION_TOKEN"),
	}
	if credentials.AccessKeyID == "" {
		wrong("AWS_ACCESS_KEY_ID", "required by JWKS_TABLE")
	}
	if credentials.SecretAccessKey == "" {
		wrong("AWS_SECRET_ACCESS_KEY", "required by JWKS_TABLE")
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
		if err := jwks.CheckURL(value); err != nil {
			wrong(variable, err.Error())
		}
		endpoint = &value
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}

	return &Table{name: name, time: callTime, client: dynamodb.New(dynamodb.Options{
		Region:       region,
		BaseEndpoint: endpoint,
		Credentials:  aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return credentials, nil }),
		HTTPClient:   client{jwks.NewClient()},
		Retryer:      aws.NopRetryer{}, // a second call is for the next invocation
	})}, nil
}

// A client sends each request's body from memory.
//
// The SDK's own body is closed as soon as an answer begins, and when net/http then looks whether more of it follows,
// returns io.EOF from WriteTo, which no WriterTo may: net/http takes that for a failed request and closes the connection
// in the middle of the answer. It also costs a second packet.
type client struct{ *http.Client }

func (c client) Do(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return c.Client.Do(r)
}

// Issuer returns the store of an issuer's key set, which is fetched from uri. Each call takes at most 250 ms.
func (t *Table) Issuer(issuer, uri string) jwks.Store {
	return &item{t, map[string]types.AttributeValue{"issuer": text(issuer), "uri": text(uri)}}
}

// An item is the store of one issuer and URI.
type item struct {
	*Table
	key map[string]types.AttributeValue
}

func (i *item) Read(ctx context.Context, consistent bool) (jwks.Copy, error) {
	ctx, cancel := context.WithTimeout(ctx, i.time)
	defer cancel()
	out, err := i.client.GetItem(ctx, &dynamodb.GetItemInput{TableName: &i.name, Key: i.key, ConsistentRead: &consistent})
	if err != nil {
		return jwks.Copy{}, i.failed(ctx, "reading", err)
	}
	var c jwks.Copy
	c.NextTurn, _ = moment(out.Item["next_turn"])
	set, isSet := out.Item["jwks"].(*types.AttributeValueMemberB)
	if sent, ok := moment(out.Item["sent"]); ok && isSet {
		c.Set, c.Sent = set.Value, sent
	}
	return c, nil
}

func (i *item) Take(ctx context.Context, now time.Time) (turn time.Time, ok bool, err error) {
	turn = time.UnixMilli(now.Add(jwks.TurnTime).UnixMilli())
	ok, err = i.update(ctx, "taking a turn in", "SET next_turn = :turn",
		"attribute_not_exists(next_turn) OR NOT attribute_type(next_turn, :number) OR next_turn <= :now OR next_turn > :ahead",
		map[string]types.AttributeValue{
			":turn":   milliseconds(turn),
			":number": text("N"),
			":now":    milliseconds(now),
			":ahead":  milliseconds(now.Add(jwks.TurnAhead)),
		})
	if !ok {
		return time.Time{}, false, err
	}
	return turn, true, nil
}

func (i *item) Put(ctx context.Context, turn time.Time, c jwks.Copy, expires time.Time) (ok bool, err error) {
	set := c.Set
	if set == nil {
		set = []byte{} // nil would not be sent
	}
	return i.update(ctx, "writing", "SET jwks = :jwks, sent = :sent, expires = :expires", "next_turn = :turn",
		map[string]types.AttributeValue{
			":jwks":    &types.AttributeValueMemberB{Value: set},
			":sent":    milliseconds(c.Sent),
			":expires": number(expires.Unix()),
			":turn":    milliseconds(turn),
		})
}

// update writes if the condition holds. ok is false, without an error, when it does not.
func (i *item) update(ctx context.Context, doing, update, condition string, values map[string]types.AttributeValue) (ok bool, err error) {
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

// causes are DynamoDB's errors that an operator can do something about.
var causes = map[string]string{
	"AccessDeniedException":                  "denied",
	"UnrecognizedClientException":            "denied",
	"InvalidSignatureException":              "denied",
	"MissingAuthenticationTokenException":    "denied",
	"ExpiredTokenException":                  "denied",
	"ResourceNotFoundException":              "absent",
	"ThrottlingException":                    "throttled",
	"RequestLimitExceeded":                   "throttled",
	"ProvisionedThroughputExceededException": "throttled",
}

const noCode = "UnknownError" // the SDK's word for an error without one

// What the SDK's errors can say, by the methods that they have.
type (
	codeError interface {
		error
		ErrorCode() string // DynamoDB's name for it
	}
	statusError interface {
		error
		HTTPStatusCode() int
	}
)

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
	answer, ok := errors.AsType[statusError](err)
	if !ok || answer.HTTPStatusCode() == 0 {
		return errors.New("no answer, or none that is HTTP")
	}
	status := answer.HTTPStatusCode()
	named, ok := errors.AsType[codeError](err)
	if !ok || !of(lower+upper, named.ErrorCode(), 1, 64) || named.ErrorCode() == noCode {
		return fmt.Errorf("an answer that is not DynamoDB's, status %d", status)
	}
	if what := causes[named.ErrorCode()]; what != "" {
		return fmt.Errorf("%s: %s, status %d", what, named.ErrorCode(), status)
	}
	return fmt.Errorf("%s, status %d", named.ErrorCode(), status)
}

func text(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

func number(n int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(n, 10)}
}

func milliseconds(t time.Time) types.AttributeValue { return number(t.UnixMilli()) }

// moment is the time that an attribute holds in milliseconds since 1970; ok is false if it holds none.
func moment(v types.AttributeValue) (t time.Time, ok bool) {
	n, ok := v.(*types.AttributeValueMemberN)
	if !ok {
		return time.Time{}, false
	}
	ms, err := strconv.ParseInt(n.Value, 10, 64)
	if err != nil || ms <= 0 {
		return time.Time{}, false
	}
	return time.UnixMilli(ms), true
}
