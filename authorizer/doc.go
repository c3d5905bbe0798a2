// Command authorizer is the Lambda function that API Gateway asks about every token (TOKEN authorizer of a REST API):
// it verifies JWTs of the configured issuers and answers with an IAM policy and the claims.
package main
