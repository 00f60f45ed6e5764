# SPDX-License-Identifier: Apache-2.0
"""Counts the cases of meson's JUnit logs and prints `N passed, N failed, N skipped`; exit status 1 if any failed.

usage: count.py FAILED_BUILDS LOG...
"""
import sys
import xml.etree.ElementTree as ET


def main():
    passed, failed, skipped = 0, int(sys.argv[1]), 0
    for path in sys.argv[2:]:
        try:
            suites = ET.parse(path).getroot().iter('testsuite')
        except (OSError, ET.ParseError) as error:
            print(f'{path}: {error}')
            failed += 1
            continue
        for suite in suites:
            cases = list(suite.iter('testcase'))
            bad = [c for c in cases if c.find('failure') is not None or c.find('error') is not None]
            for case in bad:
                print(f'FAILED {suite.get("name")}: {case.get("name")}')
            failed += len(bad)
            skips = sum(c.find('skipped') is not None for c in cases)
            skipped += skips
            passed += len(cases) - len(bad) - skips
            # A test program that dies reports no failing case of its own.
            if not bad and int(suite.get('failures', 0)) + int(suite.get('errors', 0)) > 0:
                print(f'FAILED {suite.get("name")}: ended early')
                failed += 1
    print(f'{passed} passed, {failed} failed, {skipped} skipped')
    return 1 if failed or not passed else 0


sys.exit(main())
