package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/apigateway"
	rest "github.com/aws/aws-sdk-go-v2/service/apigateway/types"
	"github.com/aws/aws-sdk-go-v2/service/apigatewayv2"
	v2 "github.com/aws/aws-sdk-go-v2/service/apigatewayv2/types"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cfn "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// reader asks AWS, and fills the report with what it answers. What it does not answer becomes a finding.
type reader struct {
	cfg    aws.Config
	report *Report
	rest   *apigateway.Client
	v2     *apigatewayv2.Client

	domains map[string][]string // custom domains by API, once they are needed
}

func newReader(cfg aws.Config, report *Report) *reader {
	report.Region = cfg.Region
	return &reader{cfg: cfg, report: report, rest: apigateway.NewFromConfig(cfg), v2: apigatewayv2.NewFromConfig(cfg)}
}

func (r *reader) read(ctx context.Context, o options) {
	me, err := sts.NewFromConfig(r.cfg).GetCallerIdentity(ctx, nil)
	if !r.got("", "whose credentials these are", err) {
		return
	}
	r.report.Account = aws.ToString(me.Account)
	apis, functions := []*API{{ID: o.api}}, []string{}
	if o.stack != "" {
		if apis, functions, err = r.stack(ctx, o.stack); !r.got("stack "+o.stack, "what it has", err) {
			return
		}
	}
	for _, api := range apis {
		r.api(ctx, api)
	}
	for _, a := range r.report.authorizers() {
		if arn, _ := a.function(); arn != "" {
			functions = append(functions, arn)
		}
	}
	slices.Sort(functions)
	for _, arn := range slices.Compact(functions) {
		r.function(ctx, arn)
	}
	if len(r.report.Functions) > 0 {
		r.alarms(ctx)
	}
}

// stack lists the APIs and the functions of a stack and of the stacks in it.
func (r *reader) stack(ctx context.Context, name string) (apis []*API, functions []string, err error) {
	resources, err := pages[cfn.StackResourceSummary](ctx, cloudformation.NewFromConfig(r.cfg).ListStackResources, &cloudformation.ListStackResourcesInput{StackName: &name}, "StackResourceSummaries")
	for _, res := range resources {
		id := aws.ToString(res.PhysicalResourceId)
		if id == "" || res.ResourceStatus == cfn.ResourceStatusDeleteComplete {
			continue
		}
		switch aws.ToString(res.ResourceType) {
		case "AWS::ApiGateway::RestApi":
			apis = append(apis, &API{ID: id, Kind: "REST"})
		case "AWS::ApiGatewayV2::Api":
			apis = append(apis, &API{ID: id, Kind: "HTTP"}) // or WEBSOCKET
		case "AWS::Lambda::Function":
			functions = append(functions, fmt.Sprintf("arn:%s:lambda:%s:%s:function:%s", partition(r.cfg.Region), r.cfg.Region, r.report.Account, id))
		case "AWS::CloudFormation::Stack":
			a, f, err := r.stack(ctx, id)
			if err != nil {
				return nil, nil, err
			}
			apis, functions = append(apis, a...), append(functions, f...)
		}
	}
	return apis, functions, err
}

// api reads the API with its stages. Where its kind is not given, both services are asked.
func (r *reader) api(ctx context.Context, api *API) {
	api.Stages, api.ids = []*Stage{}, map[string]string{}
	var err error
	if api.Kind != "HTTP" {
		err = r.apiREST(ctx, api)
	}
	if api.Kind == "HTTP" || api.Kind == "" && missing(err) {
		err = r.apiV2(ctx, api)
	}
	if !r.got(api.ID, "the API", err) {
		if api.partly = true; api.Name == "" {
			return
		}
	}
	r.report.APIs = append(r.report.APIs, api)
	if !api.Default {
		return
	}
	if r.domains == nil {
		r.domains = map[string][]string{}
		r.got("", "which custom domains lead to which API", r.readDomains(ctx))
	}
	api.Domains = r.domains[api.ID]
}

