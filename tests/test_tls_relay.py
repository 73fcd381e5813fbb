# SPDX-License-Identifier: GPL-2.0-or-later
"""nbd-tls alone: the tests are the negotiator, the client, and what reads in clear."""

import concurrent.futures
import contextlib
import hashlib
import os
import pathlib
import re
import resource
import select
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time

import pytest

import tlschannel
from certificates import SERVER, day
from conftest import BUILD, MIB, needs_program, needs_root, run, wait_until
from nbdchannel import record_bytes
from nbdwire import PATIENCE
from test_abuse import is_sanitized
from tlsfixtures import PROGRAM, PSK_KEY, Program, context, put_keys
from tlschannel import (ANONYMOUS, BY_PSK, BY_X509, CANCEL, ENDED, FAILED, HELLO, OPTIONAL, PSK,
                        REQUIRED, VERIFY, X509, start_bytes)

PUMP = BUILD / "tests/tls/tls-pump"


@pytest.fixture
def program(start_tls, keys):
    return start_tls(keys)


@pytest.fixture
def channel(program, cleanup):
    channel = program.channel()
    cleanup.callback(channel.close)
    return channel


def tcp_pair():
    """A connected pair of TCP sockets: the client's, the server's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server = listener.accept()[0]
    client.settimeout(PATIENCE)
    return client, server


def unix_pair():
    client, server = socket.socketpair()
    client.settimeout(PATIENCE)
    return client, server


def connect(channel, tls, pair=tcp_pair, **fields):
    """A client in TLS: its socket, the record, the plain end."""
    client, server = pair()
    channel.start(server, **fields)
    client = tls.wrap_socket(client, server_hostname="localhost")
    record, plain = channel.established()
    return client, record, plain


def attempt(channel, tls, **fields):
    """A handshake that must fail: the FAILED record."""
    client, server = tcp_pair()
    channel.start(server, **fields)
    with client, contextlib.suppress(OSError):
        with tls.wrap_socket(client, server_hostname="localhost") as wrapped:
            wrapped.recv(1)
            pytest.fail("there is something to read")
    return channel.expect(FAILED)


def received(sock, n):
    """Exactly so many bytes."""
    data = bytearray()
    while len(data) < n:
        piece = sock.recv(min(n - len(data), MIB))
        assert piece, f"end of file after {len(data)} of {n} bytes"
        data += piece
    return bytes(data)


# Handshakes ----------------------------------------------------------------------


def test_hello_tells_what_there_are_keys_for(channel, program):
    assert channel.hello.can == X509 | PSK | VERIFY
    assert channel.hello.subject == "CN=server"
    assert 19 * 86400 < channel.hello.not_after - time.time() < 21 * 86400
    assert "certificate valid until 20" in program.status


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3],
                         ids=["1.2", "1.3"])
@pytest.mark.parametrize("pair", [tcp_pair, unix_pair])
def test_bytes_go_both_ways(channel, authority, version, pair):
    client, record, plain = connect(channel, context(authority, version=version), pair)
    with client, plain:
        assert record.version == {771: "TLS1.2", 772: "TLS1.3"}[version.value]
        assert record.cipher.startswith("TLS_")
        assert record.method == ANONYMOUS and not record.subject
        client.sendall(b"from the client")
        assert plain.recv(100) == b"from the client"
        plain.sendall(b"from the server")
        assert client.recv(100) == b"from the server"


def test_a_certificate_says_who_it_is(channel, authority, program):
    client, record, plain = connect(channel, context(authority, authority.alice),
                                    certificate=REQUIRED, peer="192.0.2.1:4711")
    with client, plain:
        der = ssl.PEM_cert_to_DER_cert(authority.alice[0].read_text())
        assert record.method == BY_X509
        assert record.subject in ("CN=alice,O=Test", "O=Test,CN=alice")
        assert record.fingerprint == hashlib.sha256(der).hexdigest()
        assert sorted(record.names) == ["dns:alice.example.org", "email:alice@example.org",
                                        "ip:192.0.2.7", "uri:spiffe://example.org/alice"]
        program.logged("192.0.2.1:4711.*TLS1.3, TLS_.*certificate .*CN=alice")


def test_a_certificate_is_not_asked_for_where_it_is_off(channel, authority):
    client, record, plain = connect(channel, context(authority, authority.alice))
    with client, plain:
        assert record.method == ANONYMOUS


def test_an_optional_certificate_may_be_missing(channel, authority):
    client, record, plain = connect(channel, context(authority), certificate=OPTIONAL)
    with client, plain:
        assert record.method == ANONYMOUS


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3],
                         ids=["1.2", "1.3"])
@pytest.mark.parametrize("certificate", [OPTIONAL, REQUIRED], ids=["optional", "required"])
@pytest.mark.parametrize("who, words", [
    ("stranger", "issuer is unknown"),
    ("expired", "expired"),
    ("early", "not yet"),
    ("purposeless", "purpose"),
    ("mallory", "revoked"),
])
def test_a_bad_certificate_is_refused_with_its_subject(channel, authority, program, certificate,
                                                       version, who, words):
    record = attempt(channel, context(authority, getattr(authority, who), version),
                     certificate=certificate)
    assert record.reason == "tls-untrusted"
    assert f"CN={who}" in record.sentence and words in record.sentence.lower(), record.sentence
    program.logged(f"CN={who}")


def test_a_missing_certificate_is_refused(channel, authority):
    record = attempt(channel, context(authority), certificate=REQUIRED)
    assert record.reason == "tls-untrusted" and "no certificate" in record.sentence


def gnutls_client(channel, *arguments, **fields):
    """gnutls-cli that has begun a handshake through a socket of ours."""
    needs_program("gnutls-cli")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = subprocess.Popen(["gnutls-cli", "--insecure", f"--port={listener.getsockname()[1]}",
                                  *arguments, "127.0.0.1"], stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        listener.settimeout(PATIENCE)
        channel.start(listener.accept()[0], **fields)
    return child


def finish(child):
    child.communicate(timeout=PATIENCE)


PSK_PRIORITY = "NORMAL:-KX-ALL:+ECDHE-PSK:+DHE-PSK:+PSK"


@pytest.mark.parametrize("version", ["TLS1.2", "TLS1.3"])
def test_a_pre_shared_key_says_who_it_is(channel, version):
    child = gnutls_client(channel, "--pskusername=bob", f"--pskkey={PSK_KEY}",
                          f"--priority={PSK_PRIORITY}:-VERS-ALL:+VERS-{version}",
                          certificate=REQUIRED)
    record, plain = channel.established(method=BY_PSK, psk="bob", version=version)
    with plain:
        assert not record.subject and not record.names
    finish(child)


@pytest.mark.parametrize("version", ["TLS1.2", "TLS1.3"])
@pytest.mark.parametrize("name, key, words", [("bob", "00" * 32, "does not have"),
                                              ("eve", PSK_KEY, "there is no")])
def test_a_wrong_pre_shared_key_is_refused(channel, version, name, key, words):
    child = gnutls_client(channel, f"--pskusername={name}", f"--pskkey={key}",
                          f"--priority={PSK_PRIORITY}:-VERS-ALL:+VERS-{version}")
    record = channel.expect(FAILED)
    assert record.reason == "tls-untrusted" and words in record.sentence and name in record.sentence
    assert key not in record.sentence
    finish(child)


def test_pre_shared_keys_work_without_certificates(start_tls, authority, tmp_path):
    channel = start_tls(put_keys(tmp_path / "psk", authority, server=False)).channel()
    assert channel.hello.can == PSK and channel.hello.subject == ""
    child = gnutls_client(channel, "--pskusername=host 2", f"--pskkey={'a7' * 32}",
                          f"--priority={PSK_PRIORITY}")
    _, plain = channel.established(psk="host 2")
    plain.close()
    finish(child)
    channel.close()


def test_old_versions_are_refused(channel):
    child = gnutls_client(channel, "--priority=NORMAL:-VERS-ALL:+VERS-TLS1.1:+VERS-TLS1.0")
    record = channel.expect(FAILED)
    assert record.reason == "tls-handshake-failed"
    finish(child)


def test_many_refusals_of_one_client_do_not_fill_the_log(channel, program):
    for _ in range(50):
        client, server = tcp_pair()
        channel.start(server, peer="192.0.2.7:4711")
        with client:
            client.send(b"GET / HTTP/1.0\r\n\r\n")
            channel.expect(FAILED)
    assert program.text().count("tls-handshake-failed") == 20
    channel.close()
    assert program.stop() == 0
    assert "client 192.0.2.7: 30 more refusals of clients from there" in program.text()


def test_what_is_not_tls_is_refused(channel):
    client, server = tcp_pair()
    with client:
        channel.start(server)
        client.sendall(b"IHAVEOPT" * 100)
        assert channel.expect(FAILED).reason == "tls-handshake-failed"
        with contextlib.suppress(ConnectionResetError):
            while client.recv(4096):
                pass


def test_a_client_that_leaves_in_the_handshake_is_told_of(channel):
    client, server = tcp_pair()
    channel.start(server)
    client.close()
    assert channel.expect(FAILED).reason == "peer-gone"


def test_a_handshake_that_stalls_ends_at_its_deadline(channel):
    client, server = tcp_pair()
    with client:
        began = time.monotonic()
        channel.start(server, deadline=300)
        assert channel.expect(FAILED).reason == "tls-timeout"
        assert 0.25 < time.monotonic() - began < 5
        assert client.recv(100) == b""


def test_a_handshake_can_be_cancelled(channel, authority):
    client, server = tcp_pair()
    with client:
        request = channel.start(server)
        channel.cancel(request)
        channel.cancel(77)
        assert client.recv(100) == b""
    client, record, plain = connect(channel, context(authority))
    client.close()
    plain.close()
    assert record.request == request + 1


def test_a_thousand_handshakes_that_stall_keep_nobody_waiting(authority, program):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    channel = program.channel()
    memory = pathlib.Path(f"/proc/{program.child.pid}/statm")
    before = int(memory.read_text().split()[1])
    clients = []
    try:
        for _ in range(1000):
            client, server = tcp_pair()
            channel.start(server, deadline=60000)
            client.sendall(b"\x16\x03\x01\x02\x00\x01")
            clients.append(client)
        began = time.monotonic()
        client, _, plain = connect(channel, context(authority))
        assert time.monotonic() - began < 5
        client.sendall(b"here")
        assert plain.recv(10) == b"here"
        after = int(memory.read_text().split()[1])
        assert is_sanitized(PROGRAM) or (after - before) * 4096 < 64 * MIB, "it costs too much"
        channel.close()
        # Its handshakes end with the channel, its session does not.
        assert all(c.recv(1) == b"" for c in clients)
        plain.sendall(b"still")
        assert client.recv(10) == b"still"
        client.close()
        plain.close()
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_of_clients_that_failed_only_so_many_linger(program):
    """Each stays open, and so would the sockets of nbd-tls, for seconds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    most = 256 * min(os.sysconf("SC_NPROCESSORS_ONLN"), 4)
    channel = program.channel()
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        poll = select.poll()
        for _ in range(most + 100):
            client, server = unix_pair()
            stack.enter_context(client)
            channel.start(server)
            client.sendall(b"IHAVEOPT")
            channel.expect(FAILED, reason="tls-handshake-failed")
            poll.register(client, 0)
        wait_until(lambda: len(poll.poll(0)) >= 100, "100 that do not linger",
                   patience=2)
    channel.close()


