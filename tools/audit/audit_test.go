package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/config"
)

const (
	key    = `{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}` // RFC 8037, A.2
	pinned = `{"keys":[` + key + `]}`                                                                    // no test's explain asks anybody but the test
	mine   = "GET " + functions + "/configuration"
	lets   = "GET " + functions + "/policy"
	live   = "GET /v2/apis/live"
)

var calls = &recorder{needed: map[string]bool{}}

// said gives the findings of these levels as lines.
func said(r *Report, levels ...level) (lines []string) {
	for _, f := range r.Findings {
		if slices.Contains(levels, f.Level) {
			lines = append(lines, string(f.Level)+" "+f.Where+": "+f.What)
		}
	}
	return lines
}

// expects holds that each finding that is open, wrong or unknown has its text in want, and the other way round. A note may be
// left out.
func expects(t *testing.T, r *Report, status int, want ...string) {
	t.Helper()
	worst := 0
	left := said(r, open, wrong, unknown)
	for _, text := range want {
		level, text, _ := strings.Cut(text, " ")
		i := slices.IndexFunc(left, func(line string) bool { return strings.HasPrefix(line, level+" ") && strings.Contains(line, text) })
		if level == "silent" {
			if slices.ContainsFunc(said(r, levels...), func(line string) bool { return strings.Contains(line, text) }) {
				t.Errorf("something says %q", text)
			}
			continue
		}
		if level == "note" {
			if !slices.ContainsFunc(said(r, note), func(line string) bool { return strings.Contains(line, text) }) {
				t.Errorf("no note says %q; they are %q", text, said(r, note))
			}
			continue
		}
		if i < 0 {
			t.Errorf("nothing is %s that says %q; left are %q", level, text, left)
			continue
		}
		left = slices.Delete(left, i, i+1)
		if level == "unknown" && worst == 0 {
			worst = 2
		} else if level != "unknown" {
			worst = 1
		}
	}
	if len(left) > 0 {
		t.Errorf("also found %q", left)
	}
	if status != worst {
		t.Errorf("exit status %d, want %d", status, worst)
	}
}

const invoke = `{"Effect":"Allow","Principal":{"Service":"apigateway.amazonaws.com"},"Action":"lambda:InvokeFunction"`

