# SPDX-License-Identifier: GPL-2.0-or-later
"""The channel, the negotiator's end: exports that start late, end early or never answer, and
clients that never come to an end."""

import contextlib
import os
import select
import time

import nbdchannel as channel
import nbdwire as wire
import pytest
from conftest import wait_until
from nbdchannel import ABANDON, HANDOFF, RESERVE
from nbdwire import PATIENCE
from negotiator_bench import bench, fake, given_up  # noqa: F401, fixtures
from negotiator_bench import asks_go, end_to_end, error_of, pipelined_handshake, readable


def test_an_export_that_nobody_listens_for_is_a_platform_error(bench):
    bench.export("disk", listening=False)
    bench.start()
    assert error_of(asks_go(bench)).type == wire.REP_ERR_PLATFORM


def test_an_export_that_does_not_answer_is_too_slow(given_up, bench):
    answer = error_of(asks_go(bench))
    assert answer.type == wire.REP_ERR_PLATFORM


@pytest.mark.parametrize("stays", [True, False], ids=["until-the-end", "not-so-long"])
def test_a_start_that_nobody_waits_for_any_more_is_given_up(given_up, bench, stays):
    client = asks_go(bench)
    end = given_up.accept()
    if stays:
        error_of(client)
    else:
        client.close()
    assert end.closed(), "the connection that is left wakes the export for nobody"
    end_to_end(bench, given_up)         # whoever comes next asks anew


def test_a_start_that_others_wait_for_goes_on_when_the_first_has_been_refused(given_up, bench):
    first = asks_go(bench)
    end = given_up.accept()
    later = [asks_go(bench)]
    while not select.select([first.sock], [], [], 0.1)[0]:
        later.append(asks_go(bench))
    error_of(first)
    end.offer()
    end.grant(end.expect(RESERVE))
    wire.parse_info(later[-1].receive_replies(wire.OPT_GO))


def test_an_export_that_stops_within_its_offer_is_too_slow(given_up, bench):
    client = asks_go(bench)
    end = given_up.accept()
    for record in end.offer_records()[:2]:
        end.send(record)
    assert error_of(client).type == wire.REP_ERR_PLATFORM


def test_an_export_that_never_answers_a_reservation_is_too_slow(given_up, bench):
    client = asks_go(bench)
    end = given_up.ready()
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


def test_an_export_that_ends_during_a_reservation_twice_is_a_platform_error(fake, bench):
    client = asks_go(bench)
    for _ in range(2):
        end = fake.ready()
        end.expect(RESERVE)
        end.close()
    assert error_of(client).type == wire.REP_ERR_PLATFORM
    end_to_end(bench, fake)


def ends_during_reservation(end, is_read):
    """As an idle export may: with the RESERVE read, or still in its queue."""
    if is_read:
        end.expect(RESERVE)
    else:
        assert readable(end.sock), "no RESERVE"
    end.close()


@pytest.mark.parametrize("is_read", [True, False], ids=["read", "unread"])
def test_an_export_that_ends_during_a_reservation_is_started_again_unnoticed(fake, bench, is_read):
    client = asks_go(bench)
    ends_during_reservation(fake.ready(), is_read)
    end = fake.ready(number=5, size=2 << 20)
    end.grant(end.expect(RESERVE, offer=5), size=2 << 20)
    assert wire.parse_info(client.receive_replies(wire.OPT_GO)).size == 2 << 20
    end.receive_client().sendall(b"!")
    assert client.recv(1) == b"!"
    assert "refused" not in bench.process.log


@pytest.mark.parametrize("is_read", [True, False], ids=["read", "unread"])
def test_export_name_survives_an_export_that_ends_during_its_reservation(fake, bench, is_read):
    client = bench.client()
    client.send_option(wire.OPT_EXPORT_NAME, b"disk")
    ends_during_reservation(fake.ready(), is_read)
    end = fake.ready()
    end.grant(end.expect(RESERVE))
    assert client.unpack(">QH") == (channel.ExportEnd.SIZE, channel.ExportEnd.FLAGS)
    end.receive_client()


def test_all_who_reserve_as_the_export_ends_are_served_by_the_next_one(fake, bench):
    clients = [asks_go(bench) for _ in range(8)]
    end = fake.ready()
    for _ in clients[:5]:
        end.expect(RESERVE)
    end.close()
    end = fake.ready()
    for i, _ in enumerate(clients):
        end.grant(end.expect(RESERVE), token=100 + i, connection=1 + i)
    for client in clients:
        wire.parse_info(client.receive_replies(wire.OPT_GO))
    for _ in clients:
        record, fds = end.recv_with_fds()
        assert record.type == HANDOFF and len(fds) == 1
        os.close(fds[0])


def test_an_offer_that_had_aged_and_then_an_end_are_both_passed_over(fake, bench):
    client = asks_go(bench)
    end = fake.ready()
    reserve = end.expect(RESERVE)
    for record in end.offer_records(number=2):
        end.send(record)
    end.refuse(reserve, "offer-stale")
    end.expect(RESERVE, offer=2)
    end.close()
    end = fake.ready(number=9)
    end.grant(end.expect(RESERVE, offer=9))
    wire.parse_info(client.receive_replies(wire.OPT_GO))
    end.receive_client()


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
