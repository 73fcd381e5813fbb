# SPDX-License-Identifier: GPL-2.0-or-later
"""The channel, the export's end: a real nbd-export and a negotiator that may do anything."""

import contextlib
import re
import signal
import socket
import time
from types import SimpleNamespace

import nbdchannel as channel
import nbdwire as wire
import pytest
from conftest import fill, wait_until
from nbdchannel import ABANDON, GONE, GRANTED, HANDOFF, REASON, REFUSED, Record
from nbdwire import PATIENCE
from seed import seeded

SIZE = 8 << 20


@contextlib.contextmanager
def running_export(folder, binary, label="disk", device=None, early=False, options=(), env=None,
                   **settings):
    """
    A real nbd-export behind a channel socket; yields it with `path`, `disk`, `state` and
    `conf`.  `early`: a negotiator, `.early`, is connected before it starts, which may then fail.
    """
    exports = folder / f"{label}.exports"
    exports.mkdir()
    disk = device or fill(folder / f"{label}.img", SIZE)
    keys = "".join(f"{key}={value}\n" for key, value in settings.items())
    conf = exports / f"{label}.conf"
    conf.write_text(f"[Export]\nDevice={disk}\n{keys}")
    state = folder / f"{label}.state"
    state.mkdir()
    path = folder / f"{label}.channel"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen(64)
        negotiator = channel.Negotiator(path) if early else None
        with channel.program(
            [binary, label, f"--exports={exports}", *options],
            [listener],
            folder,
            name=label,
            wait_ready=not early,
            env={"NBD_EXPORT_FLUSH_FAILED": str(state)} | (env or {}),
        ) as process:
            process.path, process.disk, process.early = path, disk, negotiator
            process.state, process.conf = state, conf
            yield process


@pytest.fixture
def start(tmp_path, programs):
    """start(...) runs an nbd-export until the test ends; see running_export()."""
    with contextlib.ExitStack() as stack:
        yield lambda **how: stack.enter_context(
            running_export(tmp_path, programs.export, **how)
        )


@pytest.fixture
def export(start):
    return start()


def connect(export):
    """A negotiator that has seen the offer."""
    ours = channel.Negotiator(export.path)
    ours.read_offer()
    return ours


def client_over(sock, mode=wire.EXTENDED):
    """nbdwire's client on a socket that was handed over."""
    client = wire.Client.over(SimpleNamespace(sock=sock, client_flags=0), mode)
    client.contexts = {}
    return client


def serves(export):
    """A fresh negotiator, a fresh client and a read all work; returns nothing or raises."""
    ours = connect(export)
    sock, _ = ours.client()
    with client_over(sock) as client:
        assert client.read(0, 4096) is not None
    ours.close()


def keeps_no_more_than(export, n):
    """Its descriptors are closed down to `n`, as far as they ever will be."""
    wait_until(lambda: export.n_fds() <= n, f"{n} descriptors instead of {export.fds()}")


# The offer -------------------------------------------------------------------------------


def test_a_connection_is_offered_size_flags_block_sizes_and_contexts(export):
    ours = connect(export)
    offer = ours.offer
    assert offer.number != 0
    assert offer.size == SIZE
    assert offer.flags & wire.HAS_FLAGS and offer.flags & wire.CAN_MULTI_CONN
    assert not offer.flags & (wire.SEND_DF | wire.BLOCK_STAT_PAYLOAD | wire.READ_ONLY)
    assert offer.minimum_block in (512, 1024, 2048, 4096)
    assert offer.preferred_block >= 4096
    assert offer.maximum_payload == 32 << 20
    assert [(c.id, c.name) for c in ours.contexts] == [
        (0, "base:allocation"),
        (1, "qemu:allocation-depth"),
    ]
    assert ours.live == []


def test_two_negotiators_are_served_at_once(export):
    one, two = connect(export), connect(export)
    connections = []
    for ours in (one, two):
        sock, grant = ours.client()
        with client_over(sock) as client:
            client.write(0, b"x" * 512)
        connections.append(grant.connection)
        # Whoever handed it over, both are told of its end.
        one.expect(GONE, connection=grant.connection)
        two.expect(GONE, connection=grant.connection)
    assert connections[0] != connections[1]


