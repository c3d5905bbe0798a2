#!/usr/bin/env bash
# Runs a command beside a DynamoDB, ministack's, on loopback, with a table for the shared key sets in its environment.
set -euo pipefail
cd "$(dirname "$0")/../.."
. test/targets/lib.sh
port=${STORE_PORT:-4566} log=build/ministack-store.log
command -v curl >/dev/null || { echo "STORE=1 needs curl: on Debian, apt-get install curl" >&2 && exit 1; }
! curl -so /dev/null "http://127.0.0.1:$port" || { echo "port $port is taken; another one: STORE_PORT=$((port + 1))" >&2 && exit 1; }

IOT_MTLS_ENABLED=0 BIND_HOST=127.0.0.1 ministack "$port" >"$log" 2>&1 &
server=$!
trap 'code=$?; kill $server 2>/dev/null && wait $server || true; exit $code' EXIT
trap : INT # the command ends by it, and then this
serving ministack $server -f "http://127.0.0.1:$port/_ministack/health" || { tail -n 20 "$log" >&2 && exit 1; }

export JWKS_TABLE=zuplo-key-sets AWS_ENDPOINT_URL_DYNAMODB=http://127.0.0.1:$port
dynamodb "$AWS_ENDPOINT_URL_DYNAMODB" CreateTable '{
	"TableName": "'$JWKS_TABLE'", "BillingMode": "PAY_PER_REQUEST",
	"AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
	"KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}]}' >/dev/null
"$@"
