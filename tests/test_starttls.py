# SPDX-License-Identifier: GPL-2.0-or-later
"""STARTTLS: a real negotiator and a real nbd-tls, with exports that a test plays."""

import contextlib
import os
import random
import re
import select
import signal
import socket
import ssl
import struct
import subprocess
import threading

import pytest

import nbdwire as wire
from conftest import wait_until
from nbdchannel import RESERVE, RIGHT_READ, RIGHT_WRITE
from nbdwire import PATIENCE, Closed
from negotiator_bench import Bench
from seed import seeded
from tlschannel import HELLO, START, X509, record_bytes
from tlsfixtures import context, put_keys, starttls

LISTED = [(b"disk", b"")]
HERE = "127.0.0.1"


@pytest.fixture
def bench(tmp_path, programs):
    with contextlib.ExitStack() as stack:
        bench = Bench(stack, tmp_path / "bench", programs.negotiator, make=True)
        bench.listen(HERE)
        bench.config = bench.folder / "negotiator.conf"
        yield bench


def begin(bench, tls, *arguments, **keys):
    """Starts the negotiator with these keys of negotiator.conf, beside nbd-tls at this path."""
    lines = "".join(f"{key}={value}\n" for key, value in keys.items())
    bench.config.write_text(f"[Negotiator]\n{lines}")
    return bench.start(f"--config={bench.config}", f"--tls={tls}", *arguments)


@pytest.fixture
def nbd_tls(start_tls, keys):
    return start_tls(keys)


def go_through(client, fake):
    """GO and the hand-off: what was reserved, and the socket that the export got."""
    client.send_option(wire.OPT_GO, wire.go_payload("disk"))
    end = fake.ready()
    reserve = end.expect(RESERVE)
    end.grant(reserve)
    wire.parse_info(client.receive_replies(wire.OPT_GO))
    return reserve, end.receive_client()


def is_closed(client):
    """Whether the server ends it, sooner or later; reads what still comes."""
    try:
        while client.sock.recv(4096):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


# What works -----------------------------------------------------------------------------


@pytest.mark.parametrize("at", [None, HERE], ids=["unix", "tcp"])
@pytest.mark.parametrize("policy", ["allow", "require"])
def test_a_client_goes_all_the_way_by_tls(bench, nbd_tls, authority, at, policy):
    fake = bench.export()
    process = begin(bench, nbd_tls.path, TLS=policy)
    client = starttls(bench.client(at=at), context(authority, authority.alice))
    assert client.list() == LISTED
    client.extended_headers()
    reserve, handed = go_through(client, fake)
    assert reserve.identity == "dn:CN=alice,O=Test"
    assert re.fullmatch(r"TLS1\.3 TLS_[A-Z0-9_]+", reserve.tls)
    assert reserve.rights == RIGHT_READ | RIGHT_WRITE
    handed.sendall(b"x" * 100_000)
    assert client.recv(100_000) == b"x" * 100_000
    client.send(b"from the client")
    assert handed.recv(15) == b"from the client"
    wait_until(lambda: "handed over as connection 1" in process.log, "the entry")
    assert re.search(r"extended, 0 contexts, TLS1\.3 TLS_\S+, dn:CN=alice,O=Test\)", process.log)


def test_tls_1_2_works_as_well(bench, nbd_tls, authority):
    fake = bench.export()
    begin(bench, nbd_tls.path, TLS="allow")
    tls = context(authority, authority.alice, ssl.TLSVersion.TLSv1_2)
    reserve, _ = go_through(starttls(bench.client(), tls), fake)
    assert reserve.tls.startswith("TLS1.2 ")


def test_in_clear_nothing_changes_where_tls_is_allowed(bench, nbd_tls):
    fake = bench.export()
    begin(bench, nbd_tls.path, TLS="allow")
    client = bench.client()
    assert client.list() == LISTED
    reserve, _ = go_through(client, fake)
    assert reserve.identity == reserve.tls == ""


