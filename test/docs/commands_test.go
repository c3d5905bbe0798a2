//go:build docs

package docs

import (
	"encoding/json"
	"maps"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A block of commands, by how it begins, is in one of three groups: it is run here, it is run by something else, or its document says
// that it is not run here. A block in none fails.

// here are those that are run here, and what must be so afterwards, as a condition of the shell; $status is the exit status.
var here = map[string]string{
	"curl http://127.0.0.1:9000/protected": `[ $status = 0 ] && grep -q '"sub":"api-key-consumer"' "$T/out"`,
	"curl -X POST http://127.0.0.1:9000/__admin/jwks": `[ $status = 0 ] && [ "$(status)" = 500 ] && curl -sf -X POST $ZUPLO_URL/__admin/reset &&
		for i in $(seq 15); do [ "$(status)" = 200 ] && exit 0; sleep 1; done; exit 1`,
	"make build && ISSUER=": `[ $status = 0 ]`,
	"make build":            `[ $status = 0 ]`,
	"sed -n ":               `[ $status = 1 ] && grep -q 'verdict  reject, audience' "$T/out"`,
	"printf \"Issuer":       `[ $status = 0 ] && grep -q '^Rules: .*orders' parameters.yaml && rm parameters.yaml`,
}

// elsewhere are those that something else runs: a file, and what stands in it.
var elsewhere = map[string][2]string{
	"make run     #":                        {".ci/run", `step "make test" make test`}, // make run is TestMakeRun's
	"sam build && sam deploy":               {"test/targets/ministack.sh", "'sam deploy --parameter-overrides Issuer=.*' README.md"},
	"make sam-build":                        {"test/targets/sam-local.sh", "sam local invoke $function --event"},
	"make audit API=":                       {"test/targets/audit.py", "build/audit"},
	"aws s3 cp . ":                          {"test/targets/ministack.sh", `released "$(commands Installing)`},
	"aws cloudformation delete-stack":       {"test/targets/ministack.sh", `released "$(commands Removing)`},
	"git checkout v":                        {".ci/run", "verify-release DIR=\"$PWD/dist\""},
	"aws lambda get-function-configuration": {"explain/input_test.go", `"Environment"`}, // what it prints
}

// marked is how a document says it, before the block.
var marked = regexp.MustCompile(`\bnot run here\b`)

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

// A block is a document's commands, as they stand in it, and the paragraph before them.
type block struct{ file, text, before string }

var (
	command = regexp.MustCompile(`^[A-Za-z_./-]+ `)
	opens   = regexp.MustCompile("^```([a-z]*)$")
)

// blocks are what is indented and begins like a command, and what is fenced as sh. The runbook has a test of its own (make test-deploy).
func blocks(t *testing.T) (all []block) {
	t.Helper()
	for _, file := range documents(t) {
		if file == "docs/operations.md" || !strings.Contains(file, "/") && file != "README.md" {
			continue
		}
		before, indented, fenced, language := "", "", "", ""
		in := false
		for _, line := range append(strings.Split(read(t, file), "\n"), "") {
			if in {
				if line != "```" {
					fenced += line + "\n"
					continue
				}
				if in = false; language == "sh" {
					all = append(all, block{file, fenced, before})
				}
				continue
			}
			if code, ok := strings.CutPrefix(line, "    "); ok && (indented != "" || !strings.HasPrefix(code, " ")) {
				indented += code + "\n"
				continue
			}
			if indented != "" {
				if command.MatchString(indented) {
					all = append(all, block{file, indented, before})
				}
				indented = ""
			}
			if m := opens.FindStringSubmatch(line); m != nil {
				in, language, fenced = true, m[1], ""
			} else if line != "" {
				before = line
			}
		}
	}
	return all
}

// longest is the key with which a text begins.
func longest[V any](text string, all map[string]V) (key string, ok bool) {
	for k := range all {
		if strings.HasPrefix(text, k) && len(k) > len(key) {
			key = k
		}
	}
	return key, key != ""
}

func TestCommands(t *testing.T) {
	seen := map[string]bool{}
	for _, b := range blocks(t) {
		at, isElsewhere := longest(b.text, elsewhere)
		condition, isHere := longest(b.text, here)
		switch {
		case isElsewhere && !isHere:
			seen[at] = true
		case isHere:
			seen[condition] = true
			local := strings.NewReplacer("http://127.0.0.1:9000", "$ZUPLO_URL", "https://DEPLOYMENT.zuplo.app/__zuplo/issuer", "$ISSUER", "< TOKEN", `< "$T/TOKEN"`,
				"make deploy", "echo make deploy") // make test-deploy deploys
			c := exec.CommandContext(t.Context(), "build/local", "-api-port", "0", "-zuplo-port", "0", "--",
				"bash", "-uc", strings.NewReplacer("BLOCK", local.Replace(b.text), "CONDITION", here[condition]).Replace(script))
			c.Dir = root
			if out, err := c.CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s\n%s", b.file, err, b.text, out)
			}
		case !marked.MatchString(b.before):
			t.Errorf("%s: nothing runs this. Add it to here or to elsewhere, or say before it that it is not run here, and why:\n%s", b.file, b.text)
		}
	}
	for k, by := range elsewhere {
		if !strings.Contains(read(t, by[0]), by[1]) {
			t.Errorf("%s does not have %s any more, which is to run %q", by[0], by[1], k)
		}
	}
	for _, k := range slices.Concat(slices.Collect(maps.Keys(here)), slices.Collect(maps.Keys(elsewhere))) {
		if !seen[k] {
			t.Errorf("no document has a command that begins with %q", k)
		}
	}
}

