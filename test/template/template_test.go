package template

import (
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// object is a YAML mapping; its values are objects, lists of type []any and strings, however the scalar was written.
// An intrinsic in its short form reads like its long one: !Ref X is {"Ref": "X"}.
type object = map[string]any

func value(n *yaml.Node) any {
	var v any
	switch n.Kind {
	case yaml.DocumentNode:
		return value(n.Content[0])
	case yaml.MappingNode:
		m := object{}
		for i := 0; i < len(n.Content); i += 2 {
			m[n.Content[i].Value] = value(n.Content[i+1])
		}
		v = m
	case yaml.SequenceNode:
		l := []any{}
		for _, c := range n.Content {
			l = append(l, value(c))
		}
		v = l
	case yaml.ScalarNode:
		v = n.Value
	default:
		// CloudFormation takes no aliases.
		panic("line " + strconv.Itoa(n.Line) + ": an alias")
	}
	if tag, ok := strings.CutPrefix(n.Tag, "!"); ok && !strings.HasPrefix(tag, "!") {
		if tag != "Ref" && tag != "Condition" {
			tag = "Fn::" + tag
		}
		return object{tag: v}
	}
	return v
}

func template(t *testing.T) object {
	t.Helper()
	return templateIn(t, "template.yaml")
}

func templateIn(t *testing.T, name string) object {
	t.Helper()
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(file(t, name)), &n); err != nil {
		t.Fatal(err)
	}
	return value(&n).(object)
}

// root is the repository's; every name below is told from there.
const root = "../.."

func file(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// at walks down from v by member names; nil stands for anything that is not there.
func at(v any, path ...string) any {
	for _, p := range path {
		m, _ := v.(object)
		v = m[p]
	}
	return v
}

func text(v any, path ...string) string {
	s, _ := at(v, path...).(string)
	return s
}

func keys(v any) []string {
	m, _ := v.(object)
	return slices.Sorted(maps.Keys(m))
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s is %v, not %v", what, got, want)
	}
}

func ref(name string) any { return object{"Ref": name} }

func getAtt(name string) any { return object{"Fn::GetAtt": name} }

// A pattern is one of CloudFormation's or API Gateway's.
type pattern struct{ takes, refuses *regexp.Regexp }

func (p pattern) MatchString(s string) bool {
	return p.takes.MatchString(s) && (p.refuses == nil || !p.refuses.MatchString(s))
}

// whole compiles a pattern as CloudFormation and API Gateway apply theirs, to the whole of a value. Theirs are Java
// expressions: none here uses anything that Go reads otherwise, except for a negative lookahead at the start.
func whole(t *testing.T, expression string) pattern {
	t.Helper()
	compile := func(s string) *regexp.Regexp {
		re, err := regexp.Compile(`\A(?:` + s)
		if err != nil {
			t.Fatal(err)
		}
		return re
	}
	var p pattern
	if rest, ok := strings.CutPrefix(expression, "^(?!"); ok {
		refused, rest, _ := strings.Cut(rest, ")") // no parentheses within
		p.refuses, expression = compile(refused+")"), rest
	}
	p.takes = compile(expression + `)\z`)
	return p
}

// allows holds a pattern to what it must take and what it must refuse.
func allows(t *testing.T, name, pattern string, good, bad []string) {
	t.Helper()
	re := whole(t, pattern)
	for _, s := range good {
		if !re.MatchString(s) {
			t.Errorf("%s refuses %q", name, s)
		}
	}
	for _, s := range bad {
		if re.MatchString(s) {
			t.Errorf("%s takes %q", name, s)
		}
	}
}

// variables are the authorizer's configuration: environment variable, parameter.
var variables = map[string]string{
	"ISSUER":          "Issuer",
	"ISSUERS":         "Issuers",
	"JWKS_URI":        "JwksUri",
	"JWKS":            "Jwks",
	"AUDIENCE":        "Audience",
	"ALGORITHMS":      "Algorithms",
	"LEEWAY":          "Leeway",
	"MAX_TOKEN_AGE":   "MaxTokenAge",
	"PRINCIPAL_CLAIM": "PrincipalClaim",
	"JWKS_TTL":        "JwksTtl",
	"JWKS_MAX_STALE":  "JwksMaxStale",
	"POLICY_EXPIRY":   "PolicyExpiry",
	"TOKEN_PREFIX":    "TokenPrefix",
	"RULES":           "Rules",
	"RULES_MODE":      "RulesMode",
	"EXPLICIT_DENY":   "ExplicitDeny",
	"LOG_LEVEL":       "LogLevel",
}

// conditional are the variables that are not just a parameter's value, or whose parameter is the API's too.
var conditional = object{
	"TOKEN_HEADER": ref("TokenHeader"),
	"JWKS_URI":     object{"Fn::If": []any{"Pinned", "", ref("JwksUri")}},
	"JWKS_TABLE":   object{"Fn::If": []any{"Shared", ref("AuthorizerJwks"), ""}},
}

