package main

import (
	"archive/zip"
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

func TestMain(m *testing.M) {
	if err := os.Chdir("../.."); err != nil { // where dist runs
		panic(err)
	}
	os.Exit(m.Run())
}

// Whatever resources the real template has, each transformation changes these parts of it and no others.
func TestTemplates(t *testing.T) {
	text, err := os.ReadFile("template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	stable, err := os.ReadFile("docs/stability.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		make      func([]byte, string) ([]byte, error)
		code      []string // of the authorizer
		arch, new []string
	}{
		"CloudFormation": {
			forCloudFormation, []string{"Bucket=!Ref CodeBucket", "Key=!Sub ${CodePrefix}authorizer-1.2.3-${Architecture}.zip"},
			[]string{"=!Ref Architecture"},
			[]string{"Parameters/CodeBucket", "Parameters/CodePrefix", "Parameters/Architecture", "Resources/AuthorizerFunction/Properties/CodeUri", "Resources/ProtectedFunction/Properties/CodeUri"},
		},
		"the repository": {
			forRepository, []string{"= ./authorizer-1.2.3-arm64.zip"}, []string{"= arm64"},
			[]string{"Resources/AuthorizerFunction/Properties/CodeUri", "Resources/ProtectedFunction/Properties/CodeUri"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			made, err := c.make(text, "1.2.3")
			if err != nil {
				t.Fatal(err)
			}
			before, after := leaves(t, text), leaves(t, made)
			code, arch := below(after, "Resources/AuthorizerFunction/Properties/CodeUri"), below(after, "Globals/Function/Architectures/0")
			if !slices.Equal(code, c.code) || !slices.Equal(arch, c.arch) {
				t.Errorf("code %q, architecture %q", code, arch)
			}
			gone := []string{"Mappings/Build", "Globals/Function/CodeUri", "Globals/Function/Architectures", "Resources/AuthorizerFunction/Metadata", "Resources/ProtectedFunction/Metadata"}
			for id, kind := range resources(t, text) {
				if name == "the repository" && !repositoryTypes.MatchString(kind) {
					gone = append(gone, "Resources/"+id)
				}
			}
			in := func(path string, of []string) bool {
				return slices.ContainsFunc(of, func(p string) bool { return path == p || strings.HasPrefix(path, p+"/") })
			}
			for path, v := range before {
				if got, ok := after[path]; !in(path, gone) && (!ok || got != v) {
					t.Errorf("%s is %q, was %q", path, got, v)
				}
			}
			for path, v := range after {
				if in(path, gone) && !in(path, []string{"Globals/Function/Architectures"}) {
					t.Errorf("%s is still there: %q", path, v)
				}
				if _, ok := before[path]; !ok && !in(path, c.new) && !in(path, []string{"Globals/Function/Architectures"}) {
					t.Errorf("%s is new: %q", path, v)
				}
			}
			for _, path := range c.new {
				if name, ok := strings.CutPrefix(path, "Parameters/"); ok && !bytes.Contains(stable, []byte("`"+name+"`")) {
					t.Errorf("docs/stability.md does not have the parameter %s", name)
				}
			}
			for _, word := range []string{"!Contains", "BuildMethod", "makefile", ".aws-sam", "FindInMap [Build"} {
				if bytes.Contains(made, []byte(word)) {
					t.Errorf("it says %s", word)
				}
			}
		})
	}
}

// leaves are a template's scalars by path, with the tags that are no YAML's own.
func leaves(t *testing.T, text []byte) map[string]string {
	t.Helper()
	all := map[string]string{}
	var collect func(path string, n *yaml.Node)
	collect = func(path string, n *yaml.Node) {
		tag := ""
		if strings.HasPrefix(n.Tag, "!") && !strings.HasPrefix(n.Tag, "!!") {
			tag = n.Tag
		}
		if slices.Contains(ruleFunctions, tag) {
			path, tag = path+"/Fn::"+tag[1:], ""
		}
		switch n.Kind {
		case yaml.MappingNode:
			for name, v := range members(n) {
				collect(path+tag+"/"+name, v)
			}
		case yaml.SequenceNode:
			for i, v := range n.Content {
				collect(fmt.Sprintf("%s%s/%d", path, tag, i), v)
			}
		default:
			all[path] = tag + " " + n.Value
		}
	}
	root, err := parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range members(root) {
		collect(name, v)
	}
	return all
}

// below are the leaves at a path and under it, as name=value.
func below(all map[string]string, path string) (found []string) {
	for p, v := range all {
		if rest, ok := strings.CutPrefix(p, path); ok && (rest == "" || rest[0] == '/') {
			found = append(found, strings.TrimPrefix(rest, "/")+"="+v)
		}
	}
	slices.Sort(found)
	return found
}

func resources(t *testing.T, text []byte) map[string]string {
	t.Helper()
	root, err := parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]string{}
	for id, r := range members(member(root, "Resources")) {
		kinds[id] = member(r, "Type").Value
	}
	return kinds
}

