#!/usr/bin/env bash
# Types what docs/operations.md tells operators to type, and its make targets, against the stack in ministack: each twice in
# a row, with nothing built and no checkout where none is needed. Runs beside the stand-in for Zuplo, whose addresses are in the
# environment.
set -euo pipefail
. test/targets/lib.sh
root=$PWD
work=$(mktemp -d) flushes=
trap 'code=$?; [ -z "$flushes" ] || kill "$flushes"; rm -rf "$work"; exit $code' EXIT
fail() { echo "$1" >&2 && exit 1; }

# block FIRST: the indented commands of the runbook that begin with that line, without the indentation. Which they were is noted.
block() {
	awk -v first="$1" '!on { line = $0; sub(/^ +/, "", line); on = line == first && /^    / } on && !/^    / { exit } on { sub(/^ +/, ""); print }' docs/operations.md |
		tee -a "$work/typed" | grep . ||
		fail "docs/operations.md has no commands that begin with: $1"
}
functions=$(block 'export STACK=zuplo-lambda-authorizer')
forget=$(block empty_table)
pin=$(block 'change Jwks "$(cat jwks.json)"')
unpin=$(block "change Jwks ''")
types() { cd "$work" && bash -ec "$functions"$'\n'"$1" && cd "$root"; }
makes() { make --no-print-directory "$@"; }

# ministack cannot flush a stage's cache. A request for it gets API Gateway's answer from here.
! aws apigateway flush-stage-authorizers-cache --rest-api-id "$API" --stage-name prod 2>"$work/answer" || fail "ministack can flush a stage's cache now: ask it here"
grep -q 'Unknown API Gateway v1 path' "$work/answer" || fail "ministack does not know how to flush a cache, but says $(cat "$work/answer")"
cat >"$work/flushes.py" <<'END'
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_DELETE(self):
        open(sys.argv[1], "a").write(self.path + "\n")
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", 4567), Handler).serve_forever()
END
python3 "$work/flushes.py" "$work/flushed" 2>/dev/null &
flushes=$!
serving "the flushes' stand-in" $flushes http://127.0.0.1:4567
export AWS_ENDPOINT_URL_API_GATEWAY=http://127.0.0.1:4567

# flushed: since it was last asked, the stage's cache was flushed, once.
flushed() {
	[ "$(cat "$work/flushed")" = "/restapis/$API/stages/prod/cache/authorizers" ] || fail "the flushes were: $(cat "$work/flushed")"
	: >"$work/flushed"
}

admin() { curl -sf "$ZUPLO_URL/__admin/$1" -d "$2"; }
member() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }

# answers STATUS [KID]: what a new token of the key gets, of the one that signs now if none is named.
answers() {
	local token got
	token=$(admin mint "{\"kid\":\"${2:-}\"}" | member token)
	got=$(curl -s -o /dev/null -w '%{http_code}' "$BASE_URL/protected" -H "Authorization: Bearer $token")
	[ "$got" = "$1" ] || fail "after $done: a token of ${2:-the present key} gets $got, want $1"
}

parameters() {
	aws cloudformation describe-stacks --stack-name zuplo-lambda-authorizer --output text \
		--query "sort_by(Stacks[0].Parameters[?ParameterKey!='Restart'], &ParameterKey)[].[ParameterKey, ParameterValue]"
}
before=$(parameters)
unchanged() { [ "$(parameters)" = "$before" ] || fail "after $done other parameters than Restart have changed: $(diff <(echo "$before") <(parameters))"; }

types "$forget" && flushed # the table has the keys of a stand-in before this one
for way in "types forget" "types forget" "makes forget-keys" "makes forget-keys"; do
	done="a rotation"
	answers 200
	stolen=$(admin rotate '{}' | member previous)
	admin withdraw "{\"kid\":\"$stolen\"}" >/dev/null
	done="a withdrawal at the issuer alone"
	answers 200 "$stolen"
	done="$way"
	case $way in
	types*) types "$forget" ;;
	*) $way ;;
	esac
	flushed
	answers 401 "$stolen"
	answers 200
	unchanged
done

curl -sf "$ISSUER/.well-known/jwks.json" >"$work/jwks.json"
admin jwks '{"mode":"503"}' >/dev/null
types "$forget" && flushed
done="forgetting the keys in an outage"
answers 500
for way in "types pin" "types pin" "makes pin-keys"; do
	done=$way
	case $way in
	types*) types "$pin" ;;
	*) $way JWKS="$work/jwks.json" ;;
	esac
	flushed
	answers 200
	[ "$(parameters | sed '/^Jwks\t/d')" = "$(sed '/^Jwks\t/d' <<<"$before")" ] || fail "after $done other parameters than Jwks have changed"
done
admin jwks '{"mode":"ok"}' >/dev/null
admin rotate '{}' >/dev/null
answers 401
for way in "makes unpin-keys" "types unpin"; do
	done=$way
	case $way in
	types*) types "$unpin" ;;
	*) $way ;;
	esac
	flushed
	answers 200
	unchanged
done

done="make set-parameter"
makes set-parameter NAME=JwksTtl VALUE=1m
flushed
grep -q $'^JwksTtl\t1m$' <<<"$(parameters)" || fail "JwksTtl is not what it was set to"
answers 200
makes set-parameter NAME=JwksTtl VALUE="$(sed -n 's/^JwksTtl\t//p' <<<"$before")"
unchanged

# refuses TEXT COMMAND...: the command fails, says so, and changes nothing.
refuses() {
	done="${*:2}"
	! "${@:2}" >"$work/answer" 2>&1 || fail "$done succeeded"
	grep -qF -- "$1" "$work/answer" || fail "$done does not say \"$1\" but $(cat "$work/answer")"
	unchanged
}
echo '{"keys":[{"kty":"OKP", "d" : "AA"}]}' >"$work/private.json"
refuses "holds a private or symmetric key" makes pin-keys JWKS="$work/private.json"
refuses "nothing is no file" makes pin-keys
refuses "needs NAME=PARAMETER" makes set-parameter VALUE=1
refuses "only a deployment makes anew" makes set-parameter NAME=ReauthorizeEvery VALUE=0
refuses "the stack zuplo-lambda-authorizer was not changed" makes set-parameter NAME=JwksTtl VALUE=soon
makes set-parameter NAME=Issuer VALUE="$ISSUER,https://issuer.example"
before=$(parameters)
refuses "has several issuers" makes pin-keys JWKS="$work/jwks.json"

# All that the runbook has beside.
done="the rest of the runbook"
makes set-parameter NAME=Issuer VALUE="$ISSUER"
mkdir "$work/checkout"
git ls-files -z --cached --others --exclude-standard | tar --null -T - -cf - | tar -xf - -C "$work/checkout"
cd "$work/checkout"
touch ca.pem
cp "$work/jwks.json" .
admin mint '{}' | member token >token
cd "$root"
STAGE=prod CONNECTION=none AWS_REGION=us-east-1 python3 -B test/targets/runbook.py "$work/checkout" "$work/typed"
