// Dist makes a release of what is checked out, or makes it anew and compares:
//
//	dist [-tag vVERSION] build DIR     the release, in DIR, which is emptied before
//	dist verify DIR                    whether DIR holds the bytes that come of this checkout
//
// It runs in the repository's root. The same code and the same version of Go give the same bytes, wherever that is.
// Its exit status is 0, or 1 for a release that differs, or 2 if it could not build or compare.
package main

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// architectures are Lambda's names for what the functions are compiled for, with Go's.
var architectures = map[string]string{"arm64": "arm64", "x86_64": "amd64"}

// functions are the folders of the functions' commands, as zips are named.
var functions = []string{"authorizer", "protected"}

// errDiffers is the verdict about a release; every other error is one of making or reading it.
var errDiffers = errors.New("the release is not what comes of this checkout")

func main() {
	tag := flag.String("tag", "", "the tag that is released: it must name the version, and the changelog must give its date")
	flag.Parse()
	var err error
	switch flag.Arg(0) {
	case "build":
		err = release(*tag, flag.Arg(1))
	case "verify":
		err = verify(os.Stdout, flag.Arg(1))
	default:
		err = errors.New("usage: dist [-tag vVERSION] build DIR, or dist verify DIR")
	}
	switch {
	case errors.Is(err, errDiffers):
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "dist:", err)
		os.Exit(2)
	}
}

// release builds into dir, and its notes into build/notes.md, from the changelog.
func release(tag, dir string) error {
	source, err := readSource()
	if err != nil {
		return err
	}
	if tag != "" {
		goVersion, err := output(nil, "go", "env", "GOVERSION")
		if err != nil {
			return err
		}
		pinned, err := os.ReadFile(".go-version")
		if err != nil {
			return err
		}
		if err := source.releasable(tag, strings.TrimSpace(goVersion), "go"+strings.TrimSpace(string(pinned))); err != nil {
			return err
		}
	}
	files, err := build(source)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return err
		}
	}
	if err := os.MkdirAll("build", 0o755); err != nil {
		return err
	}
	fmt.Print(string(files["SHA256SUMS"]))
	return os.WriteFile("build/notes.md", []byte(source.notes), 0o644)
}

// A source is what a release is made of, besides the code.
type source struct {
	version  string // of template.yaml's metadata
	date     string // of the changelog's first version: YYYY-MM-DD, or Unreleased
	notes    string // the changelog's text about it
	template []byte
}

var (
	versionLine = regexp.MustCompile(`(?m)^    SemanticVersion: (\d+\.\d+\.\d+)$`)
	heading     = regexp.MustCompile(`(?m)^## \[(\d+\.\d+\.\d+)\] - (Unreleased|\d{4}-\d{2}-\d{2})$`)
)

func readSource() (s source, err error) {
	if s.template, err = os.ReadFile("template.yaml"); err != nil {
		return s, err
	}
	changelog, err := os.ReadFile("CHANGELOG.md")
	if err != nil {
		return s, err
	}
	if m := versionLine.FindSubmatch(s.template); m != nil {
		s.version = string(m[1])
	}
	all := heading.FindAllSubmatchIndex(changelog, 2)
	if len(all) == 0 || s.version == "" || string(changelog[all[0][2]:all[0][3]]) != s.version {
		return s, fmt.Errorf("CHANGELOG.md does not begin with the version of template.yaml's metadata, %s", s.version)
	}
	s.date = string(changelog[all[0][4]:all[0][5]])
	end := len(changelog)
	if len(all) > 1 {
		end = all[1][0]
	}
	s.notes = strings.TrimSpace(string(changelog[all[0][1]:end])) + "\n"
	return s, nil
}

// releasable says what keeps the source from being released under the tag.
func (s source) releasable(tag, goVersion, pinned string) error {
	switch {
	case tag != "v"+s.version:
		return fmt.Errorf("the tag is %s, the version in template.yaml's metadata is %s", tag, s.version)
	case s.date == "Unreleased":
		return fmt.Errorf("CHANGELOG.md calls %s unreleased: give its date there", s.version)
	case goVersion != pinned:
		return fmt.Errorf("this is %s, .go-version says that releases are built with %s", goVersion, pinned)
	}
	return nil
}

