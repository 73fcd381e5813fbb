# SPDX-License-Identifier: GPL-2.0-or-later
"""Option haggling: LIST, INFO, GO, the modes, names, and everything malformed."""

import pytest

import nbdwire
from conftest import MIB, backing_of, by_mode, sysfs, true_minimum, wait_until
from nbdwire import (BLOCK_STAT_PAYLOAD, CAN_MULTI_CONN, EXTENDED, HAS_FLAGS, INFO_BLOCK_SIZE,
                     INFO_DESCRIPTION, INFO_EXPORT, INFO_NAME, OPT_EXTENDED_HEADERS, OPT_GO,
                     OPT_INFO, OPT_LIST, OPT_LIST_META_CONTEXT, OPT_PEEK_EXPORT,
                     OPT_SET_META_CONTEXT, OPT_STARTTLS, OPT_STRUCTURED_REPLY, READ_ONLY, REP_ACK,
                     REP_ERR_BLOCK_SIZE_REQD, REP_ERR_EXT_HEADER_REQD, REP_ERR_INVALID,
                     REP_ERR_POLICY, REP_ERR_UNKNOWN, REP_ERR_UNSUP, REP_INFO, SEND_CACHE, SEND_DF,
                     SEND_FAST_ZERO, SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_WRITE_ZEROES, SIMPLE,
                     STRUCTURED, Client, OptionError, go_payload, meta_payload, parse_info, string,
                     u16, u32)

UNKNOWN_OPTION = 0x6E6F7065
both = pytest.mark.parametrize("option", [OPT_INFO, OPT_GO], ids=["INFO", "GO"])


@pytest.fixture
def server(serve, file_disk):
    return serve(f"db={file_disk(MIB)}", description="one mebibyte")


@pytest.fixture
def options(server):
    return server.options()


# LIST


def test_list_tells_name_and_description_of_every_export(serve, file_disk):
    one, two = file_disk(MIB, name="one"), file_disk(MIB, name="two")
    server = serve(one, f"zwei={two}", description="a disk")
    assert sorted(server.options().list()) == [(b"one", b"a disk"), (b"zwei", b"a disk")]


def test_list_of_an_export_without_description_tells_the_name_alone(serve, file_disk):
    server = serve(file_disk(MIB, name="plain"))
    assert server.options().list() == [(b"plain", b"")]


def test_list_may_be_asked_again_and_before_anything_else(options):
    assert options.list() == options.list() == [(b"db", b"one mebibyte")]
    assert options.go("db").size == MIB


# What INFO and GO tell


@both
def test_the_name_is_told_only_if_asked(server, option):
    assert parse_info(server.options().option(option, go_payload("db"))).name is None
    asked = server.options().must(option, go_payload("db", [INFO_NAME, INFO_BLOCK_SIZE]))
    assert parse_info(asked).name == b"db"


@both
@pytest.mark.parametrize("infos", [[], [INFO_DESCRIPTION], [INFO_BLOCK_SIZE]],
                         ids=["unasked", "asked", "others-asked"])
def test_the_description_is_told_asked_or_not(server, option, infos):
    replies = server.options().option(option, go_payload("db", infos))
    assert parse_info(replies).description == b"one mebibyte"


@both
def test_no_description_is_told_where_there_is_none(serve, file_disk, option):
    options = serve(f"db={file_disk(MIB)}").options()
    told = parse_info(options.option(option, go_payload("db", [INFO_DESCRIPTION, INFO_BLOCK_SIZE])))
    assert told.size == MIB and told.description is None


@both
@pytest.mark.parametrize("infos", [[], [INFO_EXPORT], [INFO_NAME]])
def test_size_and_flags_are_told_always(server, option, infos):
    told = parse_info(server.options().option(option, go_payload("db", infos)))
    assert told.size == MIB and told.flags & HAS_FLAGS


