// Command local runs the whole path on this machine: a stand-in for Zuplo, one for API Gateway as template.yaml sets it
// up, and the two compiled functions behind Lambda's Runtime API.
//
// With a command after --, it runs that against the stack, and fails when it does.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"zuplo-lambda-authorizer/local/gateway"
	"zuplo-lambda-authorizer/local/lambdahost"
	"zuplo-lambda-authorizer/local/zuplo"
)

// handedOn are the authorizer's variables that are taken over from this process's environment.
var handedOn = []string{"ALGORITHMS", "LEEWAY", "MAX_TOKEN_AGE", "PRINCIPAL_CLAIM", "JWKS_TTL", "JWKS_MAX_STALE", "JWKS_TABLE",
	"AWS_ENDPOINT_URL_DYNAMODB", "POLICY_EXPIRY", "LOG_LEVEL"}

func main() {
	var o options
	flag.IntVar(&o.apiPort, "api-port", 8080, "port of the API; 0: any")
	flag.IntVar(&o.zuploPort, "zuplo-port", 9000, "port of the Zuplo stand-in; 0: any")
	flag.StringVar(&o.api, "api", "", "URL of a deployed API with its stage, in place of the local one")
	flag.StringVar(&o.zuplo.Alg, "alg", "EdDSA", "algorithm that forwarded requests' tokens are signed with")
	flag.StringVar(&o.zuplo.Tokens, "tokens", "fresh", "fresh: a token for each request; cached: one for many")
	flag.StringVar(&o.zuplo.Audience, "audience", "aws-origin", "audience of the tokens")
	flag.DurationVar(&o.zuplo.ExpiresIn, "expires-in", time.Hour, "life of a token")
	flag.StringVar(&o.zuplo.APIKey, "api-key", "YOUR_API_KEY", "API key that callers send")
	flag.StringVar(&o.zuplo.KeysFile, "keys", "", "file that keeps the issuer's private keys from one run to the next")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, flag.Args())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "local:", err)
		os.Exit(1)
	}
}

type options struct {
	apiPort, zuploPort int
	api                string
	zuplo              zuplo.Config
}

// run starts the stack, then runs command, or waits for ctx's end without one. Everything is ended when it returns.
func run(ctx context.Context, o options, command []string) error {
	zuploAt, err := listen(o.zuploPort, "ZUPLO_PORT")
	if err != nil {
		return err
	}
	defer zuploAt.Close()
	front := fmt.Sprintf("http://%s", zuploAt.Addr())
	o.zuplo.Issuer = front + "/__zuplo/issuer"
	base, lambda, can := strings.TrimSuffix(o.api, "/"), "", "mint,rotate,outage"
	if base == "" {
		at, err := listen(o.apiPort, "API_PORT")
		if err != nil {
			return err
		}
		defer at.Close()
		stage, stop, err := serveAPI(at, o.zuplo)
		if err != nil {
			return err
		}
		defer stop()
		api := fmt.Sprintf("http://%s/", at.Addr())
		base, lambda, can = api+stage, api+"_local", can+",freeze,count"
	}
	o.zuplo.Upstream = base
	zuploServer, err := zuplo.New(o.zuplo)
	if err != nil {
		return fmt.Errorf("setting up the Zuplo stand-in: %w", err)
	}
	defer zuploServer.Close()
	go zuploServer.Serve(zuploAt)

	if len(command) == 0 {
		fmt.Printf(greeting, front, base, o.zuplo.APIKey)
		<-ctx.Done()
		return nil
	}
	c := exec.CommandContext(ctx, command[0], command[1:]...)
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = 10 * time.Second
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	c.Env = append(os.Environ(), "BASE_URL="+base, "ZUPLO_URL="+front, "ZUPLO_API_KEY="+o.zuplo.APIKey,
		"ISSUER="+o.zuplo.Issuer, "AUDIENCE="+o.zuplo.Audience, "ADMIN_URL="+front+"/__admin",
		"LAMBDA_URL="+lambda, "TARGET="+cmp.Or(os.Getenv("TARGET"), "local"), "TARGET_CAN="+cmp.Or(os.Getenv("TARGET_CAN"), can))
	return c.Run()
}

// serveAPI serves the API as the template has it, its functions behind it, until stop is called.
func serveAPI(at net.Listener, issuer zuplo.Config) (stage string, stop func(), err error) {
	text, err := os.ReadFile("template.yaml")
	if err != nil {
		return "", nil, err
	}
	api, err := gateway.Parse(text)
	if err != nil {
		return "", nil, fmt.Errorf("reading template.yaml: %w", err)
	}
	env := []string{"ISSUER=" + issuer.Issuer, "AUDIENCE=" + cmp.Or(os.Getenv("AUDIENCE"), issuer.Audience)}
	for _, name := range handedOn {
		if v := os.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	host := func(id, binary string, env []string) *lambdahost.Host {
		return lambdahost.New(lambdahost.Function{Name: id, Binary: binary, Env: env, Timeout: api.Timeouts[id], Log: os.Stderr})
	}
	authorizer := host("AuthorizerFunction", "build/authorizer/bootstrap", env)
	protected := host("ProtectedFunction", "build/protected/bootstrap", nil)
	g, err := gateway.New(gateway.Config{
		API:       api,
		Functions: map[string]gateway.Invoke{"AuthorizerFunction": authorizer.Invoke, "ProtectedFunction": protected.Invoke},
		Now:       time.Now,
		Log:       log.New(os.Stderr, "[gateway] ", 0),
	})
	if err != nil {
		return "", nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/_local/", lambdahost.Control(authorizer, protected))
	mux.Handle("/", g)
	server := &http.Server{Handler: mux}
	go server.Serve(at)
	return api.Stage, func() { server.Close(); authorizer.Close(); protected.Close() }, nil
}

const greeting = `
Zuplo stand-in  %[1]s
API             %[2]s/protected

Try:
  curl -i %[1]s/protected -H 'Authorization: Bearer %[3]s'
  curl -i %[2]s/protected -H 'Authorization: Bearer eyJhbGciOiJFZERTQSIsImtpZCI6ImVkZHNhLTEifQ.eyJzdWIiOiJtYWxsb3J5In0.AAAA'
  curl -X POST %[1]s/__admin/rotate && curl %[1]s/protected -H 'Authorization: Bearer %[3]s'

Ctrl-C ends everything.
`

func listen(port int, variable string) (net.Listener, error) {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("port %d is taken; another one: make run %s=%d", port, variable, port+1)
	}
	return l, err
}
