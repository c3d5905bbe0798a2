package rules

import (
	"os"
	"slices"
	"testing"
)

// What examples/rules/README.md says that each kind of token may do with examples/rules/shop.json.
func TestShop(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../examples/rules/shop.json")
	if err != nil {
		t.Fatal(err)
	}
	set, warnings, err := Compile(string(text))
	if err != nil || len(warnings) > 0 { // a warning tells of routes that overlap
		t.Fatal(err, warnings)
	}
	if err := set.Fit(128, "", false); err != nil {
		t.Error(err)
	}
	routes := map[string][]Request{
		"products":    {{Method: "GET", Path: "/products"}, {Method: "GET", Path: "/products/5"}},
		"read orders": {{Method: "GET", Path: "/orders"}, {Method: "GET", Path: "/orders/17"}},
		"place":       {{Method: "POST", Path: "/orders"}},
		"admin":       {{Method: "GET", Path: "/admin"}, {Method: "PUT", Path: "/admin/prices"}, {Method: "DELETE", Path: "/admin/users/7"}},
		"nobody":      {{Method: "DELETE", Path: "/orders/17"}, {Method: "HEAD", Path: "/products"}, {Method: "GET", Path: "//products"}, {Method: "GET", Path: "/ADMIN"}, {Method: "GET", Path: "/administration"}},
	}
	for name, c := range map[string]struct {
		payload string
		may     []string
	}{
		"visitor":           {`{}`, []string{"products"}},
		"reader":            {`{"scope":"orders:read"}`, []string{"products", "read orders"}},
		"buyer":             {`{"scope":"orders:read orders:write","org":{"plan":"gold"}}`, []string{"products", "read orders", "place"}},
		"a plan too small":  {`{"scope":"orders:read orders:write","org":{"plan":"silver"}}`, []string{"products", "read orders"}},
		"the larger plan":   {`{"scope":"orders:read orders:write","org":{"plan":"platinum"}}`, []string{"products", "read orders", "place"}},
		"a plan, no scope":  {`{"scope":"orders:read","org":{"plan":"gold"}}`, []string{"products", "read orders"}},
		"staff":             {`{"role":["support","admin"]}`, []string{"products", "admin"}},
		"staff of no admin": {`{"role":["support"]}`, []string{"products"}},
	} {
		find := in(t, c.payload)
		for kind, requests := range routes {
			for _, r := range requests {
				if got, want := !set.Apply(r, find).Refused, slices.Contains(c.may, kind); got != want {
					t.Errorf("%s: %s %s is allowed: %v, want %v", name, r.Method, r.Path, got, want)
				}
			}
		}
	}
}
