package main

import (
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Nothing is compared that does not verify.
func TestJudge(t *testing.T) {
	t.Parallel()
	i, err := newIssuer(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.server.Close() })
	for _, c := range []struct {
		function string
		verifies bool
		want     string // in the error
	}{
		{"hello", false, ""},
		{"hello", true, "EdDSA of another's key: it allows it"},
		{"keyfunc", true, ""},
		{"oidc", true, ""},
	} {
		binary := filepath.Join(t.TempDir(), "bootstrap")
		if out, err := exec.CommandContext(t.Context(), "go", "build", "-tags", "lambda.norpc", "-o", binary, "./"+c.function).CombinedOutput(); err != nil {
			t.Fatalf("compiling %s: %v\n%s", c.function, err, out)
		}
		err := (&bench{issuer: i}).judge(t.Context(), contestant{binary: binary, verifies: c.verifies})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s, as one that verifies (%v): %v, want %q", c.function, c.verifies, err, c.want)
		}
	}
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	samples := []float64{4, 1, 3, 2}
	for _, c := range []struct{ q, want float64 }{{0, 1}, {0.5, 2.5}, {0.9, 3.7}, {1, 4}} {
		if got := quantile(samples, c.q); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%v of %v is %v, want %v", c.q, samples, got, c.want)
		}
	}
	if !math.IsNaN(median(nil)) || !math.IsNaN(mean(nil)) {
		t.Error("nothing has a median or a mean")
	}
}

func TestInsert(t *testing.T) {
	t.Parallel()
	page := filepath.Join(t.TempDir(), "page.md")
	for _, c := range []struct{ before, after string }{
		{"a\n" + beginning + "old\n" + end + "b\n", "a\n" + beginning + "\nnew\n" + end + "b\n"},
		{"a\n" + end, ""},
		{"a\n" + beginning, ""},
	} {
		if err := os.WriteFile(page, []byte(c.before), 0o600); err != nil {
			t.Fatal(err)
		}
		err := insert(page, "new")
		text, _ := os.ReadFile(page)
		if c.after == "" && (err == nil || string(text) != c.before) || c.after != "" && string(text) != c.after {
			t.Errorf("%q becomes %q, %v", c.before, text, err)
		}
	}
}
