# SPDX-License-Identifier: GPL-2.0-or-later
"""The greeting, the ways to leave the handshake, its limits, and the socket itself."""

import contextlib
import ctypes
import os
import pathlib
import select
import socket
import struct
import time

import pytest

import nbdwire
from conftest import KIB, MIB, by_mode, needs_root, wait_until
from nbdwire import (CMD_DISC, EXTENDED, FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, IHAVEOPT,
                     NBDMAGIC, OPT_ABORT, OPT_EXPORT_NAME, OPT_GO, OPT_INFO, OPT_LIST, REP_ACK,
                     REP_ERR_INVALID, REP_ERR_UNSUP, SIMPLE, STRUCTURED, Client, Closed, Options,
                     Wire, go_payload, option_header, request_header, u32)

UNKNOWN_OPTION = 0x6E6F7065


@pytest.fixture
def server(serve, file_disk):
    return serve(f"db={file_disk(MIB)}", description="one mebibyte")


def still_serves(server):
    with Client(server.socket, "db") as other:
        assert other.read(0, 512) == bytes(512)


# The greeting


def test_the_greeting_offers_fixed_newstyle_and_no_zeroes_and_nothing_else(server):
    with Wire(server.socket) as wire:
        assert wire.recv(18) == NBDMAGIC + IHAVEOPT + b"\0\3"


def test_the_greeting_comes_before_the_client_says_anything_and_only_once(server):
    with Options(server.socket) as options:
        assert options.server_flags == FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES
        assert options.result(OPT_LIST) == REP_ACK


@pytest.mark.parametrize("bit", [2, 3, 15, 16, 31])
def test_an_unknown_client_flag_ends_the_connection(server, bit):
    with Options(server.socket, flags=FLAG_FIXED_NEWSTYLE | 1 << bit) as options:
        options.send_some(option_header(OPT_LIST, 0))
        assert options.closed()
    still_serves(server)


@pytest.mark.parametrize("magic", [b"IHAVEOPS", b"\0" * 8, b"NBDMAGIC"])
def test_a_bad_option_magic_ends_the_connection(server, magic):
    with Options(server.socket) as options:
        assert options.result(OPT_LIST) == REP_ACK
        options.send(option_header(OPT_LIST, 0, magic=magic))
        assert options.closed()
    still_serves(server)


def test_options_may_arrive_byte_by_byte(server):
    with Options(server.socket, flags=None) as options:
        options.greeting()
        stream = u32(3) + option_header(OPT_GO, 8) + go_payload("db")
        for i in range(len(stream)):
            options.send(stream[i : i + 1])
        replies = options.receive_replies(OPT_GO)
        assert replies[-1].type == REP_ACK


def test_options_may_arrive_all_at_once_with_the_first_requests(server):
    """No byte of the transmission phase is lost when the negotiator hands over."""
    with Options(server.socket, flags=None) as options:
        requests = [request_header(SIMPLE, nbdwire.CMD_READ, 512 * i, 512, cookie=i)
                    for i in range(8)]
        options.send(u32(3), option_header(OPT_LIST, 0), option_header(OPT_GO, 8),
                     go_payload("db"), *requests)
        options.greeting()
        assert options.receive_replies(OPT_LIST)[-1].type == REP_ACK
        assert options.receive_replies(OPT_GO)[-1].type == REP_ACK
        cookies = set()
        for _ in requests:
            magic, error, cookie = options.unpack(">IIQ")
            assert (magic, error) == (nbdwire.SIMPLE_REPLY_MAGIC, 0)
            assert options.recv(512) == bytes(512)
            cookies.add(cookie)
        assert cookies == set(range(8))


# Clients without FIXED_NEWSTYLE


@pytest.mark.parametrize("flags", [0, FLAG_NO_ZEROES], ids=["zeroes", "no-zeroes"])
def test_a_client_without_fixed_newstyle_may_send_export_name(server, flags):
    with Options(server.socket, flags=flags) as options:
        size, _ = options.export_name("db")
        assert size == MIB
        client = Client.over(options, SIMPLE)
        assert client.read(0, KIB) == bytes(KIB)


