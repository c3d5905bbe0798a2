package main

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// Both functions run Go code on one CPU at a time, unless they are told otherwise. The runtime's own trace of its
// scheduler says so, once a millisecond, to standard error.
func TestOneCPU(t *testing.T) {
	t.Parallel()
	if runtime.NumCPU() == 1 {
		t.Skip("this machine has one CPU: it cannot tell a function that is held to one from one that is not")
	}
	for _, function := range []string{"authorizer", "protected"} {
		binary := filepath.Join(t.TempDir(), "bootstrap")
		if out, err := exec.CommandContext(t.Context(), "go", "build", "-tags", "lambda.norpc", "-o", binary, "../"+function).CombinedOutput(); err != nil {
			t.Fatalf("compiling %s: %v\n%s", function, err, out)
		}
		for _, c := range []struct {
			name string
			env  []string
			want int
		}{
			{"as deployed", nil, 1},
			{"empty is unset", []string{"GOMAXPROCS="}, 1},
			{"GOMAXPROCS is set", []string{"GOMAXPROCS=3"}, 3},
			{"one invocation at a time", []string{"AWS_LAMBDA_MAX_CONCURRENCY=1"}, 1},
			{"invocations at the same time", []string{"AWS_LAMBDA_MAX_CONCURRENCY=4"}, runtime.NumCPU()},
		} {
			t.Run(function+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				var working atomic.Bool
				srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					working.Store(strings.HasSuffix(r.URL.Path, "/invocation/next"))
					<-r.Context().Done() // there is no work
				}))
				defer srv.Close()
				cmd := exec.CommandContext(t.Context(), binary)
				cmd.Env = append(c.env, "GODEBUG=schedtrace=1", "AWS_LAMBDA_RUNTIME_API="+srv.Listener.Addr().String(),
					"ISSUER=https://issuer.example", "JWKS="+`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`)
				trace, err := cmd.StderrPipe()
				if err == nil {
					err = cmd.Start()
				}
				if err != nil {
					t.Fatal(err)
				}
				defer func() {
					cmd.Process.Kill()
					cmd.Wait()
				}()
				later := 0 // lines since it asked for work: the first may have waited to be read
				for lines := bufio.NewScanner(trace); lines.Scan(); {
					_, after, traced := strings.Cut(lines.Text(), "gomaxprocs=")
					if !traced || !working.Load() {
						continue
					}
					if later++; later == 50 {
						if got, _, _ := strings.Cut(after, " "); got != strconv.Itoa(c.want) {
							t.Errorf("it works with a GOMAXPROCS of %s, want %d", got, c.want)
						}
						return
					}
				}
				t.Fatal("it ended before it asked for work")
			})
		}
	}
}
