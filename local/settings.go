package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
)

// handedOn are the authorizer's variables that are taken over from this process's environment.
var handedOn = []string{"AUDIENCE", "ALGORITHMS", "LEEWAY", "MAX_TOKEN_AGE", "PRINCIPAL_CLAIM", "JWKS_TTL", "JWKS_MAX_STALE", "JWKS_TABLE",
	"AWS_ENDPOINT_URL_DYNAMODB", "TOKEN_HEADER", "TOKEN_PREFIX", "RULES", "RULES_MODE", "POLICY_EXPIRY", "LOG_LEVEL"}

// refused are those that are not, and why.
var refused = map[string]string{
	"ISSUER": itIs, "ISSUERS": itIs, "JWKS_URI": itIs, "JWKS": itIs,
	"EXPLICIT_DENY": "it is for APIs with a resource policy, which the stand-in for API Gateway does not know",
}

const itIs = "the stand-in for Zuplo is the issuer, and publishes its keys"

// own are those of make run itself.
var own = []string{"API_PORT", "ZUPLO_PORT", "ALG", "TOKENS", "STORE", "STORE_PORT", "LOG", "NO_COLOR"}

// settings are the authorizer's of an environment. It refuses what is there by mistake: of the variables that were given to make all that
// it does not know, of the others those that look like one that it knows.
func settings(environment []string) (env []string, err error) {
	for name := range strings.FieldsSeq(os.Getenv("MAKE_VARIABLES")) {
		if refused[name] == "" && !slices.Contains(handedOn, name) && !slices.Contains(own, name) {
			return nil, fmt.Errorf("%s is no setting of make run: there are %s, and the authorizer's %s", name, strings.Join(own, ", "), strings.Join(handedOn, ", "))
		}
	}
	for _, variable := range environment {
		name, value, _ := strings.Cut(variable, "=")
		if value == "" {
			continue
		}
		if why, ok := refused[name]; ok {
			return nil, fmt.Errorf("%s is set, which is not taken here: %s", name, why)
		}
		if slices.Contains(handedOn, name) {
			env = append(env, variable)
		} else if !slices.Contains(own, name) {
			for _, meant := range slices.Concat(handedOn, own) {
				if len(meant) > 6 && near(strings.ToUpper(name), meant) { // shorter ones are too much like other programs'
					return nil, fmt.Errorf("%s is set, which is no setting: is %s meant?", name, meant)
				}
			}
		}
	}
	return env, nil
}

// near says whether one letter more, less or other, or two in the other order, is all that differs.
func near(a, b string) bool {
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	return len(a) < 2 && len(b) < 2 || len(a) == 2 && len(b) == 2 && a[0] == b[1] && a[1] == b[0]
}

// audience is the one that tokens are signed for: the first that the authorizer takes.
func audience() string {
	first, _, _ := strings.Cut(os.Getenv("AUDIENCE"), ",")
	return cmp.Or(strings.TrimSpace(first), "aws-origin")
}
