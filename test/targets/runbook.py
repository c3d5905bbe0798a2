"""Runs the commands of docs/operations.md, as they stand in its text, against the stack in ministack.

    runbook.py WORK TYPED   within operator.sh: all but those that are listed here, and those that operator.sh has typed, whose
                            blocks are in the file TYPED; in WORK, which is a checkout
    runbook.py last         those that end the stack

A command that is neither run nor listed fails the run, and so does an entry that lists none, or one that succeeds by now.
"""

import pathlib
import re
import subprocess
import sys
import textwrap

# What cannot succeed here, and what is said then. Each is tried, and must fail.
CANNOT = {
    "aws apigatewayv2 reset-authorizers-cache": "NotFoundException",  # the API at hand is a REST API
    "aws apigatewaymanagementapi delete-connection": "Could not connect to the endpoint URL",  # which is in AWS's domain
}
# What is not tried here.
ELSEWHERE = {
    "export AWS_REGION=eu-central-1": "the stack is in another region",
    "sam build && sam deploy --parameter-overrides Issuer=https://DEPLOYMENT": "ministack.sh types README's, which is the same",
    "sam build && sam deploy": "ministack takes no saved queries: ministack.sh deploys without Monitoring",
    "make deploy ARCH=x86_64": "for the makefile of an earlier commit",
}
# What comes at the end, in ministack.sh.
LAST = ["sam delete --no-prompts"]
# What the answer must hold, by the command's beginning.
ANSWERS = {
    "aws sts get-caller-identity": '"Account"',
    "aws cloudformation describe-stacks --stack-name \"$STACK\" --query 'Stacks[0].Outputs": "AuthorizerName",
    "aws cloudformation describe-stacks --stack-name \"$STACK\" --query 'Stacks[0].Parameters'": '"JwksTtl"',
    "aws logs get-query-results": '"status": "Complete"',  # ministack does not read the query
    'curl -i "$(output ApiUrl)/protected"': "HTTP/1.1 401",
    "make explain": "allow",
    'curl -i -A zuplo-lambda-authorizer "$(parameter Issuer)': '"keys"',
    "aws lambda get-policy": "apigateway.amazonaws.com",
    "aws lambda get-account-settings": "ConcurrentExecutions",
    "aws lambda publish-layer-version": "layer:ca:1",
}


def blocks():
    """The runbook's blocks of commands, each a list of commands of one or more lines; its functions come first."""
    text = pathlib.Path("docs/operations.md").read_text()
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    found = []
    for block in re.findall(r"(?:^|\n)\n((?: {4}.*\n)+)", text):
        lines = textwrap.dedent(block)
        if not re.match(r"# [a-z-]+\nfilter ", lines):
            found.append(re.findall(r"(?:.*\\\n)*.+\n?", lines) if found else [lines])
    spans = re.findall(r"`((?:aws|curl|make|sam|zip) [^`]+)`", text)
    said = [c for b in found for c in b]
    return found, [s for s in dict.fromkeys(spans) if not any(s in c for c in said)]


def listed(command, among):
    """The longest entry with which the command begins."""
    return max((e for e in among if command.startswith(e)), key=len, default=None)


PREAMBLE = r"""
set -euo pipefail
# An API's address is ministack's here, and zip may not be installed.
curl() { local a=() x; for x; do a+=("$(sed -E 's,https://([a-z0-9]+)\.execute-api\.[a-z0-9-]+\.amazonaws\.com/([a-z]+),http://localhost:4566/restapis/\1/\2/_user_request_,' <<<"$x")"); done; command curl "${a[@]}"; }
zip() { python3 -m zipfile -c "$@"; }
"""


def run(command, where):
    done = subprocess.run(["bash", "-c", PREAMBLE + FUNCTIONS + command], cwd=where, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


FOUND, SPANS = blocks()
FUNCTIONS = FOUND.pop(0)[0]
faults = []

if sys.argv[1:] == ["last"]:
    for entry in LAST:
        for block in FOUND:
            for command in block:
                if command.startswith(entry):
                    code, answer = run(command, ".")
                    code and faults.append(f"{command}: {answer}")
else:
    work, typed = sys.argv[1], pathlib.Path(sys.argv[2]).read_text()
    used = set()
    for block in FOUND + [[s] for s in SPANS]:
        rest = []
        for command in block:
            entry = listed(command, [*CANNOT, *ELSEWHERE, *LAST])
            used.add(entry)
            if entry in CANNOT:
                code, answer = run(command, work)
                if code == 0 or CANNOT[entry] not in answer:
                    faults.append(f"this succeeds by now, or says something else: {command}{answer}")
            elif entry is None:
                rest.append(command)
        script = "".join(rest)
        if not script or "\n" + script in "\n" + typed:
            continue
        code, answer = run(script, work)
        print(f"{script}    {code}: {answer[:2000]}")
        wanted = {listed(command, ANSWERS) for command in rest} - {None}
        used |= wanted
        if code or any(ANSWERS[w] not in answer for w in wanted):
            faults.append(f"{script}: {code}, {answer}")
    faults += [f"the runbook has no command that begins with: {e}" for e in [*CANNOT, *ELSEWHERE, *LAST, *ANSWERS] if e not in used]

sys.exit("docs/operations.md: " + "\n".join(faults) if faults else 0)