func TestEveryVariableIsAParameter(t *testing.T) {
	tmpl := template(t)
	env := at(tmpl, "Resources", "AuthorizerFunction", "Properties", "Environment", "Variables")
	want := object{}
	for name, parameter := range variables {
		want[name] = ref(parameter)
		p := at(tmpl, "Parameters", parameter)
		equal(t, parameter+"'s Type", at(p, "Type"), "String")
		if !strings.Contains(text(p, "Description"), name) {
			t.Errorf("%s's Description does not name %s", parameter, name)
		}
		// The defaults are the code's: here they could only drift from it.
		equal(t, parameter+"'s Default", at(p, "Default"), "")
	}
	maps.Copy(want, conditional)
	equal(t, "condition Pinned", at(tmpl, "Conditions", "Pinned"), given("Jwks"))

	literals := literalsOf(t, "internal/config")
	for name := range want {
		if !literals[name] {
			t.Errorf("internal/config never names %s", name)
		}
	}
	// What others read is absent unless it is given.
	for name, v := range map[string]struct {
		parameter, condition string
		is, value            any
	}{
		"HTTPS_PROXY":                {"HttpsProxy", "Proxied", given("HttpsProxy"), ref("HttpsProxy")},
		"NO_PROXY":                   {"NoProxy", "Excepted", given("NoProxy"), ref("NoProxy")},
		"SSL_CERT_FILE":              {"SslCertFile", "Trusting", given("SslCertFile"), ref("SslCertFile")},
		"GODEBUG":                    {"Godebug", "Tuned", given("Godebug"), ref("Godebug")},
		"AWS_USE_FIPS_ENDPOINT":      {"AwsUseFipsEndpoint", "Fips", object{"Fn::Equals": []any{ref("AwsUseFipsEndpoint"), "true"}}, "true"},
		"AWS_USE_DUALSTACK_ENDPOINT": {"AwsUseDualstackEndpoint", "Dualstack", object{"Fn::Equals": []any{ref("AwsUseDualstackEndpoint"), "true"}}, "true"},
	} {
		want[name] = object{"Fn::If": []any{v.condition, v.value, ref("AWS::NoValue")}}
		equal(t, "condition "+v.condition, at(tmpl, "Conditions", v.condition), v.is)
		if !strings.Contains(text(tmpl, "Parameters", v.parameter, "Description"), name) {
			t.Errorf("%s's Description does not name %s", v.parameter, name)
		}
	}
	// A changed variable starts new environments, whether it is read or not.
	want["RESTART"] = ref("Restart")
	equal(t, "AuthorizerFunction's environment", env, want)
	equal(t, "ProtectedFunction's environment", at(tmpl, "Resources", "ProtectedFunction", "Properties", "Environment"), nil)
}

// Only the authorizer has somewhere to go: by way of layers with certificates, and from within a VPC.
func TestNetwork(t *testing.T) {
	tmpl := template(t)
	split := func(parameter string) any { return object{"Fn::Split": []any{",", ref(parameter)}} }
	for name, want := range map[string]any{
		"Layers":    object{"Fn::If": []any{"Layered", split("Layers"), []any{}}},
		"VpcConfig": object{"Fn::If": []any{"InVpc", object{"SubnetIds": split("VpcSubnetIds"), "SecurityGroupIds": split("VpcSecurityGroupIds")}, ref("AWS::NoValue")}},
	} {
		equal(t, "AuthorizerFunction's "+name, at(tmpl, "Resources", "AuthorizerFunction", "Properties", name), want)
		equal(t, "ProtectedFunction's "+name, at(tmpl, "Resources", "ProtectedFunction", "Properties", name), nil)
	}
	equal(t, "condition Layered", at(tmpl, "Conditions", "Layered"), given("Layers"))
	equal(t, "condition InVpc", at(tmpl, "Conditions", "InVpc"), object{"Fn::And": []any{given("VpcSubnetIds"), given("VpcSecurityGroupIds")}})
	// A proxy's password is in no list of the stack's parameters.
	equal(t, "HttpsProxy's NoEcho", at(tmpl, "Parameters", "HttpsProxy", "NoEcho"), "true")
}

// literalsOf returns the string literals in a package's code, its tests left out.
func literalsOf(t *testing.T, dir string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, f := range parsed(t, dir) {
		ast.Inspect(f, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if s, err := strconv.Unquote(lit.Value); err == nil {
					found[s] = true
				}
			}
			return true
		})
	}
	return found
}