func TestAudit(t *testing.T) {
	other := cloud{"GET /2015-03-31/functions/arn:aws:lambda:eu-west-1:123456789012:function:other/configuration": `{"FunctionName":"other"}`}
	swap := func(schemes map[string]string, old, to string) map[string]string {
		return map[string]string{"Jwt": strings.ReplaceAll(schemes["Jwt"], old, to)}
	}
	restAs := func(schemes map[string]string, draft string) cloud {
		return cloud{toStage: export("GET /orders Jwt", schemes), resource: resources("GET /orders Jwt"), "GET /restapis/rest/authorizers": `{"item":[` + draft + `]}`}
	}
	draft := func(kind, source, more string) string {
		return `{"id":"a1","name":"Jwt","type":"` + kind + `","authorizerUri":"` + uri + `","identitySource":"` + source + `"` + more + `}`
	}
	byTenant := restAs(request("method.request.header.X-Tenant", ""), draft("REQUEST", "method.request.header.X-Tenant", ""))
	http := func(source, more string) cloud {
		return httpAs("GET /orders Jwt", request(source, `,"authorizerPayloadFormatVersion":"2.0"`+more))
	}
	resourcePolicy := cloud{"GET /restapis/rest": `{"id":"rest","name":"orders","policy":"{\\\"Version\\\":\\\"2012-10-17\\\",\\\"Statement\\\":[{\\\"Effect\\\":\\\"Allow\\\",\\\"Principal\\\":\\\"*\\\",\\\"Action\\\":\\\"execute-api:Invoke\\\",\\\"Resource\\\":\\\"*\\\"}]}"}`}
	env := func(more ...string) cloud {
		return cloud{mine: settings(append([]string{"ISSUER", "https://issuer.example", "JWKS", pinned}, more...)...)}
	}

	for name, row := range map[string]struct {
		change cloud
		args   string // stands for -stack shop
		want   []string
	}{
		"a good stack":         {want: []string{"note a WebSocket API has no export", "note SAM makes zips of its own"}},
		"a good REST API":      {args: "-api rest"},
		"a good HTTP API":      {args: "-api http"},
		"a good WebSocket API": {args: "-api live"},
		"no such API":          {args: "-api none", want: []string{"unknown none: the API could not be read: there is none in eu-west-1"}},
		"no such stack":        {cloud{"ListStackResources shop": "!ValidationError"}, "", []string{"unknown stack shop: what it has could not be read"}},
		"an empty stack":       {cloud{"ListStackResources shop": stack("AWS::SNS::Topic t")}, "", []string{"unknown neither an API nor an authorizer"}},
		"what a stack had":     {cloud{"ListStackResources shop": stack("AWS::ApiGateway::RestApi gone DELETE_COMPLETE", "AWS::Lambda::Function auth")}, "", nil},

		"an open route":                              {restAPI("GET /orders Jwt; GET /health none"), "-api rest", []string{"open rest/prod: no authorizer is asked for GET /health"}},
		"an open route, meant":                       {restAPI("GET /orders Jwt; GET /health none; PUT /x none"), "-api rest|-open|GET /health, PUT /x", nil},
		"meant, but not open":                        {restAPI("GET /orders Jwt; GET /health Jwt"), "-api rest|-open|GET /health", []string{"wrong no open route is GET /health"}},
		"an API key is no guard":                     {restAPI("GET /orders key"), "-api rest", []string{"open GET /orders; the API key"}},
		"an open preflight that goes to the backend": {restAPI("GET /orders Jwt; OPTIONS /orders none"), "-api rest", []string{"open OPTIONS /orders"}},
		"a mock that is no preflight":                {restAPI("GET /orders mock"), "-api rest", []string{"open GET /orders"}},
		"a preflight that needs a token":             {restAPI("GET /orders Jwt; OPTIONS /orders Jwt"), "-api rest", []string{"wrong Jwt: it is asked for browsers' preflights, which carry no token and get 401: OPTIONS /orders"}},
		"IAM":                                        {restAPI("GET /orders iam"), "-api rest", []string{"wrong IAM: it is no Lambda authorizer but aws_iam; it guards GET /orders"}},
		"any open method":                            {httpAPI("ANY /orders Jwt; ANY /$default none"), "-api http", []string{"open http/$default: no authorizer is asked for $default"}},
		"HTTP, IAM":                                  {httpAPI("GET /orders iam"), "-api http", []string{"wrong IAM: it is no Lambda authorizer"}},
		"IAM as a scheme": {cloud{toStage: export("GET /orders sigv4", map[string]string{"sigv4": `{"type":"apiKey","name":"Authorization","in":"header","x-amazon-apigateway-authtype":"awsSigv4"}`}),
			resource: resources("GET /orders iam")}, "-api rest", []string{"wrong IAM: it is no Lambda authorizer"}},
		"a JWT authorizer of API Gateway's": {httpAs("GET /orders Jwt", map[string]string{"Jwt": `{"type":"oauth2","x-amazon-apigateway-authorizer":{"type":"jwt","identitySource":"$request.header.Authorization"}}`}),
			"-api http", []string{"wrong Jwt: it is no Lambda authorizer but jwt"}},
		"not our function": {restAs(swap(token(""), ":auth/", ":other/"), strings.ReplaceAll(draft("TOKEN", "method.request.header.Authorization", ""), ":auth/", ":other/")).with(other), "-api rest",
			[]string{"wrong Jwt: the function other is not this authorizer"}},
		"an alias": {restAs(swap(token(""), ":auth/", ":auth:live/"), strings.ReplaceAll(draft("TOKEN", "method.request.header.Authorization", ""), ":auth/", ":auth:live/")), "-api rest",
			[]string{"wrong Jwt: it names the alias or version live"}},
		"another account's": {restAs(swap(token(""), "1:123456789012", "1:210987654321"), strings.ReplaceAll(draft("TOKEN", "method.request.header.Authorization", ""), "1:123456789012", "1:210987654321")), "-api rest",
			[]string{"unknown auth: it is the account 210987654321's function"}},
		"a function that is gone":                {cloud{mine: ""}, "-api rest", []string{"wrong auth: there is no such function in eu-west-1: callers whose route asks it see 500"}},
		"a function that is gone, asked wrongly": {byTenant.with(cloud{mine: "!ResourceNotFoundException"}), "-api rest", []string{"wrong auth: there is no such function"}},
		"credentials of yesterday":               {cloud{"GetCallerIdentity": "!ExpiredToken"}, "-api rest", []string{"unknown AWS does not take these credentials (ExpiredToken): because"}},
		"a denial, in AWS's words":               {cloud{"GET /domainnames": "!AccessDeniedException"}, "-api rest", []string{"unknown the permission apigateway:GET on arn:aws:apigateway:eu-west-1::/domainnames is missing: because"}},
		"$LATEST": {restAs(swap(token(""), ":auth/", ":auth:$LATEST/"), strings.ReplaceAll(draft("TOKEN", "method.request.header.Authorization", ""), ":auth/", ":auth:$LATEST/")).with(cloud{lets: "!ResourceNotFoundException"}), "-api rest",
			[]string{"wrong API Gateway may not invoke auth"}},
		"an unknown function": {restAs(swap(token(""), ":auth/", ":${stageVariables.f}/"), strings.ReplaceAll(draft("TOKEN", "method.request.header.Authorization", ""), ":auth/", ":${stageVariables.f}/")), "-api rest",
			[]string{"unknown Jwt: its URI names no function that can be found"}},
		"a function in a stage's variable": {restAs(swap(token(""), ":auth/", ":${stageVariables.f}/"), strings.ReplaceAll(draft("TOKEN", "method.request.header.Authorization", ""), ":auth/", ":${stageVariables.f}/")).
			with(cloud{"GET /restapis/rest/stages": `{"item":[{"stageName":"prod","variables":{"f":"auth"}}]}`}), "-api rest", nil},
		"an export without settings": {restAs(map[string]string{"Jwt": `{"type":"apiKey","name":"Authorization","in":"header","x-amazon-apigateway-authtype":"custom"}`},
			draft("TOKEN", "method.request.header.Authorization", "")), "-api rest", []string{"unknown Jwt: the export does not tell what it is"}},
		"an export that names what is not in it": {cloud{toStage: export("GET /orders Other", token(""))}, "-api rest", []string{"unknown rest/prod: what is deployed could not be read: reading the export of GET /orders: it names the authorizer Other"}},
		"an export without type and identity source": {httpAs("GET /orders Jwt", map[string]string{"Jwt": `{"type":"apiKey","name":"Authorization","in":"header",
			"x-amazon-apigateway-authorizer":{"authorizerUri":"` + uri + `","authorizerPayloadFormatVersion":"2.0","authorizerResultTtlInSeconds":300}}`}), "-api http", nil},
		"an export that is none": {cloud{toStage: `{}`}, "-api rest", []string{"unknown it has no paths"}},

		"a canary": {cloud{"GET /restapis/rest/stages": `{"item":[{"stageName":"prod","canarySettings":{"percentTraffic":10}}]}`}, "-api rest", []string{"unknown rest/prod: 10 % of the requests go to a canary"}},
		"no stage": {cloud{"GET /restapis/rest/stages": `{"item":[]}`}, "-api rest", []string{"wrong rest: it has no stage"}},
		"two stages, one open": {cloud{"GET /restapis/rest/stages": `{"item":[{"stageName":"prod"},{"stageName":"old"}]}`, "GET /restapis/rest/stages/old/exports/oas30": export("GET /orders none", nil)}, "-api rest",
			[]string{"open rest/old: no authorizer", "wrong rest/old: the draft differs"}},

		"a draft with a route more":          {cloud{resource: resources("GET /orders Jwt; OPTIONS /orders none; PUT /new none")}, "-api rest", []string{"wrong the draft differs from what is deployed: PUT /new is in the draft alone"}},
		"a draft with a route less":          {cloud{resource: resources("GET /orders Jwt")}, "-api rest", []string{"wrong OPTIONS /orders is deployed, and not in the draft"}},
		"guarded in the draft alone":         {cloud{toStage: export("GET /orders none; OPTIONS /orders mock", token(""))}, "-api rest", []string{"open GET /orders", "wrong GET /orders: no authorizer is deployed, Jwt is in the draft"}},
		"another TTL in the draft":           {cloud{"GET /restapis/rest/authorizers": `{"item":[` + draft("TOKEN", "method.request.header.Authorization", `,"authorizerResultTtlInSeconds":0`) + `]}`}, "-api rest", []string{"wrong GET /orders: Jwt has other settings in the draft"}},
		"an HTTP API's draft":                {cloud{fromHTTP: export("GET /orders Jwt", request("$request.header.Authorization", ""))}, "-api http", []string{"wrong ANY /orders/{id} is deployed, and not in the draft"}},
		"six routes differ":                  {cloud{resource: resources("GET /orders Jwt; OPTIONS /orders none; PUT /1 none; PUT /2 none; PUT /3 none; PUT /4 none; PUT /5 none; PUT /6 none")}, "-api rest", []string{"wrong PUT /5 is in the draft alone and 1 more"}},
		"a draft that cannot be read":        {cloud{resource: strings.ReplaceAll(resources("GET /orders Jwt"), "a1", "a9")}, "-api rest", []string{"unknown rest: the draft could not be read: GET /orders names an authorizer that is not there"}},
		"the TTL is 300 where none is named": {restAs(swap(token(""), `,"authorizerResultTtlInSeconds":300`, ""), draft("TOKEN", "method.request.header.Authorization", "")), "-api rest", nil},
		"a TTL in quotes":                    {restAs(swap(token(""), `InSeconds":300`, `InSeconds":"300"`), draft("TOKEN", "method.request.header.Authorization", "")), "-api rest", nil},

		"a foreign identity source":          {byTenant, "-api rest", []string{`wrong Jwt: its answers are cached by "header.x-tenant"`}},
		"the token's header by another name": {byTenant.with(env("TOKEN_HEADER", "x-tenant")), "-api rest", nil},
		"more identity sources":              {http("$request.header.authorization, $context.routeKey", `,"authorizerResultTtlInSeconds":300`), "-api http", []string{"note it has identity sources beside the token's header"}},
		"a foreign source, nothing cached":   {http("$request.header.X-Tenant", `,"authorizerResultTtlInSeconds":0`), "-api http", []string{"wrong without them callers get 401", "note nothing is cached"}},
		"a foreign source, TTL not named":    {http("$request.header.X-Tenant", ""), "-api http", []string{`wrong cached by "header.x-tenant"`}},
		"no source, nothing cached":          {http("", `,"authorizerResultTtlInSeconds":0`), "-api http", []string{"note it has no identity source"}},
		"a query parameter is no header":     {http("$request.querystring.Authorization", `,"authorizerResultTtlInSeconds":300`), "-api http", []string{`wrong cached by "querystring.Authorization"`}},
		"a WebSocket's foreign source":       {cloud{live + "/authorizers": strings.ReplaceAll(good()[live+"/authorizers"], "Authorization", "X")}, "-api live", []string{"wrong header.x, are not the token's header"}},
		"simple responses":                   {http("$request.header.Authorization", `,"enableSimpleResponses":true`), "-api http", []string{"wrong simple responses are on"}},
		"payload 1.0":                        {httpAs("GET /orders Jwt", request("$request.header.Authorization", `,"authorizerPayloadFormatVersion":"1.0"`)), "-api http", []string{"note its payload format is 1.0"}},
		"an hour's cache":                    {http("$request.header.Authorization", `,"authorizerResultTtlInSeconds":3600`), "-api http", []string{"note answers are cached for 3600 s"}},

		"nobody may invoke":                  {cloud{lets: ""}, "-api rest", []string{"wrong Jwt: API Gateway may not invoke auth: callers see 500"}},
		"another API may":                    {cloud{lets: policy(invoke + `,"Condition":{"ArnLike":{"AWS:SourceArn":"arn:aws:execute-api:eu-west-1:123456789012:other/authorizers/*"}}}`)}, "-api rest", []string{"wrong API Gateway may not invoke"}},
		"another authorizer may":             {cloud{lets: policy(invoke + `,"Condition":{"ArnLike":{"AWS:SourceArn":"arn:aws:execute-api:eu-west-1:123456789012:rest/authorizers/zz"}}}`)}, "-api rest", []string{"wrong API Gateway may not invoke"}},
		"its routes may, not its authorizer": {cloud{lets: policy(invoke + `,"Condition":{"ArnLike":{"AWS:SourceArn":"arn:aws:execute-api:eu-west-1:123456789012:rest/*/GET/*"}}}`)}, "-api rest", []string{"wrong API Gateway may not invoke"}},
		"this authorizer alone may":          {cloud{lets: policy(invoke + `,"Condition":{"ArnLike":{"AWS:SourceArn":"arn:aws:execute-api:eu-west-1:123456789012:rest/authorizers/a1"}}}`)}, "-api rest", nil},
		"this account's APIs may":            {cloud{lets: policy(invoke + `,"Condition":{"StringEquals":{"aws:SourceAccount":"123456789012"}}}`)}, "-api rest", []string{"silent for anybody's API"}},
		"another account's may":              {cloud{lets: policy(invoke + `,"Condition":{"StringEquals":{"aws:SourceAccount":"210987654321"}}}`)}, "-api rest", []string{"wrong API Gateway may not invoke"}},
		"everybody's API may":                {cloud{lets: policy(invoke + `}`)}, "-api rest", []string{"note for anybody's API"}},
		"another service may":                {cloud{lets: policy(strings.Replace(invoke, "apigateway", "events", 1) + `}`)}, "-api rest", []string{"wrong API Gateway may not invoke"}},
		"something else is allowed":          {cloud{lets: policy(strings.Replace(invoke, "InvokeFunction", "GetFunction", 1) + `}`)}, "-api rest", []string{"wrong API Gateway may not invoke"}},
		"denied in the same policy":          {cloud{lets: policy(invoke + `},` + strings.Replace(invoke, "Allow", "Deny", 1) + `}`)}, "-api rest", []string{"wrong API Gateway may not invoke"}},
		"a condition of another kind":        {cloud{lets: policy(invoke + `,"Condition":{"StringEquals":{"aws:PrincipalOrgID":"o-1"}}}`)}, "-api rest", []string{"unknown depends on StringEquals aws:PrincipalOrgID"}},
		"a policy that is none":              {cloud{lets: `{"Policy":"{"}`}, "-api rest", []string{"unknown the policy of auth cannot be judged"}},
		"an authorizer that the draft has lost": {cloud{lets: policy(invoke + `,"Condition":{"ArnLike":{"AWS:SourceArn":"arn:aws:execute-api:eu-west-1:123456789012:http/authorizers/a2"}}}`), "GET /v2/apis/http/authorizers": `{"items":[]}`},
			"-api http", []string{"unknown because the draft has no such authorizer"}},
		"invoked by a role": {restAs(token(`,"authorizerCredentials":"arn:aws:iam::123456789012:role/r"`), draft("TOKEN", "method.request.header.Authorization", `,"authorizerCredentials":"arn:aws:iam::123456789012:role/r"`)).with(cloud{lets: "!ResourceNotFoundException"}), "-api rest", nil},

		"a resource policy that allows":  {resourcePolicy, "-api rest", []string{"wrong the API's resource policy allows what the authorizer leaves out: tokens that expire in the cache"}},
		"the same, with rules":           {resourcePolicy.with(env("RULES", `[{"routes":["GET /orders"]}]`, "POLICY_EXPIRY", "off")), "-api rest", []string{"wrong leaves out: routes that no rule names"}},
		"the same, rules that only log":  {resourcePolicy.with(env("RULES", `[{"routes":["GET /orders"]}]`, "RULES_MODE", "log", "POLICY_EXPIRY", "off")), "-api rest", nil},
		"the same, explicitly denied":    {resourcePolicy.with(env("RULES", `[{"routes":["GET /orders"]}]`, "EXPLICIT_DENY", "on")), "-api rest", nil},
		"a resource policy that denies":  {cloud{"GET /restapis/rest": strings.ReplaceAll(resourcePolicy["GET /restapis/rest"], "Allow", "Deny")}, "-api rest", nil},
		"a private API":                  {cloud{"GET /restapis/rest": `{"id":"rest","name":"orders","endpointConfiguration":{"types":["PRIVATE"]}}`}, "-api rest", []string{"wrong the API's resource policy allows"}},
		"the deployed resource policy":   {cloud{toStage: strings.Replace(good()[toStage], "{", `{"x-amazon-apigateway-policy":{"Statement":{"Effect":"Allow","Principal":"*","Action":["execute-api:*"],"Resource":"*"}},`, 1)}, "-api rest", []string{"wrong the API's resource policy allows"}},
		"a resource policy that is none": {cloud{"GET /restapis/rest": `{"id":"rest","name":"orders","policy":"{"}`}, "-api rest", []string{"unknown the API's resource policy cannot be judged"}},

		"a domain, of API Gateway's first service": {cloud{"GET /domainnames/old.example/basepathmappings": `{"item":[{"restApiId":"rest"}]}`}, "-api rest", []string{"wrong execute-api answers for it, beside its custom domain old.example"}},
		"a domain, of its second":                  {cloud{"GET /v2/domainnames/new.example/apimappings": `{"items":[{"apiId":"http","stage":"$default"}]}`}, "", []string{"wrong http: execute-api answers for it, beside its custom domain new.example"}},
		"a domain's rule":                          {cloud{"GET /v2/domainnames/new.example/routingrules": `{"routingRules":[{"actions":[{"invokeApi":{"apiId":"rest","stage":"prod"}}]}]}`}, "-api rest", []string{"wrong beside its custom domain new.example"}},
		"a domain alone":                           {cloud{"GET /domainnames/old.example/basepathmappings": `{"item":[{"restApiId":"rest"}]}`, "GET /restapis/rest": `{"id":"rest","name":"orders","disableExecuteApiEndpoint":true}`}, "-api rest", nil},

		"a WebSocket that anybody opens":   {cloud{live + "/routes": `{"items":[{"routeKey":"$connect","authorizationType":"NONE"}]}`}, "-api live", []string{"open live/prod: no authorizer is asked for $connect"}},
		"a WebSocket without $connect":     {cloud{live + "/routes": `{"items":[{"routeKey":"$default"}]}`}, "-api live", []string{"open live/prod: no authorizer is asked for $connect"}},
		"a WebSocket deployed by hand":     {cloud{live + "/stages": `{"items":[{"stageName":"prod","deploymentId":"d2"}]}`}, "-api live", []string{"unknown these are the draft's, and what was deployed at 2026-11-20T08:00:00Z may differ"}},
		"a WebSocket that is not deployed": {cloud{live + "/stages": `{"items":[{"stageName":"prod","autoDeploy":true}]}`}, "-api live", []string{"wrong nothing is deployed to this stage"}},
		"a deployment that failed":         {cloud{live + "/deployments": `{"items":[{"deploymentId":"d2","deploymentStatus":"FAILED","deploymentStatusMessage":"no integration"}]}`}, "-api live", []string{"wrong failed: no integration"}},
		"deployed to another stage":        {cloud{live + "/stages": `{"items":[{"stageName":"prod","deploymentId":"d1"}]}`}, "-api live", []string{"wrong live/prod: it has the deployment of 2026-11-19T08:00:00Z, and the API was deployed to another stage at 2026-11-20T08:00:00Z"}},
		"a deployment that is lost":        {cloud{live + "/stages": `{"items":[{"stageName":"prod","deploymentId":"d9"}]}`}, "-api live", []string{"wrong nothing is deployed to this stage"}},
		"a WebSocket's lost authorizer":    {cloud{live + "/authorizers": `{"items":[]}`}, "-api live", []string{"unknown $connect names an authorizer that is not there"}},

		"never run":                      {cloud{"GET /2019-09-30/functions/" + authorizer + "/concurrency": `{"ReservedConcurrentExecutions":0}`}, "", []string{"wrong its reserved concurrency is 0"}},
		"its lines are dropped":          {cloud{mine: strings.Replace(settings("ISSUERS", `[{"issuer":"https://issuer.example","jwks":`+pinned+`}]`), `"LogFormat"`, `"ApplicationLogLevel":"WARN","LogFormat"`, 1)}, "", []string{"wrong Lambda drops its lines below WARN"}},
		"variables that are not ours":    {cloud{mine: `{"Environment":{"Error":{"ErrorCode":"AccessDenied","Message":"kms said no"}}}`}, "-api rest", []string{"unknown kms said no (its variables' key asks for kms:Decrypt)"}},
		"a log that is kept for ever":    {cloud{groups: `{"logGroups":[{"logGroupName":"/logs/auth"}]}`}, "", []string{"wrong /logs/auth, keeps everything for ever"}},
		"no log":                         {cloud{groups: `{"logGroups":[{"logGroupName":"/logs/auth-old","retentionInDays":1}]}`}, "", []string{"wrong /logs/auth, is not there", "wrong no alarm watches it"}},
		"an alarm that tells nobody":     {cloud{"DescribeAlarms MetricAlarm": alarms("Zuplo/shop", true)}, "", []string{"wrong alarm faults: it tells nobody"}},
		"an alarm that is switched off":  {cloud{"DescribeAlarms MetricAlarm": alarms("Zuplo/shop", false, "arn")}, "", []string{"wrong alarm faults: it tells nobody"}},
		"an alarm in a composite":        {cloud{"DescribeAlarms MetricAlarm": alarms("Zuplo/shop", true), "DescribeAlarms CompositeAlarm": `{"CompositeAlarms":[{"AlarmName":"c","ActionsEnabled":true,"AlarmActions":["arn"],"AlarmRule":"ALARM(\"faults\")"}]}`}, "", nil},
		"an alarm in a silent composite": {cloud{"DescribeAlarms MetricAlarm": alarms("Zuplo/shop", true), "DescribeAlarms CompositeAlarm": `{"CompositeAlarms":[{"AlarmName":"c","ActionsEnabled":true,"AlarmRule":"ALARM(\"faults\")"}]}`}, "", []string{"wrong tells nobody"}},
		"another's composite":            {cloud{"DescribeAlarms MetricAlarm": alarms("Zuplo/shop", true), "DescribeAlarms CompositeAlarm": `{"CompositeAlarms":[{"AlarmName":"c","ActionsEnabled":true,"AlarmActions":["arn"],"AlarmRule":"ALARM(\"faults-2\") OR ALARM(no-faults)"}]}`}, "", []string{"wrong tells nobody"}},
		"others' alarms":                 {cloud{"DescribeAlarms MetricAlarm": alarms("Zuplo/other", true)}, "", []string{"wrong auth: no alarm watches it"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := []string{"-stack", "shop"}
			if row.args != "" {
				args = strings.FieldsFunc(strings.Replace(row.args, "-api ", "-api|", 1), func(c rune) bool { return c == '|' })
			}
			status, report := good().with(row.change).audit(t, calls, args...)
			expects(t, report, status, row.want...)
		})
	}
}

