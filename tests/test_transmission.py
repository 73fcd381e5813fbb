# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests and replies: every command, every flag, every check, in the three modes."""

import resource
import struct
import threading

import pytest

import nbdwire
from conftest import (KIB, MIB, backing_of, by_mode, every_disk, fill, freeze, needs_root,
                      pattern, run, true_minimum)
from nbdwire import (BASE_ALLOCATION, CMD_BLOCK_STATUS, CMD_CACHE, CMD_DISC, CMD_FLAG_DF,
                     CMD_FLAG_FAST_ZERO, CMD_FLAG_FUA, CMD_FLAG_NO_HOLE, CMD_FLAG_PAYLOAD_LEN,
                     CMD_FLAG_REQ_ONE, CMD_FLUSH, CMD_READ, CMD_RESIZE, CMD_TRIM, CMD_WRITE,
                     CMD_WRITE_ZEROES, EINVAL, ENOSPC, EPERM, EXTENDED, MAX_PAYLOAD, SIMPLE,
                     STRUCTURED, request_header)

SIZE = 8 * MIB
NAMED = {
    "READ": CMD_READ, "WRITE": CMD_WRITE, "FLUSH": CMD_FLUSH, "TRIM": CMD_TRIM,
    "CACHE": CMD_CACHE, "WRITE_ZEROES": CMD_WRITE_ZEROES, "BLOCK_STATUS": CMD_BLOCK_STATUS,
}
RANGED = [name for name in NAMED if name != "FLUSH"]
MODIFYING = ["WRITE", "TRIM", "WRITE_ZEROES"]


def each(names):
    return pytest.mark.parametrize("command", [NAMED[n] for n in names], ids=names)


@pytest.fixture
def server(serve, file_disk):
    return serve(file_disk(SIZE, pattern(SIZE)))


def connect(server, mode, **how):
    """A client that may ask for the block status, where the mode has that."""
    contexts = [BASE_ALLOCATION] if mode != SIMPLE else []
    return server.client("", mode, contexts=contexts, **how)


def send(client, command, offset, length, flags=0, payload=None):
    """The error of any command; WRITE gets the payload that it needs."""
    if command == CMD_WRITE:
        if client.mode == EXTENDED:
            flags |= CMD_FLAG_PAYLOAD_LEN
        return client.error(command, offset, length, flags, payload or bytes(length))
    return client.error(command, offset, length, flags, payload or b"")


def alive(client, offset=0):
    return client.read(offset, 512) == pattern(offset + 512)[offset:]


# Reading and writing


@by_mode()
@every_disk
def test_what_is_written_is_read_again_and_is_on_the_disk(serve, disk, kind, mode):
    path = disk(kind, SIZE)
    server = serve(path)
    client = server.client("", mode)
    data = pattern(MIB)
    client.write(MIB, data)
    client.write(0, data[: 64 * KIB], CMD_FLAG_FUA)
    assert client.read(MIB, MIB) == data
    assert client.read(MIB - 4096, 8192) == bytes(4096) + data[:4096]
    client.flush()
    assert client.disconnect()
    server.stop()
    with open(path, "rb") as file:
        assert file.read(64 * KIB) == data[: 64 * KIB]
        file.seek(MIB)
        assert file.read(MIB) == data


@by_mode()
def test_the_first_and_the_last_byte_can_be_read_and_written(server, mode):
    client = server.client("", mode)
    for offset in (0, SIZE - 1):
        client.write(offset, b"!")
        assert client.read(offset, 1) == b"!"
    assert client.read(SIZE - 3, 3) == pattern(SIZE)[-3:-1] + b"!"


@by_mode()
def test_any_length_up_to_32_mib_is_served(serve, file_disk, mode):
    client = serve(file_disk(33 * MIB)).client("", mode)
    for length in (1, 511, 512, 513, 4095, 4097, 256 * KIB, 256 * KIB + 1, MIB - 1,
                   32 * MIB - 1, 32 * MIB):
        data = pattern(32 * MIB, length)[:length]
        for offset in (0, MIB - 17):
            client.write(offset, data)
            assert client.read(offset, length) == data


@by_mode()
@every_disk
def test_unaligned_reads_and_writes_are_bounced(serve, disk, kind, mode):
    before = pattern(64 * KIB)
    client = serve(disk(kind, MIB, before)).client("", mode)
    model = bytearray(before)
    for offset in (0, 1, 511, 513, 4095, 4097):
        for length in (1, 2, 511, 512, 513, 4095, 4096, 4097, 9999):
            data = pattern(length, offset + length)
            assert client.read(offset, length) == model[offset : offset + length]
            client.write(offset, data)
            model[offset : offset + length] = data
        assert client.read(0, 64 * KIB) == model


