// Command authorizer is the Lambda function that API Gateway asks about every token, as the authorizer of REST, HTTP and
// WebSocket APIs: it verifies JWTs of the configured issuers, applies the rules of routes, and answers with an IAM policy and
// the claims.
package main