@both
def test_unknown_information_types_are_ignored(server, option):
    infos = [4, 99, INFO_BLOCK_SIZE, 0x8000, 0xFFFF]
    told = parse_info(server.options().must(option, go_payload("db", infos)))
    assert told.size == MIB and told.name is None


@both
def test_an_information_type_that_is_asked_twice_is_told_once(server, option):
    infos = [INFO_NAME, INFO_BLOCK_SIZE, INFO_NAME, INFO_BLOCK_SIZE]
    told = parse_info(server.options().must(option, go_payload("db", infos)))
    assert told.name == b"db" and told.block_size


@both
def test_65535_information_requests_are_answered(server, option):
    payload = string("db") + u16(0xFFFF) + u16(INFO_BLOCK_SIZE) * 0xFFFF
    assert parse_info(server.options().must(option, payload)).size == MIB


@both
def test_the_empty_name_is_told_as_it_was_asked(server, option):
    infos = [INFO_NAME, INFO_BLOCK_SIZE]
    told = parse_info(server.options().must(option, go_payload("", infos)))
    assert told.size == MIB and told.name in (b"", b"db")


def test_info_changes_nothing_and_go_follows(options):
    first = options.info("db", [INFO_BLOCK_SIZE])
    second = options.info("db", [INFO_BLOCK_SIZE])
    assert first == second == options.go("db", [INFO_BLOCK_SIZE])


@pytest.mark.parametrize("zeroes", [True, False], ids=["zeroes", "no-zeroes"])
def test_no_zero_bytes_follow_the_ack_of_go(server, zeroes):
    flags = nbdwire.FLAG_FIXED_NEWSTYLE | (0 if zeroes else nbdwire.FLAG_NO_ZEROES)
    with Client(server.socket, "db", SIMPLE, flags=flags) as client:
        assert client.read(0, 512) == bytes(512)


# Block sizes


def assert_sane(told):
    assert told.minimum & (told.minimum - 1) == 0 and 1 <= told.minimum <= 65536
    assert told.preferred & (told.preferred - 1) == 0
    assert told.preferred >= max(4096, told.minimum)
    assert told.maximum == 32 * MIB


@pytest.mark.parametrize("sector", [512, 4096])
def test_the_minimum_of_a_block_device_is_its_logical_block(serve, loop_disk, sector):
    device = loop_disk(MIB, sector)
    told = serve(device).options().info("", [INFO_BLOCK_SIZE])
    assert_sane(told)
    assert told.minimum == sector == int(sysfs(device, "queue/logical_block_size"))


def test_the_minimum_of_a_zram_disk_is_its_logical_block(serve, zram_disk):
    device = zram_disk(MIB)
    told = serve(device).options().info("", [INFO_BLOCK_SIZE])
    assert_sane(told)
    assert told.minimum == int(sysfs(device, "queue/logical_block_size"))


def test_the_minimum_of_a_file_is_the_alignment_of_direct_io(serve, file_disk):
    path = file_disk(MIB)
    told = serve(path).options().info("", [INFO_BLOCK_SIZE])
    assert_sane(told)
    expected = true_minimum(path)
    if expected is None:
        assert told.minimum in (512, 4096)
    else:
        assert told.minimum == expected


def test_the_minimum_of_a_file_on_4096_byte_sectors_is_4096(serve, loop_disk, mounted):
    device = loop_disk(64 * MIB, 4096)
    path = mounted("ext4", device=device) / "disk"
    path.write_bytes(bytes(MIB))
    told = serve(path).options().info("", [INFO_BLOCK_SIZE])
    assert told.minimum == 4096


def test_the_minimum_of_a_file_with_direct_no_is_1(serve, file_disk):
    told = serve(file_disk(MIB), direct="no").options().info("", [INFO_BLOCK_SIZE])
    assert_sane(told)
    assert told.minimum == 1