@by_mode()
def test_a_client_that_promised_the_minimum_may_break_it(serve, loop_disk, mode):
    """Sent in spite of the block size it was told; legal here."""
    client = serve(loop_disk(MIB, 4096)).client("", mode)
    assert client.told.minimum == 4096
    client.write(4095, b"ab")
    assert client.read(4094, 4) == b"\0ab\0"


# Zero length


@by_mode()
@each([name for name in NAMED if name != "BLOCK_STATUS"])
def test_zero_length_succeeds(server, mode, command):
    client = connect(server, mode)
    for offset in (0, 1, SIZE) if command != CMD_FLUSH else (0,):
        assert send(client, command, offset, 0) == 0, offset
    assert alive(client)


@by_mode()
def test_zero_length_fails_for_block_status(server, mode):
    client = connect(server, mode)
    assert client.error(CMD_BLOCK_STATUS, 0, 0) == EINVAL
    assert alive(client)


@by_mode()
def test_a_read_of_zero_length_is_answered_by_the_end_alone(server, mode):
    reply = server.client("", mode).call(CMD_READ, 4096, 0)
    if mode == SIMPLE:
        assert reply.simple and reply.data == b""
    else:
        assert [chunk.type for chunk in reply.chunks] == [nbdwire.REPLY_NONE]


# How replies look


@by_mode()
@each(["WRITE", "FLUSH", "TRIM", "CACHE", "WRITE_ZEROES"])
def test_success_without_data_is_a_simple_reply_or_in_extended_mode_one_empty_chunk(
        server, mode, command):
    client = server.client("", mode)
    flags = CMD_FLAG_PAYLOAD_LEN if mode == EXTENDED and command == CMD_WRITE else 0
    length = 0 if command == CMD_FLUSH else 4096
    payload = bytes(4096) if command == CMD_WRITE else b""
    reply = client.call(command, 0, length, flags, payload).check()
    assert reply.simple == (mode != EXTENDED)
    assert [c.type for c in reply.chunks] == ([nbdwire.REPLY_NONE] if mode == EXTENDED else [])


@by_mode(STRUCTURED, EXTENDED)
@each(NAMED)
def test_errors_in_structured_and_extended_mode_carry_a_sentence(server, mode, command):
    client = connect(server, mode)
    flags = CMD_FLAG_PAYLOAD_LEN if mode == EXTENDED and command == CMD_WRITE else 0
    payload = bytes(512) if command == CMD_WRITE else b""
    reply = client.call(command, 0, 512 if command != CMD_FLUSH else 0, flags | 1 << 14, payload)
    assert reply.error == EINVAL and not reply.simple
    assert len(reply.sentence) > 5 and reply.sentence.isprintable()


@by_mode(STRUCTURED, EXTENDED)
def test_a_structured_read_covers_exactly_what_was_asked(server, mode):
    """The client itself checks each chunk; here it is given many shapes to check."""
    client = server.client("", mode)
    whole = pattern(SIZE)
    for offset, length in ((0, SIZE), (1, SIZE - 1), (4096, 512), (MIB - 1, 2), (777, 3 * MIB)):
        assert client.read(offset, length) == whole[offset : offset + length]


@by_mode()
@pytest.mark.parametrize("cookie", [0, 1, 2**63, 2**64 - 1, 0x0102030405060708])
def test_the_cookie_comes_back_as_it_was(server, mode, cookie):
    client = server.client("", mode)
    client.wait(client.send_request(CMD_READ, 0, 512, cookie=cookie)).check()
    client.wait(client.send_request(CMD_FLUSH, cookie=cookie)).check()
    assert client.wait(client.send_request(CMD_RESIZE, cookie=cookie)).error == EINVAL


# FUA


@by_mode()
@each(NAMED)
def test_fua_is_accepted_on_every_command(server, mode, command):
    if command == CMD_BLOCK_STATUS and mode == SIMPLE:
        pytest.skip("BLOCK_STATUS needs structured replies")
    client = connect(server, mode)
    length = 0 if command == CMD_FLUSH else 4096
    assert send(client, command, 0, length, CMD_FLAG_FUA) == 0


@by_mode()
@each(NAMED)
def test_fua_is_accepted_on_a_read_only_export_too(serve, file_disk, mode, command):
    client = connect(serve(file_disk(SIZE), read_only=True), mode)
    expected = 0
    if command in (CMD_WRITE, CMD_TRIM, CMD_WRITE_ZEROES):
        expected = EPERM
    elif command == CMD_BLOCK_STATUS and mode == SIMPLE:
        expected = EINVAL
    assert send(client, command, 0, 0 if command == CMD_FLUSH else 4096, CMD_FLAG_FUA) == expected