// Whatever is denied or throttled, the audit says so, and does not end as a clean one; a denial names the permission, which is
// one of the policy.
func TestNotWhole(t *testing.T) {
	t.Parallel()
	for key := range good() {
		for _, code := range []string{"AccessDeniedException", "TooManyRequestsException", "InternalFailure"} {
			t.Run(key+" "+code, func(t *testing.T) {
				t.Parallel()
				if code == "AccessDeniedException" && strings.HasPrefix(key, "Describe") {
					code = "AccessDenied"
				}
				status, report := good().with(cloud{key: "!" + code}).audit(t, calls, "-stack", "shop")
				lines := said(report, unknown)
				if status != 2 || len(lines) == 0 || report.Verdict != unknown || len(said(report, open, wrong)) > 0 {
					t.Fatalf("exit status %d, unknown %q, open or wrong %q", status, lines, said(report, open, wrong))
				}
				if code != "AccessDenied" && code != "AccessDeniedException" {
					return
				}
				_, need, _ := strings.Cut(lines[0], "because the permission ")
				need, _, _ = strings.Cut(need, " is missing")
				if need = strings.Replace(need, " on ", " ", 1); need == "" || !calls.has(need) {
					t.Errorf("the permission is named as %q in %q", need, lines[0])
				}
			})
		}
	}
}

