package lambdahost

import (
	"fmt"
	"io"
	"net/http"
	"syscall"
	"time"
)

// runtimeAPI is what the process talks to (Lambda Developer Guide, "Using the Lambda runtime API").
func (p *process) runtimeAPI() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", p.next)
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/response", p.answer(false))
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/error", p.answer(true))
	mux.HandleFunc("POST /2018-06-01/runtime/init/error", p.answer(true))
	return mux
}

// next completes the invocation before, and answers when there is another one.
func (p *process) next(w http.ResponseWriter, r *http.Request) {
	h := p.host
	h.mu.Lock()
	inv := p.current
	ready := inv != nil && inv.answered == inv.handedOut // else an event lacks its answer, or INIT ended in an error
	parks := ready && (inv.handedOut || inv.initOnly)
	h.mu.Unlock()
	if !ready {
		http.Error(w, "there is no next event now", http.StatusForbidden)
		return
	}
	if parks {
		// Frozen first, parked afterwards: nobody meets it while it still runs.
		if !p.freeze() {
			return
		}
		h.park(p)
		select {
		case inv = <-p.work:
		case <-p.exited:
			return
		}
	}

	h.mu.Lock()
	inv.handedOut = true
	p.limit(h.fn.Timeout, timedOut(inv.id, h.fn.Timeout))
	h.mu.Unlock()
	if parks {
		p.os.Signal(syscall.SIGCONT)
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Lambda-Runtime-Aws-Request-Id", inv.id)
	header.Set("Lambda-Runtime-Deadline-Ms", fmt.Sprint(time.Now().Add(h.fn.Timeout).UnixMilli()))
	header.Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:123456789012:function:"+h.fn.Name)
	w.Write(inv.payload)
}

// answer takes a response or an error. init/error has no id: it answers the invocation that the process was started for.
func (p *process) answer(isError bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		h := p.host
		h.mu.Lock()
		defer h.mu.Unlock()
		inv, id := p.current, r.PathValue("id")
		if err != nil || inv == nil || inv.answered || inv.handedOut != (id != "") || id != "" && id != inv.id {
			http.Error(w, "there is no invocation "+id+" to answer", http.StatusForbidden)
			return
		}
		inv.result, inv.answered = result{body, isError}, true
		w.WriteHeader(http.StatusAccepted)
	}
}