func TestParametersAreDescribedAndConstrained(t *testing.T) {
	tmpl := template(t)
	body := file(t, "template.yaml")
	for name, p := range tmpl["Parameters"].(object) {
		if text(p, "Description") == "" || text(p, "ConstraintDescription") == "" {
			t.Errorf("%s lacks a Description or a ConstraintDescription", name)
		}
		def, hasDefault := at(p, "Default").(string)
		switch {
		case at(p, "AllowedPattern") != nil:
			re := whole(t, text(p, "AllowedPattern"))
			if hasDefault && !re.MatchString(def) {
				t.Errorf("%s's default %q does not match its pattern", name, def)
			}
		case at(p, "AllowedValues") != nil:
			if hasDefault && !slices.Contains(at(p, "AllowedValues").([]any), any(def)) {
				t.Errorf("%s's default %q is not among its values", name, def)
			}
		case at(p, "MinValue") == nil || at(p, "MaxValue") == nil:
			t.Errorf("%s takes anything", name)
		}
		if !regexp.MustCompile(`!Ref ` + name + `\b|\$\{` + name + `\}`).MatchString(body) {
			t.Errorf("%s is not used", name)
		}
	}
	for name, want := range map[string]object{
		"MemorySize":       {"MinValue": "128", "MaxValue": "10240"},
		"XRay":             {"Default": "off", "AllowedValues": []any{"off", "on"}},
		"StageName":        {"Default": "prod"},
		"ReauthorizeEvery": {"Default": "300", "MinValue": "0", "MaxValue": "3600"},
		"TokenHeader":      {"Default": "Authorization"},
		"WithApi":          {"Default": "true", "AllowedValues": []any{"true", "false"}},
		"SharedJwks":       {"Default": "true", "AllowedValues": []any{"true", "false"}},
		"Restart":          {"Default": ""},
		"PolicyExpiry":     {"AllowedValues": []any{"", "on", "off"}},
		"RulesMode":        {"AllowedValues": []any{"", "enforce", "log"}},
		"ExplicitDeny":     {"AllowedValues": []any{"", "on", "off"}},
		"LogLevel":         {"AllowedValues": []any{"", "DEBUG", "INFO", "WARN", "ERROR"}},

		"HttpsProxy":              {"Default": ""},
		"NoProxy":                 {"Default": ""},
		"SslCertFile":             {"Default": ""},
		"Godebug":                 {"Default": ""},
		"AwsUseFipsEndpoint":      {"Default": "false", "AllowedValues": []any{"false", "true"}},
		"AwsUseDualstackEndpoint": {"Default": "false", "AllowedValues": []any{"false", "true"}},
		"Layers":                  {"Default": ""},
		"VpcSubnetIds":            {"Default": ""},
		"VpcSecurityGroupIds":     {"Default": ""},

		"LogKmsKey":             {"Default": ""},
		"ReservedConcurrency":   {"Default": ""},
		"ThrottlingRate":        {"Default": "10000", "MinValue": "1"},
		"ThrottlingBurst":       {"Default": "5000", "MinValue": "1"},
		"AccessLogs":            {"Default": "off", "AllowedValues": []any{"off", "on"}},
		"Monitoring":            {"Default": "true", "AllowedValues": []any{"true", "false"}},
		"AlarmTopic":            {"Default": ""},
		"ForgedTokensPerMinute": {"Default": "20"},
		"RefusalsInFiveMinutes": {"Default": "10", "MinValue": "0"},
		"RejectedPercent":       {"Default": ""},
		"SlowDecisionMs":        {"Default": "1000", "MaxValue": "6000"}, // the functions' time-out
	} {
		for member, v := range want {
			equal(t, name+"'s "+member, at(tmpl, "Parameters", name, member), v)
		}
	}
}