@pytest.mark.parametrize("kind", ["file", "loop512", "loop4096", "zram", "ramfs"])
def test_preferred_is_at_least_4096_and_maximum_32_mib(serve, disk, kind):
    assert_sane(serve(disk(kind, MIB)).options().go("", [INFO_BLOCK_SIZE]))


def test_preferred_is_at_least_the_optimal_size_that_the_kernel_tells(serve, loop_disk):
    device = loop_disk(MIB, 4096)
    told = serve(device).options().go("", [INFO_BLOCK_SIZE])
    physical = int(sysfs(device, "queue/physical_block_size"))
    optimal = int(sysfs(device, "queue/optimal_io_size"))
    assert told.preferred >= physical
    if optimal & (optimal - 1) == 0:
        assert told.preferred >= min(optimal, 32 * MIB)


def test_go_tells_the_minimum_1_unless_asked_for_block_sizes(serve, loop_disk):
    server = serve(loop_disk(MIB, 4096))
    unasked = server.options().go("", [])
    assert_sane(unasked)
    assert unasked.minimum == 1
    assert server.options().go("", [INFO_BLOCK_SIZE]).minimum == 4096


def test_info_tells_the_true_minimum_asked_or_not(serve, loop_disk):
    options = serve(loop_disk(MIB, 4096)).options()
    replies = options.option(OPT_INFO, go_payload(""))
    assert parse_info(replies).minimum == 4096


def test_info_that_does_not_ask_for_block_sizes_gets_its_infos_then_block_size_reqd(
        serve, loop_disk):
    options = serve(f"db={loop_disk(MIB, 512)}", description="sectors").options()
    replies = options.option(OPT_INFO, go_payload("db", [INFO_NAME]))
    assert [r.type for r in replies[:-1]] == [REP_INFO] * (len(replies) - 1)
    told = parse_info(replies)
    assert (told.size, told.name, told.description) == (MIB, b"db", b"sectors")
    assert told.minimum == 512
    assert replies[-1].type == REP_ERR_BLOCK_SIZE_REQD and replies[-1].text
    assert options.info("db", [INFO_BLOCK_SIZE]).minimum == 512


def test_info_that_does_not_ask_for_block_sizes_succeeds_where_the_minimum_is_1(serve, file_disk):
    told = serve(file_disk(MIB), direct="no").options().info("", [])
    assert told.minimum == 1


def test_go_that_does_not_ask_for_block_sizes_is_tolerated(serve, loop_disk):
    server = serve(loop_disk(MIB, 4096))
    with Client(server.socket, mode=SIMPLE, infos=()) as client:
        client.write(1, b"unaligned")
        assert client.read(0, 11) == b"\0unaligned\0"


# Flags


WRITABLE = SEND_TRIM | SEND_WRITE_ZEROES | SEND_FAST_ZERO
ALWAYS = HAS_FLAGS | SEND_FLUSH | SEND_FUA | SEND_CACHE


@by_mode()
def test_a_writable_export_offers_everything(server, mode):
    flags = server.client("db", mode).flags
    assert flags & (ALWAYS | WRITABLE) == ALWAYS | WRITABLE
    assert flags & CAN_MULTI_CONN
    assert not flags & READ_ONLY


@by_mode()
def test_a_read_only_export_offers_neither_trim_nor_zeroes(serve, file_disk, mode):
    flags = serve(file_disk(MIB), read_only=True).client("", mode).flags
    assert flags & (ALWAYS | READ_ONLY | CAN_MULTI_CONN) == ALWAYS | READ_ONLY | CAN_MULTI_CONN
    assert not flags & WRITABLE


@both
@by_mode()
def test_df_is_offered_in_structured_and_extended_mode_only(server, option, mode):
    options = server.options()
    options.enter_mode(mode)
    told = parse_info(options.option(option, go_payload("db")))
    assert bool(told.flags & SEND_DF) == (mode != SIMPLE)


