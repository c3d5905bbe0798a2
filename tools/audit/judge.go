package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// judge finds what is open or wrong in what was read.
func judge(ctx context.Context, r *Report, o options) {
	var opened []string
	for _, api := range r.APIs {
		opened = append(opened, judgeAPI(r, api, o.open)...)
	}
	for _, route := range o.open {
		if !slices.Contains(opened, route) {
			r.add(wrong, "", "no open route is "+route+", which OPEN names", "take it out of OPEN: it would hide a route that is opened later")
		}
	}
	for _, f := range r.Functions {
		if f.Ours {
			judgeFunction(ctx, r, f, o)
		}
	}
	for _, a := range r.alarms {
		ours := slices.ContainsFunc(r.Functions, a.of) || slices.ContainsFunc(r.APIs, func(api *API) bool {
			return slices.Contains(a.watches, "ApiName="+api.Name) || slices.Contains(a.watches, "ApiId="+api.ID)
		})
		if ours && !a.told {
			r.add(wrong, "alarm "+a.name, "it tells nobody when it rises: neither it nor a composite alarm that names it has an action",
				"give the stack AlarmTopic, or the alarm an action")
		}
	}
	if len(r.APIs)+len(r.Functions)+len(r.Findings) == 0 {
		r.add(unknown, "stack "+o.stack, "it has neither an API nor an authorizer", "name another stack")
	}
}

// of says whether the alarm watches the function: its own metrics, or those that are made of its log.
func (a Alarm) of(f *Function) bool {
	return slices.ContainsFunc(a.watches, func(w string) bool { return w == "FunctionName="+f.name || slices.Contains(f.namespaces, w) })
}

// judgeAPI returns the routes that are open, those included that may be.
func judgeAPI(r *Report, api *API, may []string) (opened []string) {
	if api.Default && len(api.Domains) > 0 {
		r.add(wrong, api.ID, "execute-api answers for it, beside its custom domain "+strings.Join(api.Domains, ", "),
			"set DisableExecuteApiEndpoint; a REST API's stages must be deployed anew after it")
	}
	if !api.partly && len(api.Stages) == 0 {
		r.add(wrong, api.ID, "it has no stage: nothing is deployed", "deploy it")
	}
	for _, stage := range api.Stages {
		where := api.ID + "/" + stage.Name
		if differ := differences(stage.Routes, stage.draft); stage.draft != nil && len(differ) > 0 {
			r.add(wrong, where, "the draft differs from what is deployed: "+few(differ, "; "), "deploy the stage, or undo the change")
		}
		guarded := map[string][]Route{} // by authorizer
		for _, route := range stage.Routes {
			if route.Authorizer != nil {
				guarded[route.Authorizer.Name] = append(guarded[route.Authorizer.Name], route)
			} else if route.open() {
				opened = append(opened, route.Name)
				if !slices.Contains(may, route.Name) {
					what := "no authorizer is asked for " + route.Name
					if route.APIKey {
						what += "; the API key that is asked for tells who pays, not who calls"
					}
					r.add(open, where, what, "give the route the authorizer and deploy the stage; or, if it is open on purpose, OPEN='"+route.Name+"'")
				}
			}
		}
		for _, name := range slices.Sorted(maps.Keys(guarded)) {
			judgeAuthorizer(r, api, stage, guarded[name])
		}
	}
	return opened
}