var span = regexp.MustCompile("`([^`]+)`")

// Each way in which docs/testing.md starts make run ends in a greeting and a 200.
func TestMakeRun(t *testing.T) {
	_, chapter, _ := strings.Cut(read(t, "docs/testing.md"), "\n## `make run`\n")
	chapter, _, _ = strings.Cut(chapter, "\n## ")
	n, settings := 0, read(t, "local/settings.go")
	for line := range strings.Lines(chapter) {
		m := span.FindStringSubmatch(line)
		if !strings.HasPrefix(line, "| `") || strings.Contains(m[1], "STORE=1") { // make e2e-store has the same table and needs Python
			continue
		}
		n++
		for _, variable := range regexp.MustCompile(`(\w+)=`).FindAllStringSubmatch(m[1], -1) {
			if !strings.Contains(settings, `"`+variable[1]+`"`) {
				t.Errorf("make run does not read %s", variable[1])
			}
		}
		t.Run(m[1], func(t *testing.T) {
			c := exec.CommandContext(t.Context(), "bash", "-c", "exec "+regexp.MustCompile(`^((?:\w+=\S+ )*)make`).ReplaceAllString(m[1], "env $1 make")+" API_PORT=0 ZUPLO_PORT=0")
			c.Dir, c.SysProcAttr = root, &syscall.SysProcAttr{Setpgid: true}
			out, err := c.StdoutPipe()
			if err == nil {
				err = c.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			end := func() { _ = syscall.Kill(-c.Process.Pid, syscall.SIGTERM) }
			late := time.AfterFunc(2*time.Minute, end)
			defer func() { late.Stop(); end(); c.Wait() }()
			var text strings.Builder
			front := regexp.MustCompile(`Zuplo stand-in +(http://\S+/protected)`)
			for piece := make([]byte, 4096); !front.MatchString(text.String()); {
				k, err := out.Read(piece)
				text.Write(piece[:k])
				if err != nil {
					t.Fatalf("it ended after %q", &text)
				}
			}
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, front.FindStringSubmatch(text.String())[1], nil)
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Authorization", "Bearer YOUR_API_KEY")
			reply, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			reply.Body.Close()
			if reply.StatusCode != http.StatusOK {
				t.Errorf("it answers %s", reply.Status)
			}
		})
	}
	if n < 5 {
		t.Errorf("%d ways in docs/testing.md", n)
	}
}

// members are those of a JSON object.
func members(t *testing.T, text string) []string {
	t.Helper()
	var object map[string]any
	if err := json.Unmarshal([]byte(text), &object); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return slices.Sorted(maps.Keys(object))
}

// README's request has the answer and the line that README shows, member by member.
func TestREADMEsRequest(t *testing.T) {
	shown := regexp.MustCompile("(?s)```json\n(\\{[^\n]*\\})\n```").FindAllStringSubmatch(read(t, "README.md"), 2)
	if len(shown) != 2 {
		t.Fatal("README.md has no answer and no line")
	}
	c := exec.CommandContext(t.Context(), "build/local", "-api-port", "0", "-zuplo-port", "0", "--",
		"sh", "-c", "curl -sf $ZUPLO_URL/protected -H 'Authorization: Bearer YOUR_API_KEY'")
	c.Dir, c.Env = root, append(c.Environ(), "LOG=json")
	var log strings.Builder
	c.Stderr = &log
	answer, err := c.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, &log)
	}
	line := regexp.MustCompile(`\{.*"msg":"decision".*\}`).FindString(log.String())
	for i, got := range []string{string(answer), line} {
		if has, says := members(t, got), members(t, shown[i][1]); !slices.Equal(has, says) {
			t.Errorf("README.md shows the members %v, there are %v", says, has)
		}
	}
}

var makes = regexp.MustCompile(`(?:^|[ (])make ([a-z][a-z0-9-]*)((?: [A-Z_]+=[^ ]*)*)`)

// Each make target that a document names is one, and each variable with it is one that something reads.
func TestMakeTargets(t *testing.T) {
	t.Parallel()
	makefile := read(t, "Makefile")
	n := 0
	for _, file := range documents(t) {
		if file == "CHANGELOG.md" { // tells of earlier ones
			continue
		}
		var code []string
		for _, m := range span.FindAllStringSubmatch(fence.ReplaceAllString(read(t, file), ""), -1) {
			code = append(code, m[1])
		}
		for _, b := range blocks(t) {
			if b.file == file {
				code = append(code, strings.Split(b.text, "\n")...)
			}
		}
		for _, text := range code {
			for _, m := range makes.FindAllStringSubmatch(text, -1) {
				n++
				if !regexp.MustCompile(`(?m)^` + m[1] + `(?: [a-z-]+)*:`).MatchString(makefile) {
					t.Errorf("%s: make %s is no target", file, m[1])
				}
				for _, variable := range regexp.MustCompile(`([A-Z_]+)=`).FindAllStringSubmatch(m[2], -1) {
					if !regexp.MustCompile(`\b` + variable[1] + `\b`).MatchString(makefile) {
						t.Errorf("%s: make %s does not read %s", file, m[1], variable[1])
					}
				}
			}
		}
	}
	if n < 30 {
		t.Errorf("only %d in all", n)
	}
}
