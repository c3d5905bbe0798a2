package lambdahost

import (
	"encoding/json"
	"net"
	"net/http"
)

// Control serves counters and cold starts of several functions under /_local, to loopback peers only.
func Control(hosts ...*Host) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /_local/functions", func(w http.ResponseWriter, r *http.Request) {
		all := map[string]Counters{}
		for _, h := range hosts {
			all[h.fn.Name] = h.Counters()
		}
		json.NewEncoder(w).Encode(all)
	})
	for _, h := range hosts {
		mux.HandleFunc("POST /_local/functions/"+h.fn.Name+"/recycle", func(w http.ResponseWriter, r *http.Request) {
			h.Recycle()
			w.Write([]byte("{}"))
		})
		mux.HandleFunc("POST /_local/functions/"+h.fn.Name+"/start", func(w http.ResponseWriter, r *http.Request) {
			answer := map[string]string{}
			if err := h.Start(r.Context()); err != nil {
				answer["error"] = err.Error()
				w.WriteHeader(http.StatusInternalServerError)
			}
			json.NewEncoder(w).Encode(answer)
		})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		if !net.ParseIP(host).IsLoopback() {
			http.Error(w, "loopback only", http.StatusForbidden)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		mux.ServeHTTP(w, r)
	})
}
