package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// explanation is what explain -jwks -json prints.
type explanation struct {
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`
	Checks  []struct {
		Check    string `json:"check"`
		OK       bool   `json:"ok"`
		Found    string `json:"found"`
		Expected string `json:"expected"`
		Hint     string `json:"hint"`
	} `json:"checks"`
	Keys []struct {
		Kid     string `json:"kid"`
		Skipped string `json:"skipped"`
	} `json:"keys"`
}

// explain runs the command explain on the function's variables. Status is its exit status: 0 fine, 1 something is wrong, 2 it
// could not know. The variables are in a file that is gone afterwards.
func explain(ctx context.Context, command string, env map[string]string) (e explanation, status int, err error) {
	dir, err := os.MkdirTemp("", "audit")
	if err != nil {
		return e, 0, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "configuration.json") // as aws lambda get-function-configuration prints it
	b, err := json.Marshal(map[string]any{"Environment": map[string]any{"Variables": env}})
	if err != nil {
		return e, 0, err
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		return e, 0, err
	}
	words := append(strings.Fields(command), "-jwks", "-json", "-env", file)
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		return e, 0, err
	}
	if err := json.Unmarshal(stdout.Bytes(), &e); err != nil {
		line, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n")
		return e, 0, errors.New(cmp.Or(line, "it printed no JSON object"))
	}
	return e, cmd.ProcessState.ExitCode(), nil
}

func judgeSettings(ctx context.Context, f *Function, command string, say sayer) {
	if command == "" {
		say(unknown, "its settings were not held against the issuer: the command explain was not named", "make audit names it")
		return
	}
	e, status, err := explain(ctx, command, f.env)
	if err != nil {
		say(unknown, "its settings could not be held against the issuer: explain: "+err.Error(), "")
		return
	}
	said := false
	for _, c := range e.Checks {
		if c.OK {
			continue
		}
		l, what := wrong, "explain, "+c.Check+": "+c.Found
		if c.Check == "reachable" {
			l, what = unknown, what+", from this machine"
		}
		if c.Expected != "" {
			what += "; expected: " + c.Expected
		}
		say(l, what, c.Hint)
		said = true
	}
	if !said && status != 0 {
		say(unknown, fmt.Sprintf("explain ends with status %d: %s", status, cmp.Or(e.Reason, e.Verdict)), "")
	}
	for _, k := range e.Keys {
		if k.Skipped != "" {
			say(note, "the issuer's key "+k.Kid+" is left out: "+k.Skipped, "")
		}
	}
}

// judgeRelease compares the function's code with the zips of the releases, authorizer-{version}-{architecture}.zip in dist.
func judgeRelease(f *Function, dist string, say sayer) {
	zips, err := filepath.Glob(filepath.Join(dist, "authorizer-*.zip"))
	if err != nil {
		say(unknown, "its code could not be compared with the releases: "+err.Error(), "")
		return
	}
	for _, zip := range zips {
		sum, err := sum(zip)
		if err != nil {
			say(unknown, "its code could not be compared with "+zip+": "+err.Error(), "")
			return
		}
		if sum != f.sha {
			continue
		}
		f.Release = strings.TrimSuffix(strings.TrimPrefix(filepath.Base(zip), "authorizer-"), ".zip")
		if f.Architecture != "" && !strings.HasSuffix(f.Release, "-"+f.Architecture) {
			say(wrong, "its code is the release "+f.Release+", but it runs on "+f.Architecture+": it does not start", "deploy the zip of that architecture")
		}
		return
	}
	switch {
	case f.sam:
		say(note, "its code cannot be compared with a release, because SAM makes zips of its own", "")
	case dist == "" || len(zips) == 0:
		say(note, "its code was not compared with a release: there are no zips in "+cmp.Or(dist, "DIST, which is not given"), "")
	default:
		say(wrong, "its code is none of the releases in "+dist, "deploy a release, or get the zip that it should be")
	}
}

// sum is the base64 of the file's SHA-256, as Lambda's CodeSha256.
func sum(name string) (string, error) {
	file, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer file.Close()
	h := sha256.New()
	if _, err := io.Copy(h, file); err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(h.Sum(nil)), nil
}
