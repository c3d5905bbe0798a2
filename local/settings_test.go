package main

import (
	"slices"
	"strings"
	"testing"
)

// The authorizer's settings are handed on; what is there by mistake is refused by name.
func TestSettings(t *testing.T) {
	for _, c := range []struct {
		given   string   // variables on make's command line
		env     []string // all variables
		want    []string // handed on
		refused string   // a part of the error
	}{
		{"", []string{"PATH=/bin", "LEEWAY=1m", "RULES=[]", "AUDIENCE=", "API_PORT=1"}, []string{"LEEWAY=1m", "RULES=[]"}, ""},
		{"API_PORT ALG LEEWAY", []string{"LEEWAY=1m"}, []string{"LEEWAY=1m"}, ""},
		{"FOO", nil, nil, "FOO is no setting of make run: there are API_PORT, ZUPLO_PORT"},
		{"ISSUER", []string{"ISSUER=https://i.example"}, nil, "ISSUER is set, which is not taken here: the stand-in for Zuplo is the issuer"},
		{"", []string{"JWKS=x"}, nil, "JWKS is set"},
		{"", []string{"ISSUERS=x"}, nil, "ISSUERS is set"},
		{"", []string{"EXPLICIT_DENY=on"}, nil, "EXPLICIT_DENY is set"},
		{"", []string{"API_PRT=1"}, nil, "API_PRT is set, which is no setting: is API_PORT meant?"},
		{"", []string{"ZUPLO_PROT=1"}, nil, "is ZUPLO_PORT meant?"},
		{"", []string{"zuplo_port=1"}, nil, "is ZUPLO_PORT meant?"},
		{"", []string{"AUDIENCES=a"}, nil, "is AUDIENCE meant?"},
		{"", []string{"JWKS_TTLS=5m"}, nil, "is JWKS_TTL meant?"},
		{"", []string{"LOGS=x", "ALT=x", "HTTP_PORT=1"}, nil, ""}, // somebody else's
	} {
		t.Setenv("MAKE_VARIABLES", c.given)
		got, err := settings(c.env)
		if (err != nil) != (c.refused != "") || err != nil && !strings.Contains(err.Error(), c.refused) || !slices.Equal(got, c.want) {
			t.Errorf("%s %v: %v, %v; want %v, %q", c.given, c.env, got, err, c.want, c.refused)
		}
	}
}

func TestAudience(t *testing.T) {
	t.Setenv("AUDIENCE", "first , second")
	if audience() != "first" {
		t.Errorf("%s", audience())
	}
}
