package main

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

func TestSettingsOfAFile(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text, function string
		want           map[string]string
		err            string
	}{
		"sam local, one function": {`{"A":{"X":"canary"},"B":{"ISSUER":"i","N":5,"ON":true,"NOT":null}}`, "", map[string]string{"ISSUER": "i", "N": "5", "ON": "true"}, ""},
		"sam local, ISSUERS":      {`{"B":{"ISSUERS":"[]"}}`, "", map[string]string{"ISSUERS": "[]"}, ""},
		"sam local, Parameters":   {`{"B":{"ISSUER":"b"},"Parameters":{"ISSUER":"p"}}`, "", map[string]string{"ISSUER": "p"}, ""},
		"sam local, named":        {`{"B":{"ISSUER":"b"},"C":{"ISSUER":"c"},"Parameters":{}}`, "C", map[string]string{"ISSUER": "c"}, ""},
		"sam local, several":      {`{"B":{"ISSUER":"canary"},"C":{"ISSUERS":"canary"}}`, "", nil, "name one, -function B or -function C"},
		"sam local, none":         {`{"B":{"AUDIENCE":"canary"}}`, "", nil, "no function in it has ISSUER or ISSUERS"},
		"sam local, not there":    {`{"B":{"ISSUER":"canary"}}`, "X", nil, "no variables for X"},
		"of AWS":                  {`{"FunctionName":"f","Environment":{"Variables":{"ISSUER":"i","OTHER":"canary"}}}`, "", map[string]string{"ISSUER": "i", "OTHER": "canary"}, ""},
		"get-function":            {`{"Configuration":{"Environment":{"Variables":{"ISSUER":"i"}}},"Code":{"Location":"canary"}}`, "", map[string]string{"ISSUER": "i"}, ""},
		"of AWS, not decrypted":   {`{"Environment":{"Error":{"ErrorCode":"AccessDeniedException","Message":"canary"}}}`, "", nil, "kms:Decrypt"},
		"of AWS, broken":          {`{"Environment":"canary"}`, "", nil, "not what aws lambda"},
		"an array":                {`["canary"]`, "", nil, "not a JSON object"},
		"no JSON":                 {`ISSUER=canary`, "", nil, "not a JSON object"},
	} {
		got, from, err := parseSettings([]byte(c.text), c.function)
		if c.err == "" && (err != nil || !maps.Equal(got, c.want) || from == "") {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "canary")) {
			t.Errorf("%s: %v, want %s", name, err, c.err)
		}
	}
}

// Wrong use is told on standard error, with status 2, and nothing else.
func TestWrongUse(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "missing")
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"eyJcanary"}, "not from the command line"},
		{[]string{"-jwks", "eyJcanary"}, "not from the command line"},
		{[]string{"-nonsense"}, "flag provided but not defined"},
		{[]string{"-env", missing}, "reading settings"},
		{[]string{"-kind", "alb"}, "one of http-1.0, http-2.0, rest-request, rest-token, websocket"},
		{[]string{"-route", "/orders"}, "not a method"},
		{[]string{"-route", "GET orders"}, "not a method"},
		{[]string{"-route", "get /orders"}, "-route"},
		{[]string{"-kind", "websocket", "-route", "GET /x"}, "$connect alone"},
		{[]string{"-api", "*"}, "-api"},
		{[]string{"-at", "yesterday"}, "2026-11-26T08:00:00Z"},
	} {
		var out, errs bytes.Buffer
		status := run(c.args, strings.NewReader(""), &out, &errs, func(name string) string { return map[string]string{"ISSUER": iss, "JWKS": set}[name] })
		if status != 2 || out.Len() > 0 || !strings.Contains(errs.String(), c.says) || strings.Contains(errs.String(), "canary") {
			t.Errorf("%v: %d, %s%s", c.args, status, &out, &errs)
		}
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	var errs bytes.Buffer
	if status := run([]string{"-h"}, nil, io.Discard, &errs, os.Getenv); status != 0 || !strings.Contains(errs.String(), "explain [flags] < token") {
		t.Errorf("%d, %s", status, &errs)
	}
}

// Variables with which the authorizer does not start are a fault, each of them told.
func TestMistakesInTheSettings(t *testing.T) {
	t.Parallel()
	r := explained(t, map[string]string{"LEEWAY": "1h", "AUDIENCE": "a,,b"}, "x")
	if r.Verdict != fault || r.Status != 500 || len(r.Checks) != 2 || r.Checks[0].Check != "settings" || !strings.HasPrefix(r.Checks[0].Found, "LEEWAY: ") {
		t.Errorf("%s %d %+v", r.Verdict, r.Status, r.Checks)
	}
}

