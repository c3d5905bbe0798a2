#!/usr/bin/env bash
# Compiles a command: static, stripped, and the same bytes from the same code and the same version of Go, whatever the
# shell, go env -w, a go.work or a vendor folder say, and wherever it is run.
#
#   build.sh OUTPUT PACKAGE [GOARCH]   for Linux on GOARCH, or for this machine
set -euo pipefail
output=$1 package=$2 goarch=${3:-}

# Where Go finds and keeps modules and what it has compiled. Nothing of it is in the output.
kept='GOAUTH GOCACHE GOCACHEPROG GOINSECURE GOMODCACHE GONOPROXY GONOSUMDB GOPATH GOPRIVATE GOPROXY GOSUMDB GOTMPDIR GOVCS'

# Everything else of Go's, known today or not, is forgotten: the shell's by its name, go env -w's with GOENV=off.
clean=(env)
while read -r name; do
	[[ " $kept GOENV " = *" $name "* ]] || clean+=(-u "$name")
done < <(compgen -e | grep -E '^(GO|CGO_)')
clean+=(GOTOOLCHAIN=local GOWORK=off) # the Go that is installed, this module

settings=$("${clean[@]}" go env $kept GOHOSTOS GOHOSTARCH) # a line for each
names=($kept GOOS GOARCH) i=0
while IFS= read -r value; do
	clean+=("${names[i]}=$value")
	i=$((i + 1))
done <<<"$settings"
[ -z "$goarch" ] || clean+=(GOOS=linux GOARCH="$goarch")

# Named although they are Go's own defaults: the Go that is installed may have been compiled with others.
"${clean[@]}" GOENV=off GOAMD64=v1 GOARM64=v8.0 GOFIPS140=off CGO_ENABLED=0 \
	go build -mod=readonly -trimpath -buildvcs=false -tags lambda.norpc -ldflags='-s -w -buildid=' -o "$output" "$package"

# Lambda runs it as another user than the one whose umask this is.
chmod 0755 "$output"
