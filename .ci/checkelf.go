//go:build ignore

// Checkelf ends with an error unless the binaries are what Lambda is to run: of the architecture named first, static,
// stripped, compiled with our settings and no others, and executable for everybody.
package main

import (
	"debug/buildinfo"
	"debug/elf"
	"fmt"
	"maps"
	"os"
	"strings"
)

type target struct {
	machine  elf.Machine
	settings map[string]string // those that differ from one to the other
}

var targets = map[string]target{
	"arm64":  {elf.EM_AARCH64, map[string]string{"GOARCH": "arm64", "GOARM64": "v8.0"}},
	"x86_64": {elf.EM_X86_64, map[string]string{"GOARCH": "amd64", "GOAMD64": "v1"}},
}

func main() {
	if len(os.Args) < 3 || targets[os.Args[1]].settings == nil {
		fmt.Fprintln(os.Stderr, "usage: checkelf arm64|x86_64 binary...")
		os.Exit(2)
	}
	for _, name := range os.Args[2:] {
		if err := check(name, targets[os.Args[1]]); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			os.Exit(1)
		}
	}
}

func check(name string, want target) error {
	f, err := elf.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if f.Machine != want.machine {
		return fmt.Errorf("built for %v, not %v", f.Machine, want.machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			return fmt.Errorf("dynamically linked: it has a %v segment", p.Type)
		}
	}
	for _, s := range f.Sections {
		if s.Name == ".symtab" || strings.HasPrefix(s.Name, ".debug_") || strings.HasPrefix(s.Name, ".zdebug_") {
			return fmt.Errorf("not stripped: it has a section %s", s.Name)
		}
	}
	build, err := buildinfo.ReadFile(name)
	if err != nil {
		return err
	}
	settings := map[string]string{}
	for _, s := range build.Settings {
		settings[s.Key] = s.Value
	}
	all := map[string]string{"-buildmode": "exe", "-compiler": "gc", "-tags": "lambda.norpc", "-trimpath": "true", "CGO_ENABLED": "0", "GOOS": "linux"}
	maps.Copy(all, want.settings)
	if !maps.Equal(settings, all) {
		return fmt.Errorf("compiled with %v, not with %v", settings, all)
	}
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	if info.Mode().Perm() != 0o755 {
		return fmt.Errorf("its mode is %v: Lambda runs it as another user", info.Mode())
	}
	fmt.Printf("%s: %v, static, stripped, %d KB\n", name, f.Machine, info.Size()>>10)
	return nil
}
