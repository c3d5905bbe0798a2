package e2e

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"
)

// facts asks the target what this repository's documentation calls unverified, because it takes an AWS account to know, and
// prints what is so and what is not. The cases judge it.
func facts() {
	get := func(authorization string) (reply, error) {
		return send(http.MethodGet, stack.base+"/protected", authorization)
	}
	for _, fact := range []struct {
		text  string
		needs []Need
		wrong func() error
	}{
		{"EXPLICIT_DENY=on refuses what no rule names, and a token that expired in the cache, beside a resource policy that allows", []Need{Mint, ExplicitDeny}, func() error {
			const life = 3 * time.Second
			m, err := stack.order(order{}.claim("exp", at(life)))
			if err != nil {
				return err
			}
			if r, err := get("Bearer " + m.Token); err != nil || r.status != 200 {
				return fmt.Errorf("the route that a rule names: %s, %v", r, err)
			}
			if r, err := send(http.MethodPost, stack.base+"/protected", "Bearer "+m.Token); err != nil || r.status != 403 {
				return fmt.Errorf("a route that no rule names: %s, %v", r, err)
			}
			return untilDenied(m.Token, life)
		}},
		{"an HTTP API answers 401 to the error Unauthorized", []Need{Mint, HTTPAPI}, func() error {
			m, err := stack.order(order{}.head("kid", "unknown"))
			if err != nil {
				return err
			}
			r, err := send(http.MethodGet, strings.TrimSuffix(os.Getenv("HTTP_API"), "/")+"/orders", "Bearer "+m.Token)
			if err == nil && r.status != 401 {
				err = fmt.Errorf("got %s, want 401", r)
			}
			return err
		}},
		{"a 401 of API Gateway's own carries WWW-Authenticate and the template's body", nil, func() error {
			r, err := get("")
			if err != nil {
				return err
			}
			return challenged(r)
		}},
		{"a 401 by the authorizer carries WWW-Authenticate and the template's body", []Need{Mint}, func() error {
			return stack.asks(order{Foreign: true}, challenged)
		}},
		{"a 404 has the template's body", nil, func() error {
			r, err := send(http.MethodGet, stack.base+"/nothing", "")
			if err != nil {
				return err
			}
			return message(r, 404, "not found")
		}},
		{"a policy's DateLessThan on aws:CurrentTime ends a cached Allow, with the template's 403", []Need{Mint}, func() error {
			const life = 3 * time.Second
			m, err := stack.order(order{}.claim("exp", at(life)))
			if err != nil {
				return err
			}
			if r, err := get("Bearer " + m.Token); err != nil || r.status != 200 {
				return fmt.Errorf("before the token's end: %s, %w", r, err)
			}
			return untilDenied(m.Token, life)
		}},
		{"a 500 by the authorizer carries Retry-After and the template's body", []Need{Mint, Outage, ShortTTL}, func() error {
			mode := func(m string) error { return call(http.MethodPost, stack.admin+"/jwks", object{"mode": m}, nil) }
			if err := mode("503"); err != nil {
				return err
			}
			defer mode("ok")
			for until := time.Now().Add(stack.maxStale + stack.ttl + 2*time.Second); ; time.Sleep(200 * time.Millisecond) {
				err := stack.asks(order{}, retryLater)
				if err == nil || time.Now().After(until) {
					return err
				}
			}
		}},
	} {
		verdict := "confirmed"
		for _, need := range fact.needs {
			if !stack.can[need] {
				verdict = "not confirmed: the target lacks " + string(need)
			}
		}
		if verdict == "confirmed" {
			if err := fact.wrong(); err != nil {
				verdict = fmt.Sprintf("NOT CONFIRMED: %v", err)
			}
		}
		fmt.Printf("%s: %s: %s\n", stack.name, fact.text, verdict)
	}
	if !stack.can[Mint] {
		return
	}
	// Nothing is right or wrong here: a rule for /protected names those that are answered as /protected is.
	var paths []string
	for _, path := range []string{"/protected", "/protected/", "//protected", "/%70rotected", "/Protected", "/protected;a=b"} {
		m, err := stack.order(order{})
		if err == nil {
			var r reply
			r, err = send(http.MethodGet, stack.base+path, "Bearer "+m.Token)
			path += fmt.Sprintf(" %d", r.status)
		}
		if err != nil {
			path += fmt.Sprintf(" %v", err)
		}
		paths = append(paths, path)
	}
	fmt.Printf("%s: look-alike paths: %s\n", stack.name, strings.Join(paths, ", "))
}

// untilDenied waits until the token's policy has ended.
func untilDenied(token string, life time.Duration) error {
	for until := time.Now().Add(life + stack.leeway + 2*time.Second); ; time.Sleep(200 * time.Millisecond) {
		r, err := stack.ask(token)
		if err == nil {
			err = message(r, 403, "token expired or not permitted")
		}
		if err == nil || time.Now().After(until) {
			return err
		}
	}
}