def test_multi_conn_is_not_offered_where_only_one_connection_is_allowed(serve, file_disk):
    options = serve(file_disk(MIB), max_connections=1).options()
    assert not options.info("", [INFO_BLOCK_SIZE]).flags & CAN_MULTI_CONN


def test_block_status_payload_is_offered_by_go_only_in_extended_mode_with_contexts(server):
    def flags(mode, contexts):
        return server.client("db", mode, contexts=contexts).flags & BLOCK_STAT_PAYLOAD

    assert flags(EXTENDED, ["base:allocation"])
    assert not flags(EXTENDED, [])
    assert not flags(STRUCTURED, ["base:allocation"])
    assert not flags(SIMPLE, [])


@by_mode()
def test_block_status_payload_is_offered_by_info_in_extended_mode_even_without_contexts(
        server, mode):
    options = server.options()
    options.enter_mode(mode)
    told = options.info("db", [INFO_BLOCK_SIZE])
    assert bool(told.flags & BLOCK_STAT_PAYLOAD) == (mode == EXTENDED)


@pytest.mark.parametrize("size", [512, 513, 1023, 1024, 3 * 512 + 1, MIB - 1])
def test_the_size_rounds_down_to_512(serve, file_disk, size):
    server = serve(file_disk(size))
    assert server.options().info("", [INFO_BLOCK_SIZE]).size == size // 512 * 512
    assert server.options().export_name("")[0] == size // 512 * 512


# The modes


def test_structured_replies_are_acknowledged_once(options):
    assert options.result(OPT_STRUCTURED_REPLY) == REP_ACK
    again = options.option(OPT_STRUCTURED_REPLY)[-1]
    assert again.type == REP_ERR_INVALID and again.text
    assert options.go("db").flags & SEND_DF


def test_extended_headers_are_acknowledged_once(options):
    assert options.result(OPT_EXTENDED_HEADERS) == REP_ACK
    again = options.option(OPT_EXTENDED_HEADERS)[-1]
    assert again.type == REP_ERR_INVALID and again.text
    assert options.go("db").flags & SEND_DF


def test_structured_replies_after_extended_headers_are_ext_header_reqd(server):
    options = server.options()
    options.extended_headers()
    refusal = options.option(OPT_STRUCTURED_REPLY)[-1]
    assert refusal.type == REP_ERR_EXT_HEADER_REQD and refusal.text
    options.go("db")
    assert Client.over(options, EXTENDED).read(0, 512) == bytes(512)


def test_extended_headers_may_follow_structured_replies(server):
    options = server.options()
    options.structured_reply()
    options.extended_headers()
    options.go("db")
    assert Client.over(options, EXTENDED).read(0, 512) == bytes(512)


def test_extended_headers_need_no_structured_replies_before(server):
    options = server.options()
    options.extended_headers()
    assert options.set_contexts("db", ["base:allocation"]) == {"base:allocation": 0}
    assert options.go("db").flags & BLOCK_STAT_PAYLOAD


@pytest.mark.parametrize("option", [OPT_STRUCTURED_REPLY, OPT_EXTENDED_HEADERS, OPT_LIST])
def test_an_option_that_takes_no_data_refuses_data_and_does_nothing(server, option):
    options = server.options()
    refusal = options.option(option, b"data")[-1]
    assert refusal.type == REP_ERR_INVALID and refusal.text
    told = options.go("db")
    assert not told.flags & SEND_DF
    assert Client.over(options, SIMPLE).read(0, 512) == bytes(512)


# Unknown and withdrawn options


@pytest.mark.parametrize("option", [0, OPT_PEEK_EXPORT, 12, UNKNOWN_OPTION, 0xFFFFFFFF])
@pytest.mark.parametrize("payload", [b"", b"x", bytes(70_000)], ids=["bare", "one-byte", "70000"])
def test_an_unknown_option_is_unsupported_and_its_payload_skipped(options, option, payload):
    refusal = options.option(option, payload)[-1]
    assert refusal.type == REP_ERR_UNSUP and refusal.text
    assert options.list() == [(b"db", b"one mebibyte")]