func (r *recorder) has(need string) bool {
	r.Lock()
	defer r.Unlock()
	return r.needed[need]
}

// The policy has what the calls of an audit need, and nothing that none of them needs.
func TestPolicy(t *testing.T) {
	t.Parallel()
	r := &recorder{needed: map[string]bool{}}
	for _, args := range [][]string{{"-stack", "shop"}, {"-api", "rest"}, {"-api", "http"}} {
		if status, report := good().audit(t, r, args...); status != 0 {
			t.Fatalf("%v: exit status %d, %q", args, status, said(report, open, wrong, unknown))
		}
	}
	file, err := os.ReadFile("policy.json")
	if err != nil {
		t.Fatal(err)
	}
	var policy struct {
		Statement []struct {
			Effect           string
			Action, Resource texts
		}
	}
	if err := json.Unmarshal(file, &policy); err != nil {
		t.Fatal(err)
	}
	granted := map[string]string{} // action and resource, what needs it
	for _, s := range policy.Statement {
		for _, action := range s.Action {
			for _, resource := range s.Resource {
				granted[action+" "+resource] = ""
			}
		}
	}
	for need := range r.needed {
		if need == "sts:GetCallerIdentity" {
			continue // needs no permission (IAM's reference)
		}
		action, resource, _ := strings.Cut(need, " ")
		found := false
		for grant := range granted {
			a, on, _ := strings.Cut(grant, " ")
			if a == action && (resource == "" || matches(on, resource)) {
				granted[grant], found = need, true
			}
		}
		if !found {
			t.Errorf("the policy does not have %s", need)
		}
	}
	for _, grant := range slices.Sorted(maps.Keys(granted)) {
		if granted[grant] == "" {
			t.Errorf("nothing needs %s", grant)
		}
	}
}