def test_without_a_ca_clients_need_no_certificate(bench, start_tls, authority, tmp_path):
    folder = put_keys(tmp_path / "keys", authority, psk=False)
    (folder / "ca-cert.pem").unlink()
    (folder / "ca-crl.pem").unlink()
    fake = bench.export()
    begin(bench, start_tls(folder).path, TLS="require")
    reserve, _ = go_through(starttls(bench.client(), context(authority)), fake)
    assert reserve.identity == "" and reserve.tls.startswith("TLS1.3 ")


def test_a_ca_that_vanishes_at_a_reload_lets_nobody_in(bench, nbd_tls, keys, authority):
    bench.export()
    begin(bench, nbd_tls.path, TLS="require")
    starttls(bench.client(), context(authority, authority.alice))
    (keys / "ca-cert.pem").unlink()
    (keys / "ca-crl.pem").unlink()
    nbd_tls.child.send_signal(signal.SIGHUP)
    nbd_tls.logged("read again: certificate valid until .*, no CA to check clients with")
    for pair in (None, authority.alice):
        with pytest.raises((ssl.SSLError, Closed, ConnectionError)):
            starttls(bench.client(), context(authority, pair)).list()
    nbd_tls.logged("showed no certificate")
    nbd_tls.logged("CN=alice.*was refused")


@pytest.mark.parametrize("setting, pair, lets_in", [
    (None, None, False), (None, "alice", True), ("required", None, False),
    ("optional", None, True), ("optional", "alice", True), ("optional", "expired", False),
    ("none", None, True), ("none", "alice", True), ("none", "expired", True),
])
def test_certificates_are_asked_for_as_the_setting_says(bench, nbd_tls, authority, setting, pair,
                                                        lets_in):
    fake = bench.export()
    begin(bench, nbd_tls.path, TLS="require",
          **({"ClientCertificate": setting} if setting else {}))
    tls = context(authority, getattr(authority, pair) if pair else None)
    client = bench.client()
    if lets_in:
        reserve, _ = go_through(starttls(client, tls), fake)
        shown = pair and setting != "none"
        assert reserve.identity == ("dn:CN=alice,O=Test" if shown else "")
        return
    with pytest.raises((OSError, Closed)):
        starttls(client, tls).list()


def test_export_name_works_by_tls(bench, nbd_tls, authority):
    fake = bench.export()
    begin(bench, nbd_tls.path, TLS="require")
    client = starttls(bench.client(), context(authority, authority.alice))
    client.send_option(wire.OPT_EXPORT_NAME, b"disk")
    end = fake.ready()
    end.grant(end.expect(RESERVE, identity="dn:CN=alice,O=Test"))
    assert client.unpack(">QH")[0] == end.SIZE
    handed = end.receive_client()
    handed.sendall(b"data")
    assert client.recv(4) == b"data"


# Refusals --------------------------------------------------------------------------------


def test_starttls_is_refused_where_tls_is_off(bench, nbd_tls):
    bench.export()
    begin(bench, nbd_tls.path)
    client = bench.client()
    (answer,) = client.option(wire.OPT_STARTTLS)
    assert answer.type == wire.REP_ERR_POLICY and "not configured" in answer.text
    assert client.list() == LISTED


def test_one_export_with_tls_is_enough_to_offer_it(bench, nbd_tls, authority):
    bench.export()
    bench.export("open")
    bench.export("disk", TLS="require")
    begin(bench, nbd_tls.path)
    client = bench.client()
    assert client.list() == [(b"open", b"")]
    answer = client.option(wire.OPT_GO, wire.go_payload("disk"))[-1]
    assert answer.type == wire.REP_ERR_TLS_REQD
    assert answer.text == "use TLS first: export 'disk' is not served without it"
    starttls(client, context(authority, authority.alice))
    assert client.list() == LISTED


