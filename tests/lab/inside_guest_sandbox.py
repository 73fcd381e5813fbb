# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests/test_guest.py runs in the guest: whether all that an export does while it runs works
in its sandbox, with the Landlock of Debian's kernel.

Not a test of its own on any other machine.
"""

import pathlib

import pytest

pytest.register_assert_rewrite("guest")
from guest import (  # noqa: E402
    MIB, connect, journal, run)

pytest_plugins = ["guest"]

def test_this_kernel_has_landlock():
    assert "landlock" in pathlib.Path("/sys/kernel/security/lsm").read_text()


def test_what_an_export_opens_while_it_runs_works_in_the_sandbox(export, loop):
    device = loop(32 * MIB)
    export("web1", device)
    handle = connect("web1")
    state = ("nbdctl", "bitmap", "list", "web1", "--noheadings", "-o", "STATE")
    run("nbdctl", "bitmap", "add", "web1", "daily")     # a file that is made
    handle.pwrite(b"x" * 4096, 0)
    handle.flush()
    assert run(*state) == "recording"
    run("truncate", f"--size={64 * MIB}", run("losetup", "-nO", "BACK-FILE", device))
    run("losetup", "--set-capacity", device)
    run("systemctl", "restart", "nbd-export@web1.service")      # one that is put in its place
    late = connect("web1")
    late.pwrite(b"y" * 4096, 48 * MIB)
    assert run(*state) == "recording"
    run("nbdctl", "drain", "web1")
    run("nbdctl", "resume", "web1")
    run("nbdctl", "bitmap", "remove", "web1", "daily")
    assert "Permission denied" not in journal(200)
