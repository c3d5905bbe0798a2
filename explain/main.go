// Command explain says, check by check, why the authorizer would take a token or not. The token comes on standard input, the
// authorizer's variables from the environment or from a file.
//
// It judges by the authorizer's own code and fetches the keys from the issuer as the authorizer does, from the machine that
// it runs on. It never opens the table of shared keys. The exit status is 0 for a token that is allowed, 1 for one that is
// refused, and 2 where that could not be known.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"zuplo-lambda-authorizer/internal/config"
)

const usage = `usage: explain [flags] < token

Why would the authorizer refuse this token? The token comes on standard input: alone, or as the header's value
(Bearer ...). The authorizer's variables (ISSUER, AUDIENCE, ...) come from the environment, or with -env from a file.

`

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Getenv))
}

// Exit statuses.
const (
	allowed = 0
	refused = 1
	unknown = 2 // or wrong use
)

// An order is what the command line asks for.
type order struct {
	file, function   string
	kind, route, api string
	at               string
	jwks, json       bool
}

func run(args []string, stdin io.Reader, stdout, stderr io.Writer, getenv func(string) string) int {
	var o order
	f := flag.NewFlagSet("explain", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprint(stderr, usage)
		f.PrintDefaults()
	}
	f.StringVar(&o.file, "env", "", "take the variables from `FILE`: of sam local's form, or what aws lambda get-function-configuration prints")
	f.StringVar(&o.function, "function", "", "the function in that file, by its logical `ID`, where several have an issuer")
	f.StringVar(&o.kind, "kind", "rest-token", "`KIND` of API: "+kindNames())
	f.StringVar(&o.route, "route", "", "the `ROUTE` that is asked for, as 'GET /orders/7', where rules decide")
	f.StringVar(&o.api, "api", "local12345", "the API's `ID`, where rules name some")
	f.StringVar(&o.at, "at", "", "judge as if it were that `TIME`, as 2026-11-26T08:00:00Z")
	f.BoolVar(&o.jwks, "jwks", false, "look at the issuer alone, without a token")
	f.BoolVar(&o.json, "json", false, "print one JSON object")
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		return allowed
	} else if err != nil {
		return unknown
	}
	wrong := func(err error) int {
		fmt.Fprintln(stderr, "explain:", err)
		return unknown
	}
	if f.NArg() > 0 {
		return wrong(errors.New("a token is taken from standard input, not from the command line, which others on this machine can read: explain < FILE"))
	}
	s, err := readSettings(o, getenv)
	if err != nil {
		return wrong(err)
	}
	r := &report{Notes: s.notes, Checks: []check{}, Keys: []key{}}
	c, err := config.Read(s.getenv)
	if err != nil {
		r.misconfigured(err)
	} else {
		e, err := newExplainer(c, s.getenv("RULES"), o, r)
		if err != nil {
			return wrong(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if o.jwks {
			e.issuers(ctx)
		} else {
			value, err := readToken(stdin, stderr, c.Scheme, r)
			if err != nil {
				return wrong(err)
			}
			e.token(ctx, value)
		}
	}
	r.Notes = append(r.Notes, s.size())
	if o.json {
		err = r.writeJSON(stdout)
	} else {
		err = r.write(stdout, coloured(stdout, getenv))
	}
	if err != nil {
		return wrong(fmt.Errorf("writing the report: %w", err))
	}
	return r.status()
}