OPTIONS = {
    "list": (wire.OPT_LIST, b""),
    "peek": (wire.OPT_PEEK_EXPORT, b""),
    "info": (wire.OPT_INFO, wire.go_payload("disk", [wire.INFO_BLOCK_SIZE])),
    "go": (wire.OPT_GO, wire.go_payload("disk")),
    "structured": (wire.OPT_STRUCTURED_REPLY, b""),
    "list-meta": (wire.OPT_LIST_META_CONTEXT, wire.meta_payload("disk", [])),
    "set-meta": (wire.OPT_SET_META_CONTEXT, wire.meta_payload("disk", ["base:allocation"])),
    "extended": (wire.OPT_EXTENDED_HEADERS, b""),
    "unknown": (4711, b"x" * 1000),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_before_tls_that_is_required_every_option_is_refused(bench, nbd_tls, authority, name):
    bench.export()
    process = begin(bench, nbd_tls.path, TLS="require")
    client = bench.client()
    answer = client.option(*OPTIONS[name])
    assert [reply.type for reply in answer] == [wire.REP_ERR_TLS_REQD] and answer[0].text
    assert "(tls-required)" in process.log
    assert starttls(client, context(authority, authority.alice)).list() == LISTED


def test_before_tls_that_is_required_export_name_closes_and_abort_is_acknowledged(bench, nbd_tls):
    bench.export()
    process = begin(bench, nbd_tls.path, TLS="require")
    with pytest.raises(Closed):
        bench.client().export_name("disk")
    wait_until(lambda: "(tls-required)" in process.log, "the entry")
    client = bench.client()
    assert client.result(wire.OPT_ABORT) == wire.REP_ACK
    assert is_closed(client)


def test_a_second_starttls_is_invalid_and_the_client_goes_on(bench, nbd_tls, authority):
    bench.export()
    begin(bench, nbd_tls.path, TLS="allow")
    client = starttls(bench.client(), context(authority, authority.alice))
    assert client.result(wire.OPT_STARTTLS) == wire.REP_ERR_INVALID
    assert client.list() == LISTED


@pytest.mark.parametrize("secure", [False, True], ids=["in clear", "by TLS"])
def test_starttls_with_payload_is_refused_and_closes(bench, nbd_tls, authority, secure):
    bench.export()
    begin(bench, nbd_tls.path, TLS="allow")
    client = bench.client()
    if secure:
        starttls(client, context(authority, authority.alice))
    assert client.result(wire.OPT_STARTTLS, b"\0" * 8) == wire.REP_ERR_INVALID
    assert is_closed(client)


# What somebody in between might put in -----------------------------------------------------


TLS_HELLO = bytes.fromhex("1603010200010001fc0303") + bytes(502)


@pytest.mark.parametrize("behind", [b"\0", wire.option_header(wire.OPT_LIST, 0), TLS_HELLO,
                                    b"x" * 100_000], ids=["a byte", "LIST", "TLS", "much"])
def test_bytes_behind_starttls_close_the_connection(bench, nbd_tls, behind):
    bench.export()
    process = begin(bench, nbd_tls.path, TLS="allow")
    client = bench.client()
    client.send(wire.option_header(wire.OPT_STARTTLS, 0) + behind)
    with contextlib.suppress(ConnectionResetError):
        assert client.sock.recv(1) == b"", "STARTTLS was acknowledged"
    wait_until(lambda: "before the TLS handshake" in process.log, "the entry")
    assert "EVENT=" not in process.log and "(protocol)" in process.log


def test_bytes_that_come_while_nbd_tls_is_awaited_close_the_connection(bench, tmp_path):
    """nbd-tls is played: it says what it can only when the bytes are there."""
    bench.export()
    with fake_tls(tmp_path) as listener:
        process = begin(bench, tmp_path / "tls", TLS="allow")
        client = bench.client()
        client.send_option(wire.OPT_STARTTLS)
        with listener.accept()[0] as channel:
            client.send(wire.option_header(wire.OPT_LIST, 0))
            channel.send(hello())
            assert is_closed(client)
            assert "before the TLS handshake" in process.log


@pytest.mark.parametrize("name", OPTIONS)
def test_nothing_that_was_chosen_in_clear_holds_behind_tls(bench, nbd_tls, authority, name):
    fake = bench.export()
    begin(bench, nbd_tls.path, TLS="allow")
    client = bench.client()
    if name == "set-meta":
        client.structured_reply()
    if name in ("info", "list-meta", "set-meta"):
        client.send_option(*OPTIONS[name])
        end = fake.ready()
        assert not client.receive_replies(OPTIONS[name][0])[-1].is_error
    elif name != "go":
        client.option(*OPTIONS[name])
        end = None
    else:
        client.option(wire.OPT_GO, wire.go_payload("nothing"))
        end = None
    starttls(client, context(authority, authority.alice))
    # Contexts need structured replies, which have been forgotten.
    assert client.result(*OPTIONS["set-meta"]) == wire.REP_ERR_INVALID
    client.send_option(wire.OPT_GO, wire.go_payload("disk"))
    end = end or fake.ready()
    reserve = end.expect(RESERVE)
    assert reserve.mode == wire.SIMPLE and reserve.contexts == []
    end.grant(reserve)
    wire.parse_info(client.receive_replies(wire.OPT_GO))


def test_plaintext_between_the_acknowledgement_and_tls_ends_the_handshake(bench, nbd_tls):
    bench.export()
    begin(bench, nbd_tls.path, TLS="allow")
    client = bench.client()
    client.must(wire.OPT_STARTTLS)
    client.send(wire.option_header(wire.OPT_LIST, 0))
    assert is_closed(client)
    nbd_tls.logged("tls-handshake-failed")


def test_plaintext_in_the_middle_of_the_tls_handshake_ends_it(bench, nbd_tls, authority):
    """Every byte of the client's first flight may be the one behind which it comes."""
    bench.export()
    begin(bench, nbd_tls.path, TLS="allow")
    flight = first_flight(authority)
    for cut in sorted({1, 3, 5, 6, 40, len(flight) - 1}):
        client = bench.client()
        client.must(wire.OPT_STARTTLS)
        client.send(flight[:cut] + wire.option_header(wire.OPT_LIST, 0) + bytes(len(flight)))
        assert is_closed(client), f"after {cut} bytes"


def first_flight(authority):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context(authority).wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def test_requests_may_follow_go_in_one_piece(bench, nbd_tls, authority):
    """The negotiator takes no byte that is the export's, behind TLS as before."""
    fake = bench.export()
    begin(bench, nbd_tls.path, TLS="require")
    client = starttls(bench.client(), context(authority, authority.alice))
    payload = wire.go_payload("disk")
    requests = os.urandom(300_000)
    sender = threading.Thread(target=client.send, daemon=True, args=(
        wire.option_header(wire.OPT_GO, len(payload)) + payload + requests,))
    sender.start()
    end = fake.ready()
    end.grant(end.expect(RESERVE))
    handed = end.receive_client()
    got = b""
    while len(got) < len(requests):
        got += handed.recv(1 << 20)
    assert got == requests
    sender.join(PATIENCE)


# Who is refused by nbd-tls --------------------------------------------------------------------


@pytest.mark.parametrize("pair, words", [
    ("expired", "CN=expired,.* was refused: .*expired"),
    ("early", "CN=early,.* was refused: .*not (yet )?(valid|activated)"),
    ("purposeless", "CN=purposeless,.* was refused: .*purpose"),
    ("mallory", "CN=mallory,.* was refused: .*revoked"),
    ("stranger", "CN=stranger,.* was refused: .*(issuer is unknown|not trusted)"),
])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3],
                         ids=["1.2", "1.3"])
