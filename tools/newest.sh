#!/usr/bin/env bash
# Runs make test in a copy of this tree, in build/newest/, whose dependencies are the newest. A dependency whose line in go.mod
# ends with a reason is held at its version.
set -euo pipefail
cd "$(dirname "$0")/.."
copy=build/newest
rm -rf "$copy" && mkdir -p "$copy"
git ls-files -z --cached --others --exclude-standard | tar --null -T - -cf - | tar -xf - -C "$copy"
cd "$copy"
held=$(sed -nE '/ \/\/ indirect$/d; s|^\t(\S+) (v\S+) // .*|\1@\2|p' go.mod)
go get -u ./... $held
go mod tidy
diff -u ../../go.mod go.mod | grep '^[-+]	' || echo "every dependency is the newest"
make --no-print-directory test
