package template

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
)

// Another stack's API asks the authorizer itself, with the checks that our own API has, and may invoke it.
func TestSharedAuthorizer(t *testing.T) {
	ours := at(template(t), "Resources", "Api", "Properties")
	api, permission := templateIn(t, "examples/shared/api.yaml"), templateIn(t, "examples/shared/permission.yaml")

	p := at(api, "Resources", "Api", "Properties")
	equal(t, "Globals", at(api, "Globals"), object{"Api": object{"OpenApiVersion": "3.0.1"}})
	equal(t, "Auth", at(p, "Auth"), object{
		"DefaultAuthorizer":                   "ZuploJwt",
		"AddDefaultAuthorizerToCorsPreflight": "false",
		"Authorizers": object{"ZuploJwt": object{
			"FunctionPayloadType": "TOKEN",
			"FunctionArn":         ref("AuthorizerArn"),
			// SAM does not resolve conditions for it, so it cannot depend on the account.
			"DisableFunctionDefaultPermissions": "true",
			"Identity": object{
				"Header":               "Authorization",
				"ValidationExpression": text(ours, "Auth", "Authorizers", "ZuploJwt", "Identity", "ValidationExpression"),
				"ReauthorizeEvery":     "300",
			},
		}},
	})
	for _, same := range []string{"AlwaysDeploy", "EndpointConfiguration"} {
		equal(t, same, at(p, same), at(ours, same))
	}
	headers := []string{"GatewayResponses", "UNAUTHORIZED", "ResponseParameters", "Headers"}
	equal(t, "UNAUTHORIZED's headers", at(p, headers...), at(ours, headers...))

	equal(t, "condition Ours", at(api, "Conditions", "Ours"), object{"Fn::Equals": []any{ref("SameAccount"), "true"}})
	equal(t, "SameAccount's default", at(api, "Parameters", "SameAccount", "Default"), "true")
	invoke := func(account, api string) object {
		return object{
			"Action":       "lambda:InvokeFunction",
			"FunctionName": ref("AuthorizerArn"),
			"Principal":    "apigateway.amazonaws.com",
			"SourceArn":    object{"Fn::Sub": "arn:${AWS::Partition}:execute-api:${AWS::Region}:${" + account + "}:${" + api + "}/authorizers/*"},
		}
	}
	equal(t, "permission in the same account", at(api, "Resources", "AuthorizerPermission"), object{
		"Type": "AWS::Lambda::Permission", "Condition": "Ours", "Properties": invoke("AWS::AccountId", "Api"),
	})
	equal(t, "permission for another account", at(permission, "Resources"), object{"Permission": object{
		"Type": "AWS::Lambda::Permission", "Properties": invoke("ApiAccount", "ApiId"),
	}})

	const arn = "arn:aws:lambda:us-east-1:123456789012:function:stack-AuthorizerFunction-a_1"
	for _, c := range []struct {
		template  object
		parameter string
		good, bad []string
	}{
		{api, "AuthorizerArn", []string{arn, strings.Replace(arn, "aws", "aws-us-gov", 1)}, []string{"", "stack-AuthorizerFunction", arn + ":live", arn + ":7", arn + ":$LATEST", " " + arn}},
		{permission, "AuthorizerArn", []string{arn}, []string{"", arn + ":live"}},
		{permission, "ApiAccount", []string{"210987654321"}, []string{"", "*", "1", "2109876543210"}},
		{permission, "ApiId", []string{"*", "a1b2c3d4e5"}, []string{"", "a*", "a/b", "A"}},
	} {
		allows(t, c.parameter, text(c.template, "Parameters", c.parameter, "AllowedPattern"), c.good, c.bad)
	}
}