def test_a_bad_certificate_is_refused_and_the_log_says_whose_and_why(bench, nbd_tls, authority,
                                                                     pair, words, version):
    bench.export()
    process = begin(bench, nbd_tls.path, TLS="allow")
    with pytest.raises((OSError, Closed)):
        starttls(bench.client(), context(authority, getattr(authority, pair), version)).list()
    nbd_tls.logged(words)
    assert len(re.findall("tls-untrusted", nbd_tls.text() + process.log)) == 1


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_a_client_that_takes_tls_back_is_closed(bench, nbd_tls, authority):
    """A downgrade: after the acknowledgement it goes on in clear, or only by old versions."""
    bench.export()
    begin(bench, nbd_tls.path, TLS="require")
    client = bench.client()
    client.must(wire.OPT_STARTTLS)
    client.send(wire.option_header(wire.OPT_GO, 8) + wire.go_payload("disk")[:8])
    assert is_closed(client)
    tls = context(authority, authority.alice)
    tls.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    tls.maximum_version = ssl.TLSVersion.TLSv1_1
    tls.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((OSError, Closed)):
        starttls(bench.client(), tls).list()


@pytest.mark.parametrize("sent", [0, 20], ids=["nothing", "half a hello"])
def test_a_tls_handshake_that_stalls_ends_with_the_time_for_the_whole_one(bench, nbd_tls,
                                                                          authority, sent):
    bench.export()
    begin(bench, nbd_tls.path, "--handshake-timeout=3", TLS="require")
    client = bench.client()
    client.must(wire.OPT_STARTTLS)
    client.send(first_flight(authority)[:sent])
    assert is_closed(client)
    nbd_tls.logged("tls-timeout")