@pytest.fixture
def cached(serve, loop_disk):
    """A server whose writes stay in a cache until a flush, and what lies behind that cache.

    The loop device's page cache is the cache; its backing file is the medium.
    """
    device = loop_disk(SIZE)
    return serve(device, direct="no"), backing_of(device)


def on_medium(backing, offset, length):
    with open(backing, "rb") as file:
        file.seek(offset)
        return file.read(length)


@by_mode()
def test_a_flush_on_one_connection_covers_what_every_connection_got_acknowledged(cached, mode):
    server, backing = cached
    writers = [server.client("", mode) for _ in range(3)]
    flusher = server.client("", mode)
    for round_ in range(4):
        for i, writer in enumerate(writers):
            writer.write(i * MIB + round_ * 4096, pattern(4096, 10 * round_ + i))
        flusher.flush()
        for i in range(len(writers)):
            assert on_medium(backing, i * MIB + round_ * 4096, 4096) \
                == pattern(4096, 10 * round_ + i)


@by_mode()
def test_a_write_with_fua_is_on_the_medium_when_it_is_acknowledged(cached, mode):
    server, backing = cached
    client = server.client("", mode)
    for offset, length in ((0, 4096), (MIB + 1, 1000), (2 * MIB, 3 * MIB + 5)):
        client.write(offset, pattern(length, 3), CMD_FLAG_FUA)
        assert on_medium(backing, offset, length) == pattern(length, 3)


@by_mode()
def test_zeroes_with_fua_are_on_the_medium_when_they_are_acknowledged(cached, mode):
    server, backing = cached
    client = server.client("", mode)
    client.write(0, pattern(MIB), CMD_FLAG_FUA)
    for flags in (0, CMD_FLAG_NO_HOLE):
        client.zero(4096 * (1 + flags), 4096, CMD_FLAG_FUA | flags)
        assert on_medium(backing, 4096 * (1 + flags), 4096) == bytes(4096)


@by_mode()
def test_a_read_with_fua_flushes_first(cached, mode):
    server, backing = cached
    writer, reader = server.client("", mode), server.client("", mode)
    writer.write(MIB, pattern(4096, 5))
    assert reader.read(0, 512, CMD_FLAG_FUA) == bytes(512)
    assert on_medium(backing, MIB, 4096) == pattern(4096, 5)


@by_mode()
def test_a_trim_with_fua_flushes_after(cached, mode):
    server, backing = cached
    client = server.client("", mode)
    client.write(MIB, pattern(4096, 6))
    client.trim(4 * MIB, 4096, CMD_FLAG_FUA)
    assert on_medium(backing, MIB, 4096) == pattern(4096, 6)


# TRIM and CACHE


@by_mode()
@every_disk
def test_trim_and_cache_succeed_everywhere_and_touch_nothing_else(serve, disk, kind, mode):
    client = serve(disk(kind, SIZE, pattern(MIB))).client("", mode)
    for offset, length in ((64 * KIB, 64 * KIB), (128 * KIB + 1, 10_000), (300_000, 1)):
        client.cache(offset, length)
        client.trim(offset, length)
        client.cache(offset, length)
    whole = pattern(MIB)
    assert client.read(0, 64 * KIB) == whole[: 64 * KIB]
    for offset, end in ((128 * KIB, 128 * KIB + 1), (128 * KIB + 10_001, 300_000), (300_001, MIB)):
        assert client.read(offset, end - offset) == whole[offset:end]


@by_mode()
def test_trim_gives_the_space_of_a_file_back(serve, file_disk, mode):
    path = file_disk(SIZE, pattern(SIZE))
    client = serve(path).client("", mode)
    before = path.stat().st_blocks
    client.trim(0, 4 * MIB)
    client.flush()
    assert path.stat().st_blocks <= before - 4 * MIB // 512 + 64
    assert client.read(4 * MIB, MIB) == pattern(5 * MIB)[4 * MIB :]


@by_mode()
def test_a_trim_of_the_whole_disk_is_legal(server, mode):
    client = server.client("", mode)
    client.trim(0, SIZE)
    client.write(0, b"again")
    assert client.read(0, 5) == b"again"


# Past the end


BEYOND = [(SIZE, 1), (SIZE - 1, 2), (SIZE + 512, 512), (0, SIZE + 1), (SIZE - 512, 1024),
          (2**63, 512), (2**64 - 512, 512), (2**64 - 1, 1), (2**64 - 512, 1024)]