@pytest.mark.parametrize("option", [OPT_ABORT, OPT_LIST, OPT_INFO, OPT_GO, UNKNOWN_OPTION])
def test_a_client_without_fixed_newstyle_that_sends_another_option_is_closed(server, option):
    with Options(server.socket, flags=0) as options:
        payload = go_payload("db") if option in (OPT_INFO, OPT_GO) else b""
        options.send_option(option, payload)
        assert options.closed()
    still_serves(server)


# EXPORT_NAME


def test_export_name_is_followed_by_124_zero_bytes_unless_no_zeroes(server):
    with Options(server.socket, flags=FLAG_FIXED_NEWSTYLE) as options:
        options.send_option(OPT_EXPORT_NAME, b"db")
        assert options.recv(10 + 124)[10:] == bytes(124)
        assert Client.over(options, SIMPLE).read(0, 512) == bytes(512)


def test_export_name_with_no_zeroes_is_followed_by_nothing(server):
    with Options(server.socket) as options:
        assert options.export_name("db")[0] == MIB
        client = Client.over(options, SIMPLE)
        assert client.read(0, 512) == bytes(512)


def test_export_name_keeps_structured_replies_that_were_negotiated(server):
    with Options(server.socket) as options:
        options.structured_reply()
        _, flags = options.export_name("db")
        assert flags & nbdwire.SEND_DF
        client = Client.over(options, STRUCTURED)
        assert client.read(0, 512) == bytes(512)


def test_export_name_without_structured_replies_offers_no_df(server):
    with Options(server.socket) as options:
        _, flags = options.export_name("db")
        assert flags & nbdwire.HAS_FLAGS and not flags & nbdwire.SEND_DF


def test_export_name_takes_the_empty_name_of_a_single_export(server):
    with Options(server.socket) as options:
        assert options.export_name("")[0] == MIB


def test_export_name_after_extended_headers_closes(server):
    with Options(server.socket) as options:
        options.extended_headers()
        options.send_option(OPT_EXPORT_NAME, b"db")
        assert options.closed()
    still_serves(server)


def test_export_name_of_an_unknown_export_closes_and_says_so_in_the_log(server):
    with Options(server.socket) as options:
        options.send_option(OPT_EXPORT_NAME, b"nowhere-to-be-found")
        assert options.closed()
    server.wait_for_log("nowhere-to-be-found")
    still_serves(server)


def test_export_name_of_more_than_4096_bytes_closes(server):
    with Options(server.socket) as options:
        options.send_some(option_header(OPT_EXPORT_NAME, 4097), b"d" * 4097)
        assert options.closed()
    still_serves(server)


def test_export_name_with_an_embedded_nul_closes(server):
    with Options(server.socket) as options:
        options.send_option(OPT_EXPORT_NAME, b"db\0")
        assert options.closed()


# ABORT and hanging up


def test_abort_is_acknowledged_and_ends_the_connection(server):
    with Options(server.socket) as options:
        assert options.result(OPT_ABORT) == REP_ACK
        assert options.closed()


def test_abort_with_data_is_acknowledged_all_the_same(server):
    with Options(server.socket) as options:
        assert options.result(OPT_ABORT, b"I am leaving") == REP_ACK
        assert options.closed()


def test_a_client_that_sends_abort_and_hangs_up_is_no_error(server):
    before = server.log()
    for _ in range(20):
        with Options(server.socket) as options:
            options.send_option(OPT_ABORT)
    for _ in range(20):
        with Options(server.socket) as options:
            options.result(OPT_LIST)
            options.send_option(OPT_ABORT)
    still_serves(server)
    news = server.log()[len(before) :].lower()
    assert "error" not in news and "broken pipe" not in news and "reset" not in news


@pytest.mark.parametrize("stream", [
    b"", b"\0\0", u32(3), u32(3) + IHAVEOPT[:5], u32(3) + option_header(OPT_GO, 40),
    u32(3) + option_header(OPT_GO, 40) + b"\0\0\0\2d",
], ids=["nothing", "half-flags", "flags", "half-magic", "header", "half-payload"])
def test_a_client_that_hangs_up_in_the_handshake_costs_nobody_else(server, stream):
    with Options(server.socket, flags=None) as options:
        options.send(stream)
        options.shutdown_sending()
        options.until_closed()
    still_serves(server)


# Limits of a handshake


