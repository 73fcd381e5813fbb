# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest of scripts/lab, for tests: whether it can be had here, and what runs in it."""

import os
import re
import subprocess

import pytest

from conftest import BUILD, ROOT, needs_program, needs_root

LAB = ROOT / "scripts/lab"


def needs_guest():
    """Makes its image, if need be, or skips with what is missing."""
    needs_root()
    needs_program("qemu-system-x86_64")
    if b"__asan_init" in (BUILD / "daemon/export/nbd-export").read_bytes():
        pytest.skip("a build with sanitizers does not run in the units' sandbox")
    built = subprocess.run([LAB, "guest", "build"], capture_output=True, text=True, timeout=900,
                           stdin=subprocess.DEVNULL, check=False)
    if built.returncode != 0:
        pytest.skip(built.stderr.strip().splitlines()[-1])


def environment(seconds, **more):
    """For scripts/lab; `seconds` for each boot and what is done in it."""
    return dict(os.environ, NBD_EXPORT_BUILD=str(BUILD), NBD_EXPORT_LAB_TIMEOUT=str(seconds), **more)


def end(lab):
    """Ends scripts/lab, which takes its guest along."""
    lab.terminate()
    lab.wait(60)


def report(seconds, script, *arguments):
    """Runs a script of bash in it: ({name: "PASSED"}, all that was printed)."""
    needs_guest()
    lab = subprocess.Popen([LAB, "guest", "run", "bash", "-c", script, "bash", *arguments],
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, errors="replace",
                           env=environment(seconds))
    try:
        said = lab.communicate(timeout=2 * seconds + 60)[0]
    except BaseException:
        end(lab)
        raise
    return results_in(said), said


def results_in(said):
    """{name: result}; of a test with parameters one that did not pass, if there is one."""
    results = {}
    for result, name in re.findall(r"^(PASSED|FAILED|ERROR) \S*::(test_\w+)", said, re.M):
        if results.get(name, "PASSED") == "PASSED":
            results[name] = result
    return results
