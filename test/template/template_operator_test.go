package template

import (
	"encoding/json"
	"errors"
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
	for kind, n := range map[string]int{"AWS::Logs::MetricFilter": 17, "AWS::CloudWatch::Alarm": 6, "AWS::CloudWatch::Dashboard": 1} {
		found := resourcesOf(tmpl, kind)
		equal(t, kind, len(found), n)
		for id, r := range found {
			equal(t, id+"'s condition", at(r, "Condition"), "Monitored")
		}
	}
}

// A minute holds what a metric's statistic was in it. A metric that is not there has no data.
type minute map[string]float64

// lambdaMetrics are those of AWS/Lambda that an alarm or the dashboard names, by function.
var lambdaMetrics = []string{"ConcurrentExecutions", "Duration", "Errors", "Throttles"}

// source returns the metric's name after checking that there is such a metric, of the authorizer.
func source(t *testing.T, tmpl object, metric any) string {
	t.Helper()
	name := text(metric, "MetricName")
	switch at(metric, "Namespace") {
	case "AWS/Lambda":
		equal(t, name+"'s dimensions", at(metric, "Dimensions"), []any{object{"Name": "FunctionName", "Value": ref("AuthorizerFunction")}})
		if !slices.Contains(lambdaMetrics, name) {
			t.Errorf("Lambda has no metric %s", name)
		}
	default:
		equal(t, name+"'s namespace", at(metric, "Namespace"), namespace)
		equal(t, name+"'s dimensions", at(metric, "Dimensions"), nil)
		if !slices.Contains(metrics(t, tmpl), name) {
			t.Errorf("no metric filter makes %s", name)
		}
	}
	return name
}

// number is a plain one, or the default of the parameter that it refers to.
func number(t *testing.T, tmpl object, v any) float64 {
	t.Helper()
	if parameter, ok := at(v, "Ref").(string); ok {
		v = at(tmpl, "Parameters", parameter, "Default")
	}
	s, _ := v.(string)
	n, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatalf("%v is no number", v)
	}
	return n
}

// raised reports whether an alarm rises in the minutes, which are as many as it looks at or fewer; before them was nothing.
func raised(t *testing.T, tmpl object, id string, minutes []minute) bool {
	t.Helper()
	p := at(tmpl, "Resources", id, "Properties")
	equal(t, id+"'s comparison", at(p, "ComparisonOperator"), "GreaterThanThreshold")
	equal(t, id+" without data", at(p, "TreatMissingData"), "notBreaching")
	if n := number(t, tmpl, at(p, "EvaluationPeriods")); n < float64(len(minutes)) {
		t.Fatalf("%s looks at %v minutes only", id, n)
	}
	breaching := 0.0
	for _, m := range minutes {
		if v := datapoint(t, tmpl, id, p, m); v > number(t, tmpl, at(p, "Threshold")) { // no data is NaN: never greater
			breaching++
		}
	}
	return breaching >= number(t, tmpl, at(p, "DatapointsToAlarm"))
}

func datapoint(t *testing.T, tmpl object, id string, p any, m minute) float64 {
	t.Helper()
	values, expression := map[string]float64{}, ""
	get := func(metric any) float64 {
		if v, ok := m[source(t, tmpl, metric)]; ok {
			return v
		}
		return math.NaN()
	}
	if at(p, "Metrics") == nil {
		equal(t, id+"'s period", at(p, "Period"), "60")
		if s := at(p, "Statistic"); s != "Sum" && at(p, "ExtendedStatistic") != "p99" {
			t.Errorf("%s's statistic is %v", id, s)
		}
		return get(p)
	}
	for _, q := range at(p, "Metrics").([]any) {
		if e := text(q, "Expression"); e != "" {
			equal(t, id+"'s returned data", []any{expression, at(q, "ReturnData")}, []any{"", "true"})
			expression = e
			continue
		}
		equal(t, id+"'s "+text(q, "Id"), []any{at(q, "ReturnData"), at(q, "MetricStat", "Period"), at(q, "MetricStat", "Stat")}, []any{"false", "60", "Sum"})
		values[text(q, "Id")] = get(at(q, "MetricStat", "Metric"))
	}
	v, err := metricMath(expression, values)
	if err != nil {
		t.Fatalf("%s: %s: %v", id, expression, err)
	}
	return v
}

