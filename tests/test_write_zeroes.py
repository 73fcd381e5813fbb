# SPDX-License-Identifier: GPL-2.0-or-later
"""WRITE_ZEROES: holes or none, quickly or not at all, and of any length."""

import pytest

from conftest import (GIB, KIB, MIB, TIB, backing_of, by_mode, every_disk, loop_attach, pattern,
                      sysfs)
from nbdwire import (BASE_ALLOCATION, CMD_FLAG_FAST_ZERO, CMD_FLAG_FUA, CMD_FLAG_NO_HOLE,
                     CMD_FLUSH, CMD_TRIM, CMD_WRITE_ZEROES, ENOSPC, ENOTSUP, EXTENDED, STATE_ZERO)

SIZE = 8 * MIB
RANGES = [(0, MIB), (64 * KIB, 4096), (4096, 512), (1, 1), (511, 2), (513, 10_000),
          (MIB - 1, MIB + 2), (3 * MIB + 7, 4096), (4096, 4095)]


@by_mode()
@every_disk
@pytest.mark.parametrize("flags", [0, CMD_FLAG_NO_HOLE, CMD_FLAG_FUA], ids=["", "no-hole", "fua"])
def test_zeroes_are_read_where_they_were_written_and_nowhere_else(serve, disk, kind, mode, flags):
    model = bytearray(pattern(5 * MIB))
    client = serve(disk(kind, SIZE, bytes(model))).client("", mode)
    for offset, length in RANGES:
        client.zero(offset, length, flags)
        model[offset : offset + length] = bytes(length)
        assert client.read(0, 5 * MIB) == model
        client.write(offset, pattern(length, 4))
        model[offset : offset + length] = pattern(length, 4)


@by_mode()
def test_zeroes_up_to_the_very_end(serve, disk, mode):
    client = serve(disk("file", SIZE, pattern(SIZE))).client("", mode)
    client.zero(SIZE - 1000, 1000)
    assert client.read(SIZE - 1000, 1000) == bytes(1000)
    client.zero(0, SIZE)
    assert client.read(0, SIZE) == bytes(SIZE)


@by_mode()
def test_without_no_hole_the_space_of_a_file_may_be_given_back(serve, file_disk, mode):
    path = file_disk(SIZE, pattern(SIZE))
    client = serve(path).client("", mode)
    client.zero(0, 4 * MIB)
    client.flush()
    assert path.stat().st_blocks * 512 <= 4 * MIB + 64 * KIB
    assert client.read(0, 4 * MIB) == bytes(4 * MIB)


@by_mode()
@pytest.mark.parametrize("content", [None, pattern(SIZE)], ids=["sparse", "full"])
@pytest.mark.parametrize("kind", ["file", "tmpfs"])
def test_with_no_hole_the_space_of_a_file_is_provided(serve, disk, kind, mode, content):
    path = disk(kind, SIZE, content)
    client = serve(path).client("", mode)
    client.zero(MIB, 4 * MIB, CMD_FLAG_NO_HOLE)
    client.flush()
    assert path.stat().st_blocks * 512 >= 4 * MIB
    assert client.read(MIB, 4 * MIB) == bytes(4 * MIB)


@by_mode()
def test_with_no_hole_a_full_file_system_is_enospc(serve, mounted, mode):
    path = mounted("tmpfs", size=MIB) / "disk"
    path.touch()
    with open(path, "r+b") as file:
        file.truncate(SIZE)
    client = serve(path).client("", mode)
    assert client.error(CMD_WRITE_ZEROES, 0, 4 * MIB, CMD_FLAG_NO_HOLE) == ENOSPC
    client.zero(0, 4 * MIB)
    assert client.read(0, 512) == bytes(512)


@by_mode()
def test_a_hole_in_a_loop_devices_backing_file_only_without_no_hole(serve, loop_disk, mode):
    device = loop_disk(SIZE, 512, pattern(SIZE))
    if int(sysfs(device, "queue/write_zeroes_max_bytes")) == 0:
        pytest.skip("this loop driver cannot write zeroes")
    client = serve(device).client("", mode)
    client.zero(0, 4 * MIB, CMD_FLAG_NO_HOLE)
    client.flush()
    assert backing_of(device).stat().st_blocks * 512 >= SIZE
    client.zero(0, 4 * MIB)
    client.flush()
    assert client.read(0, 4 * MIB) == bytes(4 * MIB)


# FAST_ZERO


def zero_fast(client, offset, length, flags=0):
    """Whether it was done; refused it must have changed nothing."""
    before = client.read(offset, length)
    error = client.error(CMD_WRITE_ZEROES, offset, length, CMD_FLAG_FAST_ZERO | flags)
    assert error in (0, ENOTSUP)
    assert client.read(offset, length) == (before if error else bytes(length))
    return not error


@by_mode()
@every_disk
@pytest.mark.parametrize("flags", [0, CMD_FLAG_NO_HOLE], ids=["may-hole", "no-hole"])
def test_fast_zero_is_done_or_refused_and_then_changes_nothing(serve, disk, kind, mode, flags):
    client = serve(disk(kind, SIZE, pattern(5 * MIB))).client("", mode)
    for offset, length in RANGES:
        zero_fast(client, offset, length, flags)
    client.write(0, pattern(64 * KIB))
    assert client.read(0, 64 * KIB) == pattern(64 * KIB)


