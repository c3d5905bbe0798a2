package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/term"
)

const (
	maxInput       = 4 << 20 // bytes that are read of the input; the authorizer takes tokens of 8 KiB
	maxEnvironment = 4 << 10 // bytes of names and values that Lambda takes (Lambda quotas)
)

// settings are the authorizer's variables.
type settings struct {
	variables map[string]string // of a file; nil: those of the environment
	outside   func(string) string
	asked     map[string]string // those that were asked for and are set
	notes     []string
}

// readSettings returns the variables of the environment, or of a file in its place.
func readSettings(o order, getenv func(string) string) (s settings, err error) {
	s.outside, s.asked = getenv, map[string]string{}
	if o.file == "" {
		s.notes = append(s.notes, "settings: from the environment")
		return s, nil
	}
	text, err := os.ReadFile(o.file)
	if err != nil {
		return s, fmt.Errorf("reading settings: %w", err)
	}
	var from string
	if s.variables, from, err = parseSettings(text, o.function); err != nil {
		return s, fmt.Errorf("reading settings from %s: %w", o.file, err)
	}
	s.notes = append(s.notes, "settings: "+from+" in "+o.file)
	return s, nil
}

func (s *settings) getenv(name string) string {
	value := s.variables[name]
	if s.variables == nil {
		value = s.outside(name)
	}
	if value != "" {
		s.asked[name] = value
	}
	return value
}

// size says how much of Lambda's environment the variables take. Of this process's own only the authorizer's count.
func (s *settings) size() string {
	variables := s.variables
	if variables == nil {
		variables = s.asked
	}
	n := 0
	for name, value := range variables {
		n += len(name) + len(value)
	}
	text := fmt.Sprintf("settings: %d of the %d bytes that a Lambda function's environment may have", n, maxEnvironment)
	if n > maxEnvironment {
		text += ": Lambda refuses them"
	}
	return text
}

// parseSettings reads a file of sam local's form (by function, or Parameters for all), or what aws lambda
// get-function-configuration or get-function prints. Its errors name no values, and no variables of others.
func parseSettings(text []byte, function string) (variables map[string]string, from string, err error) {
	var file map[string]json.RawMessage
	if json.Unmarshal(text, &file) != nil {
		return nil, "", errors.New("it is not a JSON object; sam local's form is {\"AuthorizerFunction\": {\"ISSUER\": \"https://...\"}}")
	}
	if inner, ok := file["Configuration"]; ok && file["Environment"] == nil {
		_ = json.Unmarshal(inner, &file) // of get-function
	}
	if raw, ok := file["Environment"]; ok {
		var e struct {
			Variables map[string]string
			Error     *struct{ ErrorCode string }
		}
		switch err := json.Unmarshal(raw, &e); {
		case err != nil:
			return nil, "", errors.New("its Environment is not what aws lambda get-function-configuration prints")
		case e.Error != nil:
			return nil, "", fmt.Errorf("AWS could not decrypt the variables (%s): the caller of get-function-configuration needs kms:Decrypt for the function's key", show(e.Error.ErrorCode))
		}
		return e.Variables, "the function's Environment", nil
	}
	var with []string // functions that have an issuer
	for _, name := range slices.Sorted(maps.Keys(file)) {
		var members map[string]any
		if json.Unmarshal(file[name], &members) == nil && (members["ISSUER"] != nil || members["ISSUERS"] != nil) {
			with = append(with, name)
		}
	}
	name := function
	switch {
	case function != "":
	case file["Parameters"] != nil:
		name = "Parameters"
	case len(with) == 1:
		name = with[0]
	case len(with) == 0:
		return nil, "", errors.New("no function in it has ISSUER or ISSUERS")
	default:
		return nil, "", fmt.Errorf("several functions in it have an issuer: name one, -function %s", show(strings.Join(with, " or -function ")))
	}
	var members map[string]any
	if json.Unmarshal(file[name], &members) != nil {
		return nil, "", fmt.Errorf("it has no variables for %s", show(name))
	}
	variables = make(map[string]string, len(members))
	for member, value := range members {
		if value != nil { // sam local sets numbers and booleans as text, too
			variables[member] = fmt.Sprint(value)
		}
	}
	return variables, show(name), nil
}

// readToken returns the header's value that the input stands for: the input itself, or a bare token behind its scheme.
func readToken(stdin io.Reader, stderr io.Writer, scheme string, r *report) (value string, err error) {
	if file, ok := stdin.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		fmt.Fprintln(stderr, "The token, then Enter and Ctrl-D:")
	}
	text, err := io.ReadAll(io.LimitReader(stdin, maxInput))
	if err != nil {
		return "", fmt.Errorf("reading the token from standard input: %w", err)
	}
	value = strings.TrimRight(string(text), "\r\n") // what echo and editors put there
	if scheme != "" && strings.Count(value, ".") == 2 && !strings.ContainsAny(value, " \t\r\n\"':") {
		r.Notes = append(r.Notes, fmt.Sprintf("the input is a token alone: it is judged as the header's value with %s before it", scheme))
		return scheme + " " + value, nil
	}
	return value, nil
}
