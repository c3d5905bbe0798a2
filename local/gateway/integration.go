package gateway

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/aws/aws-lambda-go/events"
)

// proxyEvent is the event of the Lambda proxy integration (API Gateway Developer Guide, "Input format of a Lambda
// function for proxy integration"), without the members that describe the account, the caller and
// the connection.
func proxyEvent(r *http.Request, stage, id string, route *Route, body []byte, authorizer map[string]any) events.APIGatewayProxyRequest {
	query, method := r.URL.Query(), r.Method
	if route.Method != "ANY" {
		method = route.Method
	}
	return events.APIGatewayProxyRequest{
		Resource: route.Path, Path: route.Path, HTTPMethod: method,
		Headers: singles(r.Header), MultiValueHeaders: r.Header,
		QueryStringParameters: singles(query), MultiValueQueryStringParameters: query,
		Body: string(body),
		RequestContext: events.APIGatewayProxyRequestContext{
			Stage: stage, RequestID: id, ResourcePath: route.Path, HTTPMethod: method, Path: r.URL.Path,
			Authorizer: authorizer,
		},
	}
}

// singles keeps the last value of each name, as API Gateway does.
func singles(all map[string][]string) map[string]string {
	one := make(map[string]string, len(all))
	for name, values := range all {
		one[name] = values[len(values)-1]
	}
	return one
}

// integrate hands the request to the route's function and its reply to the caller. With an error nothing has been written.
func (g *Gateway) integrate(w http.ResponseWriter, r *http.Request, route *Route, id string, authorizer map[string]any) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return fmt.Errorf("reading the request's body: %w", err)
	}
	event, _ := json.Marshal(proxyEvent(r, g.API.Stage, id, route, body, authorizer))
	g.Journal.Hop(r.Context(), "gateway", "protected", "proxy event: the request and the token's claims")
	payload, isError, err := g.Functions[route.Function](r.Context(), event)
	if err != nil {
		return err
	}
	if isError {
		return fmt.Errorf("%s: %s", route.Function, payload)
	}
	var reply events.APIGatewayProxyResponse
	if err := json.Unmarshal(payload, &reply); err != nil {
		return fmt.Errorf("reading %s's reply: %w", route.Function, err)
	}
	if reply.StatusCode < 200 || reply.StatusCode > 599 {
		return fmt.Errorf("reading %s's reply: status %d", route.Function, reply.StatusCode)
	}

	w.Header().Set("Content-Type", "application/json")
	for name, value := range reply.Headers {
		w.Header().Set(name, value)
	}
	for name, values := range reply.MultiValueHeaders {
		w.Header()[http.CanonicalHeaderKey(name)] = values
	}
	w.WriteHeader(reply.StatusCode)
	io.WriteString(w, reply.Body)
	return nil
}
