# SPDX-License-Identifier: GPL-2.0-or-later
"""A device that becomes larger, smaller, read-only or another one while its export runs.

What the kernel tells of devices (uevents) is in test_device_events.py.
"""

import contextlib
import fcntl
import os

import nbdwire as wire
import pytest
from conftest import MIB, fill, needs_program, run, wait_until
from nbdchannel import GONE, REASON
from test_channel import client_over, connect
from test_control import reload, rewrite, start, told  # noqa: F401


def offered(ours):
    """The next offer that comes by itself."""
    return ours.read_offer()


def client_of(ours, **fields):
    sock, grant = ours.client(**fields)
    return client_over(sock, fields.get("mode", wire.EXTENDED)), grant


def ended(client):
    """The server closes it, and says nothing more."""
    with pytest.raises(wire.Closed):
        client.sock.settimeout(wire.PATIENCE)
        client.recv(1)


class Captured:
    """Takes for a socket what shall be sent."""

    def __init__(self):
        self.data = bytearray()

    def sendall(self, data):
        self.data += data

    def sendmsg(self, parts, *_):
        self.data += b"".join(parts)


class Held:
    """A WRITE of which a part comes at once, and the rest, together with a READ, by finish()."""

    def __init__(self, client):
        self.client, self.sock, self.later = client, client.sock, Captured()
        client.sock = self.later
        self.cookies = [client.send_write(0, b"h" * 8192), client.send_read(0, 512)]
        client.sock = self.sock
        self.sock.sendall(self.later.data[:6000])

    def finish(self):
        self.sock.sendall(self.later.data[6000:])
        return [self.client.wait(cookie) for cookie in self.cookies]


# Grown -----------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_new_clients_see_a_device_that_has_grown_and_others_keep_their_size(
        start, threads):  # noqa: F811
    export = start(Threads=threads)
    ours = connect(export)
    early, grant = client_of(ours)
    assert grant.size == 8 * MIB
    os.truncate(export.disk, 12 * MIB)
    assert offered(ours).size == 12 * MIB  # within seconds, without being asked
    told(export, "has grown from 8 MiB to 12 MiB")
    assert "NBD cannot tell those that are connected, which keep their size" in export.log
    late, grant = client_of(connect(export))
    assert grant.size == 12 * MIB
    late.write(12 * MIB - 4096, b"n" * 4096)
    late.write(8 * MIB - 512, b"m" * 1024)
    assert late.read(12 * MIB - 4096, 4096) == b"n" * 4096
    assert early.write_error(8 * MIB, b"x" * 512) == wire.ENOSPC
    assert early.error(wire.CMD_READ, 8 * MIB, 512) == wire.EINVAL
    assert early.read(8 * MIB - 512, 512) == b"m" * 512
    assert export.control.get("Size") == 12 * MIB


def test_an_idle_export_looks_when_a_client_comes(start):  # noqa: F811
    export = start()
    ours = connect(export)
    old = ours.offer
    os.truncate(export.disk, 16 * MIB)
    ours.reserve(offer=old.number)
    new = offered(ours)
    assert new.size == 16 * MIB and new.number > old.number
    _, grant = client_of(connect(export))
    assert grant.size == 16 * MIB


def test_a_reload_looks_too_and_the_journal_is_told_once(start):  # noqa: F811
    export = start()
    ours = connect(export)
    os.truncate(export.disk, 9 * MIB + 100)
    reload(export)
    assert ours.read_offer().size == 9 * MIB
    reload(export)
    assert export.log.count("has grown") == 1
    client, _ = client_of(ours)
    client.write(9 * MIB - 512, b"e" * 512)