def test_an_option_of_32_mib_is_legal_and_its_payload_skipped(server):
    with Options(server.socket) as options:
        options.send(option_header(UNKNOWN_OPTION, 32 * MIB), bytes(32 * MIB))
        assert options.receive_replies(UNKNOWN_OPTION)[-1].type == REP_ERR_UNSUP
        assert options.go("db").size == MIB


@pytest.mark.parametrize("option", [UNKNOWN_OPTION, OPT_GO, OPT_LIST])
@pytest.mark.parametrize("length", [32 * MIB + 1, 0x80000000, 0xFFFFFFFF])
def test_an_option_above_32_mib_closes_before_its_payload(server, option, length):
    with Options(server.socket) as options:
        options.send(option_header(option, length))
        assert options.closed()
    still_serves(server)


def test_a_known_option_of_32_mib_is_invalid_and_the_connection_lives(server):
    with Options(server.socket) as options:
        options.send(option_header(OPT_GO, 32 * MIB), bytes(32 * MIB))
        assert options.receive_replies(OPT_GO)[-1].type == REP_ERR_INVALID
        assert options.go("db").size == MIB


def test_a_handshake_may_carry_nearly_64_mib_of_options_and_no_more(server):
    with Options(server.socket) as options:
        for _ in range(2):
            options.send(option_header(UNKNOWN_OPTION, 31 * MIB), bytes(31 * MIB))
            assert options.receive_replies(UNKNOWN_OPTION)[-1].type == REP_ERR_UNSUP
        assert options.result(OPT_LIST) == REP_ACK
        options.send_some(option_header(UNKNOWN_OPTION, 3 * MIB), bytes(3 * MIB))
        options.send_some(option_header(OPT_LIST, 0))
        with pytest.raises((Closed, AssertionError)):
            while True:
                options.receive_replies(UNKNOWN_OPTION)
    still_serves(server)


def test_a_handshake_may_have_1000_options(server):
    with Options(server.socket) as options:
        for _ in range(999):
            assert options.result(UNKNOWN_OPTION) == REP_ERR_UNSUP
        assert options.go("db").size == MIB


def test_a_handshake_of_more_than_1000_options_is_closed(server):
    with Options(server.socket) as options:
        for _ in range(1000):
            assert options.result(UNKNOWN_OPTION) == REP_ERR_UNSUP
        options.send_some(option_header(OPT_GO, 8), go_payload("db"))
        with pytest.raises(Closed):
            while True:
                assert options.receive_reply(OPT_GO).type != REP_ACK
    still_serves(server)


def drip(options, began):
    """When each was closed.  Until then it sends its next bytes every quarter of a second."""
    kept = list(options)
    closed_after = {}
    due = began
    while kept and time.monotonic() < began + 20:
        ready, _, _ = select.select(kept, [], [], max(0, due - time.monotonic()))
        for one in ready:
            try:
                more = one.sock.recv(4096)
            except ConnectionResetError:
                more = b""
            if not more:
                closed_after[id(one)] = time.monotonic() - began
                kept.remove(one)
        if time.monotonic() >= due:
            due += 0.25
            for one in kept:
                one.send_some(one.next_bytes())
    return [closed_after.get(id(one)) for one in options]


def test_a_handshake_has_10_seconds_whatever_the_client_does(server):
    """Silent, dripping and busy clients alike; one in transmission stays."""
    lasting = server.client("db")
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        silent = stack.enter_context(Options(server.socket, flags=None))
        silent.next_bytes = lambda: b""
        talked = stack.enter_context(Options(server.socket))
        talked.next_bytes = lambda: b""
        dripping = stack.enter_context(Options(server.socket))
        slow = iter(option_header(OPT_LIST, 0) * 100)
        dripping.next_bytes = lambda: bytes([next(slow)])
        busy = stack.enter_context(Options(server.socket))
        busy.next_bytes = lambda: option_header(OPT_LIST, 0)
        ends = drip([silent, talked, dripping, busy], began)
    assert all(end is not None and 8 < end < 14 for end in ends), ends
    assert lasting.read(0, 512) == bytes(512)


# The socket itself


