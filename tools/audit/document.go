package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// document is the part of an exported API (OpenAPI 3.0 with API Gateway's extensions) that tells who may call it.
type document struct {
	Paths      map[string]map[string]json.RawMessage `json:"paths"`
	Components struct {
		Schemes map[string]scheme `json:"securitySchemes"`
	} `json:"components"`
	Policy json.RawMessage `json:"x-amazon-apigateway-policy"`
}

type operation struct {
	Security []map[string][]string `json:"security"`
	Auth     struct {
		Type string `json:"type"`
	} `json:"x-amazon-apigateway-auth"`
	Integration struct {
		Type string `json:"type"`
	} `json:"x-amazon-apigateway-integration"`
}

type scheme struct {
	Type       string `json:"type"`
	Name       string `json:"name"`
	In         string `json:"in"`
	AuthType   string `json:"x-amazon-apigateway-authtype"`
	Authorizer *struct {
		Type    string `json:"type"`
		URI     string `json:"authorizerUri"`
		Role    string `json:"authorizerCredentials"`
		Sources texts  `json:"identitySource"`
		TTL     *loose `json:"authorizerResultTtlInSeconds"`
		Payload loose  `json:"authorizerPayloadFormatVersion"`
		Simple  loose  `json:"enableSimpleResponses"`
	} `json:"x-amazon-apigateway-authorizer"`
}

// loose is a scalar, whether it stands in quotes or not: AWS documents a TTL as a string and writes a number.
type loose string

func (l *loose) UnmarshalJSON(b []byte) error {
	*l = loose(strings.Trim(string(b), `"`))
	return nil
}

// texts is a string or a list of strings.
type texts []string

func (t *texts) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*t = texts{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(t))
}

// What may stand in a path beside its methods (OpenAPI 3.0 §4.7.9).
var noMethods = []string{"$ref", "summary", "description", "servers", "parameters"}

// parse reads an export of a REST or HTTP API, its routes sorted by path.
func parse(body []byte, kind string) (routes []Route, policy string, err error) {
	var d document
	if err := json.Unmarshal(body, &d); err != nil {
		return nil, "", fmt.Errorf("reading the export: %w", err)
	}
	if d.Paths == nil {
		return nil, "", fmt.Errorf("reading the export: it has no paths")
	}
	routes = []Route{}
	for path, item := range d.Paths {
		for method, raw := range item {
			every := method == "x-amazon-apigateway-any-method"
			if !every && (slices.Contains(noMethods, method) || strings.HasPrefix(method, "x-")) {
				continue
			}
			var op operation
			if err := json.Unmarshal(raw, &op); err != nil {
				return nil, "", fmt.Errorf("reading the export of %s %s: %w", method, path, err)
			}
			r := Route{Name: strings.ToUpper(method) + " " + path, Mock: strings.EqualFold(op.Integration.Type, "mock")}
			if every {
				r.Name = "ANY " + path
			}
			if path == "/$default" {
				r.Name = "$default"
			}
			if strings.EqualFold(op.Auth.Type, "AWS_IAM") {
				r.Authorizer = iam()
			}
			for _, requirement := range op.Security {
				for name := range requirement {
					s, ok := d.Components.Schemes[name]
					switch a := s.authorizer(name, kind); {
					case !ok:
						return nil, "", fmt.Errorf("reading the export of %s: it names the authorizer %s, which is not there", r.Name, name)
					case a != nil:
						r.Authorizer = a
					default:
						r.APIKey = true
					}
				}
			}
			routes = append(routes, r)
		}
	}
	sortRoutes(routes)
	return routes, string(d.Policy), nil
}

// sortRoutes sorts by path, then by method.
func sortRoutes(routes []Route) {
	key := func(r Route) string {
		method, path, _ := strings.Cut(r.Name, " ")
		return path + " " + method
	}
	slices.SortFunc(routes, func(a, b Route) int { return strings.Compare(key(a), key(b)) })
}

// authorizer returns nil for an API key.
func (s scheme) authorizer(name, kind string) *Authorizer {
	a := &Authorizer{Name: name, TTL: -1}
	x := s.Authorizer
	switch {
	case x == nil && s.AuthType == "" && s.Type == "apiKey":
		return nil
	case x == nil:
		if s.AuthType == "awsSigv4" {
			return iam()
		}
		a.Type, a.Unread = strings.ToLower(s.AuthType), s.AuthType == "" || s.AuthType == "custom"
		return a
	}
	a.Type, a.URI, a.Role = strings.ToLower(x.Type), x.URI, x.Role
	a.Payload, a.Simple = string(x.Payload), x.Simple == "true"
	if a.Type == "" && x.URI != "" {
		a.Type = "request"
	}
	a.Sources = sources(x.Sources...)
	if a.Sources == "" && s.In == "header" && !strings.EqualFold(s.Name, "unused") {
		a.Sources = sources("header." + s.Name) // a TOKEN authorizer's header stands here alone
	}
	if kind == "REST" {
		a.TTL = 300 // API Gateway's default
	}
	if x.TTL != nil {
		if n, err := strconv.Atoi(string(*x.TTL)); err == nil {
			a.TTL = n
		}
	}
	return a
}