@pytest.mark.parametrize("threads", [1, 2])
def test_with_resize_reconnect_clients_are_closed_in_order_to_see_what_is_new(
        start, threads):  # noqa: F811
    export = start(Threads=threads, ResizeReconnect="yes")
    ours = connect(export)
    clients, grants = zip(*(client_of(ours) for _ in range(3)))
    writes = [Held(client) for client in clients]
    promised = ours.granted()
    os.truncate(export.disk, 12 * MIB)
    assert offered(ours).size == 12 * MIB
    told(export, "are closed, to connect again (ResizeReconnect=)")
    for client, held in zip(clients, writes):
        answers = held.finish()
        assert [answer.error for answer in answers] == [0, wire.ESHUTDOWN]
        assert "connect again" in answers[1].sentence
        ended(client)
    for grant in grants:
        ours.expect(GONE, reason=REASON["resized"])
    # Nor is one served that was granted the old size, and comes only now.
    ours.hand_over(promised.token)
    ours.expect(GONE, connection=promised.connection, reason=REASON["resized"])
    for _ in range(2):
        again, grant = client_of(ours)
        assert grant.size == 12 * MIB
        again.write(12 * MIB - 512, b"n" * 512)


def test_resize_reconnect_can_be_switched_while_the_export_runs(start):  # noqa: F811
    export = start()
    ours = connect(export)
    stays, _ = client_of(ours)
    rewrite(export, ResizeReconnect="yes")
    reload(export)
    os.truncate(export.disk, 12 * MIB)
    told(export, "ResizeReconnect=")
    ended(stays)
    stays, _ = client_of(connect(export))
    rewrite(export)
    reload(export)
    os.truncate(export.disk, 16 * MIB)
    told(export, "NBD cannot tell")
    stays.write(12 * MIB - 512, b"s" * 512)


def test_a_device_with_bitmaps_offers_the_new_part_after_a_restart(start, tmp_path):  # noqa: F811
    export = start(Bitmap="nightly", BitmapStore=tmp_path / "bitmaps", ResizeReconnect="yes")
    ours = connect(export)
    client, _ = client_of(ours)
    os.truncate(export.disk, 12 * MIB)
    told(export, "after a restart")
    _, grant = client_of(connect(export))
    assert grant.size == 8 * MIB
    client.write(8 * MIB - 4096, b"b" * 4096)


# Shrunk ----------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("mode", [wire.SIMPLE, wire.EXTENDED])
def test_a_device_that_has_shrunk_is_told_loudly_and_its_clients_are_closed(
        start, threads, mode):  # noqa: F811
    export = start(Threads=threads)
    ours = connect(export)
    clients, grants = zip(*(client_of(ours, mode=mode) for _ in range(2)))
    writes = [Held(client) for client in clients]
    os.truncate(export.disk, 4 * MIB)
    assert offered(ours).size == 4 * MIB
    told(export, "has shrunk from 8 MiB to 4 MiB")
    for client, held in zip(clients, writes):
        assert [answer.error for answer in held.finish()] == [0, wire.ESHUTDOWN]
        ended(client)
    for _ in grants:
        ours.expect(GONE, reason=REASON["resized"])
    late, grant = client_of(ours)
    assert grant.size == 4 * MIB
    assert late.write_error(4 * MIB, b"x" * 512) == wire.ENOSPC
    assert late.read(0, 8192) == b"h" * 8192
    os.truncate(export.disk, 10 * MIB)
    assert offered(ours).size == 10 * MIB
    assert late.read(4 * MIB - 512, 512) == bytes(512)
    _, grant = client_of(ours)
    assert grant.size == 10 * MIB


def test_a_client_that_never_had_the_lost_part_stays(start):  # noqa: F811
    export = start()
    ours = connect(export)
    small, _ = client_of(ours)
    os.truncate(export.disk, 12 * MIB)
    assert offered(ours).size == 12 * MIB
    large, _ = client_of(ours)
    os.truncate(export.disk, 10 * MIB)
    assert offered(ours).size == 10 * MIB
    ended(large)
    small.write(8 * MIB - 512, b"s" * 512)


def test_the_first_failure_behind_the_new_end_has_the_device_looked_at(start):  # noqa: F811
    export = start(Direct="no")
    ours = connect(export)
    client, _ = client_of(ours)
    os.truncate(export.disk, 4 * MIB)
    with contextlib.suppress(wire.Closed):  # or the look every few seconds was there before
        assert client.error(wire.CMD_READ, 6 * MIB, 4096) in (wire.EIO, wire.ESHUTDOWN)
    told(export, "has shrunk")
    ended(client)


