package template

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var namespace any = object{"Fn::Sub": "ZuploAuthorizer/${AWS::StackName}"}

func resourcesOf(tmpl object, kind string) object {
	found := object{}
	for id, r := range tmpl["Resources"].(object) {
		if text(r, "Type") == kind {
			found[id] = r
		}
	}
	return found
}

// metrics are the names of those that the template makes of log lines. That each line is counted by the right ones is
// tested where the lines are written.
func metrics(t *testing.T, tmpl object) []string {
	t.Helper()
	var names []string
	for id, r := range resourcesOf(tmpl, "AWS::Logs::MetricFilter") {
		p := at(r, "Properties")
		equal(t, id+"'s members", keys(p), []string{"FilterPattern", "LogGroupName", "MetricTransformations"})
		equal(t, id+"'s log group", at(p, "LogGroupName"), ref("AuthorizerLogs"))
		for _, m := range at(p, "MetricTransformations").([]any) {
			equal(t, id+"'s namespace", at(m, "MetricNamespace"), namespace)
			name := text(m, "MetricName")
			equal(t, id+"'s metric", name+"Metric", id)
			// FILL does nothing for a metric that never had a data point. A measurement of 0 would be false.
			if want := map[string]any{"Count": "0", "Seconds": nil}[text(m, "Unit")]; at(m, "DefaultValue") != want {
				t.Errorf("%s has the default value %v, want %v", name, at(m, "DefaultValue"), want)
			}
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func TestMetricsAreFew(t *testing.T) {
	names := metrics(t, template(t))
	if n := len(slices.Compact(names)); n != len(names) || n > 17 || n == 0 {
		t.Errorf("%d metrics, %d of them distinct, at most 17 are wanted: %v", len(names), n, names)
	}
}

func TestMonitoringIsOneParameter(t *testing.T) {
	tmpl := template(t)
	equal(t, "condition Monitored", at(tmpl, "Conditions", "Monitored"), object{"Fn::Equals": []any{ref("Monitoring"), "true"}})
	equal(t, "condition Alerting", at(tmpl, "Conditions", "Alerting"), given("AlarmTopic"))
	monitored := object{"Condition": "Monitored"}
	equal(t, "condition ApiMonitored", at(tmpl, "Conditions", "ApiMonitored"), object{"Fn::And": []any{monitored, object{"Condition": "ApiWanted"}}})
	equal(t, "condition ShareMonitored", at(tmpl, "Conditions", "ShareMonitored"), object{"Fn::And": []any{monitored, given("RejectedPercent")}})
	special := map[string]string{"ApiErrorsAlarm": "ApiMonitored", "RejectedShareAlarm": "ShareMonitored"}
	for kind, n := range map[string]int{"AWS::Logs::MetricFilter": 17, "AWS::CloudWatch::Alarm": 12, "AWS::CloudWatch::Dashboard": 1, "AWS::Logs::QueryDefinition": 12} {
		found := resourcesOf(tmpl, kind)
		equal(t, kind, len(found), n)
		for id, r := range found {
			equal(t, id+"'s condition", at(r, "Condition"), cmp.Or(special[id], "Monitored"))
		}
	}
}

// A minute holds what a metric's statistic was in it. A metric that is not there has no data.
type minute map[string]float64

// What AWS makes by itself: names and dimensions.
var awsMetrics = map[string]struct {
	names      []string
	dimensions []any
}{
	"AWS/Lambda": {[]string{"ConcurrentExecutions", "Duration", "Errors", "Throttles"}, []any{object{"Name": "FunctionName", "Value": ref("AuthorizerFunction")}}},
	"AWS/ApiGateway": {[]string{"4XXError", "5XXError", "Count"},
		[]any{object{"Name": "ApiName", "Value": ref("AWS::StackName")}, object{"Name": "Stage", "Value": ref("StageName")}}},
}

// source returns the metric's name after checking that there is such a metric, of the authorizer or the stack's API.
func source(t *testing.T, tmpl object, metric any) string {
	t.Helper()
	name := text(metric, "MetricName")
	if of, ok := awsMetrics[text(metric, "Namespace")]; ok {
		equal(t, name+"'s dimensions", at(metric, "Dimensions"), of.dimensions)
		if !slices.Contains(of.names, name) {
			t.Errorf("%s has no metric %s", text(metric, "Namespace"), name)
		}
		return name
	}
	equal(t, name+"'s namespace", at(metric, "Namespace"), namespace)
	equal(t, name+"'s dimensions", at(metric, "Dimensions"), nil)
	if !slices.Contains(metrics(t, tmpl), name) {
		t.Errorf("no metric filter makes %s", name)
	}
	return name
}

// number is a plain one, or the default of the parameter that it refers to. RejectedPercent, whose default is none, is 50.
func number(t *testing.T, tmpl object, v any) float64 {
	t.Helper()
	switch parameter := at(v, "Ref"); {
	case parameter == "RejectedPercent":
		return 50
	case parameter != nil:
		v = at(tmpl, "Parameters", parameter.(string), "Default")
	}
	s, _ := v.(string)
	n, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatalf("%v is no number", v)
	}
	return n
}

// raised reports whether an alarm rises within the minutes; before and after them was nothing.
func raised(t *testing.T, tmpl object, id string, minutes []minute) bool {
	t.Helper()
	p := at(tmpl, "Resources", id, "Properties")
	equal(t, id+"'s comparison", at(p, "ComparisonOperator"), "GreaterThanThreshold")
	equal(t, id+" without data", at(p, "TreatMissingData"), "notBreaching")
	period := at(p, "Period")
	for _, q := range list(at(p, "Metrics")) {
		if stat := at(q, "MetricStat"); stat != nil {
			if period != nil {
				equal(t, id+"'s period", at(stat, "Period"), period)
			}
			period = at(stat, "Period")
		}
	}
	length := int(number(t, tmpl, period)) / 60
	var breaching []float64
	for stretch := range slices.Chunk(minutes, length) {
		sums := minute{}
		for _, m := range stretch {
			for name, v := range m {
				sums[name] += v // all but Duration, whose alarm's period is a minute
			}
		}
		breaching = append(breaching, 0)
		if v := datapoint(t, tmpl, id, p, sums); v > number(t, tmpl, at(p, "Threshold")) { // no data is NaN: never greater
			breaching[len(breaching)-1] = 1
		}
		last, sum := breaching[max(0, len(breaching)-int(number(t, tmpl, at(p, "EvaluationPeriods")))):], 0.0
		for _, b := range last {
			sum += b
		}
		if sum >= number(t, tmpl, at(p, "DatapointsToAlarm")) {
			return true
		}
	}
	return false
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

func datapoint(t *testing.T, tmpl object, id string, p any, m minute) float64 {
	t.Helper()
	values := map[string]float64{}
	get := func(metric any) float64 {
		if v, ok := m[source(t, tmpl, metric)]; ok {
			return v
		}
		return math.NaN()
	}
	if at(p, "Metrics") == nil {
		if s := at(p, "Statistic"); s != "Sum" && at(p, "ExtendedStatistic") != "p99" {
			t.Errorf("%s's statistic is %v", id, s)
		}
		return get(p)
	}
	result, expressions := "", map[string]string{}
	for _, q := range list(at(p, "Metrics")) {
		name := text(q, "Id")
		if at(q, "ReturnData") == "true" {
			equal(t, id+"'s returned data", []any{result, text(q, "Label") != ""}, []any{"", true})
			result = name
		}
		if e := text(q, "Expression"); e != "" {
			expressions[name] = e
			continue
		}
		equal(t, id+"'s "+name, []any{at(q, "ReturnData"), at(q, "MetricStat", "Stat")}, []any{"false", "Sum"})
		values[name] = get(at(q, "MetricStat", "Metric"))
	}
	v, err := metricMath(result, expressions, values)
	if err != nil {
		t.Fatalf("%s: %v: %v", id, expressions, err)
	}
	return v
}

// metricMath evaluates the part of CloudWatch's metric math that the template uses, at one moment: + - * / and > of numbers,
// metrics and other expressions, FILL(metric, number) and IF(condition, then, else). NaN is what has no data.
func metricMath(result string, expressions map[string]string, values map[string]float64) (float64, error) {
	var err error
	var eval func(e ast.Expr) float64
	named := func(name string) float64 {
		if v, ok := values[name]; ok {
			return v
		}
		expr, parseErr := parser.ParseExpr(expressions[name])
		if parseErr != nil {
			err = fmt.Errorf("%s: %w", name, parseErr)
			return 0
		}
		return eval(expr)
	}
	eval = func(e ast.Expr) float64 {
		switch e := e.(type) {
		case *ast.BasicLit:
			n, parseErr := strconv.ParseFloat(e.Value, 64)
			err = errors.Join(err, parseErr)
			return n
		case *ast.Ident:
			return named(e.Name)
		case *ast.ParenExpr:
			return eval(e.X)
		case *ast.BinaryExpr:
			x, y := eval(e.X), eval(e.Y)
			switch e.Op {
			case token.ADD:
				return x + y
			case token.SUB:
				return x - y
			case token.MUL:
				return x * y
			case token.QUO:
				return x / y
			case token.GTR:
				switch {
				case math.IsNaN(x + y):
					return math.NaN()
				case x > y:
					return 1
				}
				return 0
			}
		case *ast.CallExpr:
			var args []float64
			for _, a := range e.Args {
				args = append(args, eval(a))
			}
			switch name, _ := e.Fun.(*ast.Ident); {
			case name == nil:
			case name.Name == "FILL" && len(args) == 2 && math.IsNaN(args[0]):
				return args[1]
			case name.Name == "FILL" && len(args) == 2:
				return args[0]
			case name.Name == "IF" && len(args) == 3 && math.IsNaN(args[0]):
				return math.NaN()
			case name.Name == "IF" && len(args) == 3 && args[0] != 0:
				return args[1]
			case name.Name == "IF" && len(args) == 3:
				return args[2]
			}
		}
		err = errors.New("not understood here")
		return 0
	}
	v := named(result)
	return v, err
}

// everyTwenty is an hour in which it happens three times, twenty minutes apart.
func everyTwenty(m minute) []minute {
	hour := make([]minute, 60)
	hour[0], hour[20], hour[40] = m, m, m
	return hour
}

func TestAlarms(t *testing.T) {
	tmpl := template(t)
	twice, thrice := func(m minute) []minute { return []minute{m, m} }, func(m minute) []minute { return []minute{m, m, m} }
	times := func(n int, m minute) []minute { return slices.Repeat([]minute{m}, n) }
	const faults, crashes, nothing, api, refused, share = "FaultsAlarm", "CrashesAlarm", "NothingAllowedAlarm", "ApiErrorsAlarm", "CallersRefusedAlarm", "RejectedShareAlarm"
	const unusable, overdue, failing, forged, throttled, slow = "UnusableKeyAlarm", "KeysOverdueAlarm", "FetchesFailingAlarm", "ForgedTokensAlarm", "ThrottlesAlarm", "SlowAlarm"
	tested := object{}
	for _, c := range []struct {
		name    string
		minutes []minute
		alarms  []string // those that rise, in any order
	}{
		{"nothing", times(15, minute{}), nil},
		{"all is well", thrice(minute{"Allowed": 900, "Errors": 0, "Throttles": 0, "Duration": 3, "FetchesOk": 1, "Count": 900, "5XXError": 0}), nil},

		{"a start that fails: no line tells of it", thrice(minute{"Errors": 3}), []string{crashes, nothing}},
		{"one start that failed, and the next did not", []minute{{"Errors": 1}, {"Errors": 0, "Allowed": 1}, {"Errors": 0}}, nil},
		{"one start that failed, and nobody came again", everyTwenty(nil)[:59], nil},
		{"crashes among the usual rejections", thrice(minute{"Errors": 12, "Rejected": 10, "RejectedAsError": 10, "Allowed": 50}), []string{crashes}},
		{"crashes for two minutes", twice(minute{"Errors": 12, "Allowed": 50}), nil},
		{"an outage of the issuer with no keys", thrice(minute{"Errors": 50, "Faults": 50, "FetchesFailed": 6}), []string{faults, nothing, failing}},
		{"an outage of the issuer with old keys", thrice(minute{"Errors": 0, "Allowed": 50, "KeysOverdue": 50, "FetchesFailed": 2}), []string{failing, overdue}},
		{"faults in a flood of bad tokens", twice(minute{"Errors": 6003, "Rejected": 6000, "RejectedAsError": 6000, "Faults": 3, "Allowed": 1}), []string{faults}},
		{"faults among which are crashes", thrice(minute{"Errors": 5, "Faults": 3, "Allowed": 1}), []string{faults, crashes}},
		{"faults alone are no crashes", thrice(minute{"Errors": 3, "Faults": 3, "Allowed": 1}), []string{faults}},
		{"a fault in a minute", []minute{{"Errors": 1, "Faults": 1, "Allowed": 9}, {"Allowed": 9}, {"Allowed": 9}}, nil},
		{"every request fails, one in twenty minutes", everyTwenty(minute{"Errors": 1, "Faults": 1}), []string{nothing}},
		{"every start fails, one in twenty minutes", everyTwenty(minute{"Errors": 1}), []string{nothing}},
		{"every request fails but for one, one in twenty minutes", append([]minute{{"Allowed": 1}}, everyTwenty(minute{"Errors": 1, "Faults": 1})[:59]...), nil},
		{"every request fails but for a forbidden one", append([]minute{{"Forbidden": 1}}, everyTwenty(minute{"Errors": 1, "Faults": 1})[:59]...), nil},
		{"one failed request in an hour", []minute{{"Errors": 1, "Faults": 1}}, nil},
		{"bad tokens, one in twenty minutes", everyTwenty(minute{"Errors": 1, "Rejected": 1, "RejectedAsError": 1}), nil},

		{"a flood of bad tokens", thrice(minute{"Errors": 6000, "Rejected": 6000, "RejectedAsError": 6000, "Allowed": 20}), nil},
		{"a flood whose lines are late", []minute{{"Errors": 6000, "Rejected": 5960, "RejectedAsError": 5960, "Allowed": 1}, {"Errors": 6000, "Rejected": 5980, "RejectedAsError": 5980}, {"Errors": 6000, "Rejected": 5990, "RejectedAsError": 5990}}, nil},
		{"a flood whose last two minutes have no lines yet", append(times(2, minute{"Errors": 6000, "Rejected": 6000, "RejectedAsError": 6000, "Allowed": 1}), times(2, minute{"Errors": 6000})...), nil},
		{"the same, and nobody else calls", append(times(3, minute{"Errors": 6000, "Rejected": 6000, "RejectedAsError": 6000, "RejectedForged": 6000}), times(2, minute{"Errors": 6000})...), []string{forged}},
		{"a rejection whose line falls into the next minute", []minute{{"Errors": 1}, {"Errors": 0, "Rejected": 1, "RejectedAsError": 1}}, nil},
		{"a rejection in each minute, counted two minutes late", append(twice(minute{"Errors": 1}), times(3, minute{"Errors": 1, "Rejected": 1, "RejectedAsError": 1, "Allowed": 1})...), nil},
		{"rejections of an HTTP API alone: no errors", thrice(minute{"Errors": 0, "Rejected": 6000, "Allowed": 1}), nil},
		{"crashes among an HTTP API's rejections", thrice(minute{"Errors": 3, "Rejected": 6000, "Allowed": 1}), []string{crashes}},
		{"crashes among those of a REST and an HTTP API", thrice(minute{"Errors": 105, "Rejected": 6100, "RejectedAsError": 100, "Allowed": 1}), []string{crashes}},
		{"the same without crashes", thrice(minute{"Errors": 100, "Rejected": 6100, "RejectedAsError": 100, "Allowed": 1}), nil},

		{"the API does not reach the authorizer", twice(minute{"Count": 90, "5XXError": 90}), []string{api}},
		{"one request in a minute that the API fails", []minute{{"Count": 90, "5XXError": 1}, {"Count": 90, "5XXError": 0}}, nil},

		{"a wrong Issuer: everybody is refused", times(5, minute{"Errors": 3, "Rejected": 3, "RejectedAsError": 3}), []string{refused}},
		{"wrong Rules: everybody is forbidden", times(5, minute{"Errors": 0, "Forbidden": 3}), []string{refused}},
		{"ten are refused", times(5, minute{"Errors": 2, "Rejected": 2, "RejectedAsError": 2}), nil},
		{"many are refused, one is allowed", append([]minute{{"Allowed": 1}}, times(4, minute{"Errors": 90, "Rejected": 90, "RejectedAsError": 90})...), nil},
		{"eleven are refused in six minutes", times(6, minute{"Errors": 2, "Rejected": 2, "RejectedAsError": 2})[:6], nil},
		{"all that is refused is forged", times(5, minute{"Errors": 20, "Rejected": 20, "RejectedAsError": 20, "RejectedForged": 20}), nil},
		{"tokens that are good for other routes", thrice(minute{"Errors": 0, "Allowed": 1, "Forbidden": 900}), nil},

		{"51 of a hundred are rejected for a quarter of an hour", times(15, minute{"Errors": 51, "Rejected": 51, "RejectedAsError": 51, "Allowed": 40, "Forbidden": 9}), []string{share}},
		{"half are", times(15, minute{"Errors": 50, "Rejected": 50, "RejectedAsError": 50, "Allowed": 40, "Forbidden": 10}), nil},
		{"51 of a hundred for ten minutes", times(10, minute{"Errors": 51, "Rejected": 51, "RejectedAsError": 51, "Allowed": 49}), nil},
		{"most of twenty", times(15, minute{"Errors": 3, "Rejected": 3, "RejectedAsError": 3, "Allowed": 1}), nil},

		{"a forger", twice(minute{"Errors": 21, "Rejected": 21, "RejectedAsError": 21, "RejectedForged": 21}), []string{forged}},
		{"a few forgeries", twice(minute{"Errors": 20, "Rejected": 20, "RejectedAsError": 20, "RejectedForged": 20}), nil},
		{"the issuer's key cannot be used: nobody forges", twice(minute{"Errors": 1, "Rejected": 1, "RejectedAsError": 1, "RejectedKey": 1, "Allowed": 9}), []string{unusable}},

		{"one fetch that failed", []minute{{"FetchesFailed": 1}, {"FetchesFailed": 1}, {"FetchesOk": 1}}, nil},
		{"fetches that Lambda freezes, again and again", thrice(minute{"Allowed": 9, "FetchesFrozen": 1}), []string{failing}},
		{"a slow issuer: frozen, and then heard", thrice(minute{"Allowed": 9, "FetchesFrozen": 5, "FetchesOk": 5}), nil},
		{"one of ten fails, the others make up for frozen ones only", thrice(minute{"FetchesFailed": 1, "FetchesOk": 9}), []string{failing}},
		{"keys overdue for a minute", []minute{{"KeysOverdue": 9}, {}}, nil},
		{"throttled", twice(minute{"Throttles": 1}), []string{throttled}},
		{"slow", thrice(minute{"Duration": 1000.1}), []string{slow}},
		{"slow for two minutes", []minute{{"Duration": 5000}, {"Duration": 5000}, {"Duration": 1000}}, nil},
	} {
		var got []string
		for id := range resourcesOf(tmpl, "AWS::CloudWatch::Alarm") {
			if raised(t, tmpl, id, c.minutes) {
				got = append(got, id)
				tested[id] = true
			}
		}
		slices.Sort(got)
		slices.Sort(c.alarms)
		if !slices.Equal(got, c.alarms) {
			t.Errorf("%s: %v rise, want %v", c.name, got, c.alarms)
		}
	}
	for id, a := range resourcesOf(tmpl, "AWS::CloudWatch::Alarm") {
		if tested[id] == nil {
			t.Errorf("no row makes %s rise", id)
		}
		topic := object{"Fn::If": []any{"Alerting", []any{ref("AlarmTopic")}, ref("AWS::NoValue")}}
		for _, member := range []string{"AlarmActions", "OKActions"} {
			equal(t, id+"'s "+member, at(a, "Properties", member), topic)
		}
	}
	equal(t, "SlowAlarm with few samples", at(tmpl, "Resources", slow, "Properties", "EvaluateLowSampleCountPercentile"), "ignore")
	equal(t, "the share's alarm", at(tmpl, "Parameters", "RejectedPercent", "Default"), "") // there is none unless it is set
}

// dashboardLink is the address of the dashboard, in each partition's console.
const dashboardLink = "https://${Console}/cloudwatch/home?region=${AWS::Region}#dashboards/dashboard/${AWS::StackName}-${AWS::Region}"

var console any = object{"Console": object{"Fn::FindInMap": []any{"Console", ref("AWS::Partition"), "Host"}}}

// An alarm's text says what callers see, and leads to its chapter, to a saved query and to the dashboard.
func TestAlarmsTell(t *testing.T) {
	tmpl, runbook := template(t), file(t, "docs/operations.md")
	equal(t, "consoles", at(tmpl, "Mappings", "Console"), object{
		"aws": object{"Host": "console.aws.amazon.com"}, "aws-cn": object{"Host": "console.amazonaws.cn"}, "aws-us-gov": object{"Host": "console.amazonaws-us-gov.com"},
	})
	saved := savedQueries(t, tmpl)
	form := regexp.MustCompile(`^Callers (get|wait)\b.*\. docs/operations\.md, "(.+)"\. Saved query: \$\{AWS::StackName\}/([a-z-]+)\. Dashboard: ` + regexp.QuoteMeta(dashboardLink) + `$`)
	for id, a := range resourcesOf(tmpl, "AWS::CloudWatch::Alarm") {
		parts := list(at(a, "Properties", "AlarmDescription", "Fn::Sub"))
		if len(parts) != 2 {
			t.Errorf("%s's text is no !Sub with variables", id)
			continue
		}
		equal(t, id+"'s console", parts[1], console)
		m := form.FindStringSubmatch(parts[0].(string))
		switch {
		case m == nil:
			t.Errorf("%s tells %q", id, parts[0])
		case !regexp.MustCompile(`(?m)^##+ ` + regexp.QuoteMeta(m[2]) + `$`).MatchString(runbook):
			t.Errorf("%s leads to no chapter of docs/operations.md: %q", id, m[2])
		case saved[m[3]] == "":
			t.Errorf("%s leads to no saved query: %q", id, m[3])
		case !regexp.MustCompile("(?m)^    # " + m[3] + "$|`" + m[3] + "`").MatchString(chapter(runbook, m[2])):
			t.Errorf("%s leads to the query %s, which its chapter %q does not name", id, m[3], m[2])
		}
		// CloudWatch takes 1,024 characters; a stack's name has 128, a region's 14.
		if n := len(strings.NewReplacer("${AWS::StackName}", strings.Repeat("s", 128), "${AWS::Region}", strings.Repeat("r", 14), "${Console}", strings.Repeat("c", 28)).Replace(parts[0].(string))); n > 1024 {
			t.Errorf("%s's text has up to %d characters", id, n)
		}
	}
}

// chapter is a chapter of the runbook down to the next heading that is not below it.
func chapter(runbook, title string) string {
	at := regexp.MustCompile(`(?m)^(##+) ` + regexp.QuoteMeta(title) + `$`).FindStringSubmatchIndex(runbook)
	level, rest := at[3]-at[2], runbook[at[1]:]
	if end := regexp.MustCompile(fmt.Sprintf(`(?m)^#{2,%d} `, level)).FindStringIndex(rest); end != nil {
		rest = rest[:end[0]]
	}
	return rest
}

// savedQueries are the texts of the saved queries by name.
func savedQueries(t *testing.T, tmpl object) map[string]string {
	t.Helper()
	saved := map[string]string{}
	for id, q := range resourcesOf(tmpl, "AWS::Logs::QueryDefinition") {
		p := at(q, "Properties")
		equal(t, id+"'s log group", at(p, "LogGroupNames"), []any{ref("AuthorizerLogs")})
		name, ok := strings.CutPrefix(text(p, "Name", "Fn::Sub"), "${AWS::StackName}/")
		if !ok || name == "" || text(p, "QueryString") == "" {
			t.Errorf("%s is called %v", id, at(p, "Name"))
		}
		saved[name] = text(p, "QueryString")
	}
	return saved
}

// Each query of the runbook is saved under the name that it has there, and no other is.
func TestSavedQueries(t *testing.T) {
	told := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^ +# ([a-z-]+)\n +(filter .*)$`).FindAllStringSubmatch(file(t, "docs/operations.md"), -1) {
		if told[m[1]] != "" {
			t.Errorf("docs/operations.md has two queries called %s", m[1])
		}
		told[m[1]] = m[2]
	}
	equal(t, "saved queries", savedQueries(t, template(t)), told)
	if n := strings.Count(file(t, "docs/operations.md"), "    filter "); n != len(told) {
		t.Errorf("docs/operations.md has %d queries, %d of them with a name", n, len(told))
	}
}

// What AWS documents of a dashboard's body ("Dashboard body structure and syntax"), as far as it is used here: the members
// of each kind of widget, with what they may be. One that begins with + must be there.
var (
	aString, aNumber, aBool = regexp.MustCompile(`^".+"$`), regexp.MustCompile(`^[0-9.]+$`), regexp.MustCompile(`^(true|false)$`)
	oneOf                   = func(values string) *regexp.Regexp { return regexp.MustCompile(`^"(` + values + `)"$`) }
	anything                = regexp.MustCompile(``)

	widgetMembers = map[string]*regexp.Regexp{
		"+type": oneOf("metric|log|alarm|text"), "x": regexp.MustCompile(`^(1?[0-9]|2[0-3])$`), "y": regexp.MustCompile(`^[0-9]+$`),
		"width": regexp.MustCompile(`^(1?[0-9]|2[0-4])$`), "height": regexp.MustCompile(`^([1-9][0-9]{0,2}|1000)$`), "+properties": anything,
	}
	propertiesOf = map[string]map[string]*regexp.Regexp{
		"metric": {
			"+metrics": anything, "+region": aString, "title": aString, "period": regexp.MustCompile(`^(60|[1-9][0-9]*0)$`), "stat": oneOf("SampleCount|Average|Sum|Minimum|Maximum|p[0-9]{1,2}"),
			"stacked": aBool, "view": oneOf("timeSeries|singleValue|gauge|bar|pie|table"), "yAxis": anything, "legend": anything, "annotations": anything, "liveData": aBool,
		},
		"log":   {"+region": aString, "title": aString, "+query": regexp.MustCompile(`^"SOURCE '[^']+' \| .+"$`), "view": oneOf("table|timeSeries|bar|pie")},
		"alarm": {"+alarms": anything, "title": aString, "sortBy": oneOf("default|stateUpdatedTimestamp|timestamp"), "states": anything},
		"text":  {"+markdown": aString, "background": oneOf("transparent|solid")},
	}
	metricOptions = map[string]*regexp.Regexp{
		"id": regexp.MustCompile(`^"[a-z][A-Za-z0-9_]*"$`), "label": aString, "stat": oneOf("Sum|Maximum|p50|p99"), "expression": aString,
		"visible": aBool, "yAxis": oneOf("left|right"), "color": aString, "period": aNumber, "region": aString,
	}
	axes = map[string]*regexp.Regexp{"left": anything, "right": anything}
	axis = map[string]*regexp.Regexp{"min": aNumber, "max": aNumber, "label": aString, "showUnits": aBool}
)

// undocumented says what of an object is not as documented, and returns its members.
func undocumented(v json.RawMessage, members map[string]*regexp.Regexp) (got map[string]json.RawMessage, faults []string) {
	if err := json.Unmarshal(v, &got); err != nil {
		return nil, []string{"no object"}
	}
	for name, value := range got {
		if re := cmp.Or(members[name], members["+"+name]); re == nil || !re.Match(value) {
			faults = append(faults, name)
		}
	}
	for name := range members {
		if name, must := strings.CutPrefix(name, "+"); must && got[name] == nil {
			faults = append(faults, "no "+name)
		}
	}
	return got, faults
}

func documented(t *testing.T, what string, v json.RawMessage, members map[string]*regexp.Regexp) map[string]json.RawMessage {
	t.Helper()
	got, faults := undocumented(v, members)
	if len(faults) > 0 {
		t.Errorf("%s is not as documented: %v in %s", what, faults, v)
	}
	return got
}

func TestDocumented(t *testing.T) {
	for _, c := range []struct {
		object, fault string
		members       map[string]*regexp.Regexp
	}{
		{`{"type": "metric", "x": 23, "y": 0, "width": 24, "height": 1001, "properties": {}}`, "height", widgetMembers},
		{`{"type": "graph", "properties": {}}`, "type", widgetMembers},
		{`{"type": "text"}`, "no properties", widgetMembers},
		{`{"type": "text", "x": 24, "properties": {}}`, "x", widgetMembers},
		{`{"type": "text", "x": "0", "properties": {}}`, "x", widgetMembers},
		{`{"type": "text", "colour": "red", "properties": {}}`, "colour", widgetMembers},
		{`[]`, "no object", widgetMembers},
		{`{"region": "us-east-1", "query": "filter x = 1"}`, "query", propertiesOf["log"]},
		{`{"region": "us-east-1", "query": "SOURCE 'a' | filter x = 1", "view": "stacked"}`, "view", propertiesOf["log"]},
		{`{"query": "SOURCE 'a' | filter x = 1"}`, "no region", propertiesOf["log"]},
		{`{"markdown": ""}`, "markdown", propertiesOf["text"]},
		{`{"metrics": [], "region": "us-east-1", "stat": "p99.9"}`, "stat", propertiesOf["metric"]},
		{`{"visible": "no"}`, "visible", metricOptions},
		{`{"label": "a", "yAxis": "right", "visible": false}`, "", metricOptions},
	} {
		if _, faults := undocumented(json.RawMessage(c.object), c.members); strings.Join(faults, " ") != c.fault {
			t.Errorf("%s: %v, want %s", c.object, faults, c.fault)
		}
	}
}

// The dashboard, with each part and without, is JSON of the documented structure, shows metrics, alarms and queries that
// exist, and its widgets do not lie on each other.
func TestDashboard(t *testing.T) {
	tmpl := template(t)
	p := at(tmpl, "Resources", "Dashboard", "Properties")
	equal(t, "DashboardName", at(p, "DashboardName"), object{"Fn::Sub": "${AWS::StackName}-${AWS::Region}"})
	parts := list(at(p, "DashboardBody", "Fn::Sub"))
	if len(parts) != 2 {
		t.Fatal("DashboardBody is no !Sub with variables")
	}
	optional := map[string]string{}
	for name, condition := range map[string]string{"ApiWidget": "ApiWanted", "ApiAlarm": "ApiWanted", "ShareAlarm": "ShareMonitored"} {
		choice := list(at(parts[1], name, "Fn::If"))
		if len(choice) != 3 || choice[0] != condition || choice[2] != "" {
			t.Fatalf("%s is %v", name, choice)
		}
		optional[name] = text(choice[1], "Fn::Sub")
	}
	equal(t, "parts", keys(parts[1]), slices.Sorted(maps.Keys(optional)))
	always := []string{"Alarms", "Share of decisions that allow, %", "Age of the keys that serve, s", "Verdicts", "Rejections by reason", "Fetches, by source and outcome",
		"Shared table", "Decision time, ms", "Cold starts", "Concurrency (left), throttles (right)", "Latest faults", ""}
	for _, with := range []bool{false, true} {
		body, titles := parts[0].(string), always
		alarms := slices.Sorted(maps.Keys(resourcesOf(tmpl, "AWS::CloudWatch::Alarm")))
		if with {
			titles = append(slices.Clone(always), "API")
		} else {
			alarms = slices.DeleteFunc(alarms, func(id string) bool { return id == "ApiErrorsAlarm" || id == "RejectedShareAlarm" })
		}
		for name, part := range optional {
			if !with {
				part = ""
			}
			body = strings.ReplaceAll(body, "${"+name+"}", part)
		}
		for _, id := range alarms {
			body = strings.ReplaceAll(body, "${"+id+".Arn}", id)
		}
		body = strings.NewReplacer("${AWS::StackName}", "stack", "${AWS::Region}", "us-east-1", "${AuthorizerFunction}", "function", "${AuthorizerLogs}", "logs", "${StageName}", "prod").Replace(body)
		if strings.Contains(body, "${") {
			t.Errorf("a variable that CloudFormation does not know is left in %s", body)
		}
		checkDashboard(t, tmpl, body, titles, alarms)
	}
	// The API's name, a dimension, is the stack's as long as nothing else names it.
	equal(t, "Api's Name", at(tmpl, "Resources", "Api", "Properties", "Name"), nil)
}

func checkDashboard(t *testing.T, tmpl object, body string, titles, alarms []string) {
	t.Helper()
	var dashboard struct{ Widgets []json.RawMessage }
	decoder := json.NewDecoder(strings.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&dashboard); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	var got, shown, listed []string
	taken := map[[2]int]string{}
	for _, raw := range dashboard.Widgets {
		w := documented(t, "a widget", raw, widgetMembers)
		var place struct{ X, Y, Width, Height int }
		var properties struct {
			Title, Query string
			Alarms       []string
			Metrics      [][]json.RawMessage
		}
		kind := ""
		if err := errors.Join(json.Unmarshal(raw, &place), json.Unmarshal(w["type"], &kind), json.Unmarshal(w["properties"], &properties)); err != nil {
			t.Fatal(err)
		}
		title := properties.Title
		got = append(got, title)
		members := documented(t, title, w["properties"], propertiesOf[kind])
		if members["yAxis"] != nil {
			for side, v := range documented(t, title+"'s yAxis", members["yAxis"], axes) {
				documented(t, title+"'s "+side, v, axis)
			}
		}
		if place.X+place.Width > 24 {
			t.Errorf("%s is wider than the dashboard", title)
		}
		for x := place.X; x < place.X+place.Width; x++ {
			for y := place.Y; y < place.Y+place.Height; y++ {
				if other, ok := taken[[2]int{x, y}]; ok {
					t.Fatalf("%s lies on %s", title, other)
				}
				taken[[2]int{x, y}] = title
			}
		}
		listed = append(listed, properties.Alarms...)
		if kind == "log" && title == "Rejections by reason" {
			equal(t, title, properties.Query, "SOURCE 'logs' | "+savedQueries(t, tmpl)["refused"])
		}
		shown = append(shown, shownMetrics(t, tmpl, title, properties.Metrics)...)
	}
	equal(t, "widgets", got, titles)
	slices.Sort(listed)
	equal(t, "alarms", listed, alarms)
	shown = append(shown, "KeysOverdue", "RejectedAsError") // alarms' alone: the age and all rejections say more
	slices.Sort(shown)
	equal(t, "metrics shown", slices.Compact(shown), metrics(t, tmpl))
}

// shownMetrics returns the names of our own metrics in a widget after checking each metric and expression.
func shownMetrics(t *testing.T, tmpl object, title string, list [][]json.RawMessage) (own []string) {
	t.Helper()
	ids, expressions := map[string]float64{"REPEAT": 1}, map[string]string{}
	for _, m := range list {
		var name []string
		for i, part := range m {
			var s string
			if json.Unmarshal(part, &s) == nil {
				name = append(name, s)
				continue
			}
			if i != len(m)-1 {
				t.Fatalf("%s: %s", title, m)
			}
			options := documented(t, title+"'s options", part, metricOptions)
			var o struct{ ID, Expression string }
			if err := json.Unmarshal(part, &o); err != nil {
				t.Fatal(err)
			}
			if (options["expression"] != nil) != (len(name) == 0) {
				t.Errorf("%s: an expression that is a metric, or neither: %s", title, m)
			}
			if o.Expression != "" {
				expressions[o.ID] = o.Expression
			} else if o.ID != "" {
				ids[o.ID] = 1
			}
		}
		switch full := strings.Join(name, " "); {
		case len(name) == 0:
		case len(name) == 2 && name[0] == "ZuploAuthorizer/stack" && slices.Contains(metrics(t, tmpl), name[1]):
			own = append(own, name[1])
		case len(name) == 4 && name[0] == "AWS/Lambda" && slices.Contains(awsMetrics[name[0]].names, name[1]) && strings.HasSuffix(full, " FunctionName function"):
		case len(name) == 6 && name[0] == "AWS/ApiGateway" && slices.Contains(awsMetrics[name[0]].names, name[1]) && strings.HasSuffix(full, " ApiName stack Stage prod"):
		default:
			t.Errorf("%s shows %s, which does not exist", title, full)
		}
	}
	for id, e := range expressions {
		if v, err := metricMath(id, expressions, ids); err != nil || math.IsNaN(v) {
			t.Errorf("%s: %s: %v, %v", title, e, v, err)
		}
	}
	return own
}

// What the runbook's commands need to know of a stack.
func TestOutputs(t *testing.T) {
	equal(t, "Outputs", func() object {
		found := object{}
		for name, o := range at(template(t), "Outputs").(object) {
			if text(o, "Description") == "" {
				t.Errorf("the output %s is not described", name)
			}
			found[name] = []any{at(o, "Condition"), at(o, "Value")}
		}
		return found
	}(), object{
		"ApiUrl":         []any{"ApiWanted", object{"Fn::Sub": "https://${Api}.execute-api.${AWS::Region}.${AWS::URLSuffix}/${StageName}"}},
		"ApiId":          []any{"ApiWanted", ref("Api")},
		"AuthorizerArn":  []any{nil, getAtt("AuthorizerFunction.Arn")},
		"AuthorizerName": []any{nil, ref("AuthorizerFunction")},
		"ProtectedName":  []any{"ApiWanted", ref("ProtectedFunction")},
		"LogGroup":       []any{nil, ref("AuthorizerLogs")},
		"JwksTable":      []any{"Shared", ref("AuthorizerJwks")},
		"DashboardUrl":   []any{"Monitored", object{"Fn::Sub": []any{dashboardLink, console}}},
	})
}

func TestStageSettings(t *testing.T) {
	tmpl := template(t)
	p := at(tmpl, "Resources", "Api", "Properties")
	equal(t, "MethodSettings", at(p, "MethodSettings"), []any{object{
		"HttpMethod": "*", "ResourcePath": "/*", "ThrottlingRateLimit": ref("ThrottlingRate"), "ThrottlingBurstLimit": ref("ThrottlingBurst"),
	}})

	equal(t, "condition Logged", at(tmpl, "Conditions", "Logged"), object{"Fn::And": []any{
		object{"Condition": "ApiWanted"}, object{"Fn::Equals": []any{ref("AccessLogs"), "on"}},
	}})
	logGroup(t, tmpl, "ApiLogs", "/aws/apigateway/${AWS::StackName}")
	choice, _ := at(p, "AccessLogSetting", "Fn::If").([]any)
	if len(choice) != 3 {
		t.Fatalf("AccessLogSetting is %v", at(p, "AccessLogSetting"))
	}
	equal(t, "AccessLogSetting", choice, []any{
		"Logged", object{"DestinationArn": getAtt("ApiLogs.Arn"), "Format": text(choice[1], "Format")}, ref("AWS::NoValue"),
	})
	var line map[string]string
	if err := json.Unmarshal([]byte(text(choice[1], "Format")), &line); err != nil || strings.Contains(text(choice[1], "Format"), "\n") {
		t.Fatalf("%v in the access logs' format %s", err, text(choice[1], "Format"))
	}
	variables := slices.Sorted(maps.Values(line))
	for _, want := range []string{"requestId", "status", "authorizer.requestId", "authorizer.latency", "authorizer.status"} {
		if !slices.Contains(variables, "$context."+want) {
			t.Errorf("the access logs lack %s", want)
		}
	}
	for name, v := range line {
		if !regexp.MustCompile(`^\$context(\.[A-Za-z]+)+$`).MatchString(v) || regexp.MustCompile(`(?i)principal|claims|identity|user|caller|path$|error$|message`).MatchString(strings.TrimSuffix(v, "resourcePath")) {
			t.Errorf("the access logs' %s is %s", name, v)
		}
	}
	// The account's role for logs is not the stack's: another stack's deletion would take it away.
	equal(t, "accounts", len(resourcesOf(tmpl, "AWS::ApiGateway::Account")), 0)
}

// What the repository of serverless applications wants of its metadata.
func TestPublishing(t *testing.T) {
	m := at(template(t), "Metadata", "AWS::ServerlessRepo::Application")
	for member, pattern := range map[string]string{
		"Name":            `[a-zA-Z0-9\-]{1,140}`,
		"Description":     `.{1,256}`,
		"Author":          `[a-z0-9]([a-z0-9]|-[a-z0-9]){0,126}`,
		"SpdxLicenseId":   `MIT`,
		"SemanticVersion": `\d+\.\d+\.\d+`,
	} {
		if !whole(t, pattern).MatchString(text(m, member)) {
			t.Errorf("%s is %q", member, text(m, member))
		}
	}
	for _, member := range []string{"LicenseUrl", "ReadmeUrl"} {
		file(t, text(m, member))
	}
	labels := at(m, "Labels").([]any)
	if len(labels) == 0 || len(labels) > 10 {
		t.Errorf("%d labels", len(labels))
	}
	for _, l := range labels {
		if !whole(t, `[a-zA-Z0-9+\-_:/@]{1,127}`).MatchString(l.(string)) {
			t.Errorf("label %q", l)
		}
	}
}

// docs/configuration.md names every parameter: the authorizer's own by its variable.
func TestParametersAreInTheReadme(t *testing.T) {
	byParameter := map[string]string{"TokenHeader": "TOKEN_HEADER"}
	for variable, parameter := range variables {
		byParameter[parameter] = variable
	}
	readme := file(t, "docs/configuration.md")
	for name := range template(t)["Parameters"].(object) {
		if variable, ok := byParameter[name]; ok {
			name = variable
		}
		if !regexp.MustCompile("(?m)^\\|.* ?`" + name + "`.*\\|").MatchString(readme) {
			t.Errorf("no table of docs/configuration.md has %s", name)
		}
	}
}

// What operators paste is what make runs, so that one is tried with the other.
func TestRunbookHasTheFunctionsOfMake(t *testing.T) {
	lines := func(text, prefix string) []string {
		_, text, _ = strings.Cut(text, "\n"+prefix+"output() {")
		text, _, _ = strings.Cut(text, "\n\n")
		var found []string
		for line := range strings.Lines(text) {
			found = append(found, strings.TrimSpace(line))
		}
		return found
	}
	in, out := lines(file(t, "tools/stack.sh"), ""), lines(file(t, "docs/operations.md"), "    ")
	equal(t, "docs/operations.md's functions", out, in)
	for _, name := range []string{"change() {", "empty_table() {"} {
		if !slices.Contains(in, name) {
			t.Errorf("tools/stack.sh has no %s", name)
		}
	}
	// It replaces all variables by those that it is given.
	if docs := file(t, "docs/operations.md") + file(t, "README.md"); strings.Contains(docs, "--environment") {
		t.Error("the documents name --environment of the Lambda CLI")
	}
}

// The changelog has the form of Keep a Changelog: versions from the newest down, each with known sections.
func TestChangelog(t *testing.T) {
	var versions, dates []string
	for line := range strings.Lines(file(t, "CHANGELOG.md")) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "## "):
			m := regexp.MustCompile(`^## \[(\d+\.\d+\.\d+)\] - (Unreleased|\d{4}-\d\d-\d\d)$`).FindStringSubmatch(line)
			if m == nil || m[2] == "Unreleased" && len(versions) > 0 {
				t.Fatalf("%q is no version with its date", line)
			}
			versions, dates = append(versions, m[1]), append(dates, m[2])
		case strings.HasPrefix(line, "### "):
			if !slices.Contains([]string{"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}, line[4:]) {
				t.Errorf("%q is no section of Keep a Changelog", line)
			}
		}
	}
	if len(versions) == 0 || !slices.IsSortedFunc(dates, func(a, b string) int { return strings.Compare(b, a) }) { // Unreleased sorts after all dates
		t.Errorf("versions %v, dates %v", versions, dates)
	}
}

// macOS has BSD's tools and bash 3.2: what only GNU's take would fail at night.
func TestRunbookRunsOnMacOS(t *testing.T) {
	gnu := regexp.MustCompile(`date -d|date --|sed -i|sed -r|grep -P|readlink -f|xargs -r|base64 -w|mapfile|readarray|declare -A|\$\{\w+(,,|\^\^)`)
	for line := range strings.Lines(file(t, "docs/operations.md")) {
		if strings.HasPrefix(line, "    ") && gnu.MatchString(line) {
			t.Errorf("not on macOS: %s", line)
		}
	}
	if !gnu.MatchString("--start-time $(date -d '-1 hour' +%s)") {
		t.Error("what was there once passes")
	}
}
