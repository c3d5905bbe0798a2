package gateway

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Response is a gateway response: what API Gateway answers by itself.
type Response struct {
	Status  int // 0: the type's own
	Headers map[string]string
	Body    string // of application/json; empty: API Gateway's own
}

// problem is why API Gateway answers by itself: the type of the response, and $context.error.message.
type problem struct {
	kind, message string
	cause         error // for the log alone
}

const errorMessage = "$context.error.messageString"

// API Gateway Developer Guide, "Gateway response types": those that this package gives, with their status.
var statuses = map[string]int{
	"ACCESS_DENIED": 403, "AUTHORIZER_CONFIGURATION_ERROR": 500, "AUTHORIZER_FAILURE": 500,
	"MISSING_AUTHENTICATION_TOKEN": 403, "REQUEST_TOO_LARGE": 413, "UNAUTHORIZED": 401,
}

// templateResponse is an entry of GatewayResponses.
type templateResponse struct {
	StatusCode         int `yaml:"StatusCode"`
	ResponseParameters struct {
		Headers map[string]text `yaml:"Headers"`
	} `yaml:"ResponseParameters"`
	ResponseTemplates map[string]text `yaml:"ResponseTemplates"`
}

func (t templateResponse) response() (Response, error) {
	r := Response{t.StatusCode, map[string]string{}, string(t.ResponseTemplates["application/json"])}
	for name, value := range t.ResponseParameters.Headers {
		constant, ok := strings.CutPrefix(string(value), "'")
		constant, shut := strings.CutSuffix(constant, "'")
		if !ok || !shut {
			return Response{}, fmt.Errorf("header %s: %s is no constant in single quotes", name, value)
		}
		r.Headers[name] = constant
	}
	if strings.Contains(strings.ReplaceAll(r.Body, errorMessage, ""), "$") {
		return Response{}, fmt.Errorf("of variables only %s is understood here: %s", errorMessage, r.Body)
	}
	return r, nil
}

// respond writes the problem's gateway response, as the template has it and else as API Gateway does by default.
func (a *API) respond(w http.ResponseWriter, p *problem) {
	resp := a.Responses[p.kind]
	message, _ := json.Marshal(p.message)
	if p.message == "" {
		message = []byte("null")
	}
	w.Header().Set("Content-Type", "application/json")
	for name, value := range resp.Headers {
		w.Header().Set(name, value)
	}
	w.WriteHeader(cmp.Or(resp.Status, statuses[p.kind]))
	body := cmp.Or(resp.Body, `{"message":`+errorMessage+`}`)
	io.WriteString(w, strings.ReplaceAll(body, errorMessage, string(message)))
}
