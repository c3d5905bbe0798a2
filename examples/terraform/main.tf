# The authorizer from a release's zip, with its role, its log group and a REST API's TOKEN authorizer.
#
# Not run here: test/terraform reads this file with HashiCorp's own parser and holds its settings to template.yaml's. It keeps the
# smallest setup: no alarms, no shared keys, no rules. template.yaml has all of that.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

variable "zip" {
  description = "A release's zip of the authorizer, for the architecture below."
  type        = string
  default     = "authorizer-1.0.0-arm64.zip"
}

variable "issuer" {
  description = "Issuer of the tokens, such as https://DEPLOYMENT.zuplo.app/__zuplo/issuer with your deployment's name."
  type        = string
}

variable "audience" {
  description = "Audience that tokens must name: that of Zuplo's policy."
  type        = string
}

variable "rest_api_id" {
  description = "The REST API that asks the authorizer."
  type        = string
}

variable "rest_api_execution_arn" {
  description = "The same API's execution ARN (aws_api_gateway_rest_api.NAME.execution_arn)."
  type        = string
}

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "logs" {
  statement {
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.authorizer.arn}:log-stream:*"] # the group's streams
  }
}

resource "aws_cloudwatch_log_group" "authorizer" {
  name              = "/aws/lambda/zuplo-lambda-authorizer"
  retention_in_days = 30
}

resource "aws_iam_role" "authorizer" {
  name               = "zuplo-lambda-authorizer"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_role_policy" "logs" {
  name   = "logs"
  role   = aws_iam_role.authorizer.id
  policy = data.aws_iam_policy_document.logs.json
}

resource "aws_lambda_function" "authorizer" {
  function_name    = "zuplo-lambda-authorizer"
  description      = "Verifies a caller's JWT and answers API Gateway with a policy and the claims."
  filename         = var.zip
  source_code_hash = filebase64sha256(var.zip)
  runtime          = "provided.al2023"
  handler          = "bootstrap"
  architectures    = ["arm64"]
  memory_size      = 128
  timeout          = 6
  role             = aws_iam_role.authorizer.arn

  environment {
    variables = {
      ISSUER   = var.issuer
      AUDIENCE = var.audience
    }
  }

  logging_config {
    log_format = "Text" # the lines are JSON already
    log_group  = aws_cloudwatch_log_group.authorizer.name
  }

  depends_on = [aws_iam_role_policy.logs]
}

resource "aws_api_gateway_authorizer" "zuplo" {
  name                             = "zuplo-jwt"
  rest_api_id                      = var.rest_api_id
  type                             = "TOKEN"
  authorizer_uri                   = aws_lambda_function.authorizer.invoke_arn
  identity_source                  = "method.request.header.Authorization"
  identity_validation_expression   = "^([A-Za-z0-9!#$%&'*+.^_`|~-]+ )?[A-Za-z0-9_-]+\\.[A-Za-z0-9_-]+\\.[A-Za-z0-9_-]+$"
  authorizer_result_ttl_in_seconds = 300
}

# This API's authorizers alone may ask.
resource "aws_lambda_permission" "api" {
  statement_id  = "api-gateway"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.authorizer.function_name
  principal     = "apigateway.amazonaws.com"
  source_arn    = "${var.rest_api_execution_arn}/authorizers/${aws_api_gateway_authorizer.zuplo.id}"
}

output "authorizer_id" {
  description = "For aws_api_gateway_method: authorization = \"CUSTOM\" and authorizer_id = this, on every method."
  value       = aws_api_gateway_authorizer.zuplo.id
}