@by_mode()
@each(RANGED)
def test_past_the_end_is_enospc_for_write_and_write_zeroes_and_einval_for_others(
        server, mode, command):
    client = connect(server, mode)
    expected = ENOSPC if command in (CMD_WRITE, CMD_WRITE_ZEROES) else EINVAL
    for offset, length in BEYOND:
        assert send(client, command, offset, length) == expected, (offset, length)
    assert alive(client)
    assert client.read(SIZE - 512, 512) == pattern(SIZE)[-512:]


@by_mode()
@each(RANGED)
def test_past_the_end_is_an_error_even_for_zero_length(server, mode, command):
    client = connect(server, mode)
    expected = ENOSPC if command in (CMD_WRITE, CMD_WRITE_ZEROES) else EINVAL
    assert send(client, command, SIZE + 1, 0) == expected
    assert alive(client)


@by_mode()
def test_what_was_rounded_off_a_file_is_past_the_end(serve, file_disk, mode):
    path = file_disk(4096 + 100, pattern(4096 + 100))
    client = serve(path).client("", mode)
    assert client.size == 4096
    assert client.read(3584, 512) == pattern(4096)[3584:]
    assert client.error(CMD_READ, 4096, 1) == EINVAL
    assert client.write_error(4000, bytes(97)) == ENOSPC
    assert path.read_bytes() == pattern(4096 + 100)


# Read-only


@by_mode()
@each(MODIFYING)
def test_changing_a_read_only_export_is_eperm(serve, file_disk, mode, command):
    path = file_disk(SIZE, pattern(SIZE))
    client = connect(serve(path, read_only=True), mode)
    for offset, length in ((0, 512), (1, 1000), (0, 0), (MIB, MIB)):
        assert send(client, command, offset, length) == EPERM
    assert alive(client)
    assert path.read_bytes() == pattern(SIZE)


@by_mode()
def test_a_read_only_export_is_read_and_flushed_like_any_other(serve, file_disk, mode):
    client = connect(serve(file_disk(SIZE, pattern(SIZE)), read_only=True), mode)
    assert client.read(0, SIZE) == pattern(SIZE)
    client.flush()
    client.cache(0, SIZE)
    if mode != SIMPLE:
        assert client.status(0, SIZE).keys() == {BASE_ALLOCATION}


# The order of checks


@by_mode()
@each(MODIFYING)
def test_read_only_is_checked_before_the_range_and_the_flags(serve, file_disk, mode, command):
    client = connect(serve(file_disk(SIZE, pattern(512)), read_only=True), mode)
    assert send(client, command, SIZE, 512) == EPERM
    assert send(client, command, 0, 512, 1 << 14) == EPERM
    assert alive(client)


@by_mode()
@each(["WRITE", "WRITE_ZEROES"])
def test_the_range_is_checked_before_the_flags(server, mode, command):
    client = connect(server, mode)
    assert send(client, command, SIZE, 512, 1 << 14) == ENOSPC
    assert alive(client)


@by_mode()
def test_the_length_is_checked_before_read_only_and_the_range(serve, file_disk, mode):
    client = connect(serve(file_disk(SIZE, pattern(512)), read_only=True), mode)
    flags = CMD_FLAG_PAYLOAD_LEN if mode == EXTENDED else 0
    cookie = client.send_request(CMD_WRITE, SIZE, MAX_PAYLOAD + 1, flags)
    assert client.wait(cookie).error == EINVAL
    assert client.closed()


@by_mode()
def test_the_payload_is_consumed_before_any_check_fails(serve, file_disk, mode):
    client = connect(serve(file_disk(SIZE, pattern(SIZE)), read_only=True), mode)
    for offset, flags in ((0, 0), (SIZE, 0), (0, 1 << 14), (2**63, 1 << 14)):
        assert send(client, CMD_WRITE, offset, 3 * MIB + 1, flags) == EPERM
        assert alive(client)


# Too long


@by_mode()
@each(["READ", "CACHE"])
def test_a_read_or_cache_above_32_mib_is_einval_and_the_connection_lives(
        serve, tmpfs_disk, mode, command):
    client = serve(tmpfs_disk(8 << 30)).client("", mode)
    for length in (MAX_PAYLOAD + 1, 64 * MIB, 2**31, 2**32 - 1):
        assert client.error(command, 0, length) == EINVAL, length
    assert client.read(0, 512) == bytes(512)


