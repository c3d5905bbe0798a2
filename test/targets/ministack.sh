#!/usr/bin/env bash
# Builds a copy of this tree with sam build, deploys it into ministack with sam deploy, runs test/e2e/ against it, changes
# parameters, types an operator's commands, deploys the examples of other stacks' APIs, of every kind, and deletes it all.
# Everything happens in a network namespace of its own: ministack listens on all interfaces, and what is built must not need
# the network. What does need it, the CDK's template in build/cdk/, make cdk has made before.
set -euo pipefail
cd "$(dirname "$0")/../.."
. test/targets/lib.sh
case "${1:-}" in
inside) ;;
shared) # beside the stand-in, whose addresses are in the environment: another stack's API, in BASE_URL
	answer() { curl -s -o /dev/null -w '%{http_code} ' "$@"; }
	got=$(answer "$ZUPLO_URL/orders" -H "Authorization: Bearer $ZUPLO_API_KEY" && answer "$BASE_URL/orders" &&
		answer "$BASE_URL/orders" -H "Authorization: Bearer $(sed -n 's/.*"Bearer \(.*\)".*/\1/p' events/allow-eddsa.json)")
	[ "$got" = "200 401 401 " ] || { echo "the example's API answers an API key, no token, another issuer's token with $got, want 200 401 401" >&2 && exit 1; }
	exit
	;;
*)
	command -v ip >/dev/null || { echo "make test-deploy needs ip: on Debian, apt-get install iproute2" >&2 && exit 1; }
	exec unshare --map-root-user --net -- "$0" inside
	;;
esac
ip link set lo up

export PATH=$PWD/.tools/sam/bin:$PWD/.tools/aws/bin:$PATH SAM_CLI_TELEMETRY=0 GOPROXY=off
export AWS_ENDPOINT_URL=http://localhost:4566 AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_DEFAULT_REGION=us-east-1
export JWKS_TTL=1s JWKS_MAX_STALE=6s LEEWAY=0s MAX_TOKEN_AGE=1h # of the stack and, so that it knows them, of the suite
export ZUPLO_PORT=9000 KEYS=build/ministack-keys.json
log=build/ministack.log
: >"$log"

work=$(mktemp -d) step=start ministack=
finish() {
	code=$?
	[ $code = 0 ] || { echo "make test-deploy: $step; the end of $log:" && tail -n 40 "$log"; } >&2
	[ -z "$ministack" ] || { kill "$ministack" && wait "$ministack" || true; } 2>/dev/null
	rm -rf "$work"
	exit $code
}
trap finish EXIT
step() { step=$1 && printf '%4d s  %s\n' $SECONDS "$1"; }

# What a user has checked out, without what may have been built here before.
checkout=$work/checkout
mkdir "$checkout"
git ls-files -z --cached --others --exclude-standard | tar --null -T - -cf - | tar -xf - -C "$checkout"

# deploy PARAMETER=VALUE...: our stack, with samconfig.toml, as a user would.
deploy() { (cd "$checkout" && sam deploy --region us-east-1 --parameter-overrides "$@") >>"$log" 2>&1; }

# built ARCHITECTURE OPTIONS...: sam build with that architecture in the template, as a user with a strict umask would.
built() {
	sed -i "s/^      Architecture: .*/      Architecture: $1/" "$checkout/template.yaml"
	(cd "$checkout" && umask 077 && sam build "${@:2}") >>"$log" 2>&1
	go run .ci/checkelf.go "$1" "$checkout"/.aws-sam/build/*/bootstrap >>"$log"
}

# refused COMMAND...: it fails, and no stack comes of it.
refused() {
	! "$@" || { echo "$* succeeded" >&2 && exit 1; }
	! describe zuplo-lambda-authorizer >>"$log" 2>&1 || { echo "$* has left a stack" >&2 && exit 1; }
}
describe() { aws cloudformation describe-stacks --stack-name "$1"; }

# said TEXT: in the log, since this was last asked.
said() {
	grep -qF -- "$1" <(tail -n "+$((seen + 1))" "$log") || { echo "nothing said: $1" >&2 && exit 1; }
	seen=$(wc -l <"$log")
}
seen=0

ours() {
	deploy Issuer="http://127.0.0.1:$ZUPLO_PORT/__zuplo/issuer" \
		JwksTtl=$JWKS_TTL JwksMaxStale=$JWKS_MAX_STALE SharedJwks=${SHARED:-false} Leeway=$LEEWAY MaxTokenAge=$MAX_TOKEN_AGE "$@"
}

# output STACK KEY: an output of the stack.
output() {
	sam list stack-outputs --stack-name "$1" --region us-east-1 --output json 2>>"$log" |
		python3 -c 'import json, sys; print(next(o["OutputValue"] for o in json.load(sys.stdin) if o["OutputKey"] == sys.argv[1]))' "$2"
}

# at STACK: where ministack serves the stack's API. The host's first label in its output is the API's id.
at() {
	local url
	url=$(output "$1" ApiUrl) && url=${url#https://}
	echo "$AWS_ENDPOINT_URL/restapis/${url%%.*}/${url##*/}/_user_request_"
}

