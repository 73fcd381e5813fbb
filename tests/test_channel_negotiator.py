# SPDX-License-Identifier: GPL-2.0-or-later
"""The channel, the negotiator's end: a real nbd-negotiator and exports that may do anything."""

import contextlib
import os
import random
import select
import socket
import time

import nbdchannel as channel
import nbdwire as wire
import pytest
from conftest import wait_until
from nbdchannel import (
    ABANDON,
    GRANTED,
    HANDOFF,
    READY,
    REASON,
    REASONS,
    REFUSED,
    RESERVE,
    Record,
)
from nbdwire import PATIENCE
from seed import seeded
from test_channel import mutate

OPTION_ERRORS = {
    "export-unknown": wire.REP_ERR_UNKNOWN,
    "export-gone": wire.REP_ERR_PLATFORM,
    "offer-stale": wire.REP_ERR_PLATFORM,
    "no-slot": wire.REP_ERR_POLICY,
    "start-failed": wire.REP_ERR_PLATFORM,
    "start-slow": wire.REP_ERR_PLATFORM,
    "shutdown": wire.REP_ERR_SHUTDOWN,
}


class Bench:
    """A negotiator with a unix socket for clients, and a folder for fake exports."""

    def __init__(self, stack, folder, binary):
        self.stack, self.folder, self.binary = stack, folder, binary
        self.exports, self.channels = folder / "exports", folder / "channels"
        self.exports.mkdir()
        self.channels.mkdir()
        self.socket = folder / "clients"
        self.process = None
        self.fakes = {}
        self.tcp = {}

    def listen(self, host, family=socket.AF_INET, backlog=4096):
        """Another socket for clients: TCP at that address."""
        listener = self.stack.enter_context(socket.socket(family))
        listener.bind((host, 0))
        listener.listen(backlog)
        self.tcp[host] = listener

    def export(self, label="disk", listening=True, **settings):
        """A configured export, and the fake one behind it."""
        keys = "".join(f"{key}={value}\n" for key, value in settings.items())
        (self.exports / f"{label}.conf").write_text(f"[Export]\nDevice=/dev/null\n{keys}")
        if not listening or label in self.fakes:
            return self.fakes.get(label)
        fake = channel.FakeExport(self.channels / f"{label}.channel")
        self.stack.callback(fake.close)
        self.fakes[label] = fake
        return fake

    def start(self, *arguments, **how):
        listener = self.stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(self.socket))
        listener.listen(256)
        self.process = self.stack.enter_context(
            channel.program(
                [self.binary, f"--exports={self.exports}", f"--channels={self.channels}",
                 *arguments],
                [listener, *self.tcp.values()],
                self.folder,
                name="negotiator",
                **how,
            )
        )
        return self.process

    def client(self, at=None, **how):
        """A client in the handshake, by the unix socket or by TCP `at` this host."""
        address = self.tcp[at].getsockname()[:2] if at else self.socket
        return self.stack.enter_context(contextlib.closing(wire.Options(address, **how)))


@pytest.fixture
def bench(tmp_path, programs):
    with contextlib.ExitStack() as stack:
        yield Bench(stack, tmp_path, programs.negotiator)


@pytest.fixture
def fake(bench):
    """One fake export, `disk`, and a running negotiator that gives up on it in a second."""
    export = bench.export()
    bench.start("--start-timeout=1")
    return export


def asks_go(bench, name="disk"):
    """A client that has sent GO and not read the answer."""
    client = bench.client()
    client.send_option(wire.OPT_GO, wire.go_payload(name))
    return client


def error_of(client):
    """The error that answers a client's GO; the connection must live on."""
    answer = client.receive_replies(wire.OPT_GO)[-1]
    assert answer.is_error, "GO was acknowledged"
    assert answer.text, "a refusal without words"
    assert client.list() is not None
    return answer


def asks_until_connected(bench, export, name="disk"):
    """
    A client that sends GO until the negotiator connects to the export, and that export's
    end: for a second after a failed start the negotiator only repeats its refusal.
    """
    client = asks_go(bench, name)
    while export.listener not in (ready := readable(client.sock, export.listener)):
        assert client.sock in ready, "neither an answer nor a connection to the export"
        assert client.receive_replies(wire.OPT_GO)[-1].type == wire.REP_ERR_PLATFORM
        time.sleep(0.05)
        client.send_option(wire.OPT_GO, wire.go_payload(name))
    return client, export.accept()


def readable(*sockets):
    return select.select(sockets, [], [], PATIENCE)[0]