// judgeAuthorizer judges what these routes ask, which is one authorizer.
func judgeAuthorizer(r *Report, api *API, stage *Stage, routes []Route) {
	a := routes[0].Authorizer
	say := func(l level, what, do string) { r.add(l, api.ID+"/"+stage.Name, a.Name+": "+what, do) }
	var names, preflights []string
	for _, route := range routes {
		if names = append(names, route.Name); strings.HasPrefix(route.Name, "OPTIONS ") {
			preflights = append(preflights, route.Name)
		}
	}
	guards := "; it guards " + few(names, ", ")
	arn, qualifier := a.function()
	i := slices.IndexFunc(r.Functions, func(f *Function) bool { return f.ARN == arn })
	switch {
	case a.Unread:
		say(unknown, "the export does not tell what it is"+guards, "look at it by hand")
		return
	case !a.lambda():
		say(wrong, "it is no Lambda authorizer but "+a.Type+guards, "give these routes the authorizer")
		return
	case i < 0:
		say(unknown, "its URI names no function that can be found, "+a.URI+guards, "look at it by hand")
		return
	case r.Functions[i].gone:
		return
	case r.Functions[i].known && !r.Functions[i].Ours:
		say(wrong, "the function "+r.Functions[i].name+" is not this authorizer, because it has neither ISSUER nor ISSUERS"+guards, "give these routes the authorizer")
		return
	}
	f := r.Functions[i]
	aliased := qualifier != "" && qualifier != "$LATEST"
	if aliased {
		say(wrong, "it names the alias or version "+qualifier+", which keeps working with old settings after a change of a parameter", "name the function itself: "+arn)
	}
	judgeSources(api, a, f, say)
	if a.Simple {
		say(wrong, "simple responses are on: the authorizer answers with a policy, of which API Gateway makes 500", "set EnableSimpleResponses to false")
	}
	if a.Payload == "1.0" {
		say(note, "its payload format is 1.0, which is understood; 2.0 is the present one", "")
	}
	if a.TTL == 0 && api.Kind != "WEBSOCKET" {
		say(note, "nothing is cached: each request invokes the function", "")
	} else if a.TTL > 300 {
		say(note, fmt.Sprintf("answers are cached for %d s: as long as that, withdrawn keys and former rules keep working", a.TTL), "")
	}
	if len(preflights) > 0 {
		say(wrong, "it is asked for browsers' preflights, which carry no token and get 401: "+few(preflights, ", "),
			"take it off these routes (SAM: AddDefaultAuthorizerToCorsPreflight: false)")
	}
	if a.Role == "" && f.policyKnown && !aliased { // an alias has a policy of its own
		judgePermission(r, api, a, f, say)
	}
	if api.Kind == "REST" {
		judgeResourcePolicy(api, stage, a, f, say)
	}
}

type sayer func(l level, what, do string)

// judgeSources holds that an answer is cached by the token's header. A TOKEN authorizer's is the token, whatever its name.
func judgeSources(api *API, a *Authorizer, f *Function, say sayer) {
	header := strings.ToLower(cmp.Or(f.env["TOKEN_HEADER"], "Authorization"))
	asks := strings.FieldsFunc(a.Sources, func(c rune) bool { return c == ',' })
	do := "make the token's header, " + header + ", the only identity source"
	switch named := slices.Contains(asks, "header."+header); {
	case a.Type == "token" || named && len(asks) == 1:
	case named:
		say(note, "it has identity sources beside the token's header, "+a.Sources+": without all of them callers get 401", "")
	case !f.known:
		say(unknown, "whether its identity sources, "+a.Sources+", are the function's token header", do)
	case a.TTL != 0:
		say(wrong, fmt.Sprintf("its answers are cached by %q, and not by the token's header: one caller's answer lets in everybody who sends the same, with any token", a.Sources), do)
	case len(asks) > 0:
		say(wrong, "its identity sources, "+a.Sources+", are not the token's header: without them callers get 401, whatever their token", do)
	default:
		say(note, "it has no identity source: requests without a token invoke the function, too", do)
	}
}

func judgePermission(r *Report, api *API, a *Authorizer, f *Function, say sayer) {
	id := api.ids[a.Name]
	source := fmt.Sprintf("arn:%s:execute-api:%s:%s:%s/authorizers/", partition(r.Region), r.Region, r.Account, api.ID)
	p, err := mayInvoke(f.policy, source+cmp.Or(id, "?"), r.Account)
	switch {
	case err != nil:
		say(unknown, "the policy of "+f.name+" cannot be judged: "+err.Error(), "look at it by hand")
	case p.granted && p.wide:
		say(note, "API Gateway may invoke "+f.name+" for anybody's API", "give the permission a SourceArn")
	case p.granted:
	case p.odd != "":
		say(unknown, "whether API Gateway may invoke "+f.name+" depends on "+p.odd+", which is not judged here", "look at the function's policy by hand")
	case id == "":
		say(unknown, "whether API Gateway may invoke "+f.name+", because the draft has no such authorizer to tell its id", "deploy the stage, and audit again")
	default:
		say(wrong, "API Gateway may not invoke "+f.name+": callers see 500", "aws lambda add-permission --function-name "+f.name+" --statement-id "+api.ID+
			" --action lambda:InvokeFunction --principal apigateway.amazonaws.com --source-arn '"+source+"*'")
	}
}