func TestPatterns(t *testing.T) {
	durations := []string{"1s", "1.5h", "1h30m", "250ms"}
	noDurations := []string{"5", "s", "-1s", "+1s", "1d", "1 s", "1s ", "1S", "1s,2s", ".s", "1.s"}
	rows := []struct {
		parameter string
		good, bad []string
	}{
		{"Issuer", []string{
			"https://a", "https://a.zuplo.app/__zuplo/issuer", "https://a.example:8443/", "https://a/b/,https://c/d",
			"https://[2001:db8::1]:8443/x", "https://a/%7Eb;c=d@e", "http://localhost", "http://localhost:9000/__zuplo/issuer",
			"http://127.0.0.1:9000", "http://127.255.0.3/x", "http://[::1]:9000/x", "https://a,http://127.0.0.1",
			"https://a-main-1b2c3d4.zuplo.app/__zuplo/issuer", "https://Issuer.example/", "https://a.zuplo.app/X", "",
		}, []string{
			// It would trust every customer of Zuplo's, if it were understood at all.
			"https://*.zuplo.app/__zuplo/issuer", "https://*",
			"https://DEPLOYMENT.zuplo.app/__zuplo/issuer", "https://YOUR-DEPLOYMENT.zuplo.app/__zuplo/issuer", "https://a,https://DEPLOYMENT.zuplo.app:443",
			" ", ",", "a", "https://", "https:///x", "https://a,", ",https://a", "https://a,,https://b", "https://a, https://b", "https://a https://b",
			" https://a", "https://a ", "https://a\n", "https://a\t", `"https://a"`, "'https://a'", "https://a/'", `https://a/"`,
			"https://user@a", "https://user:word@a/", "https://a?x=1", "https://a/?", "https://a#f", "https://a/b#", "https://a:", "https://a:x",
			"https://a/%zz", "https://a/%7", "https://a/ä", `https://a\b`, "HTTPS://a", "ftp://a", "//a", "https:a",
			"http://a", "http://example.com/localhost", "http://localhost.example.com", "http://notlocalhost", "http://localhost@a", "http://127.0.0.1.example.com",
			"http://127.0.0.256", "http://127.0.1", "http://127.0.0.01", "http://128.0.0.1", "http://127x0.0.1", "http://[::2]", "http://[::1]x", "http://10.0.0.1", "https://a,http://b",
		}},
		{"Issuers", []string{
			"", `[{"issuer":"https://a"}]`, ` [ { "issuer": "https://a", "audiences": ["b"] },` + "\n" + `{"issuer":"https://c","jwks":{"keys":[]}} ] `,
		}, []string{
			"[", " ", "[]", "[{}]", "{}", `{"issuer":"https://a"}`, `["issuer"]`, `[{issuer:https://a}]`, `[{"issuer":"https://a"}`, `[{"issuer":"https://a"}],`, "https://a",
		}},
		{"Rules", []string{
			"", `[{"routes":["GET /orders"]}]`, "[\n{\"routes\": [\"* /*\"], \"scopes\": [\"a\"]},\n{\"routes\": [\"$connect\"]}\n]\n",
		}, []string{
			"[", " ", "[]", "[{}]", "{}", `{"routes":["GET /orders"]}`, `["routes"]`, `[{routes:[GET /orders]}]`, `[{"routes":["GET /orders"]}`, `[{"routes":["GET /orders"]}],`, "GET /orders",
		}},
		{"TokenPrefix", []string{"", "Bearer", "none", "JWT", "x-token_1", "A!#$%&'*+.^_`|~-9"}, []string{
			" ", "Bearer ", " Bearer", "a b", "Bearer:", "a,b", "a/b", "a=b", `"a"`, "(a)", "ä", "a\n", strings.Repeat("x", 65),
		}},
		{"JwksUri", []string{
			"", "https://a/.well-known/jwks.json", "https://a/keys?version=2&x=%20", "http://localhost:9000/jwks", "http://127.0.0.1/jwks", "http://[::1]/jwks",
		}, []string{
			" ", "a", "https://a/keys#x", "https://user@a/keys", "https://a/ keys", `https://a/"`, "https://a/'", "https://a,https://b", "http://a/keys", "http://127.0.0.1.example.com/", "https://a\n",
		}},
		{"Jwks", []string{
			"", `{"keys":[]}`, ` { "keys": [{"kty":"OKP"}] } `, "{\n\"keys\":[]\n}\n",
		}, []string{
			// An unescaped key set on the command line arrives as its first character.
			"{", " ", "{}", "{keys:[]}", `["keys"]`, `"keys"`, `{"keys":[]`, `{"keys":[]},`,
		}},
		{"Audience", []string{
			"", "aws-origin", "a,b", "https://api.example.com/", "urn:x:y,aws-origin",
		}, []string{
			" ", ",", "a,", ",a", "a,,b", "a, b", "a b", `"a"`, "'a'", "a\n",
		}},
		{"Algorithms", []string{
			"", "EdDSA", "Ed25519", "RS256", "EdDSA,RS256,RS384,RS512,PS256,PS384,PS512,ES256,ES384,ES512",
		}, []string{
			" ", ",", "none", "HS256", "eddsa", "RS255", "RS256,", ",RS256", "RS256,,ES256", "RS256, ES256", "RS256 ES256", "ES256K", "XS256",
		}},
		{"Leeway", append(durations, "", "0", "0s"), append(noDurations, " ", "00")},
		{"MaxTokenAge", append(durations, ""), append(noDurations, " ", "0")},
		{"JwksTtl", append(durations, ""), append(noDurations, " ", "0")},
		{"JwksMaxStale", append(durations, ""), append(noDurations, " ", "0")},
		{"PrincipalClaim", []string{
			"", "sub", "https://example.com/user", "client_id", strings.Repeat("x", 256),
		}, []string{
			" ", "a b", `"sub"`, `a\b`, "sub\n", strings.Repeat("x", 257),
		}},
		{"Restart", []string{"", "2026-11-26T01:37:00Z", "2026-11-26T01:37:00+00:00", "1"}, []string{" ", "a b", `"`, "'", "a,b", "a=b", strings.Repeat("1", 65)}},
		{"StageName", []string{"prod", "v1", "a_b-C"}, []string{"", "$default", "a/b", "a.b", "a b", strings.Repeat("x", 129)}},
		{"LogKmsKey", []string{
			"", "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab", "arn:aws-cn:kms:cn-north-1:123456789012:key/mrk-1",
		}, []string{
			" ", "1234abcd", "alias/logs", "arn:aws:kms:us-east-1:123456789012:alias/logs", "arn:aws:s3:us-east-1:123456789012:key/1", "arn:aws:kms:us-east-1:1:key/1",
		}},
		{"ReservedConcurrency", []string{"", "1", "50", "9999", "10000"}, []string{" ", "0", "-1", "01", "1.5", "10001", "all"}},
		{"AlarmTopic", []string{
			"", "arn:aws:sns:us-east-1:123456789012:alarms", "arn:aws-us-gov:sns:us-gov-west-1:123456789012:a_B-9",
		}, []string{
			" ", "alarms", "me@example.com", "arn:aws:sqs:us-east-1:123456789012:alarms", "arn:aws:sns:us-east-1:123456789012:alarms.fifo", "arn:aws:sns:us-east-1:123456789012:",
		}},
		{"HttpsProxy", []string{
			"", "http://proxy.example", "http://proxy.example:3128", "http://proxy.example:3128/", "https://proxy.example", "socks5://10.0.0.1:1080",
			"socks5h://proxy", "http://[2001:db8::1]:3128", "http://user@proxy:3128", "http://user:password@proxy:3128", "http://a%40b:p%2Fw!~$&*+,;=()@proxy",
		}, []string{
			" ", "proxy.example", "proxy.example:3128", "http://", "http://:3128", "http://proxy/path", "http://proxy?x", "http://proxy#x", "http://proxy:", "http://proxy:x",
			"http://user:pass word@proxy", "http://user:p@ss@proxy", "http://user:p/w@proxy", "http://user:p:w@proxy", `http://user:"@proxy`, "http://@proxy", "http://:password@proxy",
			"http://proxy,http://proxy", "ftp://proxy", "HTTP://proxy", "http://proxy\n", " http://proxy",
		}},
		{"NoProxy", []string{
			"", "*", "issuer.example", ".amazonaws.com", "*.amazonaws.com", "10.0.0.0/8,[::1],2001:db8::/32,issuer.example:8443,.b_c",
		}, []string{
			" ", ",", "a,", ",a", "a,,b", "a, b", "a b", "https://a b", `"a"`, "a\n",
		}},
		{"SslCertFile", []string{"", "/opt/ca.pem", "/var/task/certs/my-ca_1.crt"}, []string{" ", "/", "ca.pem", "opt/ca.pem", "/opt/a b", "/opt/a:b", "/opt/ä", "/opt/ca.pem\n"}},
		{"Godebug", []string{"", "tlsmlkem=0", "tlsmlkem=0,fips140=on", "netdns=go"}, []string{" ", "tlsmlkem", "tlsmlkem=", "=0", "a=b,", "a=b,,c=d", "a=b, c=d", "a=b c=d", "A=b", "a=b\n"}},
		{"Layers", []string{
			"", "arn:aws:lambda:us-east-1:123456789012:layer:ca_1-a:7", "arn:aws-cn:lambda:cn-north-1:123456789012:layer:a:1,arn:aws-cn:lambda:cn-north-1:123456789012:layer:b:12",
			"arn:aws:lambda:us-east-1:123456789012:layer:ca:7" + strings.Repeat(",arn:aws:lambda:us-east-1:123456789012:layer:ca:7", 4),
		}, []string{
			" ", "ca", "arn:aws:lambda:us-east-1:123456789012:layer:ca", "arn:aws:lambda:us-east-1:123456789012:function:a:1", "arn:aws:lambda:us-east-1:123456789012:layer:ca:$LATEST",
			"arn:aws:lambda:us-east-1:123456789012:layer:ca:7,", "arn:aws:lambda:us-east-1:123456789012:layer:ca:7, arn:aws:lambda:us-east-1:123456789012:layer:ca:7",
			"arn:aws:lambda:us-east-1:123456789012:layer:ca:7" + strings.Repeat(",arn:aws:lambda:us-east-1:123456789012:layer:ca:7", 5),
		}},
		{"VpcSubnetIds", []string{"", "subnet-0a1b2c3d", "subnet-0123456789abcdef0,subnet-0123456789abcdef1", "subnet-01234567" + strings.Repeat(",subnet-01234567", 15)}, []string{
			" ", "subnet", "subnet-", "subnet-xyz", "sg-0a1b2c3d", "vpc-0a1b2c3d", "subnet-0a1b2c3d,", "subnet-0a1b2c3d, subnet-0a1b2c3d", "subnet-01234567" + strings.Repeat(",subnet-01234567", 16),
		}},
		{"VpcSecurityGroupIds", []string{"", "sg-0a1b2c3d", "sg-0123456789abcdef0,sg-0123456789abcdef1", "sg-01234567" + strings.Repeat(",sg-01234567", 4)}, []string{
			" ", "sg", "sg-", "sg-xyz", "default", "subnet-0a1b2c3d", "sg-0a1b2c3d,", "sg-0a1b2c3d, sg-0a1b2c3d", "sg-01234567" + strings.Repeat(",sg-01234567", 5),
		}},
		{"RejectedPercent", []string{"", "0", "1", "50", "99"}, []string{" ", "100", "05", "-1", "1.5", "50%", "50\n"}},
		{"TokenHeader", []string{"Authorization", "X-Zuplo-Token", "x"}, []string{"", " ", "X Token", "X:Token", "-x", "X-Tökén", "a,b"}},
	}
	parameters := template(t)["Parameters"].(object)
	tested := map[string]bool{}
	for _, row := range rows {
		tested[row.parameter] = true
		allows(t, row.parameter, text(parameters, row.parameter, "AllowedPattern"), row.good, row.bad)
	}
	for name, p := range parameters {
		if at(p, "AllowedPattern") != nil && !tested[name] {
			t.Errorf("no rows for %s", name)
		}
	}
}

