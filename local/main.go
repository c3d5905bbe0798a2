// Command local runs the whole path on this machine: a stand-in for Zuplo, one for API Gateway as template.yaml sets it
// up, and the two compiled functions behind Lambda's Runtime API.
//
// With a command after --, it runs that against the stack, and fails when it does.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"zuplo-lambda-authorizer/local/gateway"
	"zuplo-lambda-authorizer/local/journal"
	"zuplo-lambda-authorizer/local/lambdahost"
	"zuplo-lambda-authorizer/local/zuplo"
)

func main() {
	var o options
	flag.IntVar(&o.apiPort, "api-port", 8080, "port of the API; 0: any")
	flag.IntVar(&o.zuploPort, "zuplo-port", 9000, "port of the Zuplo stand-in; 0: any")
	flag.StringVar(&o.api, "api", "", "URL of a deployed API with its stage, in place of the local one")
	flag.StringVar(&o.zuplo.Alg, "alg", "EdDSA", "algorithm that forwarded requests' tokens are signed with")
	flag.StringVar(&o.zuplo.Tokens, "tokens", "fresh", "fresh: a token for each request; cached: one for many")
	flag.StringVar(&o.zuplo.Audience, "audience", audience(), "audience of the tokens")
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
	log := os.Getenv("LOG")
	if !slices.Contains([]string{"", "text", "json"}, log) {
		return fmt.Errorf("LOG is text or json, not %q", log)
	}
	o.zuplo.Journal = journal.New(os.Stderr, log)
	zuploAt, err := listen(o.zuploPort, "ZUPLO_PORT")
	if err != nil {
		return err
	}
	defer zuploAt.Close()
	front := fmt.Sprintf("http://%s", zuploAt.Addr())
	o.zuplo.Issuer = front + "/__zuplo/issuer"
	base, lambda, can := strings.TrimSuffix(o.api, "/"), "", "mint,rotate,outage"
	var local *api
	if base == "" {
		at, err := listen(o.apiPort, "API_PORT")
		if err != nil {
			return err
		}
		defer at.Close()
		if local, err = newAPI(at, &o.zuplo); err != nil {
			return err
		}
		defer local.close()
		url := fmt.Sprintf("http://%s/", at.Addr())
		base, lambda, can = url+local.stage, url+"_local", can+",freeze,count"
	}
	o.zuplo.Upstream = base
	zuploServer, err := zuplo.New(o.zuplo)
	if err != nil {
		return fmt.Errorf("setting up the Zuplo stand-in: %w", err)
	}
	defer zuploServer.Close()
	go zuploServer.Serve(zuploAt)
	if local != nil {
		if err := local.serve(ctx); err != nil {
			return err
		}
	}

	if len(command) == 0 {
		forged, err := forge(front)
		if err != nil {
			return err
		}
		fmt.Printf(greeting, front, base, o.zuplo.APIKey, o.zuplo.Header+": "+strings.TrimPrefix(o.zuplo.Prefix+" ", "none ")+forged)
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

// An api is the API as the template has it, its functions behind it.
type api struct {
	at                    net.Listener
	stage                 string
	server                *http.Server
	authorizer, protected *lambdahost.Host
}

// newAPI also tells the stand-in for Zuplo what it needs to know of the API and its authorizer.
func newAPI(at net.Listener, z *zuplo.Config) (*api, error) {
	env, err := settings(os.Environ())
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile("template.yaml")
	if err != nil {
		return nil, err
	}
	z.Header, z.Prefix = cmp.Or(os.Getenv("TOKEN_HEADER"), "Authorization"), cmp.Or(os.Getenv("TOKEN_PREFIX"), "Bearer")
	description, err := gateway.Parse(text, map[string]string{"TokenHeader": z.Header})
	if err != nil {
		return nil, fmt.Errorf("reading template.yaml: %w", err)
	}
	description.Authorizer.Expects = strings.TrimPrefix(z.Prefix+" JWT", "none ")
	if rules := os.Getenv("RULES"); rules != "" {
		description.Rest = &gateway.Route{Method: http.MethodGet, Path: "/protected", Function: "ProtectedFunction"}
		z.Rules = json.RawMessage(rules)
	}
	host := func(id, binary string, env []string) *lambdahost.Host {
		return lambdahost.New(lambdahost.Function{Name: id, Binary: binary, Env: env, Timeout: description.Timeouts[id],
			Log: func(ctx context.Context, line string) { z.Journal.Log(ctx, id, line) }})
	}
	a := &api{at: at, stage: description.Stage}
	a.authorizer = host("AuthorizerFunction", "build/authorizer/bootstrap", append(env, "ISSUER="+z.Issuer, "AUDIENCE="+cmp.Or(os.Getenv("AUDIENCE"), z.Audience)))
	a.protected = host("ProtectedFunction", "build/protected/bootstrap", nil)
	g, err := gateway.New(gateway.Config{
		API:       description,
		Functions: map[string]gateway.Invoke{"AuthorizerFunction": a.authorizer.Invoke, "ProtectedFunction": a.protected.Invoke},
		Now:       time.Now,
		Journal:   z.Journal,
	})
	if err != nil {
		return nil, err
	}
	z.Local = &zuplo.Local{
		State: func() (map[string]any, map[string]any) {
			n := a.authorizer.Counters()
			return map[string]any{"environments": n.Processes, "frozen": n.Aside > 0},
				map[string]any{"cached": g.Cached(), "ttl_s": description.Authorizer.TTL.Seconds(), "stage": a.stage}
		},
		Freeze: a.authorizer.Freeze, End: a.authorizer.Recycle, Flush: g.Flush,
	}
	mux := http.NewServeMux()
	mux.Handle("/_local/", lambdahost.Control(a.authorizer, a.protected))
	mux.Handle("/", g)
	a.server = &http.Server{Handler: mux}
	return a, nil
}

// serve starts the authorizer first: it judges its settings.
func (a *api) serve(ctx context.Context) error {
	if err := a.authorizer.Start(ctx); err != nil {
		return fmt.Errorf("%w\nThe lines above say which setting it refuses", err)
	}
	go a.server.Serve(a.at)
	return nil
}

func (a *api) close() {
	a.server.Close()
	a.authorizer.Close()
	a.protected.Close()
}

// forge has a token signed by a stranger's key, which is all that is wrong with it, for years.
func forge(front string) (string, error) {
	order := fmt.Sprintf(`{"foreign": true, "claims": {"exp": %d}}`, time.Now().AddDate(10, 0, 0).Unix())
	r, err := http.Post(front+"/__admin/mint", "application/json", strings.NewReader(order))
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	var minted struct{ Token string }
	return minted.Token, json.NewDecoder(r.Body).Decode(&minted)
}

const greeting = `
A page to break things on   %[1]s/
Zuplo stand-in              %[1]s/protected
API                         %[2]s/protected

Try:
  200, by way of Zuplo
    curl -i %[1]s/protected -H 'Authorization: Bearer %[3]s'
  401, a token whose signature is forged
    curl -i %[2]s/protected -H '%[4]s'
  200, with a new key, which the authorizer fetches
    curl -X POST %[1]s/__admin/rotate && curl -i %[1]s/protected -H 'Authorization: Bearer %[3]s'
  500, an environment that starts in an outage of the issuer; those that have keys answer 200 with them, until JWKS_MAX_STALE
    curl -X POST %[1]s/__admin/jwks -d '{"mode":"503"}' && curl -X POST %[1]s/__admin/environment
    curl -i %[1]s/protected -H 'Authorization: Bearer %[3]s'
  200 again, 10 s after the outage at the latest
    curl -X POST %[1]s/__admin/reset && sleep 10 && curl -i %[1]s/protected -H 'Authorization: Bearer %[3]s'
  what else can be broken
    curl %[1]s/__admin/

Ctrl-C ends everything.
`

func listen(port int, variable string) (net.Listener, error) {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("port %d is taken; another one: make run %s=%d", port, variable, port+1)
	}
	return l, err
}
