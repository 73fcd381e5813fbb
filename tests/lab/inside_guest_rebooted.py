# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests/test_guest.py runs in the guest after it has booted again; before that, as a program
of its own, it adds the exports."""

import pathlib

import nbd
import pytest

pytest.register_assert_rewrite("guest")
from guest import (  # noqa: E402
    MIB, connect, run, show, shown, size_of, state, wait_for)

pytest_plugins = ["guest"]

DISK = "/dev/disk/by-id/virtio-second"      # the machine's second one
SIZE = 64 * MIB
EARLY = "an%20early%20one"                  # as it stands in a URI


def content_of(name):
    return name.encode().ljust(4096)


def add_exports():
    run("nbdctl", "add", "early", DISK, "--start-at-boot", "--name", "an early one")
    path = pathlib.Path("/srv/later.img")
    run("truncate", f"--size={SIZE}", path)
    run("chown", "nbd-export:", path)
    run("nbdctl", "add", "later", path)
    for name in (EARLY, "later"):
        handle = connect(name)
        handle.pwrite(content_of(name), 0, nbd.CMD_FLAG_FUA)
        handle.shutdown()


def test_an_export_starts_with_the_machine_and_its_disk():
    wait_for(lambda: state("nbd-export@early.service") == "active", "start at boot")
    assert "virtio" in show("nbd-export@early.socket", "BindsTo")
    assert shown("early", "state") == "serving"
    assert connect(EARLY).pread(4096, 0) == content_of(EARLY)


def test_another_starts_with_its_first_client():
    assert state("nbd-export@later.socket") == "active"
    assert state("nbd-export@later.service") == "inactive"
    assert size_of("later") == SIZE
    assert connect("later").pread(4096, 0) == content_of("later")


def test_nothing_has_failed():
    assert run("systemctl", "list-units", "--failed", "--plain", "--no-legend", "nbd-*") == ""


if __name__ == "__main__":
    add_exports()
