package lambdahost

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

// The test binary is the function, too: a Host starts it with FUNCTION=1.
func TestMain(m *testing.M) {
	if os.Getenv("FUNCTION") == "" {
		os.Exit(m.Run())
	}
	switch os.Getenv("INIT") {
	case "exit":
		os.Exit(7)
	case "hang":
		select {}
	case "error":
		url := "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime/init/error"
		http.Post(url, "application/json", strings.NewReader(`{"errorMessage":"no keys","errorType":"Init"}`))
		os.Exit(1)
	}
	lambda.Start(handle)
}

type event struct{ Do, Arg string }

func handle(ctx context.Context, e event) (any, error) {
	lc, _ := lambdacontext.FromContext(ctx)
	deadline, _ := ctx.Deadline()
	switch e.Do {
	case "error":
		return nil, errors.New(e.Arg)
	case "panic":
		panic(e.Arg)
	case "exit":
		os.Exit(3)
	case "exit0":
		os.Exit(0)
	case "hang":
		select {}
	case "sleep":
		d, _ := time.ParseDuration(e.Arg)
		time.Sleep(d)
	case "runtime API": // answers with the status
		method, path, _ := strings.Cut(e.Arg, " ")
		req, err := http.NewRequestWithContext(ctx, method, "http://"+os.Getenv("AWS_LAMBDA_RUNTIME_API")+"/2018-06-01/runtime"+path, strings.NewReader("{}"))
		if err != nil {
			return nil, err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, err
		}
		return nil, errors.New(res.Status)
	case "log":
		fmt.Fprintln(os.Stderr, "first\nsecond")
		fmt.Print("third") // no newline: written when the process ends
	case "tick":
		go tick(e.Arg)
	case "meet": // waits until as many processes as there are connections to it have arrived
		c, err := net.Dial("tcp", e.Arg)
		if err != nil {
			return nil, err
		}
		io.Copy(io.Discard, c)
	}
	return map[string]any{
		"pid": os.Getpid(), "id": lc.AwsRequestID, "arn": lc.InvokedFunctionArn, "left": time.Until(deadline).Seconds(),
		"name": os.Getenv("AWS_LAMBDA_FUNCTION_NAME"), "home": os.Getenv("HOME"), "extra": os.Getenv("EXTRA"),
	}, nil
}

// tick sends a datagram every millisecond, for as long as the process lives.
func tick(to string) {
	c, err := net.Dial("udp", to)
	if err != nil {
		panic(err)
	}
	for range time.Tick(time.Millisecond) {
		c.Write([]byte("tick"))
	}
}

func newHost(t *testing.T, change func(*Function)) *Host {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"FUNCTION=1", "EXTRA=given", "GOCOVERDIR=" + t.TempDir()} // a test binary built with -cover complains without it
	fn := Function{Name: "Fn", Binary: self, Env: env, Timeout: 20 * time.Second}
	if change != nil {
		change(&fn)
	}
	h := New(fn)
	t.Cleanup(h.Close)
	return h
}

func call(t *testing.T, h *Host, do, arg string) (result, error) {
	payload, _ := json.Marshal(event{do, arg})
	answer, isError, err := h.Invoke(t.Context(), payload)
	return result{answer, isError}, err
}

type reply struct {
	PID                    int
	ID, Arn                string
	Left                   float64
	Name, Home, Extra      string
	ErrorMessage, ErrorTyp string
}

func invoke(t *testing.T, h *Host, do, arg string) (result, reply) {
	t.Helper()
	res, err := call(t, h, do, arg)
	if err != nil {
		t.Fatal(err)
	}
	var rep reply
	if err := json.Unmarshal(res.payload, &rep); err != nil {
		t.Fatalf("%s: payload %q: %v", do, res.payload, err)
	}
	return res, rep
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not seen in 20 s: %s", what)
		}
	}
}

