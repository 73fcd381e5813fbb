# SPDX-License-Identifier: GPL-2.0-or-later
"""READ in structured and extended mode: holes as OFFSET_HOLE, and what DF means."""

import os

import pytest

from conftest import KIB, MIB, by_mode, every_disk, fill, pattern
from nbdwire import (CMD_FLAG_DF, CMD_READ, EXTENDED, REPLY_OFFSET_DATA, REPLY_OFFSET_HOLE,
                     SIMPLE, STRUCTURED)

rich_modes = by_mode(STRUCTURED, EXTENDED)


def content(reply):
    """[(offset, length, type)] of the content chunks, in the order of the disk."""
    return sorted((c.offset, c.length, c.type) for c in reply.chunks if c.length is not None)


def of_type(reply, kind):
    """Ranges [begin, end) of one kind, neighbours joined."""
    joined = []
    for offset, length, kind_ in content(reply):
        if kind_ != kind:
            continue
        if joined and joined[-1][1] == offset:
            joined[-1][1] += length
        else:
            joined.append([offset, offset + length])
    return [tuple(pair) for pair in joined]


def read(client, offset, length, flags=0):
    return client.wait(client.send_request(CMD_READ, offset, length, flags)).check()


@pytest.fixture
def sparse(disk_folder):
    """8 MiB with data in [1 MiB, 2 MiB) and [4 MiB, 4 MiB + 64 KiB), holes elsewhere."""
    path = fill(disk_folder / "sparse", 8 * MIB)
    with open(path, "r+b") as file:
        file.seek(MIB)
        file.write(pattern(MIB, 1))
        file.seek(4 * MIB)
        file.write(pattern(64 * KIB, 2))
        file.flush()
        os.fsync(file)
    return path


@rich_modes
def test_holes_of_a_file_come_as_offset_hole(serve, sparse, mode):
    client = serve(sparse).client("", mode)
    reply = read(client, 0, 8 * MIB)
    assert of_type(reply, REPLY_OFFSET_DATA) == [(MIB, 2 * MIB), (4 * MIB, 4 * MIB + 64 * KIB)]
    assert of_type(reply, REPLY_OFFSET_HOLE) \
        == [(0, MIB), (2 * MIB, 4 * MIB), (4 * MIB + 64 * KIB, 8 * MIB)]
    assert reply.data == sparse.read_bytes()


@rich_modes
@pytest.mark.parametrize("offset, length", [
    (MIB - 1, 2), (2 * MIB - 1, 2), (MIB - 7, MIB + 20), (3 * MIB + 1, 5), (0, 1),
    (8 * MIB - 1, 1), (4 * MIB + 64 * KIB - 513, 1026), (4095, 4 * MIB),
])
def test_an_unaligned_read_over_data_and_holes_is_right(serve, sparse, mode, offset, length):
    client = serve(sparse).client("", mode)
    assert read(client, offset, length).data == sparse.read_bytes()[offset : offset + length]


@rich_modes
def test_a_read_of_a_hole_alone_moves_no_data(serve, sparse, mode):
    client = serve(sparse).client("", mode)
    reply = read(client, 5 * MIB, 3 * MIB)
    assert content(reply) == [(5 * MIB, 3 * MIB, REPLY_OFFSET_HOLE)]


@rich_modes
def test_with_df_there_is_one_data_chunk_and_no_hole(serve, sparse, mode):
    client = serve(sparse).client("", mode)
    for offset, length in ((0, 8 * MIB), (5 * MIB, MIB), (MIB - 1, 2), (3, 2 * MIB)):
        reply = read(client, offset, length, CMD_FLAG_DF)
        assert content(reply) == [(offset, length, REPLY_OFFSET_DATA)]
        assert reply.data == sparse.read_bytes()[offset : offset + length]


@rich_modes
def test_with_df_even_32_mib_come_in_one_chunk(serve, file_disk, mode):
    client = serve(file_disk(40 * MIB, pattern(40 * MIB))).client("", mode)
    for offset in (0, 12345):
        reply = read(client, offset, 32 * MIB, CMD_FLAG_DF)
        assert content(reply) == [(offset, 32 * MIB, REPLY_OFFSET_DATA)]
        assert reply.data == pattern(40 * MIB)[offset : offset + 32 * MIB]


@rich_modes
def test_df_with_zero_length_is_no_error(serve, sparse, mode):
    reply = read(serve(sparse).client("", mode), 0, 0, CMD_FLAG_DF)
    assert content(reply) == []


@rich_modes
def test_data_is_never_told_as_a_hole(serve, file_disk, mode):
    client = serve(file_disk(8 * MIB, pattern(8 * MIB))).client("", mode)
    reply = read(client, 0, 8 * MIB)
    assert of_type(reply, REPLY_OFFSET_DATA) == [(0, 8 * MIB)]


@rich_modes
@pytest.mark.parametrize("kind", ["loop512", "loop4096", "zram"])
def test_a_block_device_has_no_holes_to_tell(serve, disk, kind, mode):
    client = serve(disk(kind, 8 * MIB)).client("", mode)
    assert of_type(read(client, 0, 8 * MIB), REPLY_OFFSET_HOLE) == []


@rich_modes
@every_disk
def test_a_hole_that_is_written_is_data_at_once(serve, disk, kind, mode):
    server = serve(disk(kind, 8 * MIB))
    client, other = server.client("", mode), server.client("", mode)
    for offset in (0, 3 * MIB + 5, 8 * MIB - 4096):
        client.write(offset, pattern(4000, 3))
        assert read(other, offset, 4000).data == pattern(4000, 3)
    assert read(other, 0, 8 * MIB).data[3 * MIB + 5 :][:4000] == pattern(4000, 3)


@rich_modes
def test_many_small_holes_are_all_told(serve, tmpfs_disk, mode):
    path = tmpfs_disk(8 * MIB)
    with open(path, "r+b") as file:
        for page in range(0, 2048, 2):
            file.seek(page * 4096)
            file.write(bytes([page & 0xFF or 1]) * 4096)
    client = serve(path).client("", mode)
    reply = read(client, 100, 8 * MIB - 200)
    assert len(of_type(reply, REPLY_OFFSET_HOLE)) == 1024
    assert reply.data == path.read_bytes()[100:-100]


def test_a_simple_read_sends_holes_as_zeroes(serve, sparse):
    client = serve(sparse).client("", SIMPLE)
    assert client.read(0, 8 * MIB) == sparse.read_bytes()


@rich_modes
def test_holes_and_data_of_several_reads_may_mix(serve, sparse, mode):
    client = serve(sparse).client("", mode)
    whole = sparse.read_bytes()
    for i in range(64):
        client.send_read(i * 100_001, MIB + i)
    for reply in client.wait_all():
        at = reply.request.offset
        assert reply.check().data == whole[at : at + reply.request.length]