func (r *reader) apiREST(ctx context.Context, api *API) error {
	got, err := r.rest.GetRestApi(ctx, &apigateway.GetRestApiInput{RestApiId: &api.ID})
	if err != nil {
		return err
	}
	api.Kind, api.Name, api.policy, api.Default = "REST", aws.ToString(got.Name), aws.ToString(got.Policy), !got.DisableExecuteApiEndpoint
	if c := got.EndpointConfiguration; c != nil {
		api.Private = slices.Contains(c.Types, rest.EndpointTypePrivate)
	}
	draft, err := r.draftREST(ctx, api)
	r.got(api.ID, "the draft", err)
	stages, err := r.rest.GetStages(ctx, &apigateway.GetStagesInput{RestApiId: &api.ID})
	if err != nil {
		return err
	}
	for _, s := range stages.Item {
		stage := &Stage{Name: aws.ToString(s.StageName), draft: draft}
		if s.CanarySettings != nil && s.CanarySettings.PercentTraffic > 0 {
			r.report.add(unknown, api.ID+"/"+stage.Name, fmt.Sprintf("%v %% of the requests go to a canary, which an export does not show", s.CanarySettings.PercentTraffic),
				"promote the canary or delete it, and audit again")
		}
		export, err := r.rest.GetExport(ctx, &apigateway.GetExportInput{RestApiId: &api.ID, StageName: s.StageName, ExportType: aws.String("oas30"),
			Accepts: aws.String("application/json"), Parameters: map[string]string{"extensions": "apigateway"}})
		if err == nil {
			stage.Routes, stage.policy, err = parse(export.Body, api.Kind)
		}
		r.stage(api, stage, s.Variables, err)
	}
	return nil
}

// stage adds the stage, with its variables put into the authorizers' URIs.
func (r *reader) stage(api *API, stage *Stage, variables map[string]string, err error) {
	if !r.got(api.ID+"/"+stage.Name, "what is deployed", err) {
		api.partly = true
		return
	}
	for _, route := range stage.Routes {
		if a := route.Authorizer; a != nil {
			a.resolved = a.URI
			for k, v := range variables {
				a.resolved = strings.ReplaceAll(a.resolved, "${stageVariables."+k+"}", v)
			}
		}
	}
	api.Stages = append(api.Stages, stage)
}

// draftREST returns the routes as they would be if they were deployed now.
func (r *reader) draftREST(ctx context.Context, api *API) ([]Route, error) {
	all, err := pages[rest.Authorizer](ctx, r.rest.GetAuthorizers, &apigateway.GetAuthorizersInput{RestApiId: &api.ID, Limit: aws.Int32(500)}, "Items")
	if err != nil {
		return nil, err
	}
	authorizers := map[string]*Authorizer{}
	for _, a := range all {
		ttl := 300 // API Gateway's default
		if a.AuthorizerResultTtlInSeconds != nil {
			ttl = int(*a.AuthorizerResultTtlInSeconds)
		}
		api.ids[aws.ToString(a.Name)] = aws.ToString(a.Id)
		authorizers[aws.ToString(a.Id)] = &Authorizer{Name: aws.ToString(a.Name), Type: strings.ToLower(string(a.Type)), URI: aws.ToString(a.AuthorizerUri),
			Role: aws.ToString(a.AuthorizerCredentials), Sources: sources(aws.ToString(a.IdentitySource)), TTL: ttl}
	}
	resources, err := pages[rest.Resource](ctx, r.rest.GetResources, &apigateway.GetResourcesInput{RestApiId: &api.ID, Limit: aws.Int32(500), Embed: []string{"methods"}}, "Items")
	if err != nil {
		return nil, err
	}
	routes := []Route{}
	for _, res := range resources {
		for method, m := range res.ResourceMethods {
			route := Route{Name: method + " " + aws.ToString(res.Path)}
			switch aws.ToString(m.AuthorizationType) {
			case "NONE", "":
			case "AWS_IAM":
				route.Authorizer = iam()
			default:
				if route.Authorizer = authorizers[aws.ToString(m.AuthorizerId)]; route.Authorizer == nil {
					return nil, fmt.Errorf("%s names an authorizer that is not there, %s", route.Name, aws.ToString(m.AuthorizerId))
				}
			}
			routes = append(routes, route)
		}
	}
	return routes, nil
}