const small = `
Parameters: {P: {Type: String}}
Mappings: {Build: {Functions: {Architecture: arm64}}}
Resources:
  AuthorizerFunction: {Type: 'AWS::Serverless::Function', Properties: {Architectures: [!FindInMap [Build, Functions, Architecture]]}}
  ProtectedFunction: {Type: 'AWS::Serverless::Function', Properties: {}}
`

// A resource that the repository does not take goes, with the outputs that tell of it; what needs it is no template any more.
func TestRepositoryTypes(t *testing.T) {
	query := "  Query: {Type: 'AWS::Logs::QueryDefinition', Properties: {}}\n"
	for name, c := range map[string]struct{ more, err string }{
		"alone":          {query, ""},
		"in an output":   {query + "Outputs: {Id: {Value: !Sub 'id:${Query}'}}\n", ""},
		"in a reference": {query + "  Topic: {Type: 'AWS::SNS::Topic', Properties: {TopicName: !GetAtt Query.Id}}\n", "the resource Topic needs Query"},
		"in DependsOn":   {query + "  Topic: {Type: 'AWS::SNS::Topic', DependsOn: [Query]}\n", "the resource Topic needs Query"},
		"a deployment":   {"  D: {Type: 'AWS::CodeDeploy::Application'}\n", ""},
	} {
		made, err := forRepository([]byte(small+c.more), "1.2.3")
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || len(resources(t, made)) != 2 || bytes.Contains(made, []byte("Outputs")) {
			t.Errorf("%s: %v\n%s", name, err, made)
		}
	}
}

func TestUnknownFunction(t *testing.T) {
	for _, text := range []string{
		small + "  OtherFunction: {Type: 'AWS::Serverless::Function', Properties: {}}\n",
		strings.Replace(small, "  ProtectedFunction", "  Protected: {Type: 'AWS::SNS::Topic'}\n#", 1),
	} {
		if made, err := forCloudFormation([]byte(text), "1.2.3"); err == nil {
			t.Errorf("made\n%s", made)
		}
	}
}

func TestZip(t *testing.T) {
	dir := t.TempDir()
	var first []byte
	for i, mode := range []os.FileMode{0o700, 0o644} {
		name := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(name, []byte("code"), mode); err != nil {
			t.Fatal(err)
		}
		b, err := zipped(name)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = b
		}
		if !bytes.Equal(b, first) {
			t.Error("the file's name or mode changes the zip")
		}
	}
	z, err := zip.NewReader(bytes.NewReader(first), int64(len(first)))
	if err != nil {
		t.Fatal(err)
	}
	if len(z.File) != 1 || z.File[0].Name != "bootstrap" || z.File[0].Mode() != 0o755 {
		t.Errorf("it holds %v with mode %v", z.File[0].Name, z.File[0].Mode())
	}
	if then := z.File[0].Modified; !then.Equal(time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("it says when it was made: %v", then)
	}
}