// A thousand routes come in pages, all of them or none.
func TestPages(t *testing.T) {
	t.Parallel()
	var text []string
	for i := range 1000 {
		text = append(text, fmt.Sprintf("GET /orders/%d Jwt", i))
	}
	c := good().with(cloud{toStage: export(strings.Join(text, ";"), token(""))})
	at := resource
	for i := 0; i < 1000; i += 400 {
		end := min(i+400, 1000)
		c[at] = resources(strings.Join(text[i:end], ";"))
		if end < 1000 {
			next := fmt.Sprintf("p%d", end)
			c[at] = strings.Replace(c[at], "{", `{"position":"`+next+`",`, 1)
			at = resource + "?position=" + next
		}
	}
	var socket []string
	for i := range 1000 {
		socket = append(socket, fmt.Sprintf(`{"routeKey":"r%d"}`, i))
	}
	c[live+"/routes"] = `{"nextToken":"n","items":[` + strings.Join(socket, ",") + `]}`
	c[live+"/routes?nextToken=n"] = good()[live+"/routes"]
	c[groups] = `{"nextToken":"n","logGroups":[{"logGroupName":"/logs/auth-1"}]}`
	c[groups+"?nextToken=n"] = good()[groups]
	status, report := c.audit(t, calls, "-stack", "shop")
	expects(t, report, status)
	if got := len(report.APIs[0].Stages[0].Routes); got != 1000 {
		t.Errorf("%d routes of the REST API, want 1000", got)
	}
	if got := len(report.APIs[2].Stages[0].Routes); got != 1002 {
		t.Errorf("%d routes of the WebSocket API, want 1002", got)
	}

	c[resource+"?position=p800"] = "!AccessDeniedException"
	status, report = c.audit(t, calls, "-api", "rest")
	expects(t, report, status, "unknown rest: the draft could not be read: denied")
	c[resource+"?position=p800"] = strings.Replace(c[resource+"?position=p400"], "p800", "p800", 1)
	status, report = c.audit(t, calls, "-api", "rest")
	expects(t, report, status, `unknown the page after "p800" is the same one`)
}

