package lambdahost

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Function describes what a Host runs.
type Function struct {
	Name   string   // logical id; marks log lines
	Binary string   // the bootstrap
	Env    []string // KEY=value, on top of what Lambda itself sets; nothing is inherited

	Timeout     time.Duration // of an invocation, from the moment the event is handed out
	InitTimeout time.Duration // until the process first asks for an event; 0: 10 s
	IdleTimeout time.Duration // after which a frozen process is ended; 0: 10 min

	// Log gets each line of output, with the context of the invocation during which it was written, before that is answered;
	// nil: nobody wants them.
	Log func(ctx context.Context, line string)
}

// result is a function's answer, or with isError the error's JSON (errorMessage, errorType).
type result struct {
	payload []byte
	isError bool
}

// Counters say what a Host has done so far, and how many processes it has now.
type Counters struct {
	Invocations int `json:"invocations"`
	Starts      int `json:"starts"`
	Processes   int `json:"processes"`
	Aside       int `json:"-"` // of these
}

// Host runs the processes of one function.
type Host struct {
	fn      Function
	running sync.WaitGroup // one per process, one per log pipe

	mu          sync.Mutex // guards all below, and the processes' own state
	closed      bool
	live        map[*process]bool
	idle        []*process // frozen, the last used one at the end
	aside       []*process // frozen, and not to be used
	invocations int
	starts      int
}

// New starts nothing: the first invocation does, as Lambda has it.
func New(fn Function) *Host {
	fn.InitTimeout = cmp.Or(fn.InitTimeout, 10*time.Second)
	fn.IdleTimeout = cmp.Or(fn.IdleTimeout, 10*time.Minute)
	if abs, err := filepath.Abs(fn.Binary); err == nil {
		fn.Binary = abs // it is run in its own directory
	}
	if fn.Log == nil {
		fn.Log = func(context.Context, string) {}
	}
	return &Host{fn: fn, live: map[*process]bool{}}
}

// invocation is one event on its way through a process.
type invocation struct {
	ctx      context.Context // for its values
	id       string
	payload  []byte
	initOnly bool // over as soon as INIT is: there is no event to hand out

	handedOut bool
	answered  bool
	result    result
	done      chan struct{} // closed when the process has been frozen again, or is gone
}

// Invoke hands the event to a frozen process, or to a new one when there is none. It returns when that process is frozen
// again, so that the next invocation meets a process that stands still. Whatever goes wrong in the function is an answer,
// with isError the error's JSON (errorMessage, errorType); err says that it could not be started or that ctx ended. As with
// Lambda, the function then runs on to its deadline.
func (h *Host) Invoke(ctx context.Context, event []byte) (answer []byte, isError bool, err error) {
	res, err := h.run(ctx, &invocation{ctx: ctx, payload: event})
	return res.payload, res.isError, err
}

// Start takes a new process through INIT and leaves it frozen.
func (h *Host) Start(ctx context.Context) error {
	res, err := h.run(ctx, &invocation{ctx: ctx, initOnly: true})
	if err == nil && res.isError {
		return fmt.Errorf("starting %s: %s", h.fn.Name, res.payload)
	}
	return err
}

func (h *Host) run(ctx context.Context, inv *invocation) (result, error) {
	inv.id, inv.done = rand.Text(), make(chan struct{})
	if err := h.dispatch(inv); err != nil {
		return result{}, err
	}
	select {
	case <-inv.done:
		return inv.result, nil
	case <-ctx.Done():
		return result{}, fmt.Errorf("invoking %s: %w", h.fn.Name, ctx.Err())
	}
}

func (h *Host) dispatch(inv *invocation) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return errors.New("invoking " + h.fn.Name + ": its host is closed")
	}
	if !inv.initOnly {
		h.invocations++
		if n := len(h.idle); n > 0 {
			p := h.idle[n-1]
			h.idle = h.idle[:n-1]
			p.timer.Stop()
			p.current = inv
			p.work <- inv
			return nil
		}
	}
	if err := h.spawn(inv); err != nil {
		return fmt.Errorf("starting %s: %w", h.fn.Name, err)
	}
	return nil
}

// park completes the process's invocation; from here on the next one may have it.
func (h *Host) park(p *process) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p.ending || !h.live[p] {
		return // its exit completes the invocation
	}
	h.idle = append(h.idle, p)
	p.limit(h.fn.IdleTimeout, result{})
	close(p.current.done)
	p.current = nil
}

// Freeze keeps all processes that are frozen now from being used: the next invocation starts another, as it does while all are
// busy. With false they serve again, before the others.
func (h *Host) Freeze(on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if on {
		h.aside, h.idle = append(h.aside, h.idle...), nil
	} else {
		h.idle, h.aside = append(h.idle, h.aside...), nil
	}
}

// Recycle ends all processes and returns when they are gone. Invocations under way fail.
func (h *Host) Recycle() {
	h.mu.Lock()
	leaving := slices.Collect(maps.Keys(h.live))
	for _, p := range leaving {
		p.end(failed("Sandbox.Failure", "-", "the process was ended by its host"))
	}
	h.mu.Unlock()
	for _, p := range leaving {
		<-p.exited
	}
}

// Counters may be read at any time.
func (h *Host) Counters() Counters {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Counters{h.invocations, h.starts, len(h.live), len(h.aside)}
}

// PIDs are those of the processes that it has now, for who measures them.
func (h *Host) PIDs() (pids []int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for p := range h.live {
		pids = append(pids, p.os.Pid)
	}
	return pids
}

// Close ends all processes for good.
func (h *Host) Close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.Recycle()
	h.running.Wait()
}

func (h *Host) forget(p *process) {
	is := func(q *process) bool { return q == p }
	h.idle, h.aside = slices.DeleteFunc(h.idle, is), slices.DeleteFunc(h.aside, is)
}
