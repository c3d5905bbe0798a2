package apigw

import (
	"encoding/base64"
	"encoding/json"
	"strings"
)

// A ProxyEvent is the part of a Lambda proxy event that a backend behind the authorizer needs, of a REST API or an HTTP API
// (payload format 1.0 or 2.0).
type ProxyEvent struct {
	Method    string
	Path      string // as the caller sent it, a custom domain's base path or a stage's name included
	Route     string // the route's path in the API
	RequestID string
	context   map[string]json.RawMessage // the authorizer's
}

// ParseProxyEvent reads one; ok is false if it is none.
func ParseProxyEvent(payload []byte) (e ProxyEvent, ok bool) {
	var raw struct {
		HTTPMethod     string `json:"httpMethod"`
		Path           string `json:"path"`
		RawPath        string `json:"rawPath"`
		Resource       string `json:"resource"`
		RouteKey       string `json:"routeKey"`
		RequestContext struct {
			RequestID string `json:"requestId"`
			HTTP      struct {
				Method string `json:"method"`
			} `json:"http"`
			Authorizer map[string]json.RawMessage `json:"authorizer"`
		} `json:"requestContext"`
	}
	if json.Unmarshal(payload, &raw) != nil {
		return e, false
	}
	e = ProxyEvent{Method: raw.HTTPMethod, Path: raw.Path, Route: raw.Resource, RequestID: raw.RequestContext.RequestID, context: raw.RequestContext.Authorizer}
	if raw.HTTPMethod == "" { // payload format 2.0
		e.Method, e.Path, e.Route = raw.RequestContext.HTTP.Method, raw.RawPath, route(raw.RouteKey)
	}
	return e, e.Method != ""
}

// Claims returns the claims' JSON that the authorizer put into the request's context, byte for byte as signed: as claims by a
// REST API, in base64url as jwt_payload by an HTTP API, which has them one level deeper in payload format 2.0. Without them
// the route has no authorizer, or not this one.
func (e *ProxyEvent) Claims() (claims string, ok bool) {
	var deeper map[string]json.RawMessage
	_ = json.Unmarshal(e.context["lambda"], &deeper)
	for _, context := range []map[string]json.RawMessage{e.context, deeper} {
		var payload string
		if json.Unmarshal(context["claims"], &claims) == nil && claims != "" {
			return claims, true
		}
		_ = json.Unmarshal(context["jwt_payload"], &payload)
		if text, err := base64.RawURLEncoding.DecodeString(payload); err == nil && len(text) > 0 {
			return string(text), true
		}
	}
	return "", false
}

// route is the path of a route key such as "GET /orders/{id}"; $default has none.
func route(key string) string {
	_, path, _ := strings.Cut(key, " ")
	return path
}
