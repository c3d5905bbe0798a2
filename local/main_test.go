package main

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestTakenPort(t *testing.T) {
	t.Parallel()
	l, err := listen(0, "API_PORT")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	if _, err := listen(port, "API_PORT"); err == nil || !strings.Contains(err.Error(), "is taken; another one: make run API_PORT=") {
		t.Errorf("%v", err)
	}
}

// stack is the command, to be run in a folder with all that it needs.
func stack(t *testing.T, variables ...string) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	for output, of := range map[string]string{"build/authorizer/bootstrap": "authorizer", "build/protected/bootstrap": "protected", "local": "local"} {
		if out, err := exec.Command("go", "build", "-tags", "lambda.norpc", "-o", filepath.Join(dir, output), "../"+of).CombinedOutput(); err != nil {
			t.Fatalf("compiling %s: %v\n%s", of, err, out)
		}
	}
	template, err := os.ReadFile("../template.yaml")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "template.yaml"), template, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), "./local", "-api-port", "0", "-zuplo-port", "0")
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.Dir, c.Env = dir, append(variables, "PATH="+os.Getenv("PATH"))
	return c
}

// Settings that the authorizer refuses are told before anything is offered.
func TestRefusedSettings(t *testing.T) {
	t.Parallel()
	c := stack(t, "LEEWAY=1h", "JWKS_TTL=soon", "LOG=text")
	var told bytes.Buffer
	c.Stderr = &told
	offered, err := c.Output()
	if err == nil || len(offered) > 0 || !strings.Contains(told.String(), "LEEWAY: ") || !strings.Contains(told.String(), "JWKS_TTL: ") {
		t.Errorf("%v, offered %q, told %s", err, offered, &told)
	}
}

var (
	example = regexp.MustCompile(`(?m)^  (\d{3})[ ,].*\n((?:    curl .*\n)+)`)
	curl    = regexp.MustCompile(`curl (?:-i )?(?:-X (POST) )?(http://\S+)(?: -H '([^:]+): ([^']+)')?(?: -d '([^']+)')?`)
)

// Each example of the greeting gives the status that it is announced with.
func TestGreeting(t *testing.T) {
	t.Parallel()
	c := stack(t)
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Wait()
	defer c.Cancel()
	var text strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan() && !strings.HasPrefix(lines.Text(), "Ctrl-C"); {
		text.WriteString(lines.Text() + "\n")
	}
	examples := example.FindAllStringSubmatch(text.String(), -1)
	if len(examples) != 5 {
		t.Fatalf("%d examples in %s", len(examples), &text)
	}
	for _, e := range examples {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		got := ""
		for ; got != e[1] && ctx.Err() == nil; time.Sleep(100 * time.Millisecond) { // 200 again comes after a while
			for _, c := range curl.FindAllStringSubmatch(e[2], -1) {
				method := "GET"
				if c[1]+c[5] != "" {
					method = "POST"
				}
				req, err := http.NewRequestWithContext(ctx, method, c[2], strings.NewReader(c[5]))
				if err != nil {
					t.Fatal(err)
				}
				if c[3] != "" {
					req.Header.Set(c[3], c[4])
				}
				res, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				got = strconv.Itoa(res.StatusCode)
			}
		}
		cancel()
		if got != e[1] {
			t.Errorf("it gives %s: %s", got, e[0])
		}
	}
	if res, err := http.Get(regexp.MustCompile(`page to break things on +(\S+)`).FindStringSubmatch(text.String())[1]); err != nil || res.StatusCode != 200 {
		t.Errorf("the page: %v", err)
	}
}
