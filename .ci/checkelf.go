//go:build ignore

// Checkelf ends with an error unless the binaries are what Lambda is to run: of the architecture named first, static
// and stripped.
package main

import (
	"debug/elf"
	"fmt"
	"os"
	"strings"
)

var machines = map[string]elf.Machine{"arm64": elf.EM_AARCH64, "x86_64": elf.EM_X86_64}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: checkelf arm64|x86_64 binary...")
		os.Exit(2)
	}
	for _, name := range os.Args[2:] {
		if err := check(name, machines[os.Args[1]]); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			os.Exit(1)
		}
	}
}

func check(name string, want elf.Machine) error {
	f, err := elf.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if f.Machine != want {
		return fmt.Errorf("built for %v, not %v", f.Machine, want)
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
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	fmt.Printf("%s: %v, static, stripped, %d KB\n", name, f.Machine, info.Size()>>10)
	return nil
}
