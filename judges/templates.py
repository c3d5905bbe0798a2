"""Translates every SAM template as AWS would and has cfn-lint and checkov judge what comes of it.

Each template is translated with its defaults, with each parameter that steers a condition changed alone, and with every
parameter changed. The results stay in build/judges/. A finding that judges/accepted.toml does not name fails the run,
and so does an entry there that names no finding.
"""

import fnmatch
import json
import logging
import os
import pathlib
import subprocess
import sys
import tomllib
from types import SimpleNamespace

os.environ["AWS_DEFAULT_REGION"] = "us-east-1"  # the translator asks for it
from samtranslator.model.exceptions import InvalidDocumentException
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "judges"
TOOLS = pathlib.Path(sys.executable).parent
ACCEPTED = tomllib.loads((ROOT / "judges" / "accepted.toml").read_text())

logging.getLogger("samtranslator").setLevel(logging.ERROR)


def parameter_sets(template):
    """Yields (name, values by parameter)."""
    parameters = template.get("Parameters", {})

    def others(name):
        """The values other than the default that are tried."""
        p = parameters[name]
        given = ACCEPTED["parameters"].get(name)
        values = [given] if given is not None else p.get("AllowedValues", [])
        return [v for v in values if v != p.get("Default")]

    base = {n: others(n)[0] for n, p in parameters.items() if "Default" not in p and others(n)}
    missing = parameters.keys() - base.keys() - {n for n, p in parameters.items() if "Default" in p}
    conditions = json.dumps(template.get("Conditions", {}))
    steering = [n for n in parameters if f'"Ref": "{n}"' in conditions or "${%s}" % n in conditions]
    if missing := sorted(missing | {n for n in steering if not others(n)}):
        sys.exit(f"judges/accepted.toml: [parameters] has no value to try for {', '.join(missing)}")

    yield "defaults", base
    for name in steering:
        for value in others(name):
            yield f"{name}={value}".replace("/", "_").replace(":", "_"), base | {name: value}
    if changed := {n: others(n)[-1] for n in parameters if others(n)}:
        yield "all-changed", base | changed


def translate(source, values):
    """Returns the CloudFormation template that AWS would make of a SAM template deployed with these parameters."""
    template = yaml_parse(source)
    for name, value in values.items():
        template["Parameters"][name]["Default"] = value
    if "Transform" not in template:
        return template
    # What sam package does: the code is in S3.
    functions = [r["Properties"] for r in template["Resources"].values() if r["Type"] == "AWS::Serverless::Function"]
    for properties in [template.get("Globals", {}).get("Function", {}), *functions]:
        if "CodeUri" in properties:
            properties["CodeUri"] = "s3://bucket/key"
    return transform(template, {}, SimpleNamespace(load=lambda: ACCEPTED["managed_policies"]))


def tool(*command):
    """Runs a tool that writes JSON and returns what it wrote."""
    done = subprocess.run([TOOLS / command[0], *command[1:]], capture_output=True, text=True, cwd=ROOT)
    try:
        return json.loads(done.stdout)
    except json.JSONDecodeError:
        sys.exit(f"running {command[0]}: no JSON came back\n{done.stdout}{done.stderr}")


def cfn_lint(files):
    """Yields (template, rule, place, message)."""
    for f in tool("cfn-lint", "--format", "json", "--", *files):
        place = "/".join(map(str, f["Location"]["Path"] or []))
        yield f["Filename"], f["Rule"]["Id"], place, f["Message"]


def checkov(files):
    """Yields (template, check, logical id, what it wants)."""
    args = [a for f in files for a in ("--file", f)]
    report = tool("checkov", "--framework", "cloudformation", "--skip-download", "--quiet", "--output", "json", *args)
    seen = report["summary"]
    if seen["parsing_errors"] or not seen["passed"]:
        sys.exit(f"running checkov: it could not read the templates: {seen}")
    print(f"checkov: {seen['passed']} checks of {seen['resource_count']} resources passed")
    for f in report["results"]["failed_checks"]:
        yield f["file_path"].lstrip("/"), f["check_id"], f["resource"].split(".")[-1], f["check_name"]


def unaccepted(tool_name, findings):
    """Prints what is not accepted, and what is accepted but was not found. Returns how many those are."""
    entries = ACCEPTED[tool_name]
    used, wrong, count = set(), 0, 0
    for name, rule, place, message in findings:
        count += 1
        hits = {
            (i, at)
            for i, e in enumerate(entries)
            for at in e["at"]
            if e["rule"] == rule and e["reason"] and fnmatch.fnmatchcase(name, e.get("template", "*")) and fnmatch.fnmatchcase(place, at)
        }
        used |= hits
        if not hits:
            wrong += 1
            print(f"{tool_name}: {name}: {rule} at {place or 'the top'}: {message}")
    for i, e in enumerate(entries):
        for at in e["at"]:
            if (i, at) not in used:
                wrong += 1
                print(f"{tool_name}: judges/accepted.toml accepts {e['rule']} at {at}, which was not found")
    print(f"{tool_name}: {count} findings, {wrong} of them or of the accepted ones wrong")
    return wrong


def main():
    sources = [ROOT / "template.yaml", *sorted((ROOT / "examples").rglob("*.y*ml"))]
    sources = [s for s in sources if "\nResources:" in s.read_text()]
    OUT.mkdir(parents=True, exist_ok=True)
    for old in OUT.glob("*.json"):
        old.unlink()
    translated = []
    for source in sources:
        name = str(source.relative_to(ROOT).with_suffix("")).replace("/", "-")
        sets = list(parameter_sets(yaml_parse(source.read_text())))
        for variant, values in sets:
            try:
                result = translate(source.read_text(), values)
            except InvalidDocumentException as e:
                sys.exit(f"translating {source.relative_to(ROOT)} with {variant}: {[c.message for c in e.causes]}")
            out = OUT / f"{name}.{variant}.json"
            out.write_text(json.dumps(result, indent=1))
            translated.append(str(out.relative_to(ROOT)))
        print(f"{source.relative_to(ROOT)}: translated with {len(sets)} sets of parameters")
    as_written = [str(s.relative_to(ROOT)) for s in sources]
    defaults = [f for f in translated if f.endswith(".defaults.json")]
    wrong = unaccepted("cfn-lint", cfn_lint(translated))
    wrong += unaccepted("checkov", checkov(as_written + defaults))
    sys.exit(wrong > 0)


main()
