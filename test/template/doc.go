// Package template checks in template.yaml, samconfig.toml, the Makefile and the examples what no linter sees.
package template
