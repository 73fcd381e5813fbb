# SPDX-License-Identifier: GPL-2.0-or-later
"""The appliance on a kernel of its own, with udev and modules: the guest of scripts/lab.

The guest boots once and runs tests/lab/inside_guest.py; each test of that file is one here.
"""

import os
import re
import subprocess

import pytest

from conftest import BUILD, ROOT, needs_program, needs_root

INSIDE = ROOT / "tests/lab/inside_guest.py"
NAMES = re.findall(r"^def (test_\w+)", INSIDE.read_text(), re.M)
LIMIT = 300                                 # seconds, with some to spare on a busy machine

pytestmark = pytest.mark.timeout(LIMIT + 1000)


@pytest.fixture(scope="module")
def report():
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
    command = ["python3", "-B", "-m", "pytest", "-rA", "-q", "--color=no", "--durations=10",
               "/lab/tree/tests/lab/inside_guest.py"]
    done = subprocess.run([lab, "guest", "run", *command], capture_output=True, text=True,
                          errors="replace", env=env, stdin=subprocess.DEVNULL,
                          timeout=LIMIT + 60, check=False)
    said = done.stdout + done.stderr
    return {name: result for result, name in
            re.findall(r"^(\w+) \S*::(test_\w+)", said, re.M)}, said


@pytest.mark.parametrize("name", NAMES)
def test_in_the_guest(report, name):
    results, said = report
    assert results.get(name) == "PASSED", said