def test_a_start_that_fails_tells_those_who_wait_and_ends_with_1(start, tmp_path):
    missing = tmp_path / "not-there"
    export = start(device=missing, early=True)
    record = export.early.expect(channel.FAILED, request=0, reason=REASON["start-failed"])
    assert str(missing) in record.sentence
    assert export.early.closed()
    assert export.wait() == 1
    assert str(missing) in export.log


# Reserve, grant, refuse ------------------------------------------------------------------


def test_refusals_that_the_log_does_not_list_are_counted_in_it(start):
    """Its own, and those that it is told of."""
    export = start(MaxConnections=1)
    ours = connect(export)
    held, _ = ours.client()
    for port in range(30):
        ours.refused("no-slot", peer=f"192.0.2.1:{port + 1000}")
        ours.send(Record(channel.REFUSAL, reason=REASON["no-access"],
                         peer=f"192.0.2.1:{port + 2000}", sentence="no rule is for it"))
    ours.refused("no-slot", peer="192.0.2.2:1000")
    held.close()
    assert export.stop() == 0
    assert len(re.findall(r"client 192\.0\.2\.1:\d+: refused: ", export.log)) == 20
    assert export.log.count("client 192.0.2.2:1000: refused: ") == 1
    assert "client 192.0.2.1: 40 more refusals of clients from there in 10 s" in export.log


@pytest.mark.parametrize("mode", wire.MODES, ids=wire.MODE_NAMES)
def test_a_grant_pins_size_and_the_flags_of_the_mode(export, mode):
    ours = connect(export)
    contexts = [0] if mode else []
    grant = ours.granted(mode=mode, contexts=contexts)
    assert grant.size == SIZE
    assert bool(grant.flags & wire.SEND_DF) == (mode != wire.SIMPLE)
    assert bool(grant.flags & wire.BLOCK_STAT_PAYLOAD) == (mode == wire.EXTENDED)
    common = ~(wire.SEND_DF | wire.BLOCK_STAT_PAYLOAD)
    assert grant.flags & common == ours.offer.flags & common


def test_status_payload_is_not_announced_without_contexts(export):
    assert not connect(export).granted().flags & wire.BLOCK_STAT_PAYLOAD


def test_rights_without_write_make_a_client_read_only(export):
    ours = connect(export)
    sock, grant = ours.client(rights=channel.RIGHT_READ)
    assert grant.flags & wire.READ_ONLY
    assert not grant.flags & (wire.SEND_TRIM | wire.SEND_WRITE_ZEROES)
    with client_over(sock) as client:
        assert client.write_error(0, b"x" * 512) == wire.EPERM
        assert client.error(wire.CMD_TRIM, 0, 512) == wire.EPERM
        assert client.read(0, 512) == bytes(512)


def test_tokens_and_connection_numbers_differ(export):
    ours = connect(export)
    grants = [ours.granted() for _ in range(20)]
    assert len({g.token for g in grants}) == 20
    assert len({g.connection for g in grants}) == 20


def test_an_offer_of_another_number_is_stale(export):
    ours = connect(export)
    ours.refused("offer-stale", offer=ours.offer.number + 1)
    ours.granted()


def test_no_slot_is_left_beyond_the_limit_of_connections(start):
    export = start(MaxConnections=2)
    ours = connect(export)
    clients = [ours.client()[0], ours.client()[0]]
    ours.refused("no-slot")
    clients.pop().close()
    ours.expect(GONE)
    ours.granted()


def test_a_reservation_counts_as_a_slot_for_every_negotiator(start):
    export = start(MaxConnections=1)
    one, two = connect(export), connect(export)
    one.granted()
    two.refused("no-slot")


def test_one_connection_only_is_not_announced_as_multi(start):
    export = start(MaxConnections=1)
    assert not connect(export).offer.flags & wire.CAN_MULTI_CONN


