package main

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// A table is as much of DynamoDB as one environment of the authorizer needs for its shared keys, over TLS.
type table struct {
	endpoint string

	mu   sync.Mutex
	item map[string]any
}

func newTable(certificate tls.Certificate) (*table, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	t := &table{endpoint: "https://" + l.Addr().String()}
	server := &http.Server{Handler: t}
	go server.Serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{certificate}}))
	return t, nil
}

// holds puts a set into the table that was sent for right now. Nobody has the lease.
func (t *table) holds(set []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.item = map[string]any{
		"jwks": map[string]any{"B": base64.StdEncoding.EncodeToString(set)},
		"sent": map[string]any{"N": fmt.Sprint(time.Now().UnixMilli())},
	}
}

// leased reports whether somebody took the lease since.
func (t *table) leased() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.item["lease"] != nil
}

// ServeHTTP answers GetItem, and UpdateItem without looking at its condition.
func (t *table) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var call struct{ ExpressionAttributeValues map[string]any }
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(body, &call)
	}
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	if strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".GetItem") {
		_ = json.NewEncoder(w).Encode(map[string]any{"Item": t.item})
		return
	}
	for name, attribute := range map[string]string{":jwks": "jwks", ":sent": "sent", ":end": "lease"} {
		if v, given := call.ExpressionAttributeValues[name]; given {
			t.item[attribute] = v
		}
	}
	_, _ = io.WriteString(w, "{}")
}

// keySet is what the issuer publishes.
func (i *issuer) keySet() ([]byte, error) {
	r, err := http.Get(i.plain)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	return io.ReadAll(r.Body)
}