# standin API FLAGS...: the stand-in for Zuplo before that API, for the command after --.
standin() { build/local -zuplo-port $ZUPLO_PORT -api "$@"; }

# One request at a time: a second process of the authorizer would keep keys of another age.
suite=(go -C test/e2e test -count=1 -parallel 1 -timeout 15m)

step "ministack starts"
ministack 4566 >>"$log" 2>&1 &
ministack=$!
serving ministack $ministack -f "$AWS_ENDPOINT_URL/_ministack/health"

step "sam deploy where nothing was built: it stops and says what to do"
refused deploy Issuer=https://issuer.example
said "CodeUri of resource AuthorizerFunction refers to a file or folder that does not exist $checkout/.aws-sam/not-built-yet--run-sam-build-first"

step "sam build: for what the template says, whatever else is said, and never from a stale cache"
[ "$HOST_ARCH" = arm64 ] && other=x86_64 || other=arm64
built $other --parameter-overrides Architecture="$HOST_ARCH"
main=$(cat authorizer/main.go)
printf '%s\n' "${main/func main() {/func main() { println()}" >"$checkout/authorizer/main.go"
built "$HOST_ARCH" --cached
! cmp -s build/authorizer/bootstrap "$checkout/.aws-sam/build/AuthorizerFunction/bootstrap"
printf '%s\n' "$main" >"$checkout/authorizer/main.go"
built "$HOST_ARCH" --cached --parameter-overrides Architecture=$other
cmp build/authorizer/bootstrap "$checkout/.aws-sam/build/AuthorizerFunction/bootstrap"
cmp build/protected/bootstrap "$checkout/.aws-sam/build/ProtectedFunction/bootstrap"

step "sam deploy as README.md has it, with the placeholder"
line=$(grep -o 'sam deploy --parameter-overrides Issuer=.*' README.md)
placeholder() { (cd "$checkout" && $line) >>"$log" 2>&1; }
refused placeholder
said "stands for the name of your own"

step "sam deploy with Monitoring, which it cannot take: saved queries"
if ours Audience=aws-origin; then
	echo "ministack takes saved queries now: deploy with Monitoring from here on" >&2
	exit 1
fi
said 'Unrecognized resource types: [AWS::Logs::QueryDefinition]'

step "sam deploy without Monitoring, and with an Architecture of earlier days"
ours Audience=aws-origin Monitoring=false Architecture=$other
for f in AuthorizerFunction ProtectedFunction; do
	got=$(aws cloudformation describe-stack-resource --stack-name zuplo-lambda-authorizer --logical-resource-id $f --query StackResourceDetail.PhysicalResourceId --output text)
	read -r arch location <<<"$(aws lambda get-function --function-name "$got" --query '[Configuration.Architectures[0], Code.Location]' --output text)"
	[ "$arch" = "$HOST_ARCH" ] || { echo "$f was deployed for $arch" >&2 && exit 1; }
	curl -sf "$location" >"$work/$f.zip"
	python3 - "$work/$f.zip" <<-'END'
		import sys, zipfile
		files = {i.filename: f"{i.external_attr >> 16 & 0o777:o}" for i in zipfile.ZipFile(sys.argv[1]).infolist()}
		sys.exit(files != {"bootstrap": "755"} and f"{sys.argv[1]} holds {files}, not bootstrap alone with mode 755")
	END
done
api=$(at zuplo-lambda-authorizer)
stages=$(curl -sf "${api%/*/_user_request_}/stages" | grep -o '"stageName": *"[^"]*"')
[ "$stages" = '"stageName": "prod"' ] || { echo "the API has other stages than prod alone: $stages" >&2 && exit 1; }

step "the suite"
export TARGET=ministack TARGET_CAN=mint,rotate,outage
standin "$api" -- "${suite[@]}"

