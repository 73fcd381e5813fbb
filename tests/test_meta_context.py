# SPDX-License-Identifier: GPL-2.0-or-later
"""LIST_META_CONTEXT and SET_META_CONTEXT: what a query matches, and what a choice outlives."""

import pytest

import nbdwire
from conftest import MIB, by_mode
from nbdwire import (ALLOCATION_DEPTH, BASE_ALLOCATION, BLOCK_STAT_PAYLOAD, CMD_BLOCK_STATUS,
                     EINVAL, EXTENDED, INFO_BLOCK_SIZE, OPT_LIST_META_CONTEXT,
                     OPT_SET_META_CONTEXT, REP_ACK, REP_ERR_INVALID, REP_ERR_UNKNOWN, STRUCTURED,
                     Client, meta_payload, string, u32)

ALL = {BASE_ALLOCATION, ALLOCATION_DEPTH}
OPTIONS = pytest.mark.parametrize("option", [OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT],
                                  ids=["LIST", "SET"])
rich_modes = by_mode(STRUCTURED, EXTENDED)


@pytest.fixture
def server(serve, file_disk):
    return serve(f"db={file_disk(MIB, name='db')}", f"other={file_disk(2 * MIB, name='other')}")


@pytest.fixture
def options(server):
    options = server.options()
    options.structured_reply()
    return options


def selected(options, mode=STRUCTURED, name="db"):
    """What GO leaves selected: the context ids that BLOCK_STATUS answers about."""
    options.go(name)
    client = Client.over(options, mode)
    client.contexts = {BASE_ALLOCATION: 0, ALLOCATION_DEPTH: 1}
    reply = client.call(CMD_BLOCK_STATUS, 0, 512)
    assert reply.error in (0, EINVAL)
    return set(reply.extents)


# What matches


@pytest.mark.parametrize("queries, found", [
    ([], ALL),
    (["base:"], {BASE_ALLOCATION}),
    (["qemu:"], {ALLOCATION_DEPTH}),
    (["base:", "qemu:"], ALL),
    (["base:allocation"], {BASE_ALLOCATION}),
    (["qemu:allocation-depth"], {ALLOCATION_DEPTH}),
    (["qemu:allocation-depth", "base:allocation"], ALL),
    (["base:allocation", "base:allocation", "base:"], {BASE_ALLOCATION}),
    (["qemu:dirty-bitmap:"], set()),
    (["qemu:dirty-bitmap:nope"], set()),
    (["base"], set()), ([""], set()), ([":"], set()), (["allocation"], set()),
    (["base:allocatio"], set()), (["base:allocation2"], set()), (["base:ALLOCATION"], set()),
    (["BASE:"], set()), (["x-mine:"], set()), (["nbd-server:anything"], set()),
    (["no colon at all", "base:allocation"], {BASE_ALLOCATION}),
    (["\N{SNOWMAN}:melts", "qemu:"], {ALLOCATION_DEPTH}),
], ids=str)
def test_list_finds_what_the_queries_name_and_wildcards_show_all(options, queries, found):
    assert set(options.list_contexts("db", queries)) == found


@pytest.mark.parametrize("queries, found", [
    ([], set()),
    (["base:"], set()),
    (["qemu:"], set()),
    (["qemu:dirty-bitmap:"], set()),
    (["base:", "qemu:", "qemu:dirty-bitmap:"], set()),
    (["base:allocation"], {BASE_ALLOCATION}),
    (["qemu:allocation-depth"], {ALLOCATION_DEPTH}),
    (["qemu:allocation-depth", "base:allocation"], ALL),
    (["base:allocation"] * 3, {BASE_ALLOCATION}),
    (["base:", "base:allocation", "x-mine:thing", "base:nope"], {BASE_ALLOCATION}),
    (["qemu:dirty-bitmap:nope"], set()),
], ids=str)
def test_set_selects_exact_names_and_wildcards_select_nothing(options, queries, found):
    chosen = options.set_contexts("db", queries)
    assert set(chosen) == found
    assert selected(options) == set(chosen.values())