def test_a_client_that_stalls_behind_tls_is_closed_in_time(bench, nbd_tls, authority):
    bench.export()
    process = begin(bench, nbd_tls.path, "--handshake-timeout=3", TLS="require")
    client = starttls(bench.client(), context(authority, authority.alice))
    assert client.list() == LISTED
    assert is_closed(client)
    wait_until(lambda: "the handshake took longer than 3 s" in process.log, "the entry")


def test_a_client_that_leaves_at_any_moment_harms_nobody(bench, nbd_tls, authority):
    bench.export()
    begin(bench, nbd_tls.path, TLS="allow")
    flight = first_flight(authority)
    for sent in [None, *range(0, len(flight), 60)]:
        client = bench.client()
        client.send_option(wire.OPT_STARTTLS)
        if sent is not None:
            client.receive_replies(wire.OPT_STARTTLS)
            client.send(flight[:sent])
        client.close()
    assert starttls(bench.client(), context(authority, authority.alice)).list() == LISTED


def test_a_thousand_half_open_handshakes_keep_nobody_waiting(bench, nbd_tls, authority):
    n = 1000
    bench.export()
    begin(bench, nbd_tls.path, TLS="allow", MaxHandshakes=4096, MaxHandshakesPerSource=2048)
    idle = [bench.client(at=HERE) for _ in range(n)]
    for client in idle:
        client.send_option(wire.OPT_STARTTLS)
    for client in idle:
        assert client.receive_reply(wire.OPT_STARTTLS).type == wire.REP_ACK
    wait_until(lambda: f", {n} in the handshake" in last_status(nbd_tls), "all of them to be there")
    assert starttls(bench.client(), context(authority, authority.alice)).list() == LISTED
    assert bench.client().list() == LISTED


def last_status(program):
    program.notify.settimeout(PATIENCE)
    return program.notify.recv(4096).decode()


# Programs that are not there, or end --------------------------------------------------------