// architecture is where the functions' one stands, for sam build and for the deployment alike.
var architecture any = object{"Fn::FindInMap": []any{"Build", "Functions", "Architecture"}}

func TestFunctions(t *testing.T) {
	tmpl := template(t)
	equal(t, "Globals.Function", at(tmpl, "Globals", "Function"), object{
		"Runtime": "provided.al2023",
		"Handler": "bootstrap",
		// What make test-deploy shows: it is never there and says what to do.
		"CodeUri":       ".aws-sam/not-built-yet--run-sam-build-first",
		"Architectures": []any{architecture},
		"MemorySize":    ref("MemorySize"),
		"Timeout":       "6",
		"Tracing":       object{"Fn::If": []any{"Traced", "Active", "PassThrough"}},
	})
	equal(t, "condition Traced", at(tmpl, "Conditions", "Traced"), object{"Fn::Equals": []any{ref("XRay"), "on"}})
	for name, logs := range map[string]string{"AuthorizerFunction": "AuthorizerLogs", "ProtectedFunction": "ProtectedLogs"} {
		f := at(tmpl, "Resources", name)
		equal(t, name+"'s Metadata", at(f, "Metadata"), object{
			"BuildMethod":      "makefile",
			"ContextPath":      object{"Fn::Join": []any{"/", []any{"tools/arch", architecture}}},
			"WorkingDirectory": ".",
		})
		p := at(f, "Properties")
		// Of an alias, a deployment that changes only parameters would leave the old values in force.
		for _, own := range []string{"AutoPublishAlias", "FunctionName", "Timeout", "MemorySize", "Architectures", "CodeUri", "Policies", "Tracing"} {
			equal(t, name+"'s own "+own, at(p, own), nil)
		}
		equal(t, name+"'s log group", at(p, "LoggingConfig"), object{"LogGroup": ref(logs)})
		logGroup(t, tmpl, logs, "/aws/lambda/${AWS::StackName}-"+strings.ToLower(strings.TrimSuffix(name, "Function")))

		role := strings.Replace(name, "Function", "Role", 1)
		equal(t, name+"'s Role", at(p, "Role"), getAtt(role+".Arn"))
		r := at(tmpl, "Resources", role, "Properties")
		equal(t, role+"'s members", keys(r), []string{"AssumeRolePolicyDocument", "Policies"})
		equal(t, role+"'s trust", at(r, "AssumeRolePolicyDocument"), policy(object{
			"Effect":    "Allow",
			"Principal": object{"Service": "lambda.amazonaws.com"},
			"Action":    "sts:AssumeRole",
		}))
		policies := []any{
			object{"PolicyName": "logs", "PolicyDocument": policy(object{
				"Effect":   "Allow",
				"Action":   []any{"logs:CreateLogStream", "logs:PutLogEvents"},
				"Resource": getAtt(logs + ".Arn"),
			})},
		}
		if name == "AuthorizerFunction" {
			policies = append(policies, object{"Fn::If": []any{"Shared", object{"PolicyName": "jwks", "PolicyDocument": policy(object{
				"Effect":   "Allow",
				"Action":   []any{"dynamodb:GetItem", "dynamodb:UpdateItem"},
				"Resource": getAtt("AuthorizerJwks.Arn"),
			})}, ref("AWS::NoValue")}}, object{"Fn::If": []any{"InVpc", object{"PolicyName": "vpc", "PolicyDocument": policy(object{
				"Effect": "Allow",
				// As AWS's own policy for it has them.
				"Action": []any{"ec2:CreateNetworkInterface", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets",
					"ec2:DeleteNetworkInterface", "ec2:AssignPrivateIpAddresses", "ec2:UnassignPrivateIpAddresses"},
				"Resource": "*",
			})}, ref("AWS::NoValue")}})
		}
		equal(t, role+"'s policies", at(r, "Policies"), append(policies,
			object{"Fn::If": []any{"Traced", object{"PolicyName": "xray", "PolicyDocument": policy(object{
				"Effect":   "Allow",
				"Action":   []any{"xray:PutTraceSegments", "xray:PutTelemetryRecords"},
				"Resource": "*",
			})}, ref("AWS::NoValue")}},
		))
	}
	equal(t, "condition Reserved", at(tmpl, "Conditions", "Reserved"), given("ReservedConcurrency"))
	equal(t, "AuthorizerFunction's concurrency", at(tmpl, "Resources", "AuthorizerFunction", "Properties", "ReservedConcurrentExecutions"),
		object{"Fn::If": []any{"Reserved", ref("ReservedConcurrency"), ref("AWS::NoValue")}})
	equal(t, "ProtectedFunction's concurrency", at(tmpl, "Resources", "ProtectedFunction", "Properties", "ReservedConcurrentExecutions"), nil)
	equal(t, "ProtectedFunction's events", at(tmpl, "Resources", "ProtectedFunction", "Properties", "Events"), object{
		"Protected":    object{"Type": "Api", "Properties": object{"RestApiId": ref("Api"), "Path": "/protected", "Method": "GET"}},
		"OtherMethods": object{"Type": "Api", "Properties": object{"RestApiId": ref("Api"), "Path": "/protected", "Method": "ANY"}},
	})
	equal(t, "AuthorizerFunction's events", at(tmpl, "Resources", "AuthorizerFunction", "Properties", "Events"), nil)
}

