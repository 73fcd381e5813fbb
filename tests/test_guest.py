# SPDX-License-Identifier: GPL-2.0-or-later
"""The appliance on a kernel of its own, with udev and modules: the guest of scripts/lab.

The guest runs the files tests/lab/inside_guest*.py, the last of them after it has booted again;
each test of those is one here.
"""

import re
import shlex

import pytest

import guestlab
from conftest import ROOT

INSIDE = [ROOT / "tests/lab" / name for name in (
    "inside_guest.py", "inside_guest_faults.py", "inside_guest_device.py", "inside_guest_sandbox.py",
    "inside_guest_bitmaps.py", "inside_guest_rebooted.py")]
NAMES = [name for path in INSIDE for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)]
LIMIT = 4800                                # seconds for each boot, on a very busy machine

# What the guest runs, at both boots.
SCRIPT = """
cd /lab/tree/tests/lab
pytest() {{ python3 -B -m pytest -rA -q --color=no --durations=10 -p no:cacheprovider "$@"; }}
[ "$LAB_BOOT" = 1 ] || {{ pytest {rebooted}; exit; }}
pytest {long} {first}
python3 -B {rebooted} && touch /lab/again
"""

pytestmark = pytest.mark.timeout(2 * LIMIT + 1000)


@pytest.fixture(scope="module")
def report(request):
    """({name: "PASSED"}, all that was printed)"""
    long = "--long" if request.config.getoption("--long") else ""
    return guestlab.report(LIMIT, SCRIPT.format(
        long=long, first=shlex.join(path.name for path in INSIDE[:-1]), rebooted=INSIDE[-1].name))


@pytest.mark.parametrize("name", NAMES)
def test_in_the_guest(report, name):
    results, said = report
    assert results.get(name) == "PASSED", said
