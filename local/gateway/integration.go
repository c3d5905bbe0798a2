package gateway

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"
)

// proxyEvent is the event of the Lambda proxy integration (API Gateway Developer Guide, "Input format of a Lambda
// function for proxy integration").
func proxyEvent(r *http.Request, stage, id string, route *Route, body []byte, authorizer map[string]any,
	now time.Time) events.APIGatewayProxyRequest {
	peer, _, _ := net.SplitHostPort(r.RemoteAddr)
	header := r.Header.Clone()
	header.Set("Host", r.Host)
	header.Add("X-Forwarded-For", peer)
	e := events.APIGatewayProxyRequest{
		Resource: route.Path, Path: route.Path, HTTPMethod: r.Method,
		Headers: singles(header), MultiValueHeaders: header,
		Body: string(body),
		RequestContext: events.APIGatewayProxyRequestContext{
			AccountID: account, APIID: apiID, Stage: stage, RequestID: id, Protocol: r.Proto, DomainName: r.Host,
			ResourceID: "local", ResourcePath: route.Path, HTTPMethod: r.Method, Path: r.URL.Path,
			RequestTime: now.UTC().Format("02/Jan/2006:15:04:05 -0700"), RequestTimeEpoch: now.UnixMilli(),
			Identity:   events.APIGatewayRequestIdentity{SourceIP: peer, UserAgent: r.UserAgent()},
			Authorizer: authorizer,
		},
	}
	if query := r.URL.Query(); len(query) > 0 {
		e.QueryStringParameters, e.MultiValueQueryStringParameters = singles(query), query
	}
	if !utf8.Valid(body) {
		e.Body, e.IsBase64Encoded = base64.StdEncoding.EncodeToString(body), true
	}
	return e
}

// singles keeps the last value of each name, as API Gateway does.
func singles(all map[string][]string) map[string]string {
	one := make(map[string]string, len(all))
	for name, values := range all {
		one[name] = last(values)
	}
	return one
}

// integrate hands the event to the function and its reply to the caller. With an error nothing has been written.
func (g *Gateway) integrate(w http.ResponseWriter, ctx context.Context, function string, e events.APIGatewayProxyRequest) error {
	event, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("writing the event for %s: %w", function, err)
	}
	payload, isError, err := g.Functions[function](ctx, event)
	if err != nil {
		return err
	}
	if isError {
		return fmt.Errorf("%s: %s", function, payload)
	}
	var reply events.APIGatewayProxyResponse
	if err := json.Unmarshal(payload, &reply); err != nil {
		return fmt.Errorf("reading %s's reply: %w", function, err)
	}
	body := []byte(reply.Body)
	if reply.IsBase64Encoded {
		if body, err = base64.StdEncoding.DecodeString(reply.Body); err != nil {
			return fmt.Errorf("reading %s's reply: %w", function, err)
		}
	}
	if reply.StatusCode < 200 || reply.StatusCode > 599 {
		return fmt.Errorf("reading %s's reply: status %d", function, reply.StatusCode)
	}

	w.Header().Set("Content-Type", "application/json")
	for name, value := range reply.Headers {
		w.Header().Set(name, value)
	}
	for name, values := range reply.MultiValueHeaders {
		w.Header()[http.CanonicalHeaderKey(name)] = values
	}
	if values := w.Header()["Www-Authenticate"]; values != nil { // it does not let a backend set this one
		w.Header().Del("Www-Authenticate")
		w.Header()["X-Amzn-Remapped-Www-Authenticate"] = values
	}
	w.WriteHeader(reply.StatusCode)
	w.Write(body)
	return nil
}
