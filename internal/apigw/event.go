package apigw

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A Kind is who asks: it decides the shape of the event, and what API Gateway makes of an answer.
type Kind int

const (
	RestToken   Kind = iota + 1 // a TOKEN authorizer of a REST API
	RestRequest                 // a REQUEST authorizer of a REST API
	HTTP1                       // an authorizer of an HTTP API, payload format 1.0
	HTTP2                       // the same, payload format 2.0
	WebSocket                   // an authorizer of a WebSocket API's $connect
)

// API is the kind of API in the log's word: rest, http or websocket.
func (k Kind) API() string {
	switch k {
	case RestToken, RestRequest:
		return "rest"
	case HTTP1, HTTP2:
		return "http"
	case WebSocket:
		return "websocket"
	}
	return ""
}

// A Request is what API Gateway asks about, whatever the kind.
type Request struct {
	Kind   Kind
	Token  string // the value of the token's header; empty where it is absent, stands twice or holds a comma
	API    string // its id
	Stage  string // arn:{partition}:execute-api:{region}:{account}:{api}/{stage}/, behind which routes stand in a Resource
	Method string // none for a WebSocket
	Path   string // as the caller sent it, with its leading slash; none for a WebSocket
}

// An event is all kinds of them at once. Members that are absent, null or empty are all the same.
type event struct {
	Type               string              `json:"type"`
	Version            string              `json:"version"`
	AuthorizationToken string              `json:"authorizationToken"`
	MethodARN          string              `json:"methodArn"`
	RouteARN           string              `json:"routeArn"`
	IdentitySource     any                 `json:"identitySource"`
	Headers            map[string]string   `json:"headers"`
	MultiValueHeaders  map[string][]string `json:"multiValueHeaders"`
	RequestContext     struct {
		EventType string `json:"eventType"`
	} `json:"requestContext"`
}

// Parse reads an event (API Gateway Developer Guide, "Input to an API Gateway Lambda authorizer", "Working with AWS Lambda
// authorizers for HTTP APIs"). header names the one that carries the token, where the event has all of them. Its errors say
// what to change, and never quote the event, because the token is in it.
func Parse(payload []byte, header string) (r Request, err error) {
	var e event
	if json.Unmarshal(payload, &e) != nil {
		return r, errors.New("reading the event: not one that API Gateway sends to an authorizer")
	}
	arn := e.MethodARN
	switch {
	case e.Type == "TOKEN":
		r.Kind = RestToken
	case e.Type == "REQUEST" && e.Version == "2.0":
		r.Kind, arn = HTTP2, e.RouteARN
	case e.Type == "REQUEST" && e.Version == "1.0":
		r.Kind = HTTP1
	case e.Type == "REQUEST" && e.Version == "" && e.RequestContext.EventType == "CONNECT":
		r.Kind = WebSocket
	case e.Type == "REQUEST" && e.Version == "" && e.RequestContext.EventType == "":
		r.Kind = RestRequest
	case e.Type == "REQUEST":
		return r, errors.New("reading the event: it is neither of payload format 1.0 or 2.0 nor a WebSocket's $connect; give $connect the authorizer, and an HTTP API's authorizer one of these formats")
	default:
		return r, errors.New("reading the event: its type is neither TOKEN nor REQUEST; attach this function to an authorizer of API Gateway, and nothing else to it")
	}
	if err := r.locate(arn); err != nil {
		return r, err
	}
	if r.Kind == RestToken {
		r.Token = e.AuthorizationToken
		return r, nil
	}
	token, clear := e.header(header)
	if clear && r.Kind.API() == "http" && !e.identifiedBy(token) {
		return r, fmt.Errorf("reading the event: API Gateway caches the answer for something else than the token, so that one caller's would serve another; make $request.header.%s the authorizer's only identity source", header)
	}
	r.Token = token
	return r, nil
}

// header returns a header's value, by its name in any case; empty if it is absent. It is not clear if it stands twice, or holds
// a comma, with which API Gateway joins headers that stand twice and which no token holds: nobody knows then which one the
// answer is cached for.
func (e *event) header(name string) (value string, clear bool) {
	var single, multi []string // the event has each header in both, except an HTTP API's of payload format 2.0
	for k, v := range e.Headers {
		if strings.EqualFold(k, name) {
			single = append(single, v)
		}
	}
	for k, all := range e.MultiValueHeaders {
		if strings.EqualFold(k, name) {
			multi = append(multi, all...)
		}
	}
	if len(single) == 0 {
		single = multi
	}
	switch {
	case len(single) > 1 || len(multi) > 1 || len(multi) == 1 && multi[0] != single[0]:
		return "", false
	case len(single) == 0:
		return "", true
	case strings.Contains(single[0], ","):
		return "", false
	}
	return single[0], true
}

// identifiedBy reports whether the token is among what the answer is cached for, or nothing is: an HTTP API's identity sources
// are a list or, in payload format 1.0, one text joined by commas. A caller who has that key then has the token.
func (e *event) identifiedBy(token string) bool {
	switch sources := e.IdentitySource.(type) {
	case nil:
		return true
	case string:
		return sources == "" || token != "" && slices.Contains(strings.Split(sources, ","), token)
	case []any:
		return len(sources) == 0 || token != "" && slices.Contains(sources, any(token))
	case map[string]any:
		return len(sources) == 0
	}
	return false
}

// No part that a Resource is made of may hold a wildcard or a variable of IAM's: it would widen the policy.
var (
	methodARN  = regexp.MustCompile(`(?s)\A(arn:aws[a-z-]*:execute-api:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9]+/(?:[A-Za-z0-9_-]+|\$default)/)[A-Z]+(?:/.*)?\z`)
	connectARN = regexp.MustCompile(`\A(arn:aws[a-z-]*:execute-api:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9]+/[A-Za-z0-9_-]+/)\$connect\z`)
)

// locate reads the ARN of what was called.
func (r *Request) locate(arn string) error {
	const maxARN, maxResource = 1600, 512 // bytes and characters (API Gateway quotas)
	if len(arn) > maxARN {
		return fmt.Errorf("reading the event's ARN: %d bytes, at most %d are possible", len(arn), maxARN)
	}
	form, as := methodARN, "METHOD/path"
	if r.Kind == WebSocket {
		form, as = connectARN, "$connect"
	}
	m := form.FindStringSubmatch(arn)
	if m == nil {
		return fmt.Errorf("reading the event's ARN: not of the form arn:aws:execute-api:REGION:ACCOUNT:API/STAGE/%s", as)
	}
	r.Stage = m[1]
	r.API, _, _ = strings.Cut(r.Stage[strings.LastIndexByte(r.Stage, ':')+1:], "/")
	if len(r.Stage)+1 > maxResource {
		return fmt.Errorf("reading the event's ARN: its stage's resource has %d characters, a policy takes %d", len(r.Stage)+1, maxResource)
	}
	if r.Kind == WebSocket {
		return nil
	}
	r.Method, r.Path = arn[len(r.Stage):], "/"
	if path := strings.IndexByte(r.Method, '/'); path >= 0 {
		r.Method, r.Path = r.Method[:path], r.Method[path:]
	}
	return nil
}
