//go:build cdk

package template

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// What the CDK makes of examples/cdk is held to what the other examples are. make cdk synthesises it before.
func TestCDK(t *testing.T) {
	example, shared := templateIn(t, "build/cdk/orders-cdk.template.json"), templateIn(t, "examples/shared/api.yaml")

	parameters := at(example, "Parameters")
	// There is no other: an asset or a bootstrap would bring its own.
	equal(t, "parameters", keys(parameters), []string{"AuthorizerArn"})
	equal(t, "AuthorizerArn", at(parameters, "AuthorizerArn", "AllowedPattern"), at(shared, "Parameters", "AuthorizerArn", "AllowedPattern"))
	equal(t, "what the deployment needs beside the template", keys(at(templateIn(t, "build/cdk/manifest.json"), "artifacts", "orders-cdk", "properties")),
		[]string{"templateFile", "terminationProtection", "validateOnSynth"})

	restAuthorizer, rest := only(t, example, "AWS::ApiGateway::Authorizer")
	equal(t, "REST authorizer's Type", at(rest, "Type"), "TOKEN")
	equal(t, "REST authorizer's source", at(rest, "IdentitySource"), "method.request.header.Authorization")
	equal(t, "REST authorizer's time to live", at(rest, "AuthorizerResultTtlInSeconds"), "300")
	equal(t, "REST authorizer's expression", at(rest, "IdentityValidationExpression"),
		at(template(t), "Resources", "Api", "Properties", "Auth", "Authorizers", "ZuploJwt", "Identity", "ValidationExpression"))
	_, api := only(t, example, "AWS::ApiGateway::RestApi")
	equal(t, "endpoint", at(api, "EndpointConfiguration"), object{"Types": []any{"REGIONAL"}})
	equal(t, "a role for the account's logs", len(resourcesOf(example, "AWS::ApiGateway::Account")), 0)

	httpAuthorizer, http := only(t, example, "AWS::ApiGatewayV2::Authorizer")
	equal(t, "HTTP authorizer's source", at(http, "IdentitySource"), []any{"$request.header.Authorization"})
	equal(t, "HTTP authorizer's time to live", at(http, "AuthorizerResultTtlInSeconds"), "300")
	equal(t, "HTTP authorizer's simple responses", at(http, "EnableSimpleResponses"), nil)
	equal(t, "HTTP authorizer's payload format", at(http, "AuthorizerPayloadFormatVersion"), "1.0") // as docs/apis.md says

	for kind, authorizer := range map[string]string{"AWS::ApiGateway::Method": restAuthorizer, "AWS::ApiGatewayV2::Route": httpAuthorizer} {
		routes := resourcesOf(example, kind)
		equal(t, "how many of "+kind, len(routes), 4)
		for id, r := range routes {
			equal(t, id, []any{at(r, "Properties", "AuthorizationType"), at(r, "Properties", "AuthorizerId")}, []any{"CUSTOM", ref(authorizer)})
		}
	}

	var invoke []string // the authorizer, by whom
	for _, p := range resourcesOf(example, "AWS::Lambda::Permission") {
		if source := fmt.Sprint(at(p, "Properties", "SourceArn")); strings.Contains(source, "/authorizers/") {
			equal(t, "permission for", at(p, "Properties", "FunctionName"), ref("AuthorizerArn"))
			for _, authorizer := range []string{restAuthorizer, httpAuthorizer} {
				if strings.Contains(source, "/authorizers/ map[Ref:"+authorizer+"]") {
					invoke = append(invoke, authorizer)
				}
			}
		}
	}
	slices.Sort(invoke)
	want := []string{restAuthorizer, httpAuthorizer}
	slices.Sort(want)
	equal(t, "who may invoke the authorizer", invoke, want)
}

// only returns the one resource of its kind.
func only(t *testing.T, tmpl object, kind string) (id string, properties any) {
	t.Helper()
	found := resourcesOf(tmpl, kind)
	if len(found) != 1 {
		t.Fatalf("%d resources %s", len(found), kind)
	}
	for id, r := range found {
		return id, at(r, "Properties")
	}
	panic("unreachable")
}