// metricMath evaluates the part of CloudWatch's metric math that the template uses: + - * of numbers and metrics,
// FILL(metric, number), and MAX([a, b]) at one moment. NaN is what has no data.
func metricMath(expression string, values map[string]float64) (float64, error) {
	if strings.Count(expression, "MAX([") != strings.Count(expression, "[") || strings.Count(expression, "])") != strings.Count(expression, "]") {
		return 0, errors.New("brackets elsewhere than in MAX([...])")
	}
	expr, err := parser.ParseExpr(strings.NewReplacer("[", "", "]", "").Replace(expression))
	if err != nil {
		return 0, err
	}
	var eval func(e ast.Expr) float64
	eval = func(e ast.Expr) float64 {
		switch e := e.(type) {
		case *ast.BasicLit:
			n, parseErr := strconv.ParseFloat(e.Value, 64)
			err = errors.Join(err, parseErr)
			return n
		case *ast.Ident:
			v, ok := values[e.Name]
			if !ok {
				err = errors.New("no metric has the id " + e.Name)
			}
			return v
		case *ast.BinaryExpr:
			x, y := eval(e.X), eval(e.Y)
			switch e.Op {
			case token.ADD:
				return x + y
			case token.SUB:
				return x - y
			case token.MUL:
				return x * y
			}
		case *ast.CallExpr:
			name, ok := e.Fun.(*ast.Ident)
			if !ok || len(e.Args) != 2 {
				break
			}
			a, b := eval(e.Args[0]), eval(e.Args[1])
			switch {
			case name.Name == "FILL" && math.IsNaN(a):
				return b
			case name.Name == "FILL":
				return a
			case name.Name == "MAX" && math.IsNaN(a):
				return b
			case name.Name == "MAX" && math.IsNaN(b):
				return a
			case name.Name == "MAX":
				return max(a, b)
			}
		}
		err = errors.New("not understood here")
		return 0
	}
	v := eval(expr)
	return v, err
}