def socket_options(pid, inode, wanted):
    """{name: value} of a socket inside another process."""
    libc = ctypes.CDLL(None, use_errno=True)
    for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(entry) != f"socket:[{inode}]":
                continue
            pidfd = os.pidfd_open(pid)
            fd = libc.syscall(438, pidfd, int(entry.name), 0)  # pidfd_getfd
            os.close(pidfd)
            if fd < 0:
                pytest.skip(f"pidfd_getfd: {os.strerror(ctypes.get_errno())}")
            with socket.socket(fileno=fd) as sock:
                return {name: sock.getsockopt(*option) for name, option in wanted.items()}
    return None


def server_side_of(client):
    """The inode of the server's end of a TCP connection, from /proc/net/tcp; or None."""
    host, port = client.sock.getpeername()[:2]
    mine = client.sock.getsockname()[1]
    assert host == "127.0.0.1"
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[1].endswith(f":{port:04X}") and words[2].endswith(f":{mine:04X}"):
            return int(words[9])
    return None


WATCHED = {
    "nodelay": (socket.IPPROTO_TCP, socket.TCP_NODELAY),
    "keepalive": (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    "idle": (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
    "interval": (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
    "count": (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
    "user_timeout": (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
}


@pytest.mark.parametrize("phase", ["handshake", "transmission"])
def test_a_tcp_client_gets_nodelay_keepalive_and_user_timeout_within_60_s(serve, file_disk, phase):
    needs_root()
    server = serve(file_disk(MIB), unix=False, listen="127.0.0.1:0")
    if phase == "handshake":
        client = server.closing(Options(server.tcp_address()))
        assert client.result(OPT_LIST) == REP_ACK
        (pid,) = server.pids("nbd-negotiator")
    else:
        client = server.client(address=server.tcp_address())
        assert client.read(0, 512) == bytes(512)
        (pid,) = server.pids("nbd-export")
    got = socket_options(pid, server_side_of(client), WATCHED)
    assert got, "the process that should have the socket does not"
    assert got["nodelay"] and got["keepalive"]
    assert got["idle"] + got["interval"] * got["count"] <= 60
    assert 0 < got["user_timeout"] <= 60_000


def go_deaf(client):
    """From now on the client's end answers to nothing, as if its machine were gone."""
    drop_all = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF: return 0
    buffer = ctypes.create_string_buffer(drop_all)
    program = struct.pack("HP", 1, ctypes.addressof(buffer))
    so_attach_filter = 26
    client.sock.setsockopt(socket.SOL_SOCKET, so_attach_filter, program)


@pytest.mark.parametrize("state", ["idle", "awaiting-a-reply"])
def test_a_dead_tcp_peer_is_freed_within_60_s(serve, file_disk, only_long, state):
    server = serve(file_disk(64 * MIB), unix=False, listen="127.0.0.1:0")
    client = server.client(address=server.tcp_address())
    assert client.read(0, 512) == bytes(512)
    assert server_side_of(client)
    go_deaf(client)
    if state != "idle":
        client.send_read(0, 32 * MIB)
    wait_until(lambda: not server_side_of(client), "the server to give up", 63)


def test_a_negotiated_tcp_socket_is_no_longer_the_negotiators(serve, file_disk):
    needs_root()
    server = serve(file_disk(MIB), unix=False, listen="127.0.0.1:0")
    client = server.client(address=server.tcp_address())
    assert client.read(0, 512) == bytes(512)
    inode = server_side_of(client)
    (pid,) = server.pids("nbd-negotiator")
    wait_until(lambda: socket_options(pid, inode, WATCHED) is None, "the negotiator to close it")


@by_mode()
def test_disc_right_after_go_closes_without_a_reply(server, mode):
    with Client(server.socket, "db", mode) as client:
        client.send(request_header(mode, CMD_DISC))
        assert client.closed()
    still_serves(server)


def test_ipv4_ipv6_and_several_sockets_serve_at_once(serve, file_disk):
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 on loopback")
    server = serve(f"db={file_disk(MIB)}", listen=["127.0.0.1:0", "[::1]:0"])
    assert len(server.uris["db"]) == 3
    for uri in server.uris["db"]:
        if uri.startswith("nbd://["):
            port = int(uri.rsplit(":", 1)[1].split("/")[0])
            with Client(("::1", port), "db", EXTENDED) as client:
                assert client.read(0, 512) == bytes(512)
    with Client(server.tcp_address(), "db") as client, Client(server.socket, "db") as other:
        assert client.size == other.size == MIB
