# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests/test_guest.py runs in the guest: exports that follow their device while clients are at
work: loop, device-mapper and SCSI devices that are resized, made read-only and taken away.

Exports under IDLE look at their device only when the kernel tells of it, in the network of their
own that their unit has.  Not a test of its own on any other machine: it loads modules and removes
disks.
"""

import errno
import fcntl
import json
import os
import pathlib
import struct

import nbd
import pytest

pytest.register_assert_rewrite("guest")
from guest import (  # noqa: E402
    MIB, Load, ask, connect, events, run, show, shown, size_of, state, wait_for)

pytest_plugins = ["guest"]

LOOP_SET_STATUS64, LOOP_GET_STATUS64, LOOP_SIZELIMIT = 0x4C04, 0x4C05, 32

RUNNING = ("--size=16M", "--time_based", "--runtime=600")
IDLE = "[Service]\nWatchdogSec=0\n"


def loads_on(label, n=2):
    """So many fio, once they have written something."""
    loads = [Load(label, *RUNNING, f"--offset={16 * i}M") for i in range(n)]
    await_writes(label, n)
    return loads


def await_writes(label, n=1):
    wait_for(lambda: (shown(label, "clients") or 0) >= n, "clients")
    wait_for(lambda: shown(label, "written") > n * 65536, "load")


def have_failed(loads):
    for load in loads:
        status, said = load.end()           # and do not hang
        assert status != 0, said


def entries(name, label):
    """The entries of an event, with their fields."""
    run("journalctl", "--sync")
    said = run("journalctl", "--no-pager", "--output=json", f"EVENT={name}", f"EXPORT={label}")
    return [json.loads(line) for line in said.splitlines()]


def reasons(label):
    """Why clients of an export were closed."""
    return [entry.get("REASON") for entry in entries("client-ended", label)]


def resize_dm(path, device, size):
    """The device-mapper device `path` gets so long a piece of `device`."""
    run("dmsetup", "suspend", path)
    run("dmsetup", "reload", path, "--table", f"0 {size // 512} linear {device} 0")
    run("dmsetup", "resume", path)


def resize_loop(device, size):
    """So much of its file: a shorter file would grow again by what is just being written."""

    def resized():
        with open(device, "rb") as node:
            info = bytearray(fcntl.ioctl(node, LOOP_GET_STATUS64, bytes(232)))
            struct.pack_into("Q", info, LOOP_SIZELIMIT, size)
            try:
                fcntl.ioctl(node, LOOP_SET_STATUS64, bytes(info))
            except BlockingIOError:         # somebody has just looked at it through the cache
                return False
            return True

    wait_for(resized, "new size of the loop device")


def loop_of_half(loop):
    """A loop device of 32 MiB, and what makes it another size, to 64 MiB."""
    device = loop(64 * MIB)
    resize_loop(device, 32 * MIB)
    return device, lambda size: resize_loop(device, size)


def linear_of_half(linear):
    path, below = linear("test-1")
    resize_dm(path, below, 32 * MIB)
    return path, lambda size: resize_dm(path, below, size)


# Grown ----------------------------------------------------------------------------


@pytest.fixture(params=["loop", "dm"])
def disk(request, loop, linear):
    """(kind, device, what makes it another size)"""
    how = loop_of_half(loop) if request.param == "loop" else linear_of_half(linear)
    return request.param, *how


def test_a_device_grows_under_load_and_nobody_but_new_clients_notices(export, disk):
    kind, device, resize = disk
    label = f"grown-{kind}"
    export(label, device)
    early = connect(label)
    load = Load(label, "--size=16M", "--time_based", "--runtime=20")
    await_writes(label, 2)
    resize(64 * MIB)
    late = connect(label)
    assert (early.get_size(), late.get_size()) == (32 * MIB, 64 * MIB)
    early.pwrite(b"x" * 4096, 32 * MIB - 4096)
    late.pwrite(b"y" * 4096, 64 * MIB - 4096)
    late.flush()
    assert late.pread(4096, 32 * MIB - 4096) == b"x" * 4096
    status, said = load.end()
    assert status == 0, said
    (entry,) = entries("device-resized", label)
    assert "NBD cannot tell those that are connected" in entry["MESSAGE"]
    run("systemctl", "restart", f"nbd-export@{label}.service")
    assert connect(label).pread(4096, 64 * MIB - 4096) == b"y" * 4096


def test_with_resize_reconnect_clients_come_again_and_lose_nothing(export, linear):
    device, resize = linear_of_half(linear)
    export("again", device, "ResizeReconnect=yes")
    handle, acknowledged, resized = connect("again"), {}, False
    for n in range(2000):
        block = n % 1024
        try:
            handle.pwrite(n.to_bytes(8, "big") * 512, block * 4096)
            acknowledged[block] = n
        except nbd.Error:                   # which block it was is written again later
            assert resized
            handle = connect("again")
            assert handle.get_size() == 64 * MIB
            break
        if n == 200:
            resize(64 * MIB)
            resized = True
    else:
        pytest.fail("the client was not closed")
    for block, n in acknowledged.items():
        got = int.from_bytes(handle.pread(4096, block * 4096)[:8], "big")
        assert got in (n, n + 1024)         # the one that was not acknowledged may be there
    assert reasons("again") == ["resized"]
    assert show("nbd-export@again.service", "NRestarts") == "0"


# Shrunk ---------------------------------------------------------------------------


def test_a_device_that_shrinks_under_load_closes_its_clients_at_once(export, disk):
    kind, device, resize = disk
    label = f"shrunk-{kind}"
    export(label, device)
    idler = connect(label)
    loads = loads_on(label)
    resize(16 * MIB)
    have_failed(loads)
    with pytest.raises(nbd.Error):
        idler.pread(4096, 0)
    (entry,) = entries("device-resized", label)
    assert entry["PRIORITY"] == "2" and "clients that are connected are closed" in entry["MESSAGE"]
    wait_for(lambda: shown(label, "clients") == 0, "the clients' ends")
    assert "resized" in reasons(label)      # others may have left by themselves, after an error
    assert state(f"nbd-export@{label}.service") == "active"
    assert events("device-gone", label) == []
    late = connect(label)
    assert late.get_size() == 16 * MIB
    late.pwrite(b"z" * 4096, 16 * MIB - 4096)
    late.flush()


# Heard of the kernel ----------------------------------------------------------------


def test_an_idle_export_hears_the_kernel_in_a_network_of_its_own(export, loop, drop_in):
    device, resize = loop_of_half(loop)
    drop_in("nbd-export@idle.service", IDLE)
    export("idle", device)
    size_of("idle")
    wait_for(lambda: shown("idle", "clients") == 0, "end of the client")
    process = show("nbd-export@idle.service", "MainPID")
    assert os.readlink(f"/proc/{process}/ns/net") != os.readlink("/proc/self/ns/net")
    resize(48 * MIB)
    wait_for(lambda: events("device-resized", "idle"), "word of the resize")
    assert "has grown from 32 MiB to 48 MiB" in events("device-resized", "idle")[0]


def test_a_scsi_disk_grows_under_load_and_is_write_protected_for_everybody(export, scsi, drop_in):
    disk = scsi()
    wait_for(lambda: pathlib.Path(disk.path).exists(), "disk")

    def switch(parameter, value):
        pathlib.Path(parameter).write_text(str(value))
        pathlib.Path("/sys/block/sda/device/rescan").write_text("1")

    drop_in("nbd-export@scsi.service", IDLE)
    export("scsi", disk.path)
    load = Load("scsi", "--size=16M", "--time_based", "--runtime=20")
    await_writes("scsi")
    switch("/sys/bus/pseudo/drivers/scsi_debug/virtual_gb", 1)
    assert size_of("scsi") == 1 << 30
    status, said = load.end()
    assert status == 0, said
    wait_for(lambda: shown("scsi", "clients") == 0, "end of the clients")
    for protected in (True, False):
        switch("/sys/module/scsi_debug/parameters/wp", int(protected))
        name = "device-read-only" if protected else "device-writable"
        wait_for(lambda name=name: events(name, "scsi"), name)
        handle = connect("scsi")
        assert handle.is_read_only() == protected
        handle.shutdown()


# Read-only ------------------------------------------------------------------------


def test_read_only_under_load_fails_writes_and_keeps_readers(export, loop, stack):
    device = loop(32 * MIB)
    export("frozen", device)
    loads = loads_on("frozen", 1)
    reader = connect("frozen")
    stack.callback(run, "blockdev", "--setrw", device)
    run("blockdev", "--setro", device)
    have_failed(loads)
    with pytest.raises(nbd.Error) as refused:
        reader.pwrite(bytes(4096), 0)
    assert refused.value.errnum == errno.EPERM
    reader.pread(4096, 0)
    assert connect("frozen").is_read_only()
    run("blockdev", "--setrw", device)
    late = connect("frozen")
    late.pwrite(bytes(4096), 0)
    reader.pwrite(bytes(4096), 0)
    assert events("device-read-only", "frozen") and events("device-writable", "frozen")
    assert events("flush-failed", "frozen") == []


# Taken away -----------------------------------------------------------------------


def test_a_loop_device_that_is_detached_under_load_stays_until_its_export_ends(
        export, stack, tmp_path):
    backing = tmp_path / "disk"
    with backing.open("wb") as file:
        file.truncate(32 * MIB)
    device = run("losetup", "--find", "--show", backing)
    run("udevadm", "settle")
    export("detached", device)
    load = Load("detached", "--size=16M", "--time_based", "--runtime=20")
    await_writes("detached")
    run("losetup", "--detach", device)
    status, said = load.end()
    assert status == 0, said
    assert events("device-gone", "detached") == []
    run("systemctl", "stop", "nbd-export@detached.socket", "nbd-export@detached.service")
    wait_for(lambda: not ask("losetup", "-nO", "BACK-FILE", device).stdout.strip(), "its detachment")


def test_a_table_of_errors_under_load_is_an_error_for_clients_and_no_end(export, linear):
    path, device = linear("broken")
    export("broken", path)
    loads = loads_on("broken")
    watcher = connect("broken")
    assert ask("dmsetup", "remove", "--force", "broken").returncode != 0        # it is in use
    have_failed(loads)
    for _ in range(2):
        with pytest.raises(nbd.Error) as failed:
            watcher.pread(4096, 0)
        assert failed.value.errnum == errno.EIO
    assert state("nbd-export@broken.service") == "active"
    assert events("device-gone", "broken") == []
    resize_dm(path, device, 64 * MIB)       # what it was
    watcher.pwrite(b"w" * 4096, 0)
    assert watcher.pread(4096, 0) == b"w" * 4096