func TestAlarms(t *testing.T) {
	tmpl := template(t)
	twice, thrice := func(m minute) []minute { return []minute{m, m} }, func(m minute) []minute { return []minute{m, m, m} }
	const broken, overdue, failing, forged, throttled, slow = "FaultsAlarm", "KeysOverdueAlarm", "FetchesFailingAlarm", "ForgedTokensAlarm", "ThrottlesAlarm", "SlowAlarm"
	tested := object{}
	for _, c := range []struct {
		name    string
		minutes []minute
		alarms  []string // those that rise, sorted
	}{
		{"nothing", []minute{{}, {}, {}, {}, {}}, nil},
		{"all is well", thrice(minute{"Allowed": 900, "Errors": 0, "Throttles": 0, "Duration": 3, "FetchesOk": 1}), nil},
		{"a start that failed: no line tells of it", twice(minute{"Errors": 3}), []string{broken}},
		{"one start that failed, and the next did not", []minute{{"Errors": 1}, {"Errors": 0}, {"Errors": 0}}, nil},
		{"crashes among the usual rejections", twice(minute{"Errors": 12, "Rejected": 10, "RejectedAsError": 10}), []string{broken}},
		{"an outage of the issuer with no keys", thrice(minute{"Errors": 50, "Faults": 50, "FetchesFailed": 6}), []string{broken, failing}},
		{"an outage of the issuer with old keys", thrice(minute{"Errors": 0, "Allowed": 50, "KeysOverdue": 50, "FetchesFailed": 2}), []string{failing, overdue}},
		{"faults in a flood of bad tokens", twice(minute{"Errors": 6003, "Rejected": 6000, "RejectedAsError": 6000, "Faults": 3, "RejectedForm": 6000}), []string{broken}},
		{"a flood of bad tokens", thrice(minute{"Errors": 6000, "Rejected": 6000, "RejectedAsError": 6000, "RejectedTime": 6000}), nil},
		{"a flood whose lines are late", []minute{{"Errors": 6000, "Rejected": 5960, "RejectedAsError": 5960}, {"Errors": 6000, "Rejected": 6000, "RejectedAsError": 6000}, {"Errors": 6000, "Rejected": 5990, "RejectedAsError": 5990}}, nil},
		{"a flood whose last minute has no lines yet", []minute{{"Errors": 6000, "Rejected": 6000, "RejectedAsError": 6000}, {"Errors": 6000, "Rejected": 6000, "RejectedAsError": 6000}, {"Errors": 6000}}, nil},
		{"a rejection whose line falls into the next minute", []minute{{"Errors": 1}, {"Errors": 0, "Rejected": 1, "RejectedAsError": 1}}, nil},
		{"rejections of an HTTP API alone: no errors", thrice(minute{"Errors": 0, "Rejected": 6000, "RejectedTime": 6000}), nil},
		{"crashes among an HTTP API's rejections", twice(minute{"Errors": 3, "Rejected": 6000, "RejectedTime": 6000}), []string{broken}},
		{"crashes among those of a REST and an HTTP API", twice(minute{"Errors": 103, "Rejected": 6100, "RejectedAsError": 100, "RejectedTime": 6100}), []string{broken}},
		{"the same without crashes", thrice(minute{"Errors": 100, "Rejected": 6100, "RejectedAsError": 100, "RejectedTime": 6100}), nil},
		{"tokens that are good for other routes", thrice(minute{"Errors": 0, "Forbidden": 900}), nil},
		{"a forger", twice(minute{"Errors": 21, "Rejected": 21, "RejectedAsError": 21, "RejectedUnknownKey": 11, "RejectedSignature": 10}), []string{forged}},
		{"signatures alone", twice(minute{"Errors": 21, "Rejected": 21, "RejectedAsError": 21, "RejectedSignature": 21}), []string{forged}},
		{"the issuer's key cannot be used: nobody forges", thrice(minute{"Errors": 100, "Rejected": 100, "RejectedAsError": 100, "RejectedKey": 100}), nil},
		{"a few forgeries", twice(minute{"Errors": 20, "Rejected": 20, "RejectedAsError": 20, "RejectedUnknownKey": 20}), nil},
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
		// Each alarm leads to its chapter.
		m := regexp.MustCompile(`docs/operations\.md, "(.+)"\.$`).FindStringSubmatch(text(a, "Properties", "AlarmDescription"))
		if m == nil || !strings.Contains(file(t, "docs/operations.md"), "\n### "+m[1]+"\n") {
			t.Errorf("%s leads to no chapter of docs/operations.md: %q", id, text(a, "Properties", "AlarmDescription"))
		}
	}
	equal(t, "SlowAlarm with few samples", at(tmpl, "Resources", slow, "Properties", "EvaluateLowSampleCountPercentile"), "ignore")
}

