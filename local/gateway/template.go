package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// API is what a SAM template says of its REST API, as far as this package plays it.
type API struct {
	Stage      string
	Authorizer Authorizer // the default one: it guards every route
	Routes     []Route
	Rest       *Route                   // where all other requests lead, under this method and path; nil: nowhere
	Responses  map[string]Response      // gateway responses by type
	Timeouts   map[string]time.Duration // of the functions, by logical id
}

// Authorizer is a TOKEN authorizer.
type Authorizer struct {
	Function   string         // logical id
	Header     string         // that holds the token
	Validation *regexp.Regexp // of the whole header
	TTL        time.Duration  // of a result in the cache; 0: none is kept
	Expects    string         // what the header should hold, for eyes
}

// Route leads to a function's Lambda proxy integration.
type Route struct {
	Method   string // ANY: all of them
	Path     string
	Function string // logical id
}

// Parse reads a SAM template: the one AWS::Serverless::Api in it, and all functions. Of the intrinsics it follows Ref to a
// parameter's value or default, and GetAtt where an authorizer names its function; an error names any other one in a part
// that is read. Conditions of resources count as true.
func Parse(template []byte, parameters map[string]string) (*API, error) {
	a := &API{Responses: maps.Clone(defaultResponses), Timeouts: map[string]time.Duration{}}
	var root yaml.Node
	var doc struct {
		Globals struct {
			Function struct {
				Timeout int `yaml:"Timeout"`
			} `yaml:"Function"`
		} `yaml:"Globals"`
		Resources map[string]struct {
			Type       string    `yaml:"Type"`
			Properties yaml.Node `yaml:"Properties"`
		} `yaml:"Resources"`
	}
	if err := yaml.Unmarshal(template, &root); err != nil {
		return nil, err
	}
	followRefs(&root, parameters)
	if err := root.Decode(&doc); err != nil {
		return nil, err
	}
	apis := 0
	for id, res := range doc.Resources {
		var err error
		switch res.Type {
		case "AWS::Serverless::Api":
			apis++
			err = a.readAPI(res.Properties)
		case "AWS::Serverless::Function":
			err = a.readFunction(id, res.Properties, cmp.Or(doc.Globals.Function.Timeout, 3))
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", id, err)
		}
	}
	if apis != 1 {
		return nil, fmt.Errorf("it holds %d APIs, not one", apis)
	}
	return a, nil
}

func (a *API) readAPI(properties yaml.Node) error {
	var p struct {
		StageName text `yaml:"StageName"`
		Auth      struct {
			DefaultAuthorizer text `yaml:"DefaultAuthorizer"`
			Authorizers       map[text]struct {
				FunctionArn yaml.Node `yaml:"FunctionArn"`
				Identity    struct {
					Header               text `yaml:"Header"`
					ValidationExpression text `yaml:"ValidationExpression"`
					ReauthorizeEvery     *int `yaml:"ReauthorizeEvery"`
				} `yaml:"Identity"`
			} `yaml:"Authorizers"`
		} `yaml:"Auth"`
		GatewayResponses map[string]templateResponse `yaml:"GatewayResponses"`
	}
	if err := properties.Decode(&p); err != nil {
		return err
	}
	if a.Stage = string(p.StageName); a.Stage == "" {
		return errors.New("it has no StageName")
	}
	auth, ok := p.Auth.Authorizers[p.Auth.DefaultAuthorizer]
	if !ok {
		return fmt.Errorf("there is no authorizer %q for it to have as its default", p.Auth.DefaultAuthorizer)
	}
	ttl := 300
	if every := auth.Identity.ReauthorizeEvery; every != nil {
		ttl = *every
	}
	function, isARN := strings.CutSuffix(auth.FunctionArn.Value, ".Arn")
	if !isARN || auth.FunctionArn.Tag != "!GetAtt" {
		return fmt.Errorf("its authorizer's FunctionArn is %s %s, only !GetAtt {function}.Arn is understood here", auth.FunctionArn.Tag, auth.FunctionArn.Value)
	}
	whole, err := regexp.Compile(`\A(?:` + string(cmp.Or(auth.Identity.ValidationExpression, "(?s).*")) + `)\z`)
	if err != nil {
		return fmt.Errorf("its authorizer's ValidationExpression: %w", err)
	}
	header := string(cmp.Or(auth.Identity.Header, "Authorization"))
	a.Authorizer = Authorizer{function, header, whole, time.Duration(ttl) * time.Second, "Bearer JWT"}
	for kind, t := range p.GatewayResponses {
		resp, err := t.over(a.Responses[kind])
		if err != nil {
			return fmt.Errorf("gateway response %s: %w", kind, err)
		}
		a.Responses[kind] = resp
	}
	return nil
}

// readFunction takes in the function's routes, and its timeout in seconds.
func (a *API) readFunction(id string, properties yaml.Node, defaultTimeout int) error {
	var p struct {
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
	if err := properties.Decode(&p); err != nil {
		return err
	}
	a.Timeouts[id] = time.Duration(cmp.Or(p.Timeout, defaultTimeout)) * time.Second
	for name, event := range p.Events {
		if event.Type != "Api" {
			continue
		}
		path := string(event.Properties.Path)
		if strings.Contains(path, "{") || !event.Properties.Auth.IsZero() {
			return fmt.Errorf("event %s: neither variables in a path (%s) nor Auth are understood here", name, path)
		}
		a.Routes = append(a.Routes, Route{strings.ToUpper(string(event.Properties.Method)), path, id})
	}
	return nil
}

// followRefs puts the parameters' values where the tree refers to them, and writes the long form of every other intrinsic
// ({"Fn::Sub": …}) as the short one (!Sub …), so that reading it as anything else cannot go unnoticed.
func followRefs(root *yaml.Node, parameters map[string]string) {
	var doc struct {
		Parameters map[string]struct {
			Default yaml.Node `yaml:"Default"`
		} `yaml:"Parameters"`
	}
	root.Decode(&doc) // an error comes again when the parts are read
	var follow func(n *yaml.Node)
	follow = func(n *yaml.Node) {
		if n.Kind == yaml.MappingNode && len(n.Content) == 2 {
			if name := n.Content[0].Value; name == "Ref" || strings.HasPrefix(name, "Fn::") {
				*n = *n.Content[1]
				n.Tag = "!" + strings.TrimPrefix(name, "Fn::")
			}
		}
		if def := doc.Parameters[n.Value].Default; n.Tag == "!Ref" && !def.IsZero() {
			n.Tag, n.Style, n.Value = "", 0, cmp.Or(parameters[n.Value], def.Value) // '300' is a number where one is wanted
		}
		for _, child := range n.Content {
			follow(child)
		}
	}
	follow(root)
}

// text is a scalar that holds no intrinsic; numbers keep their spelling.
type text string

func (t *text) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode || strings.HasPrefix(n.Tag, "!") && !strings.HasPrefix(n.Tag, "!!") {
		return fmt.Errorf("line %d: %s %s is not understood here, only a plain value or a !Ref to a parameter with a default", n.Line, n.Tag, n.Value)
	}
	*t = text(n.Value)
	return nil
}
