# SPDX-License-Identifier: GPL-2.0-or-later
"""What clients that do not get on cost the others, and how long they can hold up a stop."""

import contextlib
import socket
import queue
import threading
import time

import nbdwire as wire
import pytest
from conftest import GIB, MIB, fill, freeze, pattern
from nbdctl import short_folder  # noqa: F401, a fixture
from syncasks import Syncs
from tracked import DIRTY, KIND, tracked  # noqa: F401

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


@pytest.mark.parametrize("engine", ["io_uring", "threads"])
@pytest.mark.parametrize("command", [wire.CMD_WRITE_ZEROES, wire.CMD_TRIM], ids=["zero", "trim"])
def test_a_client_that_zeroes_all_it_can_does_not_keep_others_from_reading_and_flushing(
        serve, freezable, cleanup, engine, command):
    """While a file system is frozen, fallocate(2) stays in there."""
    path = fill(freezable / "disk", 8 * MIB, pattern(8 * MIB))
    server = serve(path, engine=engine)
    busy, other = server.client(), server.client()
    thaw = freeze(cleanup, freezable)
    zeroes = [busy.send_request(command, i * 4096, 4096) for i in range(127)]
    assert busy.read(4 * MIB, 4096) == pattern(4 * MIB + 4096)[4 * MIB :]
    assert len(busy.pending) == 127, "a frozen file system has changed"
    assert other.read(5 * MIB, 4096) == pattern(5 * MIB + 4096)[5 * MIB :]
    assert other.error(wire.CMD_FLUSH) == 0
    thaw.now()
    for cookie in zeroes:
        busy.wait(cookie).check()
    assert other.read(0, 127 * 4096) == bytes(127 * 4096)


def test_zeroes_that_wait_for_their_turn_when_the_export_stops_are_done(serve, freezable, cleanup):
    path = fill(freezable / "disk", 8 * MIB, pattern(8 * MIB))
    server = serve(path, threads=1)
    client, idle = server.client(), server.client()
    thaw = freeze(cleanup, freezable)
    zeroes = [client.send_request(wire.CMD_WRITE_ZEROES, i * 4096, 4096) for i in range(127)]
    assert client.read(0, 512) == pattern(512)          # so all have been taken
    server.lossy = True                                 # its children end before stop()
    server.child.terminate()
    assert idle.closed()
    thaw.now()
    for cookie in zeroes:
        client.wait(cookie).check()
    server.child.wait(wire.PATIENCE)
    assert path.read_bytes()[: 128 * 4096] == bytes(127 * 4096) + pattern(MIB)[127 * 4096 :][:4096]


def test_discards_that_do_not_end_keep_nobody_from_asking_for_bitmaps(
        tracked, loop_disk, short_folder, cleanup):  # noqa: F811
    begun, ended = queue.SimpleQueue(), threading.Event()

    def answer(what):
        if what == "discard":
            begun.put(what)
            ended.wait()
        return 0

    device = loop_disk(GIB)
    syncs = Syncs(short_folder, device, answer)
    cleanup.callback(syncs.close)
    here = tracked(device, env=syncs.env)
    here.bitmap("add", "b")
    cleanup.callback(ended.set)
    busy, other = here.client(), here.client("b")
    trims = [busy.send_request(wire.CMD_TRIM, 0, GIB) for _ in range(127)]
    for _ in range(2):
        begun.get(timeout=wire.PATIENCE)
    assert sum(length for length, _ in other.status(0, GIB)[KIND + "b"]) == GIB
    assert len(busy.pending) == 127 and begun.empty()
    ended.set()
    for cookie in trims:
        busy.wait(cookie).check()
    assert syncs.seen.count("discard") >= 2 * len(trims), "a TRIM of 1 GiB was made in one step"
    assert other.status(0, GIB)[KIND + "b"] == [(GIB, DIRTY)]


def test_a_client_that_reads_nothing_leaves_others_their_memory(serve, file_disk):
    """It has its share of whole replies: what it has is not even taken from it."""
    server = serve(file_disk(64 * MIB, b"x" * 64 * MIB), memory="48M")
    deaf, mover = (server.client(mode=wire.SIMPLE) for _ in range(2))
    for cookie in range(60):
        deaf.send(wire.request_header(wire.SIMPLE, wire.CMD_READ, 0, MIB, 0, cookie))
    deaf.sock.recv(1, socket.MSG_PEEK)
    for _ in range(20):
        mover.read(0, MIB)
    mover.write(0, b"y" * MIB)
    for _ in range(12):                 # more than its socket takes
        assert deaf.recv(16 + MIB)[16:] == b"x" * MIB, "it was read again"


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