// The dashboard is JSON, with the API's part and without it, and shows metrics that exist.
func TestDashboard(t *testing.T) {
	tmpl := template(t)
	p := at(tmpl, "Resources", "Dashboard", "Properties")
	equal(t, "DashboardName", at(p, "DashboardName"), object{"Fn::Sub": "${AWS::StackName}-${AWS::Region}"})
	parts, _ := at(p, "DashboardBody", "Fn::Sub").([]any)
	if len(parts) != 2 {
		t.Fatal("DashboardBody is no !Sub with variables")
	}
	choice, _ := at(parts[1], "ApiWidget", "Fn::If").([]any)
	if len(choice) != 3 || choice[0] != "ApiWanted" || choice[2] != "" {
		t.Fatalf("ApiWidget is %v", choice)
	}
	api := text(choice[1], "Fn::Sub")
	own := metrics(t, tmpl)
	apiMetrics := []string{"Count", "4XXError", "5XXError"}
	for extra, titles := range map[string][]string{
		"":  {"Verdicts", "Rejections by reason", "Authorizer, ms", "Age of the keys that serve, s", "Fetches of keys", "Concurrency"},
		api: {"Verdicts", "Rejections by reason", "Authorizer, ms", "Age of the keys that serve, s", "Fetches of keys", "Concurrency", "API"},
	} {
		body := strings.NewReplacer(
			"${ApiWidget}", extra,
		).Replace(parts[0].(string))
		body = strings.NewReplacer(
			"${AWS::StackName}", "stack", "${AWS::Region}", "us-east-1", "${AuthorizerFunction}", "function", "${StageName}", "prod",
		).Replace(body)
		if strings.Contains(body, "${") {
			t.Errorf("a variable that CloudFormation does not know is left in %s", body)
		}
		var dashboard struct {
			Widgets []struct {
				Type                string
				X, Y, Width, Height int
				Properties          struct {
					Title, Region, Stat string
					Period              int
					Metrics             [][]any
				}
			}
		}
		if err := json.Unmarshal([]byte(body), &dashboard); err != nil {
			t.Fatalf("%v in %s", err, body)
		}
		var got, shown []string
		for _, w := range dashboard.Widgets {
			got = append(got, w.Properties.Title)
			if w.Type != "metric" || w.Properties.Region != "us-east-1" || w.Properties.Period != 60 || w.X+w.Width > 24 || w.Height == 0 {
				t.Errorf("widget %v", w)
			}
			for _, m := range w.Properties.Metrics {
				if len(m) > 0 {
					if options, ok := m[len(m)-1].(map[string]any); ok {
						m = m[:len(m)-1]
						equal(t, w.Properties.Title+"'s options", slices.Sorted(maps.Keys(options)), []string{"label", "stat"})
					}
				}
				var name []string
				for _, part := range m {
					name = append(name, part.(string))
				}
				switch full := strings.Join(name, " "); {
				case len(name) == 2 && name[0] == "ZuploAuthorizer/stack" && slices.Contains(own, name[1]):
					shown = append(shown, name[1])
				case len(name) == 4 && name[0] == "AWS/Lambda" && slices.Contains(lambdaMetrics, name[1]) && strings.HasSuffix(full, " FunctionName function"):
				case len(name) == 6 && name[0] == "AWS/ApiGateway" && slices.Contains(apiMetrics, name[1]) && strings.HasSuffix(full, " ApiName stack Stage prod"):
				default:
					t.Errorf("%s shows %s, which does not exist", w.Properties.Title, full)
				}
			}
		}
		equal(t, "widgets", got, titles)
		shown = append(shown, "KeysOverdue", "RejectedAsError") // alarms' alone: the age and all rejections say more
		slices.Sort(shown)
		equal(t, "metrics shown", shown, own)
	}
	// The API's name, a dimension, is the stack's as long as nothing else names it.
	equal(t, "Api's Name", at(tmpl, "Resources", "Api", "Properties", "Name"), nil)
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
		_, text, _ = strings.Cut(text, "\n"+prefix+"resource() {")
		text, _, _ = strings.Cut(text, "\n\n")
		var found []string
		for line := range strings.Lines(text) {
			found = append(found, strings.TrimSpace(line))
		}
		return found
	}
	in, out := lines(file(t, "tools/stack.sh"), ""), lines(file(t, "docs/operations.md"), "    ")
	equal(t, "docs/operations.md's functions", out, in)
	for _, name := range []string{"change() {", "empty_table() {", "flush() {"} {
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
