// Command oidc is an authorizer written with go-oidc, as its documentation has it for keys at a known URL.
package main

import (
	"context"
	"os"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/coreos/go-oidc/v3/oidc"

	"zuplo-lambda-authorizer/test/bench/answer"
)

func main() {
	keys := oidc.NewRemoteKeySet(context.Background(), os.Getenv("JWKS_URI"))
	verifier := oidc.NewVerifier(os.Getenv("ISSUER"), keys, &oidc.Config{
		ClientID: os.Getenv("AUDIENCE"), SupportedSigningAlgs: []string{oidc.EdDSA, oidc.RS256},
	})
	lambda.Start(func(ctx context.Context, e events.APIGatewayCustomAuthorizerRequest) (r events.APIGatewayCustomAuthorizerResponse, err error) {
		token, err := verifier.Verify(ctx, answer.Bearer(e))
		if err != nil {
			return r, answer.ErrUnauthorized
		}
		return answer.Allow(e, token.Subject), nil
	})
}
