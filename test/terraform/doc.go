// Package terraform checks examples/terraform, which is not run here: HashiCorp's parser reads it, and what matters in it is held
// to template.yaml. It is a module of its own, because nothing else needs the parser.
package terraform
