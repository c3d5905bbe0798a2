#!/usr/bin/env bash
# Runs the event files by sam local invoke, then test/e2e/ against sam local start-api. Docker's engine is started when it is
# installed and does not run, and ended again.
set -euo pipefail
cd "$(dirname "$0")/../.."
. test/targets/lib.sh
export PATH=$PWD/.tools/sam/bin:$PATH SAM_CLI_TELEMETRY=0 AWS_DEFAULT_REGION=us-east-1
port=${SAM_PORT:-3000}
image=zuplo-lambda-authorizer/sam-local
local="--template build/sam/template.yaml --invoke-image $image:base --skip-pull-image"
work=$(mktemp -d) started=()
finish() {
	code=$?
	for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" || true; done
	rm -rf "$work"
	exit $code
}
trap finish EXIT

engine() {
	docker info >/dev/null 2>&1 && return
	command -v dockerd >/dev/null || {
		echo "sam local needs Docker's engine: on Debian, apt-get install docker.io iptables" >&2
		exit 1
	}
	dockerd >"$work/dockerd.log" 2>&1 &
	started+=($!)
	poll 60 docker info || {
		echo "Docker's engine does not start:" >&2
		tail "$work/dockerd.log" >&2
		exit 1
	}
}

# What sam local would make of an image from a registry: its emulator of the Runtime API, and nothing else. Under a name of our
# own, so that nobody else's functions run in it.
image() {
	local root=$work/image
	! docker image inspect "$image:rapid-$HOST_ARCH" >/dev/null 2>&1 || return 0
	mkdir -p "$root/var/rapid" "$root/tmp" "$root/etc/ssl/certs"
	chmod 1777 "$root/tmp"
	cp .tools/sam/lib/python3*/site-packages/samcli/local/rapid/aws-lambda-rie-$HOST_ARCH "$root/var/rapid/aws-lambda-rie"
	chmod +x "$root/var/rapid/aws-lambda-rie"
	[ ! -f /etc/ssl/certs/ca-certificates.crt ] || cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
	tar -C "$root" -c . | docker import - "$image:base" >/dev/null
	docker tag "$image:base" "$image:rapid-$HOST_ARCH"
}

# events holds each file's answer to the verdict in its name. sam exits with 0 even when the function fails.
events() {
	local file name function want answer failed=0 n=0
	for file in events/*-*.json; do
		name=$(basename "$file" .json) function=AuthorizerFunction
		case $name in
		allow-*) want='"Effect":"Allow"' ;;
		reject-*-http?) want='"Effect":"Deny"' ;;
		reject-*) want='"errorMessage":"Unauthorized"' ;;
		fault-*) want='"errorMessage":"[^U]' ;;
		protected-*)
			want=${name#protected-} function=ProtectedFunction
			want='"statusCode":'${want%%-*}
			;;
		*) echo "$file: no verdict in its name" >&2 && return 1 ;;
		esac
		answer=$(sam local invoke $function --event "$file" --env-vars events/env.json $local 2>"$work/invoke.log") || true
		n=$((n + 1))
		# sam spaces a function's JSON anew.
		if ! grep -q "$want" <<<"${answer// /}"; then
			echo "$file: want $want, got $answer" >&2
			tail "$work/invoke.log" >&2
			failed=1
		fi
	done
	echo "$n event files by sam local invoke, $SECONDS s"
	return $failed
}

# api runs where the stand-in for Zuplo does (its address is in the environment), with its keys pinned.
api() {
	local keys
	keys=$(curl -sf "$ISSUER/.well-known/jwks.json")
	cat >"$work/env.json" <<-END
		{"AuthorizerFunction": {"ISSUER": "$ISSUER", "JWKS": "${keys//\"/\\\"}", "JWKS_TABLE": "", "AUDIENCE": "$AUDIENCE", "LEEWAY": "$LEEWAY", "MAX_TOKEN_AGE": "$MAX_TOKEN_AGE"}}
	END
	sam local start-api --port "$port" --env-vars "$work/env.json" $local --warm-containers EAGER >build/sam-local.log 2>&1 &
	started+=($!)
	poll 60 curl -s "$BASE_URL/protected" || {
		echo "sam local start-api does not answer:" >&2
		tail build/sam-local.log >&2
		exit 1
	}
	go -C test/e2e test -count=1 -timeout 20m "$@"
}

if [ "${1:-}" = api ]; then
	shift
	api "$@"
	exit
fi
engine
image
events
TARGET='sam local' TARGET_CAN=mint LEEWAY=0s MAX_TOKEN_AGE=1h build/local -zuplo-port 0 -api "http://127.0.0.1:$port" -- "$0" api "$@"