def test_without_nbd_tls_the_client_is_told_and_goes_on_in_clear(bench, tmp_path):
    bench.export()
    process = begin(bench, tmp_path / "nobody", TLS="allow")
    client = bench.client()
    (answer,) = client.option(wire.OPT_STARTTLS)
    assert answer.type == wire.REP_ERR_PLATFORM and "does not listen" in answer.text
    assert "(tls-unavailable)" in process.log
    assert client.list() == LISTED


def test_an_nbd_tls_that_does_not_answer_is_given_up(bench, tmp_path):
    bench.export()
    with fake_tls(tmp_path):
        begin(bench, tmp_path / "tls", "--start-timeout=1", TLS="allow")
        client = bench.client()
        (answer,) = client.option(wire.OPT_STARTTLS)
        assert answer.type == wire.REP_ERR_PLATFORM
        assert answer.text == "nbd-tls did not answer within 1 s"
        assert client.list() == LISTED


def test_an_nbd_tls_without_keys_is_no_help(bench, tmp_path):
    bench.export()
    with fake_tls(tmp_path) as listener:
        begin(bench, tmp_path / "tls", TLS="allow")
        client = bench.client()
        client.send_option(wire.OPT_STARTTLS)
        with listener.accept()[0] as channel:
            channel.send(hello(0))
            (answer,) = client.receive_replies(wire.OPT_STARTTLS)
            assert answer.type == wire.REP_ERR_PLATFORM and "no keys" in answer.text


@pytest.mark.parametrize("data", [b"", b"\1", b"\1\1\0\0\0\0\0\x0b" + b"\xff" * 11,
                                  record_bytes(16, struct.pack(">IIBH", 1, 1, 0, 0)),
                                  record_bytes(2, bytes(30)), bytes(20_000)],
                         ids=["nothing", "a byte", "nonsense", "a negotiator's", "too short",
                              "too long"])
def test_a_hostile_nbd_tls_ends_its_channel_and_nothing_else(bench, tmp_path, data):
    bench.export()
    with fake_tls(tmp_path) as listener:
        process = begin(bench, tmp_path / "tls", TLS="allow")
        client = bench.client()
        client.send_option(wire.OPT_STARTTLS)
        with listener.accept()[0] as channel:
            if data:
                channel.send(data)
                assert channel.recv(1) == b""
        (answer,) = client.receive_replies(wire.OPT_STARTTLS)
        assert answer.type == wire.REP_ERR_PLATFORM
        assert client.list() == LISTED
        assert not data or "broke the channel's protocol" in process.log


@pytest.mark.parametrize("kind", ["nothing", "file", "datagram", "listening"])
def test_a_session_needs_a_socket_of_the_right_kind(bench, tmp_path, kind):
    bench.export()
    with fake_tls(tmp_path) as listener:
        process = begin(bench, tmp_path / "tls", TLS="allow")
        client = bench.client()
        client.send_option(wire.OPT_STARTTLS)
        with listener.accept()[0] as channel:
            channel.send(hello())
            client.receive_replies(wire.OPT_STARTTLS)
            data, fds, _, _ = socket.recv_fds(channel, 4096, 4)
            (request,) = struct.unpack_from(">I", data, 8)
            [os.close(fd) for fd in fds]
            socket.send_fds(channel, [established(request)], wrong_descriptors(kind))
            assert is_closed(client)
            wait_until(lambda: "broke the channel's protocol" in process.log, "the entry")
    assert bench.client().list() == LISTED


def test_answers_that_nobody_waits_for_are_dropped(bench, tmp_path):
    bench.export()
    with fake_tls(tmp_path) as listener:
        process = begin(bench, tmp_path / "tls", TLS="allow")
        client = bench.client()
        client.send_option(wire.OPT_STARTTLS)
        with listener.accept()[0] as channel:
            channel.send(hello())
            client.receive_replies(wire.OPT_STARTTLS)
            data, fds, _, _ = socket.recv_fds(channel, 4096, 4)
            (request,) = struct.unpack_from(">I", data, 8)
            ours, theirs = socket.socketpair()
            socket.send_fds(channel, [established(request + 7)], [theirs.fileno()])
            theirs.close()
            channel.send(record_bytes(3, struct.pack(">IIH", request + 8, 18, 0)))
            channel.send(record_bytes(4, struct.pack(">QI", 4711, 14)))
            ours.settimeout(PATIENCE)
            assert ours.recv(1) == b"", "its descriptor was kept"
            socket.send_fds(channel, [established(request)], fds)
            [os.close(fd) for fd in fds]
            assert client.list() == LISTED
            assert "broke" not in process.log


