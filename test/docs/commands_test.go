//go:build docs

package docs

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// elsewhere are the blocks of commands that are not run here, by how they begin, and who runs them.
var elsewhere = map[string]string{
	"make run     #":                        "make test is make test, and TestGreeting in local/ starts what make run starts",
	"sam build && sam deploy":               "make test-deploy takes it out of README.md",
	"make sam-build":                        "make test-sam does both for every event file",
	"make audit API=":                       "make test-deploy audits APIs of every kind, good ones and bad ones",
	"git checkout v":                        "make dist && make verify-release DIR=dist does the same to the checkout, in .ci/run",
	"gh attestation verify":                 "nobody: it needs GitHub, and docs/release.md says so",
	"sam package --template-file":           "nobody: it needs AWS's repository, and docs/release.md says so",
	"aws lambda get-function-configuration": "make test-deploy runs the first on the emulator, explain's own tests read what it prints",
	"aws apigateway update-account":         "nobody: it sets a role of the whole account, and the emulator has none",
}

// here are those that are, and what must be so afterwards, as a condition of the shell; $status is the exit status.
var here = map[string]string{
	"curl -X POST http://127.0.0.1:9000/__admin/jwks": `[ $status = 0 ] && [ "$(status)" = 500 ] && curl -sf -X POST $ZUPLO_URL/__admin/reset &&
		for i in $(seq 15); do [ "$(status)" = 200 ] && exit 0; sleep 1; done; exit 1`,
	"make build && ISSUER=": `[ $status = 0 ]`,
	"make build":            `[ $status = 0 ]`,
	"sed -n ":               `[ $status = 1 ] && grep -q 'verdict  reject, audience' "$T/out"`,
	"printf \"Issuer":       `[ $status = 0 ] && grep -q '^Rules: .*orders' parameters.yaml && rm parameters.yaml`,
}

const script = `
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
status() { curl -s -o /dev/null -w '%{http_code}' $ZUPLO_URL/protected -H 'Authorization: Bearer YOUR_API_KEY'; }
curl -sf -X POST $ZUPLO_URL/__admin/mint | sed 's/.*"token":"\([^"]*\)".*/\1/' >"$T/TOKEN"
set +e
( BLOCK
) >"$T/out" 2>&1
status=$?
cat "$T/out"
( CONDITION
)
`

var (
	otherFence = regexp.MustCompile("(?ms)^```[a-z]*$.*?^```$")
	block      = regexp.MustCompile(`(?m)(?:^    \S.*\n(?:^    .*\n)*)`)
	command    = regexp.MustCompile(`^[A-Za-z_./-]+ `)
)

// Each command of README.md, docs/ and examples/ is run as it stands, or is said above to be run by something else. The runbook has a
// test of its own (make test-deploy).
func TestCommands(t *testing.T) {
	seen := map[string]bool{}
	for _, file := range documents(t) {
		if file == "docs/operations.md" || !strings.Contains(file, "/") && file != "README.md" {
			continue
		}
		for _, text := range block.FindAllString(otherFence.ReplaceAllString(read(t, file), ""), -1) {
			text = strings.ReplaceAll("\n"+text, "\n    ", "\n")[1:]
			if !command.MatchString(text) {
				continue // an example of something else
			}
			begins := func(all map[string]string) (key string) {
				for k := range all {
					if strings.HasPrefix(text, k) && len(k) > len(key) {
						key = k
					}
				}
				return key
			}
			if k := begins(elsewhere); k != "" {
				seen[k] = true
				continue
			}
			k := begins(here)
			if k == "" {
				t.Errorf("%s: nobody runs this; add it to here or to elsewhere:\n%s", file, text)
				continue
			}
			seen[k] = true
			local := strings.NewReplacer("http://127.0.0.1:9000", "$ZUPLO_URL", "https://DEPLOYMENT.zuplo.app/__zuplo/issuer", "$ISSUER", "< TOKEN", `< "$T/TOKEN"`,
				"make deploy", "echo make deploy") // make test-deploy deploys
			run := local.Replace(text)
			c := exec.CommandContext(t.Context(), "build/local", "-api-port", "0", "-zuplo-port", "0", "--",
				"bash", "-uc", strings.NewReplacer("BLOCK", run, "CONDITION", here[k]).Replace(script))
			c.Dir = root
			if out, err := c.CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s\n%s", file, err, text, out)
			}
		}
	}
	for _, all := range []map[string]string{here, elsewhere} {
		for k := range all {
			if !seen[k] {
				t.Errorf("no document has a command that begins with %q", k)
			}
		}
	}
}
