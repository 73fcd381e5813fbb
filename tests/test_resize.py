# SPDX-License-Identifier: GPL-2.0-or-later
"""A device that becomes larger or smaller while its export runs."""

import os

import nbdwire as wire
import pytest
from conftest import MIB, wait_until
from nbdchannel import OFFER, READY
from test_channel import client_over, connect
from test_control import reload, start, told  # noqa: F401


def offered(ours):
    """The next offer that comes by itself."""
    record = ours.expect(OFFER)
    while ours.recv().type != READY:
        pass
    return record


def client_of(ours, **fields):
    sock, grant = ours.client(**fields)
    return client_over(sock), grant


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


def test_a_device_that_has_shrunk_is_told_loudly_and_gives_errors(start):  # noqa: F811
    export = start()
    ours = connect(export)
    early, _ = client_of(ours)
    early.write(6 * MIB, b"a" * 4096, wire.CMD_FLAG_FUA)
    os.truncate(export.disk, 4 * MIB)
    assert offered(ours).size == 4 * MIB
    told(export, "has shrunk from 8 MiB to 4 MiB")
    assert early.error(wire.CMD_READ, 6 * MIB, 4096) == wire.EIO
    assert early.read(0, 4096) is not None
    late, grant = client_of(connect(export))
    assert grant.size == 4 * MIB
    assert late.write_error(4 * MIB, b"x" * 512) == wire.ENOSPC
    os.truncate(export.disk, 10 * MIB)
    assert offered(ours).size == 10 * MIB
    assert early.read(6 * MIB, 4096) == bytes(4096)


def test_a_file_that_is_emptied_does_not_end_the_export(start):  # noqa: F811
    export = start()
    ours = connect(export)
    client, _ = client_of(ours)
    os.truncate(export.disk, 0)
    told(export, "has shrunk")
    assert client.error(wire.CMD_READ, 0, 4096) == wire.EIO
    os.truncate(export.disk, 8 * MIB)
    wait_until(lambda: export.control.get("Size") == 8 * MIB, "the size")
    assert client.read(0, 4096) == bytes(4096)


def test_a_device_with_bitmaps_offers_the_new_part_after_a_restart(start, tmp_path):  # noqa: F811
    export = start(Bitmap="nightly", BitmapStore=tmp_path / "bitmaps")
    ours = connect(export)
    client, _ = client_of(ours)
    os.truncate(export.disk, 12 * MIB)
    told(export, "after a restart")
    _, grant = client_of(connect(export))
    assert grant.size == 8 * MIB
    client.write(8 * MIB - 4096, b"b" * 4096)
