package lambdahost

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// process is one execution environment. Its state is guarded by host.mu.
type process struct {
	host    *Host
	os      *os.Process
	api     *http.Server
	work    chan *invocation // the event for the pending request for one
	stopped chan struct{}    // the kernel says that it stands still
	exited  chan struct{}

	current *invocation // nil while idle
	timer   *time.Timer // ends INIT, the invocation or the idling, whichever it is in
	ending  bool        // has been killed, for this cause
	cause   Result
}

// spawn starts a process for its first invocation. The caller holds host.mu.
func (h *Host) spawn(inv *invocation) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	out, in, err := os.Pipe()
	if err != nil {
		ln.Close()
		return err
	}
	defer in.Close()

	cmd := exec.Command(h.fn.Binary)
	cmd.Dir = filepath.Dir(h.fn.Binary)
	cmd.Env = append(h.environment(ln.Addr().String()), h.fn.Env...)
	cmd.Stdout, cmd.Stderr = in, in
	cmd.SysProcAttr = sysProcAttr()
	if err := cmd.Start(); err != nil {
		ln.Close()
		out.Close()
		return err
	}

	p := &process{
		host: h, os: cmd.Process, current: inv,
		work: make(chan *invocation, 1), stopped: make(chan struct{}, 1), exited: make(chan struct{}),
	}
	p.limit(h.fn.InitTimeout, timedOut(inv.id, h.fn.InitTimeout))
	p.api = &http.Server{Handler: p.runtimeAPI()}
	h.live[p] = true
	h.starts++
	go p.api.Serve(ln)
	h.running.Go(func() { p.wait(out) })
	h.running.Go(func() { h.copyLog(out) })
	return nil
}

// wait follows the process until it is gone. It asks the kernel itself because exec.Cmd.Wait does not report stops.
func (p *process) wait(out *os.File) {
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(p.os.Pid, &status, syscall.WUNTRACED, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || !status.Stopped() {
			break
		}
		select {
		case p.stopped <- struct{}{}:
		default:
		}
	}
	p.api.Close()
	out.SetReadDeadline(time.Now().Add(time.Second)) // should a child of its still hold the pipe

	h := p.host
	h.mu.Lock()
	defer h.mu.Unlock()
	p.timer.Stop()
	delete(h.live, p)
	h.forget(p)
	close(p.exited)
	if inv := p.current; inv != nil {
		p.current = nil
		switch {
		case inv.answered:
		case p.ending:
			inv.result = p.cause
		default:
			inv.result = exitedWith(inv.id, status)
		}
		if inv.result.FunctionError {
			h.logLine(string(inv.result.Payload))
		}
		close(inv.done)
	}
}

// limit replaces the process's time limit. The caller holds host.mu.
func (p *process) limit(d time.Duration, cause Result) {
	if p.timer != nil {
		p.timer.Stop()
	}
	var t *time.Timer
	t = time.AfterFunc(d, func() {
		p.host.mu.Lock()
		defer p.host.mu.Unlock()
		if p.timer == t { // else it fired while it was being replaced
			p.end(cause)
		}
	})
	p.timer = t
}

// end kills the process; an invocation under way then has cause for its result, unless it was answered already.
// The caller holds host.mu.
func (p *process) end(cause Result) {
	if !p.ending {
		p.ending, p.cause = true, cause
		p.host.forget(p)
		p.os.Kill()
	}
}

// freeze returns when the process stands still, or with false when it is gone.
func (p *process) freeze() bool {
	select {
	case <-p.stopped: // of somebody else's making
	default:
	}
	p.os.Signal(syscall.SIGSTOP)
	select {
	case <-p.stopped:
		return true
	case <-p.exited:
		return false
	}
}

func (p *process) thaw() { p.os.Signal(syscall.SIGCONT) }

func (h *Host) copyLog(out *os.File) {
	defer out.Close()
	for r := bufio.NewReader(out); ; {
		line, err := r.ReadString('\n')
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			h.logLine(line)
		}
		if err != nil {
			return
		}
	}
}

// environment is what Lambda sets for provided.al2023, credentials aside.
func (h *Host) environment(api string) []string {
	dir := filepath.Dir(h.fn.Binary)
	return []string{
		"AWS_LAMBDA_RUNTIME_API=" + api,
		"AWS_LAMBDA_FUNCTION_NAME=" + h.fn.Name, "AWS_LAMBDA_FUNCTION_VERSION=$LATEST",
		fmt.Sprint("AWS_LAMBDA_FUNCTION_MEMORY_SIZE=", h.fn.MemoryMB), "AWS_LAMBDA_INITIALIZATION_TYPE=on-demand",
		"AWS_LAMBDA_LOG_GROUP_NAME=/aws/lambda/" + h.fn.Name, "AWS_LAMBDA_LOG_STREAM_NAME=local",
		"AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1",
		"LAMBDA_TASK_ROOT=" + dir, "LAMBDA_RUNTIME_DIR=" + dir, "_HANDLER=bootstrap",
		"LANG=en_US.UTF-8", "TZ=:UTC", "PATH=/usr/local/bin:/usr/bin:/bin",
	}
}

func timedOut(id string, after time.Duration) Result {
	return failed("Sandbox.Timedout", id, fmt.Sprintf("Task timed out after %.2f seconds", after.Seconds()))
}

func exitedWith(id string, status syscall.WaitStatus) Result {
	what := "Runtime exited without providing a reason"
	if status.Signaled() {
		what = fmt.Sprintf("Runtime exited with error: signal: %v", status.Signal())
	} else if status.ExitStatus() != 0 {
		what = fmt.Sprintf("Runtime exited with error: exit status %d", status.ExitStatus())
	}
	return failed("Runtime.ExitError", id, what)
}

// failed is an error in Lambda's own words.
func failed(kind, id, what string) Result {
	payload, _ := json.Marshal(map[string]string{"errorType": kind, "errorMessage": "RequestId: " + id + " Error: " + what})
	return Result{payload, true}
}

// newID is a random UUID (RFC 9562 §5.4), as request ids are.
func newID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
