package jwks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"unicode"
)

const maxBody = 1 << 20 // bytes of a JWKS reply

// NewClient returns the HTTP client for a Cache: without keep-alives, for a connection does not survive the freezing
// of the process, and without redirects, for the JWKS is where the configuration says.
func NewClient() *http.Client {
	// Not a clone of the default one, which would go on offering HTTP/2 in the TLS handshake, and then not speak it.
	t := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: 64 << 10,
		Protocols:              new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true) // one request per connection: HTTP/2 would only cost CPU
	return &http.Client{
		Transport:     t,
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

// fetch asks for the key set at uri, which its errors do not name.
func fetch(ctx context.Context, client *http.Client, uri string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, uri, nil)
	if err != nil {
		return nil, fmt.Errorf("fetching: %w", unquoted(err))
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetching: %w", unquoted(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetching: status %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return nil, fmt.Errorf("reading the reply: %w", unquoted(err))
	}
	if len(body) > maxBody {
		return nil, fmt.Errorf("reading the reply: more than %d bytes", maxBody)
	}
	return body, nil
}

// unquoted takes from an error of net/http's what may hold a secret of the URL's query: the whole URL, which stands
// before it, and what it quotes, for an answer may repeat the query.
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
