"""Audits APIs in ministack: those of examples/apis and examples/cdk, in which nothing is open or wrong, and those of audit.yaml,
which have every fault that ministack can hold. What it cannot hold, tools/audit tests by itself.

Runs beside the stand-in for Zuplo, whose issuer the authorizer's settings name. The arguments are KIND=ID of the good APIs and
function=NAME of their authorizer.
"""

import http.server
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request

ENDPOINT = os.environ["AWS_ENDPOINT_URL"]
SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/apigateway/aws4_request, SignedHeaders=host, Signature=local"}


def aws(*arguments):
    out = subprocess.run(["aws", *arguments, "--output", "json"], check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(out) if out.strip() else None


def ask(path):
    with urllib.request.urlopen(urllib.request.Request(ENDPOINT + path, headers=SIGNED), timeout=20) as answer:
        return answer.read()


def export(api):
    """What API Gateway's ExportApi would say of an HTTP API, of AWS's documentation: ministack has routes, and no such operation."""
    authorizers = {a["authorizerId"]: a for a in json.loads(ask(f"/v2/apis/{api}/authorizers"))["items"]}
    paths, schemes = {}, {}
    for route in json.loads(ask(f"/v2/apis/{api}/routes"))["items"]:
        method, _, path = route["routeKey"].partition(" ")
        operation = {"responses": {}}
        if route["authorizationType"] == "AWS_IAM":
            operation["x-amazon-apigateway-auth"] = {"type": "AWS_IAM"}
        elif route["authorizationType"] != "NONE":
            a = authorizers[route["authorizerId"]]
            operation["security"] = [{a["name"]: []}]
            schemes[a["name"]] = {"type": "apiKey", "in": "header", "name": "Unused", "x-amazon-apigateway-authorizer": {
                "type": a["authorizerType"].lower(), "identitySource": ",".join(a["identitySource"]), "authorizerUri": a["authorizerUri"],
                "authorizerPayloadFormatVersion": a["authorizerPayloadFormatVersion"], "authorizerResultTtlInSeconds": a["authorizerResultTtlInSeconds"],
                "enableSimpleResponses": bool(a.get("enableSimpleResponses"))}}
        if route["routeKey"] == "$default":
            method, path, operation["isDefaultRoute"] = "ANY", "/$default", True
        paths.setdefault(path, {})["x-amazon-apigateway-any-method" if method == "ANY" else method.lower()] = operation
    return {"openapi": "3.0.1", "paths": paths, "components": {"securitySchemes": schemes}}


class Gateway(http.server.BaseHTTPRequestHandler):
    """ministack's API Gateway for HTTP and WebSocket APIs, and exports besides."""

    def do_GET(self):
        path = urllib.parse.urlsplit(self.path).path.split("/")
        status, error = 200, ""
        try:
            body = json.dumps(export(path[3])).encode() if path[4:5] == ["exports"] else ask(self.path)
        except urllib.error.HTTPError as e:
            status, body = e.code, e.read()
            error = json.loads(body).get("__type", "")
        self.send_response(status)
        self.send_header("X-Amzn-ErrorType", error)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


wrong = []


def expect(what, got, want):
    if got != want:
        wrong.append(what)
        print(f"{what}: {got}, want {want}", file=sys.stderr)


def run(*arguments):
    return subprocess.run(["build/audit", *arguments], stdout=subprocess.PIPE, text=True,
                          env=os.environ | {"AWS_ENDPOINT_URL_APIGATEWAYV2": "http://127.0.0.1:4568"})


def audit(*arguments):
    """Returns the exit status and the report."""
    done = run("-json", "-explain", "build/explain", *arguments)
    return done.returncode, json.loads(done.stdout)


def found(report, *levels):
    return [(f["level"], f["where"], f["what"]) for f in report["findings"] if f["level"] in levels]


# Each stands in one finding of audit.yaml's stack, and no finding but the notes is without one.
FAULTS = {
    "open": ["for GET /", "for DELETE /orders; the API key", "for $connect", "for $default"],
    "wrong": [
        "$REST: execute-api answers for it, beside its custom domain api.audit.example",
        "$HTTP: execute-api answers for it, beside its custom domain api.audit.example",
        "ByAlias: it names the alias or version live",
        "ByAlias: it is asked for browsers' preflights, which carry no token and get 401: OPTIONS /orders",
        "ByAlias: the API's resource policy allows what the authorizer leaves out: routes that no rule names",
        'ByTenant: its answers are cached by "header.x-tenant", and not by the token\'s header',
        "ByTenant: API Gateway may not invoke audit-authorizer",
        "ByTenant: the API's resource policy allows what the authorizer leaves out: routes that no rule names and tokens that expire",
        "NotOurs: the function audit-other is not this authorizer",
        "Simple: simple responses are on",
        "Old: its identity sources, header.x-tenant, are not the token's header",
        "Old: API Gateway may not invoke audit-authorizer",
        "IAM: it is no Lambda authorizer but aws_iam; it guards PUT /orders",
        "its reserved concurrency is 0",
        "Lambda drops its lines below ERROR",
        "its log group, /audit/authorizer, keeps everything for ever",
        "alarm audit-silent: it tells nobody when it rises",
        "its code is none of the releases in",
        "explain, settings: ALGORITHMS",
    ],
    "unknown": [
        "Elsewhere: the API's resource policy allows, and whether theirs has EXPLICIT_DENY is not known",
        "theirs: it is the account 210987654321's function",
        "a WebSocket API has no export, and its routes have no date",
    ],
}


def faults(dist):
    aws("cloudformation", "create-stack", "--stack-name", "audit-faults", "--template-body", "file://test/targets/audit.yaml", "--capabilities", "CAPABILITY_IAM")
    aws("cloudformation", "wait", "stack-create-complete", "--stack-name", "audit-faults")
    outputs = aws("cloudformation", "describe-stacks", "--stack-name", "audit-faults", "--query", "Stacks[0].Outputs")
    ids = {o["OutputKey"]: o["OutputValue"] for o in outputs}
    # What ministack does not take from a stack.
    deployment = aws("apigatewayv2", "create-deployment", "--api-id", ids["Socket"])["DeploymentId"]
    aws("apigatewayv2", "create-stage", "--api-id", ids["Socket"], "--stage-name", "prod", "--deployment-id", deployment)
    aws("lambda", "put-function-concurrency", "--function-name", "audit-authorizer", "--reserved-concurrent-executions", "0")

    status, report = audit("-stack", "audit-faults", "-dist", dist)
    expect("the exit status of an audit that finds faults", status, 1)
    for level, texts in FAULTS.items():
        said = [f"{where}: {what}" for _, where, what in found(report, level)]
        for text in texts:
            text = text.replace("$REST", ids["Rest"]).replace("$HTTP", ids["Http"])
            fits = [s for s in said if text in s] if text != "for GET /" else [s for s in said if s.endswith(text)]
            expect(f"findings that say {text!r}", len(fits), 1)
            said = [s for s in said if s not in fits]
        expect(f"findings that are {level} and were not seeded", said, [])
    routes = [r["route"] for api in report["apis"] for stage in api["stages"] for r in stage["routes"]]
    expect("routes", sorted(routes), sorted([
        "GET /", "GET /orders", "PUT /orders", "POST /orders", "PATCH /orders", "DELETE /orders", "OPTIONS /orders",
        "GET /orders", "POST /orders", "PUT /orders", "$default", "$connect"]))
    eyes = run("-api", ids["Rest"]).stdout.splitlines()
    expect("the first routes for eyes, which are the open ones", [line.split()[-1] for line in eyes[1:3]], ["OPEN", "OPEN"])
    aws("cloudformation", "delete-stack", "--stack-name", "audit-faults")


def main():
    given = dict(argument.split("=") for argument in sys.argv[1:])
    function = given.pop("function")
    try:
        ask(f"/v2/apis/{given['http']}/exports/OAS30?outputType=JSON")
        sys.exit("ministack exports HTTP APIs now: ask it here")
    except urllib.error.HTTPError:
        pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 4568), Gateway)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    status, report = audit("-stack", "zuplo-lambda-authorizer")
    expect("an authorizer that no alarm watches", (status, [f[2] for f in found(report, "open", "wrong", "unknown")]), (1, ["no alarm watches it"]))
    aws("cloudwatch", "put-metric-alarm", "--alarm-name", "audit-good", "--namespace", "AWS/Lambda", "--metric-name", "Errors", "--dimensions",
        f"Name=FunctionName,Value={function}", "--statistic", "Sum", "--period", "60", "--evaluation-periods", "1", "--threshold", "0",
        "--comparison-operator", "GreaterThanThreshold", "--alarm-actions", "arn:aws:sns:us-east-1:000000000000:nobody")

    # A stage that deploys by itself has a deployment on AWS.
    deployment = aws("apigatewayv2", "create-deployment", "--api-id", given["websocket"])["DeploymentId"]
    aws("apigatewayv2", "update-stage", "--api-id", given["websocket"], "--stage-name", "prod", "--deployment-id", deployment)

    with tempfile.TemporaryDirectory() as dist:
        code = aws("lambda", "get-function", "--function-name", function)
        release = f"1.0.0-{code['Configuration']['Architectures'][0]}"
        with urllib.request.urlopen(code["Code"]["Location"], timeout=20) as answer, open(f"{dist}/authorizer-{release}.zip", "wb") as file:
            shutil.copyfileobj(answer, file)
        targets = {"stack": ("-stack", "zuplo-lambda-authorizer")} | {kind: ("-api", id) for kind, id in given.items()}
        for kind, target in targets.items():
            status, report = audit(*target, "-dist", dist)
            expect(f"what is open, wrong or unknown: {kind}", (status, report["verdict"], found(report, "open", "wrong", "unknown")), (0, "clean", []))
            expect(f"the release of the authorizer: {kind}", [f.get("release") for f in report["functions"]], [release])
        status, report = audit("-api", given["rest"])
        expect("code that SAM made a zip of", [f[2] for f in found(report, "note") if "its code" in f[2]], ["its code cannot be compared with a release, because SAM makes zips of its own"])
        faults(dist)

    status, report = audit("-api", "nothing000")
    expect("no such API", (status, report["verdict"], "there is none" in report["findings"][0]["what"]), (2, "unknown", True))
    status, report = audit("-stack", "nothing")
    expect("no such stack", (status, report["verdict"], "there is none" in report["findings"][0]["what"]), (2, "unknown", True))
    aws("cloudwatch", "delete-alarms", "--alarm-names", "audit-good")
    sys.exit(len(wrong) > 0)


main()
