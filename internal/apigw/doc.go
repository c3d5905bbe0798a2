// Package apigw speaks Amazon API Gateway's shapes: the events in which it asks an authorizer, of REST, HTTP and WebSocket
// APIs, the policy and the context that it takes as an answer, and that context as the backend sees it.
package apigw