// build makes the release's files by name.
func build(s source) (map[string][]byte, error) {
	work, err := os.MkdirTemp("", "dist-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	files := map[string][]byte{}
	linked := map[string]bool{} // modules, as path@version
	for _, function := range functions {
		for arch, goarch := range architectures {
			name := fmt.Sprintf("%s-%s-%s", function, s.version, arch)
			binary := filepath.Join(work, name, "bootstrap")
			if _, err := output(nil, "tools/build.sh", binary, "./"+function, goarch); err != nil {
				return nil, err
			}
			if files[name+".zip"], err = zipped(binary); err != nil {
				return nil, err
			}
			if files[name+".cdx.json"], err = sbom(binary, s.version); err != nil {
				return nil, fmt.Errorf("listing what is in %s: %w", name, err)
			}
			info, err := buildinfo.ReadFile(binary)
			if err != nil {
				return nil, err
			}
			for _, m := range info.Deps {
				linked[m.Path+"@"+m.Version] = true
			}
		}
	}
	if files["LICENSES"], err = licenses(linked); err != nil {
		return nil, err
	}
	if files["template.yaml"], err = forCloudFormation(s.template, s.version); err != nil {
		return nil, fmt.Errorf("making the template: %w", err)
	}
	if files["application.yaml"], err = forRepository(s.template, s.version); err != nil {
		return nil, fmt.Errorf("making the template for the Serverless Application Repository: %w", err)
	}
	for _, name := range []string{"LICENSE", "README.md"} { // application.yaml names them
		if files[name], err = os.ReadFile(name); err != nil {
			return nil, err
		}
	}
	var sums bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(files[name]), name)
	}
	files["SHA256SUMS"] = sums.Bytes()
	return files, nil
}

// zipped is a zip of the binary alone, for everybody to execute and with a constant time.
func zipped(binary string) ([]byte, error) {
	code, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	h := &zip.FileHeader{Name: "bootstrap", Method: zip.Deflate, Modified: time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)}
	h.SetMode(0o755)
	w, err := z.CreateHeader(h)
	if err == nil {
		_, err = w.Write(code)
	}
	if err == nil {
		err = z.Close()
	}
	return b.Bytes(), err
}

// verify builds anew and compares, and tells of each file to w.
func verify(w io.Writer, dir string) error {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return fmt.Errorf("%q is no folder with a release", dir)
	}
	s, err := readSource()
	if err != nil {
		return err
	}
	released, err := os.ReadFile(filepath.Join(dir, "template.yaml"))
	if err != nil {
		return err
	}
	if m := versionLine.FindSubmatch(released); m == nil || string(m[1]) != s.version {
		return fmt.Errorf("this checkout is version %s and %s is not: check out the tag of the release", s.version, dir)
	}
	theirs, err := builtWith(filepath.Join(dir, "authorizer-"+s.version+"-arm64.zip"))
	if err != nil {
		return err
	}
	if ours, err := output(nil, "go", "env", "GOVERSION"); err != nil || strings.TrimSpace(ours) != theirs {
		return fmt.Errorf("the release was built with %[1]s, this is %[2]s: install %[1]s, or let Go fetch it with\n"+
			`  PATH="$(GOTOOLCHAIN=%[1]s go env GOROOT)/bin:$PATH" make verify-release DIR=%[3]s`, theirs, strings.TrimSpace(ours), dir)
	}
	want, err := build(s)
	if err != nil {
		return err
	}
	return compare(w, dir, want)
}

// builtWith is the version of Go that compiled the function in a zip.
func builtWith(name string) (string, error) {
	z, err := zip.OpenReader(name)
	if err != nil {
		return "", fmt.Errorf("opening %s: %w", name, err)
	}
	defer z.Close()
	f, err := z.Open("bootstrap")
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	info, err := buildinfo.Read(bytes.NewReader(b))
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return info.GoVersion, nil
}

// compare holds the folder to the files, all of them and no others.
func compare(w io.Writer, dir string, want map[string][]byte) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	names := maps.Clone(want)
	for _, e := range entries {
		names[e.Name()] = nil
	}
	var verdict error
	for _, name := range slices.Sorted(maps.Keys(names)) {
		got, err := os.ReadFile(filepath.Join(dir, name))
		is := "same"
		switch {
		case want[name] == nil:
			is = "extra"
		case errors.Is(err, os.ErrNotExist):
			is = "missing"
		case err != nil:
			return err
		case !bytes.Equal(got, want[name]):
			is = "differs"
		}
		if is != "same" {
			verdict = errDiffers
		}
		fmt.Fprintf(w, "%-8s %s\n", is, name)
	}
	return verdict
}

// output runs a command, with env beside the environment, and returns what it prints.
func output(env []string, name string, args ...string) (string, error) {
	c := exec.Command(name, args...)
	c.Env = append(os.Environ(), env...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("running %s: %w\n%s", c, err, stderr.String())
	}
	return string(out), nil
}
