# SPDX-License-Identifier: GPL-2.0-or-later
"""What clients that do not get on cost the others, and how long they can hold up a stop."""

import contextlib
import threading
import time

import nbdwire as wire
import pytest
from conftest import MIB

WHOLE = 32 * MIB  # one simple reply of this size takes most of the memory budget
SOON = 10  # seconds; a stalled client's 30 must not have to pass


@contextlib.contextmanager
def dripping(client, data, every):
    """Sends `data` byte by byte for as long as the block runs, or the client lives."""
    ended = threading.Event()

    def drip():
        for at in range(len(data)):
            if ended.wait(every):
                return
            with contextlib.suppress(OSError, wire.Closed):
                client.send(data[at : at + 1])

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def served_soon(client, cookie=7):
    """A simple READ of 32 MiB is answered, and well before a stalled client is closed."""
    began = time.monotonic()
    client.send(wire.request_header(wire.SIMPLE, wire.CMD_READ, 0, WHOLE, 0, cookie))
    client.recv(16 + WHOLE)
    assert time.monotonic() - began < SOON


def test_a_client_that_sends_and_never_reads_is_no_less_stalled(serve, file_disk):
    server = serve(file_disk(64 * MIB, b"x" * 64 * MIB))
    deaf, mover = (server.client(mode=wire.SIMPLE) for _ in range(2))
    for cookie in range(2):
        deaf.send(wire.request_header(wire.SIMPLE, wire.CMD_READ, 0, WHOLE, 0, cookie))
    flushes = b"".join(
        wire.request_header(wire.SIMPLE, wire.CMD_FLUSH, 0, 0, 0, 100 + i) for i in range(20))
    with dripping(deaf, flushes, every=0.05):
        served_soon(mover)


@pytest.mark.parametrize("flag", [0, wire.CMD_FLAG_DF], ids=["chunks", "whole"])
def test_a_client_that_asks_on_after_it_was_evicted_is_evicted_again(serve, file_disk, flag):
    server = serve(file_disk(64 * MIB, b"x" * 64 * MIB))
    deaf, mover = server.client(mode=wire.STRUCTURED), server.client(mode=wire.SIMPLE)
    for cookie in range(4):
        deaf.send(wire.request_header(wire.STRUCTURED, wire.CMD_READ, 0, WHOLE, flag, cookie))
        served_soon(mover)


def test_a_stop_does_not_wait_for_gigabytes_of_zeroes(serve, tmpfs_disk):
    server = serve(tmpfs_disk(6 << 30))
    client = server.client()
    client.send(wire.request_header(wire.EXTENDED, wire.CMD_WRITE_ZEROES, 0, 6 << 30,
                                    wire.CMD_FLAG_NO_HOLE, 1))
    client.close()
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < SOON


def test_a_write_that_drips_in_holds_up_a_stop_for_a_minute_at_most(serve, file_disk, only_long):
    server = serve(file_disk(8 * MIB))
    client = server.client()
    client.send(wire.request_header(wire.EXTENDED, wire.CMD_WRITE, 0, MIB,
                                    wire.CMD_FLAG_PAYLOAD_LEN, 1))
    began = time.monotonic()
    with dripping(client, bytes(1000), every=1):
        server.stop(patience=90)
    assert time.monotonic() - began < 75
