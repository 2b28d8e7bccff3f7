#!/usr/bin/env python3
"""Counts the instructions of a request and compares them with instructions.json.

`make instructions` calls this. callgrind counts, so the result does not depend on the load of the machine, and little on
the machine. Valgrind emulates a processor without SHA instructions: the digest of a token weighs more here than in
reality, in both numbers that are compared.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KNOWN = ROOT / "benches/instructions.json"
# Subtracted from the others: the cost of making the request.
BASE = "request"
CASES = ["accepted", "accepted-4KiB", "refused-401", "refused-404", "log", "lookup", "compile-names", "compile-fields"]
WITHOUT_REQUEST = {"log", "lookup", "compile-names", "compile-fields"}
# Compilers and allocators differ by a few percent.
MARGIN = 0.10
# Enough requests that the start, which varies with random seeds, does not matter.
REQUESTS = 1_000, 11_000
# The numbers for work that is much cheaper or much more expensive than a request.
OTHERS = {"lookup": (20_000, 220_000), "compile-names": (1, 5), "compile-fields": (1, 5)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write the counts to instructions.json")
    update = parser.parse_args().update
    valgrind()
    program = build()
    base = count(program, BASE)
    counted = {case: count(program, case) - (0 if case in WITHOUT_REQUEST else base) for case in CASES}
    known = json.loads(KNOWN.read_text()) if KNOWN.exists() else {}
    worse = []
    print(f"{'case':<15} {'instructions':>12} {'recorded':>12}")
    for case, instructions in counted.items():
        before = known.get(case)
        change = f"{instructions / before - 1:+.1%}" if before else "new"
        print(f"{case:<15} {instructions:>12} {before or '-':>12}  {change}")
        if before is None or abs(instructions / before - 1) > MARGIN:
            worse.append(case)
    if update:
        KNOWN.write_text(json.dumps(counted, indent=2) + "\n")
        print(f"written to {KNOWN.relative_to(ROOT)}")
    elif worse:
        sys.exit(
            f"more than {MARGIN:.0%} away from {KNOWN.relative_to(ROOT)}: {', '.join(worse)}. "
            "If this is intended, better or worse, record it: `make instructions UPDATE=1`."
        )


def valgrind():
    if shutil.which("valgrind"):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit("found no valgrind: `apt-get install valgrind`")
    print("installing valgrind")
    subprocess.run(["apt-get", "update", "-qq"], check=True)
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "valgrind", "libc6-dbg"]
    subprocess.run(install, check=True, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, stdout=subprocess.DEVNULL)


def build():
    command = ["cargo", "bench", "--locked", "--features", "full", "--bench", "instructions", "--no-run"]
    lines = subprocess.run([*command, "--message-format=json"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    for line in lines.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == "instructions":
            return message["executable"]
    sys.exit("cargo did not print the path of the program")


def count(program, case):
    """The instructions of one repetition: the difference between many and few, without the start."""
    few, many = OTHERS.get(case, REQUESTS)
    return (run(program, case, many) - run(program, case, few)) // (many - few)


def run(program, case, times):
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, case, str(times)]
    told = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r"Collected : (\d+)", told.stderr)
    if told.returncode != 0 or not found:
        sys.exit(f"{case}: {told.stderr[-2000:]}")
    return int(found[1])


if __name__ == "__main__":
    main()
