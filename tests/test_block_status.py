# SPDX-License-Identifier: GPL-2.0-or-later
"""BLOCK_STATUS: extents, contexts, and the extended payload that narrows the question."""

import os

import pytest

import nbdwire
from conftest import GIB, KIB, MIB, TIB, by_mode, pattern
from nbdwire import (ALLOCATION_DEPTH, BASE_ALLOCATION, CMD_BLOCK_STATUS, CMD_FLAG_PAYLOAD_LEN,
                     EINVAL, EXTENDED, SIMPLE, STATE_HOLE, STATE_ZERO, STRUCTURED, u32, u64)
from nbdwire import CMD_FLAG_REQ_ONE as REQ_ONE

HOLE = STATE_HOLE | STATE_ZERO
DATA = 0
BOTH = (BASE_ALLOCATION, ALLOCATION_DEPTH)
rich_modes = by_mode(STRUCTURED, EXTENDED)


def sparse(path, size, pieces):
    """A file of `size` bytes with data at each (offset, length) of `pieces`, and synced."""
    with open(path, "wb") as file:
        file.truncate(size)
        for offset, length in pieces:
            file.seek(offset)
            file.write(b"\xDA" * length)
        file.flush()
        os.fsync(file)
    return path


@pytest.fixture
def holes(disk_folder, serve):
    """8 MiB: data, hole, data, hole, from 0 by 1 MiB, 1 MiB, 1 MiB, 5 MiB."""
    return serve(sparse(disk_folder / "sparse", 8 * MIB, [(0, MIB), (2 * MIB, MIB)]))


def extents_of(path):
    """The truth, by lseek(2): [(length, flags)]"""
    found = []
    with open(path, "rb") as file:
        size, at = os.fstat(file.fileno()).st_size, 0
        while at < size:
            try:
                data = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                data = size
            if data > at:
                found.append((data - at, HOLE))
            if data < size:
                at = os.lseek(file.fileno(), data, os.SEEK_HOLE)
                found.append((at - data, DATA))
            else:
                at = size
    return found


@rich_modes
def test_a_sparse_file_is_told_as_data_and_holes(holes, mode):
    client = holes.client("", mode, contexts=[BASE_ALLOCATION])
    assert client.status(0, 8 * MIB) == {
        BASE_ALLOCATION: [(MIB, DATA), (MIB, HOLE), (MIB, DATA), (5 * MIB, HOLE)]}


@rich_modes
@pytest.mark.parametrize("offset, length, extents", [
    (0, MIB, [(MIB, DATA)]),
    (0, 1, [(1, DATA)]),
    (MIB - 1, 2, [(1, DATA), (1, HOLE)]),
    (MIB + 5, 1000, [(1000, HOLE)]),
    (2 * MIB - 4096, 8192, [(4096, HOLE), (4096, DATA)]),
    (8 * MIB - 1, 1, [(1, HOLE)]),
    (MIB, 7 * MIB, [(MIB, HOLE), (MIB, DATA), (5 * MIB, HOLE)]),
])
def test_extents_begin_and_end_where_the_request_does(holes, mode, offset, length, extents):
    client = holes.client("", mode, contexts=[BASE_ALLOCATION])
    assert client.status(offset, length) == {BASE_ALLOCATION: extents}


@rich_modes
def test_req_one_gets_one_extent_of_each_context(holes, mode):
    client = holes.client("", mode, contexts=BOTH)
    assert client.status(0, 8 * MIB, REQ_ONE) == {
        BASE_ALLOCATION: [(MIB, DATA)], ALLOCATION_DEPTH: [(8 * MIB, 1)]}
    assert client.status(MIB + 1, 10, REQ_ONE) == {
        BASE_ALLOCATION: [(10, HOLE)], ALLOCATION_DEPTH: [(10, 1)]}


