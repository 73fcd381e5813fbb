# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may do what by TLS: a real negotiator, and an nbd-tls and exports that a test plays."""

import contextlib
import os
import signal
import socket
import struct

import pytest

import nbdwire as wire
from conftest import wait_until
from nbdchannel import REASON, REFUSAL, RESERVE, RIGHT_READ, RIGHT_WRITE
from nbdwire import PATIENCE
from negotiator_bench import Bench
from tlschannel import ANONYMOUS, BY_PSK, BY_X509, ESTABLISHED, HELLO, PSK, VERIFY, X509
from tlschannel import record_bytes
from tlsfixtures import context, starttls

HERE = "127.0.0.1"
READ_ONLY = 1 << 1
PRINT = "0123456789abcdef" * 4


def text(value):
    data = value.encode()
    return struct.pack(">H", len(data)) + data


class Identity:
    """What nbd-tls tells of a client."""

    def __init__(self, method=BY_X509, subject="", psk="", names=()):
        self.method, self.subject, self.psk, self.names = method, subject, psk, names

    def record(self, request):
        body = struct.pack(">IQ", request, 1) + text("TLS1.3") + text("TLS_TEST")
        body += struct.pack(">B", self.method) + text(self.subject)
        body += text(PRINT if self.method == BY_X509 else "") + text(self.psk)
        body += struct.pack(">H", len(self.names)) + b"".join(map(text, self.names))
        return record_bytes(ESTABLISHED, body)


ALICE = Identity(subject="CN=alice,O=Example", names=(
    "dns:web1.example.org", "email:alice@example.org", "uri:spiffe://example.org/web1",
    "ip:192.0.2.7", "ip:2001:db8::7"))
BOB = Identity(BY_PSK, psk="bob")
SOMEBODY = Identity(subject="CN=somebody,O=Else")
NOBODY = Identity(ANONYMOUS)


class FakeTls:
    """An nbd-tls that gives back the client's own unix socket, so all goes on in clear."""

    def __init__(self, path):
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.settimeout(PATIENCE)
        self.listener.bind(str(path))
        self.listener.listen(4)
        self.channel = None

    def starttls(self, client, identity):
        client.send_option(wire.OPT_STARTTLS)
        if self.channel is None:
            self.channel = self.listener.accept()[0]
            self.channel.settimeout(PATIENCE)
            self.channel.send(record_bytes(HELLO, struct.pack(">BQH", X509 | PSK | VERIFY, 0, 0)))
        assert client.receive_replies(wire.OPT_STARTTLS)[-1].type == wire.REP_ACK
        data, fds, _, _ = socket.recv_fds(self.channel, 4096, 1)
        (request,) = struct.unpack_from(">I", data, 8)
        socket.send_fds(self.channel, [identity.record(request)], fds)
        [os.close(fd) for fd in fds]
        return client

    def close(self):
        self.listener.close()
        if self.channel:
            self.channel.close()


@pytest.fixture
def bench(tmp_path, programs):
    with contextlib.ExitStack() as stack:
        bench = Bench(stack, tmp_path / "bench", programs.negotiator, make=True)
        bench.config = bench.folder / "negotiator.conf"
        bench.config.write_text("[Negotiator]\nTLS=allow\n")
        bench.tls = FakeTls(tmp_path / "tls")
        stack.callback(bench.tls.close)
        bench.tls_path = tmp_path / "tls"
        yield bench


def start(bench):
    return bench.start(f"--config={bench.config}", f"--tls={bench.tls_path}")


def comes(bench, identity):
    """A client in the handshake; None: in clear."""
    client = bench.client()
    return bench.tls.starttls(client, identity) if identity else client


def names_of(client):
    return [name.decode() for name, _ in client.list()]


def export(bench, label, *rules, **keys):
    """An export with these rules of Identity=."""
    fake = bench.export(label, **keys)
    path = bench.exports / f"{label}.conf"
    path.write_text(path.read_text() + "".join(f"Identity={rule}\n" for rule in rules))
    return fake


def answer(client, option, name):
    """The last reply to an option about that export."""
    payload = (wire.meta_payload(name, []) if option == wire.OPT_LIST_META_CONTEXT
               else wire.go_payload(name, [wire.INFO_BLOCK_SIZE]))
    return client.option(option, payload)[-1]


def reserved(client, fake, name="disk"):
    """What a client that GOes there reserves, which must get that far."""
    client.send_option(wire.OPT_GO, wire.go_payload(name))
    return fake.ready().expect(RESERVE)


# Each kind of rule --------------------------------------------------------------------------