@each(["READ", "CACHE"])
def test_an_extended_read_or_cache_beyond_4_gib_is_einval_and_the_connection_lives(
        serve, tmpfs_disk, command):
    client = serve(tmpfs_disk(8 << 30)).client("", EXTENDED)
    for length in (2**32, 2**32 + 512, 2**63, 2**64 - 1):
        assert client.error(command, 0, length) == EINVAL, length
    assert client.read(0, 512) == bytes(512)


@by_mode()
@pytest.mark.parametrize("length", [MAX_PAYLOAD + 1, 2**32 - 1])
def test_a_write_above_32_mib_is_einval_and_closes_because_its_payload_follows(
        serve, tmpfs_disk, mode, length):
    server = serve(tmpfs_disk(8 << 30))
    client = server.client("", mode)
    flags = CMD_FLAG_PAYLOAD_LEN if mode == EXTENDED else 0
    cookie = client.send_request(CMD_WRITE, 0, length, flags)
    assert client.wait(cookie).error == EINVAL
    assert client.closed()
    assert server.client("", mode).read(0, 512) == bytes(512)


@pytest.mark.parametrize("flags", [0, CMD_FLAG_PAYLOAD_LEN], ids=["bare", "payload-len"])
def test_an_extended_write_beyond_4_gib_is_einval_and_closes(serve, tmpfs_disk, flags):
    client = serve(tmpfs_disk(8 << 30)).client("", EXTENDED)
    cookie = client.send_request(CMD_WRITE, 0, 2**63, flags)
    assert client.wait(cookie).error == EINVAL
    assert client.closed()


@by_mode()
def test_requests_before_a_fatal_one_are_answered(server, mode):
    client = server.client("", mode)
    cookies = [client.send_read(i * 4096, 4096) for i in range(16)]
    flags = CMD_FLAG_PAYLOAD_LEN if mode == EXTENDED else 0
    cookies.append(client.send_request(CMD_WRITE, 0, MAX_PAYLOAD + 1, flags))
    replies = {cookie: client.wait(cookie) for cookie in cookies}
    assert all(replies[cookie].error == 0 for cookie in cookies[:-1])
    assert replies[cookies[-1]].error == EINVAL
    assert client.closed()


# PAYLOAD_LEN


def test_an_extended_write_without_payload_len_is_accepted(server):
    client = server.client("", EXTENDED)
    client.call(CMD_WRITE, 4096, 512, 0, pattern(512, 9)).check()
    assert client.read(4096, 512) == pattern(512, 9)


@each([name for name in NAMED if name not in ("WRITE", "BLOCK_STATUS")])
def test_payload_len_on_another_command_is_drained_up_to_32_mib_then_einval(server, command):
    client = server.client("", EXTENDED)
    for length in (0, 1, 8, 512, 70_000, MAX_PAYLOAD):
        error = client.error(command, 0, length, CMD_FLAG_PAYLOAD_LEN, bytes(length))
        assert error == EINVAL, length
        assert alive(client)


@each([name for name in NAMED if name != "WRITE"])
def test_payload_len_above_32_mib_is_einval_and_closes(server, command):
    client = connect(server, EXTENDED)
    cookie = client.send_request(command, 0, MAX_PAYLOAD + 1, CMD_FLAG_PAYLOAD_LEN)
    assert client.wait(cookie).error == EINVAL
    assert client.closed()


def test_payload_len_on_an_unknown_command_is_drained_and_einval(server):
    client = server.client("", EXTENDED)
    assert client.error(99, 0, 1000, CMD_FLAG_PAYLOAD_LEN, bytes(1000)) == EINVAL
    assert alive(client)


@by_mode(SIMPLE, STRUCTURED)
@each(["READ", "FLUSH", "TRIM", "CACHE", "WRITE_ZEROES"])
def test_payload_len_is_an_unknown_flag_outside_of_extended_mode(server, mode, command):
    client = server.client("", mode)
    length = 0 if command == CMD_FLUSH else 512
    assert client.error(command, 0, length, CMD_FLAG_PAYLOAD_LEN) == EINVAL
    assert client.error(CMD_WRITE, 0, 512, CMD_FLAG_PAYLOAD_LEN, bytes(512)) == EINVAL
    assert alive(client)


# Unknown commands and flags


@by_mode()
@pytest.mark.parametrize("command", [CMD_RESIZE, 9, 77, 0x7FFF, 0xFFFF])
def test_an_unknown_command_is_einval_and_the_connection_lives(server, mode, command):
    client = server.client("", mode)
    for offset, length in ((0, 0), (0, 512), (2**64 - 1, 2**32 - 1)):
        for flags in (0, CMD_FLAG_FUA, 1 << 14):
            assert client.error(command, offset, length, flags) == EINVAL
    assert alive(client)