func (r *reader) apiV2(ctx context.Context, api *API) error {
	got, err := r.v2.GetApi(ctx, &apigatewayv2.GetApiInput{ApiId: &api.ID})
	if err != nil {
		return err
	}
	api.Kind, api.Name, api.Default = string(got.ProtocolType), aws.ToString(got.Name), !aws.ToBool(got.DisableExecuteApiEndpoint)
	authorizers, err := pages[v2.Authorizer](ctx, r.v2.GetAuthorizers, &apigatewayv2.GetAuthorizersInput{ApiId: &api.ID}, "Items")
	if err != nil {
		return err
	}
	for _, a := range authorizers {
		api.ids[aws.ToString(a.Name)] = aws.ToString(a.AuthorizerId)
	}
	stages, err := pages[v2.Stage](ctx, r.v2.GetStages, &apigatewayv2.GetStagesInput{ApiId: &api.ID}, "Items")
	if err != nil {
		return err
	}
	for _, s := range stages {
		stage := &Stage{Name: aws.ToString(s.StageName)}
		if api.Kind == "WEBSOCKET" {
			stage.Routes, err = r.socket(ctx, api, authorizers)
			r.deployed(ctx, api, s)
		} else if stage.Routes, err = r.export(ctx, api, s.StageName); err == nil {
			stage.draft, err = r.export(ctx, api, nil)
		}
		r.stage(api, stage, s.StageVariables, err)
	}
	return nil
}

// export reads what is deployed to a stage of an HTTP API; without a stage, the draft.
func (r *reader) export(ctx context.Context, api *API, stage *string) ([]Route, error) {
	out, err := r.v2.ExportApi(ctx, &apigatewayv2.ExportApiInput{ApiId: &api.ID, StageName: stage, Specification: aws.String("OAS30"), OutputType: aws.String("JSON")})
	if err != nil {
		return nil, err
	}
	routes, _, err := parse(out.Body, api.Kind)
	return routes, err
}

// socket reads a WebSocket API's routes, of which there is the draft alone.
func (r *reader) socket(ctx context.Context, api *API, authorizers []v2.Authorizer) ([]Route, error) {
	all, err := pages[v2.Route](ctx, r.v2.GetRoutes, &apigatewayv2.GetRoutesInput{ApiId: &api.ID}, "Items")
	if err != nil {
		return nil, err
	}
	connect := Route{Name: "$connect"} // where it is absent, everybody is connected
	routes := []Route{}
	for _, got := range all {
		route := Route{Name: aws.ToString(got.RouteKey), APIKey: aws.ToBool(got.ApiKeyRequired)}
		switch got.AuthorizationType {
		case v2.AuthorizationTypeNone, "":
		case v2.AuthorizationTypeAwsIam:
			route.Authorizer = iam()
		default:
			i := slices.IndexFunc(authorizers, func(a v2.Authorizer) bool { return aws.ToString(a.AuthorizerId) == aws.ToString(got.AuthorizerId) })
			if i < 0 {
				return nil, fmt.Errorf("%s names an authorizer that is not there, %s", route.Name, aws.ToString(got.AuthorizerId))
			}
			a := authorizers[i]
			route.Authorizer = &Authorizer{Name: aws.ToString(a.Name), Type: strings.ToLower(string(a.AuthorizerType)), URI: aws.ToString(a.AuthorizerUri),
				Role: aws.ToString(a.AuthorizerCredentialsArn), Sources: sources(a.IdentitySource...)}
		}
		if route.Name == connect.Name {
			connect = route
			continue
		}
		route.Message = true
		routes = append(routes, route)
	}
	return append([]Route{connect}, routes...), nil
}