// The settings are held against an issuer by explain itself.
func TestExplain(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(nil)
	gone.Close()
	for name, row := range map[string]struct {
		keys      string // of the issuer
		discovery string // its document; %s is its URL
		more      []string
		want      []string
	}{
		"fine":                       {pinned, "", nil, []string{"silent explain"}},
		"fine, and it says so":       {pinned, `{"issuer":"%[1]s","jwks_uri":"%[1]s/.well-known/jwks.json"}`, nil, nil},
		"another issuer":             {pinned, `{"issuer":"%[1]s/","jwks_uri":"%[1]s/.well-known/jwks.json"}`, nil, []string{"wrong auth: explain, discovery: issuer http://"}},
		"keys elsewhere":             {pinned, `{"issuer":"%[1]s","jwks_uri":"%[1]s/keys"}`, nil, []string{"wrong /keys; expected: issuer http://"}},
		"no keys for the algorithms": {pinned, "", []string{"ALGORITHMS", "RS256"}, []string{"wrong explain, keys: "}},
		"a key that is left out":     {`{"keys":[` + key + `,{"kty":"RSA","kid":"old"}]}`, "", nil, []string{"note the issuer's key old is left out: "}},
		"no issuer":                  {"", "", []string{"ISSUER", gone.URL}, []string{"unknown explain, reachable: " + gone.URL + "/.well-known/jwks.json: "}},
		"it does not start":          {pinned, "", []string{"ALGORITHMS", "RS255", "LEEWAY", "1h"}, []string{"wrong explain, settings: ALGORITHMS: ", "wrong explain, settings: LEEWAY: "}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var issuer *httptest.Server
			issuer = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == "/.well-known/jwks.json":
					io.WriteString(w, row.keys)
				case row.discovery != "":
					fmt.Fprintf(w, row.discovery, issuer.URL)
				default:
					http.NotFound(w, r)
				}
			}))
			defer issuer.Close()
			status, report := good().with(cloud{mine: settings(append([]string{"ISSUER", issuer.URL}, row.more...)...)}).audit(t, calls, "-stack", "shop")
			expects(t, report, status, row.want...)
		})
	}
	for command, want := range map[string]string{
		"":                   "unknown the command explain was not named",
		"/nowhere/explain":   "unknown its settings could not be held against the issuer: explain: ",
		"false":              "unknown it printed no JSON object",
		explained + " -no":   "unknown explain: flag provided but not defined: -no",
		"sh testdata/status": "unknown explain ends with status 2: fault",
	} {
		t.Run("command "+command, func(t *testing.T) {
			t.Parallel()
			status, report := good().audit(t, calls, "-stack", "shop", "-explain", command)
			expects(t, report, status, want)
		})
	}
}

