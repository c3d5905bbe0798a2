#!/usr/bin/env bash
# Starts a DynamoDB that is not ours, ministack's or DynamoDB Local, and runs the store's cases on it. Both listen on all
# interfaces: they get a network namespace of their own.
set -euo pipefail
cd "$(dirname "$0")/../.."
. test/targets/lib.sh
store=$1
if [ "${2:-}" != inside ]; then
	lacks() { command -v "$1" >/dev/null || { echo "make test-store STORE=$store needs $1: on Debian, apt-get install $2" >&2 && exit 1; }; }
	lacks ip iproute2
	lacks curl curl
	[ "$store" != dynamodb-local ] || lacks java openjdk-17-jre-headless
	exec unshare --map-root-user --net -- "$0" "$store" inside
fi
ip link set lo up

log=build/$store.log
case $store in
ministack)
	ministack 4566 >"$log" 2>&1 &
	ready=(-f http://127.0.0.1:4566/_ministack/health)
	;;
dynamodb-local)
	cd .tools/dynamodb-local
	java -Djava.library.path=. -cp '*' com.amazonaws.services.dynamodbv2.local.main.ServerRunner \
		-inMemory -port 4566 -disableTelemetry >"../../$log" 2>&1 &
	cd ../..
	ready=(http://127.0.0.1:4566/shell/)
	;;
esac
server=$!
finish() {
	code=$?
	kill "$server" 2>/dev/null && wait "$server" || true
	[ $code = 0 ] || { echo "make test-store STORE=$store failed; the end of $log:" && tail -n 20 "$log"; } >&2
	exit $code
}
trap finish EXIT

serving "$store" "$server" "${ready[@]}"
ready_after=$SECONDS
(cd internal/jwkstable && STORE_ENDPOINT=http://127.0.0.1:4566 ../../build/jwkstable.test -test.count=1 -test.run '^TestDynamoDB$' -test.v) >build/store.log 2>&1 ||
	{ grep -v '^=== \|^ *--- PASS' build/store.log >&2 && exit 1; }
passed=$(grep -c '^ *--- PASS' build/store.log)
echo "$store, ready after $ready_after s: $passed cases passed"
