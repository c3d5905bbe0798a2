package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/smithy-go/encoding/cbor"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

const (
	authorizer = "arn:aws:lambda:eu-west-1:123456789012:function:auth"
	uri        = "arn:aws:apigateway:eu-west-1:lambda:path/2015-03-31/functions/" + authorizer + "/invocations"
	functions  = "/2015-03-31/functions/" + authorizer
	groups     = "DescribeLogGroups"
)

// cloud has AWS's answers, JSON, by what is asked: a method, a path and the parameter that decides, or an operation. What
// begins with ! is an error's code.
type cloud map[string]string

// with returns a copy in which some answers are others. An empty one is taken away.
func (c cloud) with(changes ...cloud) cloud {
	c = maps.Clone(c)
	for _, change := range changes {
		maps.Copy(c, change)
	}
	maps.DeleteFunc(c, func(_, v string) bool { return v == "" })
	return c
}

// good is an account with an API of each kind, behind one authorizer, in which nothing is open or wrong.
func good() cloud {
	c := cloud{
		"GetCallerIdentity": `<GetCallerIdentityResponse><GetCallerIdentityResult><Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`,
		"ListStackResources shop": stack("AWS::ApiGateway::RestApi rest", "AWS::ApiGatewayV2::Api http", "AWS::CloudFormation::Stack inner",
			"AWS::Lambda::Function auth", "AWS::Lambda::Function backend"),
		"ListStackResources inner": stack("AWS::ApiGatewayV2::Api live"),

		"GET /restapis/rest": `{"id":"rest","name":"orders","endpointConfiguration":{"types":["REGIONAL"]}}`,
		"GET /restapis/rest/authorizers": `{"item":[{"id":"a1","name":"Jwt","type":"TOKEN","authorizerUri":"` + uri +
			`","identitySource":"method.request.header.Authorization","authorizerResultTtlInSeconds":300}]}`,
		"GET /restapis/rest/stages":                     `{"item":[{"stageName":"prod","deploymentId":"d1"}]}`,
		"GET /domainnames":                              `{"item":[{"domainName":"old.example"}]}`,
		"GET /domainnames/old.example/basepathmappings": `{"item":[{"basePath":"(none)","restApiId":"another"}]}`,

		"GET /v2/apis/http":                            `{"apiId":"http","name":"orders","protocolType":"HTTP"}`,
		"GET /v2/apis/http/authorizers":                `{"items":[{"authorizerId":"a2","name":"Jwt"}]}`,
		"GET /v2/apis/http/stages":                     `{"items":[{"stageName":"$default","autoDeploy":true}]}`,
		"GET /v2/domainnames":                          `{"items":[{"domainName":"new.example","routingMode":"ROUTING_RULE_THEN_API_MAPPING"}]}`,
		"GET /v2/domainnames/new.example/apimappings":  `{"items":[{"apiId":"another","stage":"prod"}]}`,
		"GET /v2/domainnames/new.example/routingrules": `{"routingRules":[{"actions":[{"invokeApi":{"apiId":"another","stage":"prod"}}]}]}`,

		"GET /v2/apis/live": `{"apiId":"live","name":"live","protocolType":"WEBSOCKET"}`,
		"GET /v2/apis/live/authorizers": `{"items":[{"authorizerId":"a3","name":"Jwt","authorizerType":"REQUEST","authorizerUri":"` + uri +
			`","identitySource":["route.request.header.Authorization"]}]}`,
		"GET /v2/apis/live/stages":      `{"items":[{"stageName":"prod","autoDeploy":true,"deploymentId":"d2"}]}`,
		"GET /v2/apis/live/deployments": `{"items":[{"deploymentId":"d1","createdDate":"2026-11-19T08:00:00Z"},{"deploymentId":"d2","deploymentStatus":"DEPLOYED","createdDate":"2026-11-20T08:00:00Z","autoDeployed":true}]}`,
		"GET /v2/apis/live/routes": `{"items":[{"routeKey":"$default","authorizationType":"NONE"},
			{"routeKey":"$connect","authorizationType":"CUSTOM","authorizerId":"a3"}]}`,

		"GET " + functions + "/configuration":                                                            settings("ISSUER", "https://issuer.example", "JWKS", pinned),
		"GET " + functions + "/policy":                                                                   policy(`{"Effect":"Allow","Principal":{"Service":"apigateway.amazonaws.com"},"Action":"lambda:InvokeFunction","Condition":{"ArnLike":{"AWS:SourceArn":"arn:aws:execute-api:eu-west-1:123456789012:*/authorizers/*"}}}`),
		"GET /2019-09-30/functions/" + authorizer + "/concurrency":                                       `{}`,
		"GET /2017-03-31/tags/" + authorizer:                                                             `{"Tags":{"lambda:createdBy":"SAM"}}`,
		"GET /2015-03-31/functions/arn:aws:lambda:eu-west-1:123456789012:function:backend/configuration": `{"FunctionName":"backend"}`,
		groups:                          `{"logGroups":[{"logGroupName":"/logs/auth-old"},{"logGroupName":"/logs/auth","retentionInDays":30}]}`,
		"DescribeMetricFilters":         `{"metricFilters":[{"metricTransformations":[{"metricName":"Faults","metricNamespace":"Zuplo/shop"}]}]}`,
		"DescribeAlarms MetricAlarm":    alarms("Zuplo/shop", true, "arn:aws:sns:eu-west-1:123456789012:night"),
		"DescribeAlarms CompositeAlarm": `{"CompositeAlarms":[]}`,
	}
	return c.with(restAPI("GET /orders Jwt; OPTIONS /orders mock"), httpAPI("GET /orders Jwt; ANY /orders/{id} Jwt"))
}

