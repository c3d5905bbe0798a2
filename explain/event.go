package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"zuplo-lambda-authorizer/internal/apigw"
)

// kinds are the kinds of API, with what makes their events (API Gateway Developer Guide).
var kinds = map[string]map[string]any{
	"rest-token":   {"type": "TOKEN"},
	"rest-request": {"type": "REQUEST"},
	"http-1.0":     {"type": "REQUEST", "version": "1.0"},
	"http-2.0":     {"type": "REQUEST", "version": "2.0"},
	"websocket":    {"type": "REQUEST", "requestContext": map[string]string{"eventType": "CONNECT"}},
}

func kindNames() string {
	return strings.Join(slices.Sorted(maps.Keys(kinds)), ", ")
}

// newEvent returns what makes the event in which API Gateway would bring a header's value.
func newEvent(o order, header string) (func(value string) []byte, error) {
	like, ok := kinds[o.kind]
	if !ok {
		return nil, fmt.Errorf("-kind: one of %s", kindNames())
	}
	arn := "arn:aws:execute-api:us-east-1:123456789012:" + o.api + "/stage/"
	method, path, ok := strings.Cut(o.route, " ")
	switch {
	case o.kind == "websocket" && (o.route == "" || o.route == "$connect"):
		arn += "$connect"
	case o.kind == "websocket":
		return nil, fmt.Errorf("-route: a WebSocket API's authorizer is asked about $connect alone")
	case o.route == "":
		arn += "GET/"
	case !ok || !strings.HasPrefix(path, "/"):
		return nil, fmt.Errorf("-route: not a method, a space and a path, as 'GET /orders/7'")
	default:
		arn += method + path
	}
	event := func(value string) []byte {
		e := maps.Clone(like)
		e["methodArn"], e["routeArn"] = arn, arn
		if o.kind == "rest-token" {
			e["authorizationToken"] = value
		} else {
			e["headers"] = map[string]string{header: value}
		}
		text, _ := json.Marshal(e) // of strings
		return text
	}
	if _, err := apigw.Parse(event("-"), header); err != nil {
		return nil, fmt.Errorf("-route or -api: %w", err)
	}
	return event, nil
}