func TestInvoke(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	res, first := invoke(t, h, "", "")
	if res.isError || first.PID == 0 || first.PID == os.Getpid() {
		t.Fatalf("first answer: %+v", first)
	}
	if first.Name != "Fn" || first.Extra != "given" || first.Home != "" {
		t.Errorf("environment: %+v", first)
	}
	if first.ID == "" || first.Arn != "arn:aws:lambda:us-east-1:123456789012:function:Fn" {
		t.Errorf("context: %+v", first)
	}
	if first.Left < 10 || first.Left > 20 {
		t.Errorf("%v s left of 20", first.Left)
	}
	for range 5 {
		if _, next := invoke(t, h, "", ""); next.PID != first.PID || next.ID == first.ID {
			t.Errorf("invocation after another: %+v, the first was %+v", next, first)
		}
	}
	if got, want := h.Counters(), (Counters{Invocations: 6, Starts: 1, Processes: 1}); got != want {
		t.Errorf("counters %+v, want %+v", got, want)
	}
	if got := h.PIDs(); len(got) != 1 || got[0] != first.PID {
		t.Errorf("processes %v, want %d", got, first.PID)
	}
}

func TestFunctionErrors(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		do, arg string
		init    string
		timeout time.Duration
		want    string // the error message, or its end
		exact   bool
		starts  int // after one more, good, invocation
	}{
		"error":        {do: "error", arg: "Unauthorized", want: "Unauthorized", exact: true, starts: 1},
		"panic":        {do: "panic", arg: "ouch", want: "ouch", exact: true, starts: 2},
		"exit status":  {do: "exit", want: "Runtime exited with error: exit status 3", starts: 2},
		"exit 0":       {do: "exit0", want: "Runtime exited with error: exit status 0", starts: 2},
		"timeout":      {do: "hang", timeout: 300 * time.Millisecond, want: "Task timed out after 0.30 seconds", starts: 2},
		"init exits":   {init: "exit", want: "Runtime exited with error: exit status 7", starts: 2},
		"init error":   {init: "error", want: "no keys", exact: true, starts: 2},
		"init timeout": {init: "hang", want: "Task timed out after 1.50 seconds", starts: 2},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, func(fn *Function) {
				if tt.timeout > 0 {
					fn.Timeout = tt.timeout
				}
				if tt.init == "hang" {
					fn.InitTimeout = 1500 * time.Millisecond
				}
				fn.Env = append(fn.Env, "INIT="+tt.init)
			})
			res, _ := invoke(t, h, tt.do, tt.arg)
			var e struct{ ErrorMessage, ErrorType string }
			if err := json.Unmarshal(res.payload, &e); err != nil || !res.isError {
				t.Fatalf("result %q, function error %v: %v", res.payload, res.isError, err)
			}
			if !strings.HasSuffix(e.ErrorMessage, tt.want) || tt.exact && e.ErrorMessage != tt.want {
				t.Errorf("message %q, want %q", e.ErrorMessage, tt.want)
			}
			if e.ErrorType == "" {
				t.Error("no error type")
			}
			// A process that is to die by itself may be a moment behind its answer.
			if tt.starts == 2 {
				waitFor(t, "the process's end", func() bool { return h.Counters().Processes == 0 })
			}
			res, _ = invoke(t, h, "", "")
			if res.isError != (tt.init != "") {
				t.Errorf("afterwards: %q, function error %v", res.payload, res.isError)
			}
			if got := h.Counters().Starts; got != tt.starts {
				t.Errorf("%d starts, want %d", got, tt.starts)
			}
		})
	}
}

// Out of turn, a runtime gets no event and answers none.
func TestOutOfTurn(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	for _, request := range []string{"GET /invocation/next", "POST /invocation/other/response", "POST /invocation/other/error", "POST /init/error"} {
		if _, rep := invoke(t, h, "runtime API", request); rep.ErrorMessage != "403 Forbidden" {
			t.Errorf("%s: %q", request, rep.ErrorMessage)
		}
	}
}

