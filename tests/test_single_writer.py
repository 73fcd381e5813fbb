# SPDX-License-Identifier: GPL-2.0-or-later
"""SingleWriter=: one client at a time may write."""

import contextlib
import threading

import pytest

import nbdwire as wire
from conftest import MIB, wait_until
from nbdchannel import ABANDON, GONE, GRANTED, RIGHT_READ, Record
from test_channel import client_over, connect, start  # noqa: F401
from test_control import reload, rewrite
from test_serve import config

YES = {"SingleWriter": "yes"}


@pytest.fixture
def export(start):  # noqa: F811
    return start(**YES)


# The channel ---------------------------------------------------------------------------


def test_a_second_writer_is_refused_with_the_address_of_the_first(export):
    ours = connect(export)
    sock, grant = ours.client(peer="192.0.2.1:4711")
    refusal = ours.refused("single-writer", peer="192.0.2.2:4711")
    assert "192.0.2.1:4711" in refusal.sentence and "SingleWriter=" in refusal.sentence
    line = next(line for line in export.log.splitlines() if "(single-writer)" in line)
    assert "192.0.2.2:4711" in line and "192.0.2.1:4711" in line
    with client_over(sock) as client:
        client.write(0, b"x" * 4096)
    ours.expect(GONE, connection=grant.connection)
    ours.granted()


def test_who_may_only_read_is_let_in_beside_a_writer_and_before_it(export):
    ours = connect(export)
    readers = [ours.client(rights=RIGHT_READ)[0]]
    writer = ours.client()[0]
    readers.append(ours.client(rights=RIGHT_READ)[0])
    ours.refused("single-writer")
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(client_over(writer))
        client.write(0, b"w" * 4096)
        for sock in readers:
            reader = stack.enter_context(client_over(sock))
            assert reader.read(0, 4096) == b"w" * 4096
            with pytest.raises(wire.RequestError):
                reader.write(0, b"r" * 4096)


def test_a_writer_that_is_only_expected_counts_for_every_negotiator(export):
    one, two = connect(export), connect(export)
    grant = one.granted(peer="192.0.2.1:4711")
    assert "192.0.2.1:4711" in two.refused("single-writer").sentence
    one.send(Record(ABANDON, token=grant.token))
    wait_until(lambda: is_granted(two), "the place to be free")
    one.refused("single-writer")
    two.close()                             # all that was kept for it goes along
    wait_until(lambda: is_granted(one), "the place to be free")


def is_granted(ours):
    """Another negotiator's records may be read later than ours."""
    request = ours.reserve().request
    record = ours.recv()
    assert record.request == request
    return record.type == GRANTED


@pytest.mark.timeout(60)
def test_a_writer_that_never_comes_keeps_the_place_for_ten_seconds_only(export, only_long):
    ours = connect(export)
    ours.granted()
    wait_until(lambda: is_granted(ours), "the reservation to expire", 30)


def test_several_connections_are_not_offered_where_one_may_write(start):  # noqa: F811
    assert not connect(start(**YES)).offer.flags & wire.CAN_MULTI_CONN
    assert connect(start(label="reading", ReadOnly="yes", **YES)).offer.flags & wire.CAN_MULTI_CONN


def test_a_read_only_export_has_no_writers(start):  # noqa: F811
    ours = connect(start(ReadOnly="yes", **YES))
    ours.granted()
    ours.granted()


# Reload ----------------------------------------------------------------------------------


def test_those_who_write_at_a_reload_stay_and_no_other_comes(start):  # noqa: F811
    export = start()
    ours = connect(export)
    clients = [client_over(ours.client(peer=f"192.0.2.{i}:1")[0]) for i in (1, 2)]
    rewrite(export, **YES)
    reload(export)
    ours = connect(export)                  # there is another offer
    assert "192.0.2." in ours.refused("single-writer").sentence
    for i, client in enumerate(clients):
        client.write(i * 4096, b"y" * 4096)
    clients.pop().close()
    ours.expect(GONE)
    ours.refused("single-writer")           # there is still one
    clients.pop().close()
    ours.expect(GONE)
    ours.granted()


def test_a_reload_lets_several_write_again(export):
    ours = connect(export)
    writer = client_over(ours.client()[0])
    rewrite(export)
    reload(export)
    ours = connect(export)
    other = client_over(ours.client()[0])
    with writer, other:
        writer.write(0, b"1" * 4096)
        other.write(4096, b"2" * 4096)


# Over the wire ---------------------------------------------------------------------------


def test_of_clients_that_come_at_once_one_gets_in(serve, file_disk, counts):
    server = serve(f"disk={file_disk(MIB)}", single_writer=True)
    n = counts(12, 48)
    barrier = threading.Barrier(n)
    entered, refused = [], []

    def come():
        client = server.options()
        client.enter_mode(wire.EXTENDED)
        barrier.wait(wire.PATIENCE)
        try:
            client.go("disk")
            entered.append(client)
        except wire.OptionError as error:
            refused.append(error)
            client.close()

    for _ in range(counts(3, 20)):
        threads = [threading.Thread(target=come) for _ in range(n)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(entered) == 1 and len(refused) == n - 1
        assert {error.type for error in refused} == {wire.REP_ERR_POLICY}
        assert all("unix:pid=" in error.text for error in refused)
        before = server.log().count("ends: ")
        entered.pop().close()
        refused.clear()
        wait_until(lambda: server.log().count("ends: ") > before, "the writer to be gone")


def test_export_name_closes_where_another_writes(serve, file_disk):
    server = serve(f"disk={file_disk(MIB)}", single_writer=True)
    server.client("disk")
    with pytest.raises(wire.Closed):
        server.options().export_name("disk")
    server.wait_for_log("(single-writer)")


def test_a_writer_that_is_killed_frees_the_place_and_readers_are_no_writers(serve, file_disk,
                                                                           tmp_path):
    folder = config(tmp_path / "conf", disk=f"Device={file_disk(MIB)}\nSingleWriter=yes\n"
                    "Allow=127.0.0.2:read 127.0.0.0/8")
    server = serve(config=folder, listen="127.0.0.1:0", unix=False)
    at = {"address": server.tcp_address()}
    readers = [server.client("disk", source="127.0.0.2", **at) for _ in range(2)]
    writer = server.client("disk", **at)
    with pytest.raises(wire.OptionError, match="127.0.0.1:"):
        server.client("disk", **at)
    writer.write(0, b"k" * 512)
    writer.sock.setsockopt(wire.socket.SOL_SOCKET, wire.socket.SO_LINGER,
                           wire.struct.pack("ii", 1, 0))
    writer.close()
    server.wait_for_log("ends: ")
    with contextlib.closing(server.client("disk", **at)) as again:
        assert again.read(0, 512) == b"k" * 512
    assert readers[0].read(0, 512) == b"k" * 512