func TestRelease(t *testing.T) {
	t.Parallel()
	sum := sha256.Sum256([]byte("code"))
	deployed := strings.Replace(settings("ISSUER", "https://issuer.example", "JWKS", pinned), "c2hh", base64.StdEncoding.EncodeToString(sum[:]), 1)
	for name, row := range map[string]struct {
		zips map[string]string
		tags string
		want []string
	}{
		"a release":                    {map[string]string{"authorizer-1.2.3-x86_64.zip": "other", "authorizer-1.2.3-arm64.zip": "code"}, `{}`, nil},
		"for another architecture":     {map[string]string{"authorizer-1.2.3-x86_64.zip": "code"}, `{}`, []string{"wrong its code is the release 1.2.3-x86_64, but it runs on arm64"}},
		"none of them":                 {map[string]string{"authorizer-1.2.3-arm64.zip": "other"}, `{}`, []string{"wrong its code is none of the releases"}},
		"none of them, because of SAM": {map[string]string{"authorizer-1.2.3-arm64.zip": "other"}, `{"Tags":{"lambda:createdBy":"SAM"}}`, []string{"note its code cannot be compared with a release, because SAM makes zips of its own"}},
		"no zips":                      {map[string]string{"protected-1.2.3-arm64.zip": "code"}, `{}`, []string{"note its code was not compared with a release: there are no zips in "}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dist := t.TempDir()
			for file, text := range row.zips {
				if err := os.WriteFile(filepath.Join(dist, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			c := good().with(cloud{mine: deployed, "GET /2017-03-31/tags/" + authorizer: row.tags})
			status, report := c.audit(t, calls, "-stack", "shop", "-dist", dist)
			expects(t, report, status, row.want...)
			if name == "a release" && report.Functions[0].Release != "1.2.3-arm64" {
				t.Errorf("the release is %q", report.Functions[0].Release)
			}
		})
	}
}

func TestWithoutAWS(t *testing.T) {
	t.Parallel()
	status, report := auditWith(t, []string{"-api", "rest"}, config.WithRegion("eu-west-1"), config.WithCredentialsProvider(noCredentials), config.WithRetryMaxAttempts(1))
	expects(t, report, status, "unknown there are no AWS credentials: ")
	for _, args := range [][]string{{}, {"-api", "a", "-stack", "b"}, {"-api", "a", "b"}, {"-nothing"}} {
		var out, errs bytes.Buffer
		if status := run(t.Context(), args, &out, &errs); status != 2 || errs.Len() == 0 || out.Len() > 0 {
			t.Errorf("%v: exit status %d, %q, %q", args, status, out.String(), errs.String())
		}
	}
}

func TestNoRegion(t *testing.T) {
	t.Setenv("AWS_REGION", "")
	t.Setenv("AWS_DEFAULT_REGION", "")
	t.Setenv("AWS_CONFIG_FILE", "/nowhere")
	status, report := auditWith(t, []string{"-api", "rest"})
	expects(t, report, status, "unknown no region is given")
}

// Open routes come first, what is not whole says so, and a name cannot talk to the terminal.
func TestPrint(t *testing.T) {
	t.Parallel()
	r := &Report{Region: "eu-west-1", APIs: []*API{{ID: "rest", Name: "o\x1b[2Jrders", Kind: "REST", Stages: []*Stage{{Name: "prod", Routes: []Route{
		{Name: "GET /a", Authorizer: &Authorizer{Name: "Jwt"}}, {Name: "OPTIONS /a", Mock: true}, {Name: "GET /z"}, {Name: "DELETE /z"}}}}}}}
	r.add(note, "rest", "n", "")
	r.add(unknown, "", "u", "do")
	r.add(open, "rest/prod", "o", "")
	r.sort()
	var out bytes.Buffer
	if err := show(&out, r); err != nil {
		t.Fatal(err)
	}
	want := `REST API rest (o?[2Jrders), stage prod, 4 routes
  GET /z                                   OPEN
  DELETE /z                                OPEN
  GET /a                                   Jwt
  OPTIONS /a                               preflight, answered by API Gateway
open     rest/prod: o
unknown  u
         -> do
note     rest: n
account unknown, eu-west-1: 1 open, 0 wrong, 1 unknown
This audit is not whole: what is unknown above may be anything.
`
	if out.String() != want {
		t.Errorf("%s\nwant\n%s", out.String(), want)
	}
}
