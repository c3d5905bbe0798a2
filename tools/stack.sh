#!/usr/bin/env bash
# Changes the stack STACK where it runs: nothing is built, no earlier value has to be known, and done again it does the same
# again. Needs the AWS CLI with credentials and a region.
#
#   stack.sh forget-keys               no shared key set, new environments, no cached policies
#   stack.sh pin-keys FILE             the key set in FILE in the place of the issuer's
#   stack.sh unpin-keys                the issuer's keys again
#   stack.sh set-parameter NAME VALUE  another value of one of the authorizer's settings
set -euo pipefail
export AWS_PAGER=

# These five stand in docs/operations.md, too, for operators who have no checkout.
output() { aws cloudformation describe-stacks --stack-name "$STACK" --query "Stacks[0].Outputs[?OutputKey=='$1'].OutputValue" --output text; }
parameter() { aws cloudformation describe-stacks --stack-name "$STACK" --query "Stacks[0].Parameters[?ParameterKey=='$1'].ParameterValue" --output text; }
change() {
	local parameters new="{ParameterKey: 'Restart', ParameterValue: '$(date -u +%FT%TZ)'}"
	[ $# = 0 ] || new="$new, {ParameterKey: '$1', ParameterValue: '$2'}"
	parameters=$(aws cloudformation describe-stacks --stack-name "$STACK" --output json --query "[
		Stacks[0].Parameters[?ParameterKey!='Restart' && ParameterKey!='${1:-}'].{ParameterKey: ParameterKey, UsePreviousValue: \`true\`},
		[$new]][]") &&
		aws cloudformation update-stack --stack-name "$STACK" --use-previous-template --parameters "$parameters" \
			--capabilities CAPABILITY_IAM CAPABILITY_AUTO_EXPAND --output text &&
		aws cloudformation wait stack-update-complete --stack-name "$STACK"
}
empty_table() {
	local table item
	table=$(output JwksTable) &&
		aws dynamodb scan --table-name "$table" --projection-expression id --query 'Items[].[to_string(@)]' --output text |
		while read -r item; do aws dynamodb delete-item --table-name "$table" --key "$item"; done
}
flush() { aws apigateway flush-stage-authorizers-cache --rest-api-id "$(output ApiId)" --stage-name "$(parameter StageName)"; }

fail() { echo "$1" >&2 && exit 1; }
command -v aws >/dev/null || fail "make ${1:-} needs the AWS CLI, which is not installed"
# named: the stack is there, and tells what its parts are called. Else a table or a cache would be taken for absent.
named() {
	[ -n "$(output AuthorizerName)" ] || fail "the stack $STACK has no output AuthorizerName: deploy it once with this version's template"
}

# update [NAME VALUE]: changes the parameter and throws away the policies of before.
update() {
	named
	echo "the stack $STACK: ${1:+$1 and }new environments"
	change "$@" || fail "the stack $STACK was not changed; if the reason is not above: aws cloudformation describe-stack-events --stack-name $STACK"
	if [ -n "$(output ApiId)" ]; then
		echo "its API: no cached policies"
		flush
	else
		echo "it has no API: flush the caches of the APIs that ask its authorizer"
	fi
}

case ${1:-} in
forget-keys)
	named
	if [ -n "$(output JwksTable)" ]; then
		echo "the stack $STACK: no shared key set"
		empty_table
	fi
	update
	;;
pin-keys)
	[ -f "${2:-}" ] || fail "make pin-keys needs JWKS=FILE, a file with a JSON Web Key Set; ${2:-nothing} is no file"
	! grep -qE '"(d|k)"[[:space:]]*:' "$2" || fail "$2 holds a private or symmetric key: pin public ones"
	[ -z "$(parameter Issuers)" ] || fail "the stack $STACK has Issuers: pin the keys there, as the member jwks of their issuer"
	issuer=$(parameter Issuer)
	[[ $issuer != *,* ]] || fail "the stack $STACK has several issuers, $issuer: keys can be pinned for one alone"
	update Jwks "$(cat "$2")"
	echo "pinned: rotations are not followed until make unpin-keys"
	;;
unpin-keys) update Jwks '' ;;
set-parameter)
	case ${2:-} in
	'') fail "make set-parameter needs NAME=PARAMETER VALUE=VALUE" ;;
	TokenHeader | ReauthorizeEvery) fail "$2 is a part of the API's definition, which only a deployment makes anew: sam build && sam deploy --parameter-overrides $2=${3:-}" ;;
	esac
	update "$2" "${3:-}"
	;;
*) sed -n '2,/^set/ { /^set/d; s/^# \{0,1\}//p; }' "$0" >&2 && exit 2 ;;
esac
