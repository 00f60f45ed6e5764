# SPDX-License-Identifier: Apache-2.0
"""Counts the cases of meson's logs and prints `N passed, N failed, N skipped`; exit status 1 if any failed.

usage: count.py FAILED_BUILDS LOG...      LOG: meson-logs/testlog.junit.xml; testlog.json is read beside it

The JUnit log has the cases, the JSON log how each program ended: one that died, ran out of time or printed what is not
TAP has failed, though all cases that it reported passed.
"""
import json
import os
import sys
import xml.etree.ElementTree as ET

GOOD = ('OK', 'EXPECTEDFAIL', 'SKIP')


def count_cases(path):
    """({program: failed cases}, passed, failed, skipped)"""
    bad, passed, failed, skipped = {}, 0, 0, 0
    for suite in ET.parse(path).getroot().iter('testsuite'):
        for case in suite.iter('testcase'):
            if case.find('failure') is not None or case.find('error') is not None:
                print(f'FAILED {suite.get("name")}: {case.get("name")}')
                # A program without cases is itself a case of its project's suite.
                for name in (suite.get('name', '').split('.')[-1], case.get('name')):
                    bad[name] = bad.get(name, 0) + 1
                failed += 1
            elif case.find('skipped') is not None:
                skipped += 1
            else:
                passed += 1
    return bad, passed, failed, skipped


def ended_badly(path, bad):
    """Programs that failed without a case that says so."""
    count = 0
    with open(path) as f:
        for line in f:
            test = json.loads(line)
            name = test['name'].split(' / ')[-1]
            if test['result'] in GOOD or name in bad:
                continue
            print(f'FAILED {name}: the program ended with {test["result"]}')
            count += 1
    return count


def main():
    passed, failed, skipped = 0, int(sys.argv[1]), 0
    for path in sys.argv[2:]:
        try:
            bad, good, wrong, left_out = count_cases(path)
            wrong += ended_badly(os.path.join(os.path.dirname(path), 'testlog.json'), bad)
        except (OSError, ET.ParseError, ValueError, KeyError) as error:
            print(f'{path}: {error}')
            good, wrong, left_out = 0, 1, 0
        passed, failed, skipped = passed + good, failed + wrong, skipped + left_out
    print(f'{passed} passed, {failed} failed, {skipped} skipped')
    return 1 if failed or not passed else 0


sys.exit(main())
