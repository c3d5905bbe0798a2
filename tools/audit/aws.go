package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
)

// pages asks for page after page, whose items are in the member of that name. An answer of which a page is missing is none.
// Half of what is asked has no paginator in the SDK, and those that are there stop in silence, or never, at a token that comes again.
func pages[T, In, Out, Opt any](ctx context.Context, ask func(context.Context, *In, ...func(*Opt)) (*Out, error), in *In, member string) ([]T, error) {
	token := "NextToken"
	if !reflect.ValueOf(in).Elem().FieldByName(token).IsValid() {
		token = "Position"
	}
	from := reflect.ValueOf(in).Elem().FieldByName(token)
	for all := []T(nil); ; {
		out, err := ask(ctx, in)
		if err != nil {
			return nil, err
		}
		page := reflect.ValueOf(out).Elem()
		all = append(all, page.FieldByName(member).Interface().([]T)...)
		next := page.FieldByName(token).Interface().(*string)
		if aws.ToString(next) == "" {
			return all, nil
		}
		if aws.ToString(from.Interface().(*string)) == *next {
			return nil, fmt.Errorf("the page after %q is the same one", *next)
		}
		from.Set(reflect.ValueOf(next))
	}
}

// got says whether AWS answered. If not, what was asked for is unknown: a sentence says why, and which permission is missing.
func (r *reader) got(where, what string, err error) bool {
	if err != nil {
		why, do := reason(err, r.cfg.Region)
		r.report.add(unknown, where, what+" could not be read: "+why, do)
	}
	return err == nil
}

func reason(err error, region string) (why, do string) {
	var op *smithy.OperationError
	var api smithy.APIError
	if !errors.As(err, &op) {
		return err.Error(), ""
	}
	if !errors.As(err, &api) {
		if why = op.Unwrap().Error(); strings.Contains(why, "get identity") {
			return "there are no AWS credentials: " + why, "give credentials as for every AWS tool, such as AWS_PROFILE"
		}
		return op.Service() + " " + op.Operation() + ": " + why, ""
	}
	switch code := api.ErrorCode(); {
	case strings.HasPrefix(code, "AccessDenied"), code == "UnauthorizedOperation", code == "UnauthorizedException":
		return "denied, because the permission " + needs(op, err, region) + " is missing: " + api.ErrorMessage(), "allow what tools/audit/policy.json lists"
	case strings.HasPrefix(code, "ExpiredToken"), code == "InvalidClientTokenId", code == "UnrecognizedClientException":
		return "AWS does not take these credentials (" + code + "): " + api.ErrorMessage(), "sign in again"
	case strings.Contains(code, "hrottl"), code == "TooManyRequestsException", code == "LimitExceededException":
		return "AWS throttled " + op.Operation() + " (" + code + ") at every attempt", "try again in a minute"
	case missing(err), strings.HasSuffix(api.ErrorMessage(), "does not exist"):
		return "there is none in " + region + " for these credentials (" + api.ErrorMessage() + ")", "look at the name, the region and the account"
	default:
		return op.Service() + " " + op.Operation() + ": " + code + ": " + api.ErrorMessage(), ""
	}
}

func missing(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && (api.ErrorCode() == "NotFoundException" || api.ErrorCode() == "ResourceNotFoundException")
}

// prefixes of IAM's actions.
var prefixes = map[string]string{"Lambda": "lambda", "CloudWatch Logs": "logs", "CloudWatch": "cloudwatch", "CloudFormation": "cloudformation", "STS": "sts"}

// needs names the permission that an operation needs. API Gateway's are methods on paths.
func needs(op *smithy.OperationError, err error, region string) string {
	if prefix := prefixes[op.Service()]; prefix != "" {
		return prefix + ":" + op.Operation()
	}
	var response *awshttp.ResponseError
	if !errors.As(err, &response) || response.Response == nil || response.Response.Request == nil {
		return "apigateway:GET"
	}
	return gatewayAction(op.Operation()) + " on " + gatewayARN(region, response.Response.Request.URL.Path)
}

func gatewayAction(operation string) string {
	if operation == "ListRoutingRules" {
		return "apigateway:ListRoutingRules"
	}
	return "apigateway:GET"
}

func gatewayARN(region, path string) string {
	return fmt.Sprintf("arn:%s:apigateway:%s::%s", partition(region), region, strings.TrimPrefix(path, "/v2"))
}

func partition(region string) string {
	switch {
	case strings.HasPrefix(region, "cn-"):
		return "aws-cn"
	case strings.HasPrefix(region, "us-gov-"):
		return "aws-us-gov"
	default:
		return "aws"
	}
}
