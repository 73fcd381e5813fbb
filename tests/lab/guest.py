# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures for the tests that run inside the guest; a plugin of pytest.

    stack               what undoes the rest, in reverse order
    export(label, path) an export by a hand-written file
    drop_in(unit, text) as `systemctl edit` makes one
    loop(size)          a loop device; linear(name) a device-mapper device on one
    scsi()              a disk that can be taken away and come back
"""

import contextlib
import json
import pathlib
import subprocess
import time

import nbd
import pytest

EXPORTS = pathlib.Path("/etc/nbd-export/exports.d")
UNITS = pathlib.Path("/run/systemd/system")
MIB = 1 << 20
PATIENCE = 60                               # all is emulated


def ask(*words, timeout=PATIENCE):
    return subprocess.run([str(word) for word in words], capture_output=True, text=True,
                          errors="replace", timeout=timeout, check=False)


def run(*words, timeout=PATIENCE):
    done = ask(*words, timeout=timeout)
    assert done.returncode == 0, f"{words}: {done.stderr or done.stdout}\n{journal()}"
    return done.stdout.strip()


def journal(lines=30):
    return ask("journalctl", "--no-pager", "--output=short-monotonic", f"--lines={lines}").stdout


def events(name, label):
    """The journal's entries of this event about an export."""
    ask("journalctl", "--sync")
    said = ask("journalctl", "--no-pager", "--output=cat", f"EVENT={name}", f"EXPORT={label}")
    return said.stdout.splitlines()


def wait_for(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not (result := condition()):
        assert time.monotonic() < deadline, f"no {what}\n{journal()}"
        time.sleep(0.1)
    return result


def show(unit, name):
    return run("systemctl", "show", "--value", f"--property={name}", unit)


def state(unit):
    return show(unit, "ActiveState")


def shown(label, column):
    """What `nbdctl list` has in a column."""
    rows = json.loads(run("nbdctl", "list", "--json", "-o", f"label,{column}"))["exports"]
    return next(row[column] for row in rows if row["label"] == label)


def size_of(label):
    return int(run("nbdinfo", "--size", f"nbd://localhost/{label}"))


def connect(label):
    handle = nbd.NBD()
    handle.connect_uri(f"nbd://localhost/{label}")
    return handle


class Load:
    """fio, which writes and reads at random, and verifies."""

    def __init__(self, label, *more):
        self.child = subprocess.Popen(
            ["fio", "--name=load", "--ioengine=nbd", f"--uri=nbd://localhost/{label}",
             "--rw=randrw", "--bs=16k", "--iodepth=32", "--verify=crc32c",
             "--verify_state_save=0", *more],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def end(self):
        """(exit status, what it said)"""
        said, _ = self.child.communicate(timeout=PATIENCE)
        return self.child.returncode, said


@pytest.fixture
def stack():
    with contextlib.ExitStack() as opened:
        yield opened


@pytest.fixture
def export(stack):
    """export(label, device, more): as an administrator adds one by hand."""

    def add(label, device, more="", start=True):
        EXPORTS.mkdir(parents=True, exist_ok=True)
        (EXPORTS / f"{label}.conf").write_text(f"[Export]\nDevice={device}\n{more}\n")
        stack.callback(remove, label)
        run("systemctl", "daemon-reload")
        if start:
            run("systemctl", "start", f"nbd-export@{label}.socket")
        run("systemctl", "reload-or-restart", "nbd-negotiator.service")

    def remove(label):
        run("systemctl", "stop", f"nbd-export@{label}.socket", f"nbd-export@{label}.service")
        (EXPORTS / f"{label}.conf").unlink()
        run("systemctl", "daemon-reload")

    return add


@pytest.fixture
def drop_in(stack):
    """drop_in(unit, text): as `systemctl edit` makes one."""

    def make(unit, text):
        folder = UNITS / f"{unit}.d"
        folder.mkdir(parents=True)
        (folder / "test.conf").write_text(text)
        stack.callback(run, "systemctl", "daemon-reload")
        stack.callback(run, "rm", "-r", folder)
        run("systemctl", "daemon-reload")

    return make


@pytest.fixture
def loop(stack):
    """loop(size): a loop device on a new file, with its unit active."""

    def make(size=64 * MIB):
        path = pathlib.Path(f"/var/tmp/{time.monotonic_ns()}")
        with path.open("wb") as backing:
            backing.truncate(size)
        stack.callback(path.unlink)
        device = run("losetup", "--find", "--show", path)
        stack.callback(run, "losetup", "--detach", device)
        run("udevadm", "settle")
        return device

    return make


class ScsiDisk:
    """/dev/sda, which can be taken away and come back with what it had."""

    path = "/dev/sda"
    size = 32 * MIB

    def __init__(self):
        run("modprobe", "scsi_debug", f"dev_size_mb={self.size // MIB}")

    def take_away(self):
        pathlib.Path("/sys/block/sda/device/delete").write_text("1")

    def bring_back(self):
        adapter = pathlib.Path("/sys/bus/pseudo/drivers/scsi_debug/adapter0")
        host = next(adapter.glob("host*")).name
        pathlib.Path(f"/sys/class/scsi_host/{host}/scan").write_text("- - -")

    @staticmethod
    def unload():
        run("udevadm", "settle")
        run("modprobe", "-r", "scsi_debug")


@pytest.fixture
def scsi(stack):
    """scsi(): the disk, from now on, and until after the exports have gone."""
    stack.callback(ScsiDisk.unload)
    return ScsiDisk


@pytest.fixture
def linear(stack, loop):
    """linear(name, size): a device-mapper device on a loop device; both paths."""

    def make(name, size=64 * MIB):
        device = loop(size)
        run("dmsetup", "create", name, "--table", f"0 {size // 512} linear {device} 0")
        stack.callback(run, "dmsetup", "remove", "--retry", name)
        run("udevadm", "settle")
        return f"/dev/mapper/{name}", device

    return make
