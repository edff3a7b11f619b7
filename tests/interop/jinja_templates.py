"""Compares our Jinja engine with jinja2: real templates times conversations, language features, random expressions.

    jinja_templates.py RENDER_TEMPLATES SOURCE_DIR [--seed N] [--random N] [--verbose]
    jinja_templates.py --update SOURCE_DIR      writes jinja2's results into tests/golden/text/jinja_cases.json
"""
import argparse
import collections
import glob
import json
import os
import subprocess
import sys
import tempfile

import jinja_conversations
import jinja_random
import jinja_reference


def ours(program, cases):
    """Results of the program for (name, template, variables)."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump([{"template": template, "variables": variables} for _, template, variables in cases], file,
                  ensure_ascii=False)
        file.flush()
        output = subprocess.run([program, file.name, str(jinja_reference.CLOCK)], stdout=subprocess.PIPE, check=True)
    return json.loads(output.stdout)


def same(expected, found, strict):
    if "error" in expected and "error" in found:
        if not strict:
            return True
        # Beyond its kind and its place, an error says the same.
        theirs, mine = expected["error"].split(": ", 1)[-1], found["error"].split(": ", 1)[-1]
        return theirs == mine or (theirs == "RecursionError" and "nest deeper" in mine)
    # Python prints addresses of generators and functions.
    if " at 0x" in expected.get("text", "").lower():
        return "text" in found
    return expected == found


def compare(title, program, cases, verbose, strict=False):
    cases = list(cases)
    expected = [jinja_reference.render(template, variables) for _, template, variables in cases]
    found = ours(program, cases)
    kinds = collections.Counter(next(iter(e)) for e in expected)
    wrong = [(case, e, f) for case, e, f in zip(cases, expected, found) if not same(e, f, strict)]
    print(f"{title}: {len(cases)} cases ({', '.join(f'{n} {k}' for k, n in sorted(kinds.items()))}), {len(wrong)} different")
    for (name, template, _), e, f in wrong[:None if verbose else 10]:
        print(f"--- {name}")
        if len(template) < 400:
            print(f"    template: {template!r}")
        print(f"    jinja2:   {json.dumps(e, ensure_ascii=False)[:600]}")
        print(f"    ours:     {json.dumps(f, ensure_ascii=False)[:600]}")
    return len(wrong)


def update(path):
    cases = json.load(open(path, encoding="utf-8"))
    for case in cases:
        for key in ("text", "refused", "error"):
            case.pop(key, None)
        result = jinja_reference.render(case["template"], case["variables"])
        case.update({"error": True} if "error" in result else result)
    with open(path, "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases) + "\n]\n")


def main():
    if sys.argv[1:2] == ["--update"]:
        return update(os.path.join(sys.argv[2], "tests", "golden", "text", "jinja_cases.json"))
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("source")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--random", type=int, default=6000)
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()

    wrong = 0
    folder = os.path.join(arguments.source, "..", "shared", "data", "templates")
    paths = sorted(glob.glob(os.path.join(folder, "*.jinja")))
    if paths:
        templates = {os.path.basename(path): open(path, encoding="utf-8", newline="").read() for path in paths}
        wrong += compare(f"{len(paths)} real templates", arguments.program, jinja_conversations.cases(templates),
                         arguments.verbose, strict=True)
    else:
        print(f"no templates in {folder}: real templates are not compared")
    golden = os.path.join(arguments.source, "tests", "golden", "text", "jinja_cases.json")
    features = [(case["name"], case["template"], case["variables"]) for case in json.load(open(golden, encoding="utf-8"))]
    wrong += compare("language features", arguments.program, features, arguments.verbose)
    wrong += compare("random expressions", arguments.program, jinja_random.cases(arguments.random, arguments.seed),
                     arguments.verbose)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