// A license is a module's or, below it, a package's own. What is not linked in is left out.
func TestLicenses(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"LICENSE.txt", "a/NOTICE", "a/code.go", "b/LICENSE"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte("the text\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	in := func(at, path string) (p linkedPackage) {
		list := fmt.Sprintf(`{"Dir": %q, "Module": {"Path": %q, "Version": "v1.0.0", "Dir": %q}}`, filepath.Join(dir, at), path, dir)
		if err := json.Unmarshal([]byte(list), &p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	one := map[string]bool{"m.example@v1.0.0": true}
	files, err := licenseFiles([]linkedPackage{{Standard: true}, in("a", "m.example")}, one)
	if err != nil {
		t.Fatal(err)
	}
	text, err := joined(files)
	if want := "\nm.example@v1.0.0/LICENSE.txt\nm.example@v1.0.0/a/NOTICE\n\nthe text\n"; err != nil || !strings.HasSuffix(string(text), want) {
		t.Errorf("%v, %q", err, text)
	}
	bare := in(".", "bare.example")
	bare.Dir = t.TempDir()
	bare.Module.Dir = bare.Dir
	for want, packages := range map[string][]linkedPackage{
		"bare.example@v1.0.0 has no license":                           {in(".", "m.example"), bare},
		"go list [m.example@v1.0.0 other.example@v1.0.0]":              {in(".", "m.example"), in("b", "other.example")},
		"the binaries name the modules [m.example@v1.0.0], go list []": nil,
	} {
		if files, err := licenseFiles(packages, one); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, %v, not %s", files, err, want)
		}
	}
}

// Each module of a function is in its SBOM, and what it is licensed under.
func TestSBOM(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "bootstrap")
	if _, err := output(nil, "tools/build.sh", binary, "./protected"); err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"std@" + info.GoVersion}
	for _, m := range info.Deps {
		want = append(want, m.Path+"@"+m.Version)
	}
	slices.Sort(want)
	text, err := sbom(binary, "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	type component struct {
		Name, Version      string
		Licenses, Evidence any
	}
	var bom struct {
		BomFormat  string
		Metadata   struct{ Component component }
		Components []component
	}
	if err := json.Unmarshal(text, &bom); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range append(bom.Components, bom.Metadata.Component) {
		if c.Licenses == nil && c.Evidence == nil {
			t.Errorf("%s has no license", c.Name)
		}
	}
	for _, c := range bom.Components {
		got = append(got, c.Name+"@"+c.Version)
	}
	slices.Sort(got)
	if self := bom.Metadata.Component; bom.BomFormat != "CycloneDX" || self.Name != "zuplo-lambda-authorizer" || self.Version != "v1.2.3" || !slices.Equal(got, want) {
		t.Errorf("it is of %v and lists %q, not %q", self, got, want)
	}
}

func TestCompare(t *testing.T) {
	want := map[string][]byte{"a": []byte("1"), "b": []byte("2")}
	for name, c := range map[string]struct {
		files map[string]string
		says  string
		err   error
	}{
		"the same": {map[string]string{"a": "1", "b": "2"}, "same     a\nsame     b\n", nil},
		"a byte":   {map[string]string{"a": "1", "b": "3"}, "same     a\ndiffers  b\n", errDiffers},
		"one less": {map[string]string{"a": "1"}, "same     a\nmissing  b\n", errDiffers},
		"one more": {map[string]string{"a": "1", "b": "2", "c": ""}, "same     a\nsame     b\nextra    c\n", errDiffers},
	} {
		dir := t.TempDir()
		for name, text := range c.files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		var says bytes.Buffer
		if err := compare(&says, dir, want); !errors.Is(err, c.err) || says.String() != c.says {
			t.Errorf("%s: %v, %q", name, err, &says)
		}
	}
}

// What cannot be compared is no difference.
func TestVerifyNeedsARelease(t *testing.T) {
	for name, template := range map[string]string{"no folder": "", "another version": "Metadata:\n  A:\n    SemanticVersion: 0.0.9\n"} {
		dir := t.TempDir()
		if template == "" {
			dir = filepath.Join(dir, "none")
		} else if err := os.WriteFile(filepath.Join(dir, "template.yaml"), []byte(template), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := verify(&bytes.Buffer{}, dir); err == nil || errors.Is(err, errDiffers) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReleasable(t *testing.T) {
	dated := source{version: "1.2.3", date: "2026-12-01"}
	for name, c := range map[string]struct {
		source         source
		tag, goVersion string
		want           string
	}{
		"released":   {dated, "v1.2.3", "go1.26.8", ""},
		"other tag":  {dated, "v1.2.4", "go1.26.8", "the tag is v1.2.4"},
		"no date":    {source{version: "1.2.3", date: "Unreleased"}, "v1.2.3", "go1.26.8", "unreleased"},
		"another Go": {dated, "v1.2.3", "go1.26.7", "this is go1.26.7"},
	} {
		err := c.source.releasable(c.tag, c.goVersion, "go1.26.8")
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The changelog begins with the version, and its notes end where the version before begins.
func TestSource(t *testing.T) {
	s, err := readSource()
	if err != nil {
		t.Fatal(err)
	}
	if s.version == "" || !strings.Contains(s.notes, "### Security\n") || strings.Contains(s.notes, "\n## ") {
		t.Errorf("version %q, notes %q", s.version, s.notes)
	}
}
