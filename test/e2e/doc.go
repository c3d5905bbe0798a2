// Package e2e holds the black-box suite: it speaks HTTP to a deployed path (gateway, authorizer,
// protected endpoint) and knows nothing of the code behind it. `make test` starts the local stack
// and runs it there; any other target is described by the same environment:
//
//	BASE_URL        the API with its stage; GET $BASE_URL/protected is the protected endpoint (required)
//	ISSUER          the issuer whose tokens the target accepts (required)
//	AUDIENCE        the audience that it asks for; unset: the cases about audiences cannot run
//	ZUPLO_URL       the gateway in front, with ZUPLO_API_KEY
//	ADMIN_URL       the issuer's admin API: mints tokens, moves keys, breaks the key set, counts
//	LAMBDA_URL      the Lambda host's control: cold starts and counters
//	JWKS_TABLE      the table that the target's environments share their keys in, if any
//	EXPLAIN         the command explain, which is then held against the answers to good tokens and bad ones
//	TARGET          the target's name; up to its first comma it is the kind that targets_test.go knows
//	TARGET_CAN      what it can do, separated by commas: mint, rotate, outage, freeze, count
//	JWKS_TTL JWKS_MAX_STALE LEEWAY MAX_TOKEN_AGE
//	                the authorizer's settings, as it has them; unset: its defaults
//	EXPLICIT_DENY   on, where the target has that, one rule, for GET /protected, and a resource policy that allows: for FACTS alone
//	HTTP_API        an HTTP API as examples/apis/http.yaml has it, with the target's authorizer: for FACTS alone
//	FACTS           not empty: first of all, what only AWS can tell is printed as confirmed or not
//
// Each case says what it needs. At the end of a run stand two lists: the cases that the target cannot run, with the reason,
// and the answers in which it is known to differ from AWS (targets_test.go).
package e2e