def test_abandon_frees_the_slot(start):
    ours = connect(start(MaxConnections=1))
    for _ in range(50):
        ours.send(Record(ABANDON, token=ours.granted().token))


def test_a_negotiator_that_ends_frees_its_reservations(start):
    export = start(MaxConnections=1)
    ours = connect(export)
    ours.granted()
    ours.close()

    def granted_again():
        fresh = connect(export)
        request = fresh.reserve().request
        answer = fresh.recv()
        fresh.close()
        assert answer.request == request
        return answer.type == GRANTED

    wait_until(granted_again, "the slot of a reservation whose negotiator is gone")


def test_a_token_expires_after_ten_seconds(start, only_long):
    ours = connect(start(MaxConnections=1))
    began = time.monotonic()
    grant = ours.granted()
    answer = None

    def granted():
        nonlocal answer
        ours.reserve()
        answer = ours.recv()
        return answer.type == GRANTED

    wait_until(granted, "the token to expire")
    assert 9 < time.monotonic() - began < 13
    ours.send(Record(ABANDON, token=answer.token))

    late = ours.hand_over(grant.token)
    refused = ours.expect(REFUSED)
    assert refused.request == grant.request
    assert refused.reason == REASON["token-unknown"]
    assert late.recv(1) == b""
    ours.granted()


# Hand-off --------------------------------------------------------------------------------


def test_a_client_that_was_handed_over_is_served_and_its_end_is_told(export):
    ours = connect(export)
    sock, grant = ours.client()
    with client_over(sock) as client:
        client.write(512, b"hello".ljust(512, b"."))
        assert client.read(512, 5) == b"hello"
        assert client.disconnect()
    gone = ours.expect(GONE, connection=grant.connection)
    assert gone.reason == REASON["disconnect"]


def test_bytes_that_were_sent_before_the_hand_off_are_served(export):
    ours = connect(export)
    grant = ours.granted()
    sock, theirs = socket.socketpair()
    sock.settimeout(PATIENCE)
    client = client_over(sock)
    cookie = client.send_write(0, b"early".ljust(512, b"."))
    with theirs:
        ours.send(Record(HANDOFF, token=grant.token), [theirs])
    assert client.wait(cookie).error == 0
    assert client.read(0, 5) == b"early"


def test_an_unknown_token_closes_the_socket_that_came_with_it_and_the_link(export):
    """Nobody could tell the negotiator whose place is free again: it counts anew."""
    ours = connect(export)
    token = ours.granted().token
    sock = ours.hand_over(token ^ 1)
    assert sock.recv(1) == b""
    assert ours.closed()
    assert "with a token that it was not given" in export.log
    serves(export)


def test_a_hand_off_of_what_no_client_can_be_is_answered(export):
    ours = connect(export)
    for which, descriptors in wrong_descriptors().items():
        if len(descriptors) == 1:
            grant = ours.granted()
            ours.send(Record(HANDOFF, token=grant.token), descriptors)
            if "unconnected" in which:  # as a client that has left meanwhile
                ours.expect(GONE, connection=grant.connection)
            else:
                ours.expect(REFUSED, request=grant.request, reason=REASON["protocol"])
        for descriptor in descriptors:
            descriptor.close()
    ours.client()


def test_a_token_serves_once(export):
    ours = connect(export)
    first, grant = ours.client()
    second = ours.hand_over(grant.token)
    assert second.recv(1) == b""
    with client_over(first) as client:
        assert client.read(0, 512) == bytes(512)


def test_a_token_of_another_negotiator_is_unknown(export):
    one, two = connect(export), connect(export)
    grant = one.granted()
    assert two.hand_over(grant.token).recv(1) == b""
    with client_over(one.hand_over(grant.token)) as client:
        assert client.read(0, 512) == bytes(512)


def test_an_abandoned_token_is_void(export):
    ours = connect(export)
    grant = ours.granted()
    ours.send(Record(ABANDON, token=grant.token))
    assert ours.hand_over(grant.token).recv(1) == b""
    serves(export)


