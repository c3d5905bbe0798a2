// Package issuer fetches an issuer's key set over HTTP.
package issuer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"zuplo-lambda-authorizer/internal/keycache"
)

// Version is the authorizer's, which template.yaml publishes.
const Version = "1.0.0"

// UserAgent is what requests carry, because filters block the names of libraries.
const UserAgent = "zuplo-lambda-authorizer/" + Version

const maxBody = 1 << 20 // bytes of a JWKS reply

// A Source is the issuer itself, as a keycache.Source.
type Source struct {
	URI    string           // of the JWKS, which CheckURL accepts
	Client *http.Client     // such as NewClient's
	Now    func() time.Time // the wall clock
	Log    *slog.Logger
}

// Find fetches the key set if w permits it. It takes keycache.FetchTime at most.
func (s Source) Find(ctx context.Context, w keycache.Want) (found keycache.Found, err error) {
	if err = w.Permit(false); err == nil {
		err = ctx.Err() // replaced in the meantime
	}
	if err != nil {
		return found, err
	}
	ctx, cancel := context.WithTimeout(ctx, keycache.FetchTime)
	defer cancel()
	found.Asked = s.Now().Round(0)
	found.Sent = found.Asked
	err = keycache.Safely(s.Log, "fetching keys", func() (err error) {
		var encoded bool
		if found.Text, encoded, err = s.fetch(ctx); err != nil {
			return err
		}
		found.Set, err = w.Judge(found.Text)
		switch {
		case err != nil && encoded:
			return fmt.Errorf("reading the reply: it has a Content-Encoding that was not asked for: %w", err)
		case err != nil:
			return fmt.Errorf("reading the reply: %w", err)
		}
		return nil
	})
	return found, err
}

// fetch asks for the key set. encoded says that the reply claims a Content-Encoding: gzip, which net/http asks for, is undone
// here already. Its errors do not name the URI.
func (s Source) fetch(ctx context.Context) (body []byte, encoded bool, err error) {
	var step atomic.Value // what had no answer when the time was over: each has a cause of its own
	step.Store("connecting")
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		TLSHandshakeStart: func() { step.Store("in the TLS handshake") },
		WroteRequest:      func(httptrace.WroteRequestInfo) { step.Store("waiting for the answer") },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URI, nil)
	if err != nil {
		return nil, false, fmt.Errorf("fetching: %w", unquoted(err))
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	req.Header.Set("User-Agent", UserAgent)
	resp, err := s.Client.Do(req)
	if err != nil && ctx.Err() != nil {
		return nil, false, fmt.Errorf("fetching: %w while %s", ctx.Err(), step.Load())
	}
	if err != nil {
		return nil, false, fmt.Errorf("fetching: %w", unquoted(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, false, fmt.Errorf("fetching: status %d", resp.StatusCode)
	}
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return nil, false, fmt.Errorf("reading the reply: %w", unquoted(err))
	}
	if len(body) > maxBody {
		return nil, false, fmt.Errorf("reading the reply: more than %d bytes", maxBody)
	}
	return body, resp.Header.Get("Content-Encoding") != "", nil
}

// NewClient returns an HTTP client for keys: without redirects, because they are where the configuration says, and, unless
// it is to keep connections, without those, because they do not survive the freezing of the process.
func NewClient(keep bool) *http.Client {
	// The system's roots take milliseconds to parse, and crypto/tls does so when it meets the first certificate. Begun when a
	// connection over TLS does, that passes while the other side is waited for; crypto/x509 does it once.
	readRoots := sync.OnceFunc(func() { go x509.SystemCertPool() })
	return &http.Client{
		// Not a clone of the default one, which would offer HTTP/2. A transport with a TLS configuration of its own does not: for
		// a few requests per connection HTTP/2 would only cost CPU.
		Transport: &http.Transport{
			Proxy: func(r *http.Request) (*url.URL, error) { // asked right before a connection is made
				if r.URL.Scheme == "https" {
					readRoots()
				}
				return http.ProxyFromEnvironment(r)
			},
			// net/http would tell a refusal in the proxy's words, which say neither whose they are nor what they hold.
			OnProxyConnectResponse: func(_ context.Context, _ *url.URL, _ *http.Request, r *http.Response) error {
				if r.StatusCode == http.StatusOK {
					return nil
				}
				return &net.OpError{Op: "proxyconnect", Net: "tcp", Err: fmt.Errorf("status %d", r.StatusCode)}
			},
			TLSHandshakeTimeout:    keycache.FetchTime + time.Second, // net/http goes on with one that nobody waits for any more
			DisableKeepAlives:      !keep,
			MaxResponseHeaderBytes: 64 << 10,
			TLSClientConfig:        &tls.Config{ClientSessionCache: tls.NewLRUClientSessionCache(4)}, // the next handshake costs less
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// CheckURL says what is wrong with the URL of an issuer or a JWKS: it must be https, except on a loopback host, and
// have no userinfo or fragment. url.Parse takes a space or a quote in a path, which only a mistake puts there.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return errors.New("not a URL")
	case strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) || r == '"' || r == '\\' }):
		return errors.New("it holds a space, a quote, a backslash or a control character")
	case u.Hostname() == "":
		return errors.New("not an absolute URL with a host")
	case u.Scheme != "https" && !(u.Scheme == "http" && loopback(u.Hostname())):
		return errors.New("its scheme is not https")
	case u.User != nil:
		return errors.New("it holds userinfo")
	case u.Fragment != "" || text[len(text)-1] == '#':
		return errors.New("it holds a fragment")
	}
	return nil
}

func loopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// Name is a URI as errors and logs tell it: without its query, which may be a secret.
func Name(uri string) string {
	name, _, _ := strings.Cut(uri, "?")
	return name
}

// unquoted takes from an error of net/http's what may hold a secret of the URL's query: the whole URL, which stands
// before it, and what it quotes, because an answer may repeat the query.
func unquoted(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		err = e.Err
	}
	if text, _, quotes := strings.Cut(err.Error(), `"`); quotes {
		return errors.New(strings.TrimRight(text, ": "))
	}
	return err
}
