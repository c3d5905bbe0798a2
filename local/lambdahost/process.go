package lambdahost

import (
	"bufio"
	"context"
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
	out     *os.File         // where its output goes
	stopped chan struct{}    // the kernel says that it stands still
	marked  chan struct{}    // its output has been read as far as a mark
	quiet   chan struct{}    // its output has ended
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
	read, write, err := os.Pipe()
	if err != nil {
		ln.Close()
		return err
	}
	cmd.Stdout, cmd.Stderr = write, write
	if err := cmd.Start(); err != nil {
		ln.Close()
		read.Close()
		write.Close()
		return err
	}

	p := &process{
		host: h, os: cmd.Process, current: inv, out: write,
		work: make(chan *invocation, 1), stopped: make(chan struct{}, 1), exited: make(chan struct{}),
		marked: make(chan struct{}, 1), quiet: make(chan struct{}),
	}
	p.limit(h.fn.InitTimeout, timedOut(inv.id, h.fn.InitTimeout))
	p.api = &http.Server{Handler: p.runtimeAPI()}
	h.live[p] = true
	h.starts++
	go p.api.Serve(ln)
	h.running.Go(p.wait)
	h.running.Go(func() { p.copyLog(read) })
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
	p.out.Close()
	<-p.quiet

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
			h.fn.Log(inv.ctx, string(inv.result.payload)+"\n")
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

// freeze returns when the process stands still and all that it wrote has been read, or with false when it is gone.
func (p *process) freeze() bool {
	p.os.Signal(syscall.SIGSTOP)
	select {
	case <-p.stopped:
	case <-p.exited:
		return false
	}
	p.out.WriteString(mark)
	select {
	case <-p.marked:
		return true
	case <-p.exited:
		return false
	}
}

// mark is what the host writes behind a frozen process's output.
const mark = "\x00 frozen \x00\n"

func (p *process) copyLog(out *os.File) {
	defer close(p.quiet)
	defer out.Close()
	begun := "" // a line that the process was frozen in
	for r := bufio.NewReader(out); ; {
		line, err := r.ReadString('\n')
		line, frozen := strings.CutSuffix(begun+line, mark)
		if begun = ""; frozen {
			begun = line
			p.marked <- struct{}{}
		} else if line != "" {
			p.host.fn.Log(p.context(), line)
		}
		if err != nil {
			return
		}
	}
}

// context is that of the invocation under way.
func (p *process) context() context.Context {
	p.host.mu.Lock()
	defer p.host.mu.Unlock()
	if p.current == nil {
		return context.Background()
	}
	return p.current.ctx
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