def wrong_descriptors():
    """What a hand-off must not carry: a name and a list of descriptors each."""
    stream = socket.socketpair
    listening = socket.socket(socket.AF_UNIX)
    listening.bind("")
    listening.listen()
    return {
        "none": [],
        "two": list(stream()),
        "sixteen": [sock for _ in range(8) for sock in stream()],
        "a file": [open(__file__, "rb")],
        "a folder": [open("/dev/null", "rb")],
        "a datagram socket": [stream(socket.AF_UNIX, socket.SOCK_DGRAM)[0]],
        "a record socket": [stream(socket.AF_UNIX, socket.SOCK_SEQPACKET)[0]],
        "a listening socket": [listening],
        "an unconnected socket": [socket.socket(socket.AF_UNIX)],
        "an unconnected TCP socket": [socket.socket(socket.AF_INET)],
        "a UDP socket": [socket.socket(socket.AF_INET, socket.SOCK_DGRAM)],
    }


@pytest.mark.parametrize("which", wrong_descriptors())
def test_wrong_descriptors_are_refused_and_none_is_kept(export, which):
    serves(export)
    ours = connect(export)
    before = export.n_fds()
    descriptors = wrong_descriptors()[which]
    ours.send(Record(HANDOFF, token=ours.granted().token), descriptors)
    for descriptor in descriptors:
        descriptor.close()
    serves(export)
    keeps_no_more_than(export, before)


@pytest.mark.parametrize("n", [1, 2, 16])
def test_descriptors_with_other_records_are_closed(export, n):
    ours = connect(export)
    before = export.n_fds()
    pairs = [socket.socketpair() for _ in range(n)]
    reserve = Record(
        channel.RESERVE,
        request=1,
        offer=ours.offer.number,
        mode=0,
        rights=3,
        peer="",
        identity="",
        contexts=[],
        tls="",
    )
    ours.send(reserve, [theirs for _, theirs in pairs])
    for mine, theirs in pairs:
        theirs.close()
        mine.settimeout(PATIENCE)
        assert mine.recv(1) == b""
    serves(export)
    keeps_no_more_than(export, before)


# Hostile records -------------------------------------------------------------------------


def good_reserve(number, **fields):
    return Record(
        channel.RESERVE,
        **{
            "request": 7,
            "offer": number,
            "mode": 2,
            "rights": 3,
            "peer": "peer",
            "identity": "someone",
            "contexts": [0, 1],
            "tls": "TLS1.3",
        }
        | fields,
    )


HOSTILE = {
    "version 0": channel.record_bytes(HANDOFF, bytes(8), version=0),
    "version 2": channel.record_bytes(HANDOFF, bytes(8), version=2),
    "a type that is not": channel.record_bytes(99, b""),
    "type 0": channel.record_bytes(0, b""),
    "not zero": channel.record_bytes(HANDOFF, bytes(8), zero=1),
    "length too small": channel.record_bytes(HANDOFF, bytes(8), length=7),
    "length too large": channel.record_bytes(HANDOFF, bytes(8), length=9),
    "length huge": channel.record_bytes(HANDOFF, bytes(8), length=0xFFFFFFFF),
    "one byte": b"\x01",
    "half a header": channel.record_bytes(HANDOFF, bytes(8))[:5],
    "trailing bytes": channel.record_bytes(HANDOFF, bytes(12)),
    "longer than any": channel.record_bytes(HANDOFF, bytes(channel.RECORD_MAX)),
    "very long": bytes(100_000),
    "a record of the export's": Record(GRANTED, request=1, token=1, connection=1, size=512,
                                       flags=1).encode(),
    "an offer": channel.ExportEnd.offer_records()[0].encode(),
    "request 0": good_reserve(1, request=0).encode(),
    "mode 3": good_reserve(1, mode=3).encode(),
    "unknown rights": good_reserve(1, rights=0x80).encode(),
    "a peer of 65 bytes": good_reserve(1, peer="x" * 65).encode(),
    "an identity of 1025 bytes": good_reserve(1, identity="x" * 1025).encode(),
    "a TLS version of 161 bytes": good_reserve(1, tls="x" * 161).encode(),
    "a peer that is not UTF-8": good_reserve(1, peer=b"\xff\xfe").encode(),
    "a peer with NUL": good_reserve(1, peer=b"a\0b").encode(),
    "a context twice": good_reserve(1, contexts=[1, 0, 1]).encode(),
    "65 contexts": good_reserve(1, contexts=list(range(65))).encode(),
    "1000 contexts": good_reserve(1, contexts=list(range(1000))).encode(),
}


