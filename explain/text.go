package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

const maxShown = 240 // characters of a value

// show makes a stranger's text safe for a terminal: control and bidirectional characters are escaped, and it is cut.
func show(text string) string {
	var b strings.Builder
	for n := 0; text != ""; n++ {
		if n == maxShown {
			fmt.Fprintf(&b, "… (%d bytes more)", len(text))
			break
		}
		r, width := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError && width == 1:
			fmt.Fprintf(&b, `\x%02x`, text[0])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		text = text[width:]
	}
	return b.String()
}

// coloured reports whether out is a terminal whose owner did not refuse colours (no-color.org).
func coloured(out io.Writer, getenv func(string) string) bool {
	file, ok := out.(*os.File)
	return ok && term.IsTerminal(int(file.Fd())) && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"
}

func (r *report) writeJSON(out io.Writer) error {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// write prints the report for eyes.
func (r *report) write(out io.Writer, colours bool) error {
	paint := func(code, text string) string {
		if !colours {
			return text
		}
		return "\x1b[" + code + "m" + text + "\x1b[0m"
	}
	good, bad, faint := func(s string) string { return paint("32", s) }, func(s string) string { return paint("1;31", s) }, func(s string) string { return paint("2", s) }
	var b strings.Builder
	for _, note := range r.Notes {
		fmt.Fprintln(&b, faint(note))
	}
	calm := false // whether the check before was passed
	for _, c := range r.Checks {
		mark := good("ok")
		if !c.OK {
			mark = bad("NO")
		}
		if !c.OK || !calm {
			fmt.Fprintln(&b)
		}
		calm = c.OK
		fmt.Fprintf(&b, "%s  %-10s %s\n", mark, c.Check, c.Found)
		if !c.OK && c.Expected != "" {
			fmt.Fprintf(&b, "    %-10s %s\n", "expected", c.Expected)
		}
		if c.Hint != "" {
			fmt.Fprintf(&b, "    %-10s %s\n", "hint", c.Hint)
		}
	}
	if len(r.Keys) > 0 {
		fmt.Fprintln(&b, "\nkeys")
		t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		for _, k := range r.Keys {
			use := strings.Join(k.Algorithms, " ")
			if k.Skipped != "" {
				use = "skipped: " + k.Skipped
			}
			fmt.Fprintf(t, "    %s\t%s\t%s\n", orDash(k.KeyID), orDash(k.KeyType), use)
		}
		_ = t.Flush() // into memory
	}
	if r.Routes != nil {
		fmt.Fprintf(&b, "\nroutes open    %s\n", orDash(strings.Join(r.Routes.Allow, ", ")))
		fmt.Fprintf(&b, "routes closed  %s\n", orDash(strings.Join(r.Routes.Deny, ", ")))
	}
	verdict := string(r.Verdict)
	if r.Reason != "" {
		verdict += ", " + string(r.Reason)
	}
	if r.Detail != "" {
		verdict += " (" + string(r.Detail) + ")"
	}
	if r.Verdict == allow {
		verdict = good(verdict)
	} else {
		verdict = bad(verdict)
	}
	fmt.Fprintf(&b, "\nverdict  %s\n", verdict)
	for _, line := range r.Meaning {
		fmt.Fprintf(&b, "         %s\n", line)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// moment is a time as a person reads it.
func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