// Each kind of API is cached by the token's header alone, asks for a policy, and may invoke the authorizer.
func TestKindsOfAPI(t *testing.T) {
	shared := templateIn(t, "examples/shared/api.yaml")
	permission := at(shared, "Resources", "AuthorizerPermission", "Properties")
	uri := object{"Fn::Sub": "arn:${AWS::Partition}:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/${AuthorizerArn}/invocations"}
	for kind, authorizer := range map[string]object{
		"http": {
			"ApiId": ref("Api"), "Name": "ZuploJwt", "AuthorizerType": "REQUEST", "AuthorizerUri": uri,
			"AuthorizerPayloadFormatVersion": "2.0", "EnableSimpleResponses": "false",
			"IdentitySource": []any{"$request.header.Authorization"}, "AuthorizerResultTtlInSeconds": "300",
		},
		// A time to live is refused there.
		"websocket": {"ApiId": ref("Api"), "Name": "ZuploJwt", "AuthorizerType": "REQUEST", "AuthorizerUri": uri, "IdentitySource": []any{"route.request.header.Authorization"}},
		"rest":      nil,
	} {
		example := templateIn(t, "examples/apis/"+kind+".yaml")
		equal(t, kind+"'s AuthorizerArn", at(example, "Parameters", "AuthorizerArn", "AllowedPattern"), at(shared, "Parameters", "AuthorizerArn", "AllowedPattern"))
		equal(t, kind+"'s permission", at(example, "Resources", "AuthorizerPermission", "Properties"), permission)
		if authorizer != nil {
			equal(t, kind+"'s authorizer", at(example, "Resources", "ZuploJwt", "Properties"), authorizer)
		}
		for id, r := range resourcesOf(example, "AWS::ApiGatewayV2::Route") {
			var want any = "CUSTOM"
			if text(r, "Properties", "RouteKey") == "$default" { // a WebSocket's: it was asked when it connected
				want = nil
			}
			equal(t, kind+"'s "+id, at(r, "Properties", "AuthorizationType"), want)
		}
	}
	equal(t, "rest's Auth", at(templateIn(t, "examples/apis/rest.yaml"), "Resources", "Api", "Properties", "Auth"), object{
		"DefaultAuthorizer":                   "ZuploJwt",
		"AddDefaultAuthorizerToCorsPreflight": "false",
		"Authorizers": object{"ZuploJwt": object{
			"FunctionPayloadType":               "REQUEST",
			"FunctionArn":                       ref("AuthorizerArn"),
			"DisableFunctionDefaultPermissions": "true",
			"Identity":                          object{"Headers": []any{"Authorization"}, "ReauthorizeEvery": "300"},
		}},
	})
	// As it is to be pasted, in YAML's single quotes.
	expression := strings.ReplaceAll(text(template(t), "Resources", "Api", "Properties", "Auth", "Authorizers", "ZuploJwt", "Identity", "ValidationExpression"), "'", "''")
	if !strings.Contains(file(t, "docs/apis.md"), "ValidationExpression: '"+expression+"'\n") {
		t.Error("docs/apis.md has another ValidationExpression than template.yaml")
	}
}

// Each synthesis of examples/cdk uses the same libraries, in this version exactly. What comes of it is tested by make cdk.
func TestCDKIsPinned(t *testing.T) {
	var manifest struct {
		Dependencies, DevDependencies map[string]string
	}
	if err := json.Unmarshal([]byte(file(t, "examples/cdk/package.json")), &manifest); err != nil {
		t.Fatal(err)
	}
	var lock struct {
		Packages map[string]struct{ Version, Integrity string }
	}
	if err := json.Unmarshal([]byte(file(t, "examples/cdk/package-lock.json")), &lock); err != nil {
		t.Fatal(err)
	}
	maps.Copy(manifest.Dependencies, manifest.DevDependencies)
	equal(t, "dependencies", slices.Sorted(maps.Keys(manifest.Dependencies)), []string{"aws-cdk-lib", "constructs", "typescript"})
	for name, version := range manifest.Dependencies {
		if got := lock.Packages["node_modules/"+name]; got.Version != version || got.Integrity == "" {
			t.Errorf("%s is %s in package.json and %v in package-lock.json", name, version, got)
		}
	}
}

// The Zuplo side fits together and fits the stack. That Zuplo takes it is not known, and said.
func TestZuploExample(t *testing.T) {
	var routes struct {
		Paths map[string]map[string]struct {
			Route struct {
				Handler  struct{ Options map[string]string }
				Policies struct{ Inbound []string }
			} `json:"x-zuplo-route"`
		}
	}
	if err := json.Unmarshal([]byte(file(t, "examples/zuplo/routes.oas.json")), &routes); err != nil {
		t.Fatal(err)
	}
	var config struct {
		Policies []struct {
			Name, PolicyType string
			Handler          struct {
				Export, Module string
				Options        map[string]any
			}
		}
	}
	if err := json.Unmarshal([]byte(file(t, "examples/zuplo/policies.json")), &config); err != nil {
		t.Fatal(err)
	}
	var names, types []string
	for _, p := range config.Policies {
		names, types = append(names, p.Name), append(types, p.PolicyType)
	}
	// The API key is checked before the token takes its place.
	equal(t, "policies' types", types, []string{"api-key-inbound", "upstream-zuplo-jwt-auth-inbound"})
	route, ok := routes.Paths["/protected"]["get"]
	if !ok || !slices.Equal(route.Route.Policies.Inbound, names) || route.Route.Handler.Options["baseUrl"] != "${env.ORIGIN_URL}" {
		t.Errorf("route %v with the policies %v", route, names)
	}
	equal(t, "our route", at(template(t), "Resources", "ProtectedFunction", "Properties", "Events", "Protected", "Properties", "Path"), "/protected")
	equal(t, "the key is required", config.Policies[0].Handler.Options["allowUnauthenticatedRequests"], false)
	options := config.Policies[1].Handler.Options
	equal(t, "headerName", options["headerName"], at(template(t), "Parameters", "TokenHeader", "Default"))
	equal(t, "tokenPrefix", options["tokenPrefix"], "Bearer")
	if audience, _ := options["audience"].(string); audience == "" || !strings.Contains(file(t, "README.md"), "Audience="+audience) {
		t.Errorf("the audience %q is not the one that README.md deploys", audience)
	}
	for name, statement := range map[string]string{
		"examples/zuplo/README.md":        "**Written from Zuplo's documentation and not run against Zuplo**",
		"examples/zuplo/zuplo.runtime.ts": "Written from Zuplo's documentation and not run against Zuplo.",
	} {
		if !strings.Contains(file(t, name), statement) {
			t.Errorf("%s does not say %q", name, statement)
		}
	}
}