func stack(resources ...string) string {
	members := ""
	for _, r := range resources {
		kind, id, _ := strings.Cut(r, " ")
		id, status, _ := strings.Cut(id, " ")
		members += "<member><ResourceType>" + kind + "</ResourceType><PhysicalResourceId>" + id + "</PhysicalResourceId><ResourceStatus>" + status + "</ResourceStatus></member>"
	}
	return "<ListStackResourcesResponse><ListStackResourcesResult><StackResourceSummaries>" + members + "</StackResourceSummaries></ListStackResourcesResult></ListStackResourcesResponse>"
}

// settings is the authorizer's configuration with these variables.
func settings(pairs ...string) string {
	variables := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		variables[pairs[i]] = pairs[i+1]
	}
	b, _ := json.Marshal(map[string]any{"FunctionName": "auth", "CodeSha256": "c2hh", "Architectures": []string{"arm64"},
		"LoggingConfig": map[string]string{"LogGroup": "/logs/auth", "LogFormat": "Text"}, "Environment": map[string]any{"Variables": variables}})
	return string(b)
}

func policy(statement string) string {
	b, _ := json.Marshal(map[string]string{"Policy": `{"Version":"2012-10-17","Statement":[` + statement + `]}`})
	return string(b)
}

func alarms(namespace string, enabled bool, actions ...string) string {
	b, _ := json.Marshal(map[string]any{"MetricAlarms": []any{map[string]any{"AlarmName": "faults", "ActionsEnabled": enabled, "AlarmActions": append([]string{}, actions...),
		"Metrics": []any{map[string]any{"MetricStat": map[string]any{"Metric": map[string]any{"Namespace": namespace, "MetricName": "Faults"}}}}}}})
	return string(b)
}

// routes reads "METHOD path AUTHORIZER", several separated by semicolons. none, key and mock stand for no authorizer.
func routes(text string, each func(method, path, asks string)) {
	for route := range strings.SplitSeq(text, ";") {
		words := strings.Fields(route)
		each(words[0], words[1], words[2])
	}
}

