// Command audit reads what is deployed before and around the authorizer, changes nothing, and says what is open or wrong.
//
//	audit -api ID | -stack NAME [-json] [-open 'GET /health,…'] [-dist DIR] [-explain COMMAND]
//
// Credentials, region and endpoints are those of every AWS tool. policy.json beside this file is all that it may do. The way
// through it: collect.go asks AWS, document.go reads exports, and both fill the model (model.go); judge.go finds what is
// wrong with it; show.go tells. Exit status: 0 clean, 1 something is open or wrong, 2 something could not be known.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/aws/aws-sdk-go-v2/config"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// options is what the command line says.
type options struct {
	api, stack string
	open       []string // routes that are open on purpose
	dist       string   // folder of the releases' zips
	explain    string   // the command explain with its first arguments
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer, tweaks ...func(*config.LoadOptions) error) int {
	var o options
	flags := flag.NewFlagSet("audit", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.api, "api", "", "`id` of a REST, HTTP or WebSocket API")
	flags.StringVar(&o.stack, "stack", "", "`name` of a CloudFormation stack: its APIs and its authorizer")
	open := flags.String("open", "", "`routes` that are open on purpose, separated by commas, as GET /health")
	flags.StringVar(&o.dist, "dist", "", "`folder` of the releases' zips, to compare the deployed code with")
	flags.StringVar(&o.explain, "explain", "", "the `command` explain, to compare the settings with the issuer")
	asJSON := flags.Bool("json", false, "print one JSON object")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if (o.api == "") == (o.stack == "") || flags.NArg() > 0 {
		fmt.Fprintln(stderr, "audit needs either -api ID or -stack NAME (make audit API=ID, make audit STACK=NAME), and nothing else")
		return 2
	}
	for route := range strings.SplitSeq(*open, ",") {
		if route = strings.TrimSpace(route); route != "" {
			o.open = append(o.open, route)
		}
	}
	report := &Report{APIs: []*API{}, Functions: []*Function{}, Findings: []Finding{}}
	cfg, err := config.LoadDefaultConfig(ctx, tweaks...)
	switch {
	case err != nil:
		report.add(unknown, "", "AWS's settings cannot be read: "+err.Error(), "")
	case cfg.Region == "":
		report.add(unknown, "", "no region is given", "set AWS_REGION")
	default:
		if cfg.RetryMaxAttempts == 0 {
			cfg.RetryMaxAttempts = 8 // API Gateway allows an account few calls a second
		}
		newReader(cfg, report).read(ctx, o)
		judge(ctx, report, o)
	}
	report.sort()
	if *asJSON {
		enc := json.NewEncoder(stdout)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		err = enc.Encode(report)
	} else {
		err = show(stdout, report)
	}
	if err != nil {
		fmt.Fprintln(stderr, "audit: writing the report:", err)
		return 2
	}
	return report.exit()
}
