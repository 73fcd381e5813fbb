# SPDX-License-Identifier: GPL-2.0-or-later
"""The appliance on a kernel of its own, with udev and modules: the guest of scripts/lab.

The guest runs the files tests/lab/inside_guest*.py, the last of them after it has booted again;
each test of those is one here.
"""

import os
import re
import shlex
import subprocess

import pytest

from conftest import BUILD, ROOT, needs_program, needs_root

INSIDE = [ROOT / "tests/lab" / name for name in (
    "inside_guest.py", "inside_guest_faults.py", "inside_guest_device.py", "inside_guest_sandbox.py",
    "inside_guest_bitmaps.py", "inside_guest_rebooted.py")]
NAMES = [name for path in INSIDE for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)]
LIMIT = 2400                                # seconds for each boot, on a very busy machine

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
    needs_root()
    needs_program("qemu-system-x86_64")
    if b"__asan_init" in (BUILD / "daemon/export/nbd-export").read_bytes():
        pytest.skip("a build with sanitizers does not run in the units' sandbox")
    lab = ROOT / "scripts/lab"
    env = dict(os.environ, NBD_EXPORT_BUILD=str(BUILD), NBD_EXPORT_LAB_TIMEOUT=str(LIMIT))
    built = subprocess.run([lab, "guest", "build"], capture_output=True, text=True, env=env,
                           stdin=subprocess.DEVNULL, timeout=900, check=False)
    if built.returncode != 0:
        pytest.skip(built.stderr.strip().splitlines()[-1])
    long = "--long" if request.config.getoption("--long") else ""
    script = SCRIPT.format(long=long, first=shlex.join(path.name for path in INSIDE[:-1]),
                           rebooted=INSIDE[-1].name)
    done = subprocess.run([lab, "guest", "run", "bash", "-c", script], capture_output=True,
                          text=True, errors="replace", env=env, stdin=subprocess.DEVNULL,
                          timeout=2 * LIMIT + 60, check=False)
    said = done.stdout + done.stderr
    return results_in(said), said


def results_in(said):
    """{name: result}; of a test with parameters one that did not pass, if there is one."""
    results = {}
    for result, name in re.findall(r"^(PASSED|FAILED|ERROR) \S*::(test_\w+)", said, re.M):
        if results.get(name, "PASSED") == "PASSED":
            results[name] = result
    return results


@pytest.mark.parametrize("name", NAMES)
def test_in_the_guest(report, name):
    results, said = report
    assert results.get(name) == "PASSED", said