func TestNotStarted(t *testing.T) {
	t.Parallel()
	h := newHost(t, func(fn *Function) { fn.Binary = t.TempDir() + "/bootstrap" })
	if _, _, err := h.Invoke(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "starting Fn: ") {
		t.Errorf("missing binary: %v", err)
	}
	h.Close()
	if _, _, err := h.Invoke(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("closed host: %v", err)
	}
}

// Both are in the function at once, so there must be two processes; afterwards both are reused.
func TestConcurrentInvocations(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	h := newHost(t, nil)
	pids := make(chan int, 2)
	for range 2 {
		go func() {
			res, err := call(t, h, "meet", ln.Addr().String())
			var rep reply
			if err == nil {
				err = json.Unmarshal(res.payload, &rep)
			}
			if err != nil || res.isError {
				t.Errorf("%s: %v", res.payload, err)
			}
			pids <- rep.PID
		}()
	}
	a, errA := ln.Accept()
	b, errB := ln.Accept()
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	a.Close()
	b.Close()
	first, second := <-pids, <-pids
	if first == second {
		t.Errorf("both ran in process %d", first)
	}
	if _, rep := invoke(t, h, "", ""); rep.PID != first && rep.PID != second {
		t.Errorf("process %d served the third, want %d or %d", rep.PID, first, second)
	}
	if got, want := h.Counters(), (Counters{Invocations: 3, Starts: 2, Processes: 2}); got != want {
		t.Errorf("counters %+v, want %+v", got, want)
	}
}

func TestFreeze(t *testing.T) {
	t.Parallel()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	buf := make([]byte, 16)
	// ticks counts datagrams until there is none for 200 ms, or until there are most.
	ticks := func(most int) (n int) {
		for ; n < most; n++ {
			pc.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			if _, _, err := pc.ReadFrom(buf); err != nil {
				return n
			}
		}
		return n
	}

	h := newHost(t, nil)
	if _, rep := invoke(t, h, "tick", pc.LocalAddr().String()); rep.PID == 0 {
		t.Fatal("no answer")
	}
	const many = 5000 // five seconds of them, more than a socket's buffer holds
	for round := range 3 {
		if n := ticks(many); n == many {
			t.Fatalf("round %d: it ticks while it should stand still", round)
		}
		invoke(t, h, "sleep", "50ms")
		if n := ticks(3); n < 3 {
			t.Fatalf("round %d: %d ticks in an invocation of 50 ms", round, n)
		}
	}
	if got := h.Counters().Starts; got != 1 {
		t.Errorf("%d starts, want 1", got)
	}
}

func TestIdleProcessesAreReaped(t *testing.T) {
	t.Parallel()
	h := newHost(t, func(fn *Function) { fn.IdleTimeout = 50 * time.Millisecond })
	_, first := invoke(t, h, "", "")
	waitFor(t, "no process", func() bool { return h.Counters().Processes == 0 })
	if _, second := invoke(t, h, "", ""); second.PID == first.PID {
		t.Error("the reaped process answered")
	}
}

func TestLog(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var log string
	type name struct{}
	h := newHost(t, func(fn *Function) {
		fn.Log = func(ctx context.Context, line string) {
			mu.Lock()
			defer mu.Unlock()
			log += fmt.Sprint(ctx.Value(name{})) + " | " + line
		}
	})
	for _, step := range []struct{ do, want string }{
		{"log", "log | first\nlog | second\n"}, // the third lacks its end
		{"log", "log | thirdfirst\nlog | second\n"},
		{"exit", "exit | third"},
		{"log", "log | first\nlog | second\n"},
		{"again", ""},
	} {
		payload, _ := json.Marshal(event{Do: step.do})
		if _, _, err := h.Invoke(context.WithValue(t.Context(), name{}, step.do), payload); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		if !strings.HasPrefix(log, step.want) || step.do == "exit" && !strings.Contains(log, "exit status 3") || step.do != "exit" && len(log) > len(step.want) {
			t.Errorf("%s: when it was answered the log had %q, want %q", step.do, log, step.want)
		}
		log = ""
		mu.Unlock()
	}
	h.Close()
	if log != "<nil> | third" {
		t.Errorf("at the end the log had %q", log)
	}
}