def test_starttls_is_against_policy_where_tls_is_off(options):
    refusal = options.option(OPT_STARTTLS)[-1]
    assert refusal.type == REP_ERR_POLICY and refusal.text
    assert options.go("db").size == MIB


# Names


NAME_OPTIONS = {
    "INFO": (OPT_INFO, lambda name: go_payload(name, [INFO_BLOCK_SIZE])),
    "GO": (OPT_GO, lambda name: go_payload(name, [INFO_BLOCK_SIZE])),
    "LIST_META_CONTEXT": (OPT_LIST_META_CONTEXT, lambda name: meta_payload(name, [])),
    "SET_META_CONTEXT": (OPT_SET_META_CONTEXT, lambda name: meta_payload(name, [])),
}
every_named = pytest.mark.parametrize("which", NAME_OPTIONS)


def ask(options, which, name):
    option, payload = NAME_OPTIONS[which]
    return options.option(option, payload(name))[-1]


@every_named
def test_an_unknown_export_is_err_unknown_with_its_name(server, which):
    options = server.options()
    options.structured_reply()
    refusal = ask(options, which, "nowhere")
    assert refusal.type == REP_ERR_UNKNOWN
    assert "nowhere" in refusal.text
    assert options.go("db").size == MIB


HOSTILE_NAMES = {
    "escape": b"\x1b[2J\x07\r\n\x7f",
    "latin-1": b"caf\xe9 \xff\xfe",
    "surrogate": b"\xed\xa0\x80",
    "overlong": b"\xc0\xaf",
    "c1-control": "a\u009b31m".encode(),
    "half-a-character": b"x" * 79 + "é".encode(),
    "long": b"long" * 1024,
    "long-and-hostile": b"\xff\x1b" * 2048,
    "long-utf-8": "ü€𝄞".encode() * 400,
}


@every_named
@pytest.mark.parametrize("name", HOSTILE_NAMES.values(), ids=HOSTILE_NAMES)
def test_an_unknown_name_comes_back_printable_and_shortened(server, which, name):
    options = server.options()
    options.structured_reply()
    refusal = ask(options, which, name)
    assert refusal.type == REP_ERR_UNKNOWN
    assert refusal.text and len(refusal.text) <= 600
    assert all(c.isprintable() for c in refusal.text), refusal.text
    assert options.go("db").size == MIB


@every_named
def test_a_name_of_4096_bytes_is_legal(serve, file_disk, which):
    name = "n" * 4096
    server = serve(f"{name}={file_disk(MIB)}", f"other={file_disk(MIB, name='other')}")
    options = server.options()
    options.structured_reply()
    assert ask(options, which, name).type == REP_ACK


@every_named
def test_a_name_of_4097_bytes_is_invalid(server, which):
    options = server.options()
    options.structured_reply()
    refusal = ask(options, which, "n" * 4097)
    assert refusal.type == REP_ERR_INVALID and refusal.text
    assert options.go("db").size == MIB


@every_named
@pytest.mark.parametrize("name", [b"\0", b"db\0", b"d\0b", b"\0db"])
def test_a_name_with_an_embedded_nul_is_invalid(server, which, name):
    options = server.options()
    options.structured_reply()
    assert ask(options, which, name).type == REP_ERR_INVALID
    assert options.go("db").size == MIB


def test_a_name_in_utf_8_works_everywhere(serve, file_disk):
    name = "Festplatte №1 – größer"
    server = serve(f"{name}={file_disk(MIB)}", f"b={file_disk(MIB, name='b')}",
                   description="beschriftet: ✓")
    assert (name.encode(), "beschriftet: ✓".encode()) in server.options().list()
    client = server.client(name, STRUCTURED, contexts=["base:allocation"],
                           infos=[INFO_NAME, INFO_BLOCK_SIZE])
    assert client.told.name == name.encode()
    assert client.read(0, 512) == bytes(512)


