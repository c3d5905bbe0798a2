// Package answer is what the authorizers written with a library have in common: the policy, and the text for a refusal.
package answer

import (
	"errors"
	"strings"

	"github.com/aws/aws-lambda-go/events"
)

// ErrUnauthorized makes API Gateway answer 401.
var ErrUnauthorized = errors.New("Unauthorized")

// Bearer is the token of an event.
func Bearer(e events.APIGatewayCustomAuthorizerRequest) string {
	return strings.TrimPrefix(e.AuthorizationToken, "Bearer ")
}

// Allow lets the subject through to the whole stage, as a policy that API Gateway caches must.
func Allow(e events.APIGatewayCustomAuthorizerRequest, subject string) events.APIGatewayCustomAuthorizerResponse {
	api, stage, _ := strings.Cut(e.MethodArn, "/")
	stage, _, _ = strings.Cut(stage, "/")
	return events.APIGatewayCustomAuthorizerResponse{
		PrincipalID: subject,
		PolicyDocument: events.APIGatewayCustomAuthorizerPolicy{
			Version:   "2012-10-17",
			Statement: []events.IAMPolicyStatement{{Effect: "Allow", Action: []string{"execute-api:Invoke"}, Resource: []string{api + "/" + stage + "/*"}}},
		},
		Context: map[string]any{"sub": subject},
	}
}
