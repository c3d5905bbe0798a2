package template

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// What may import what (CONTRIBUTING.md). A stand-in or a judge that shared our code would share its mistakes.
func TestLayout(t *testing.T) {
	t.Parallel()
	c := exec.CommandContext(t.Context(), "go", "list", "-test", "-tags", "judges,store,cdk,docs,page", "-f", `{{.ImportPath}} {{join .Imports " "}} {{join .XTestImports " "}}`, "./...")
	c.Dir = "../.."
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	const own = "zuplo-lambda-authorizer/"
	importers := map[string][]string{"lestrrat-go/jwx": {"internal/jwks"}, "aws/aws-sdk-go-v2": {"internal/jwkstable"}}
	seen := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		from, isOurs := strings.CutPrefix(fields[0], own)
		if !isOurs || strings.HasSuffix(from, ".test") {
			continue
		}
		top, _, _ := strings.Cut(from, "/")
		for _, imported := range fields[1:] {
			if (top == "local" || top == "test" || top == "protected" && imported != own+"internal/apigw") && strings.HasPrefix(imported, own+"internal/") {
				t.Errorf("%s imports %s", from, imported)
			}
			for library, allowed := range importers {
				if strings.Contains(imported, library) && fields[1] != "["+own+from+".test]" { // tests may
					seen[library] = true
					if !slices.Contains(allowed, from) {
						t.Errorf("%s imports %s, which only %s may", from, imported, allowed)
					}
				}
			}
		}
	}
	for library := range importers {
		if !seen[library] {
			t.Errorf("nobody imports %s: is this test right?", library)
		}
	}
}
