# SPDX-License-Identifier: GPL-2.0-or-later
"""The channel, the negotiator's end: a real nbd-negotiator and exports that keep the rules."""

import contextlib
import socket

import nbdchannel as channel
import nbdwire as wire
import pytest
from conftest import wait_until
from nbdchannel import ABANDON, HANDOFF, REASON, RESERVE, Record
from nbdwire import PATIENCE
from negotiator_bench import bench, fake  # noqa: F401, fixtures
from negotiator_bench import asks_go, end_to_end, error_of, pipelined_handshake

OPTION_ERRORS = {
    "export-unknown": wire.REP_ERR_UNKNOWN,
    "export-gone": wire.REP_ERR_PLATFORM,
    "offer-stale": wire.REP_ERR_PLATFORM,
    "no-slot": wire.REP_ERR_POLICY,
    "single-writer": wire.REP_ERR_POLICY,
    "start-failed": wire.REP_ERR_PLATFORM,
    "start-slow": wire.REP_ERR_PLATFORM,
    "shutdown": wire.REP_ERR_SHUTDOWN,
}


# What the negotiator tells ---------------------------------------------------------------


def test_list_starts_no_export(fake, bench):
    assert bench.client().list() == [(b"disk", b"")]
    assert fake.nobody_waits()


def test_a_client_is_handed_over_and_forgotten(fake, bench):
    before = bench.process.n_fds()
    client, handed, end = end_to_end(bench, fake)
    # The listening end of the channel stays; nothing of the client does.
    wait_until(lambda: bench.process.n_fds() <= before + 1, f"fds {bench.process.fds()}")
    client.close()
    assert handed.recv(1) == b""
    end.send(Record(channel.GONE, connection=1, reason=REASON["disconnect"]))
    assert bench.client().list()


def test_a_second_client_uses_the_same_channel(fake, bench):
    _, _, end = end_to_end(bench, fake)
    client = asks_go(bench)
    end.grant(end.expect(RESERVE), token=99, connection=2)
    client.receive_replies(wire.OPT_GO)
    end.receive_client(token=99)
    assert fake.nobody_waits()


def test_the_status_for_systemctl_follows_what_happens(fake, bench):
    told = bench.process.notified
    assert "STATUS=1 export, 0 clients in the handshake, 0 being served" in told.wait("READY=1")
    client = bench.client()
    assert told.wait("STATUS=1 export, 1 client in the handshake, 0 being served"), told.messages
    client.close()
    since = len(told.messages)
    held = end_to_end(bench, fake)
    assert told.wait("STATUS=1 export, 0 clients in the handshake, 1 being served", since), \
        (told.messages, held)


@pytest.mark.parametrize("mode", wire.MODES, ids=wire.MODE_NAMES)
def test_a_reservation_says_what_was_negotiated(fake, bench, mode):
    client = bench.client()
    client.enter_mode(mode)
    if mode != wire.SIMPLE:
        # SET_META_CONTEXT needs the offer: the export is asked for it now.
        client.send_option(
            wire.OPT_SET_META_CONTEXT, wire.meta_payload("disk", ["qemu:allocation-depth"])
        )
        end = fake.ready(number=7)
        kinds = [r.type for r in client.receive_replies(wire.OPT_SET_META_CONTEXT)]
        assert kinds == [wire.REP_META_CONTEXT, wire.REP_ACK]
        client.send_option(wire.OPT_GO, wire.go_payload("disk"))
    else:
        client.send_option(wire.OPT_GO, wire.go_payload("disk"))
        end = fake.ready(number=7)
    reserve = end.expect(RESERVE)
    assert reserve.request != 0
    assert reserve.offer == 7
    assert reserve.mode == mode
    assert reserve.rights == channel.RIGHT_READ | channel.RIGHT_WRITE
    assert reserve.peer and reserve.identity == ""
    assert reserve.contexts == ([1] if mode else [])


def test_go_tells_what_the_grant_says_and_not_the_offer(fake, bench):
    client = asks_go(bench)
    end = fake.ready()
    flags = channel.ExportEnd.FLAGS & ~wire.SEND_TRIM | wire.READ_ONLY
    end.grant(end.expect(RESERVE), flags=flags)
    told = wire.parse_info(client.receive_replies(wire.OPT_GO))
    assert told.flags == flags
    assert told.block_size == (1, 4096, 32 << 20)


def test_export_name_hands_over_as_go_does(fake, bench):
    client = bench.client()
    client.send_option(wire.OPT_EXPORT_NAME, b"disk")
    end = fake.ready()
    end.grant(end.expect(RESERVE))
    assert client.unpack(">QH") == (channel.ExportEnd.SIZE, channel.ExportEnd.FLAGS)
    end.receive_client().sendall(b"!")
    assert client.recv(1) == b"!"


# Order: the answer first, the hand-off after; not one byte too many read ------------------


def available(sock):
    """What has arrived on a socket, without waiting."""
    data = b""
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while more := sock.recv(1 << 20):
            data += more
    sock.settimeout(PATIENCE)
    return data


def test_the_answer_is_complete_before_the_hand_off(fake, bench):
    client = asks_go(bench)
    end = fake.ready()
    end.grant(end.expect(RESERVE))
    handed = end.receive_client()
    handed.sendall(b"after")
    arrived = available(client.sock)
    acknowledged = wire.struct.pack(">QIII", wire.REP_MAGIC, wire.OPT_GO, wire.REP_ACK, 0)
    assert arrived.endswith(acknowledged + b"after")


