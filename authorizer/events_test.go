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
)

// The event files name their verdict: allow-ALG, reject-REASON, reject-REASON-DETAIL, fault-WHY. env.json has the settings that go with them.
func TestEventFiles(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../events/env.json")
	must(err)
	var env struct{ AuthorizerFunction map[string]string }
	must(json.Unmarshal(text, &env))
	c, err := readConfig(func(name string) string { return env.AuthorizerFunction[name] })
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
				if line["verdict"] != verdict || verdict == "reject" && why != what {
					t.Errorf("%s in %d: %s", file, day.Year(), &log)
				}
				if alg, _ := line["alg"].(string); verdict == "allow" && (!strings.EqualFold(alg, what) || !bytes.Contains(answer, []byte(`"principalId":"consumer-`+alg+`"`)) || err != nil) {
					t.Errorf("%s in %d: %s, %v", file, day.Year(), answer, err)
				}
			}
		}
	}
	if counts["allow"] != 10 || counts["reject"] != 12 || counts["fault"] != 2 {
		t.Errorf("%v event files, want 10 for allow, 12 for reject, 2 for fault", counts)
	}
}