def end_to_end(bench, export, name="disk"):
    """A client all the way to the hand-off, after whatever came before."""
    client, end = asks_until_connected(bench, export, name)
    end.offer()
    end.grant(end.expect(RESERVE))
    told = wire.parse_info(client.receive_replies(wire.OPT_GO))
    assert told.size == channel.ExportEnd.SIZE
    handed = end.receive_client()
    handed.sendall(b"from the export")
    assert client.recv(15) == b"from the export"
    return client, handed, end


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


def pipelined_handshake(option):
    """Everything a hasty client sends at once: flags, options, GO; and what follows them."""
    payload = b"disk" if option == wire.OPT_EXPORT_NAME else wire.go_payload("disk", [3])
    handshake = (
        wire.u32(wire.FLAG_FIXED_NEWSTYLE | wire.FLAG_NO_ZEROES)
        + wire.option_header(wire.OPT_STRUCTURED_REPLY, 0)
        + wire.option_header(option, len(payload))
        + payload
    )
    rng = random.Random(1)
    requests = b"".join(
        wire.request_header(wire.STRUCTURED, wire.CMD_WRITE, i << 12, 4096, cookie=i)
        + rng.randbytes(4096)
        for i in range(8)
    )
    return handshake, requests


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


def test_an_export_that_nobody_listens_for_is_a_platform_error(bench):
    bench.export("disk", listening=False)
    bench.start()
    assert error_of(asks_go(bench)).type == wire.REP_ERR_PLATFORM


def test_an_export_that_does_not_answer_is_too_slow(fake, bench):
    answer = error_of(asks_go(bench))
    assert answer.type == wire.REP_ERR_PLATFORM


def test_an_export_that_stops_within_its_offer_is_too_slow(fake, bench):
    client = asks_go(bench)
    end = fake.accept()
    for record in end.offer_records()[:2]:
        end.send(record)
    assert error_of(client).type == wire.REP_ERR_PLATFORM


def test_an_export_that_never_answers_a_reservation_is_too_slow(fake, bench):
    client = asks_go(bench)
    end = fake.ready()
    reserve = end.expect(RESERVE)
    assert error_of(client).type == wire.REP_ERR_PLATFORM
    # The answer that comes too late must not keep a slot.
    with contextlib.suppress(channel.Closed):
        end.grant(reserve, token=31)
        end.expect(ABANDON, token=31)


@pytest.mark.parametrize("records", range(4))
def test_an_export_that_ends_before_ready_is_a_platform_error(fake, bench, records):
    client = asks_go(bench)
    end = fake.accept()
    for record in end.offer_records()[:records]:
        end.send(record)
    end.close()
    assert error_of(client).type == wire.REP_ERR_PLATFORM
    end_to_end(bench, fake)


def test_an_export_that_ends_during_a_reservation_is_a_platform_error(fake, bench):
    client = asks_go(bench)
    end = fake.ready()
    end.expect(RESERVE)
    end.close()
    assert error_of(client).type == wire.REP_ERR_PLATFORM
    end_to_end(bench, fake)


def test_an_idle_export_that_ended_is_started_again_by_the_next_client(fake, bench):
    _, _, end = end_to_end(bench, fake)
    end.close()
    end_to_end(bench, fake)


def test_one_slow_export_does_not_delay_another(bench):
    bench.export("slow")
    quick = bench.export("disk")
    bench.start("--start-timeout=30")
    waiting = [asks_go(bench, "slow") for _ in range(50)]
    end_to_end(bench, quick)
    for client in waiting:
        client.close()


def test_an_export_that_reads_no_reservation_costs_others_nothing(bench):
    deaf = bench.export("deaf")
    quick = bench.export("disk")
    bench.start("--start-timeout=1")
    waiting = [asks_go(bench, "deaf")]
    deaf.ready()
    waiting += [asks_go(bench, "deaf") for _ in range(200)]
    end_to_end(bench, quick)
    for client in waiting:
        assert error_of(client).type == wire.REP_ERR_PLATFORM


# Clients that never come to an end ------------------------------------------------------


def test_half_open_handshakes_end_at_the_deadline(bench):
    bench.export()
    process = bench.start("--handshake-timeout=1")
    before = process.n_fds()
    handshake, _ = pipelined_handshake(wire.OPT_GO)
    with contextlib.ExitStack() as stack:
        clients = []
        for length in range(200):
            client = stack.enter_context(wire.Wire(bench.socket))
            client.send(handshake[: length % (len(handshake) - 4)])
            clients.append(client)
        # One that always does a little more is no better.
        busy = stack.enter_context(wire.Options(bench.socket))
        began = time.monotonic()
        with contextlib.suppress(wire.Closed, ConnectionError):
            while time.monotonic() < began + PATIENCE:
                busy.option(wire.OPT_LIST)
                time.sleep(0.01)
        assert 0.5 < time.monotonic() - began < 5
        for client in clients:
            client.until_closed()
        wait_until(lambda: process.n_fds() <= before, "every descriptor to be closed")
    assert bench.client().list()