KNOWN_FLAGS = {
    CMD_READ: CMD_FLAG_FUA | CMD_FLAG_DF,
    CMD_WRITE: CMD_FLAG_FUA | CMD_FLAG_PAYLOAD_LEN,
    CMD_FLUSH: CMD_FLAG_FUA,
    CMD_TRIM: CMD_FLAG_FUA,
    CMD_CACHE: CMD_FLAG_FUA,
    CMD_WRITE_ZEROES: CMD_FLAG_FUA | CMD_FLAG_NO_HOLE | CMD_FLAG_FAST_ZERO,
    CMD_BLOCK_STATUS: CMD_FLAG_FUA | CMD_FLAG_REQ_ONE | CMD_FLAG_PAYLOAD_LEN,
}


@by_mode()
@each(NAMED)
def test_a_flag_that_does_not_belong_to_the_command_is_einval_and_the_connection_lives(
        server, mode, command):
    client = connect(server, mode)
    for bit in range(16):
        if KNOWN_FLAGS[command] & 1 << bit or (1 << bit == CMD_FLAG_PAYLOAD_LEN):
            continue
        length = 0 if command == CMD_FLUSH else 512
        assert send(client, command, 0, length, 1 << bit) == EINVAL, f"bit {bit}"
    assert alive(client)


def test_df_is_an_unknown_flag_in_simple_mode(server):
    client = server.client("", SIMPLE)
    assert client.error(CMD_READ, 0, 512, CMD_FLAG_DF) == EINVAL
    assert alive(client)


@by_mode()
def test_a_write_with_an_unknown_flag_changes_nothing(server, mode):
    client = server.client("", mode)
    flags = 1 << 13 | (CMD_FLAG_PAYLOAD_LEN if mode == EXTENDED else 0)
    assert client.error(CMD_WRITE, 0, 512, flags, bytes(512)) == EINVAL
    assert alive(client)


# The end of a connection


@by_mode()
@pytest.mark.parametrize("magic", [0, 0x25609514, 0x12560953, nbdwire.SIMPLE_REPLY_MAGIC])
def test_a_bad_request_magic_ends_the_connection(server, mode, magic):
    client = server.client("", mode)
    client.send(request_header(mode, CMD_READ, 0, 512, magic=magic))
    assert client.closed()
    assert alive(server.client("", mode))


@by_mode()
def test_the_magic_of_another_mode_ends_the_connection(server, mode):
    client = server.client("", mode)
    other = SIMPLE if mode == EXTENDED else EXTENDED
    client.send(request_header(other, CMD_READ, 0, 512), bytes(4))
    assert client.closed()


@by_mode()
def test_requests_before_a_bad_magic_are_answered(server, mode):
    client = server.client("", mode)
    cookies = [client.send_read(i * 4096, 4096) for i in range(16)]
    client.send(request_header(mode, CMD_READ, magic=0))
    for cookie in cookies:
        client.wait(cookie).check()
    assert client.closed()


@by_mode()
@pytest.mark.parametrize("offset, length, flags", [(0, 0, 0), (2**64 - 1, 2**32 - 1, 0xFFFF)],
                         ids=["plain", "garbled"])
def test_disc_closes_without_a_reply(server, mode, offset, length, flags):
    client = server.client("", mode)
    client.send(request_header(mode, CMD_DISC, offset, length, flags, cookie=1))
    assert client.closed()
    assert alive(server.client("", mode))


@by_mode()
def test_disc_lets_everything_before_it_finish(server, mode):
    client = server.client("", mode)
    for i in range(64):
        client.send_write(i * 4096, pattern(4096, i + 2))
    client.send(request_header(mode, CMD_DISC))
    for reply in client.wait_all():
        reply.check()
    assert client.closed()
    other = server.client("", mode)
    assert other.read(0, 64 * 4096) == b"".join(pattern(4096, i + 2) for i in range(64))


@by_mode()
def test_a_client_that_hangs_up_within_a_request_costs_nobody_else(server, mode):
    whole = request_header(mode, CMD_WRITE, 0, 512,
                           CMD_FLAG_PAYLOAD_LEN if mode == EXTENDED else 0) + bytes(512)
    for length in (1, 4, 16, 27, 28, 31, 32, 33, 100, len(whole) - 1):
        client = server.client("", mode)
        client.send(whole[:length])
        client.close()
    assert alive(server.client("", mode))


# Many at once