def test_a_hello_again_is_what_counts(bench, tmp_path):
    """Its keys have changed."""
    bench.export()
    with fake_tls(tmp_path) as listener:
        begin(bench, tmp_path / "tls", TLS="allow")
        client = bench.client()
        client.send_option(wire.OPT_STARTTLS)
        with listener.accept()[0] as channel:
            channel.send(hello(0))
            assert client.receive_replies(wire.OPT_STARTTLS)[-1].is_error
            channel.send(hello())
            wait_until(lambda: client.result(wire.OPT_STARTTLS) == wire.REP_ACK, "the keys")


@pytest.mark.parametrize("option", ["--tls-policy=maybe", "--client-certificate=yes"])
def test_a_word_that_is_no_policy_is_wrong_usage(programs, option):
    done = subprocess.run([programs.negotiator, option], capture_output=True, text=True,
                          check=False, timeout=PATIENCE)
    assert done.returncode == 2 and option.split("=")[0] in done.stderr


def wrong_descriptors(kind):
    if kind == "nothing":
        return []
    if kind == "file":
        return [os.open("/dev/null", os.O_RDWR)]
    if kind == "datagram":
        return [socket.socketpair(type=socket.SOCK_DGRAM)[0].detach()]
    return [socket.create_server(("127.0.0.1", 0)).detach()]


def test_when_nbd_tls_is_killed_handshakes_end_and_new_ones_work(bench, start_tls, keys,
                                                                 authority, tmp_path):
    """As a service manager would, the test passes the same socket to the next one."""
    bench.export()
    first = start_tls(keys)
    process = begin(bench, first.path, TLS="allow")
    before = bench.client()
    clear = bench.client()
    before.must(wire.OPT_STARTTLS)
    inside = starttls(bench.client(), context(authority, authority.alice))
    first.child.send_signal(signal.SIGTERM)
    first.child.wait(PATIENCE)
    assert is_closed(before) and is_closed(inside)
    wait_until(lambda: "nbd-tls has ended: closing" in process.log, "the entry")
    assert clear.list() == LISTED
    (tmp_path / "again").mkdir()
    os.unlink(first.path)
    second = start_tls(keys, folder=tmp_path / "second")
    os.symlink(second.path, first.path)
    assert starttls(clear, context(authority, authority.alice)).list() == LISTED


def test_a_client_handed_over_stays_when_the_negotiator_ends(bench, nbd_tls, authority):
    fake = bench.export()
    process = begin(bench, nbd_tls.path, TLS="require")
    client = starttls(bench.client(), context(authority, authority.alice))
    other = starttls(bench.client(), context(authority, authority.alice))
    _, handed = go_through(client, fake)
    process.kill()
    assert is_closed(other)
    handed.sendall(b"still here")
    assert client.recv(10) == b"still here"


def test_new_keys_and_a_new_policy_hold_for_the_next_client(bench, nbd_tls, authority):
    fake = bench.export()
    process = begin(bench, nbd_tls.path, TLS="allow")
    inside = starttls(bench.client(), context(authority, authority.alice))
    waiting = bench.client()
    bench.config.write_text("[Negotiator]\nTLS=require\n")
    process.child.send_signal(signal.SIGHUP)
    wait_until(lambda: "settings were read again" in process.log, "the reload")
    assert waiting.result(wire.OPT_LIST) == wire.REP_ERR_TLS_REQD
    reserve, _ = go_through(inside, fake)
    assert reserve.identity == "dn:CN=alice,O=Test"