def test_the_empty_name_is_unknown_where_there_are_several_exports(serve, file_disk):
    server = serve(f"a={file_disk(MIB, name='a')}", f"b={file_disk(MIB, name='b')}")
    with pytest.raises(OptionError) as refusal:
        server.options().go("")
    assert refusal.value.type == REP_ERR_UNKNOWN


def test_several_exports_are_told_apart(serve, file_disk):
    server = serve(*(f"e{i}={file_disk(MIB * i, name=str(i))}" for i in range(1, 5)))
    for i in range(1, 5):
        assert server.client(f"e{i}").size == i * MIB


# Wrong lengths


@both
@pytest.mark.parametrize("payload", [
    b"", b"\0", u32(0), u32(0) + b"\0", u32(2) + b"db", u32(2) + b"db\0",
    u32(3) + b"db" + u16(0), u32(0xFFFFFFFF) + b"db" + u16(0), u32(2) + b"db" + u16(1),
    u32(2) + b"db" + u16(2, 3), u32(2) + b"db" + u16(1, 3) + b"\0", u32(2) + b"db" + u16(0, 3),
    u32(2) + b"db" + u16(0) + b"\0", u32(1) + b"db" + u16(0), u32(2) + b"db" + u16(0xFFFF, 3),
], ids=lambda payload: payload.hex() or "empty")
def test_a_payload_with_wrong_lengths_is_invalid_and_the_connection_lives(server, option, payload):
    options = server.options()
    for _ in range(2):
        refusal = options.option(option, payload)[-1]
        assert refusal.type == REP_ERR_INVALID and refusal.text
    assert options.go("db", [INFO_BLOCK_SIZE]).size == MIB


@both
def test_every_truncation_of_a_good_payload_is_invalid(server, option):
    options = server.options()
    good = go_payload("db", [INFO_NAME, INFO_BLOCK_SIZE])
    for length in range(len(good)):
        replies = options.option(option, good[:length])
        assert [r.type for r in replies] == [REP_ERR_INVALID], length
    assert options.option(option, good)[-1].type == REP_ACK


# No slot


def test_a_client_too_many_is_refused_with_words_before_go_is_acknowledged(serve, file_disk):
    server = serve(file_disk(MIB), max_connections=1)
    first = server.client()
    second = server.options()
    with pytest.raises(OptionError) as refusal:
        second.go("", [INFO_BLOCK_SIZE])
    assert refusal.value.type == REP_ERR_POLICY and refusal.value.text
    assert first.disconnect()
    first.close()
    go = go_payload("", [INFO_BLOCK_SIZE])
    wait_until(lambda: second.result(OPT_GO, go) == REP_ACK, "a free slot", 5)
    assert Client.over(second, SIMPLE).read(0, 512) == bytes(512)


def test_export_name_of_a_client_too_many_closes_and_says_so_in_the_log(serve, file_disk):
    server = serve(file_disk(MIB), max_connections=1)
    server.client()
    before = server.log()
    options = server.options()
    options.send_option(nbdwire.OPT_EXPORT_NAME)
    assert options.closed()
    assert len(server.log()) > len(before)


def test_a_tcp_client_negotiates_like_any_other(serve, loop_disk):
    device = loop_disk(MIB)
    server = serve(f"db={device}", listen="127.0.0.1:0", unix=False)
    client = server.client("db", address=server.tcp_address(), contexts=["base:allocation"])
    client.write(0, b"over tcp")
    client.flush()
    assert backing_of(device).read_bytes()[:8] == b"over tcp"


def test_list_of_exports_works_in_every_mode(server):
    for enter in (OPT_STRUCTURED_REPLY, OPT_EXTENDED_HEADERS):
        options = server.options()
        options.must(enter)
        assert options.option(OPT_LIST)[-1].type == REP_ACK
