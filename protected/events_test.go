package main

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"
)

// The event files name the status that they get.
func TestEventFiles(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../events/protected-*.json")
	if err != nil || len(files) != 7 {
		t.Fatalf("%d event files, %v", len(files), err)
	}
	for _, file := range files {
		payload, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got, err := newHandler(io.Discard).Invoke(t.Context(), payload)
		var answer events.APIGatewayProxyResponse
		if err != nil || json.Unmarshal(got, &answer) != nil {
			t.Fatalf("%s: %s, %v", file, got, err)
		}
		want := strings.Split(strings.TrimSuffix(filepath.Base(file), ".json"), "-")[1]
		if strconv.Itoa(answer.StatusCode) != want {
			t.Errorf("%s: %d %s", file, answer.StatusCode, answer.Body)
		}
	}
}