@by_mode()
def test_at_least_128_requests_may_be_in_flight(serve, file_disk, mode, counts):
    """Every one is sent before any reply is read, and the server takes them all."""
    client = serve(file_disk(SIZE, pattern(SIZE))).client("", mode)
    whole = pattern(SIZE)
    for round_ in range(counts(5, 200)):
        n = 128
        reads = {client.send_read((i * 37 + round_) % 2000 * 4096, 512): i for i in range(n)}
        for cookie, i in reads.items():
            at = (i * 37 + round_) % 2000 * 4096
            assert client.wait(cookie).check().data == whole[at : at + 512]


@by_mode()
def test_128_requests_that_wait_for_the_disk_hold_up_neither_the_next_nor_other_clients(
        serve, freezable, cleanup, mode):
    """While a file system is frozen, writes to it stay in flight; a read overtakes them."""
    path = fill(freezable / "disk", SIZE, pattern(SIZE))
    run("sync", "--file-system", freezable)
    server = serve(path, engine="io_uring")     # a pool of 16 threads has no thread left then
    client, other = server.client("", mode), server.client("", mode)
    thaw = freeze(cleanup, freezable)
    writes = [client.send_write(i * 4096, pattern(4096, i + 2)) for i in range(127)]
    read = client.send_read(4 * MIB, 4096)
    assert client.wait(read).check().data == pattern(4 * MIB + 4096)[4 * MIB :]
    assert len(client.pending) == 127, "a write was acknowledged by a frozen file system"
    assert other.read(5 * MIB, 4096) == pattern(5 * MIB + 4096)[5 * MIB :]
    thaw.now()
    for cookie in writes:
        client.wait(cookie).check()
    assert other.read(0, 127 * 4096) == b"".join(pattern(4096, i + 2) for i in range(127))


@by_mode()
@every_disk
def test_replies_come_in_any_order_and_each_has_its_own_data(serve, disk, kind, mode, counts):
    client = serve(disk(kind, SIZE, pattern(SIZE))).client("", mode)
    whole = pattern(SIZE)
    asked = {}
    for i in range(counts(200, 5000)):
        length = (i % 7 + 1) * (4096 if i % 3 else 999)
        offset = i * 7919 * 512 % (SIZE - length)
        cookie = client.send_read(offset, length)
        asked[cookie] = whole[offset : offset + length]
        if len(client.pending) >= 100:
            reply = client.wait_any()
            assert reply.check().data == asked.pop(reply.request.cookie)
    for reply in client.wait_all():
        assert reply.check().data == asked.pop(reply.request.cookie)
    assert not asked


@by_mode()
def test_writes_and_reads_on_several_connections_keep_apart(serve, file_disk, mode, counts):
    server = serve(file_disk(SIZE))
    clients = [server.client("", mode) for _ in range(8)]
    for round_ in range(counts(10, 300)):
        for i, client in enumerate(clients):
            for j in range(4):
                client.send_write(i * MIB + j * 5000, pattern(5000, round_ * 50 + i * 4 + j))
        for client in clients:
            for reply in client.wait_all():
                reply.check()
        for i, client in enumerate(clients):
            reader = clients[(i + 1) % 8]
            got = reader.read(i * MIB, 20_000)
            assert got == b"".join(pattern(5000, round_ * 50 + i * 4 + j) for j in range(4))
    for client in clients:
        assert client.disconnect()


@by_mode()
def test_requests_may_arrive_byte_by_byte(server, mode):
    client = server.client("", mode)
    flags = CMD_FLAG_PAYLOAD_LEN if mode == EXTENDED else 0
    stream = request_header(mode, CMD_WRITE, 1000, 5, flags, cookie=1) + b"slow!"
    client.pending[1] = nbdwire.Reply(nbdwire.Request(CMD_WRITE, 1000, 5, flags, 1, 5))
    for i in range(len(stream)):
        client.send(stream[i : i + 1])
    client.wait(1).check()
    assert client.read(1000, 5) == b"slow!"


@by_mode()
def test_a_client_that_reads_its_replies_late_gets_them_all(serve, file_disk, mode):
    whole = pattern(SIZE)
    server = serve(file_disk(SIZE, whole))
    late = server.client("", mode)
    for i in range(64):
        late.send_read(i * 64 * KIB, MIB)
    prompt = server.client("", mode)
    for i in range(20):
        assert prompt.read(i * 4096, 4096) == whole[i * 4096 : (i + 1) * 4096]
    for reply in late.wait_all():
        at = reply.request.offset
        assert reply.check().data == whole[at : at + MIB]


# What the disk answers