// export is a REST or HTTP API's export with these routes. Schemes are those of its authorizers, JSON by name.
func export(text string, schemes map[string]string) string {
	paths := map[string]map[string]any{}
	routes(text, func(method, path, asks string) {
		op := map[string]any{"responses": map[string]any{}}
		switch asks {
		case "none":
		case "mock":
			op["x-amazon-apigateway-integration"] = map[string]string{"type": "mock"}
		case "iam":
			op["x-amazon-apigateway-auth"] = map[string]string{"type": "AWS_IAM"}
		case "key":
			op["security"] = []any{map[string]any{"api_key": []string{}}}
		default:
			op["security"] = []any{map[string]any{asks: []string{}}, map[string]any{"api_key": []string{}}}
		}
		if method = strings.ToLower(method); method == "any" {
			method = "x-amazon-apigateway-any-method"
		}
		if paths[path] == nil {
			paths[path] = map[string]any{"parameters": []any{}}
		}
		paths[path][method] = op
	})
	all := map[string]json.RawMessage{"api_key": json.RawMessage(`{"type":"apiKey","name":"x-api-key","in":"header"}`)}
	for name, scheme := range schemes {
		all[name] = json.RawMessage(scheme)
	}
	b, err := json.Marshal(map[string]any{"openapi": "3.0.1", "paths": paths, "components": map[string]any{"securitySchemes": all}})
	if err != nil {
		panic(err)
	}
	return string(b)
}

// token and request are security schemes as API Gateway's documentation has them.
func token(more string) map[string]string {
	return map[string]string{"Jwt": `{"type":"apiKey","name":"Authorization","in":"header","x-amazon-apigateway-authtype":"custom",
		"x-amazon-apigateway-authorizer":{"type":"token","authorizerUri":"` + uri + `","authorizerResultTtlInSeconds":300` + more + `}}`}
}

func request(source, more string) map[string]string {
	return map[string]string{"Jwt": `{"type":"apiKey","name":"Unused","in":"header","x-amazon-apigateway-authorizer":{"type":"request","identitySource":"` + source +
		`","authorizerUri":"` + uri + `"` + more + `}}`}
}

const (
	toStage  = "GET /restapis/rest/stages/prod/exports/oas30"
	resource = "GET /restapis/rest/resources"
	toHTTP   = "GET /v2/apis/http/exports/OAS30?stageName=$default"
	fromHTTP = "GET /v2/apis/http/exports/OAS30"
)

// restAPI is a REST API's answers with these routes, as they are deployed and in the draft.
func restAPI(text string) cloud {
	return cloud{toStage: export(text, token("")), resource: resources(text)}
}

func resources(text string) string {
	var items []string
	routes(text, func(method, path, asks string) {
		m := `{"httpMethod":"` + method + `","authorizationType":"NONE"}`
		if asks == "iam" {
			m = `{"authorizationType":"AWS_IAM"}`
		} else if !slices.Contains([]string{"none", "mock", "key"}, asks) {
			m = `{"authorizationType":"CUSTOM","authorizerId":"a1"}`
		}
		items = append(items, `{"path":"`+path+`","resourceMethods":{"`+method+`":`+m+`}}`)
	})
	return `{"item":[` + strings.Join(items, ",") + `]}`
}

func httpAPI(text string) cloud {
	return httpAs(text, request("$request.header.Authorization", `,"authorizerPayloadFormatVersion":"2.0","authorizerResultTtlInSeconds":300`))
}

func httpAs(text string, schemes map[string]string) cloud {
	return cloud{toHTTP: export(text, schemes), fromHTTP: export(text, schemes)}
}

// recorder keeps the permissions that calls needed, as policy.json has them.
type recorder struct {
	sync.Mutex
	needed map[string]bool
}

// add is a middleware of the SDK's, after which the request is sent.
func (r *recorder) add(s *middleware.Stack) error {
	return s.Finalize.Add(middleware.FinalizeMiddlewareFunc("recorder", func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
		operation := awsmiddleware.GetOperationName(ctx)
		need := prefixes[awsmiddleware.GetServiceID(ctx)] + ":" + operation
		if strings.HasPrefix(need, ":") {
			need = gatewayAction(operation) + " " + gatewayARN("eu-west-1", in.Request.(*smithyhttp.Request).URL.Path)
		}
		r.Lock()
		r.needed[need] = true
		r.Unlock()
		return next.HandleFinalize(ctx, in)
	}), middleware.After)
}