step "sam deploy with another Audience, and the cases that are about it"
ours Audience=another-origin Monitoring=false
TARGET='ministack, updated' standin "$api" -audience another-origin -- "${suite[@]}" -run '/EdDSA/(the_issuer|wrong_aud)'

step "sam deploy as it is by default, with SharedJwks: the keys come to lie in the table"
export JWKS_TTL=5m JWKS_MAX_STALE=24h
SHARED=true ours Audience=another-origin Monitoring=false
TARGET='ministack, shared keys' standin "$api" -audience another-origin -- "${suite[@]}" -run 'TestAllow|TestGateway|TestZuplo|TestReject/(header|EdDSA|RS256)'
table=$(dynamodb "$AWS_ENDPOINT_URL" ListTables '{}' | sed -n 's/.*"TableNames": *\["\([^"]*\)"\].*/\1/p')
items=$(dynamodb "$AWS_ENDPOINT_URL" Scan "{\"TableName\": \"$table\"}")
grep -q '"Count": *1,' <<<"$items" && grep -q '"jwks": *{"B":' <<<"$items" && ! grep -q "127.0.0.1:$ZUPLO_PORT" <<<"$items" ||
	{ echo "the table of shared keys, $table, holds $items" >&2 && exit 1; }

step "what an operator types at night"
SHARED=true ours Audience=another-origin,aws-origin JwksUri="http://127.0.0.1:$ZUPLO_PORT/__zuplo/issuer/.well-known/jwks.json" Monitoring=false
id=${api#*/restapis/}
API=${id%%/*} standin "$api" -- test/targets/operator.sh >>"$log" 2>"$work/operator" || { cat "$work/operator" >&2 && exit 1; }

step "a stage with the test keys pinned, in the place of one on AWS: make test-aws"
test/targets/aws.sh parameters >"$work/parameters.yaml"
printf "JwksUri: ''\n" >>"$work/parameters.yaml"
deploy "file://$work/parameters.yaml" Monitoring=false
env -u JWKS_TTL -u JWKS_MAX_STALE -u LEEWAY -u MAX_TOKEN_AGE TARGET='ministack, pinned keys' API="$api" \
	test/targets/aws.sh test -run 'TestAllow|TestGateway|TestZuplo|TestReject/(header|(EdDSA|RS256|PS256|ES256)/)'

# example TEMPLATE STACK PARAMETER=VALUE...: a stack of examples/shared with our authorizer's ARN.
arn=$(output zuplo-lambda-authorizer AuthorizerArn)
example() {
	local template=examples/shared/$1 stack=$2
	shift 2
	sam deploy --template "$template" --stack-name "$stack" --resolve-s3 --capabilities CAPABILITY_IAM --region us-east-1 \
		--parameter-overrides AuthorizerArn="$arn" "$@" >>"$log" 2>&1
}

step "sam deploy of the example: another stack's API with this authorizer"
example api.yaml orders
shared=$(at orders)
standin "$shared" -keys "$KEYS" -- "$0" shared

step "the same as if it were another account's"
account=${arn#arn:aws:lambda:us-east-1:}
example permission.yaml authorizer-for-orders ApiAccount="${account%%:*}" ApiId="$(output orders ApiId)"
example api.yaml orders SameAccount=false
standin "$shared" -keys "$KEYS" -- "$0" shared

step "APIs of every kind with this authorizer, and rules for their routes"
cat >"$work/rules.yaml" <<-END
	Issuer: 'http://127.0.0.1:$ZUPLO_PORT/__zuplo/issuer'
	Audience: aws-origin
	Jwks: ''
	SharedJwks: 'false'
	JwksTtl: 1s
	JwksMaxStale: 6s
	MaxTokenAge: 1h
	RulesMode: enforce
	Monitoring: 'false'
	Rules: '$(python3 test/targets/apis.py rules)'
END
deploy "file://$work/rules.yaml"
# ministack does not know route responses, and answers a WebSocket's messages without.
for kind in rest http websocket; do
	sed '/^  Answers:/,/^$/d' examples/apis/$kind.yaml >"$work/$kind.yaml"
done
sed "s/AuthorizerPayloadFormatVersion: '2.0'/AuthorizerPayloadFormatVersion: '1.0'/" "$work/http.yaml" >"$work/http1.yaml"
for kind in rest http http1 websocket; do
	sam deploy --template "$work/$kind.yaml" --stack-name "orders-$kind" --resolve-s3 --capabilities CAPABILITY_IAM --region us-east-1 \
		--parameter-overrides AuthorizerArn="$arn" >>"$log" 2>&1
done
sam deploy --template build/cdk/orders-cdk.template.json --stack-name orders-cdk --resolve-s3 --capabilities CAPABILITY_IAM --region us-east-1 \
	--parameter-overrides AuthorizerArn="$arn" >>"$log" 2>&1
# api_of NAME STACK OUTPUT: the API's id, for apis.py.
api_of() { local url && url=$(output "$2" "$3") && url=${url#*://} && echo "$1=${url%%.*}"; }
apis=()
for kind in rest http http1 websocket; do
	apis+=("$(api_of $kind orders-$kind ApiUrl)")
done
apis+=("$(api_of cdk-rest orders-cdk RestUrl)" "$(api_of cdk-http orders-cdk HttpUrl)")
standin "$api" -- python3 test/targets/apis.py "${apis[@]}"

step "one policy per token, whichever route it asks for first"
standin "$api" -- python3 -B test/targets/rules.py "${apis[@]:0:4}" function="${arn##*:}"

step "make audit: of these APIs, and of some with faults"
standin "$api" -- python3 -B test/targets/audit.py "${apis[@]}" function="${arn##*:}"

describe zuplo-lambda-authorizer >>"$log" # it can tell

step "sam delete"
for stack in orders-rest orders-http orders-http1 orders-websocket orders-cdk orders authorizer-for-orders; do
	sam delete --no-prompts --stack-name $stack --region us-east-1 >>"$log" 2>&1
	! describe $stack >>"$log" 2>&1 || { echo "the stack $stack is still there" >&2 && exit 1; }
done
AWS_REGION=us-east-1 python3 -B test/targets/runbook.py last >>"$log" 2>&1
! describe zuplo-lambda-authorizer >>"$log" 2>&1 || { echo "our stack is still there" >&2 && exit 1; }
[ "$(curl -s -o "$work/answer" -w '%{http_code}' "$api/protected")" = 404 ] || { echo "the deleted API still answers: $(cat "$work/answer")" >&2 && exit 1; }
dynamodb "$AWS_ENDPOINT_URL" ListTables '{}' | grep -q '"TableNames": *\[\]' || { echo "the table of shared keys is still there" >&2 && exit 1; }

step "a release: deployed from nothing but dist/, with the commands of docs/release.md, and removed"
cp -r dist "$work/release"
zip=$work/release/authorizer-$(sed -n 's/^    SemanticVersion: //p' "$work/release/template.yaml")-$HOST_ARCH.zip
# commands HEADING: the first commands below it.
commands() { sed -n "/^## $1/,/^## /p" docs/release.md | sed -n '/^```sh$/,/^```$/{/^```/d;p}' | grep .; }
released() { (cd "$work/release" && export BUCKET=releases ISSUER="http://127.0.0.1:$ZUPLO_PORT/__zuplo/issuer" && bash -euo pipefail -c "$1") >>"$log" 2>&1; }
aws s3 mb s3://releases >>"$log"
released "$(commands Installing) Audience=aws-origin SharedJwks=false Monitoring=false Architecture=$HOST_ARCH"
api=$(at zuplo-lambda-authorizer)
f=$(aws cloudformation describe-stack-resource --stack-name zuplo-lambda-authorizer --logical-resource-id AuthorizerFunction --query StackResourceDetail.PhysicalResourceId --output text)
curl -sf "$(aws lambda get-function --function-name "$f" --query Code.Location --output text)" | cmp - "$zip"
(unset JWKS_TTL JWKS_MAX_STALE LEEWAY MAX_TOKEN_AGE && TARGET='ministack, a release' standin "$api" -- "${suite[@]}" -run 'TestAllow|TestGateway|TestZuplo|TestReject/(header|EdDSA)')
released "$(commands Removing)"
! describe zuplo-lambda-authorizer >>"$log" 2>&1 || { echo "the release's stack is still there" >&2 && exit 1; }
[ -z "$(aws s3 ls s3://releases)" ] || { echo "the release's zips are still there" >&2 && exit 1; }

step "the release's template for the Serverless Application Repository, through sam package"
(cd "$work/release" && sam package --template-file application.yaml --s3-bucket releases --output-template-file packaged.yaml) >>"$log" 2>&1
[ "$(grep -cE '^ +(CodeUri|LicenseUrl|ReadmeUrl): s3://releases/' "$work/release/packaged.yaml")" = 4 ] ||
	{ echo "sam package did not replace all of it: $(grep -nE 'Uri:|Url:' "$work/release/packaged.yaml")" >&2 && exit 1; }
step "done"
