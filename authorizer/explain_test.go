package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// explainer is a folder that holds the command explain.
var explainer = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "explain")
	if err == nil {
		err = exec.Command("go", "build", "-o", dir, "../explain").Run()
	}
	return dir, err
})

// reasons are those with which each check of explain refuses.
var reasons = map[string]string{
	"form": "malformed", "header": "malformed", "payload": "malformed", "crit": "malformed", "typ": "malformed",
	"alg": "algorithm", "kid": "kid", "iss": "issuer", "exp": "expired", "key": "unknown_key key", "signature": "signature",
	"nbf": "not_yet_valid", "iat": "not_yet_valid", "aud": "audience", "age": "too_old",
}

// explain holds that the command explain judges a token as the authorizer did, which the decision's line tells: its first check that
// fails is the authorizer's reason.
func (s *stand) explain(t *testing.T, kind, route, authorization string, line map[string]any) {
	t.Helper()
	dir, err := explainer()
	must(err)
	env, err := json.Marshal(map[string]any{"Parameters": s.env})
	must(err)
	file := filepath.Join(t.TempDir(), "env.json")
	must(os.WriteFile(file, env, 0o600))
	method, path, _ := strings.Cut(route, "/")
	at := now.Add(time.Duration(s.ahead.Load())).Format(time.RFC3339)
	args := []string{"-json", "-env", file, "-api", "abc", "-at", at, "-kind", strings.NewReplacer("t ", "t-", "p ", "p-").Replace(kind)}
	if kind != "websocket" {
		args = append(args, "-route", method+" /"+path)
	}
	c := exec.Command(filepath.Join(dir, "explain"), args...)
	c.Stdin = strings.NewReader(authorization)
	out, _ := c.Output()
	var r struct {
		Verdict, Reason, Detail string
		Rule                    any
		Checks                  []struct {
			Check string
			OK    bool
		}
	}
	if err := json.Unmarshal(out, &r); err != nil {
		t.Errorf("explain with %v: %s, %v", args, out, err)
		return
	}
	text := func(v any) string { s, _ := v.(string); return s }
	if r.Verdict != text(line["verdict"]) || r.Reason != text(line["reason"]) || r.Detail != text(line["detail"]) || r.Verdict == "forbid" && r.Rule != line["rule"] {
		t.Errorf("explain with %v: %+v, the authorizer %v", args, r, line)
	}
	for _, check := range r.Checks {
		if !check.OK {
			if r.Verdict == "reject" && !strings.Contains(" "+reasons[check.Check]+" ", " "+r.Reason+" ") {
				t.Errorf("explain with %v: %s fails first, the authorizer's reason is %s", args, check.Check, r.Reason)
			}
			return
		}
	}
	if r.Verdict == "reject" {
		t.Errorf("explain with %v: no check fails, the authorizer's reason is %s", args, r.Reason)
	}
}