def test_list_tells_identifier_0_for_each_context(options):
    assert set(options.list_contexts("db").values()) == {0}


@rich_modes
def test_set_tells_identifier_0_for_allocation_and_1_for_depth(server, mode):
    options = server.options()
    options.enter_mode(mode)
    chosen = options.set_contexts("db", [ALLOCATION_DEPTH, BASE_ALLOCATION])
    assert chosen == {BASE_ALLOCATION: 0, ALLOCATION_DEPTH: 1}
    assert options.set_contexts("db", [ALLOCATION_DEPTH]) == {ALLOCATION_DEPTH: 1}


def test_list_needs_no_structured_replies(server):
    assert set(server.options().list_contexts("db")) == ALL


def test_list_leaves_the_choice_alone(options):
    options.set_contexts("db", [BASE_ALLOCATION])
    options.list_contexts("db", [ALLOCATION_DEPTH])
    options.list_contexts("other")
    assert options.result(OPT_LIST_META_CONTEXT, meta_payload("nowhere", [])) == REP_ERR_UNKNOWN
    assert selected(options) == {0}


@OPTIONS
@pytest.mark.parametrize("length", [4097, 65536, 8 * MIB])
def test_a_query_above_4096_bytes_is_skipped_and_the_others_count(options, option, length):
    queries = ["b" * length, BASE_ALLOCATION, "base:" + "a" * length]
    replies = options.option(option, meta_payload("db", queries))
    assert replies[-1].type == REP_ACK
    assert [r.data[4:].decode() for r in replies[:-1]] == [BASE_ALLOCATION]


@OPTIONS
def test_a_query_of_4096_bytes_is_legal(options, option):
    queries = ["x-long:" + "q" * 4089, ALLOCATION_DEPTH]
    replies = options.option(option, meta_payload("db", queries))
    assert [r.data[4:].decode() for r in replies[:-1]] == [ALLOCATION_DEPTH]


@OPTIONS
def test_100000_queries_are_answered(options, option):
    payload = string("db") + u32(100_001) + string("x-y:z") * 100_000 + string(BASE_ALLOCATION)
    replies = options.option(option, payload)
    assert [r.data[4:].decode() for r in replies[:-1]] == [BASE_ALLOCATION]


# SET's rules


def test_set_without_structured_replies_is_invalid(server):
    options = server.options()
    refusal = options.option(OPT_SET_META_CONTEXT, meta_payload("db", [BASE_ALLOCATION]))[-1]
    assert refusal.type == REP_ERR_INVALID and refusal.text
    assert options.go("db").size == MIB


def test_set_that_comes_too_early_leaves_a_later_choice_free(server):
    options = server.options()
    assert options.result(OPT_SET_META_CONTEXT, meta_payload("db", [BASE_ALLOCATION])) \
        == REP_ERR_INVALID
    options.structured_reply()
    assert selected(options) == set()


def test_a_second_set_replaces_the_first(options):
    options.set_contexts("db", [BASE_ALLOCATION])
    options.set_contexts("db", [ALLOCATION_DEPTH])
    assert selected(options) == {1}


def test_a_set_without_queries_leaves_nothing_selected(options):
    options.set_contexts("db", [BASE_ALLOCATION])
    assert options.set_contexts("db", []) == {}
    assert selected(options) == set()


@pytest.mark.parametrize("payload", [
    b"", u32(2) + b"db", string("db") + u32(1), string("db") + u32(1) + u32(99) + b"base:",
    string("db") + u32(0) + b"x", string("n" * 4097) + u32(0), string("d\0b") + u32(0),
    string("db") + u32(2) + string(BASE_ALLOCATION) + string("base:\0"),
    string("db") + u32(2) + string(BASE_ALLOCATION),
    string("nowhere") + u32(1) + string(BASE_ALLOCATION),
], ids=["empty", "no-count", "no-query", "long-query", "trailing", "long-name", "nul-name",
        "nul-query", "missing-query", "unknown-export"])
