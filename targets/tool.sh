#!/usr/bin/env bash
# Installs tools/$1.txt, pinned by hashes, into .tools/$1, unless it is there.
set -euo pipefail
cd "$(dirname "$0")/.."
pins=tools/$1.txt venv=.tools/$1

cmp -s "$pins" "$venv/installed" && exit
rm -rf "$venv"
python3 -m venv "$venv" || {
	rm -rf "$venv"
	echo "$1 is installed with Python 3.10 or later and its venv module: on Debian, apt-get install python3-venv" >&2
	exit 1
}
# Every package is in the list: --no-deps keeps pip from looking further.
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --require-hashes -r "$pins"
cp "$pins" "$venv/installed"