// judgeResourcePolicy: where an API's policy allows, what the authorizer's leaves out is allowed.
func judgeResourcePolicy(api *API, stage *Stage, a *Authorizer, f *Function, say sayer) {
	allowed := api.Private // nobody reaches one without such a policy
	if policy := cmp.Or(stage.policy, api.policy); policy != "" && !allowed {
		var err error
		if allowed, err = allows(policy); err != nil {
			say(unknown, "the API's resource policy cannot be judged: "+err.Error(), "look at it by hand")
			return
		}
	}
	var left []string
	if f.env["RULES"] != "" && f.env["RULES_MODE"] != "log" {
		left = append(left, "routes that no rule names")
	}
	if a.TTL != 0 && f.env["POLICY_EXPIRY"] != "off" {
		left = append(left, "tokens that expire in the cache")
	}
	switch {
	case !allowed || f.env["EXPLICIT_DENY"] == "on":
	case !f.known:
		say(unknown, "the API's resource policy allows, and whether "+f.name+" has EXPLICIT_DENY is not known", "look at its settings")
	case len(left) > 0:
		say(wrong, "the API's resource policy allows what the authorizer leaves out: "+strings.Join(left, " and "), `set ExplicitDeny=on [unverified on AWS] (docs/rules.md, "Resource policies")`)
	}
}

func judgeFunction(ctx context.Context, r *Report, f *Function, o options) {
	say := func(l level, what, do string) { r.add(l, f.name, what, do) }
	judgeSettings(ctx, f, o.explain, say)
	judgeRelease(f, o.dist, say)
	if f.Reserved != nil && *f.Reserved == 0 {
		say(wrong, "its reserved concurrency is 0: it never runs, and callers see 500", "set ReservedConcurrency, or take it away")
	}
	if !slices.Contains([]string{"", "INFO", "DEBUG", "TRACE"}, f.logLevel) {
		say(wrong, "Lambda drops its lines below "+f.logLevel+": decisions, and the metrics that are made of them", "set ApplicationLogLevel to INFO; LOG_LEVEL is the setting to use")
	}
	if f.logs == "absent" {
		say(wrong, "its log group, "+f.LogGroup+", is not there", "create it, with a retention")
	} else if f.logs == "there" && f.Retention == 0 {
		say(wrong, "its log group, "+f.LogGroup+", keeps everything for ever", "set its retention")
	}
	if !strings.Contains(f.ARN, ":lambda:"+r.Region+":") {
		say(unknown, "its alarms are in another region", "audit its stack there")
	} else if r.alarmsKnown && f.filtered && !slices.ContainsFunc(r.alarms, func(a Alarm) bool { return a.of(f) }) {
		say(wrong, "no alarm watches it", "deploy its stack with Monitoring=true and AlarmTopic")
	}
}

// differences names the routes that are not guarded in the draft as they are where they are deployed.
func differences(deployed, draft []Route) (all []string) {
	drafts := map[string]*Authorizer{}
	for _, route := range draft {
		drafts[route.Name] = route.Authorizer
	}
	for _, route := range deployed {
		is, to := route.Authorizer, drafts[route.Name]
		switch _, there := drafts[route.Name]; {
		case !there:
			all = append(all, route.Name+" is deployed, and not in the draft")
		case is.name() != to.name():
			all = append(all, route.Name+": "+is.name()+" is deployed, "+to.name()+" is in the draft")
		case is != nil && !is.Unread:
			if a := *is; !a.same(*to) {
				all = append(all, route.Name+": "+a.Name+" has other settings in the draft")
			}
		}
		delete(drafts, route.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(drafts)) {
		all = append(all, name+" is in the draft alone")
	}
	return all
}

func (a *Authorizer) name() string {
	if a == nil {
		return "no authorizer"
	}
	return a.Name
}

func (a Authorizer) same(b Authorizer) bool {
	a.resolved, b.resolved = "", ""
	return a == b
}

// few joins five at most, and counts the rest.
func few(all []string, separator string) string {
	if n := len(all) - 5; n > 0 {
		return strings.Join(all[:5], separator) + fmt.Sprintf(" and %d more", n)
	}
	return strings.Join(all, separator)
}
