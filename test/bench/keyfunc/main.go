// Command keyfunc is an authorizer written with golang-jwt and keyfunc, as their documentation has it.
package main

import (
	"context"
	"log"
	"os"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/golang-jwt/jwt/v5"

	"zuplo-lambda-authorizer/test/bench/answer"
)

func main() {
	keys, err := keyfunc.NewDefaultCtx(context.Background(), []string{os.Getenv("JWKS_URI")})
	if err != nil {
		log.Fatal(err)
	}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"EdDSA", "RS256"}), jwt.WithExpirationRequired(),
		jwt.WithIssuer(os.Getenv("ISSUER")), jwt.WithAudience(os.Getenv("AUDIENCE")))
	lambda.Start(func(ctx context.Context, e events.APIGatewayCustomAuthorizerRequest) (r events.APIGatewayCustomAuthorizerResponse, err error) {
		token, err := parser.Parse(answer.Bearer(e), keys.KeyfuncCtx(ctx))
		if err != nil {
			return r, answer.ErrUnauthorized
		}
		subject, err := token.Claims.GetSubject()
		if err != nil {
			return r, answer.ErrUnauthorized
		}
		return answer.Allow(e, subject), nil
	})
}
