package template

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// promises are the fenced lists of a section of docs/stability.md.
func promises(t *testing.T, section string) (lists []string) {
	t.Helper()
	_, body, ok := strings.Cut(file(t, "docs/stability.md"), "\n## "+section+"\n")
	if !ok {
		t.Fatalf("docs/stability.md has no section %s", section)
	}
	body, _, _ = strings.Cut(body, "\n## ")
	parts := strings.Split(body, "```\n")
	for i := 1; i < len(parts); i += 2 {
		lists = append(lists, parts[i])
	}
	return lists
}

func sorted(all []string) []string {
	all = slices.Clone(all)
	slices.Sort(all)
	return slices.Compact(all)
}

// promised holds what the code or the template has to what docs/stability.md says.
func promised(t *testing.T, what string, has []string, says string) {
	t.Helper()
	has, want := sorted(has), sorted(strings.Fields(says))
	if len(want) == 0 {
		t.Errorf("docs/stability.md has no %s", what)
	}
	for _, name := range has {
		if !slices.Contains(want, name) {
			t.Errorf("docs/stability.md does not have %s, of the %s", name, what)
		}
	}
	for _, name := range want {
		if !slices.Contains(has, name) {
			t.Errorf("docs/stability.md promises %s, of the %s, which there is not any more", name, what)
		}
	}
}

// parsed are a folder's files, its tests left out.
func parsed(t *testing.T, dir string) (files []*ast.File) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	if len(files) == 0 {
		t.Fatalf("%s has no code", dir)
	}
	return files
}

// each calls f for every node of one type in a folder's code.
func each[N ast.Node](t *testing.T, dir string, f func(N)) {
	t.Helper()
	for _, code := range parsed(t, dir) {
		ast.Inspect(code, func(n ast.Node) bool {
			if n, ok := n.(N); ok {
				f(n)
			}
			return true
		})
	}
}

// literal is a string's or a number's text.
func literal(e ast.Expr) string {
	lit, ok := e.(*ast.BasicLit)
	if !ok {
		return ""
	}
	if s, err := strconv.Unquote(lit.Value); err == nil {
		return s
	}
	return lit.Value
}

// called is a function's name, with its package's or its receiver's.
func called(c *ast.CallExpr) string {
	switch f := c.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		if x, ok := f.X.(*ast.Ident); ok {
			return x.Name + "." + f.Sel.Name
		}
		return "." + f.Sel.Name
	}
	return ""
}

// attributes are the names that a folder's code gives to slog's attributes, and the literal values of some.
func attributes(t *testing.T, dir string) (names []string, valuesOf map[string][]string) {
	valuesOf = map[string][]string{}
	each(t, dir, func(c *ast.CallExpr) {
		if strings.HasPrefix(called(c), "slog.") && len(c.Args) == 2 && literal(c.Args[0]) != "" {
			name := literal(c.Args[0])
			names = append(names, name)
			if v := literal(c.Args[1]); v != "" {
				valuesOf[name] = append(valuesOf[name], v)
			}
		}
	})
	return names, valuesOf
}

// constants are the values of a folder's constants of a type.
func constants(t *testing.T, dir, kind string) (all []string) {
	each(t, dir, func(v *ast.ValueSpec) {
		if name, ok := v.Type.(*ast.Ident); ok && name.Name == kind && len(v.Values) == 1 && literal(v.Values[0]) != "" {
			all = append(all, literal(v.Values[0]))
		}
	})
	return all
}

func byName(list string) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(list) {
		name, rest, _ := strings.Cut(line, ":")
		all[name] = rest
	}
	return all
}

func TestStableVariables(t *testing.T) {
	says := promises(t, "Variables")[0]
	names := regexp.MustCompile(`=\S*`).ReplaceAllString(says, "")
	promised(t, "template's variables", slices.Collect(maps.Keys(ownVariables(t))), names)
	var read []string
	each(t, "internal/config", func(c *ast.CallExpr) { // r.duration("LEEWAY", "30s", ...), getenv("RULES")
		if len(c.Args) > 0 && regexp.MustCompile(`^[A-Z]+(_[A-Z]+)*$`).MatchString(literal(c.Args[0])) {
			byDefault := ""
			if len(c.Args) > 1 {
				byDefault = literal(c.Args[1])
			}
			read = append(read, literal(c.Args[0])+"="+byDefault)
		}
	})
	promised(t, "variables that the code reads", read, says)
}

// ownVariables are the authorizer's in the template, without those that Go, the AWS SDK or nobody reads.
func ownVariables(t *testing.T) object {
	all := maps.Clone(at(template(t), "Resources", "AuthorizerFunction", "Properties", "Environment", "Variables").(object))
	for _, others := range []string{"HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "GODEBUG", "AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT", "RESTART"} {
		delete(all, others)
	}
	return all
}

