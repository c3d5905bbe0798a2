package main

import (
	"cmp"
	"context"
	"errors"
	"regexp"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	cw "github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	logs "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
)

var functionARN = regexp.MustCompile(`^arn:[a-z-]+:lambda:([a-z0-9-]+):([0-9]{12}):function:([^:]+)$`)

// function reads the function, and what is around it if it is the authorizer. A stack's others are left out.
func (r *reader) function(ctx context.Context, arn string) {
	part := functionARN.FindStringSubmatch(arn)
	if part == nil {
		r.report.add(unknown, arn, "this is no function's ARN", "")
		return
	}
	f := &Function{ARN: arn, name: part[3], foreign: part[2] != r.report.Account}
	if f.foreign {
		r.report.Functions = append(r.report.Functions, f)
		r.report.add(unknown, f.name, "it is the account "+part[2]+"'s function: its settings, its permission to be invoked and its alarms cannot be seen from here",
			"audit it with that account's credentials: make audit STACK=NAME")
		return
	}
	cfg := r.cfg.Copy()
	cfg.Region = part[1]
	client := lambda.NewFromConfig(cfg)
	got, err := client.GetFunctionConfiguration(ctx, &lambda.GetFunctionConfigurationInput{FunctionName: &arn})
	if err == nil && got.Environment != nil && got.Environment.Error != nil {
		err = errors.New(aws.ToString(got.Environment.Error.Message) + " (its variables' key asks for kms:Decrypt)")
	}
	if f.gone = err != nil && missing(err); f.gone {
		r.report.add(wrong, f.name, "there is no such function in "+part[1]+": callers whose route asks it see 500", "deploy it again")
	} else {
		f.known = r.got(f.name, "the function's settings", err)
	}
	if err != nil {
		r.report.Functions = append(r.report.Functions, f)
		return
	}
	if got.Environment != nil {
		f.env = got.Environment.Variables
	}
	f.Ours = f.env["ISSUER"] != "" || f.env["ISSUERS"] != ""
	asked := slices.ContainsFunc(r.report.authorizers(), func(a *Authorizer) bool { named, _ := a.function(); return named == arn })
	if !f.Ours && !asked {
		return
	}
	r.report.Functions = append(r.report.Functions, f)
	if !f.Ours {
		return
	}
	f.sha = aws.ToString(got.CodeSha256)
	if len(got.Architectures) > 0 {
		f.Architecture = string(got.Architectures[0])
	}
	f.LogGroup = "/aws/lambda/" + f.name
	if l := got.LoggingConfig; l != nil {
		f.LogGroup, f.logLevel = cmp.Or(aws.ToString(l.LogGroup), f.LogGroup), string(l.ApplicationLogLevel)
	}
	policy, err := client.GetPolicy(ctx, &lambda.GetPolicyInput{FunctionName: &arn})
	if f.policyKnown = err != nil && missing(err) || r.got(f.name, "who may invoke the function", err); err == nil {
		f.policy = aws.ToString(policy.Policy)
	}
	concurrency, err := client.GetFunctionConcurrency(ctx, &lambda.GetFunctionConcurrencyInput{FunctionName: &arn})
	if r.got(f.name, "the function's reserved concurrency", err) {
		f.Reserved = concurrency.ReservedConcurrentExecutions
	}
	tags, err := client.ListTags(ctx, &lambda.ListTagsInput{Resource: &arn})
	f.sam = r.got(f.name, "whether SAM made the function's zip", err) && tags.Tags["lambda:createdBy"] == "SAM"
	r.logs(ctx, cloudwatchlogs.NewFromConfig(cfg), f)
}

func (r *reader) logs(ctx context.Context, client *cloudwatchlogs.Client, f *Function) {
	groups, err := pages[logs.LogGroup](ctx, client.DescribeLogGroups, &cloudwatchlogs.DescribeLogGroupsInput{LogGroupNamePrefix: &f.LogGroup}, "LogGroups")
	if !r.got(f.name, "how long the logs are kept", err) {
		return
	}
	f.logs = "absent"
	for _, group := range groups {
		if aws.ToString(group.LogGroupName) == f.LogGroup {
			f.logs, f.Retention = "there", aws.ToInt32(group.RetentionInDays)
		}
	}
	if f.filtered = f.logs == "absent"; f.filtered {
		return
	}
	filters, err := pages[logs.MetricFilter](ctx, client.DescribeMetricFilters, &cloudwatchlogs.DescribeMetricFiltersInput{LogGroupName: &f.LogGroup}, "MetricFilters")
	f.filtered = r.got(f.name, "which metrics are made of the log", err)
	for _, filter := range filters {
		for _, m := range filter.MetricTransformations {
			f.namespaces = append(f.namespaces, aws.ToString(m.MetricNamespace))
		}
	}
}

// alarms reads all of the region.
func (r *reader) alarms(ctx context.Context) {
	client := cloudwatch.NewFromConfig(r.cfg)
	all, err := pages[cw.MetricAlarm](ctx, client.DescribeAlarms, &cloudwatch.DescribeAlarmsInput{AlarmTypes: []cw.AlarmType{cw.AlarmTypeMetricAlarm}}, "MetricAlarms")
	if !r.got("", "the alarms", err) {
		return
	}
	composite, err := pages[cw.CompositeAlarm](ctx, client.DescribeAlarms, &cloudwatch.DescribeAlarmsInput{AlarmTypes: []cw.AlarmType{cw.AlarmTypeCompositeAlarm}}, "CompositeAlarms")
	if !r.got("", "the composite alarms", err) {
		return
	}
	r.report.alarmsKnown = true
	for _, got := range all {
		named := regexp.MustCompile(`(^|["(:\s])` + regexp.QuoteMeta(aws.ToString(got.AlarmName)) + `($|[")\s])`)
		a := Alarm{name: aws.ToString(got.AlarmName), told: aws.ToBool(got.ActionsEnabled) && len(got.AlarmActions) > 0, watches: []string{aws.ToString(got.Namespace)}}
		for _, c := range composite {
			a.told = a.told || aws.ToBool(c.ActionsEnabled) && len(c.AlarmActions) > 0 && named.MatchString(aws.ToString(c.AlarmRule))
		}
		dimensions := got.Dimensions
		for _, q := range got.Metrics {
			if q.MetricStat != nil && q.MetricStat.Metric != nil {
				a.watches = append(a.watches, aws.ToString(q.MetricStat.Metric.Namespace))
				dimensions = append(dimensions, q.MetricStat.Metric.Dimensions...)
			}
		}
		for _, d := range dimensions {
			a.watches = append(a.watches, aws.ToString(d.Name)+"="+aws.ToString(d.Value))
		}
		r.report.alarms = append(r.report.alarms, a)
	}
}
