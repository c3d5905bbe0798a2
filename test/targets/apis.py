"""Calls the APIs of examples/apis and examples/cdk, which ask our authorizer, in ministack: each kind with good tokens, with every rejection,
on routes that a token may not use, from the cache, and in an outage of the issuer.

Runs beside the stand-in for Zuplo, whose addresses are in the environment. The arguments are KIND=ID of the APIs, as rest=abcd.
"""

import base64
import http.client
import json
import os
import socket
import sys
import time
import urllib.request

HOST, PORT = "localhost", 4566  # ministack's
LOGS = "/aws/lambda/zuplo-lambda-authorizer-authorizer"
START = int(time.time() * 1000)
FUTURE, PAST = 4102444800, 1000000000

# What the stack was deployed with: who reads orders, who places them. No rule names DELETE.
RULES = [
    {"routes": ["GET /orders", "GET /orders/*"], "scopes": ["orders:read"]},
    {"routes": ["POST /orders"], "claims": {"/org/plan": ["gold"]}},
    {"routes": ["$connect"], "scopes": ["orders:live"]},
]
READS = {"scope": "orders:read orders:live"}
PLACES = {"org": {"plan": "gold"}}


class Kind:
    """A kind of API. error is what becomes of the error Unauthorized, reject of most rejections."""

    def __init__(self, api, id, route, error, reject, name=None):
        self.name = name or api
        self.api, self.id, self.route, self.error, self.reject = api, id, route, error, reject

    def call(self, route, authorization=None):
        """Returns the status and the body, which is the claims' JSON that the backend has."""
        headers = {"Host": f"{self.id}.execute-api.{HOST}:{PORT}"}
        if authorization is not None:
            headers["Authorization"] = authorization
        if self.api == "websocket":
            return connect(headers)
        method, path = route.split(" ")
        if self.api == "rest":
            headers["Host"], path = f"{HOST}:{PORT}", f"/restapis/{self.id}/prod/_user_request_{path}"
        connection = http.client.HTTPConnection(HOST, PORT, timeout=20)
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def connect(headers):
    """A WebSocket's handshake and, once it is open, one message and its answer (RFC 6455)."""
    with socket.create_connection((HOST, PORT), timeout=20) as s, s.makefile("rb") as from_server:
        headers = headers | {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
                             "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode()}
        s.sendall(("GET /prod HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + "\r\n").encode())
        status = int(from_server.readline().split()[1])
        while from_server.readline().strip():
            pass
        if status != 101:
            return status, ""
        s.sendall(bytes([0x81, 0x80 | 2, 0, 0, 0, 0]) + b"{}")  # text, masked with zeros
        size = from_server.read(2)[1]
        if size == 126:
            size = int.from_bytes(from_server.read(2), "big")
        return 200, from_server.read(size).decode()


def admin(what, order):
    request = urllib.request.Request(f"{os.environ['ADMIN_URL']}/{what}", json.dumps(order).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def mint(claims=None, **order):
    return admin("mint", order | {"claims": claims or {}})["token"]


def payload(token):
    segment = token.split(".")[1]
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)).decode()


def bearer(token):
    return "Bearer " + token


wrong = []


def expect(what, got, want):
    if got != want:
        wrong.append(what)
        print(f"{what}: {got}, want {want}", file=sys.stderr)


def rejections():
    """Yields (reason, whether time may cure it, the header)."""
    good = mint(READS)
    yield "malformed", False, "Bearer a.b.c"
    yield "malformed", False, "Basic " + good
    yield "malformed", False, good
    yield "malformed", False, f"Bearer {good}, Bearer {good}"
    yield "algorithm", False, bearer(mint(READS, header={"alg": "none"}))
    yield "kid", False, bearer(mint(READS, header={"kid": None}))
    yield "issuer", False, bearer(mint(READS | {"iss": "https://issuer.example"}))
    yield "expired", False, bearer(mint(READS | {"exp": PAST}))
    yield "not_yet_valid", True, bearer(mint(READS | {"nbf": FUTURE}))
    yield "audience", False, bearer(mint(READS | {"aud": "another"}))
    yield "unknown_key", True, bearer(mint(READS, header={"kid": "unknown"}))
    yield "key", False, bearer(mint(READS, header={"kid": admin("mint", {"alg": "RS256"})["kid"]}))
    yield "signature", False, bearer(mint(READS, foreign=True))
    yield "too_old", False, bearer(mint(READS | {"iat": PAST}))


def decisions():
    """Returns the authorizer's decisions since the start, oldest first."""
    request = urllib.request.Request(f"http://{HOST}:{PORT}/", json.dumps({"logGroupName": LOGS, "startTime": START}).encode(), {
        "Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "Logs_20140328.FilterLogEvents",
        "Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/logs/aws4_request, SignedHeaders=host, Signature=local"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        lines = [e["message"] for e in json.load(answer)["events"]]
    return [d for d in (json.loads(l) for l in lines if l.startswith("{")) if d.get("msg") == "decision"]


def check(kind):
    name = kind.name
    expect(f"{name}: no token", kind.call(kind.route)[0], 401)

    reads, places = mint(READS | {"odd": ["é", {"\"": 1.10}], "n": 12345678901234567890}), mint(PLACES)
    expect(f"{name}: a good token", kind.call(kind.route, bearer(reads)), (200, payload(reads)))
    expect(f"{name}: the same again", kind.call(kind.route, bearer(reads)), (200, payload(reads)))
    other = mint(READS)
    expect(f"{name}: another token has its own claims", kind.call(kind.route, bearer(other)), (200, payload(other)))
    expect(f"{name}: a rule that is not met", kind.call(kind.route, bearer(mint({"scope": "orders"})))[0], 403)
    if name != "websocket":
        # The policy of the first request is in the cache, and right for the others.
        expect(f"{name}: another route of the same rule", kind.call("GET /orders/17", bearer(reads)), (200, payload(reads)))
        expect(f"{name}: a route of another rule, from the cache", kind.call("POST /orders", bearer(reads))[0], 403)
        expect(f"{name}: a route that no rule names, from the cache", kind.call("DELETE /orders/17", bearer(reads))[0], 403)
        expect(f"{name}: the other way round: refused first", kind.call("GET /orders", bearer(places))[0], 403)
        expect(f"{name}: and then allowed", kind.call("POST /orders", bearer(places)), (200, payload(places)))

    for reason, curable, header in rejections():
        want = kind.error if curable else kind.reject
        for time_ in ("first", "second"):
            expect(f"{name}: {reason}, the {time_} time", kind.call(kind.route, header)[0], want)
        last = decisions()[-1]  # where a validation expression turned a malformed one away, the malformed one before it
        answer = "error" if want == kind.error else "policy"
        expect(f"{name}: {reason}, in the log", [last.get(m) for m in ("verdict", "reason", "api", "answer")], ["reject", reason, kind.api, answer])
    return reads, places


def check_format_1(kind):
    """ministack sends the event of payload format 1.0 without its version, so that it cannot be told from a REST API's.

    Who gets in is the same. What the backend gets is a REST API's answer, in which it finds nothing, and a rejection is an error.
    """
    expect(f"{kind.name}: no token", kind.call(kind.route)[0], 401)
    status = kind.call(kind.route, bearer(mint(READS)))[0]
    last = decisions()[-1]
    if last["api"] == "http":
        sys.exit(f"{kind.name}: ministack tells payload format 1.0 now: check it as the other kinds")
    expect(f"{kind.name}: a good token", (last["verdict"], last["api"], status), ("allow", "rest", 401))
    expect(f"{kind.name}: a rule that is not met", kind.call(kind.route, bearer(mint({"scope": "orders"})))[0], 403)
    expect(f"{kind.name}: a foreign signature", kind.call(kind.route, bearer(mint(READS, foreign=True)))[0], kind.error)
    expect(f"{kind.name}: a foreign signature, in the log", [decisions()[-1].get(m) for m in ("verdict", "reason")], ["reject", "signature"])


def main():
    if sys.argv[1] == "rules":
        print(json.dumps(RULES))
        return
    ids = dict(argument.split("=") for argument in sys.argv[1:])
    kinds = [
        Kind("rest", ids["rest"], "GET /orders", error=401, reject=401),
        # ministack makes 500 of every error of these authorizers, where AWS makes 401 of Unauthorized for a WebSocket.
        Kind("http", ids["http"], "GET /orders", error=500, reject=403),
        Kind("websocket", ids["websocket"], "$connect", error=500, reject=500),
        Kind("rest", ids["cdk-rest"], "GET /orders", error=401, reject=401, name="cdk-rest"),
    ]
    tokens = [check(kind) for kind in kinds]
    for name in "http1", "cdk-http":
        check_format_1(Kind("http", ids[name], "GET /orders", error=500, reject=403, name=name))

    admin("jwks", {"mode": "503"})
    until = time.monotonic() + 30
    while kinds[0].call("GET /orders", bearer(mint(READS)))[0] != 500:
        if time.monotonic() > until:
            sys.exit("no 500 within 30 s of an outage of the issuer")
        time.sleep(0.2)
    before = len(decisions())
    for kind, (reads, places) in zip(kinds, tokens):
        expect(f"{kind.name}: a new token in an outage", kind.call(kind.route, bearer(mint(READS)))[0], 500)
        if kind.api != "websocket":  # which has no cache
            expect(f"{kind.name}: a cached policy in an outage", kind.call("GET /orders/18", bearer(reads)), (200, payload(reads)))
            expect(f"{kind.name}: what it refuses", kind.call("POST /orders", bearer(reads))[0], 403)
            expect(f"{kind.name}: the other one", kind.call("POST /orders", bearer(places)), (200, payload(places)))
    expect("decisions in the outage", [(d["verdict"], d["api"], d["answer"]) for d in decisions()[before:]], [("fault", k.api, "error") for k in kinds])
    admin("jwks", {"mode": "ok"})
    sys.exit(len(wrong) > 0)


if __name__ == "__main__":
    main()
