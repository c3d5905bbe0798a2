package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"zuplo-lambda-authorizer/internal/config"
)

// The event files name their verdict: allow-ALG, reject-REASON, reject-REASON-DETAIL, fault-WHY, and at the end the kind of event,
// unless it is TOKEN. env.json has the settings that go with them.
func TestEventFiles(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../events/env.json")
	must(err)
	var env struct{ AuthorizerFunction map[string]string }
	must(json.Unmarshal(text, &env))
	c, err := config.Read(func(name string) string { return env.AuthorizerFunction[name] })
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, pattern := range []string{"allow-*", "reject-*", "fault-*"} {
		files, err := filepath.Glob("../events/" + pattern + ".json")
		must(err)
		for _, file := range files {
			verdict, what, _ := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".json"), "-")
			counts[verdict]++
			api := "rest"
			for kind, of := range map[string]string{"-request": "rest", "-http1": "http", "-http2": "http", "-websocket": "websocket"} {
				if rest, ok := strings.CutSuffix(what, kind); ok {
					what, api = rest, of
				}
			}
			payload, err := os.ReadFile(file)
			must(err)
			// On the day that they were made, and at the end of the time that they are good for.
			for _, day := range []time.Time{time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC), time.Date(2099, 12, 31, 0, 0, 0, 0, time.UTC)} {
				var log bytes.Buffer
				answer, err := newAuthorizer(c, &log, func() time.Time { return day }).Invoke(context.Background(), payload)
				var line map[string]any
				must(json.Unmarshal(log.Bytes(), &line))
				why := fmt.Sprint(line["reason"])
				if detail, ok := line["detail"]; ok {
					why = fmt.Sprint(why, "-", detail)
				}
				if line["verdict"] != verdict || verdict == "reject" && why != what || verdict != "fault" && line["api"] != api {
					t.Errorf("%s in %d: %s", file, day.Year(), &log)
				}
				if denied := bytes.Contains(answer, []byte(`"Effect":"Deny"`)); denied != (verdict == "reject" && api == "http") || denied != (verdict != "allow" && err == nil) {
					t.Errorf("%s in %d: %s, %v", file, day.Year(), answer, err)
				}
				if alg, _ := line["alg"].(string); verdict == "allow" && (!strings.EqualFold(alg, what) || !bytes.Contains(answer, []byte(`"principalId":"consumer-`+alg+`"`)) || err != nil) {
					t.Errorf("%s in %d: %s, %v", file, day.Year(), answer, err)
				}
			}
		}
	}
	if counts["allow"] != 14 || counts["reject"] != 16 || counts["fault"] != 3 {
		t.Errorf("%v event files, want 14 for allow, 16 for reject, 3 for fault", counts)
	}
}
