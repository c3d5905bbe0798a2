#!/usr/bin/env bash
# Runs test/e2e/ against a deployed stage. Its tokens come from the stand-in for Zuplo, whose public keys were deployed with it
# as a pinned key set, or from a real gateway.
#
#   aws.sh parameters   parameters for sam deploy with the public halves of the test keys in KEYS (made when absent)
#   aws.sh test FLAGS   the suite against API, with KEYS or with ISSUER, ZUPLO_URL and ZUPLO_API_KEY
#
# With EXPLICIT_DENY=on both are about a stage with a rule and that switch. Before the test, give its API a resource policy that
# allows, and deploy it anew:
#   aws apigateway update-rest-api --rest-api-id ID --patch-operations '[{"op": "replace", "path": "/policy", "value":
#     "{\"Version\":\"2012-10-17\",\"Statement\":{\"Effect\":\"Allow\",\"Principal\":\"*\",\"Action\":\"execute-api:Invoke\",\"Resource\":\"*\"}}"}]'
#   aws apigateway create-deployment --rest-api-id ID --stage-name prod
# With HTTP_API=URL the output ApiUrl of examples/apis/http.yaml, deployed with the stage's AuthorizerArn, is asked, too.
set -euo pipefail
cd "$(dirname "$0")/../.."
port=${ZUPLO_PORT:-9000} # a part of the test issuer's name
export AUDIENCE=${AUDIENCE:-aws-origin} TARGET=${TARGET:-AWS}
suite=(env FACTS=1 go -C test/e2e test -count=1 -parallel 1 -timeout 30m)
standin=(build/local -zuplo-port "$port" -audience "$AUDIENCE" -keys "${KEYS:-}" -api "${API:-http://127.0.0.1}" --)

command=$1
shift
[ "${EXPLICIT_DENY:-}" != on ] || set -- -run TestAllow "$@" # the other cases know no rules
case $command in
parameters)
	[ -n "${KEYS:-}" ] || { echo "KEYS is not set: the file that keeps the test keys" >&2 && exit 2; }
	exec "${standin[@]}" "$0" print
	;;
print) # beside the stand-in, whose addresses are in the environment
	printf "Issuer: '%s'\nAudience: '%s'\nJwks: '%s'\n" "$ISSUER" "$AUDIENCE" "$(curl -sf "$ISSUER/.well-known/jwks.json")"
	[ "${EXPLICIT_DENY:-}" != on ] || printf "ExplicitDeny: 'on'\nRules: '%s'\n" '[{"routes": ["GET /protected"]}]'
	;;
test)
	if [ -n "${API:-}" ] && [ -n "${KEYS:-}" ]; then
		[ -f "$KEYS" ] || { echo "KEYS=$KEYS is no file: make aws-parameters KEYS=$KEYS makes it, and the parameters to deploy with" >&2 && exit 2; }
		export TARGET_CAN=mint
		exec "${standin[@]}" "${suite[@]}" "$@"
	elif [ -n "${API:-}" ] && [ -n "${ISSUER:-}" ] && [ -n "${ZUPLO_URL:-}" ] && [ -n "${ZUPLO_API_KEY:-}" ]; then
		export BASE_URL=$API
		exec "${suite[@]}" "$@"
	fi
	cat >&2 <<-END
		make test-aws needs a deployed stage, API=https://ID.execute-api.REGION.amazonaws.com/prod, and either
		  KEYS=FILE                                   the test keys that it was deployed with (make aws-parameters KEYS=FILE), or
		  ISSUER=URL ZUPLO_URL=URL ZUPLO_API_KEY=KEY  a real gateway before it
		and AUDIENCE, MAX_TOKEN_AGE and LEEWAY where the stage does not have aws-origin, none and 30s; EXPLICIT_DENY=on and
		HTTP_API=URL for what they tell, as test/targets/aws.sh says.
	END
	exit 2
	;;
esac
