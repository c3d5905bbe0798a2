package gateway

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Response is a gateway response: what API Gateway answers by itself.
type Response struct {
	Status  int
	Headers map[string]string
	Body    string // of application/json
}

// Those that this package gives, where the template does not say otherwise (API Gateway Developer Guide, "Gateway
// response types").
var defaultResponses = map[string]Response{
	"ACCESS_DENIED":                  {403, nil, `{"message":"User is not authorized to access this resource"}`},
	"AUTHORIZER_CONFIGURATION_ERROR": {500, nil, `{"message":null}`},
	"AUTHORIZER_FAILURE":             {500, nil, `{"message":null}`},
	"DEFAULT_5XX":                    {502, nil, `{"message": "Internal server error"}`}, // the integration failed
	"MISSING_AUTHENTICATION_TOKEN":   {403, nil, `{"message":"Missing Authentication Token"}`},
	"UNAUTHORIZED":                   {401, nil, `{"message":"Unauthorized"}`},
}

// templateResponse is an entry of GatewayResponses.
type templateResponse struct {
	StatusCode         int `yaml:"StatusCode"`
	ResponseParameters struct {
		Headers map[string]text `yaml:"Headers"`
	} `yaml:"ResponseParameters"`
	ResponseTemplates map[string]text `yaml:"ResponseTemplates"`
}

// over is the default response with what the entry sets in its place.
func (t templateResponse) over(r Response) (Response, error) {
	r.Status = cmp.Or(t.StatusCode, r.Status)
	r.Body = string(cmp.Or(t.ResponseTemplates["application/json"], text(r.Body)))
	r.Headers = map[string]string{}
	for name, value := range t.ResponseParameters.Headers {
		constant, ok := strings.CutPrefix(string(value), "'")
		constant, shut := strings.CutSuffix(constant, "'")
		if !ok || !shut {
			return Response{}, fmt.Errorf("header %s: %s is no constant in single quotes", name, value)
		}
		r.Headers[name] = constant
	}
	if strings.Contains(r.Body, "$") {
		return Response{}, fmt.Errorf("variables are not understood here: %s", r.Body)
	}
	return r, nil
}

func (r Response) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	for name, value := range r.Headers {
		w.Header().Set(name, value)
	}
	w.WriteHeader(r.Status)
	io.WriteString(w, r.Body)
}