// The table goes with the stack, costs nothing while nobody asks, and is there only where it is wanted. That the keys and
// the attribute of its TTL are those that the authorizer writes is tested where a DynamoDB is at hand.
func TestSharedJwks(t *testing.T) {
	tmpl := template(t)
	equal(t, "condition Shared", at(tmpl, "Conditions", "Shared"), object{"Fn::And": []any{
		object{"Fn::Equals": []any{ref("SharedJwks"), "true"}}, object{"Fn::Not": []any{object{"Condition": "Pinned"}}}}})
	equal(t, "tables", keys(resourcesOf(tmpl, "AWS::DynamoDB::Table")), []string{"AuthorizerJwks"})
	table := at(tmpl, "Resources", "AuthorizerJwks")
	equal(t, "AuthorizerJwks is deleted with the stack", []any{at(table, "DeletionPolicy"), at(table, "UpdateReplacePolicy")}, []any{"Delete", "Delete"})
	p := at(table, "Properties")
	// A name of its own would keep a changed table from taking the old one's place.
	// What is in it is public, so AWS's own encryption is enough: a key in KMS would be one more thing to fail.
	equal(t, "AuthorizerJwks's members", keys(p), []string{"AttributeDefinitions", "BillingMode", "KeySchema", "TimeToLiveSpecification"})
	equal(t, "AuthorizerJwks's BillingMode", at(p, "BillingMode"), "PAY_PER_REQUEST")
	equal(t, "AuthorizerJwks's TTL", at(p, "TimeToLiveSpecification", "Enabled"), "true")
}

// Keys that an environment may have to wait for must be able to serve meanwhile.
func TestRules(t *testing.T) {
	tmpl := template(t)
	equal(t, "rules", keys(at(tmpl, "Rules")), []string{"IssuersStandInOnePlace", "NetworkIsWhole", "SharedKeysServeLongEnough"})
	rule := at(tmpl, "Rules", "SharedKeysServeLongEnough")
	equal(t, "the rule's condition", at(rule, "RuleCondition"), object{"Fn::Equals": []any{ref("SharedJwks"), "true"}})
	var short []any
	for seconds := 1; seconds <= 10; seconds++ {
		short = append(short, fmt.Sprint(seconds, "s"))
	}
	assertions, _ := at(rule, "Assertions").([]any)
	if len(assertions) != 1 {
		t.Fatalf("%d assertions", len(assertions))
	}
	equal(t, "its assertion", at(assertions[0], "Assert"), object{"Fn::Not": []any{object{"Fn::Contains": []any{short, ref("JwksMaxStale")}}}})
	equal(t, "its description", text(assertions[0], "AssertDescription"), "With SharedJwks, JwksMaxStale must be at least JwksTtl + 10s.")

	none := func(parameter string) object { return object{"Fn::Equals": []any{ref(parameter), ""}} }
	equal(t, "the issuers' rule", at(tmpl, "Rules", "IssuersStandInOnePlace"), object{"Assertions": []any{
		object{
			"Assert": object{"Fn::Or": []any{
				object{"Fn::And": []any{given("Issuer"), none("Issuers")}},
				object{"Fn::And": []any{none("Issuer"), given("Issuers")}},
			}},
			"AssertDescription": "Either Issuer or Issuers must be given, and not both.",
		},
		object{
			"Assert":            object{"Fn::Or": []any{none("Issuers"), object{"Fn::And": []any{none("JwksUri"), none("Jwks"), none("Audience")}}}},
			"AssertDescription": "With Issuers, JwksUri, Jwks and Audience must be empty, because each issuer has its own there.",
		},
	}})
	equal(t, "the network's rule", at(tmpl, "Rules", "NetworkIsWhole"), object{"Assertions": []any{object{
		"Assert": object{"Fn::Or": []any{
			object{"Fn::And": []any{none("VpcSubnetIds"), none("VpcSecurityGroupIds")}},
			object{"Fn::And": []any{given("VpcSubnetIds"), given("VpcSecurityGroupIds")}},
		}},
		"AssertDescription": "VpcSubnetIds and VpcSecurityGroupIds go together.",
	}}})
}

