#!/usr/bin/env python3
"""Tests the inspector in Chromium against a real gateway. `make test-inspector` builds the gateway and calls this script.

  run.py             every test
  run.py walk        the tests whose file, class or name has `walk` in it

GATEWAY is the program (default: target/debug/gateway), CHROMIUM the browser. Screenshots are kept in target/inspector/.
"""

import sys
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "target/tools/inspector/python")]

import support  # noqa: E402, after the path is set


def chosen(suite, words):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from chosen(test, words)
        elif all(word in test.id() for word in words) or isinstance(test, unittest.loader._FailedTest):
            yield test


def main():
    if not support.GATEWAY.is_file():
        sys.exit(f"found no {support.GATEWAY}: build it with cargo build --all-features --bin gateway, or set GATEWAY")
    tests = list(chosen(unittest.TestLoader().discover(str(HERE)), sys.argv[1:]))
    if not tests:
        sys.exit(f"no test has {sys.argv[1:]} in its name")
    try:
        result = unittest.TextTestRunner(verbosity=2, failfast=False).run(unittest.TestSuite(tests))
    finally:
        support.bench.stop()
    sys.exit(not result.wasSuccessful())


if __name__ == "__main__":
    main()
