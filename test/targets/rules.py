"""Hand-made rules before the APIs of examples/apis in ministack, whose caches are on: whichever route a token asks for first,
the one policy that comes of it is right for all the others.

Runs beside the stand-in for Zuplo, as apis.py does, with its arguments and function=NAME. Each set of rules goes into the
environment of that function, the authorizer, because an update of the stack takes too long. The last one stays there.
"""

import json
import sys
import urllib.request

from apis import HOST, PORT, Kind, bearer, decisions, expect, mint, payload, wrong

LIST, READ, OTHER, LONG = "GET /orders", "GET /orders/17", "GET /orders/71", "GET /orders/1717"
PLACE, CANCEL = "POST /orders", "DELETE /orders/17"
ROUTES = [LIST, READ, OTHER, LONG, PLACE, CANCEL]


def sets(rest, http):
    """Yields (what it is about, rules, a token's claims, the routes that it may use). The arguments are the APIs' ids."""
    shop = [{"routes": ["GET /orders", "GET /orders/*"], "scopes": ["read"]}, {"routes": ["POST /orders"], "scopes": ["write"]}]
    yield "who reads", shop, {"scope": "read"}, [LIST, READ, OTHER, LONG]
    yield "who writes", shop, {"scp": ["write"]}, [PLACE]
    yield "who may nothing", shop, {"scope": "reads"}, []

    locked = [{"routes": ["GET /*"]}, {"routes": ["* /orders/17"], "claims": {"role": ["admin"]}}]
    yield "a stricter rule in a wildcard's routes, not met", locked, {"role": "user"}, [LIST, OTHER, LONG]
    yield "the same, met", locked, {"role": ["user", "admin"]}, [LIST, READ, OTHER, LONG, CANCEL]
    yield "all routes, and a stricter rule for one", [{"routes": ["* /*"]}, {"routes": ["GET /orders"], "scopes": ["list"]}], {}, [READ, OTHER, LONG, PLACE, CANCEL]
    yield "two rules for one route, one of them met", [
        {"routes": ["POST /orders", "GET /orders"], "scopes": ["write"]},
        {"routes": ["POST,DELETE /orders*"], "claims": {"role": ["admin"]}},
    ], {"scope": "write"}, [LIST]

    yield "any method, which is no part of a path", [{"routes": ["* /17", "* /orders"]}], {}, [LIST, PLACE]
    yield "a wildcard for one character", [{"routes": ["GET /orders/?7", "DELETE /orders/?"]}], {}, [READ]
    yield "a list of methods", [{"routes": ["POST,DELETE /orders*"]}], {}, [PLACE, CANCEL]

    yield "all scopes of a rule", [
        {"routes": ["GET /orders"], "scopes": ["read"]},
        {"routes": ["GET /orders/*"], "scopes": ["read", "details"]},
    ], {"scope": "read"}, [LIST]
    yield "types of a nested claim", [
        {"routes": ["GET /orders"], "claims": {"/org/plan": [7]}},
        {"routes": ["POST /orders"], "claims": {"/org/plan": ["7"]}},
        {"routes": ["DELETE /orders/17"], "claims": {"plan": [7]}},
    ], {"org": {"plan": 7}}, [LIST]

    apart = [{"apis": [rest], "routes": ["GET /orders/17"]}, {"apis": [http], "routes": ["POST /orders"]}, {"routes": ["GET /orders"]}]
    yield "rules for one API alone", apart, {}, {"rest": [LIST, READ], "http": [LIST, PLACE]}
    strict = [{"routes": ["GET /orders*"]}, {"apis": [http], "routes": ["GET /orders/17"], "scopes": ["read"]}]
    yield "a stricter rule for one API alone", strict, {}, {"rest": [LIST, READ, OTHER, LONG], "http": [LIST, OTHER, LONG]}


def configuration(function, change=None):
    """Returns the function's configuration, once changed."""
    request = urllib.request.Request(
        f"http://{HOST}:{PORT}/2015-03-31/functions/{function}/configuration", json.dumps(change).encode() if change else None, {
            "Content-Type": "application/json",
            "Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/lambda/aws4_request, SignedHeaders=host, Signature=local",
        }, method="PUT" if change else "GET")
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def main():
    ids = dict(argument.split("=") for argument in sys.argv[1:])
    kinds = [Kind("rest", ids["rest"], LIST, error=401, reject=401), Kind("http", ids["http"], LIST, error=500, reject=403)]
    variables = configuration(ids["function"])["Environment"]["Variables"]
    asked = []  # what the authorizer must have been asked: (API, verdict)
    for about, rules, claims, may in sets(ids["rest"], ids["http"]):
        configuration(ids["function"], {"Environment": {"Variables": variables | {"RULES": json.dumps(rules)}}})
        for kind in kinds:
            allowed = may[kind.api] if isinstance(may, dict) else may
            for order in ("allowed", "refused"):
                token = mint(claims)
                routes = sorted(ROUTES, key=lambda r: (r in allowed) != (order == "allowed"))
                asked.append((kind.api, "allow" if routes[0] in allowed else "forbid"))
                for n, route in enumerate(routes):
                    status, body = kind.call(route, bearer(token))
                    what = f"{kind.api}: {about}: {route}, number {n + 1} with what is {order} first"
                    if route in allowed:
                        expect(what, (status, body), (200, payload(token)))
                    else:
                        expect(what, status, 403)
    expect("decisions, one per token, because the cache is on", [(d["api"], d["verdict"]) for d in decisions()], asked)
    sys.exit(len(wrong) > 0)


main()
