//go:build store

package jwkstable

import (
	"context"
	"maps"
	"os"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"go.yaml.in/yaml/v3"

	"zuplo-lambda-authorizer/internal/fleet/storetest"
)

// What every store must do, on the DynamoDB at STORE_ENDPOINT: make test-store starts one.
func TestDynamoDB(t *testing.T) {
	endpoint := os.Getenv("STORE_ENDPOINT")
	if endpoint == "" {
		t.Fatal("STORE_ENDPOINT is not set: make test-store sets it")
	}
	ctx := context.Background() // the parallel cases outlive the test's own
	table := &table{T: t, Table: tableAt(t, endpoint)}
	table.time = 10 * time.Second // how fast it is is not asked
	create, ttl := deployed(t)
	create.TableName = &table.name
	if attributes(new(storetest.Item))[ttl] == nil {
		t.Errorf("the TTL attribute is %s, which is none of an item", ttl)
	}
	_, err := table.client.CreateTable(ctx, create)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := table.client.DeleteTable(ctx, &dynamodb.DeleteTableInput{TableName: &table.name}); err != nil {
			t.Error(err)
		}
	})
	storetest.Run(t, table)
}

// deployed is the table of template.yaml, and its TTL attribute.
func deployed(t *testing.T) (table *dynamodb.CreateTableInput, ttl string) {
	t.Helper()
	var template struct {
		Resources struct {
			AuthorizerJwks struct {
				Properties struct {
					BillingMode          types.BillingMode `yaml:"BillingMode"`
					AttributeDefinitions []struct {
						AttributeName string                    `yaml:"AttributeName"`
						AttributeType types.ScalarAttributeType `yaml:"AttributeType"`
					} `yaml:"AttributeDefinitions"`
					KeySchema []struct {
						AttributeName string        `yaml:"AttributeName"`
						KeyType       types.KeyType `yaml:"KeyType"`
					} `yaml:"KeySchema"`
					TimeToLiveSpecification struct {
						AttributeName string `yaml:"AttributeName"`
					} `yaml:"TimeToLiveSpecification"`
				} `yaml:"Properties"`
			} `yaml:"AuthorizerJwks"`
		} `yaml:"Resources"`
	}
	text, err := os.ReadFile("../../template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &template); err != nil {
		t.Fatal(err)
	}
	p := template.Resources.AuthorizerJwks.Properties
	table = &dynamodb.CreateTableInput{BillingMode: p.BillingMode}
	for _, a := range p.AttributeDefinitions {
		table.AttributeDefinitions = append(table.AttributeDefinitions, types.AttributeDefinition{AttributeName: &a.AttributeName, AttributeType: a.AttributeType})
	}
	for _, k := range p.KeySchema {
		table.KeySchema = append(table.KeySchema, types.KeySchemaElement{AttributeName: &k.AttributeName, KeyType: k.KeyType})
	}
	return table, p.TimeToLiveSpecification.AttributeName
}

// A table as storetest sees it, with the items behind it.
type table struct {
	*testing.T
	*Table
}

func (t *table) Item(issuer, uri string) (i storetest.Item) {
	out, err := t.client.GetItem(context.Background(), &dynamodb.GetItemInput{TableName: &t.name, Key: t.key(issuer, uri), ConsistentRead: aws.Bool(true)})
	if err != nil {
		t.Error(err)
		return i
	}
	for name, at := range attributes(&i) {
		switch v := out.Item[name].(type) {
		case *types.AttributeValueMemberN:
			*at = storetest.Number(v.Value)
		case *types.AttributeValueMemberS:
			*at = v.Value
		case *types.AttributeValueMemberB:
			*at = v.Value
		case *types.AttributeValueMemberBOOL:
			*at = v.Value
		case nil:
		default:
			t.Errorf("%s is a %T", name, v)
		}
	}
	return i
}

func (t *table) SetItem(issuer, uri string, i storetest.Item) {
	item := maps.Clone(t.key(issuer, uri))
	for name, at := range attributes(&i) {
		switch v := (*at).(type) {
		case storetest.Number:
			item[name] = &types.AttributeValueMemberN{Value: string(v)}
		case string:
			item[name] = text(v)
		case []byte:
			item[name] = &types.AttributeValueMemberB{Value: v}
		case bool:
			item[name] = &types.AttributeValueMemberBOOL{Value: v}
		}
	}
	if _, err := t.client.PutItem(context.Background(), &dynamodb.PutItemInput{TableName: &t.name, Item: item}); err != nil {
		t.Error(err)
	}
}

func (t *table) key(issuer, uri string) map[string]types.AttributeValue {
	return t.Issuer(issuer, uri).(*item).key
}

func attributes(i *storetest.Item) map[string]*any {
	return map[string]*any{"jwks": &i.Set, "sent": &i.Sent, "lease": &i.Lease, "failures": &i.Failures, "expires": &i.Expires}
}
