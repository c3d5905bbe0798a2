package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"zuplo-lambda-authorizer/local/zuplo"
)

const (
	audience = "aws-origin"
	roots    = 144                   // as many as Mozilla's list has
	away     = 10 * time.Millisecond // to the issuer that is not next door
)

// An issuer is the stand-in for Zuplo, which publishes one key for EdDSA and one for RS256.
type issuer struct {
	server           *http.Server
	name             string
	plain, near, far string // where its keys are: over plain HTTP, over TLS, and over TLS from further away
	rootsFile        string // that its certificate is signed by one of
	noRoots          string // an empty folder
	table            *table // of shared keys
}

func newIssuer(dir string) (*issuer, error) {
	i := &issuer{name: "https://bench.zuplo.app/__zuplo/issuer", rootsFile: filepath.Join(dir, "roots.pem"), noRoots: filepath.Join(dir, "none")}
	var err error
	i.server, err = zuplo.New(zuplo.Config{APIKey: "none", Alg: "EdDSA", Tokens: "fresh", Audience: audience, ExpiresIn: time.Hour, Issuer: i.name})
	if err != nil {
		return nil, err
	}
	for _, alg := range zuplo.Algorithms {
		if alg == "EdDSA" || alg == "RS256" {
			continue
		}
		if err := i.admin("withdraw", fmt.Sprintf(`{"kid":"%s-1"}`, strings.ToLower(alg)), nil); err != nil {
			return nil, err
		}
	}
	if err := os.Mkdir(i.noRoots, 0o755); err != nil {
		return nil, err
	}
	certificate, err := certify(i.rootsFile)
	if err != nil {
		return nil, fmt.Errorf("making certificates: %w", err)
	}
	for _, at := range []struct {
		scheme string
		away   time.Duration
		url    *string
	}{{"http", 0, &i.plain}, {"https", 0, &i.near}, {"https", away, &i.far}} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		*at.url = fmt.Sprintf("%s://%s/__zuplo/issuer/.well-known/jwks.json", at.scheme, l.Addr())
		l = distant{l, at.away}
		if at.scheme == "https" {
			l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{certificate}})
		}
		go i.server.Serve(l)
	}
	i.table, err = newTable(certificate)
	return i, err
}

// admin asks the stand-in's admin API.
func (i *issuer) admin(what, body string, answer any) error {
	r := httptest.NewRequest(http.MethodPost, "/__admin/"+what, strings.NewReader(body))
	r.RemoteAddr, r.Host = "127.0.0.1:1", "127.0.0.1:1"
	w := httptest.NewRecorder()
	i.server.Handler.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		return fmt.Errorf("asking the issuer to %s: status %d, %s", what, w.Code, w.Body)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(w.Body.Bytes(), answer)
}

// event is what API Gateway sends for a token that the stand-in mints as order says.
func (i *issuer) event(order string) ([]byte, error) {
	var minted struct{ Token string }
	err := i.admin("mint", order, &minted)
	return []byte(`{"type":"TOKEN","authorizationToken":"Bearer ` + minted.Token +
		`","methodArn":"arn:aws:execute-api:us-east-1:123456789012:abcdef1234/v1/GET/protected"}`), err
}

// events are n with distinct tokens.
func (i *issuer) events(alg string, n int) (list [][]byte, err error) {
	for range n {
		e, err := i.event(`{"alg":"` + alg + `"}`)
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, nil
}

// certify writes the roots, two thirds of them with RSA keys of 4,096 bits, as the public ones, and the last of which has
// signed the certificate.
func certify(rootsFile string) (c tls.Certificate, err error) {
	large, err := rsa.GenerateKey(rand.Reader, 4096)
	if err != nil {
		return c, err
	}
	small, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return c, err
	}
	var file bytes.Buffer
	var root *x509.Certificate
	var key crypto.Signer
	for n := range roots {
		key = large
		if n%3 == 2 {
			key = small
		}
		root = &x509.Certificate{
			SerialNumber: big.NewInt(int64(n + 1)), Subject: pkix.Name{Country: []string{"US"}, Organization: []string{"Bench Trust Services"}, CommonName: fmt.Sprint("Bench Root CA ", n+1)},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}
		der, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
		if err != nil {
			return c, err
		}
		if err := pem.Encode(&file, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
			return c, err
		}
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return c, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(roots + 1), Subject: pkix.Name{CommonName: "issuer"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, root, leafKey.Public(), key)
	if err != nil {
		return c, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: leafKey}, os.WriteFile(rootsFile, file.Bytes(), 0o644)
}

// distant is a listener whose connections are read from only after as long as a network takes there and back, each time
// that it is the other side's turn.
type distant struct {
	net.Listener
	away time.Duration
}

func (d distant) Accept() (net.Conn, error) {
	c, err := d.Listener.Accept()
	return &distantConn{Conn: c, away: d.away, turn: true}, err
}

type distantConn struct {
	net.Conn
	away time.Duration
	turn bool
}

func (c *distantConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.turn && n > 0 {
		time.Sleep(c.away)
		c.turn = false
	}
	return n, err
}

func (c *distantConn) Write(b []byte) (int, error) {
	c.turn = true
	return c.Conn.Write(b)
}