// audit runs the command against the cloud.
func (c cloud) audit(t *testing.T, r *recorder, args ...string) (int, *Report) {
	t.Helper()
	server := httptest.NewServer(c)
	defer server.Close()
	return auditWith(t, append([]string{"-explain", explained}, args...), config.WithBaseEndpoint(server.URL), config.WithRegion("eu-west-1"), config.WithRetryMaxAttempts(1),
		config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider("id", "secret", "")), config.WithAPIOptions([]func(*middleware.Stack) error{r.add}))
}

func auditWith(t *testing.T, args []string, tweaks ...func(*config.LoadOptions) error) (int, *Report) {
	t.Helper()
	var out, errs bytes.Buffer
	status := run(t.Context(), append([]string{"-json"}, args...), &out, &errs, tweaks...)
	var report Report
	if err := json.Unmarshal(out.Bytes(), &report); err != nil {
		t.Fatalf("%v: status %d, %v: %s%s", args, status, err, out.String(), errs.String())
	}
	return status, &report
}

// ServeHTTP answers as AWS's services do, each in its protocol.
func (c cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	key := r.Method + " " + r.URL.Path
	binary := r.Header.Get("Smithy-Protocol") == "rpc-v2-cbor"
	switch target := r.Header.Get("X-Amz-Target"); {
	case binary:
		key = filepath.Base(r.URL.Path)
		if v, err := cbor.Decode(body); err == nil {
			if types, ok := v.(cbor.Map)["AlarmTypes"].(cbor.List); ok {
				key += " " + string(types[0].(cbor.String))
			}
		}
	case target != "":
		_, key, _ = strings.Cut(target, ".")
		key += page(body, "nextToken")
	case r.Method == http.MethodPost:
		r.Body = io.NopCloser(bytes.NewReader(body))
		key = r.FormValue("Action")
		if name := r.FormValue("StackName"); name != "" {
			key += " " + name
		}
	default:
		for _, name := range []string{"stageName", "position", "nextToken"} {
			if v := r.URL.Query().Get(name); v != "" {
				key += "?" + name + "=" + v
			}
		}
	}
	answer, ok := c[key]
	if !ok {
		answer = "!NotFoundException"
		if strings.HasPrefix(key, "GET /20") {
			answer = "!ResourceNotFoundException"
		}
	}
	code, failed := strings.CutPrefix(answer, "!")
	if failed {
		answer = `{"__type":"` + code + `","message":"because"}`
		if r.Method == http.MethodPost && !binary && r.Header.Get("X-Amz-Target") == "" {
			answer = "<ErrorResponse><Error><Code>" + code + "</Code><Message>because</Message></Error></ErrorResponse>"
		}
		w.Header().Set("X-Amzn-ErrorType", code)
	}
	if binary {
		var v any
		if err := json.Unmarshal([]byte(answer), &v); err != nil {
			panic(fmt.Sprint(key, ": ", err))
		}
		w.Header().Set("Smithy-Protocol", "rpc-v2-cbor")
		w.Header().Set("Content-Type", "application/cbor")
		answer = string(cbor.Encode(encoded(v)))
	}
	if failed {
		w.WriteHeader(http.StatusBadRequest)
	}
	io.WriteString(w, answer)
}

func page(body []byte, member string) string {
	var v map[string]any
	if json.Unmarshal(body, &v) == nil && v[member] != nil {
		return "?" + member + "=" + fmt.Sprint(v[member])
	}
	return ""
}

func encoded(v any) cbor.Value {
	switch v := v.(type) {
	case map[string]any:
		m := cbor.Map{}
		for k, e := range v {
			m[k] = encoded(e)
		}
		return m
	case []any:
		l := cbor.List{}
		for _, e := range v {
			l = append(l, encoded(e))
		}
		return l
	case bool:
		return cbor.Bool(v)
	default:
		return cbor.String(v.(string))
	}
}

// explained is the command explain, as it is now.
var explained string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "audit")
	if err != nil {
		panic(err)
	}
	explained = filepath.Join(dir, "explain")
	if out, err := exec.Command("go", "-C", "../..", "build", "-o", explained, "./explain").CombinedOutput(); err != nil {
		panic(fmt.Sprintf("building explain: %v: %s", err, out))
	}
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

var noCredentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
	return aws.Credentials{}, fmt.Errorf("no role of an instance found")
})
