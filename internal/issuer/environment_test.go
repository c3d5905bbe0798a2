package issuer_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"zuplo-lambda-authorizer/internal/issuer"
	"zuplo-lambda-authorizer/internal/keycache"
	"zuplo-lambda-authorizer/internal/keycache/keytest"
)

// What Go's libraries take from the environment they take once in a process, so a process of its own fetches keys with
// the environment of each case. This is it.
func TestMain(m *testing.M) {
	uri := os.Getenv("FETCH")
	if uri == "" {
		os.Exit(m.Run())
	}
	_, err := findWith(context.Background(), uri, issuer.NewClient(false), slog.New(slog.NewTextHandler(os.Stdout, nil)))
	fmt.Print(err)
}

// fetchWith fetches from uri in an environment that holds these variables alone, and returns all that is printed: what is
// wrong, and the log.
func fetchWith(t *testing.T, uri string, environment ...string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), self)
	c.Env = append(environment, "FETCH="+uri, "GOCOVERDIR="+t.TempDir())
	out, err := c.CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	return string(out)
}

// privateIssuer serves keys over TLS with a certificate that only those trust who trust the file. Its address is one of
// this machine, but none that Go never uses a proxy for.
func privateIssuer(t *testing.T) (uri, file string, certificate tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true, IsCA: true,
		IPAddresses: []net.IP{net.IPv4zero, net.IPv4(127, 0, 0, 1)},
	}, &x509.Certificate{}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	file = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(keytest.Text("a")) }))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return strings.Replace(srv.URL, "127.0.0.1", "0.0.0.0", 1), file, certificate
}

const untrusted = "fetching: tls: failed to verify certificate: x509: certificate signed by unknown authority"

func TestPrivateCA(t *testing.T) {
	t.Parallel()
	uri, file, _ := privateIssuer(t)
	for _, row := range []struct{ variable, want string }{
		{"SSL_CERT_FILE=" + file, "<nil>"},
		{"SSL_CERT_FILE=", untrusted},
		{"SSL_CERT_FILE=" + file + ".absent", untrusted},
	} {
		if got := fetchWith(t, uri, row.variable); got != row.want {
			t.Errorf("%s: %s, want %s", row.variable, got, row.want)
		}
	}
}

// A function without a way to the internet fetches through a proxy. Whatever goes wrong there is told as the proxy's doing,
// and without its password.
func TestProxy(t *testing.T) {
	t.Parallel()
	uri, file, certificate := privateIssuer(t)
	const password = "c2VjcmV0"
	authorized := "Basic " + base64.StdEncoding.EncodeToString([]byte("user:"+password))
	asking := func(r *http.Request) string {
		if r.Header.Get("Proxy-Authorization") != authorized {
			return "407 Proxy Authentication Required"
		}
		return "200 OK"
	}
	for _, row := range []struct {
		what      string
		proxy     func(*http.Request) (status string)
		variables string // ADDRESS stands for the proxy's
		want      string
		asked     int32
	}{
		{"the password", asking, "HTTPS_PROXY=http://user:" + password + "@ADDRESS", "<nil>", 1},
		{"the variable in small letters", asking, "https_proxy=http://user:" + password + "@ADDRESS", "<nil>", 1},
		{"no scheme", asking, "HTTPS_PROXY=user:" + password + "@ADDRESS", "<nil>", 1},
		{"a proxy behind TLS", asking, "HTTPS_PROXY=https://user:" + password + "@ADDRESS", "<nil>", 1},
		{"a wrong password", asking, "HTTPS_PROXY=http://user:" + password + "x@ADDRESS", "fetching: proxyconnect tcp: status 407", 1},
		{"no password", asking, "HTTPS_PROXY=http://@ADDRESS", "fetching: proxyconnect tcp: status 407", 1},
		{"a proxy that repeats what it is told", func(r *http.Request) string { return "403 " + password + " " + authorized },
			"HTTPS_PROXY=http://user:" + password + "@ADDRESS", "fetching: proxyconnect tcp: status 403", 1},
		{"the same, in another way than HTTP's", func(r *http.Request) string { return password + " " + authorized },
			"HTTPS_PROXY=http://user:" + password + "@ADDRESS", "fetching: malformed HTTP status code", 1},
		{"a proxy for other schemes", asking, "HTTP_PROXY=http://user:" + password + "@ADDRESS", "<nil>", 0},
		{"nobody listens", asking, "HTTPS_PROXY=http://user:" + password + "@127.0.0.1:1",
			"fetching: proxyconnect tcp: dial tcp 127.0.0.1:1: connect: connection refused", 0},
		{"an exception", asking, "HTTPS_PROXY=http://user:" + password + "@ADDRESS NO_PROXY=a.example,0.0.0.0", "<nil>", 0},
	} {
		t.Run(row.what, func(t *testing.T) {
			t.Parallel()
			srv, asked := connectProxy(t, row.proxy)
			if strings.Contains(row.variables, "https://") {
				srv.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
				srv.StartTLS()
			} else {
				srv.Start()
			}
			variables := strings.Fields(strings.Replace(row.variables, "@ADDRESS", "@"+srv.Listener.Addr().String(), 1))
			got := fetchWith(t, uri, append(variables, "SSL_CERT_FILE="+file)...)
			if got != row.want || asked.Load() != row.asked {
				t.Errorf("%s after %d requests to the proxy, want %s after %d", got, asked.Load(), row.want, row.asked)
			}
		})
	}
}

