package terraform

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"go.yaml.in/yaml/v3"
)

const example = "../../examples/terraform/main.tf"

// settings are the example's attributes by path: "aws_lambda_function.authorizer.memory_size". What refers to something else
// reads as it stands in the file.
func settings(t *testing.T) map[string]string {
	t.Helper()
	f, diagnostics := hclparse.NewParser().ParseHCLFile(example)
	if diagnostics.HasErrors() {
		t.Fatal(diagnostics)
	}
	all := map[string]string{}
	var collect func(path string, body *hclsyntax.Body)
	collect = func(path string, body *hclsyntax.Body) {
		for name, a := range body.Attributes {
			all[path+name] = text(f, a.Expr)
		}
		for _, b := range body.Blocks {
			in := b.Type
			if b.Type == "resource" || b.Type == "data" {
				in = strings.Join(b.Labels, ".")
			} else if len(b.Labels) > 0 {
				in += "." + strings.Join(b.Labels, ".")
			}
			collect(path+in+".", b.Body)
		}
	}
	collect("", f.Body.(*hclsyntax.Body))
	return all
}

func text(f *hcl.File, e hclsyntax.Expression) string {
	v, diagnostics := e.Value(nil)
	if diagnostics.HasErrors() || !v.IsWhollyKnown() {
		return string(e.Range().SliceBytes(f.Bytes))
	}
	switch {
	case v.Type() == cty.String:
		return v.AsString()
	case v.Type() == cty.Number:
		return v.AsBigFloat().String()
	}
	return string(e.Range().SliceBytes(f.Bytes))
}

type template struct {
	Metadata struct {
		Application struct {
			Version string `yaml:"SemanticVersion"`
		} `yaml:"AWS::ServerlessRepo::Application"`
	} `yaml:"Metadata"`
	Parameters map[string]struct {
		Default string `yaml:"Default"`
	} `yaml:"Parameters"`
	Mappings struct {
		Build struct {
			Functions struct {
				Architecture string `yaml:"Architecture"`
			} `yaml:"Functions"`
		} `yaml:"Build"`
	} `yaml:"Mappings"`
	Globals struct {
		Function struct {
			Runtime string `yaml:"Runtime"`
			Handler string `yaml:"Handler"`
			Timeout string `yaml:"Timeout"`
		} `yaml:"Function"`
	} `yaml:"Globals"`
	Resources struct {
		Api struct {
			Properties struct {
				Auth struct {
					Authorizers struct {
						ZuploJwt struct {
							Identity struct {
								Validation string `yaml:"ValidationExpression"`
							} `yaml:"Identity"`
						} `yaml:"ZuploJwt"`
					} `yaml:"Authorizers"`
				} `yaml:"Auth"`
			} `yaml:"Properties"`
		} `yaml:"Api"`
	} `yaml:"Resources"`
}

func TestExample(t *testing.T) {
	b, err := os.ReadFile("../../template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var tmpl template
	if err := yaml.Unmarshal(b, &tmpl); err != nil {
		t.Fatal(err)
	}
	arch, function := tmpl.Mappings.Build.Functions.Architecture, tmpl.Globals.Function
	got := settings(t)
	const (
		lambda, authorizer, permission = "aws_lambda_function.authorizer.", "aws_api_gateway_authorizer.zuplo.", "aws_lambda_permission.api."
	)
	for path, want := range map[string]string{
		"variable.zip.default":      "authorizer-" + tmpl.Metadata.Application.Version + "-" + arch + ".zip",
		lambda + "filename":         "var.zip",
		lambda + "source_code_hash": "filebase64sha256(var.zip)",
		lambda + "runtime":          "provided.al2023",
		lambda + "handler":          "bootstrap",
		lambda + "architectures":    `["` + arch + `"]`,
		lambda + "memory_size":      tmpl.Parameters["MemorySize"].Default,
		lambda + "timeout":          "6",
		lambda + "role":             "aws_iam_role.authorizer.arn",

		lambda + "logging_config.log_group":                     "aws_cloudwatch_log_group.authorizer.name",
		"aws_cloudwatch_log_group.authorizer.retention_in_days": tmpl.Parameters["LogRetentionDays"].Default,

		authorizer + "type":                             "TOKEN",
		authorizer + "authorizer_uri":                   "aws_lambda_function.authorizer.invoke_arn",
		authorizer + "identity_source":                  "method.request.header." + tmpl.Parameters["TokenHeader"].Default,
		authorizer + "identity_validation_expression":   tmpl.Resources.Api.Properties.Auth.Authorizers.ZuploJwt.Identity.Validation,
		authorizer + "authorizer_result_ttl_in_seconds": tmpl.Parameters["ReauthorizeEvery"].Default,

		permission + "action":        "lambda:InvokeFunction",
		permission + "function_name": "aws_lambda_function.authorizer.function_name",
		permission + "principal":     "apigateway.amazonaws.com",
		permission + "source_arn":    `"${var.rest_api_execution_arn}/authorizers/${aws_api_gateway_authorizer.zuplo.id}"`,

		"aws_iam_policy_document.logs.statement.actions":   `["logs:CreateLogStream", "logs:PutLogEvents"]`,
		"aws_iam_policy_document.logs.statement.resources": `["${aws_cloudwatch_log_group.authorizer.arn}:log-stream:*"]`,
		"aws_iam_role_policy.logs.role":                    "aws_iam_role.authorizer.id",
	} {
		if got[path] != want || want == "" {
			t.Errorf("%s is %q, not %q", path, got[path], want)
		}
	}
	if function.Runtime != got[lambda+"runtime"] || function.Handler != got[lambda+"handler"] || function.Timeout != got[lambda+"timeout"] {
		t.Errorf("the template's functions are %+v", function)
	}
	// No managed policy, and no statement that is not named above.
	for path, v := range got {
		if strings.Contains(v, "policy/") || strings.HasPrefix(path, "aws_iam_role_policy_attachment") || regexp.MustCompile(`\bactions$`).MatchString(path) && strings.Contains(v, "*") {
			t.Errorf("%s is %s", path, v)
		}
		if strings.HasSuffix(path, "resources") && slices.Contains([]string{`["*"]`, `"*"`, "*"}, v) {
			t.Errorf("%s is every resource", path)
		}
	}
}

// Each reference is to something that the file has.
func TestReferences(t *testing.T) {
	f, diagnostics := hclparse.NewParser().ParseHCLFile(example)
	if diagnostics.HasErrors() {
		t.Fatal(diagnostics)
	}
	has := map[string]bool{}
	body := f.Body.(*hclsyntax.Body)
	for _, b := range body.Blocks {
		switch b.Type {
		case "resource":
			has[strings.Join(b.Labels, ".")] = true
		case "data":
			has["data."+strings.Join(b.Labels, ".")] = true
		case "variable":
			has["var."+b.Labels[0]] = true
		}
	}
	if diagnostics := hclsyntax.VisitAll(body, func(n hclsyntax.Node) hcl.Diagnostics {
		e, ok := n.(*hclsyntax.ScopeTraversalExpr)
		if !ok {
			return nil
		}
		name := e.Traversal.RootName()
		parts := 1
		if name == "data" {
			parts = 2
		}
		if name == "string" || name == "number" || name == "bool" { // a variable's type
			return nil
		}
		for _, p := range e.Traversal[1 : 1+parts] {
			name += "." + p.(hcl.TraverseAttr).Name
		}
		if !has[name] {
			return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: name + " is not there", Subject: e.Range().Ptr()}}
		}
		return nil
	}); diagnostics.HasErrors() {
		t.Error(diagnostics)
	}
}