// given is the condition that a parameter is not empty.
func given(parameter string) object {
	return object{"Fn::Not": []any{object{"Fn::Equals": []any{ref(parameter), ""}}}}
}

func logGroup(t *testing.T, tmpl object, id, name string) {
	t.Helper()
	equal(t, "condition Encrypted", at(tmpl, "Conditions", "Encrypted"), given("LogKmsKey"))
	g := at(tmpl, "Resources", id)
	equal(t, id+"'s properties", at(g, "Properties"), object{
		"LogGroupName":    object{"Fn::Sub": name},
		"RetentionInDays": ref("LogRetentionDays"),
		"KmsKeyId":        object{"Fn::If": []any{"Encrypted", ref("LogKmsKey"), ref("AWS::NoValue")}},
	})
	equal(t, id+" is deleted with the stack", []any{at(g, "DeletionPolicy"), at(g, "UpdateReplacePolicy")}, []any{"Delete", "Delete"})
}

func policy(statement object) object {
	return object{"Version": "2012-10-17", "Statement": []any{statement}}
}

// Without the API nothing stays behind but the authorizer with its role, its logs and what watches it.
func TestWithApi(t *testing.T) {
	tmpl := template(t)
	equal(t, "condition ApiWanted", at(tmpl, "Conditions", "ApiWanted"), object{"Fn::Equals": []any{ref("WithApi"), "true"}})
	for name, r := range tmpl["Resources"].(object) {
		var want any = "ApiWanted"
		switch kind := text(r, "Type"); {
		case name == "ApiLogs":
			want = "Logged"
		case name == "ApiErrorsAlarm":
			want = "ApiMonitored"
		case name == "RejectedShareAlarm":
			want = "ShareMonitored"
		case kind == "AWS::Logs::MetricFilter" || kind == "AWS::Logs::QueryDefinition" || strings.HasPrefix(kind, "AWS::CloudWatch::"):
			want = "Monitored"
		case name == "AuthorizerJwks":
			want = "Shared"
		case strings.HasPrefix(name, "Authorizer"):
			want = nil
		}
		equal(t, name+"'s condition", at(r, "Condition"), want)
	}
}

func TestApi(t *testing.T) {
	tmpl := template(t)
	equal(t, "Globals.Api", at(tmpl, "Globals", "Api"), object{"OpenApiVersion": "3.0.1"})
	p := at(tmpl, "Resources", "Api", "Properties")
	equal(t, "Api's members", keys(p), []string{
		"AccessLogSetting", "AlwaysDeploy", "Auth", "Description", "EndpointConfiguration", "GatewayResponses", "MethodSettings",
		"StageName", "TracingEnabled",
	})
	equal(t, "AlwaysDeploy", at(p, "AlwaysDeploy"), "true")
	equal(t, "EndpointConfiguration", at(p, "EndpointConfiguration"), object{"Type": "REGIONAL"})
	equal(t, "StageName", at(p, "StageName"), ref("StageName"))
	equal(t, "TracingEnabled", at(p, "TracingEnabled"), object{"Fn::If": []any{"Traced", "true", "false"}})
	expression := text(p, "Auth", "Authorizers", "ZuploJwt", "Identity", "ValidationExpression")
	equal(t, "Auth", at(p, "Auth"), object{
		"DefaultAuthorizer":                   "ZuploJwt",
		"AddDefaultAuthorizerToCorsPreflight": "false",
		"Authorizers": object{"ZuploJwt": object{
			"FunctionPayloadType": "TOKEN",
			"FunctionArn":         getAtt("AuthorizerFunction.Arn"),
			"Identity": object{
				"Header":               ref("TokenHeader"),
				"ValidationExpression": expression,
				"ReauthorizeEvery":     ref("ReauthorizeEvery"),
			},
		}},
	})

	// A pre-filter that fits every TokenPrefix: one word or none, then three segments.
	allows(t, "ValidationExpression", expression, []string{
		"Bearer a.b.c", "bearer a.b.c", "BEARER a.b.c", "Bearer eyJ-_09.eyJ-_09.AZaz-_", "a.b.c", "JWT a.b.c", "A!#$%&'*+.^_`|~-9 a.b.c",
	}, []string{
		"", "Bearer", "Bearer ", " a.b.c", "Bearer  a.b.c", " Bearer a.b.c", "Bearer a.b.c ", "Bearer\ta.b.c", "Bearer a.b.c\n", "Bearer: a.b.c", "a b a.b.c", "Bearer,a.b.c",
		"Bearer a", "Bearer a.b", "Bearer a.b.", "Bearer .b.c", "Bearer a..c", "Bearer a.b.c.d", "Bearer a.b.c=", "Bearer a+.b.c", "Bearer a/.b.c", "Bearer a.b.c, Bearer a.b.c", "a.b.c, a.b.c", "a.b.c,a.b.c", "Bearer axbxc",
	})
}

