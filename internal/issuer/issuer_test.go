package issuer_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.yaml.in/yaml/v3"

	"zuplo-lambda-authorizer/internal/issuer"
	"zuplo-lambda-authorizer/internal/jwks"
	"zuplo-lambda-authorizer/internal/keycache"
	"zuplo-lambda-authorizer/internal/keycache/keytest"
)

func TestFetch(t *testing.T) {
	t.Parallel()
	good := string(keytest.Text("a"))
	big := func(n int) string { return good[:len(good)-1] + strings.Repeat(" ", n-len(good)) + "}" }
	for _, c := range []struct {
		name   string
		status int
		body   string
		err    string
	}{
		{"good", 200, good, ""},
		{"1 MiB", 200, big(1 << 20), ""},
		{"more than 1 MiB", 200, big(1<<20 + 1), "more than 1048576 bytes"},
		{"201", 201, good, "status 201"},
		{"404", 404, good, "status 404"},
		{"503", 503, good, "status 503"},
		{"redirect", 302, good, "status 302"},
		{"permanent redirect", 308, good, "status 308"},
		{"{}", 200, "{}", `no "keys" array`},
		{"null keys", 200, `{"keys":null}`, `no "keys" array`},
		{"HTML", 200, "<!DOCTYPE html>", "not a JSON object"},
		{"nothing", 200, "", "not a JSON object"},
		{"none usable", 200, `{"keys":[{"kty":"oct","kid":"s"}]}`, "none of its 1 keys"},
		{"gzip", 200, compressed(good), ""},
		{"more than 1 MiB in gzip", 200, compressed(big(1<<20 + 1)), "more than 1048576 bytes"},
		{"gzip that is none", 200, good, "reading the reply: gzip: invalid header"},
		{"Content-Encoding: br", 200, "\x1b\x03\x00", "reading the reply: it has a Content-Encoding that was not asked for: not a JSON object"},
		{"Content-Encoding: utf-8", 200, good, ""}, // a common mistake, which harms nobody
		{"Content-Encoding: utf-8, and nothing usable", 200, "{}", `not asked for: no "keys" array`},
		{"cut off", 200, "", "reading the reply: unexpected EOF"},
		{"reset", 0, "", "fetching: EOF"},
		{"a header beyond 64 KiB", 200, good, "exceeded 65536 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var paths, connections, resumed atomic.Int32
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				paths.Add(1)
				if r.TLS.DidResume {
					resumed.Add(1)
				}
				switch {
				case c.name == "reset":
					panic(http.ErrAbortHandler)
				case strings.HasPrefix(c.name, "a header"):
					w.Header().Set("X-Filler", strings.Repeat("x", 66<<10))
				case strings.Contains(c.name, "gzip"):
					w.Header().Set("Content-Encoding", "gzip")
				case strings.HasPrefix(c.name, "Content-Encoding: "):
					w.Header().Set("Content-Encoding", strings.Fields(c.name)[1])
				case c.name == "cut off":
					w.Header().Set("Content-Length", "100")
				case c.status/100 == 3:
					w.Header().Set("Location", "/elsewhere")
				}
				if r.ProtoMajor != 1 || r.Method != "GET" || r.Header.Get("Accept") != "application/jwk-set+json, application/json" ||
					r.Header.Get("Accept-Encoding") != "gzip" || r.UserAgent() != "zuplo-lambda-authorizer/"+issuer.Version {
					t.Errorf("%s by %s, %v", r.Method, r.Proto, r.Header)
				}
				w.WriteHeader(c.status)
				io.WriteString(w, c.body)
			}))
			srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
			srv.EnableHTTP2 = true
			srv.Config.ConnState = connCounter(&connections)
			srv.StartTLS()
			defer srv.Close()
			client := trusting(issuer.NewClient(false), srv)
			var log bytes.Buffer
			text := slog.New(slog.NewTextHandler(&log, nil))
			cache := cacheOf(srv.URL, client, text)
			err := cache.Start(t.Context())
			switch {
			case c.err == "" && err != nil:
				t.Error(err)
			case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), srv.URL)):
				t.Errorf("%v, want %s and %s", err, srv.URL, c.err)
			}
			if n := paths.Load(); n != 1 {
				t.Errorf("%d requests", n)
			}
			if line := log.String(); c.err != "" && !strings.Contains(line, srv.URL) || strings.Contains(line, `"x":"`) {
				t.Errorf("log: %s", line)
			}
			again := cacheOf(srv.URL, client, text)
			_ = again.Start(t.Context())
			if n := connections.Load(); c.err == "" && n != 2 {
				t.Errorf("%d connections for two fetches: one would not survive a freeze", n)
			}
			if n := resumed.Load(); c.err == "" && n != 1 {
				t.Errorf("%d of two TLS sessions were resumed: a handshake anew costs twice the CPU", n)
			}
		})
	}
}

