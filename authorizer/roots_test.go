package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The system's roots are read while the connection to an https issuer is being made, and for no other issuer: they are
// in a pipe here, so that the test sees them read, and the issuer's certificate comes only afterwards.
func TestRootsAreReadWhileConnecting(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	must(err)
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			dialed, read, asked := make(chan struct{}, 10), make(chan struct{}), make(chan struct{}, 10)

			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, keySet()) }))
			srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
				if s == http.StateNew {
					dialed <- struct{}{}
				}
			}
			if scheme == "https" {
				srv.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
					select {
					case <-read:
					case <-ctx.Done():
					}
					return nil, nil
				}}
				srv.StartTLS()
			} else {
				srv.Start()
			}
			defer srv.Close()
			api := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				asked <- struct{}{}
				<-r.Context().Done() // there is no work
			}))
			defer api.Close()

			dir := t.TempDir()
			roots := filepath.Join(dir, "roots")
			must(syscall.Mkfifo(roots, 0o600))
			cmd := exec.CommandContext(ctx, self)
			var out bytes.Buffer
			cmd.Stdout = &out
			cmd.Env = []string{"AUTHORIZER_MAIN=1", "ISSUER=" + srv.URL, "AWS_LAMBDA_RUNTIME_API=" + api.Listener.Addr().String(),
				"SSL_CERT_FILE=" + roots, "SSL_CERT_DIR=" + dir + "/none", "GOCOVERDIR=" + dir}
			must(cmd.Start())
			defer cmd.Process.Kill()

			if scheme == "https" {
				opened := make(chan *os.File, 1)
				go func() {
					pipe, err := os.OpenFile(roots, os.O_WRONLY, 0) // returns when the roots are being read
					must(err)
					opened <- pipe
				}()
				var pipe *os.File
				select {
				case pipe = <-opened:
				case <-ctx.Done():
					reader, err := os.OpenFile(roots, os.O_RDONLY|syscall.O_NONBLOCK, 0) // the goroutine ends
					must(err)
					defer reader.Close()
					t.Fatal("the roots are not read before the issuer's certificate comes")
				}
				select {
				case <-dialed:
				case <-ctx.Done():
					t.Error("the roots are read although no connection is being made")
				}
				close(read)
				must(pem.Encode(pipe, &pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
				must(pipe.Close())
			}
			select {
			case <-asked:
			case <-ctx.Done():
				t.Fatal("it does not ask for work")
			}
			if scheme == "http" {
				if pipe, err := os.OpenFile(roots, os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
					pipe.Close()
					t.Error("the roots are read for an issuer that does without TLS")
				}
			}
			cancel()
			_ = cmd.Wait() // killed
			if !strings.Contains(out.String(), `"msg":"fetch"`) || strings.Contains(out.String(), `"error"`) {
				t.Errorf("it has no keys: %s", &out)
			}
		})
	}
}
