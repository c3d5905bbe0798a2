package main

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
)

// Report is all that was read, and what is to be said of it.
type Report struct {
	Account   string      `json:"account"`
	Region    string      `json:"region"`
	Verdict   level       `json:"verdict"` // of the worst finding; clean where there is none but notes
	Findings  []Finding   `json:"findings"`
	APIs      []*API      `json:"apis"`
	Functions []*Function `json:"functions"`

	alarms      []Alarm
	alarmsKnown bool
}

// A level says how bad a finding is. A note is worth knowing and needs no change.
type level string

const (
	open    level = "open"
	wrong   level = "wrong"
	unknown level = "unknown"
	note    level = "note"
	clean   level = "clean"
)

var levels = []level{open, wrong, unknown, note, clean}

// Finding is one thing that is open, wrong, unknown or worth knowing.
type Finding struct {
	Level level  `json:"level"`
	Where string `json:"where"` // API/stage, function or alarm
	What  string `json:"what"`
	Do    string `json:"do,omitempty"` // what to change
}

func (r *Report) add(l level, where, what, do string) {
	r.Findings = append(r.Findings, Finding{l, where, what, do})
}

func (r *Report) sort() {
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Compare(slices.Index(levels, a.Level), slices.Index(levels, b.Level))
	})
	r.Verdict = clean
	if len(r.Findings) > 0 && r.Findings[0].Level != note {
		r.Verdict = r.Findings[0].Level
	}
}

func (r *Report) exit() int { return map[level]int{open: 1, wrong: 1, unknown: 2, clean: 0}[r.Verdict] }

// API is an API of API Gateway.
type API struct {
	ID      string   `json:"id"`
	Name    string   `json:"name"`
	Kind    string   `json:"kind"` // REST, HTTP or WEBSOCKET
	Private bool     `json:"private,omitempty"`
	Domains []string `json:"domains,omitempty"` // custom domains that lead to it
	Stages  []*Stage `json:"stages"`

	Default bool              `json:"default_endpoint"` // whether execute-api answers for it
	partly  bool              // some of its stages could not be read
	policy  string            // resource policy of the draft
	ids     map[string]string // of the draft's authorizers, by name
}

// Stage is what is deployed under one name, and what would be if it were deployed now.
type Stage struct {
	Name   string  `json:"name"`
	Routes []Route `json:"routes"`

	policy string  // the resource policy that is deployed, if the export tells
	draft  []Route // nil: cannot be compared
}

// authorizers returns those of all routes that are deployed.
func (r *Report) authorizers() (all []*Authorizer) {
	for _, api := range r.APIs {
		for _, stage := range api.Stages {
			for _, route := range stage.Routes {
				if route.Authorizer != nil {
					all = append(all, route.Authorizer)
				}
			}
		}
	}
	return all
}

// Route is a method and a path, or a route key.
type Route struct {
	Name       string      `json:"route"`
	Authorizer *Authorizer `json:"authorizer"`        // nil: nobody is asked
	APIKey     bool        `json:"api_key,omitempty"` // an API key is asked for, which tells nobody from anybody
	Mock       bool        `json:"mock,omitempty"`    // API Gateway answers by itself
	Message    bool        `json:"message,omitempty"` // a WebSocket's, after $connect
}

func (r Route) open() bool {
	return r.Authorizer == nil && !r.Message && !(r.Mock && strings.HasPrefix(r.Name, "OPTIONS "))
}

// Authorizer is what a route asks.
type Authorizer struct {
	Name    string `json:"name"`
	Type    string `json:"type"` // token and request are Lambda's
	URI     string `json:"uri,omitempty"`
	Role    string `json:"role,omitempty"`             // invokes the function in the place of a permission
	Sources string `json:"identity_sources,omitempty"` // as header.authorization, several separated by commas
	TTL     int    `json:"ttl"`                        // seconds; -1: not said
	Payload string `json:"payload_format,omitempty"`   // HTTP APIs only
	Simple  bool   `json:"simple_responses,omitempty"` // HTTP APIs only
	Unread  bool   `json:"settings_unread,omitempty"`  // the export does not tell its settings

	resolved string // URI with the stage's variables put in
}

func iam() *Authorizer { return &Authorizer{Name: "IAM", Type: "aws_iam"} }

// lambda says whether a function is asked.
func (a *Authorizer) lambda() bool { return a.Type == "token" || a.Type == "request" }

var invocation = regexp.MustCompile(`functions/(arn:[a-z-]+:lambda:[a-z0-9-]+:[0-9]{12}:function:[^:/$]+)(?::([^/]+))?/invocations$`)

// function returns the ARN of the function that is asked, and the alias or version that is named with it.
func (a *Authorizer) function() (arn, qualifier string) {
	if part := invocation.FindStringSubmatch(cmp.Or(a.resolved, a.URI)); part != nil && a.lambda() {
		return part[1], part[2]
	}
	return "", ""
}

// sources brings method.request.header.X, route.request.header.X and $request.header.X into one form. Headers have no case.
func sources(expressions ...string) string {
	var all []string
	for _, list := range expressions {
		for s := range strings.SplitSeq(list, ",") {
			s = strings.TrimPrefix(strings.TrimSpace(s), "$")
			for _, prefix := range []string{"method.request.", "route.request.", "request."} {
				s = strings.TrimPrefix(s, prefix)
			}
			if strings.HasPrefix(s, "header.") {
				s = strings.ToLower(s)
			}
			if s != "" {
				all = append(all, s)
			}
		}
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}

// Function is a Lambda function that an authorizer names.
type Function struct {
	ARN          string `json:"arn"` // without alias or version
	Ours         bool   `json:"ours"`
	Architecture string `json:"architecture,omitempty"`
	Release      string `json:"release,omitempty"`              // the zip that it equals
	Reserved     *int32 `json:"reserved_concurrency,omitempty"` // nil: the account's
	LogGroup     string `json:"log_group,omitempty"`
	Retention    int32  `json:"log_retention_days,omitempty"` // 0: for ever

	name        string
	foreign     bool              // another account's
	known       bool              // its settings could be read
	gone        bool              // there is no such function
	env         map[string]string // never printed
	sha         string            // base64 of its zip's SHA-256
	sam         bool              // SAM made its zip
	policy      string            // who may invoke it; empty: nobody
	policyKnown bool
	logs        string   // its log group is there, absent, or "": not known
	logLevel    string   // below which Lambda drops lines
	namespaces  []string // of the metrics that are made of its log
	filtered    bool     // these are all
}

// Alarm is a CloudWatch alarm on metrics.
type Alarm struct {
	name    string
	told    bool     // somebody is, by itself or by a composite alarm
	watches []string // namespaces, and dimensions as FunctionName=NAME
}
