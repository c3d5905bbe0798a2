#!/usr/bin/env bash
# Runs a command beside a DynamoDB, ministack's, on loopback, with a table for the shared key sets in its environment.
set -euo pipefail
cd "$(dirname "$0")/.."
port=${STORE_PORT:-4566} log=build/ministack-store.log
command -v curl >/dev/null || { echo "STORE=1 needs curl: on Debian, apt-get install curl" >&2 && exit 1; }
! curl -so /dev/null "http://127.0.0.1:$port" || { echo "port $port is taken; another one: STORE_PORT=$((port + 1))" >&2 && exit 1; }

IOT_MTLS_ENABLED=0 BIND_HOST=127.0.0.1 PORT=$port GATEWAY_PORT=$port MINISTACK_HOST=localhost .tools/ministack/bin/ministack >"$log" 2>&1 &
server=$!
trap 'code=$?; kill $server 2>/dev/null && wait $server || true; exit $code' EXIT
trap : INT # the command ends by it, and then this
until curl -sfo /dev/null "http://127.0.0.1:$port/_ministack/health"; do
	kill -0 $server 2>/dev/null && [ $SECONDS -lt 30 ] || { echo "ministack does not start:" && tail -n 20 "$log"; } >&2
	kill -0 $server 2>/dev/null && [ $SECONDS -lt 30 ]
	sleep 0.2
done

export JWKS_TABLE=zuplo-key-sets AWS_ENDPOINT_URL_DYNAMODB=http://127.0.0.1:$port
curl -sf -o /dev/null "$AWS_ENDPOINT_URL_DYNAMODB" -H 'Content-Type: application/x-amz-json-1.0' -H 'X-Amz-Target: DynamoDB_20120810.CreateTable' \
	-H 'Authorization: AWS4-HMAC-SHA256 Credential=local/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=local' -d '{
	"TableName": "'$JWKS_TABLE'", "BillingMode": "PAY_PER_REQUEST",
	"AttributeDefinitions": [{"AttributeName": "issuer", "AttributeType": "S"}, {"AttributeName": "uri", "AttributeType": "S"}],
	"KeySchema": [{"AttributeName": "issuer", "KeyType": "HASH"}, {"AttributeName": "uri", "KeyType": "RANGE"}]}'
"$@"