@pytest.mark.parametrize("rule, who, others", [
    ("dn:CN=alice,O=Example", ALICE, [SOMEBODY, BOB]),
    ("dn:CN=*,O=Example", ALICE, [SOMEBODY, BOB, Identity(subject="CN=eve\\,O=Example"),
                                 Identity(subject="CN=eve,OU=x,O=Example")]),
    ("dns:web1.example.org", ALICE, [SOMEBODY, BOB, Identity(subject="CN=web1.example.org")]),
    ("dns:*.example.org", ALICE, [Identity(names=["dns:example.org"]),
                                  Identity(names=["dns:a.b.example.org"]),
                                  Identity(names=["dns:web1.example.org.evil"])]),
    ("email:*@example.org", ALICE, [Identity(names=["email:alice@example.org.evil"]),
                                    Identity(names=["dns:alice@example.org"])]),
    ("uri:spiffe://example.org/*", ALICE, [Identity(names=["uri:spiffe://evil.org/web1"])]),
    ("ip:192.0.2.0/24", ALICE, [Identity(names=["ip:192.0.3.7"]),
                                Identity(names=["dns:192.0.2.7"])]),
    ("ip:2001:db8::/32", ALICE, [Identity(names=["ip:2001:db9::7"])]),
    ("psk:bob", BOB, [ALICE, Identity(BY_PSK, psk="bobby"), Identity(subject="bob")]),
    (f"fingerprint:{PRINT}", ALICE, [BOB, NOBODY]),
    ("any", SOMEBODY, [NOBODY]),
    ("any", BOB, [NOBODY]),
])
def test_a_rule_lets_in_whom_it_names_and_nobody_else(bench, rule, who, others):
    fake = export(bench, "disk", f"write {rule}")
    start(bench)
    for other in [*others, NOBODY]:
        client = comes(bench, other)
        assert names_of(client) == []
        assert answer(client, wire.OPT_GO, "disk").type == wire.REP_ERR_UNKNOWN
    assert fake.nobody_waits()
    client = comes(bench, who)
    assert names_of(client) == ["disk"]
    assert reserved(client, fake).rights == RIGHT_READ | RIGHT_WRITE


def test_a_real_certificate_says_who_it_is(bench, start_tls, keys, authority):
    fake = export(bench, "disk", "read uri:spiffe://example.org/*")
    bench.tls_path = start_tls(keys).path
    start(bench)
    assert starttls(bench.client(), context(authority, authority.server)).client_flags
    client = starttls(bench.client(), context(authority, authority.alice))
    assert names_of(client) == ["disk"]
    reserve = reserved(client, fake)
    assert reserve.rights == RIGHT_READ and reserve.identity == "dn:CN=alice,O=Test"


# What a right is good for -------------------------------------------------------------------


ASKING = [wire.OPT_INFO, wire.OPT_GO, wire.OPT_LIST_META_CONTEXT]


def test_list_shows_what_go_would_allow(bench):
    """One client after the other, at exports that let in different ones."""
    rules = {"a": ["write dn:CN=alice,*"], "b": ["write psk:bob"], "both": ["read any"],
             "seen": ["list psk:*", "read dns:*.example.org"], "open": []}
    fakes = {label: export(bench, label, *lines) for label, lines in rules.items()}
    ends = {}
    start(bench)
    may = {None: {"open"}, NOBODY: {"open"}, ALICE: {"a", "both", "seen", "open"},
           BOB: {"b", "both", "open"}}
    listed = {**may, BOB: may[BOB] | {"seen"}}
    for who, exports in may.items():
        client = comes(bench, who)
        assert set(names_of(client)) == listed[who]
        for label, fake in fakes.items():
            client.send_option(wire.OPT_INFO, wire.go_payload(label, [wire.INFO_BLOCK_SIZE]))
            if label in exports and label not in ends:
                ends[label] = fake.ready()
            assert client.receive_replies(wire.OPT_INFO)[-1].is_error == (label not in exports)


def test_who_may_only_read_is_told_so(bench):
    fake = export(bench, "disk", "read any")
    start(bench)
    client = comes(bench, ALICE)
    client.send_option(wire.OPT_INFO, wire.go_payload("disk", [wire.INFO_BLOCK_SIZE]))
    end = fake.ready()
    assert wire.parse_info(client.receive_replies(wire.OPT_INFO)).flags & READ_ONLY
    client.send_option(wire.OPT_GO, wire.go_payload("disk"))
    assert end.expect(RESERVE).rights == RIGHT_READ