def test_there_are_no_more_sessions_than_descriptors(start_tls, keys):
    program = start_tls(keys, soft_limit=128)
    channel = program.channel()
    clients = []
    for _ in range((128 - 64) // 3):
        client, server = tcp_pair()
        channel.start(server, deadline=60000)
        clients.append(client)
    client, server = tcp_pair()
    channel.start(server)
    record = channel.expect(FAILED, reason="limit")
    assert record.sentence
    for client in clients:
        client.close()
        channel.expect(FAILED, reason="peer-gone")
    channel.close()


# The relay -----------------------------------------------------------------------


def test_the_end_of_one_direction_leaves_the_other(channel, authority):
    client, record, plain = connect(channel, context(authority))
    with plain:
        plain.sendall(b"the last words")
        plain.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b"the last words"
        assert client.recv(100) == b"", "close_notify is the end of file"
        client.sendall(b"yes, but")
        assert received(plain, 8) == b"yes, but"
        client.unwrap().close()
        assert plain.recv(10) == b""
    channel.expect(ENDED, session=record.session, reason="disconnect")


class MemoryClient:
    """A client whose every byte is ours to send or to keep."""

    def __init__(self, channel, tls, pair=tcp_pair):
        self.sock, server = pair()
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = tls.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        channel.start(server)
        self.run(self.tls.do_handshake)

    def run(self, step, *arguments):
        """Performs the step; sends and receives what it takes."""
        while True:
            try:
                result = step(*arguments)
                self.flush()
                return result
            except ssl.SSLWantReadError:
                self.flush()
                data = self.sock.recv(65536)
                self.incoming.write(data) if data else self.incoming.write_eof()

    def flush(self):
        self.sock.sendall(self.outgoing.read())

    def record(self, data):
        """The bytes of a record that has this data, unsent."""
        self.tls.write(data)
        return self.outgoing.read()


def test_the_client_may_close_its_direction_first(channel, authority):
    """Python's unwrap() wants an answer, so this one does it by hand."""
    client = MemoryClient(channel, context(authority))
    record, plain = channel.established()
    with client.sock, plain:
        client.tls.write(b"question")
        with contextlib.suppress(ssl.SSLWantReadError):
            client.tls.unwrap()
        client.flush()
        assert received(plain, 8) == b"question"
        assert plain.recv(10) == b"", "close_notify is the end of file"
        plain.sendall(b"answer" * 100)
        plain.shutdown(socket.SHUT_WR)
        while client.sock.recv(65536):
            pass
    channel.expect(ENDED, session=record.session, reason="disconnect")


@pytest.mark.parametrize("how", ["close", "reset", "middle of a record"])
def test_a_cut_is_not_an_end(channel, authority, program, how):
    client = MemoryClient(channel, context(authority))
    record, plain = channel.established()
    with plain:
        client.sock.sendall(client.record(b"whole"))
        assert received(plain, 5) == b"whole"
        if how == "middle of a record":
            client.sock.sendall(client.record(b"never whole" * 100)[:-1])
        if how == "reset":
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sock.close()
        assert plain.recv(100) == b""
        channel.expect(ENDED, session=record.session, reason="tls-cut")
        program.logged("cut without close_notify")


def test_a_changed_record_ends_the_session(channel, authority):
    client = MemoryClient(channel, context(authority))
    record, plain = channel.established()
    with client.sock, plain:
        data = bytearray(client.record(b"x" * 1000))
        data[500] ^= 1
        client.sock.sendall(data)
        assert plain.recv(2000) == b""
        channel.expect(ENDED, session=record.session, reason="tls-broken")


def test_a_record_may_come_byte_by_byte(channel, authority):
    client = MemoryClient(channel, context(authority))
    _, plain = channel.established()
    with client.sock, plain:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in client.record(b"slow") + client.record(b""):
            client.sock.sendall(bytes([byte]))
        assert received(plain, 4) == b"slow"


def test_many_small_records_come_whole(channel, authority):
    client = MemoryClient(channel, context(authority))
    _, plain = channel.established()
    with client.sock, plain:
        data = b"".join(client.record(b"%d" % (i % 10)) for i in range(50000))
        sender = threading.Thread(target=client.sock.sendall, args=(data,))
        sender.start()
        assert received(plain, 50000) == b"0123456789" * 5000
        sender.join()


def test_the_last_words_reach_a_client_that_still_sends(channel, authority):
    client, record, plain = connect(channel, context(authority))
    with client:
        client.sendall(b"x" * 5000)
        plain.sendall(b"goodbye" * 10000)
        plain.close()
        client.sendall(b"y" * 5000)
        assert received(client, 70000) == b"goodbye" * 10000
        assert client.recv(10) == b""
        channel.expect(ENDED, session=record.session, reason="disconnect")


def test_who_does_not_read_is_not_read_and_the_other_direction_goes_on(channel, authority):
    client, _, plain = connect(channel, context(authority))
    with client, plain:
        plain.setblocking(False)
        sent = 0
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                sent += plain.send(b"\0" * 65536)
                stuck = time.monotonic()
            except BlockingIOError:
                if time.monotonic() - stuck > 0.5:
                    break
                time.sleep(0.01)
        assert 0 < sent < 64 * MIB, "it is taken without end"
        plain.setblocking(True)
        plain.settimeout(PATIENCE)
        client.sendall(b"the other way")
        assert received(plain, 13) == b"the other way"
        assert received(client, sent) == b"\0" * sent


def test_a_client_that_does_not_take_the_last_words_is_given_up(start_tls, keys, authority):
    channel = start_tls(keys, "--last-words=300").channel()

    def small_pair():
        client, server = unix_pair()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
        return client, server

    client, record, plain = connect(channel, context(authority), small_pair)
    with client:
        plain.sendall(b"x" * 400_000)
        began = time.monotonic()
        plain.close()
        channel.expect(ENDED, session=record.session, reason="tls-timeout")
        assert time.monotonic() - began > 0.25
    channel.close()


def pumps(channel, size, every, priority):
    """Both ends of a session, busy in both directions; seconds that it took."""
    assert os.access(PUMP, os.X_OK), f"{PUMP} is not built"
    client, server = tcp_pair()
    client.settimeout(None)
    channel.start(server)
    with client:
        tls = subprocess.Popen([PUMP, "tls", str(client.fileno()), str(size), str(every), priority],
                               stdout=subprocess.PIPE, pass_fds=[client.fileno()])
    _, plain = channel.established()
    plain.settimeout(None)
    with plain:
        clear = subprocess.Popen([PUMP, "plain", str(plain.fileno()), str(size)],
                                 stdout=subprocess.PIPE, pass_fds=[plain.fileno()])
    outputs = [p.communicate(timeout=900)[0] for p in (tls, clear)]
    assert tls.returncode == 0 and clear.returncode == 0
    return max(float(text.split()[1]) for text in outputs)


@pytest.mark.parametrize("priority", ["NORMAL", "NORMAL:-VERS-ALL:+VERS-TLS1.2",
                                      "NORMAL:-CIPHER-ALL:+CHACHA20-POLY1305"])
def test_both_directions_can_be_full_at_once(channel, counts, priority):
    pumps(channel, counts(128, 1024) * MIB, 0, priority)
    channel.expect(ENDED, reason="disconnect")


@pytest.mark.timeout(1200)
def test_keys_that_change_in_both_directions_break_nothing(channel, counts):
    pumps(channel, counts(256, 4096) * MIB, 16 * MIB, "NORMAL:-VERS-ALL:+VERS-TLS1.3")
    channel.expect(ENDED, reason="disconnect")


def test_renegotiation_ends_the_session(channel, authority):
    needs_program("openssl")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = subprocess.Popen(
            ["openssl", "s_client", "-tls1_2", "-connect",
             f"127.0.0.1:{listener.getsockname()[1]}"],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        listener.settimeout(PATIENCE)
        channel.start(listener.accept()[0])
    record, plain = channel.established()
    with plain:
        child.stdin.write(b"R\n")
        child.stdin.flush()
        channel.expect(ENDED, session=record.session, reason="tls-broken")
        assert plain.recv(10) == b""
    finish(child)


def test_sessions_outlive_their_negotiator(program, authority):
    channel = program.channel()
    client, _, plain = connect(channel, context(authority))
    with client, plain:
        channel.close()
        program.channel().close()
        client.sendall(b"on")
        assert plain.recv(10) == b"on"


# Keys ----------------------------------------------------------------------------


def served_certificate(channel, authority):
    client, _, plain = connect(channel, context(authority))
    return client, plain, client.getpeercert(binary_form=True)


def test_new_keys_are_for_new_sessions(program, channel, authority, keys):
    client, plain, before = served_certificate(channel, authority)
    put_keys(keys, authority, server_pair=authority.issue("renewed", SERVER))
    program.child.send_signal(signal.SIGHUP)
    program.told("RELOADING=1")
    program.told("READY=1")
    channel.expect(HELLO)
    other, other_plain, after = served_certificate(channel, authority)
    with client, plain, other, other_plain:
        assert before != after
        client.sendall(b"still here")
        assert plain.recv(100) == b"still here"


@pytest.mark.parametrize("spoil, words", [
    (lambda keys, ca: (keys / "server-key.pem").write_text("nonsense"), "server-key.pem"),
    (lambda keys, ca: shutil.copy(ca.alice[1], keys / "server-key.pem"), "server-key.pem"),
    (lambda keys, ca: (keys / "server-key.pem").chmod(0o644), "chmod"),
    (lambda keys, ca: (keys / "psk.keys").write_text("bob\n"), "psk.keys: line 1"),
    (lambda keys, ca: (keys / "ca-cert.pem").write_text(""), "ca-cert.pem is not"),
    (lambda keys, ca: (keys / "server-cert.pem").unlink(), "server-cert.pem is not"),
])
def test_bad_keys_leave_the_old_ones(program, channel, authority, keys, spoil, words):
    spoil(keys, authority)
    program.child.send_signal(signal.SIGHUP)
    program.told("RELOADING=1")
    assert "newer keys are bad" in program.told("READY=1")
    program.logged(words)
    client, plain, _ = served_certificate(channel, authority)
    client.close()
    plain.close()


def test_renewed_keys_can_come_in_another_folder(start_tls, keys, authority, tmp_path):
    renewed = tmp_path / "renewed"
    renewed.mkdir()
    program = start_tls(keys, f"--renewed={renewed}")
    channel = program.channel()
    client, plain, before = served_certificate(channel, authority)
    client.close()
    plain.close()
    channel.expect(ENDED)
    put_keys(renewed, authority, psk=False, server_pair=authority.issue("later", SERVER))
    program.child.send_signal(signal.SIGHUP)
    program.told("READY=1")
    assert channel.expect(HELLO).can == X509 | VERIFY
    client, plain, after = served_certificate(channel, authority)
    client.close()
    plain.close()
    assert before != after
    channel.close()


def reload_of_unit(keys, renewed):
    """What the unit does before it sends SIGHUP, for these folders and this user."""
    unit = (BUILD / "units/nbd-tls.service").read_text()
    command = re.search(r"ExecReload=\+/bin/sh -ec '(.*)'", unit)[1].replace("$$", "$")
    runtime = re.search(r"--renewed=(\S+)", unit)[1]
    script = re.sub(r"cd \S+;", f"cd {keys};", command).replace(runtime, str(renewed))
    run("sh", "-ec", script.replace("-o nbd-tls -g nbd-tls ", ""))


def test_keys_that_were_withdrawn_do_not_come_back(start_tls, authority, tmp_path):
    """Though the folder of the start still has them."""
    keys = put_keys(tmp_path / "keys", authority, server=False)
    renewed, etc = tmp_path / "renewed", tmp_path / "etc"
    renewed.mkdir()
    shutil.copytree(keys, etc)
    program = start_tls(keys, f"--renewed={renewed}")
    channel = program.channel()
    assert channel.hello.can == PSK
    (etc / "psk.keys").unlink()
    reload_of_unit(etc, renewed)
    program.child.send_signal(signal.SIGHUP)
    assert channel.expect(HELLO).can == 0
    program.logged("keys were read again: no keys")
    client, server = tcp_pair()
    with client:
        channel.start(server)
        with contextlib.suppress(ssl.SSLError, OSError):
            context(authority).wrap_socket(client, server_hostname="localhost")
        assert channel.expect(FAILED).reason == "tls-handshake-failed"
    shutil.copy(keys / "psk.keys", etc)
    reload_of_unit(etc, renewed)
    program.child.send_signal(signal.SIGHUP)
    assert channel.expect(HELLO).can == PSK
    channel.close()


def test_a_ca_without_secrets_beside_it_is_renewed_too(start_tls, authority, tmp_path):
    """That of a host which only attaches."""
    keys, renewed = tmp_path / "keys", tmp_path / "renewed"
    for folder in (keys, renewed):
        folder.mkdir()
    shutil.copy(authority.certificate, keys / "ca-cert.pem")
    program = start_tls(keys, f"--renewed={renewed}")
    (renewed / "ca-cert.pem").write_text("nonsense")
    program.child.send_signal(signal.SIGHUP)
    program.logged("renewed/ca-cert.pem")


def refused_to_start(tmp_path, credentials):
    program = Program(tmp_path, credentials)
    assert program.child.wait(PATIENCE) == 1
    program.stop()
    return program.text()


def test_it_does_not_start_without_keys(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "there are no keys" in refused_to_start(tmp_path, tmp_path / "empty")


def test_a_key_that_others_can_read_is_refused(tmp_path, keys):
    (keys / "psk.keys").chmod(0o640)
    assert "psk.keys holds secrets" in refused_to_start(tmp_path, keys)


@pytest.mark.parametrize("dates, words", [
    ("expiration_days = 20\n", r"certificate expires on .*, in (19|20) days: then clients"),
    (f'activation_date = "{day(-9)}"\nexpiration_date = "{day(-2)}"\n',
     "certificate expired on .*: clients refuse it"),
], ids=["soon", "expired"])
def test_what_expires_soon_is_told_at_the_start_and_at_each_reload(start_tls, authority, tmp_path,
                                                                  dates, words):
    pair = authority.issue("ending", "cn = ending\ndns_name = localhost\ntls_www_server\n" + dates)
    program = start_tls(put_keys(tmp_path / "keys", authority, server_pair=pair))
    program.logged(words)
    program.logged("list of revoked certificates expires on .*then the certificates of all clients")
    program.child.send_signal(signal.SIGHUP)
    program.logged(r"keys were read again(.|\n)*" + words)


def test_of_what_is_good_for_long_nothing_is_told(start_tls, authority, tmp_path):
    pair = authority.issue("long", "cn = long\ntls_www_server\nexpiration_days = 90\n")
    keys = put_keys(tmp_path / "keys", authority, server_pair=pair)
    (keys / "ca-crl.pem").unlink()
    program = start_tls(keys)
    program.logged("ready for TLS")
    program.child.send_signal(signal.SIGHUP)
    program.logged("keys were read again")
    assert "expire" not in program.text()


def test_keys_are_in_no_log_and_no_core(program, channel, authority):
    client, plain, _ = served_certificate(channel, authority)
    client.close()
    plain.close()
    assert PSK_KEY not in program.text() and "PRIVATE" not in program.text()
    status = pathlib.Path(f"/proc/{program.child.pid}/limits").read_text()
    assert re.search(r"Max core file size\s+0\s+0", status)


def test_nobody_else_may_look_into_its_memory(start_tls, authority, cleanup):
    """What is not dumpable belongs to root in /proc, whoever runs it."""
    needs_root()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="nbd-", dir="/tmp"))
    cleanup.callback(shutil.rmtree, folder)
    for path in (folder, *put_keys(folder / "keys", authority).iterdir(), folder / "keys"):
        os.chown(path, 65534, 65534)
    program = start_tls(folder / "keys", folder=folder / "program", user=65534)
    process = pathlib.Path(f"/proc/{program.child.pid}")
    assert "65534" in re.search(r"Uid:.*", (process / "status").read_text())[0]
    assert (process / "mem").stat().st_uid == 0


def test_the_sandbox_keeps_files_closed(keys, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("secret")
    done = subprocess.run([PROGRAM, f"--credentials={keys}", f"--sandbox-check={outside}"],
                          capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr


# A hostile negotiator ------------------------------------------------------------


HOSTILE = {
    "empty header": b"\x01",
    "wrong version": record_bytes(CANCEL, struct.pack(">I", 1), version=2),
    "unknown type": record_bytes(99, b""),
    "nbd-tls's own record": record_bytes(FAILED, struct.pack(">IIH", 1, 14, 0)),
    "wrong length": record_bytes(CANCEL, struct.pack(">I", 1), length=5),
    "too long": record_bytes(CANCEL, b"\0" * 20000),
    "request 0": start_bytes(0),
    "no deadline": start_bytes(1, deadline=0),
    "unknown certificate": start_bytes(1, certificate=3),
    "a peer that is no text": start_bytes(1, peer=b"\xff"),
    "a long peer": start_bytes(1, peer="x" * 65),
    "start without a descriptor": start_bytes(1),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_bad_record_ends_the_channel_and_nothing_else(program, authority, data):
    good = program.channel()
    client, _, plain = connect(good, context(authority))
    bad = program.channel()
    bad.send(data)
    assert bad.closed()
    program.logged("breaks the protocol")
    with client, plain:
        client.sendall(b"on")
        assert plain.recv(10) == b"on"
    good.close()
    bad.close()


def test_descriptors_where_none_belongs_end_the_channel(program):
    for data, n in ((record_bytes(CANCEL, struct.pack(">I", 1)), 1), (start_bytes(1), 2),
                    (start_bytes(1), 20)):
        channel = program.channel()
        a, b = socket.socketpair()
        with a, b:
            channel.send(data, [a] * n)
        assert channel.closed()
        channel.close()


def test_a_request_cannot_be_started_twice(program):
    channel = program.channel()
    client, server = tcp_pair()
    with client, server:
        channel.send(start_bytes(5), [server])
        channel.send(start_bytes(5), [server])
        assert channel.closed()


@pytest.mark.parametrize("kind", ["datagram", "unconnected", "file", "listening"])
def test_what_is_no_client_is_refused_with_words(channel, kind, tmp_path):
    with contextlib.ExitStack() as stack:
        if kind == "file":
            thing = stack.enter_context((tmp_path / "file").open("w"))
        elif kind == "datagram":
            thing = stack.enter_context(socket.socketpair(type=socket.SOCK_DGRAM)[0])
        else:
            thing = stack.enter_context(socket.socket())
            if kind == "listening":
                thing.listen()
        channel.send(start_bytes(1), [thing])
    record = channel.expect(FAILED, request=1)
    assert record.reason in ("protocol", "peer-gone") and record.sentence


def test_a_negotiator_that_reads_nothing_is_cut_off_or_waited_for(program, authority):
    hostile = program.channel()
    hostile.sock.settimeout(1)
    with contextlib.suppress(TimeoutError, tlschannel.Closed):
        for request in range(1, 20001):
            client, server = socket.socketpair()
            client.close()
            with server:
                hostile.send(start_bytes(request), [server])
    good = program.channel()
    client, _, plain = connect(good, context(authority))
    client.close()
    plain.close()
    good.close()
    hostile.close()


def test_status_counts_sessions(program, channel, authority):
    client, _, plain = connect(channel, context(authority))
    program.told("STATUS=1 session, 0 in the handshake")
    client.close()
    plain.close()
    program.told("STATUS=0 sessions, 0 in the handshake")


def test_many_clients_come_at_once(program, authority):
    channel = program.channel()
    tls = context(authority)
    pairs = [tcp_pair() for _ in range(50)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for _, server in pairs:
            channel.start(server)
        clients = list(pool.map(lambda p: tls.wrap_socket(p[0], server_hostname="localhost"),
                                pairs))
    plains = dict((record.request, plain) for record, plain in
                  (channel.established() for _ in pairs))
    for i, client in enumerate(clients):
        client.sendall(b"%d" % i)
        assert plains[i + 1].recv(10) == b"%d" % i
        client.close()
        plains[i + 1].close()
    channel.close()
