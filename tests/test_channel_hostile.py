# SPDX-License-Identifier: GPL-2.0-or-later
"""The channel, the negotiator's end: a real nbd-negotiator and exports that may do anything."""

import contextlib
import os
import socket

import nbdchannel as channel
import nbdwire as wire
import pytest
from conftest import wait_until
from nbdchannel import ABANDON, GRANTED, READY, REASON, REASONS, REFUSED, RESERVE, Record
from nbdwire import PATIENCE
from negotiator_bench import bench, fake, given_up  # noqa: F401, fixtures
from negotiator_bench import asks_go, asks_until_connected, end_to_end, error_of
from seed import seeded
from test_channel import mutate


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
def test_a_grant_that_is_wrong_is_never_acknowledged(given_up, bench, which):
    client = asks_go(bench)
    end = given_up.ready()
    with contextlib.suppress(channel.Closed):
        end.grant(end.expect(RESERVE), **HOSTILE_ANSWERS[which])
    assert error_of(client).type == wire.REP_ERR_PLATFORM
    end.close()
    end_to_end(bench, given_up)


def test_a_refusal_of_another_request_is_not_the_clients(given_up, bench):
    client = asks_go(bench)
    end = given_up.ready()
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