@by_mode()
def test_a_full_file_system_is_enospc_and_the_connection_lives(serve, mounted, mode):
    path = fill(mounted("tmpfs", size=MIB) / "disk", 8 * MIB)
    client = serve(path).client("", mode)
    assert client.write_error(0, pattern(4 * MIB)) == ENOSPC
    assert client.read(6 * MIB, 512) == bytes(512)
    client.trim(0, 8 * MIB)
    client.write(0, b"room again")
    assert client.read(0, 10) == b"room again"


@by_mode()
def test_a_write_above_the_limit_of_a_files_size_is_enospc(serve, file_disk, mode):
    """EFBIG, from RLIMIT_FSIZE; its signal must not end the export either."""
    needs_root()
    server = serve(file_disk(SIZE, pattern(512)))
    (pid,) = server.pids("nbd-export")
    client = server.client("", mode)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (MIB, resource.RLIM_INFINITY))
    assert client.write_error(4 * MIB, bytes(4096)) == ENOSPC
    assert client.write_error(4 * MIB + 1, bytes(100)) == ENOSPC
    client.write(4096, bytes(4096))
    assert alive(client)


# Sharing a sector


def sector_writers(client, first, step, rounds, width, size):
    """Writes its own slots, each `width` bytes and every `step`-th, again and again."""
    for round_ in range(rounds):
        for slot in range(first, size // width, step):
            client.send_write(slot * width, slot_content(round_, slot, width))
        for reply in client.wait_all():
            reply.check()


def slot_content(round_, slot, width):
    return (struct.pack(">HI", round_, slot) * (width // 6 + 1))[:width]


@every_disk
@by_mode(SIMPLE, EXTENDED)
@pytest.mark.parametrize("width", [100, 1000])
def test_concurrent_unaligned_writes_that_share_a_sector_lose_no_update(
        serve, disk, kind, mode, width, counts):
    """Neighbours in one sector belong to different connections, which write at once."""
    n, rounds, size = 4, counts(3, 60), 64_000
    server = serve(disk(kind, MIB))
    threads = [threading.Thread(target=sector_writers, args=(
        server.client("", mode), i, n, rounds, width, size)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(nbdwire.PATIENCE * 3)
        assert not thread.is_alive()
    client = server.client("", mode)
    got = client.read(0, size // width * width)
    for slot in range(size // width):
        assert got[slot * width : (slot + 1) * width] == slot_content(rounds - 1, slot, width), slot


@by_mode()
@pytest.mark.parametrize("sector", [512, 4096])
def test_unaligned_writes_zeroes_and_trims_in_one_sector_lose_no_update(
        serve, loop_disk, mode, sector, counts):
    server = serve(loop_disk(MIB, sector))
    writer, zeroer, trimmer = (server.client("", mode) for _ in range(3))
    third = sector // 4
    for round_ in range(counts(40, 2000)):
        data = pattern(third, round_)
        writer.send_write(sector + 1, data)
        zeroer.send_request(CMD_WRITE_ZEROES, sector + 1 + third, third)
        trimmer.send_request(CMD_TRIM, sector + 1 + 2 * third, third - 1)
        writer.send_write(2 * sector - 1, b"edge")
        for client in (writer, zeroer, trimmer):
            for reply in client.wait_all():
                reply.check()
        assert writer.read(sector + 1, 2 * third) == data + bytes(third)
        assert writer.read(2 * sector - 1, 4) == b"edge"


@by_mode()
def test_an_unaligned_write_in_flight_with_an_aligned_one_around_it_leaves_one_of_both(
        serve, loop_disk, mode, counts):
    """Where two writes overlap either may win, but what only one wrote must be there."""
    server = serve(loop_disk(MIB, 4096))
    one, two = server.client("", mode), server.client("", mode)
    for round_ in range(counts(40, 2000)):
        one.send_write(4096, pattern(8192, 2 * round_))
        two.send_write(4096 + 5000, pattern(7000, 2 * round_ + 1))
        one.wait_all()[0].check()
        two.wait_all()[0].check()
        got = one.read(4096, 12_000)
        assert got[:4096] == pattern(8192, 2 * round_)[:4096]
        assert got[8192:] == pattern(7000, 2 * round_ + 1)[8192 - 5000 :][: 12_000 - 8192]


def test_the_true_minimum_is_only_a_hint(serve, file_disk):
    """A file's unaligned ends go the same way as a device's."""
    path = file_disk(4096 * 3)
    assert true_minimum(path) != 0
    client = serve(path).client("", SIMPLE)
    for offset in range(4090, 4102):
        client.write(offset, bytes([offset & 0xFF]))
    assert client.read(4090, 12) == bytes(offset & 0xFF for offset in range(4090, 4102))