func TestFreezeSetsAside(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	_, first := invoke(t, h, "", "")
	h.Freeze(true)
	_, second := invoke(t, h, "", "")
	_, third := invoke(t, h, "", "")
	if second.PID == first.PID || third.PID != second.PID || h.Counters() != (Counters{Invocations: 3, Starts: 2, Processes: 2, Aside: 1}) {
		t.Errorf("processes %d, %d, %d, %+v", first.PID, second.PID, third.PID, h.Counters())
	}
	h.Freeze(false)
	if _, fourth := invoke(t, h, "", ""); fourth.PID != first.PID || h.Counters().Aside != 0 {
		t.Errorf("process %d, want the first again, %+v", fourth.PID, h.Counters())
	}
	h.Freeze(true)
	if h.Recycle(); h.Counters().Processes+h.Counters().Aside != 0 {
		t.Errorf("%+v, though all have ended", h.Counters())
	}
}

func TestCloseEndsInvocations(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	h := newHost(t, nil)
	got := make(chan result, 1)
	go func() {
		res, _ := call(t, h, "meet", ln.Addr().String())
		got <- res
	}()
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	h.Close()
	if res := <-got; !res.isError || !strings.Contains(string(res.payload), "ended by its host") {
		t.Errorf("result %q", res.payload)
	}
	if n := h.Counters().Processes; n != 0 {
		t.Errorf("%d processes left", n)
	}
}

// The caller may leave; the function's process stays usable.
func TestCallerLeaves(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	_, first := invoke(t, h, "", "")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, _, err := h.Invoke(ctx, []byte(`{"Do":"sleep","Arg":"200ms"}`)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	waitFor(t, "the process being idle again", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.idle) == 1
	})
	if _, rep := invoke(t, h, "", ""); rep.PID != first.PID {
		t.Errorf("process %d, want %d", rep.PID, first.PID)
	}
}

func TestControl(t *testing.T) {
	t.Parallel()
	good := newHost(t, nil)
	bad := newHost(t, func(fn *Function) { fn.Name, fn.Env = "Bad", append(fn.Env, "INIT=error") })
	srv := httptest.NewServer(Control(good, bad))
	defer srv.Close()

	send := func(method, path string) (int, string) {
		req, _ := http.NewRequest(method, srv.URL+path, nil)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return res.StatusCode, strings.TrimSpace(string(body))
	}
	steps := []struct {
		method, path string
		status       int
		want         string
	}{
		{"GET", "/_local/functions", 200, `{"Bad":{"invocations":0,"starts":0,"processes":0},"Fn":{"invocations":0,"starts":0,"processes":0}}`},
		{"POST", "/_local/functions/Fn/start", 200, ""},
		{"GET", "/_local/functions", 200, `{"Bad":{"invocations":0,"starts":0,"processes":0},"Fn":{"invocations":0,"starts":1,"processes":1}}`},
		{"POST", "/_local/functions/Fn/recycle", 200, ""},
		{"GET", "/_local/functions", 200, `{"Bad":{"invocations":0,"starts":0,"processes":0},"Fn":{"invocations":0,"starts":1,"processes":0}}`},
		{"POST", "/_local/functions/Bad/start", 500, `starting Bad: {"errorMessage":"no keys","errorType":"Init"}`},
		{"POST", "/_local/functions/Nobody/start", 404, "404 page not found"},
	}
	for _, s := range steps {
		if status, body := send(s.method, s.path); status != s.status || body != s.want {
			t.Fatalf("%s %s: %d %s, want %d %s", s.method, s.path, status, body, s.status, s.want)
		}
	}

	// A process that was started ahead serves the next invocation.
	send("POST", "/_local/functions/Fn/start")
	invoke(t, good, "", "")
	if got, want := good.Counters(), (Counters{Invocations: 1, Starts: 2, Processes: 1}); got != want {
		t.Errorf("counters %+v, want %+v", got, want)
	}
}