class Moody:
    """An nbd-tls that does at random what one can do, well or badly, until it is told to end."""

    def __init__(self, path, rng):
        self.rng, self.n_answers = rng, 0
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(path))
        self.listener.listen(4)
        self.stop, stopped = socket.socketpair()
        self.thread = threading.Thread(target=self.run, args=[stopped], daemon=True)
        self.thread.start()

    def run(self, stopped):
        channel = None
        while True:
            ready = select.select([channel or self.listener, stopped], [], [])[0]
            if stopped in ready:
                break
            if channel is None:
                channel = self.listener.accept()[0]
                with contextlib.suppress(OSError):
                    channel.send(hello())
            elif not self.answer(channel):
                channel.close()
                channel = None
        for sock in (channel, stopped, self.listener):
            if sock:
                sock.close()

    def answer(self, channel):
        """False: the channel is over."""
        fds = []
        try:
            data, fds, _, _ = socket.recv_fds(channel, 4096, 4)
            if not data or self.rng.random() < 0.05:
                return False
            if data[1] == START:
                self.say(channel, struct.unpack_from(">I", data, 8)[0], fds)
        except OSError:
            return False
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def say(self, channel, request, fds):
        mood = self.rng.random()
        self.n_answers += 1
        if mood < 0.5:
            socket.send_fds(channel, [established(request)], fds)
        elif mood < 0.7:
            channel.send(record_bytes(3, struct.pack(">IIH", request, 19, 0)))
        elif mood < 0.8:
            channel.send(hello())
        elif mood < 0.85:
            socket.send_fds(channel, [established(request ^ 1)], fds)
        elif mood < 0.9:
            channel.send(self.rng.randbytes(self.rng.randrange(1, 200)))

    def end(self):
        self.stop.close()
        self.thread.join(PATIENCE)


def test_whatever_nbd_tls_and_clients_do_the_negotiator_lives_on(bench, tmp_path, counts):
    rng = seeded()
    bench.export()
    process = begin(bench, tmp_path / "tls", "--handshake-timeout=1", "--start-timeout=1",
                    TLS="allow", MaxHandshakes=64)
    moody = Moody(tmp_path / "tls", random.Random(rng.random()))
    idle = []
    before = process.n_fds()
    for i in range(counts(2000, 20_000)):
        with contextlib.suppress(Closed, OSError):
            client = bench.client()                     # or there are too many
            idle.append(client)
            client.send_option(wire.OPT_STARTTLS)
            if rng.random() < 0.8:
                client.receive_replies(wire.OPT_STARTTLS)
            if rng.random() < 0.6:
                client.sock.settimeout(0.02)
                client.send_option(wire.OPT_LIST)
                client.recv(20)
        if idle and rng.random() < 0.7:
            idle.pop(rng.randrange(len(idle))).close()
        if i % 100 == 50:
            process.child.send_signal(signal.SIGHUP)
    for client in idle:
        client.close()
    wait_until(lambda: process.n_fds() <= before + 1, "all descriptors to be closed")
    moody.end()
    assert moody.n_answers > counts(300, 3000)
    assert bench.client().list() == LISTED


# An nbd-tls that a test plays


@contextlib.contextmanager
def fake_tls(folder):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.settimeout(PATIENCE)
        listener.bind(str(folder / "tls"))
        listener.listen(4)
        yield listener


def hello(can=X509):
    return record_bytes(HELLO, struct.pack(">BQH", can, 0, 0))


def established(request):
    version, cipher = b"TLS1.3", b"X"
    return record_bytes(2, struct.pack(">IQ", request, 1) + struct.pack(">H6s", 6, version) +
                        struct.pack(">H1s", 1, cipher) + b"\1" + bytes(8))
