package lambdahost

import (
	"encoding/json"
	"net/http"
)

// Control serves counters and cold starts of several functions under /_local.
func Control(hosts ...*Host) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /_local/functions", func(w http.ResponseWriter, r *http.Request) {
		all := map[string]Counters{}
		for _, h := range hosts {
			all[h.fn.Name] = h.Counters()
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(all)
	})
	for _, h := range hosts {
		function := "POST /_local/functions/" + h.fn.Name
		mux.HandleFunc(function+"/recycle", func(http.ResponseWriter, *http.Request) { h.Recycle() })
		mux.HandleFunc(function+"/start", func(w http.ResponseWriter, r *http.Request) {
			if err := h.Start(r.Context()); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		})
	}
	return mux
}