@rich_modes
def test_several_contexts_are_answered_in_one_reply_and_done_comes_last(holes, mode):
    client = holes.client("", mode, contexts=BOTH)
    assert client.contexts == {BASE_ALLOCATION: 0, ALLOCATION_DEPTH: 1}
    reply = client.wait(client.send_status(0, 8 * MIB)).check()
    assert set(reply.extents) == {0, 1}
    assert [c.flags for c in reply.chunks] == [0] * (len(reply.chunks) - 1) + [1]


@rich_modes
@pytest.mark.parametrize("context, number", [(BASE_ALLOCATION, 0), (ALLOCATION_DEPTH, 1)])
def test_only_the_selected_context_is_answered(holes, mode, context, number):
    client = holes.client("", mode, contexts=[context])
    assert client.contexts == {context: number}
    assert set(client.status(0, 8 * MIB)) == {context}


@rich_modes
@pytest.mark.parametrize("kind", ["file", "loop512", "zram", "ramfs"])
def test_allocation_depth_is_1_everywhere(serve, disk, kind, mode):
    client = serve(disk(kind, 8 * MIB)).client("", mode, contexts=[ALLOCATION_DEPTH])
    assert client.status(0, 8 * MIB) == {ALLOCATION_DEPTH: [(8 * MIB, 1)]}
    assert client.status(77, 1000) == {ALLOCATION_DEPTH: [(1000, 1)]}


@rich_modes
@pytest.mark.parametrize("kind", ["loop512", "loop4096", "zram"])
def test_a_block_device_is_all_data(serve, disk, kind, mode):
    client = serve(disk(kind, 8 * MIB)).client("", mode, contexts=[BASE_ALLOCATION])
    assert client.status(0, 8 * MIB) == {BASE_ALLOCATION: [(8 * MIB, DATA)]}
    assert client.status(513, 1024) == {BASE_ALLOCATION: [(1024, DATA)]}


@rich_modes
def test_a_file_system_that_knows_no_holes_is_all_data(serve, ramfs_disk, mode):
    path = ramfs_disk(8 * MIB)
    client = serve(path).client("", mode, contexts=[BASE_ALLOCATION])
    assert client.status(0, 8 * MIB) == {BASE_ALLOCATION: extents_of(path)}


@rich_modes
@pytest.mark.parametrize("make", ["file", "tmpfs"])
def test_the_answer_follows_what_is_written_trimmed_and_zeroed(serve, disk, make, mode):
    path = disk(make, 8 * MIB)
    client = serve(path).client("", mode, contexts=[BASE_ALLOCATION])
    assert client.status(0, 8 * MIB)[BASE_ALLOCATION] == [(8 * MIB, HOLE)]
    client.write(MIB, pattern(MIB))
    client.flush()
    assert client.status(0, 8 * MIB)[BASE_ALLOCATION] \
        == [(MIB, HOLE), (MIB, DATA), (6 * MIB, HOLE)] == extents_of(path)
    client.trim(MIB, 512 * KIB)
    client.flush()
    assert client.status(0, 8 * MIB)[BASE_ALLOCATION] \
        == [(MIB + 512 * KIB, HOLE), (512 * KIB, DATA), (6 * MIB, HOLE)]
    client.zero(MIB, MIB)
    client.flush()
    told = client.status(MIB, MIB)[BASE_ALLOCATION]
    assert all(flags & STATE_ZERO or extents_of(path) for _, flags in told)
    assert sum(length for length, _ in told) == MIB


@rich_modes
def test_what_is_told_to_be_zero_reads_as_zeroes(holes, mode):
    client = holes.client("", mode, contexts=[BASE_ALLOCATION])
    at = 0
    for length, flags in client.status(0, 8 * MIB)[BASE_ALLOCATION]:
        if flags & STATE_ZERO:
            assert client.read(at, length) == bytes(length)
        at += length


# Limits