def test_the_hand_off_waits_for_a_client_that_reads_late(fake, bench):
    """So many answers that they do not fit into the socket: the rest must not be lost."""
    client = bench.client()
    n = 900
    pipelined = wire.option_header(wire.OPT_LIST, 0) * n
    pipelined += wire.option_header(77, 1 << 10) + bytes(1 << 10)
    go = wire.go_payload("disk")
    client.send(pipelined, wire.option_header(wire.OPT_GO, len(go)), go)
    client.sock.settimeout(PATIENCE)
    for _ in range(n):
        assert len(client.receive_replies(wire.OPT_LIST)) == 2
    assert client.receive_replies(77)[-1].type == wire.REP_ERR_UNSUP
    end = fake.ready()
    end.grant(end.expect(RESERVE))
    end.receive_client().sendall(b"x")
    assert wire.parse_info(client.receive_replies(wire.OPT_GO)).size == channel.ExportEnd.SIZE
    assert client.recv(1) == b"x"


@pytest.mark.parametrize("option", [wire.OPT_GO, wire.OPT_EXPORT_NAME], ids=["go", "export-name"])
@pytest.mark.parametrize("piece", [1 << 20, 1, 7, 4096], ids=lambda n: f"pieces-of-{n}")
def test_no_byte_behind_the_handshake_is_read(fake, bench, option, piece):
    client = bench.client(flags=None)
    handshake, requests = pipelined_handshake(option)
    # Small pieces cover the handshake and the first request; the rest comes in one.
    eager = handshake + requests
    cut = len(eager) if piece > 7 else len(handshake) + 40
    for at in range(0, cut, piece):
        client.send(eager[at : min(at + piece, cut)])
    client.send(eager[cut:])
    end = fake.ready()
    end.grant(end.expect(RESERVE))
    handed = end.receive_client()
    assert handed.recv(len(requests), socket.MSG_WAITALL) == requests
    client.shutdown_sending()
    assert handed.recv(1) == b""


def test_a_client_that_leaves_before_the_hand_off_is_abandoned(fake, bench):
    client = asks_go(bench)
    end = fake.ready()
    reserve = end.expect(RESERVE)
    client.close()
    end.grant(reserve, token=4711)
    end.expect(ABANDON, token=4711)
    end_again = asks_go(bench)
    end.grant(end.expect(RESERVE), token=4712)
    end_again.receive_replies(wire.OPT_GO)
    end.receive_client(token=4712)


def test_a_client_that_leaves_and_left_bytes_unread_is_abandoned(fake, bench):
    client = asks_go(bench)
    client.send(b"\0" * 1000)
    end = fake.ready()
    reserve = end.expect(RESERVE)
    client.close()
    end.grant(reserve, token=4711)
    end.expect(ABANDON, token=4711)


def test_a_client_that_leaves_before_the_offer_is_forgotten(fake, bench):
    asks_go(bench).close()
    later = asks_go(bench)
    end = fake.ready()
    while (record := end.recv_with_fds())[0].type != HANDOFF:
        if record[0].type == RESERVE:
            end.grant(record[0], token=record[0].request)
    later.receive_replies(wire.OPT_GO)
    socket.socket(fileno=record[1][0]).sendall(b"x")
    assert later.recv(1) == b"x"


# Refused with words, before GO is acknowledged -------------------------------------------


@pytest.mark.parametrize("reason", OPTION_ERRORS)
def test_a_refusal_reaches_the_client_as_an_option_error(fake, bench, reason):
    client = asks_go(bench)
    end = fake.ready()
    if reason in ("offer-stale", "export-gone"):  # these may pass: it is asked once more
        end.refuse(end.expect(RESERVE), reason, sentence="the first time")
    end.refuse(end.expect(RESERVE), reason, sentence="a sentence for the client")
    answer = error_of(client)
    assert answer.type == OPTION_ERRORS[reason]
    assert "a sentence for the client" in answer.text


@pytest.mark.parametrize("missing", ["no file", "nobody listens"])
def test_a_channel_that_nobody_listens_at_is_worded_as_what_it_means(bench, missing):
    bench.export(listening=False)
    if missing == "nobody listens":
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.bind(str(bench.channels / "disk.channel"))
    bench.start()
    (answer,) = bench.client().option(wire.OPT_GO, wire.go_payload("disk"))
    assert answer.type == wire.REP_ERR_PLATFORM
    assert "its socket does not listen" in answer.text and "device is absent" in answer.text
    assert "systemctl status nbd-export@disk.socket" in answer.text


@pytest.mark.parametrize("reason", ["no-slot", "start-failed", "shutdown"])
def test_a_refused_export_name_is_closed(fake, bench, reason):
    client = bench.client()
    client.send_option(wire.OPT_EXPORT_NAME, b"disk")
    end = fake.ready()
    end.refuse(end.expect(RESERVE), reason)
    assert client.closed()


def test_a_stale_offer_is_retried_silently_with_the_fresh_one(fake, bench):
    client = asks_go(bench)
    end = fake.ready()
    reserve = end.expect(RESERVE, offer=1)
    for record in end.offer_records(number=2, size=2 << 20):
        end.send(record)
    end.refuse(reserve, "offer-stale")
    end.grant(end.expect(RESERVE, offer=2), size=2 << 20)
    assert wire.parse_info(client.receive_replies(wire.OPT_GO)).size == 2 << 20


def test_a_failed_start_reaches_the_client_in_its_words(fake, bench):
    client = asks_go(bench)
    end = fake.accept()
    sentence = "/dev/sdx: cannot open: No such file or directory"
    end.send(Record(channel.FAILED, request=0, reason=REASON["start-failed"], sentence=sentence))
    end.close()
    answer = error_of(client)
    assert answer.type == wire.REP_ERR_PLATFORM
    assert sentence in answer.text
