package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// sbom lists what is linked into the binary, in CycloneDX.
func sbom(binary, version string) ([]byte, error) {
	text, err := output(nil, "go", "tool", "-modfile=tools/go.mod", "cyclonedx-gomod", "bin",
		"-json", "-noserial", "-notimestamp", "-short-purls", "-std", "-licenses", "-version", "v"+version, binary)
	if err != nil {
		return nil, err
	}
	type component = map[string]any
	var bom map[string]any
	if err := json.Unmarshal([]byte(text), &bom); err != nil {
		return nil, err
	}
	metadata := bom["metadata"].(map[string]any)
	for _, tool := range metadata["tools"].([]any) {
		delete(tool.(map[string]any), "hashes") // of the tool as it was compiled here
	}
	components := bom["components"].([]any)
	for _, c := range append(components, metadata["component"]) {
		c := c.(component)
		switch c["name"] { // the tool finds licenses in the module cache, where these two are not
		case "std":
			c["licenses"] = []any{map[string]any{"license": map[string]any{"id": "BSD-3-Clause"}}}
		case "zuplo-lambda-authorizer":
			c["licenses"] = []any{map[string]any{"license": map[string]any{"id": "MIT"}}}
		}
		if c["licenses"] == nil && c["evidence"] == nil { // evidence: what the tool took a license's text for
			return nil, fmt.Errorf("no license was found for %s", c["name"])
		}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err = e.Encode(bom)
	return b.Bytes(), err
}

// A linkedPackage is one of go list's.
type linkedPackage struct {
	Dir      string
	Standard bool
	Module   *struct {
		Path, Version, Dir string
		Main               bool
	}
}

var licenseFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents)([.-].*)?$`)

// licenses are the texts under which the packages of the modules are published, and the standard library's.
func licenses(modules map[string]bool) ([]byte, error) {
	packages, err := linkedPackages()
	if err != nil {
		return nil, err
	}
	files, err := licenseFiles(packages, modules)
	if err != nil {
		return nil, err
	}
	goroot, err := output(nil, "go", "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	files["the Go standard library"] = filepath.Join(strings.TrimSpace(goroot), "LICENSE")
	return joined(files)
}

// linkedPackages are those that the functions import, for either architecture.
func linkedPackages() (all []linkedPackage, err error) {
	for _, goarch := range architectures {
		env := []string{"GOOS=linux", "GOARCH=" + goarch, "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWORK=off"}
		args := []string{"list", "-deps", "-tags", "lambda.norpc", "-json=Dir,Standard,Module"}
		for _, f := range functions {
			args = append(args, "./"+f)
		}
		list, err := output(env, "go", args...)
		if err != nil {
			return nil, err
		}
		for d := json.NewDecoder(strings.NewReader(list)); d.More(); {
			var p linkedPackage
			if err := d.Decode(&p); err != nil {
				return nil, fmt.Errorf("reading go list's answer: %w", err)
			}
			all = append(all, p)
		}
	}
	return all, nil
}

// licenseFiles are the packages' licenses and notices, those in a package's folder and above it, by module@version/file. modules
// are those that the binaries name: they must be the packages', and each must have a license.
func licenseFiles(packages []linkedPackage, modules map[string]bool) (map[string]string, error) {
	files := map[string]string{}
	licensed := map[string]bool{} // by module: whether it has a license
	for _, p := range packages {
		if p.Standard || p.Module.Main {
			continue
		}
		module := p.Module.Path + "@" + p.Module.Version
		licensed[module] = licensed[module] || false
		for dir := p.Dir; strings.HasPrefix(dir, p.Module.Dir); dir = filepath.Dir(dir) {
			entries, err := os.ReadDir(dir)
			if err != nil {
				return nil, err
			}
			for _, e := range entries {
				if name := filepath.Join(dir, e.Name()); e.Type().IsRegular() && licenseFile.MatchString(e.Name()) {
					files[module+strings.TrimPrefix(name, p.Module.Dir)] = name
					licensed[module] = true
				}
			}
		}
	}
	for module, ok := range licensed {
		if !ok {
			return nil, fmt.Errorf("the module %s has no license", module)
		}
	}
	if !maps.Equal(licensed, modules) {
		return nil, fmt.Errorf("the binaries name the modules %v, go list %v", slices.Sorted(maps.Keys(modules)), slices.Sorted(maps.Keys(licensed)))
	}
	return files, nil
}

// joined writes each text once, below the names of those that it is for.
func joined(files map[string]string) ([]byte, error) {
	of := map[string][]string{} // names by text
	var texts []string
	for _, name := range slices.Sorted(maps.Keys(files)) {
		b, err := os.ReadFile(files[name])
		if err != nil {
			return nil, err
		}
		text := strings.TrimSpace(strings.ReplaceAll(string(b), "\r\n", "\n"))
		if of[text] == nil {
			texts = append(texts, text)
		}
		of[text] = append(of[text], name)
	}
	var b bytes.Buffer
	b.WriteString("What is linked into the functions, and under which terms. LICENSE is the functions' own.\n")
	for _, text := range texts {
		fmt.Fprintf(&b, "\n%s\n%s\n\n%s\n", strings.Repeat("-", 80), strings.Join(of[text], "\n"), text)
	}
	return b.Bytes(), nil
}