# Hostile exports -------------------------------------------------------------------------


def offer_bytes(**fields):
    return channel.ExportEnd.offer_records(**fields)[0].encode()


def refusal(**fields):
    values = {"request": 1, "reason": REASON["no-slot"], "sentence": "no"}
    return Record(REFUSED, **(values | fields)).encode()


OFFERED = channel.ExportEnd.offer_records()
HOSTILE_OFFERS = {
    "version 2": [channel.record_bytes(channel.OFFER, OFFERED[0].encode()[8:], version=2)],
    "a type that is not": [channel.record_bytes(99, b"")],
    "a record of the negotiator's": [Record(ABANDON, token=1).encode()],
    "not zero": [channel.record_bytes(READY, b"", zero=5)],
    "length too large": [channel.record_bytes(READY, b"", length=1)],
    "length huge": [channel.record_bytes(READY, b"", length=0xFFFFFFF8)],
    "trailing bytes": [offer_bytes() + b"\0"],
    "one byte": [b"\x01"],
    "very long": [bytes(100_000)],
    "number 0": [offer_bytes(number=0)],
    "a size that is no multiple of 512": [offer_bytes(size=513)],
    "a size above 8 EiB": [offer_bytes(size=1 << 63)],
    "flags without HAS_FLAGS": [offer_bytes(flags=4)],
    "flags that are not": [offer_bytes(flags=0xFFFF)],
    "a minimum block of 0": [offer_bytes(minimum_block=0)],
    "a minimum block of 3": [offer_bytes(minimum_block=3)],
    "a minimum block of 128 KiB": [offer_bytes(minimum_block=128 << 10)],
    "a preferred block of 512": [offer_bytes(preferred_block=512)],
    "a maximum of 0": [offer_bytes(maximum_payload=0)],
    "65535 contexts": [offer_bytes(n_contexts=65535)],
    "fewer contexts than announced": [*OFFERED[:2], OFFERED[-1]],
    "more contexts than announced": [*OFFERED[:3], OFFERED[2], OFFERED[-1]],
    "a context twice": [*OFFERED[:2], OFFERED[1], OFFERED[-1]],
    "a context without a name": [OFFERED[0], Record(channel.CONTEXT, id=0, name="").encode()],
    "a context's name too long": [
        OFFERED[0], Record(channel.CONTEXT, id=0, name="x" * 4097).encode()
    ],
    "a context's name not UTF-8": [
        OFFERED[0], Record(channel.CONTEXT, id=0, name=b"\xff").encode()
    ],
    "ready without an offer": [OFFERED[-1]],
    "a context without an offer": [OFFERED[1]],
    "two offers": [OFFERED[0], OFFERED[0]],
    "a grant instead of an offer": [
        Record(GRANTED, request=1, token=1, connection=1, size=512, flags=1).encode()
    ],
    "a refusal instead of an offer": [refusal()],
    "a failure with a request": [
        Record(channel.FAILED, request=1, reason=5, sentence="no").encode()
    ],
    "a failure for no reason": [
        Record(channel.FAILED, request=0, reason=0, sentence="no").encode()
    ],
    "a failure without UTF-8": [
        Record(channel.FAILED, request=0, reason=5, sentence=b"\xc3(").encode()
    ],
    "gone for a reason that is not": [
        *OFFERED[:1], Record(channel.GONE, connection=1, reason=len(REASONS)).encode()
    ],
}


def test_an_offer_that_is_wrong_is_a_platform_error_for_the_client(bench):
    fakes = {which: bench.export(f"hostile-{i}") for i, which in enumerate(HOSTILE_OFFERS)}
    bench.start("--start-timeout=1")
    for i, (which, fake) in enumerate(fakes.items()):
        client = asks_go(bench, f"hostile-{i}")
        end = fake.accept()
        with contextlib.suppress(channel.Closed):
            for record in HOSTILE_OFFERS[which]:
                end.send(record)
        answer = client.receive_replies(wire.OPT_GO)[-1]
        assert answer.type == wire.REP_ERR_PLATFORM and answer.text, which
        end.close()
    for i, fake in enumerate(fakes.values()):
        end_to_end(bench, fake, f"hostile-{i}")


HOSTILE_ANSWERS = {
    "a grant of another request": {"request": 0xFFFF},
    "a grant of request 0": {"request": 0},
    "a grant with impossible flags": {"flags": 0},
    "a grant of another size than 512s": {"size": 100},
    "a grant of a huge size": {"size": 1 << 63},
}