func TestStableTemplate(t *testing.T) {
	tmpl := template(t)
	var parameters []string
	for name, p := range tmpl["Parameters"].(object) {
		parameters = append(parameters, name+"="+text(p, "Default"))
	}
	promised(t, "parameters", parameters, promises(t, "Parameters")[0])
	promised(t, "outputs", keys(tmpl["Outputs"]), promises(t, "Outputs")[0])
	promised(t, "metrics", metrics(t, tmpl), promises(t, "Metrics")[0])
}

func TestStableLogLines(t *testing.T) {
	says := promises(t, "Log lines")
	fields, values := byName(says[0]), byName(says[1])
	equal(t, "lines", slices.Sorted(maps.Keys(fields)), []string{"decision", "fetch", "lease", "rest", "start"})

	decision, given := attributes(t, "authorizer")
	promised(t, "fields of decision", decision, fields["decision"])
	fetch, sources := attributes(t, "internal/keycache")
	var table []string
	each(t, "internal/config", func(c *ast.CallExpr) {
		if called(c) == "events.With" { // what all lines about keys have, and then what fetches alone have
			for i := 0; i < len(c.Args); i += 2 {
				fetch = append(fetch, literal(c.Args[i]))
				if name := literal(c.Args[i]); !strings.HasSuffix(name, "_s") {
					table = append(table, name)
				}
			}
		}
	})
	promised(t, "fields of lease", table, fields["lease"])
	promised(t, "fields of rest", table, fields["rest"])
	promised(t, "fields of fetch", fetch, fields["fetch"])
	var start []string
	each(t, "authorizer", func(c *ast.CallExpr) {
		if len(c.Args) > 0 && literal(c.Args[0]) == "start" {
			for i := 1; i < len(c.Args); i += 2 {
				start = append(start, literal(c.Args[i]))
			}
		}
	})
	promised(t, "fields of start", start, fields["start"])

	var verdicts, apis []string
	each(t, "authorizer", func(a *ast.AssignStmt) {
		for i, l := range a.Lhs {
			if name, ok := l.(*ast.Ident); ok && name.Name == "verdict" {
				verdicts = append(verdicts, literal(a.Rhs[i]))
			}
		}
	})
	each(t, "internal/apigw", func(f *ast.FuncDecl) {
		if f.Name.Name == "API" {
			ast.Inspect(f, func(n ast.Node) bool {
				if r, ok := n.(*ast.ReturnStmt); ok && literal(r.Results[0]) != "" {
					apis = append(apis, literal(r.Results[0]))
				}
				return true
			})
		}
	})
	has := map[string][]string{
		"verdict": verdicts, "api": apis, "answer": given["answer"], "source": sources["source"],
		"reason": constants(t, "internal/jwt", "Reason"), "detail": constants(t, "internal/jwt", "Detail"), "outcome": constants(t, "internal/keycache", "Outcome"),
	}
	equal(t, "fields with fixed values", slices.Sorted(maps.Keys(values)), slices.Sorted(maps.Keys(has)))
	for field, list := range has {
		promised(t, "values of "+field, list, values[field])
	}
}

func TestStableContext(t *testing.T) {
	var reserved []string
	each(t, "internal/apigw", func(v *ast.ValueSpec) {
		if v.Names[0].Name == "reserved" {
			for _, e := range v.Values[0].(*ast.CompositeLit).Elts {
				reserved = append(reserved, literal(e))
			}
		}
	})
	promised(t, "reserved names", reserved, promises(t, "Context")[0])
}

func TestStableCommands(t *testing.T) {
	var flags []string
	each(t, "explain", func(c *ast.CallExpr) { // f.StringVar(&o.file, "env", ...)
		if strings.HasPrefix(called(c), "f.") && strings.HasSuffix(called(c), "Var") {
			flags = append(flags, "-"+literal(c.Args[1]))
		}
	})
	promised(t, "flags of explain", flags, promises(t, "Commands")[0])

	exits := func(dir string) (all []string) {
		each(t, dir, func(c *ast.CallExpr) {
			if called(c) == "os.Exit" && literal(c.Args[0]) != "" {
				all = append(all, literal(c.Args[0]))
			}
		})
		return all
	}
	var explain []string
	each(t, "explain", func(v *ast.ValueSpec) {
		if slices.Contains([]string{"allowed", "refused", "unknown"}, v.Names[0].Name) {
			explain = append(explain, v.Names[0].Name+"="+literal(v.Values[0]))
		}
	})
	equal(t, "explain's statuses", explain, []string{"allowed=0", "refused=1", "unknown=2"})
	has := map[string][]string{"authorizer": exits("authorizer"), "explain": {"0", "1", "2"}, "tools/dist": append(exits("tools/dist"), "0")}
	rows := regexp.MustCompile("(?m)^\\| `(\\S+)` \\|(.*)\\|(.*)\\|(.*)\\|$").FindAllStringSubmatch(file(t, "docs/stability.md"), -1)
	equal(t, "commands", len(rows), len(has))
	for _, row := range rows {
		says := ""
		for status, cell := range row[2:] {
			if strings.TrimSpace(cell) != "" {
				says += strconv.Itoa(status) + " "
			}
		}
		promised(t, row[1]+"'s exit statuses", has[row[1]], says)
	}
}