@by_mode()
@pytest.mark.parametrize("flags", [0, CMD_FLAG_NO_HOLE], ids=["may-hole", "no-hole"])
def test_fast_zero_is_done_where_the_file_system_can(serve, file_disk, mode, flags):
    """ext4, xfs and btrfs can; by ZERO_RANGE or PUNCH_HOLE."""
    client = serve(file_disk(SIZE, pattern(SIZE))).client("", mode)
    assert zero_fast(client, MIB, 4 * MIB, 0)
    if flags:
        zero_fast(client, 6 * MIB, MIB, flags)


@by_mode()
@pytest.mark.parametrize("flags", [0, CMD_FLAG_NO_HOLE, CMD_FLAG_FUA],
                         ids=["may-hole", "no-hole", "fua"])
def test_fast_zero_is_enotsup_on_a_file_that_would_have_to_be_written(
        serve, ramfs_disk, mode, flags):
    client = serve(ramfs_disk(SIZE, pattern(SIZE))).client("", mode)
    for offset, length in RANGES:
        assert not zero_fast(client, offset, length, flags)
    client.zero(0, MIB, flags)
    assert client.read(0, MIB) == bytes(MIB)


@by_mode()
@pytest.mark.parametrize("kind", ["loop512", "loop4096", "zram"])
def test_fast_zero_on_a_block_device_is_told_as_the_kernel_tells_it(serve, disk, kind, mode):
    path = disk(kind, SIZE, pattern(SIZE))
    able = int(sysfs(path, "queue/write_zeroes_max_bytes")) > 0
    client = serve(path).client("", mode)
    assert zero_fast(client, 0, 4 * MIB) == able


@by_mode()
def test_fast_zero_is_enotsup_on_a_block_device_that_would_have_to_be_written(
        serve, cleanup, mounted, mode):
    backing = mounted("ramfs") / "backing"
    backing.write_bytes(pattern(SIZE))
    device = loop_attach(cleanup, backing, direct=False)
    assert int(sysfs(device, "queue/write_zeroes_max_bytes")) == 0
    client = serve(device).client("", mode)
    for offset, length in RANGES:
        for flags in (0, CMD_FLAG_NO_HOLE):
            assert not zero_fast(client, offset, length, flags)
    client.zero(0, MIB)
    assert client.read(0, MIB) == bytes(MIB)


@by_mode()
def test_fast_zero_of_nothing_succeeds(serve, ramfs_disk, mode):
    client = serve(ramfs_disk(SIZE)).client("", mode)
    assert client.error(CMD_WRITE_ZEROES, 0, 0, CMD_FLAG_FAST_ZERO) == 0


@by_mode()
def test_enotsup_comes_at_once_even_for_the_whole_of_a_large_disk(serve, ramfs_disk, mode):
    client = serve(ramfs_disk(4 * GIB)).client("", mode)
    length = 4 * GIB - 512
    assert client.error(CMD_WRITE_ZEROES, 0, length, CMD_FLAG_FAST_ZERO) == ENOTSUP


# Long ones


@by_mode()
@pytest.mark.parametrize("command", [CMD_TRIM, CMD_WRITE_ZEROES], ids=["TRIM", "WRITE_ZEROES"])
def test_a_length_above_the_largest_payload_is_legal(serve, tmpfs_disk, mode, command):
    client = serve(tmpfs_disk(8 * GIB)).client("", mode)
    client.write(4 * GIB - 8192, pattern(4096))
    assert client.error(command, 0, 2**32 - 4096) == 0
    assert client.read(4 * GIB - 8192, 4096) == bytes(4096)


@pytest.mark.parametrize("size", [6 * GIB, 16 * TIB])
@pytest.mark.parametrize("command", [CMD_TRIM, CMD_WRITE_ZEROES], ids=["TRIM", "WRITE_ZEROES"])
def test_extended_lengths_beyond_4_gib_work(serve, tmpfs_disk, command, size):
    client = serve(tmpfs_disk(size)).client("", EXTENDED, contexts=[BASE_ALLOCATION])
    marks = [0, 2**32 - 4096, 2**32, 5 * GIB, size - 4096]
    for mark in marks:
        client.write(mark, pattern(4096))
    assert client.error(command, 4096, size - 8192) == 0
    assert client.read(0, 4096) == client.read(size - 4096, 4096) == pattern(4096)
    for mark in marks[1:-1]:
        assert client.read(mark, 4096) == bytes(4096)
    told = client.status(0, size)[BASE_ALLOCATION]
    assert told[0] == (4096, 0) and told[1][1] & STATE_ZERO and told[1][0] == size - 8192


def test_extended_fast_zero_beyond_4_gib_works_or_is_enotsup(serve, tmpfs_disk):
    client = serve(tmpfs_disk(6 * GIB)).client("", EXTENDED)
    client.write(5 * GIB, pattern(4096))
    error = client.error(CMD_WRITE_ZEROES, 0, 6 * GIB, CMD_FLAG_FAST_ZERO)
    assert error in (0, ENOTSUP)
    assert client.read(5 * GIB, 4096) == (pattern(4096) if error else bytes(4096))


@by_mode()
def test_long_zeroes_that_must_be_written_hold_up_nobody(serve, ramfs_disk, mode):
    """The disk writes them itself, piece by piece; others are served meanwhile."""
    server = serve(ramfs_disk(256 * MIB))
    busy, other = server.client("", mode), server.client("", mode)
    cookie = busy.send_request(CMD_WRITE_ZEROES, 0, 256 * MIB)
    assert other.read(0, 512) == bytes(512)
    assert other.error(CMD_FLUSH) == 0
    busy.wait(cookie).check()