// connectProxy answers CONNECT with the status that status returns, and forwards if it is 200. asked counts its requests.
func connectProxy(t *testing.T, status func(*http.Request) string) (srv *httptest.Server, asked *atomic.Int32) {
	t.Helper()
	asked = new(atomic.Int32)
	srv = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Method != http.MethodConnect {
			t.Errorf("it is asked to %s", r.Method)
		}
		down, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer down.Close()
		code := status(r)
		_, _ = io.WriteString(down, "HTTP/1.1 "+code+"\r\n\r\n")
		if code != "200 OK" {
			return
		}
		up, err := net.Dial("tcp", r.Host)
		if err != nil {
			t.Error(err)
			return
		}
		defer up.Close()
		go func() { _, _ = io.Copy(up, down) }()
		_, _ = io.Copy(down, up)
	}))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	t.Cleanup(srv.Close)
	return srv, asked
}

// A firewall that inspects TLS may drop a ClientHello that does not fit into one packet. Go's holds a post-quantum key,
// unless GODEBUG takes it out, as the runbook says.
func TestClientHello(t *testing.T) {
	t.Parallel()
	for godebug, fits := range map[string]bool{"": false, "tlsmlkem=0": true} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		size := make(chan int, 1)
		go func() {
			defer l.Close()
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			header := make([]byte, 5)
			if _, err := io.ReadFull(c, header); err == nil && header[0] == 22 { // a handshake's record
				size <- len(header) + int(binary.BigEndian.Uint16(header[3:]))
			}
			close(size)
		}()
		got := fetchWith(t, "https://"+l.Addr().String(), "GODEBUG="+godebug)
		if n := <-size; n == 0 || (n <= 1400) != fits {
			t.Errorf("with GODEBUG=%s the ClientHello has %d bytes (%s)", godebug, n, got)
		}
	}
}

// What has no answer is told: no way to the issuer, a firewall that drops the handshake and a slow issuer are mended in
// different places.
func TestNoAnswer(t *testing.T) {
	t.Parallel()
	for want, row := range map[string]struct {
		uri      string
		connects bool
	}{
		"connecting":             {"https://issuer.example/", false},
		"in the TLS handshake":   {"https://issuer.example/", true},
		"waiting for the answer": {"http://localhost/", true},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client := issuer.NewClient(false)
				transport := client.Transport.(*http.Transport)
				transport.Proxy = nil
				end := make(chan bool)
				defer close(end)
				transport.DialContext = func(context.Context, string, string) (net.Conn, error) {
					if !row.connects {
						<-end
						return nil, net.ErrClosed
					}
					near, far := net.Pipe()
					go func() { _, _ = io.Copy(io.Discard, far) }()
					return near, nil
				}
				begun := time.Now()
				_, err := find(t, row.uri, client)
				if took := time.Since(begun); fmt.Sprint(err) != "fetching: context deadline exceeded while "+want || took != keycache.FetchTime {
					t.Errorf("%v after %v", err, took)
				}
				time.Sleep(keycache.FetchTime) // whatever goes on for longer keeps the bubble from ending
			})
		})
	}
}