@pytest.mark.parametrize("which", HOSTILE)
def test_a_record_that_is_wrong_ends_that_channel_only(export, which):
    bystander = connect(export)
    sock, grant = bystander.client()
    ours = connect(export)
    with contextlib.suppress(channel.Closed):
        ours.send(HOSTILE[which])
    assert ours.closed()
    with client_over(sock) as client:
        assert client.read(0, 512) == bytes(512)
    bystander.expect(GONE, connection=grant.connection)
    bystander.granted()
    assert export.alive()


def test_a_context_that_was_not_offered_is_not_granted(export):
    ours = connect(export)
    ours.reserve(contexts=[0, 77])
    try:
        assert ours.recv().type == REFUSED
    except channel.Closed:
        pass
    serves(export)


def test_every_truncation_of_every_record_is_survived(export):
    ours = connect(export)
    for whole in (good_reserve(ours.offer.number), Record(HANDOFF, token=1),
                  Record(ABANDON, token=1)):
        data = whole.encode()
        for length in range(1, len(data)):
            fresh = connect(export)
            fresh.send(data[:length])
            assert fresh.closed(), f"{length} bytes of {whole}"
            fresh.close()
    ours.granted()


def mutate(rng, data):
    """A record with something wrong in it, or something else entirely."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        kind = rng.randrange(6)
        if kind == 0 and data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif kind == 1 and data:
            data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            del data[rng.randrange(len(data) + 1):]
        elif kind == 3:
            data += rng.randbytes(rng.choice((1, 8, 64, 6000)))
        elif kind == 4:
            at = rng.randrange(len(data) + 1)
            data[at:at] = rng.randbytes(rng.randrange(1, 9))
        else:
            data = bytearray(rng.randbytes(rng.randrange(1, 200)))
    return bytes(data) or b"\0"


def test_random_records_never_end_the_export(export, counts):
    rng = seeded()
    bystander_channel = connect(export)
    bystander, _ = bystander_channel.client()
    bystander = client_over(bystander)
    bystander.read(0, 512)  # it is there now
    fds = export.n_fds()
    ours = connect(export)
    for step in range(counts(300, 20_000)):
        good = rng.choice(
            (good_reserve(ours.offer.number), Record(HANDOFF, token=rng.getrandbits(64)),
             Record(ABANDON, token=0))
        ).encode()
        attached = [socket.socketpair()[0] for _ in range(rng.choice((0, 0, 1, 1, 2)))]
        try:
            ours.send(mutate(rng, good), attached)
            if rng.random() < 0.3:
                ours.send(Record(ABANDON, token=5))
        except channel.Closed:
            ours.close()
            ours = connect(export)
        for sock in attached:
            sock.close()
        assert export.alive(), f"step {step}:\n{export.log}"
        if step % 50 == 0:
            assert bystander.read(0, 512) == bytes(512), f"step {step}"
    ours.close()
    serves(export)
    keeps_no_more_than(export, fds)


def test_a_negotiator_that_never_reads_costs_others_nothing(export):
    deaf = connect(export)
    deaf.sock.settimeout(0)
    request = good_reserve(deaf.offer.number + 1).encode()
    try:
        for _ in range(20_000):
            deaf.sock.send(request)
    except OSError:
        pass  # full, or closed by an export that had enough
    for _ in range(5):
        serves(export)


def test_a_negotiator_that_is_busy_for_a_while_holds_up_nobody_and_misses_nothing(start):
    export = start(MaxConnections=10)
    busy = [connect(export) for _ in range(10)]
    asked = {ours: [ours.reserve(offer=ours.offer.number + 1).request for _ in range(600)]
             for ours in busy}
    serves(export)
    for ours in busy:
        for request in asked[ours]:
            ours.expect(REFUSED, request=request, reason=REASON["offer-stale"])
        ours.expect(GONE)
        ours.granted()
        ours.close()


def test_a_negotiator_that_asks_on_and_never_reads_is_cut_off(start):
    export = start(MaxConnections=10)
    deaf = connect(export)
    with pytest.raises(channel.Closed):
        for _ in range(20_000):
            deaf.reserve(offer=deaf.offer.number + 1)
    assert "it does not read its answers" in export.log
    serves(export)


def test_seventy_channel_connections_are_served_one_after_another(export):
    """Some at once; the others wait as clients of a listening socket do."""
    serves(export)
    fds = export.n_fds()
    many = [channel.Negotiator(export.path) for _ in range(70)]
    wait_until(lambda: "others wait until one has left" in export.log, "a full house")
    assert export.n_fds() < fds + 30
    for ours in many:
        ours.read_offer()
        ours.close()
    serves(export)
    keeps_no_more_than(export, fds)


# The end of a channel, and of an export --------------------------------------------------


def test_clients_outlive_the_channel_and_are_listed_to_the_next(export):
    first = connect(export)
    sock, grant = first.client(peer="192.0.2.7:4711")
    other, other_grant = first.client(peer="unix:pid=1,uid=0")
    with client_over(sock) as client, client_over(other) as second_client:
        second_client.read(0, 512)      # its hand-off is through
        first.close()
        for i in range(100):
            client.write(i * 4096, bytes([i]) * 4096)
        second = connect(export)
        assert {(r.connection, r.peer) for r in second.live} == {
            (grant.connection, "192.0.2.7:4711"),
            (other_grant.connection, "unix:pid=1,uid=0"),
        }
        assert client.read(99 * 4096, 4096) == bytes([99]) * 4096
        assert client.disconnect()
        second.expect(GONE, connection=grant.connection)
        third = connect(export)
        assert [r.connection for r in third.live] == [other_grant.connection]


def test_a_client_that_vanishes_is_told_as_gone(export):
    ours = connect(export)
    sock, grant = ours.client()
    sock.close()
    gone = ours.expect(GONE, connection=grant.connection)
    assert gone.reason in (REASON["peer-gone"], REASON["disconnect"])


def test_garbage_from_a_client_is_told_as_its_fault(export):
    ours = connect(export)
    sock, grant = ours.client()
    sock.sendall(b"\xee" * 64)
    assert sock.recv(1) == b""
    ours.expect(GONE, connection=grant.connection, reason=REASON["protocol"])


def test_sigterm_answers_what_is_pending_and_ends_with_0(export):
    ours = connect(export)
    sock, _ = ours.client()
    client = client_over(sock)
    writes = [client.send_write(i * 65536, bytes([i]) * 65536) for i in range(32)]
    assert client.wait(writes[0]).error == 0
    assert export.stop(signal.SIGTERM) == 0
    contents = export.disk.read_bytes()
    assert contents[:65536] == bytes(65536)
    with contextlib.suppress(wire.Closed, ConnectionError):
        for i, cookie in enumerate(writes[1:], 1):
            reply = client.wait(cookie)
            assert reply.error in (0, wire.ESHUTDOWN)
            if reply.error == 0:
                assert contents[i * 65536 : (i + 1) * 65536] == bytes([i]) * 65536


def test_a_reservation_that_meets_a_stopping_export_is_answered_or_the_channel_ends(export):
    ours = connect(export)
    export.child.send_signal(signal.SIGSTOP)
    ours.reserve()
    export.child.send_signal(signal.SIGTERM)
    export.child.send_signal(signal.SIGCONT)
    try:
        answer = ours.recv()
        assert answer.type == GRANTED or answer.reason == REASON["shutdown"]
        assert ours.closed()
    except channel.Closed:
        pass
    assert export.wait() == 0