def test_who_may_only_list_is_told_why_it_gets_no_further(bench):
    fake = export(bench, "disk", "list any")
    process = start(bench)
    client = comes(bench, ALICE)
    assert names_of(client) == ["disk"]
    for option in ASKING:
        told = answer(client, option, "disk")
        assert told.type == wire.REP_ERR_POLICY and "not to be used" in told.text
    assert fake.nobody_waits()
    assert "dn:CN=alice,O=Example may only list it (the export's file)" in process.log


def test_in_clear_the_client_is_told_to_use_tls(bench):
    fake = export(bench, "disk", "write any")
    process = start(bench)
    client = comes(bench, None)
    assert names_of(client) == []
    for option in ASKING:
        assert answer(client, option, "disk").type == wire.REP_ERR_TLS_REQD
    assert fake.nobody_waits()
    assert "it is not served without TLS (Identity= asks who it is) (tls-required)" in process.log


def test_the_first_rule_that_matches_counts(bench):
    fake = export(bench, "disk", "read dns:web1.example.org", "write any")
    start(bench)
    assert reserved(comes(bench, ALICE), fake).rights == RIGHT_READ


def test_an_address_and_an_identity_are_both_needed(bench):
    export(bench, "far", "write any", Allow="192.0.2.1")
    near = export(bench, "near", "write any", Allow="local:read")
    start(bench)
    client = comes(bench, ALICE)
    assert names_of(client) == ["near"]
    assert answer(client, wire.OPT_GO, "far").type == wire.REP_ERR_UNKNOWN
    assert reserved(client, near, "near").rights == RIGHT_READ


def test_rules_for_all_hold_where_an_export_has_none(bench):
    bench.config.write_text("[Negotiator]\nTLS=allow\nIdentity=read psk:*\n"
                            "Identity=write dn:CN=alice,*\n")
    export(bench, "own", "write dn:CN=somebody,*")
    export(bench, "common")
    start(bench)
    assert names_of(comes(bench, ALICE)) == ["common"]
    assert names_of(comes(bench, BOB)) == ["common"]
    assert names_of(comes(bench, SOMEBODY)) == ["own"]
    assert names_of(comes(bench, None)) == []


def test_new_rules_hold_for_a_client_from_its_next_option_on(bench):
    export(bench, "disk", "write any")
    process = start(bench)
    client = comes(bench, ALICE)
    assert names_of(client) == ["disk"]
    (bench.exports / "disk.conf").write_text("[Export]\nDevice=/dev/null\nIdentity=read psk:x\n")
    process.child.send_signal(signal.SIGHUP)
    wait_until(lambda: "settings were read again" in process.log, "the reload")
    assert names_of(client) == []


# The log ------------------------------------------------------------------------------------


def test_a_refusal_is_one_line_that_says_who_it_was_and_the_export_hears_of_it(bench):
    fake = export(bench, "disk", "write dn:CN=alice,O=Example")
    process = start(bench)
    end = None
    alice = comes(bench, ALICE)
    alice.send_option(wire.OPT_GO, wire.go_payload("disk"))
    end = fake.ready()
    end.expect(RESERVE)
    assert answer(comes(bench, SOMEBODY), wire.OPT_GO, "disk").type == wire.REP_ERR_UNKNOWN
    (line,) = [line for line in process.log.splitlines() if "no rule of Identity=" in line]
    assert "(the export's file) is for dn:CN=somebody,O=Else (no-access)" in line
    told = end.expect(REFUSAL, reason=REASON["no-access"])
    assert "dn:CN=somebody,O=Else" in told.sentence


def test_an_export_hears_of_a_client_that_came_in_clear_where_it_requires_tls(bench):
    fake = export(bench, "disk", TLS="require")
    start(bench)
    alice = comes(bench, ALICE)
    alice.send_option(wire.OPT_GO, wire.go_payload("disk"))
    end = fake.ready()
    end.expect(RESERVE)
    assert answer(comes(bench, None), wire.OPT_GO, "disk").type == wire.REP_ERR_TLS_REQD
    told = end.expect(REFUSAL, reason=REASON["tls-required"])
    assert "it is not served without TLS (TLS=require)" in told.sentence


def test_an_identity_without_a_name_is_its_fingerprint_and_a_long_one_is_cut(bench):
    fake = export(bench, "disk", "write any")
    start(bench)
    client = comes(bench, Identity())
    client.send_option(wire.OPT_GO, wire.go_payload("disk"))
    end = fake.ready()
    assert end.expect(RESERVE).identity == f"fingerprint:{PRINT}"
    other = comes(bench, Identity(subject="CN=" + "ä" * 1000))
    other.send_option(wire.OPT_GO, wire.go_payload("disk"))
    told = end.expect(RESERVE).identity
    assert told.startswith("dn:CN=ääää") and 1000 < len(told.encode()) <= 1024