def test_a_file_that_is_emptied_does_not_end_the_export(start):  # noqa: F811
    export = start()
    ours = connect(export)
    client, _ = client_of(ours)
    os.truncate(export.disk, 0)
    told(export, "has shrunk")
    ended(client)
    os.truncate(export.disk, 8 * MIB)
    ours = connect(export)
    wait_until(lambda: export.control.get("Size") == 8 * MIB or reload(export), "the size")
    client, _ = client_of(connect(export))
    assert client.read(0, 4096) == bytes(4096)


# Read-only -------------------------------------------------------------------------------


@pytest.fixture
def disk(loop_disk, cleanup):
    """A loop device, which would stay read-only for whoever has it next."""
    device = loop_disk(8 * MIB)
    cleanup.callback(set_read_only, device, False)
    return device


def set_read_only(device, wanted):
    run(needs_program("blockdev"), "--setro" if wanted else "--setrw", device)


def may_write(ours):
    return not offered(ours).flags & wire.READ_ONLY


def test_a_device_that_becomes_read_only_is_so_for_all_and_only_as_long(
        disk, start):  # noqa: F811
    export = start(device=disk)
    ours = connect(export)
    early, _ = client_of(ours)
    early.write(0, b"w" * 4096)
    set_read_only(disk, True)
    assert early.write_error(0, b"x" * 4096) == wire.EPERM      # of the kernel, or ours
    assert not may_write(ours)
    told(export, "has become read-only")
    for command in (wire.CMD_TRIM, wire.CMD_WRITE_ZEROES):
        assert early.error(command, 0, 4096) == wire.EPERM
    early.flush()
    late, grant = client_of(ours)
    assert grant.flags & wire.READ_ONLY
    assert late.read(0, 4096) == early.read(0, 4096) == b"w" * 4096
    assert export.control.get("ReadOnly") is True

    set_read_only(disk, False)
    assert may_write(ours)
    told(export, "can be written again")
    early.write(0, b"y" * 4096)
    assert late.write_error(0, b"z" * 4096) == wire.EPERM       # it was told so
    again, grant = client_of(ours)
    assert not grant.flags & wire.READ_ONLY
    again.write(4096, b"y" * 4096)
    assert (export.log.count("read-only"), export.log.count("written again")) == (1, 1)


def test_a_client_is_told_of_a_device_that_has_just_become_read_only(
        disk, start):  # noqa: F811
    export = start(device=disk)
    ours = connect(export)
    set_read_only(disk, True)
    ours.reserve(offer=ours.offer.number)
    assert not may_write(ours)


def test_a_device_that_was_read_only_at_the_start_can_be_written_after_a_restart(
        disk, start):  # noqa: F811
    set_read_only(disk, True)
    export = start(device=disk)
    ours = connect(export)
    client, grant = client_of(ours)
    assert grant.flags & wire.READ_ONLY
    set_read_only(disk, False)
    told(export, "after a restart")
    reload(export)
    assert client.write_error(0, b"x" * 512) == wire.EPERM
    assert client_of(connect(export))[1].flags & wire.READ_ONLY
    export = start(device=disk, label="again") if export.stop() == 0 else None
    client, grant = client_of(connect(export))
    client.write(0, b"x" * 512)


# Another medium ----------------------------------------------------------------------------


LOOP_CHANGE_FD = 0x4C06


def test_an_export_ends_when_another_medium_is_put_in_its_device(
        loop_disk, start, tmp_path):  # noqa: F811
    device = loop_disk(8 * MIB, read_only=True)
    export = start(device=device, ReadOnly="yes")
    ours = connect(export)
    client, _ = client_of(ours)
    other = fill(tmp_path / "other", 8 * MIB, b"o" * 8 * MIB)
    with device.open("rb") as node, other.open("rb") as medium:
        fcntl.ioctl(node, LOOP_CHANGE_FD, medium.fileno())
    ours.expect(GONE, reason=REASON["device"])
    ended(client)
    assert export.wait() == 0
    assert "its disk sequence number is another" in export.log
