# What the scripts here have in common; they source it.

# poll SECONDS COMMAND...: until the command succeeds.
poll() {
	local until=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $until ] || return 1
		sleep 0.2
	done
}

# ministack PORT: ministack itself, to be run in the background.
ministack() { PORT=$1 GATEWAY_PORT=$1 MINISTACK_HOST=localhost exec .tools/ministack/bin/ministack; }

# serving NAME PID CURL-ARGUMENTS...: waits until the process answers them.
serving() {
	local name=$1 pid=$2
	shift 2
	poll 30 answers_or_ended "$pid" "$@" || { echo "$name was not ready within 30 s" >&2 && return 1; }
	kill -0 "$pid" 2>/dev/null || { echo "$name ended instead of starting" >&2 && return 1; }
}

answers_or_ended() { curl -so /dev/null "${@:2}" || ! kill -0 "$1"; }

# dynamodb ENDPOINT OPERATION JSON: its answer.
dynamodb() {
	curl -sf "$1" -d "$3" -H 'Content-Type: application/x-amz-json-1.0' -H "X-Amz-Target: DynamoDB_20120810.$2" \
		-H 'Authorization: AWS4-HMAC-SHA256 Credential=local/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=local'
}
