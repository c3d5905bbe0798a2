package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// API is what a SAM template says of its REST API, as far as this package plays it.
type API struct {
	Stage       string
	Authorizers map[string]Authorizer
	Routes      []Route
	Responses   map[string]Response      // gateway responses that the template sets, by type
	Timeouts    map[string]time.Duration // of the functions, by logical id
}

// Authorizer is a TOKEN authorizer.
type Authorizer struct {
	Function   string         // logical id
	Header     string         // that holds the token
	Validation *regexp.Regexp // of the whole header
	TTL        time.Duration  // of a result in the cache; 0: none is kept
}

// Route leads to a function's Lambda proxy integration.
type Route struct {
	Method     string // ANY: all of them
	Path       string
	Function   string // logical id
	Authorizer string // empty: open to everybody
}

// properties are those parts of an API's and a function's that are read.
type properties struct {
	StageName text `yaml:"StageName"`
	Auth      struct {
		DefaultAuthorizer text `yaml:"DefaultAuthorizer"`
		Authorizers       map[string]struct {
			FunctionArn functionArn `yaml:"FunctionArn"`
			Identity    struct {
				Header               text `yaml:"Header"`
				ValidationExpression text `yaml:"ValidationExpression"`
				ReauthorizeEvery     *int `yaml:"ReauthorizeEvery"`
			} `yaml:"Identity"`
		} `yaml:"Authorizers"`
	} `yaml:"Auth"`
	GatewayResponses map[string]templateResponse `yaml:"GatewayResponses"`

	Timeout int `yaml:"Timeout"`
	Events  map[string]struct {
		Type       text `yaml:"Type"`
		Properties struct {
			Path   text      `yaml:"Path"`
			Method text      `yaml:"Method"`
			Auth   yaml.Node `yaml:"Auth"`
		} `yaml:"Properties"`
	} `yaml:"Events"`
}

// Parse reads a SAM template: the one AWS::Serverless::Api in it, and all functions. Of the intrinsics it follows Ref to a
// parameter's default, and GetAtt where an authorizer names its function; an error names any other one in a part
// that is read. Conditions of resources count as true.
func Parse(template []byte) (*API, error) {
	api := &API{Authorizers: map[string]Authorizer{}, Responses: map[string]Response{}, Timeouts: map[string]time.Duration{}}
	if err := api.parse(template); err != nil {
		return nil, fmt.Errorf("reading the template: %w", err)
	}
	return api, nil
}

func (a *API) parse(template []byte) error {
	var root yaml.Node
	var doc struct {
		Globals struct {
			Function properties `yaml:"Function"`
		} `yaml:"Globals"`
		Resources map[string]struct {
			Type       string    `yaml:"Type"`
			Properties yaml.Node `yaml:"Properties"`
		} `yaml:"Resources"`
	}
	if err := yaml.Unmarshal(template, &root); err != nil {
		return err
	}
	followRefs(&root)
	if err := root.Decode(&doc); err != nil {
		return err
	}
	apis, functions := map[string]properties{}, map[string]properties{}
	for id, res := range doc.Resources {
		into := map[string]map[string]properties{"AWS::Serverless::Api": apis, "AWS::Serverless::Function": functions}[res.Type]
		if into == nil {
			continue
		}
		var p properties
		if err := res.Properties.Decode(&p); err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}
		into[id] = p
	}
	if len(apis) != 1 {
		return fmt.Errorf("it holds %d APIs, not one", len(apis))
	}
	for id, api := range apis {
		if err := a.readAPI(api); err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}
		for id, f := range functions {
			a.Timeouts[id] = time.Duration(cmp.Or(f.Timeout, doc.Globals.Function.Timeout, 3)) * time.Second
			if err := a.readRoutes(id, f, string(api.Auth.DefaultAuthorizer)); err != nil {
				return fmt.Errorf("%s: %w", id, err)
			}
		}
	}
	return nil
}

func (a *API) readAPI(p properties) error {
	if a.Stage = string(p.StageName); a.Stage == "" {
		return errors.New("it has no StageName")
	}
	for name, t := range p.Auth.Authorizers {
		ttl := 300
		if every := t.Identity.ReauthorizeEvery; every != nil {
			ttl = *every
		}
		whole, err := regexp.Compile(`\A(?:` + string(cmp.Or(t.Identity.ValidationExpression, "(?s).*")) + `)\z`)
		if err != nil || t.FunctionArn == "" || ttl < 0 || ttl > 3600 {
			return fmt.Errorf("authorizer %s: function %q, ReauthorizeEvery %d, ValidationExpression: %w", name, t.FunctionArn, ttl, err)
		}
		header := string(cmp.Or(t.Identity.Header, "Authorization"))
		a.Authorizers[name] = Authorizer{string(t.FunctionArn), header, whole, time.Duration(ttl) * time.Second}
	}
	if _, ok := a.Authorizers[string(p.Auth.DefaultAuthorizer)]; !ok && p.Auth.DefaultAuthorizer != "" {
		return fmt.Errorf("there is no authorizer %q", p.Auth.DefaultAuthorizer)
	}
	for kind, t := range p.GatewayResponses {
		resp, err := t.response()
		if err != nil {
			return fmt.Errorf("gateway response %s: %w", kind, err)
		}
		a.Responses[kind] = resp
	}
	return nil
}

func (a *API) readRoutes(function string, p properties, authorizer string) error {
	for name, event := range p.Events {
		if event.Type != "Api" {
			continue
		}
		path := string(event.Properties.Path)
		if strings.Contains(path, "{") || !event.Properties.Auth.IsZero() {
			return fmt.Errorf("event %s: neither variables in a path (%s) nor Auth are understood here", name, path)
		}
		a.Routes = append(a.Routes, Route{strings.ToUpper(string(event.Properties.Method)), path, function, authorizer})
	}
	return nil
}