func TestGatewayResponses(t *testing.T) {
	response := func(status, message, header, value string) object {
		r := object{"StatusCode": status, "ResponseTemplates": object{"application/json": `{"message":"` + message + `"}`}}
		if header != "" {
			// A constant stands in single quotes of its own.
			r["ResponseParameters"] = object{"Headers": object{header: "'" + value + "'"}}
		}
		return r
	}
	got := at(template(t), "Resources", "Api", "Properties", "GatewayResponses")
	equal(t, "GatewayResponses", got, object{
		"UNAUTHORIZED":                   response("401", "Unauthorized", "WWW-Authenticate", `Bearer realm="api"`),
		"ACCESS_DENIED":                  response("403", "token expired or not permitted", "", ""),
		"AUTHORIZER_FAILURE":             response("500", "authorizer unavailable", "Retry-After", "5"),
		"AUTHORIZER_CONFIGURATION_ERROR": response("500", "authorizer unavailable", "Retry-After", "5"),
		"MISSING_AUTHENTICATION_TOKEN":   response("404", "not found", "", ""),
		"THROTTLED":                      response("429", "too many requests", "Retry-After", "1"),
	})
}

func TestSamconfig(t *testing.T) {
	config := file(t, "samconfig.toml")
	for _, line := range []string{
		`stack_name = ".+"`, `resolve_s3 = true`, `capabilities = "CAPABILITY_IAM"`, `confirm_changeset = false`,
	} {
		if !regexp.MustCompile(`(?m)^` + line + `$`).MatchString(config) {
			t.Errorf("samconfig.toml has no line %s", line)
		}
	}
	// parameter_overrides would give way, all of them, to the user's.
	if m := regexp.MustCompile(`(?m)^(parameter_overrides|region)\b.*`).FindString(config); m != "" {
		t.Errorf("samconfig.toml has %s", m)
	}
	stack := regexp.MustCompile(`(?m)^stack_name = "(.+)"$`).FindStringSubmatch(config)
	if stack == nil || !strings.Contains(file(t, "Makefile"), "\nexport STACK ?= "+stack[1]+"\n") {
		t.Errorf("the Makefile's STACK is not samconfig.toml's stack, %v", stack)
	}
}

// The architecture is in one place: make builds for what tools/arch/ says, which the template's mapping chooses, and
// make names that place when it is asked for another one. That SAM does so is shown by make test-deploy.
func TestArchitecture(t *testing.T) {
	// Read here so that go test's cache knows of what make reads.
	file(t, "Makefile")
	tmpl := template(t)
	equal(t, "Mappings", at(tmpl, "Mappings", "Build"), object{"Functions": object{"Architecture": "arm64"}})
	equal(t, "parameter Architecture", at(tmpl, "Parameters", "Architecture"), nil)
	for arch, goarch := range map[string]string{"arm64": "arm64", "x86_64": "amd64"} {
		makefile := filepath.Join("tools", "arch", arch, "Makefile")
		file(t, makefile)
		for _, f := range []string{"AuthorizerFunction", "ProtectedFunction"} {
			out, err := dryRun(t, "-f", makefile, "build-"+f, "ARTIFACTS_DIR=out")
			want := `tools/build.sh "out/bootstrap" ./` + strings.ToLower(strings.TrimSuffix(f, "Function")) + " " + goarch + "\n"
			if err != nil || out != want {
				t.Errorf("%s builds %s with %q, %v; not with %q", makefile, f, out, err, want)
			}
		}
	}
	for _, c := range []struct{ params, deploy string }{
		{"Issuer=https://a Audience=b", "sam deploy --parameter-overrides Issuer=https://a Audience=b\n"},
		{"", "sam deploy \n"},
	} {
		out, err := dryRun(t, "deploy", "PARAMS="+c.params)
		if want := "sam build\n" + c.deploy; err != nil || !strings.HasSuffix(out, want) {
			t.Errorf("make deploy PARAMS=%q: %q, %v; it should end with %q", c.params, out, err, want)
		}
	}

	const place = "Mappings, Build, Functions, Architecture in template.yaml"
	for _, bad := range []struct {
		args []string
		says string
	}{
		{[]string{"-f", "tools/arch/arm64/Makefile", "build-AuthorizerFunction", "ARTIFACTS_DIR=out", "ARCH=x86_64"}, place},
		{[]string{"build-AuthorizerFunction"}, "is for sam build"},
		{[]string{"build-AuthorizerFunction", "ARTIFACTS_DIR=out"}, "is for sam build"},
		{[]string{"-f", "tools/arch/arm64/Makefile", "build-ProtectedFunction"}, "is for sam build"},
		{[]string{"deploy", "ARCH=amd64"}, place},
		{[]string{"build", "ARCH="}, place},
		{[]string{"deploy", "PARAMS=Architecture=x86_64"}, place},
	} {
		out, err := dryRun(t, bad.args...)
		if err == nil || !strings.Contains(out, bad.says) {
			t.Errorf("make %q: %q, %v; it should stop with %q", bad.args, out, err, bad.says)
		}
	}
}

// dryRun returns what make would do, in a shell that has an ARCH of its own and nothing else but PATH.
func dryRun(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("make", append([]string{"--no-print-directory", "-n"}, args...)...)
	cmd.Dir = root
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "ARCH=arm"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}