// deployed says how far a WebSocket API's draft can be taken for what is deployed.
func (r *reader) deployed(ctx context.Context, api *API, s v2.Stage) {
	where := api.ID + "/" + aws.ToString(s.StageName)
	all, err := pages[v2.Deployment](ctx, r.v2.GetDeployments, &apigatewayv2.GetDeploymentsInput{ApiId: &api.ID}, "Items")
	if !r.got(where, "the deployments", err) {
		return
	}
	i := slices.IndexFunc(all, func(d v2.Deployment) bool { return aws.ToString(d.DeploymentId) == aws.ToString(s.DeploymentId) })
	if s.DeploymentId == nil || i < 0 {
		r.report.add(wrong, where, "nothing is deployed to this stage", "deploy the API to it")
		return
	}
	date := func(d v2.Deployment) string { return aws.ToTime(d.CreatedDate).UTC().Format(time.RFC3339) }
	last := slices.MaxFunc(all, func(a, b v2.Deployment) int { return aws.ToTime(a.CreatedDate).Compare(aws.ToTime(b.CreatedDate)) })
	switch d := all[i]; {
	case d.DeploymentStatus == v2.DeploymentStatusFailed:
		r.report.add(wrong, where, "the last deployment, of "+date(d)+", failed: "+aws.ToString(d.DeploymentStatusMessage), "deploy the API again")
	case aws.ToBool(s.AutoDeploy):
		r.report.add(note, where, "a WebSocket API has no export: these routes are the draft, which is deployed by itself, last at "+date(d), "")
	case date(last) > date(d):
		r.report.add(wrong, where, "it has the deployment of "+date(d)+", and the API was deployed to another stage at "+date(last)+": these routes are the draft's, and not this stage's", "deploy the API to it")
	default:
		r.report.add(unknown, where, "a WebSocket API has no export, and its routes have no date: these are the draft's, and what was deployed at "+date(d)+" may differ",
			"set AutoDeploy on the stage, so that there is no difference")
	}
}

// readDomains asks both services, because each has mappings that the other does not show.
func (r *reader) readDomains(ctx context.Context) error {
	leads := func(domain, api *string) {
		if id := aws.ToString(api); !slices.Contains(r.domains[id], *domain) {
			r.domains[id] = append(r.domains[id], *domain)
		}
	}
	first, err := pages[rest.DomainName](ctx, r.rest.GetDomainNames, &apigateway.GetDomainNamesInput{Limit: aws.Int32(500)}, "Items")
	if err != nil {
		return err
	}
	for _, d := range first {
		mappings, err := pages[rest.BasePathMapping](ctx, r.rest.GetBasePathMappings, &apigateway.GetBasePathMappingsInput{DomainName: d.DomainName, DomainNameId: d.DomainNameId, Limit: aws.Int32(500)}, "Items")
		if err != nil {
			return err
		}
		for _, m := range mappings {
			leads(d.DomainName, m.RestApiId)
		}
	}
	second, err := pages[v2.DomainName](ctx, r.v2.GetDomainNames, &apigatewayv2.GetDomainNamesInput{}, "Items")
	if err != nil {
		return err
	}
	for _, d := range second {
		mappings, err := pages[v2.ApiMapping](ctx, r.v2.GetApiMappings, &apigatewayv2.GetApiMappingsInput{DomainName: d.DomainName}, "Items")
		if err != nil {
			return err
		}
		for _, m := range mappings {
			leads(d.DomainName, m.ApiId)
		}
		if d.RoutingMode == "" || d.RoutingMode == v2.RoutingModeApiMappingOnly {
			continue
		}
		rules, err := pages[v2.RoutingRule](ctx, r.v2.ListRoutingRules, &apigatewayv2.ListRoutingRulesInput{DomainName: d.DomainName}, "RoutingRules")
		if err != nil {
			return err
		}
		for _, rule := range rules {
			for _, action := range rule.Actions {
				if action.InvokeApi != nil {
					leads(d.DomainName, action.InvokeApi.ApiId)
				}
			}
		}
	}
	return nil
}
