"""Measures how long the authorizer takes from its start to asking for its first event: without a table of shared keys, with
the keys in it, and with the lease to fetch them. Runs beside the stand-in for Zuplo and ministack, which say where they are
in the environment; `make init-time` starts both."""

import hashlib
import http.server
import json
import os
import statistics
import subprocess
import threading
import time
import urllib.request

RUNS = 60
ISSUER, TABLE, ENDPOINT = (os.environ[name] for name in ("ISSUER", "JWKS_TABLE", "AWS_ENDPOINT_URL_DYNAMODB"))

asked = threading.Event()


class RuntimeAPI(http.server.BaseHTTPRequestHandler):
    """Lambda's Runtime API, as far as the first request for an event, which is never answered."""

    def do_GET(self):
        asked.at = time.perf_counter()
        asked.set()
        self.rfile.read()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), RuntimeAPI)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()


def start(**more):
    """Returns milliseconds, the peak of resident memory in MB, and how often the issuer was asked."""
    env = {"AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{server.server_port}", "_HANDLER": "bootstrap", "ISSUER": ISSUER, "AUDIENCE": "any",
           "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_ENDPOINT_URL_DYNAMODB": ENDPOINT}
    asked.clear()
    began = time.perf_counter()
    process = subprocess.Popen(["build/authorizer/bootstrap"], env=env | more, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if not asked.wait(10):
        raise SystemExit("the authorizer did not ask for an event within 10 s")
    with open(f"/proc/{process.pid}/status") as status:
        peak = next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
    process.kill()
    log = process.communicate()[0]
    return (asked.at - began) * 1000, peak, log.count(b'"source":"issuer"')


def with_lease():
    """A start that finds nothing in the table."""
    key = {"id": {"S": hashlib.sha256(f"{ISSUER}\n{ISSUER}/.well-known/jwks.json".encode()).hexdigest()[:32]}}
    urllib.request.urlopen(urllib.request.Request(ENDPOINT, json.dumps({"TableName": TABLE, "Key": key}).encode(), {
        "Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": "DynamoDB_20120810.DeleteItem",
        "Authorization": "AWS4-HMAC-SHA256 Credential=local/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=local"})).read()
    return start(JWKS_TABLE=TABLE)


with_lease()
for what, once, fetches in (("no table", start, RUNS), ("table, the keys in it", lambda: start(JWKS_TABLE=TABLE), 0), ("table, takes the lease", with_lease, RUNS)):
    runs = [once() for _ in range(RUNS)]
    times = [run[0] for run in runs]
    print(f"{what:22} median {statistics.median(times):4.1f} ms, 9 in 10 within {statistics.quantiles(times, n=10)[8]:4.1f} ms, "
          f"{statistics.median(run[1] for run in runs):.1f} MB, asked the issuer {sum(run[2] for run in runs)} times in {RUNS}")
    if sum(run[2] for run in runs) != fetches:
        raise SystemExit(f"the issuer should have been asked {fetches} times")
