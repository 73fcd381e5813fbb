# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests/test_guest.py runs in the guest: the installed appliance, with udev and modules.

Not a test of its own on any other machine: it loads modules and removes disks.
"""

import pathlib
import struct
import time

import pytest

pytest.register_assert_rewrite("guest")
from guest import (  # noqa: E402
    EXPORTS, MIB, ask, connect, events, run, show, shown, size_of, wait_for)

pytest_plugins = ["guest"]


def test_a_loop_device_is_bound_to_its_unit_and_served(export, loop):
    device = loop()
    export("web1", device)
    assert show("nbd-export@web1.socket", "BindsTo") == f"dev-{pathlib.Path(device).name}.device"
    assert size_of("web1") == 64 * MIB
    assert show("nbd-export@web1.service", "DevicePolicy") == "closed"


def test_locked_memory_is_not_limited(export, loop):
    export("web1", loop())
    size_of("web1")
    limits = pathlib.Path(f"/proc/{show('nbd-export@web1.service', 'MainPID')}/limits").read_text()
    line = next(line for line in limits.splitlines() if line.startswith("Max locked memory"))
    assert line.split()[3] == "unlimited"


def test_a_dm_device_is_served(export, linear):
    path, device = linear("test-1")
    export("dm", path)
    handle = connect("dm")
    handle.pwrite(b"x" * 4096, 8192)
    handle.flush()
    handle.shutdown()
    with open(device, "rb") as disk:
        disk.seek(8192)
        assert disk.read(4096) == b"x" * 4096


def test_nbd_client_has_a_file_system_on_it(export, loop, stack):
    export("web1", loop(128 * MIB))
    run("modprobe", "nbd")
    run("nbd-client", "-N", "web1", "localhost", "/dev/nbd0")
    stack.callback(run, "nbd-client", "-d", "/dev/nbd0")
    run("mkfs.ext4", "-q", "/dev/nbd0")
    run("mount", "/dev/nbd0", "/mnt")
    stack.callback(run, "umount", "/mnt")
    run("fio", "--name=x", "--directory=/mnt", "--size=4M", "--rw=randwrite", "--bs=16k",
        "--verify=crc32c", "--do_verify=1", "--end_fsync=1")


def test_a_disk_whose_partition_is_mounted_is_refused_and_it_is_said_where(scsi, stack):
    disk = scsi()
    wait_for(lambda: pathlib.Path(disk.path).exists(), "disk")
    with open(disk.path, "r+b", buffering=0) as whole:
        table = struct.pack("<4B4BII", 0, 0, 2, 0, 0x83, 0, 0, 0, 2048, 32768)
        whole.write(bytes(446) + table + bytes(48) + b"\x55\xaa")
    run("blockdev", "--rereadpt", disk.path)
    run("udevadm", "settle")
    run("mkfs.ext4", "-q", f"{disk.path}1")
    run("mount", f"{disk.path}1", "/mnt")
    stack.callback(run, "umount", "/mnt")
    done = ask("nbdctl", "add", "whole", disk.path)
    assert done.returncode == 1 and "is in use: mounted at /mnt" in done.stderr
    assert "whole.conf" not in run("ls", EXPORTS)
    run("umount", "/mnt")
    run("nbdctl", "add", "whole", disk.path)
    run("nbdctl", "remove", "whole")
    run("mount", f"{disk.path}1", "/mnt")


def test_a_zoned_device_is_refused_by_whatever_would_export_it(export, stack):
    stack.callback(run, "modprobe", "-r", "null_blk")
    stack.callback(run, "udevadm", "settle")
    run("modprobe", "null_blk", "nr_devices=1", "gb=1", "zoned=1", "zone_size=64")
    run("udevadm", "settle")
    device, sentence = "/dev/nullb0", "/dev/nullb0 is a zoned device (host-managed)"
    done = ask("nbdctl", "add", "zoned", device)
    assert done.returncode == 1 and sentence in done.stderr
    assert "zoned.conf" not in run("ls", EXPORTS)
    done = ask("nbdctl", "serve", device)
    assert done.returncode == 1 and sentence in done.stderr
    export("zoned", device)
    assert ask("nbdinfo", "nbd://localhost/zoned").returncode != 0
    wait_for(lambda: shown("zoned", "state") == "failed", "the end of the attempt")
    assert sentence in shown("zoned", "reason")
    assert sentence in events("export-failed", "zoned")[0]


# Limits of one unit, which its neighbour does not feel -----------------------------


def seconds_to_read(label, size):
    handle = connect(label)
    start = time.monotonic()
    for offset in range(0, size, MIB):
        handle.pread(MIB, offset)
    taken = time.monotonic() - start
    handle.shutdown()
    return taken


def limit(label, *properties):
    run("systemctl", "set-property", "--runtime", f"nbd-export@{label}.service", *properties)


@pytest.fixture
def pair(export, loop):
    devices = {}
    for label in ("limited", "free"):
        devices[label] = loop()
        export(label, devices[label])
        size_of(label)
    yield devices
    run("rm", "-rf", "/run/systemd/system.control/nbd-export@limited.service.d")


def test_io_bandwidth_is_limited_for_one_unit_alone(pair):
    limit("limited", f"IOReadBandwidthMax={pair['limited']} 1M")
    assert seconds_to_read("limited", 16 * MIB) > 2 * seconds_to_read("free", 16 * MIB)


def test_cpu_time_is_limited_for_one_unit_alone(pair):
    limit("limited", "CPUQuota=2%")
    free = seconds_to_read("free", 16 * MIB)
    assert seconds_to_read("limited", 16 * MIB) > 2 * free


def test_memory_is_limited_for_one_unit_alone(export):
    size = 96 * MIB
    for label in ("limited", "free"):
        path = pathlib.Path(f"/srv/{label}.img")
        run("fallocate", f"--length={size}", path)
        run("chown", "nbd-export:", path)
        export(label, path, "Direct=no\nMemory=48M")
        size_of(label)
        if label == "limited":
            limit(label, f"MemoryMax={64 * MIB}")
        # Through the page cache, which is the unit's as far as it was the first to use it.
        handle = connect(label)
        for offset in range(0, size, MIB):
            handle.pwrite(bytes(MIB), offset)
        handle.shutdown()
    assert int(show("nbd-export@limited.service", "MemoryCurrent")) <= 64 * MIB
    assert int(show("nbd-export@free.service", "MemoryCurrent")) > 80 * MIB