@pytest.mark.parametrize("which", HOSTILE_ANSWERS)
def test_a_grant_that_is_wrong_is_never_acknowledged(fake, bench, which):
    client = asks_go(bench)
    end = fake.ready()
    with contextlib.suppress(channel.Closed):
        end.grant(end.expect(RESERVE), **HOSTILE_ANSWERS[which])
    assert error_of(client).type == wire.REP_ERR_PLATFORM
    end.close()
    end_to_end(bench, fake)


def test_a_refusal_of_another_request_is_not_the_clients(fake, bench):
    client = asks_go(bench)
    end = fake.ready()
    reserve = end.expect(RESERVE)
    with contextlib.suppress(channel.Closed):
        end.send(refusal(request=reserve.request + 1000))
    assert error_of(client).type == wire.REP_ERR_PLATFORM


def test_a_grant_that_comes_twice_is_survived(fake, bench):
    client = asks_go(bench)
    end = fake.ready()
    reserve = end.expect(RESERVE)
    end.grant(reserve)
    client.receive_replies(wire.OPT_GO)
    end.receive_client()
    with contextlib.suppress(channel.Closed):
        end.grant(reserve, token=5)
    end.close()
    end_to_end(bench, fake)


def test_a_refusal_after_the_hand_off_is_survived(fake, bench):
    client = asks_go(bench)
    end = fake.ready()
    reserve = end.expect(RESERVE)
    end.grant(reserve)
    client.receive_replies(wire.OPT_GO)
    end.receive_client().close()
    end.refuse(reserve, "token-unknown", "too late")
    assert client.closed()
    other = asks_go(bench)
    end.grant(end.expect(RESERVE))
    other.receive_replies(wire.OPT_GO)
    end.receive_client()


def test_unknown_connections_that_are_gone_are_survived(fake, bench):
    _, _, end = end_to_end(bench, fake)
    for number in (0, 5, (1 << 64) - 1):
        end.send(Record(channel.GONE, connection=number, reason=0))
    client = asks_go(bench)
    end.grant(end.expect(RESERVE))
    client.receive_replies(wire.OPT_GO)
    end.receive_client()


def test_descriptors_from_an_export_are_closed(fake, bench):
    client = asks_go(bench)
    end = fake.accept()
    before = bench.process.n_fds()
    pairs = [socket.socketpair() for _ in range(16)]
    with contextlib.suppress(channel.Closed):
        for record in end.offer_records():
            end.send(record, [theirs for _, theirs in pairs])
    for mine, theirs in pairs:
        theirs.close()
        mine.settimeout(PATIENCE)
        assert mine.recv(1) == b""
    client.close()
    end.close()
    wait_until(lambda: bench.process.n_fds() <= before, f"fds {bench.process.fds()}")
    end_to_end(bench, fake)


def test_random_records_never_end_the_negotiator(bench, counts):
    rng = seeded()
    fakes = {f"disk-{i}": bench.export(f"disk-{i}") for i in range(40)}
    process = bench.start("--start-timeout=1")
    before = process.n_fds()
    good = OFFERED + [
        Record(channel.LIVE, connection=1, peer="peer"),
        Record(GRANTED, request=1, token=1, connection=1, size=1 << 20, flags=1),
        Record(REFUSED, request=1, reason=3, sentence="no"),
        Record(channel.FAILED, request=0, reason=5, sentence="no"),
        Record(channel.GONE, connection=1, reason=1),
    ]
    for round_number in range(counts(3, 150)):
        asking = {}
        for name, fake in fakes.items():
            asking[name], end = asks_until_connected(bench, fake, name)
            with contextlib.suppress(channel.Closed):
                hostile_answers(rng, end, good)
            end.close()
        # Whatever that was, each client has an answer or is handed over, never left alone.
        for client in asking.values():
            with contextlib.suppress(wire.Closed):
                client.receive_replies(wire.OPT_GO)
            client.close()
        assert process.alive(), f"round {round_number}:\n{process.log}"
    for name, fake in fakes.items():
        end_to_end(bench, fake, name)[2].close()
    wait_until(lambda: process.n_fds() <= before, f"fds {process.fds()}")


def hostile_answers(rng, end, good):
    """A few records that are mostly wrong, some with a descriptor."""
    if rng.random() < 0.5:
        end.offer()
        end.expect(RESERVE)
    for _ in range(5):
        fds = [os.open("/dev/null", os.O_RDONLY)] if rng.random() < 0.1 else []
        try:
            end.send(mutate(rng, rng.choice(good).encode()), fds)
        finally:
            for fd in fds:
                os.close(fd)