def test_a_set_that_fails_leaves_nothing_selected(options, payload):
    options.set_contexts("db", [BASE_ALLOCATION])
    assert options.result(OPT_SET_META_CONTEXT, payload) in (REP_ERR_INVALID, REP_ERR_UNKNOWN)
    assert selected(options) == set()


def test_a_set_that_failed_may_be_repaired_by_another(options):
    assert options.result(OPT_SET_META_CONTEXT, b"") == REP_ERR_INVALID
    options.set_contexts("db", [ALLOCATION_DEPTH])
    assert selected(options) == {1}


# What a choice outlives


@rich_modes
def test_go_for_another_export_drops_the_contexts(server, mode):
    options = server.options()
    options.enter_mode(mode)
    options.set_contexts("other", [BASE_ALLOCATION])
    told = options.go("db", [INFO_BLOCK_SIZE])
    assert not told.flags & BLOCK_STAT_PAYLOAD
    client = Client.over(options, mode)
    assert client.error(CMD_BLOCK_STATUS, 0, 512) == EINVAL
    assert client.read(0, 512) == bytes(512)


def test_export_name_for_another_export_drops_the_contexts(server):
    options = server.options()
    options.structured_reply()
    options.set_contexts("other", [BASE_ALLOCATION])
    options.export_name("db")
    assert Client.over(options, STRUCTURED).error(CMD_BLOCK_STATUS, 0, 512) == EINVAL


def test_export_name_for_the_same_export_keeps_the_contexts(server):
    options = server.options()
    options.structured_reply()
    contexts = options.set_contexts("db", [BASE_ALLOCATION])
    options.export_name("db")
    client = Client.over(options, STRUCTURED)
    client.contexts = contexts
    assert client.status(0, 512).keys() == {BASE_ALLOCATION}


@rich_modes
def test_info_about_another_export_keeps_the_contexts(server, mode):
    options = server.options()
    options.enter_mode(mode)
    options.set_contexts("db", [BASE_ALLOCATION])
    assert options.info("other", [INFO_BLOCK_SIZE]).size == 2 * MIB
    assert selected(options, mode) == {0}


def test_a_go_for_another_export_that_fails_is_no_harm(serve, file_disk, options):
    """The refusal names the export; what counts is the GO that succeeds."""
    options.set_contexts("db", [BASE_ALLOCATION])
    assert options.result(nbdwire.OPT_GO, nbdwire.go_payload("nowhere")) == REP_ERR_UNKNOWN
    assert selected(options) == {0}


def test_contexts_set_before_extended_headers_stay(server):
    options = server.options()
    options.structured_reply()
    options.set_contexts("db", [BASE_ALLOCATION])
    options.extended_headers()
    assert selected(options, EXTENDED) == {0}


# Malformed


@OPTIONS
@pytest.mark.parametrize("payload", [
    b"", b"\0\0\0", u32(2) + b"d", string("db"), string("db") + b"\0\0\0",
    string("db") + u32(1), string("db") + u32(1) + b"\0\0",
    string("db") + u32(1) + u32(5) + b"base",
    string("db") + u32(0xFFFFFFFF), string("db") + u32(1) + u32(0xFFFFFFFF),
    string("db") + u32(0) + string("base:"), string("db") + u32(1) + string("base:") + b"\0",
    string("db") + u32(1) + string("base:\0allocation"), string("db\0") + u32(0),
    string("n" * 4097) + u32(0), string("db") + u32(1) + u32(5000) + bytes(4999),
], ids=lambda payload: payload.hex()[:40] or "empty")
def test_a_malformed_payload_is_invalid_and_the_connection_lives(options, option, payload):
    for _ in range(2):
        replies = options.option(option, payload)
        assert replies[-1].type == REP_ERR_INVALID and replies[-1].text
    assert set(options.set_contexts("db", [BASE_ALLOCATION])) == {BASE_ALLOCATION}


@OPTIONS
def test_every_truncation_of_a_good_payload_is_invalid(options, option):
    good = meta_payload("db", [BASE_ALLOCATION, "qemu:"])
    for length in range(len(good)):
        assert options.result(option, good[:length]) == REP_ERR_INVALID, length
    assert options.result(option, good) == REP_ACK
