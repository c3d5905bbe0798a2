// A REST API and an HTTP API with an authorizer that is deployed elsewhere.
//
//   npm ci && npx aws-cdk@2 deploy --parameters AuthorizerArn=ARN
import { App, CfnOutput, CfnParameter, Duration, LegacyStackSynthesizer, Stack } from 'aws-cdk-lib';
import { EndpointType, LambdaIntegration, ResponseType, RestApi, TokenAuthorizer } from 'aws-cdk-lib/aws-apigateway';
import { HttpApi, HttpMethod } from 'aws-cdk-lib/aws-apigatewayv2';
import { HttpLambdaAuthorizer, HttpLambdaResponseType } from 'aws-cdk-lib/aws-apigatewayv2-authorizers';
import { HttpLambdaIntegration } from 'aws-cdk-lib/aws-apigatewayv2-integrations';
import { Code, Function, Runtime } from 'aws-cdk-lib/aws-lambda';

// The one synthesizer that needs no bootstrap: nothing here is an asset, and the template is below 50 KB.
const app = new App({ analyticsReporting: false });
const stack = new Stack(app, 'orders-cdk', {
  description: 'A REST API and an HTTP API with an authorizer that is deployed elsewhere.',
  synthesizer: new LegacyStackSynthesizer(),
});

const authorizerArn = new CfnParameter(stack, 'AuthorizerArn', {
  description: "The output AuthorizerArn of the authorizer's stack, in the same account and region.",
  // The function itself, no version and no alias: an alias would go on serving old settings.
  allowedPattern: '^arn:aws[a-z-]*:lambda:[a-z0-9-]+:[0-9]{12}:function:[A-Za-z0-9_-]{1,64}$',
  constraintDescription: 'must be the ARN of a function, without a version or an alias.',
});
const authorizer = Function.fromFunctionAttributes(stack, 'Authorizer', {
  functionArn: authorizerArn.valueAsString,
  sameEnvironment: true, // without it CDK leaves out the permissions to invoke the function, and callers see 500
});

const orders = new Function(stack, 'Orders', {
  description: "Answers with the caller's claims.",
  runtime: Runtime.PYTHON_3_13,
  handler: 'index.handler',
  code: Code.fromInline(`import base64

def handler(event, context):
    answer = event["requestContext"].get("authorizer") or {}
    claims = answer.get("claims")  # the REST API's
    payload = (answer.get("lambda") or {}).get("jwt_payload")  # the HTTP API's
    if payload is not None:
        claims = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)).decode()
    if claims is None:  # a route without its authorizer
        return {"statusCode": 401, "body": ""}
    # The token's payload as it was signed, JSON. Decide on it: beside it each claim has lost its type.
    return {"statusCode": 200, "headers": {"Content-Type": "application/json"}, "body": claims}
`),
});

const rest = new RestApi(stack, 'Rest', {
  endpointTypes: [EndpointType.REGIONAL],
  cloudWatchRole: false, // it would be the whole account's
  defaultIntegration: new LambdaIntegration(orders, { allowTestInvoke: false }),
  defaultMethodOptions: {
    authorizer: new TokenAuthorizer(stack, 'ZuploJwt', {
      handler: authorizer,
      // A pre-filter: what is no JWT, behind one word or none, is turned away without an invocation.
      validationRegex: "^([A-Za-z0-9!#$%&'*+.^_`|~-]+ )?[A-Za-z0-9_-]+\\.[A-Za-z0-9_-]+\\.[A-Za-z0-9_-]+$",
      resultsCacheTtl: Duration.minutes(5),
    }),
  },
});
rest.addGatewayResponse('Unauthorized', {
  type: ResponseType.UNAUTHORIZED,
  statusCode: '401',
  responseHeaders: { 'WWW-Authenticate': `'Bearer realm="api"'` },
});
const restOrders = rest.root.addResource('orders');
restOrders.addMethod('GET');
restOrders.addMethod('POST');
const restOrder = restOrders.addResource('{id}');
restOrder.addMethod('GET');
restOrder.addMethod('DELETE');

const http = new HttpApi(stack, 'Http', {
  defaultAuthorizer: new HttpLambdaAuthorizer('ZuploJwt', authorizer, {
    // A policy, which is right for every route that it is cached for; a simple response is one verdict for all.
    // CDK asks for payload format 1.0 with it.
    responseTypes: [HttpLambdaResponseType.IAM],
    // The token's header alone: it is what the answer is cached for.
    identitySource: ['$request.header.Authorization'],
    resultsCacheTtl: Duration.minutes(5),
  }),
});
const integration = new HttpLambdaIntegration('Orders', orders);
http.addRoutes({ path: '/orders', methods: [HttpMethod.GET, HttpMethod.POST], integration });
http.addRoutes({ path: '/orders/{id}', methods: [HttpMethod.GET, HttpMethod.DELETE], integration });

// What Zuplo's upstream is. RestApi has an output of its own already, by another name.
(rest.node.findChild('Endpoint') as CfnOutput).overrideLogicalId('RestUrl');
new CfnOutput(stack, 'HttpUrl', { value: http.apiEndpoint });
