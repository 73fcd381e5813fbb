# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel tells of devices (uevents): an export acts on it at once.

The exports here have neither a client nor a watchdog, so they look at nothing by themselves.
"""

import os
import pathlib
import signal
import socket
import struct

import nbdwire as wire
import pytest
from conftest import (
    MIB, backing_of, fill, loop_detach, needs_program, needs_root, run, wait_until)
from test_channel import connect
from test_control import start, told  # noqa: F401

KOBJECT_UEVENT = 15
KERNEL_GROUP = 1


@pytest.fixture
def heard(loop_disk):
    """A loop device of whose changes this machine's kernel tells us."""
    device = loop_disk(8 * MIB)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, KOBJECT_UEVENT) as listener:
        listener.bind((0, KERNEL_GROUP))
        listener.settimeout(wire.PATIENCE)
        resize(device, 9 * MIB)
        name = f"/{device.name}\0".encode()
        try:
            while name not in listener.recv(8192):
                pass
        except TimeoutError:
            pytest.skip("the kernel sends no uevents to this network namespace")
    return device


def resize(device, size):
    os.truncate(backing_of(device), size)
    run(needs_program("losetup"), "--set-capacity", device)


def forge(*texts):
    """Sends them to the group that the kernel sends to."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, KOBJECT_UEVENT) as sender:
        sender.bind((0, 0))
        for text in texts:
            sender.sendto(text, (0, KERNEL_GROUP))


def event_of(device, action="change"):
    """What the kernel would say."""
    number = os.stat(device).st_rdev
    path = f"/devices/virtual/block/{device.name}"
    return "".join(f"{part}\0" for part in (
        f"{action}@{path}", f"ACTION={action}", f"DEVPATH={path}", "SUBSYSTEM=block",
        f"MAJOR={os.major(number)}", f"MINOR={os.minor(number)}")).encode()


def test_a_resize_of_an_idle_exports_device_is_offered_at_once(heard, start):  # noqa: F811
    export = start(device=heard)
    ours = connect(export)
    assert ours.offer.size == 9 * MIB
    resize(heard, 12 * MIB)
    assert ours.read_offer().size == 12 * MIB
    resize(heard, 10 * MIB)
    assert ours.read_offer().size == 10 * MIB
    told(export, "has shrunk from 12 MiB to 10 MiB")


def test_a_resize_is_noticed_with_nbdctl_serve_too(heard, serve):
    server = serve(heard)
    assert server.client().size == 9 * MIB
    resize(heard, 12 * MIB)
    server.wait_for_log("has grown")
    assert server.client().size == 12 * MIB


@pytest.fixture
def partition(heard, cleanup, disk_folder):
    """(its disk, a partition) of a loop device whose events are heard."""
    backing = disk_folder / "partitioned"
    table = struct.pack("<4B4BII", 0, 0, 2, 0, 0x83, 0, 0, 0, 2048, 8192)
    fill(backing, 8 * MIB, bytes(446) + table + bytes(48) + b"\x55\xaa")
    disk = pathlib.Path(run(needs_program("losetup"), "--find", "--show", "--partscan", backing))
    cleanup.callback(loop_detach, disk)
    node = disk.with_name(f"{disk.name}p1")
    if not node.exists():                   # this kernel reads no tables
        run(needs_program("partx"), "--add", disk)
    cleanup.callback(run, needs_program("partx"), "--delete", disk)
    wait_until(node.exists, "the partition")
    return disk, node


def test_a_partition_is_looked_at_when_something_happens_to_its_disk(
        partition, start):  # noqa: F811
    disk, node = partition
    export = start(device=node, options=["--debug"])
    connect(export)
    resize(disk, 12 * MIB)
    told(export, "the kernel tells of its device: change")
    assert "has grown" not in export.log


def test_events_of_other_devices_are_none_of_its_business(heard, loop_disk, start):  # noqa: F811
    export = start(device=loop_disk(8 * MIB), options=["--debug"])
    own = export.disk
    resize(heard, 12 * MIB)
    resize(own, 12 * MIB)
    told(export, "has grown")
    assert export.log.count("the kernel tells of its device") == 1


def test_only_the_kernel_is_believed_and_whatever_others_say_does_no_harm(
        heard, start):  # noqa: F811
    needs_root()
    export = start(device=heard, options=["--debug"])
    ours = connect(export)
    forge(event_of(heard), event_of(heard, "remove"), b"\0", b"\0" * 100, b"libudev\0" + bytes(32),
          os.urandom(8192), b"A" * 60000, event_of(heard)[:-1])
    resize(heard, 12 * MIB)
    assert ours.read_offer().size == 12 * MIB
    assert export.log.count("the kernel tells of its device") == 1
    assert "is gone" not in export.log


def test_events_that_are_lost_in_a_flood_are_made_up_for(heard, start):  # noqa: F811
    export = start(device=heard)
    ours = connect(export)
    export.child.send_signal(signal.SIGSTOP)     # it cannot keep up
    try:
        for _ in range(300):
            forge(b"A" * 2000)
        resize(heard, 12 * MIB)
    finally:
        export.child.send_signal(signal.SIGCONT)
    assert ours.read_offer().size == 12 * MIB