func compressed(text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	io.WriteString(w, text)
	w.Close()
	return b.String()
}

// The version is written in three places, because neither the template nor the changelog can read the code. The tag is held to it
// when a release is built.
func TestVersion(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var template struct {
		Metadata struct {
			Application struct {
				SemanticVersion string `yaml:"SemanticVersion"`
			} `yaml:"AWS::ServerlessRepo::Application"`
		} `yaml:"Metadata"`
	}
	if err := yaml.Unmarshal(text, &template); err != nil || template.Metadata.Application.SemanticVersion != issuer.Version {
		t.Errorf("the template has version %q, %v; requests for keys say %q", template.Metadata.Application.SemanticVersion, err, issuer.Version)
	}
	changelog, err := os.ReadFile("../../CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	if first := regexp.MustCompile(`(?m)^## .*$`).FindString(string(changelog)); !regexp.MustCompile(`^## \[` + regexp.QuoteMeta(issuer.Version) + `\] - (Unreleased|\d{4}-\d\d-\d\d)$`).MatchString(first) {
		t.Errorf("the changelog begins with %q; requests for keys say %q", first, issuer.Version)
	}
}

func cacheOf(uri string, client *http.Client, log *slog.Logger) *keycache.Cache {
	return &keycache.Cache{
		Name: uri, Source: issuer.Source{URI: uri, Client: client, Now: time.Now, Log: log.With("uri", uri)},
		TTL: time.Minute, MaxStale: time.Hour, Now: time.Now, Rand: func() float64 { return 0 }, Log: log.With("uri", uri), Fetches: log.With("uri", uri),
	}
}

// trusting adds the server's certificate to those that a client trusts, and changes nothing else of its TLS: what it offers
// in the handshake is its own.
func trusting(client *http.Client, srv *httptest.Server) *http.Client {
	t := client.Transport.(*http.Transport)
	if t.TLSClientConfig == nil {
		t.TLSClientConfig = &tls.Config{}
	}
	t.TLSClientConfig.RootCAs = x509.NewCertPool()
	t.TLSClientConfig.RootCAs.AddCert(srv.Certificate())
	return client
}

// A reply is an HTTP transport that gives itself, as the body of a status, and notes that it was closed.
type reply struct {
	status int
	io.Reader
	closed bool
}

func (r *reply) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: r.status, Body: r}, nil
}

func (r *reply) Close() error { r.closed = true; return nil }

func TestReplyIsClosed(t *testing.T) {
	t.Parallel()
	for _, status := range []int{200, 503} {
		r := &reply{status: status, Reader: strings.NewReader(string(keytest.Text("a")))}
		if _, err := find(t, keytest.URI, &http.Client{Transport: r}); (err == nil) != (status == 200) || !r.closed {
			t.Errorf("%d: %v, closed: %v", status, err, r.closed)
		}
	}
}

// find asks the issuer, who may be asked.
func find(t *testing.T, uri string, client *http.Client) (keycache.Found, error) {
	t.Helper()
	return findWith(t.Context(), uri, client, slog.New(slog.DiscardHandler))
}

func findWith(ctx context.Context, uri string, client *http.Client, log *slog.Logger) (keycache.Found, error) {
	return issuer.Source{URI: uri, Client: client, Now: time.Now, Log: log}.Find(ctx, keycache.Want{
		Permit: func(leased bool) error {
			if leased {
				return errors.New("it has no lease")
			}
			return nil
		},
		Judge: func(text []byte) (*jwks.Set, error) { set, _, err := jwks.Parse(text); return set, err },
	})
}

