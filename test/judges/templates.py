"""Translates every SAM template as AWS would and has cfn-lint and checkov judge what comes of it, and what the CDK made.

Each template is translated with its defaults, with each parameter that steers a condition changed alone, and with every
parameter changed. The results stay in build/judges/. A finding that test/judges/accepted.toml does not name fails the run,
and so does an entry there that names no finding.
"""

import json
import logging
import os
import pathlib
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatchcase
from types import SimpleNamespace

os.environ["AWS_DEFAULT_REGION"] = "us-east-1"  # the translator asks for it
from samtranslator.model.exceptions import InvalidDocumentException
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
OUT = ROOT / "build" / "judges"
TOOLS = pathlib.Path(sys.executable).parent
ACCEPTED = tomllib.loads((ROOT / "test" / "judges" / "accepted.toml").read_text())

# The templates of a release, which are made of template.yaml: what is accepted there is accepted here.
RELEASE = ["dist/template.yaml", "dist/application.yaml"]

logging.getLogger("samtranslator").setLevel(logging.ERROR)


def main():
    translated = {}  # template by the file of what became of it
    for source in templates():
        sets = list(parameter_sets(source))
        for variant, values in sets:
            out = OUT / f"{source.replace('/', '-')}.{variant}.json"
            try:
                out.write_text(json.dumps(translate(source, values), indent=1))
            except InvalidDocumentException as e:
                sys.exit(f"translating {source}, parameters {variant}: {[c.message for c in e.causes]}")
            translated[str(out.relative_to(ROOT))] = "template.yaml" if source in RELEASE else source
        print(f"{source}: translated with {len(sets)} sets of parameters")
    faults = judge("cfn-lint", cfn_lint(translated))
    faults += judge("checkov", checkov(translated | {source: source for source in translated.values()}))
    sys.exit(faults > 0)


def templates():
    """Returns template.yaml, a release's, the templates among the examples and the CDK's, and empties the folder for what becomes of them."""
    OUT.mkdir(parents=True, exist_ok=True)
    for old in OUT.glob("*.json"):
        old.unlink()
    is_template = re.compile(r"^(AWSTemplateFormatVersion|Transform|Resources):", re.MULTILINE)
    examples = [f for f in sorted((ROOT / "examples").rglob("*.y*ml")) if "node_modules" not in f.parts and is_template.search(f.read_text())]
    return ["template.yaml", *RELEASE, *(str(f.relative_to(ROOT)) for f in examples), "build/cdk/orders-cdk.template.json"]


def parameter_sets(source):
    """Yields (name, values by parameter)."""
    template = yaml_parse((ROOT / source).read_text())
    parameters = template.get("Parameters", {})
    conditions = json.dumps(template.get("Conditions", {}))
    steering = [n for n in parameters if f'"Ref": "{n}"' in conditions or "${%s}" % n in conditions]
    required = [n for n, p in parameters.items() if "Default" not in p]
    others = {}  # values that are tried besides the default
    for name, p in parameters.items():
        values = ACCEPTED["parameters"].get(name) or p.get("AllowedValues", [])
        others[name] = [v for v in values if v != p.get("Default")]
        if not others[name] and name in steering + required:
            sys.exit(f"{source}: {name} needs a value to try, in [parameters] of test/judges/accepted.toml")

    defaults = {name: others[name][0] for name in required}
    yield "defaults", defaults
    for name in [] if source in RELEASE else steering:
        for i, value in enumerate(others[name]):
            yield f"{name}{i + 1}", defaults | {name: value}
    yield "all-changed", {name: values[-1] for name, values in others.items() if values}


def translate(source, values):
    """Returns the CloudFormation template that AWS makes of a SAM template deployed with these parameters."""
    template = yaml_parse((ROOT / source).read_text())
    for name, value in values.items():
        template["Parameters"][name]["Default"] = value
    if "Transform" not in template:
        return template
    # What sam package does: the code is in S3.
    functions = [r["Properties"] for r in template.get("Resources", {}).values() if r["Type"] == "AWS::Serverless::Function"]
    for properties in [template.get("Globals", {}).get("Function", {}), *functions]:
        if isinstance(properties.get("CodeUri"), str):
            properties["CodeUri"] = "s3://bucket/key"
    return transform(template, {}, SimpleNamespace(load=lambda: ACCEPTED["managed_policies"]))


def cfn_lint(files):
    """Yields (template, file, rule, place, message)."""
    for f in run("cfn-lint", "--format", "json", "--", *files):
        place = "/".join(map(str, f["Location"]["Path"] or []))
        yield files[f["Filename"]], f["Filename"], f["Rule"]["Id"], place, f["Message"]


def checkov(files):
    """Yields (template, file, check, logical id, what it wants)."""
    args = [a for f in files for a in ("--file", f)]
    report = run("checkov", "--framework", "cloudformation", "--skip-download", "--quiet", "--output", "json", *args)
    if report["summary"]["parsing_errors"] or not report["summary"]["passed"]:
        sys.exit(f"running checkov: it could not read the templates: {report['summary']}")
    for f in report["results"]["failed_checks"]:
        file = f["file_path"].lstrip("/")
        yield files[file], file, f["check_id"], f["resource"].split(".")[-1], f["check_name"]


def run(command, *args):
    """Runs a tool that writes JSON and returns what it wrote."""
    done = subprocess.run([TOOLS / command, *args], capture_output=True, text=True, cwd=ROOT)
    try:
        return json.loads(done.stdout)
    except json.JSONDecodeError:
        sys.exit(f"running {command}: no JSON came back\n{done.stdout}{done.stderr}")


def judge(tool, findings):
    """Prints what was found and is not accepted, and what is accepted and was not found. Returns how many those are."""
    accepted = {(i, at): e for i, e in enumerate(ACCEPTED[tool]) for at in e["at"]}
    used, faults = set(), {}  # faults: the files in which each was found
    for template, file, rule, place, message in findings:
        hits = {
            key
            for key, e in accepted.items()
            if e["reason"] and e["rule"] == rule and fnmatchcase(template, e["template"]) and fnmatchcase(place, key[1])
        }
        used |= hits
        if not hits:
            faults.setdefault(f"{rule} at {place or 'the top'}: {message}", []).append(file)
    for key in accepted.keys() - used:
        faults[f"{accepted[key]['rule']} at {key[1]} is accepted but was not found"] = ["test/judges/accepted.toml"]
    for fault, files in faults.items():
        print(f"{tool}: {fault}\n    in {', '.join(files)}")
    print(f"{tool}: {len(used)} findings accepted, {len(faults)} faults")
    return len(faults)


main()
