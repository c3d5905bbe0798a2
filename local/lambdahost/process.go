package lambdahost

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
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
	cause   result
}

// spawn starts a process for its first invocation. The caller holds host.mu.
func (h *Host) spawn(inv *invocation) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	cmd := exec.Command(h.fn.Binary)
	cmd.Dir = filepath.Dir(h.fn.Binary)
	cmd.Env = append(h.environment(ln.Addr().String()), h.fn.Env...)
	cmd.SysProcAttr = sysProcAttr()
	out, err := cmd.StdoutPipe()
	cmd.Stderr = cmd.Stdout
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		ln.Close()
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
	h.running.Go(p.wait)
	h.running.Go(func() { h.copyLog(out) })
	return nil
}

// wait follows the process until it is gone. It asks the kernel itself because exec.Cmd.Wait does not report stops.
func (p *process) wait() {
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(p.os.Pid, &status, syscall.WUNTRACED, nil)
		if err == nil && status.Stopped() {
			select {
			case p.stopped <- struct{}{}:
			default: // somebody else stopped it, too
			}
		} else if err != syscall.EINTR {
			break
		}
	}
	p.api.Close()

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
			inv.result = failed("Runtime.ExitError", inv.id, "Runtime exited with error: "+describe(status))
		}
		if inv.result.isError {
			h.log.Printf("%s", inv.result.payload)
		}
		close(inv.done)
	}
}

// limit replaces the process's time limit. The caller holds host.mu.
func (p *process) limit(d time.Duration, cause result) {
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
func (p *process) end(cause result) {
	if !p.ending {
		p.ending, p.cause = true, cause
		p.host.forget(p)
		p.os.Kill()
	}
}

// freeze returns when the process stands still, or with false when it is gone.
func (p *process) freeze() bool {
	p.os.Signal(syscall.SIGSTOP)
	select {
	case <-p.stopped:
		return true
	case <-p.exited:
		return false
	}
}

func (h *Host) copyLog(out io.ReadCloser) {
	defer out.Close()
	for r := bufio.NewReader(out); ; {
		line, err := r.ReadString('\n')
		if line != "" {
			h.log.Print(line)
		}
		if err != nil {
			return
		}
	}
}

// environment is the part of what Lambda sets for provided.al2023 that runtimes read.
func (h *Host) environment(api string) []string {
	return []string{
		"AWS_LAMBDA_RUNTIME_API=" + api,
		"AWS_LAMBDA_FUNCTION_NAME=" + h.fn.Name, "AWS_LAMBDA_FUNCTION_VERSION=$LATEST", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=128",
		"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local", "LAMBDA_TASK_ROOT=" + filepath.Dir(h.fn.Binary), "_HANDLER=bootstrap",
		"TZ=:UTC", "PATH=/usr/local/bin:/usr/bin:/bin",
	}
}

func timedOut(id string, after time.Duration) result {
	return failed("Sandbox.Timedout", id, fmt.Sprintf("Task timed out after %.2f seconds", after.Seconds()))
}

// failed is an error in Lambda's own words.
func failed(kind, id, what string) result {
	payload, _ := json.Marshal(map[string]string{"errorType": kind, "errorMessage": "RequestId: " + id + " Error: " + what})
	return result{payload, true}
}

func describe(s syscall.WaitStatus) string {
	if s.Signaled() {
		return "signal: " + s.Signal().String()
	}
	return fmt.Sprint("exit status ", s.ExitStatus())
}