// A fetch that is not permitted is not made, nor one that was given up meanwhile.
func TestNotPermitted(t *testing.T) {
	t.Parallel()
	no := errors.New("no")
	asked := func(*http.Request) (*http.Response, error) { t.Error("it was asked"); return nil, no }
	s := issuer.Source{URI: keytest.URI, Client: &http.Client{Transport: roundTripper(asked)}, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
	if found, err := s.Find(t.Context(), keycache.Want{Permit: func(bool) error { return no }}); err != no || !found.Asked.IsZero() {
		t.Errorf("%v at %v", err, found.Asked)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if found, err := s.Find(ctx, keycache.Want{Permit: func(bool) error { return nil }}); !errors.Is(err, context.Canceled) || !found.Asked.IsZero() {
		t.Errorf("%v at %v", err, found.Asked)
	}
}

// The monotonic clock stands still, or not, while the machine sleeps: ages must not come from it.
func TestWallClock(t *testing.T) {
	t.Parallel()
	found, err := find(t, keytest.URI, &http.Client{Transport: &reply{status: 200, Reader: strings.NewReader(string(keytest.Text("a")))}})
	if err != nil || strings.Contains(found.Sent.String(), " m=") || strings.Contains(found.Asked.String(), " m=") {
		t.Errorf("%v, asked %v, sent %v", err, found.Asked, found.Sent)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (r roundTripper) RoundTrip(q *http.Request) (*http.Response, error) { return r(q) }

// Other clients of the process keep what they have.
func TestNewClientIsApart(t *testing.T) {
	t.Parallel()
	issuer.NewClient(false)
	if d := http.DefaultTransport.(*http.Transport); d.DisableKeepAlives || d.Protocols != nil {
		t.Errorf("the default transport was changed: %+v", d)
	}
}

func connCounter(n *atomic.Int32) func(c net.Conn, s http.ConnState) {
	return func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			n.Add(1)
		}
	}
}

func TestSkippedKeysAreNamed(t *testing.T) {
	t.Parallel()
	body := []byte(strings.Replace(string(keytest.Text("a")), "[", `[{"kty":"oct","kid":"shared","k":"c2VjcmV0"},`, 1))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(body) }))
	defer srv.Close()
	var log bytes.Buffer
	cache := cacheOf(srv.URL, issuer.NewClient(false), slog.New(slog.NewTextHandler(&log, nil)))
	for range 2 {
		if _, _, err := cache.Keys(t.Context(), "unknown", "EdDSA"); err != nil {
			t.Fatal(err)
		}
	}
	want := fmt.Sprintf(`level=WARN msg="key skipped" uri=%s kty=oct kid=shared why="holds a private or symmetric key"`, srv.URL)
	if got := log.String(); strings.Count(got, want) != 1 || strings.Contains(got, "c2VjcmV0") {
		t.Errorf("log lacks %s once:\n%s", want, got)
	}
}

// What a bug of ours or of a library would do.
func TestPanicIsAFailedFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := keytest.New("a")
		var log bytes.Buffer
		buggy := roundTripper(func(*http.Request) (*http.Response, error) { panic("c2VjcmV0") })
		well := w.Source
		w.Source = issuer.Source{URI: keytest.URI, Client: &http.Client{Transport: buggy}, Now: w.Now, Log: slog.New(slog.NewJSONHandler(&log, nil)).With("uri", keytest.URI)}
		if err := w.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "panic of type string") {
			t.Errorf("%v", err)
		}
		if log := log.String(); !strings.Contains(log, `"level":"ERROR","msg":"panic while fetching keys","uri":"`+keytest.URI+`","stack":"goroutine `) ||
			!strings.Contains(log, "RoundTrip") || strings.Contains(log, "c2VjcmV0") {
			t.Errorf("log: %s", log)
		}
		w.Source = well
		if got := w.Ask(t.Context(), "a"); got != "fault" || w.Issuer.Requests() != 0 {
			t.Errorf("%s after %d requests: a back-off follows", got, w.Issuer.Requests())
		}
		time.Sleep(time.Second)
		if got := w.Ask(t.Context(), "a"); got != "key" {
			t.Errorf("%s after the back-off", got)
		}
	})
}

