package lambdahost

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Lambda's limit on a synchronous response, in bytes.
const maxResponse = 6 << 20

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
	if inv == nil || inv.answered != inv.handedOut { // an event without its answer, or an init error
		h.mu.Unlock()
		refuse(w, "InvalidStateTransition", "asking for the next event now")
		return
	}
	parks := inv.handedOut || inv.initOnly
	h.mu.Unlock()

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
		p.thaw()
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Lambda-Runtime-Aws-Request-Id", inv.id)
	header.Set("Lambda-Runtime-Deadline-Ms", fmt.Sprint(time.Now().Add(h.fn.Timeout).UnixMilli()))
	header.Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:123456789012:function:"+h.fn.Name)
	digits := strings.ReplaceAll(inv.id, "-", "")
	header.Set("Lambda-Runtime-Trace-Id", fmt.Sprintf("Root=1-%08x-%s;Parent=%s;Sampled=0", time.Now().Unix(), digits[:24], digits[16:]))
	w.Write(inv.payload)
}

// answer takes a response or an error. init/error has no id: it answers the invocation that the process was started for.
func (p *process) answer(isError bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxResponse))
		h := p.host
		h.mu.Lock()
		defer h.mu.Unlock()
		inv, id := p.current, r.PathValue("id")
		if err != nil || inv == nil || inv.answered || inv.handedOut != (id != "") || id != "" && id != inv.id {
			refuse(w, "InvalidRequestID", "answering "+id)
			return
		}
		inv.result, inv.answered = Result{body, isError}, true
		if id == "" {
			p.limit(time.Second, Result{}) // should it not exit by itself
		}
		w.WriteHeader(http.StatusAccepted)
		io.WriteString(w, `{"status":"OK"}`)
	}
}

func refuse(w http.ResponseWriter, kind, what string) {
	w.WriteHeader(http.StatusForbidden)
	fmt.Fprintf(w, `{"errorType":%q,"errorMessage":%q}`, kind, what)
}
