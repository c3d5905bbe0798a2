// Command protected is the Lambda function behind the authorizer: GET /protected answers with the caller's claims.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"

	"zuplo-lambda-authorizer/internal/apigw"
)

func main() {
	if os.Getenv("GOMAXPROCS") == "" && lambdacontext.MaxConcurrency() <= 1 {
		runtime.GOMAXPROCS(1) // two CPUs are visible where there is a fraction of one: handing over between them costs more than the work
	}
	lambda.Start(newHandler(os.Stdout))
}

// A handler answers Lambda proxy events. It is a lambda.Handler.
type handler struct{ log *slog.Logger }

func newHandler(out io.Writer) handler {
	return handler{slog.New(slog.NewJSONHandler(out, nil))}
}

// Invoke answers one request. Its error means that the event is none of API Gateway's.
func (h handler) Invoke(_ context.Context, payload []byte) ([]byte, error) {
	e, ok := apigw.ParseProxyEvent(payload)
	if !ok {
		return nil, errors.New("reading the event: not a Lambda proxy event of a REST or HTTP API")
	}
	claims, ok := e.Claims()
	switch {
	case e.Route != "/protected" && e.Path != "/protected":
		return reply(http.StatusNotFound, `{"message":"not found"}`, nil)
	case e.Method != http.MethodGet:
		return reply(http.StatusMethodNotAllowed, `{"message":"method not allowed"}`, map[string]string{"Allow": http.MethodGet})
	case !ok:
		h.log.Error("refused: the request carries no claims, so this route has no authorizer, or another one",
			"request_id", e.RequestID, "resource", e.Route)
		return reply(http.StatusUnauthorized, `{"message":"Unauthorized"}`, nil)
	}
	return reply(http.StatusOK, claims, nil)
}

func reply(status int, body string, headers map[string]string) ([]byte, error) {
	all := map[string]string{"Content-Type": "application/json", "Cache-Control": "no-store"}
	for name, value := range headers {
		all[name] = value
	}
	return json.Marshal(events.APIGatewayProxyResponse{StatusCode: status, Headers: all, Body: body})
}