// A query may hold a secret: errors and the log name the URI without it.
func TestQueryIsNotTold(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"a", "503", "hang", "empty", "reset", "not a URL"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				uri := keytest.URI + "?key=c2VjcmV0"
				w := keytest.New(mode)
				if mode == "not a URL" {
					uri += "\x7f"
				}
				w.Name = issuer.Name(uri)
				w.Source = issuer.Source{URI: uri, Client: &http.Client{Transport: w.Issuer}, Now: w.Now, Log: w.Log}
				text := fmt.Sprint(w.Start(t.Context()))
				_, _, err := w.Keys(t.Context(), "b", "EdDSA")
				text += fmt.Sprint(err)
				time.Sleep(keycache.FetchTime)
				synctest.Wait()
				text += w.Lines()
				if !strings.Contains(text, keytest.URI) || strings.Contains(text, "c2VjcmV0") || strings.Contains(text, "panic") {
					t.Error(text)
				}
			})
		})
	}
}

// Nor is it where the answer holds it: net/http quotes whatever it cannot read.
func TestQueryInTheAnswerIsNotTold(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]string{
		"HTTP/1.1 302 Found\r\nLocation: https://login.example/%zz?from=c2VjcmV0\r\n\r\n":                    "fetching: failed to parse Location header",
		"GET /?key=c2VjcmV0 HTTP/1.1\r\n\r\n":                                                                "malformed HTTP status code",
		"HTTP/1.1 200 OK\r\nc2VjcmV0\r\n\r\n":                                                                "malformed MIME header: missing colon",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: c2VjcmV0\r\n\r\n":                                             "unsupported transfer encoding",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n1\r\n{\r\n0\r\nc2VjcmV0\r\n\r\n": "reading the reply: malformed MIME header: missing colon",
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				io.WriteString(conn, answer)
			}))
			defer srv.Close()
			_, err := find(t, srv.URL+"/?key=c2VjcmV0", issuer.NewClient(false))
			if err == nil || !strings.HasSuffix(err.Error(), want) {
				t.Errorf("%v, want %s", err, want)
			}
		})
	}
}

func TestCheckURL(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"https://issuer.example":                   "",
		"https://issuer.example:8443/a?b=c":        "",
		"http://localhost:9000/__zuplo":            "",
		"http://127.0.0.1/x":                       "",
		"http://127.8.9.10/x":                      "",
		"http://[::1]:80/x":                        "",
		"http://issuer.example":                    "not https",
		"http://localhost.example":                 "not https",
		"http://127.0.0.1.example":                 "not https",
		"http://127.0.0.1@issuer.example":          "not https",
		"ftp://localhost/":                         "not https",
		"https://user@issuer.example":              "userinfo",
		"https://user:password@issuer.example":     "userinfo",
		"https://user:password@issuer.example/a/b": "userinfo",
		"https://user@issuer.example/a?b=c":        "userinfo",
		"https://issuer.example/#":                 "fragment",
		"https://issuer.example/#a":                "fragment",
		"https://":                                 "host",
		"https://:443":                             "host",
		"issuer.example":                           "host",
		"/path":                                    "host",
		"":                                         "host",
		"https://issuer.example/%zz":               "not a URL",
		"https://issuer.example\n":                 "not a URL",
		"https://issuer.example/a ":                "a space",
		"https://issuer.example/a\u00a0":           "a space",
		"https://issuer.example/?a=b c":            "a space",
		`https://issuer.example/a"`:                "a quote",
		`https://issuer.example/a\b`:               "a backslash",
		"https://issuer.example/\u0085":            "a control character",
		"https://issuer.example/\u0080":            "a control character",
	} {
		err := issuer.CheckURL(text)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "password") {
			t.Errorf("the password is in %v", err)
		}
	}
}

// BenchmarkFetch fetches over TLS and parses a set of two keys, the server's half of the handshake included.
func BenchmarkFetch(b *testing.B) {
	var n atomic.Int32
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	set := strings.Replace(string(keytest.Text("a")), "[", `[{"kty":"RSA","kid":"r","e":"AQAB","n":"`+base64.RawURLEncoding.EncodeToString(key.N.Bytes())+`"},`, 1)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "%s%*s", set, n.Add(1)%100, "") // another text each time
	}))
	defer srv.Close()
	cache := cacheOf(srv.URL, trusting(issuer.NewClient(false), srv), slog.New(slog.DiscardHandler))
	cache.TTL = 1
	b.ReportAllocs()
	for b.Loop() {
		if err := cache.Start(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
