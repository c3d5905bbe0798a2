package gateway

import (
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func readTemplate(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("testdata/template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestParse(t *testing.T) {
	t.Parallel()
	api, err := Parse([]byte(readTemplate(t)), nil)
	if err != nil {
		t.Fatal(err)
	}
	auth := api.Authorizer
	if api.Stage != "prod" || auth.Function != "AuthorizerFunction" || auth.Header != "X-Token" || auth.TTL != time.Minute {
		t.Errorf("stage %q, authorizer %+v", api.Stage, auth)
	}
	slices.SortFunc(api.Routes, func(a, b Route) int { return strings.Compare(a.Path, b.Path) })
	want := []Route{{"GET", "/only", "ProtectedFunction"}, {"ANY", "/protected", "ProtectedFunction"}}
	if !slices.Equal(api.Routes, want) {
		t.Errorf("routes %+v, want %+v", api.Routes, want)
	}
	timeouts := map[string]time.Duration{"AuthorizerFunction": 4 * time.Second, "ProtectedFunction": 6 * time.Second}
	if !maps.Equal(api.Timeouts, timeouts) {
		t.Errorf("timeouts %v, want %v", api.Timeouts, timeouts)
	}
	unauthorized := Response{401, map[string]string{"WWW-Authenticate": `Bearer realm="api"`}, `{"why":"no token"}`}
	if got := api.Responses["UNAUTHORIZED"]; !reflect.DeepEqual(got, unauthorized) {
		t.Errorf("UNAUTHORIZED %+v, want %+v", got, unauthorized)
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, old, new, want string }{
		{"Sub", "StageName: !Ref StageName", "StageName: !Sub '${X}'", "!Sub"},
		{"Sub, long form", "StageName: !Ref StageName", "StageName: {'Fn::Sub': x}", "!Sub"},
		{"Ref without a parameter", "StageName: !Ref StageName", "StageName: !Ref Elsewhere", "!Ref Elsewhere"},
		{"Ref without a default", "Default: prod", "Description: x", "!Ref StageName"},
		{"If around a mapping", "Auth:\n", "Auth: {'Fn::If': [A, {}, {}]}\n      Other:\n", "!If"},
		{"If on a number", "StatusCode: 401", "StatusCode: !If [A, 401, 403]", "!If"},
		{"If on a time", "Timeout: 4", "Timeout: !If [A, 4, 5]", "!If"},
		{"ImportValue in a header", `'''Bearer realm="api"'''`, "!ImportValue x", "!ImportValue"},
		{"alias as authorizer", "!GetAtt AuthorizerFunction.Arn", "!Ref AuthorizerFunction.Alias", "!Ref AuthorizerFunction.Alias"},
		{"ARN from elsewhere", "!GetAtt AuthorizerFunction.Arn", "!ImportValue AuthorizerFunction.Arn", "!ImportValue"},
		{"attribute that is no ARN", "!GetAtt AuthorizerFunction.Arn", "!GetAtt AuthorizerFunction.Alias", "!GetAtt AuthorizerFunction.Alias"},
		{"mapping for a text", "StageName: !Ref StageName", "StageName: {a: b}", "is not understood here"},
		{"no authorizer function", "FunctionArn: !GetAtt AuthorizerFunction.Arn", "Other: x", "FunctionArn"},
		{"unknown default authorizer", "DefaultAuthorizer: Jwt", "DefaultAuthorizer: Jwr", `no authorizer "Jwr"`},
		{"no default authorizer", "DefaultAuthorizer: Jwt", "Other: x", `no authorizer ""`},
		{"expression that Go lacks", `[a-z]+|\d+`, `(?=a).*`, "ValidationExpression"},
		{"header that is no constant", `"'5'"`, "method.request.header.X", "Retry-After"},
		{"variable in a response", `{"why":"no token"}`, "{$context.requestId}", "$context.requestId"},
		{"no stage", "StageName: !Ref StageName", "Other: x", "no StageName"},
		{"no API", "AWS::Serverless::Api", "AWS::Serverless::HttpApi", "0 APIs"},
		{"variable in a path", "Path: /only", "Path: '/only/{id}'", "/only/{id}"},
		{"route with its own Auth", "Path: /only", "Path: /only, Auth: {Authorizer: NONE}", "Auth"},
		{"not YAML", "Resources:", "\tResources", "yaml: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text := strings.Replace(readTemplate(t), tt.old, tt.new, 1)
			if _, err := Parse([]byte(text), nil); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want it to name %q", err, tt.want)
			}
		})
	}
}