// The variables of a file stand in for the environment's, and their size is Lambda's.
func TestSize(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "env.json")
	text := `{"F":{"ISSUER":"` + iss + `","OTHER":"` + strings.Repeat("x", 4096) + `"}}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := explained(t, map[string]string{"LEEWAY": "nonsense", "AUDIENCE": "us"}, "x", "-env", file)
	notes := strings.Join(r.Notes, "\n")
	if r.Verdict != reject || !strings.Contains(notes, "4154 of the 4096 bytes") || !strings.Contains(notes, "Lambda refuses them") || strings.Contains(notes, "xxx") {
		t.Errorf("%s %s", r.Verdict, notes)
	}
	r = explained(t, map[string]string{"UNRELATED": strings.Repeat("x", 9000)}, "x")
	if notes := strings.Join(r.Notes, "\n"); strings.Contains(notes, "refuses") {
		t.Error(notes)
	}
}

func TestShow(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "", `{"é":"日本"}`: `{"é":"日本"}`, "a\nb\tc": `a\u000ab\u0009c`, "\x1b[2J": `\u001b[2J`, "\u202e\u2066\ufeff": `\u202e\u2066\ufeff`, "\xff": `\xff`,
		"\U000e0001": `\U000e0001`, strings.Repeat("é", 240): strings.Repeat("é", 240), strings.Repeat("x", 243): strings.Repeat("x", 240) + "… (3 bytes more)",
	} {
		if got := show(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

// Colours are for terminals alone: a file is none, and neither is a buffer.
func TestColours(t *testing.T) {
	t.Parallel()
	none := func(string) string { return "" }
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	file, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for name, c := range map[string]struct {
		out    io.Writer
		getenv func(string) string
		want   bool
	}{
		"terminal": {terminal, none, true}, "NO_COLOR": {terminal, func(n string) string { return map[string]string{"NO_COLOR": "1"}[n] }, false},
		"dumb": {terminal, func(n string) string { return map[string]string{"TERM": "dumb"}[n] }, false}, "file": {file, none, false}, "buffer": {&bytes.Buffer{}, none, false},
	} {
		if got := coloured(c.out, c.getenv); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	var plain, painted bytes.Buffer
	r := report{Verdict: reject, Checks: []check{{Check: "exp", Found: "1"}}}
	if r.write(&plain, false) != nil || r.write(&painted, true) != nil || strings.Contains(plain.String(), "\x1b") || !strings.Contains(painted.String(), "\x1b[") {
		t.Errorf("%q, %q", &plain, &painted)
	}
}

// docs/explain.md shows what the command prints, and names every flag and member.
func TestDocument(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile("../docs/explain.md")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../events/reject-audience.json")
	if err != nil {
		t.Fatal(err)
	}
	var event struct{ AuthorizationToken string }
	if err := json.Unmarshal(text, &event); err != nil {
		t.Fatal(err)
	}
	var out, usage bytes.Buffer
	none := func(string) string { return "" }
	run([]string{"-env", "../events/env.json", "-at", "2026-11-26T12:00:00Z"}, strings.NewReader(event.AuthorizationToken), &out, io.Discard, none)
	if shown := strings.ReplaceAll(out.String(), "../events", "events"); !strings.Contains(string(document), "\n```\n"+shown+"```\n") {
		t.Errorf("docs/explain.md does not show\n%s", shown)
	}
	run([]string{"-h"}, nil, io.Discard, &usage, none)
	for _, flag := range regexp.MustCompile(`(?m)^  (-[a-z]+)`).FindAllStringSubmatch(usage.String(), -1) {
		if !strings.Contains(string(document), "\n| `"+flag[1]) {
			t.Errorf("docs/explain.md does not explain %s", flag[1])
		}
	}
	for _, of := range []reflect.Type{reflect.TypeFor[report](), reflect.TypeFor[check](), reflect.TypeFor[key](), reflect.TypeFor[routes]()} {
		for field := range of.Fields() {
			if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); !strings.Contains(string(document), "`"+name+"`") {
				t.Errorf("docs/explain.md does not explain the member %s", name)
			}
		}
	}
}