@rich_modes
def test_extents_are_merged(serve, disk_folder, mode):
    """Data that lies in many pieces on the disk is one extent."""
    path = sparse(disk_folder / "pieces", 8 * MIB,
                  [(MIB + at, 64 * KIB) for at in reversed(range(0, MIB, 64 * KIB))])
    client = serve(path).client("", mode, contexts=[BASE_ALLOCATION])
    assert client.status(0, 8 * MIB)[BASE_ALLOCATION] \
        == [(MIB, HOLE), (MIB, DATA), (6 * MIB, HOLE)]


@pytest.fixture
def striped(serve, tmpfs_disk):
    """A file whose pages are in turn data and hole; more extents than fit one reply."""
    n = 66_000
    path = tmpfs_disk(2 * n * 4096)
    page = b"\xDA" * 4096
    fd = os.open(path, os.O_WRONLY)
    for i in range(n):
        os.pwrite(fd, page, 2 * i * 4096)
    os.close(fd)
    return serve(path), 2 * n * 4096


@rich_modes
def test_a_reply_has_at_most_131072_extents_of_a_context(striped, mode):
    server, size = striped
    client = server.client("", mode, contexts=BOTH)
    told = client.status(0, size)
    assert len(told[BASE_ALLOCATION]) == 131_072
    assert told[BASE_ALLOCATION] == [(4096, DATA), (4096, HOLE)] * 65_536
    assert told[ALLOCATION_DEPTH] == [(size, 1)]
    rest = client.status(131_072 * 4096, size - 131_072 * 4096)[BASE_ALLOCATION]
    assert rest == [(4096, DATA), (4096, HOLE)] * 464


@rich_modes
def test_other_requests_are_answered_while_a_long_status_is_made(striped, mode):
    server, size = striped
    client = server.client("", mode, contexts=[BASE_ALLOCATION])
    statuses = [client.send_status(0, size) for _ in range(4)]
    reads = [client.send_read(8192 * i, 4096) for i in range(32)]
    for cookie in reads:
        assert client.wait(cookie).check().data == b"\xDA" * 4096
    for cookie in statuses:
        assert len(client.wait(cookie).check().extents[0]) == 131_072


def test_a_structured_status_covers_all_that_32_bits_can_ask(serve, tmpfs_disk):
    client = serve(tmpfs_disk(8 * GIB)).client("", STRUCTURED, contexts=BOTH)
    for length in (2**32 - 1, 2**32 - 512, 2**31):
        told = client.status(0, length)
        assert told == {BASE_ALLOCATION: [(length, HOLE)], ALLOCATION_DEPTH: [(length, 1)]}


@pytest.mark.parametrize("size", [5 * GIB, 16 * TIB, 2**62])
def test_an_extended_status_covers_more_than_4_gib(serve, tmpfs_disk, size):
    client = serve(tmpfs_disk(size)).client("", EXTENDED, contexts=BOTH)
    assert client.status(0, size) == {
        BASE_ALLOCATION: [(size, HOLE)], ALLOCATION_DEPTH: [(size, 1)]}
    client.write(size - 8192, b"x" * 4096)
    assert client.status(4096, size - 4096)[BASE_ALLOCATION] \
        == [(size - 12288, HOLE), (4096, DATA), (4096, HOLE)]
    assert client.status(0, size, REQ_ONE)[BASE_ALLOCATION] == [(size - 8192, HOLE)]


# Refusals


@by_mode()
def test_status_without_a_selected_context_is_einval_and_the_connection_lives(holes, mode):
    client = holes.client("", mode)
    assert client.error(CMD_BLOCK_STATUS, 0, 512) == EINVAL
    assert client.read(0, 4) == b"\xDA" * 4


@rich_modes
@pytest.mark.parametrize("flags", [0, REQ_ONE])
def test_status_of_nothing_is_einval(holes, mode, flags):
    client = holes.client("", mode, contexts=[BASE_ALLOCATION])
    for offset in (0, MIB, 8 * MIB):
        assert client.error(CMD_BLOCK_STATUS, offset, 0, flags) == EINVAL
    assert client.status(0, 512)


def test_status_is_told_in_simple_mode_by_no_means(holes):
    client = holes.client("", SIMPLE)
    assert client.call(CMD_BLOCK_STATUS, 0, 512).error == EINVAL


# The payload that narrows the question (extended mode)


@pytest.mark.parametrize("only", [[0], [1], [0, 1], [1, 0]], ids=str)
def test_a_payload_narrows_the_answer_to_its_contexts(holes, only):
    client = holes.client("", EXTENDED, contexts=BOTH)
    assert client.flags & nbdwire.BLOCK_STAT_PAYLOAD
    reply = client.wait(client.send_status(0, 8 * MIB, only=only)).check()
    assert set(reply.extents) == set(only)
    reply = client.wait(client.send_status(MIB + 1, MIB, REQ_ONE, only=only)).check()
    assert all(len(extents) == 1 for extents in reply.extents.values())


@pytest.mark.parametrize("length", [2**32, 2**40, 2**43])
def test_a_payload_may_ask_about_more_than_4_gib(serve, tmpfs_disk, length):
    client = serve(tmpfs_disk(16 * TIB)).client("", EXTENDED, contexts=BOTH)
    reply = client.wait(client.send_status(512, length, only=[0])).check()
    assert reply.extents == {0: [(length, HOLE)]}


BAD_FILTERS = {
    "empty": [], "repeated": [0, 0], "repeated-later": [0, 1, 0], "unknown": [2],
    "unknown-among-others": [0, 77], "huge": [0xFFFFFFFF], "all-and-more": [0, 1, 2],
}


@pytest.mark.parametrize("only", BAD_FILTERS.values(), ids=BAD_FILTERS)
def test_a_repeated_unknown_or_empty_selection_is_einval_and_the_connection_lives(holes, only):
    client = holes.client("", EXTENDED, contexts=BOTH)
    for _ in range(2):
        assert client.wait(client.send_status(0, 512, only=only)).error == EINVAL
    assert client.status(0, 512)


@pytest.mark.parametrize("contexts", [[BASE_ALLOCATION], [ALLOCATION_DEPTH], []], ids=str)
def test_a_context_that_was_not_selected_cannot_be_asked_for(holes, contexts):
    client = holes.client("", EXTENDED, contexts=contexts)
    other = 1 - client.contexts.get(BASE_ALLOCATION, 1)
    assert client.wait(client.send_status(0, 512, only=[other])).error == EINVAL
    assert client.read(0, 4) == b"\xDA" * 4


@pytest.mark.parametrize("payload", [
    b"", b"\0", bytes(4), bytes(7), u64(512), u64(512) + b"\0", u64(512) + u32(0)[:3],
    u64(512) + u32(0) + b"\0", bytes(1 << 20),
], ids=lambda payload: f"{len(payload)}-bytes")
def test_a_malformed_payload_is_drained_and_einval(holes, payload):
    client = holes.client("", EXTENDED, contexts=BOTH)
    for _ in range(2):
        assert client.error(CMD_BLOCK_STATUS, 0, len(payload), CMD_FLAG_PAYLOAD_LEN, payload) \
            == EINVAL
    assert client.status(0, 512)


@pytest.mark.parametrize("offset, length", [(0, 0), (0, 8 * MIB + 1), (8 * MIB, 1),
                                            (512, 2**64 - 512), (2**64 - 1, 1)])
def test_the_range_in_a_payload_is_checked_like_any_other(holes, offset, length):
    client = holes.client("", EXTENDED, contexts=BOTH)
    assert client.wait(client.send_status(offset, length, only=[0])).error == EINVAL
    assert client.wait(client.send_status(8 * MIB - 1, 1, only=[0])).error == 0


def test_payload_flags_outside_of_extended_mode_are_einval(holes):
    client = holes.client("", STRUCTURED, contexts=BOTH)
    assert client.error(CMD_BLOCK_STATUS, 0, 512, CMD_FLAG_PAYLOAD_LEN) == EINVAL
    assert client.status(0, 512)
