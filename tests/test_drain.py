# SPDX-License-Identifier: GPL-2.0-or-later
"""Drain and Resume in quick turns, and a drain that is broken off."""

import contextlib
import fcntl
import os
import signal
import socket
import struct
import termios
import threading

import pytest
from conftest import KIB, MIB, wait_until
import nbdwire as wire
from nbdchannel import GONE, HANDOFF, REASON, Record
from nbdwire import PATIENCE
from test_channel import client_over, connect, serves
from test_control import INTERFACE, OBJECT, Failed, half_a_write, start  # noqa: F401

ERROR = 3


def padded(data, to=8):
    return data + bytes(-len(data) % to)


def header_field(code, kind, text):
    signature = bytes([len(kind)]) + kind.encode() + b"\0"
    if kind == "g":
        value = bytes([len(text)]) + text.encode() + b"\0"
    else:
        value = struct.pack("<I", len(text)) + text.encode() + b"\0"
    return bytes([code]) + signature + value


def call(serial, member):
    """A method call without arguments, in D-Bus's own bytes."""
    fields = b""
    for field in (header_field(1, "o", OBJECT), header_field(2, "s", INTERFACE),
                  header_field(3, "s", member)):
        fields = padded(fields) + field
    start_of = struct.pack("<cBBBIII", b"l", 1, 0, 1, 0, serial, len(fields))
    return padded(start_of + fields)


class Pipelined:
    """A connection to the control socket that does not wait for its answers."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(str(path))
        uid = str(os.geteuid()).encode().hex()
        self.sock.sendall(b"\0AUTH EXTERNAL " + uid.encode() +
                          b"\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n")
        self.file = self.sock.makefile("rb")
        assert self.file.readline().startswith(b"OK ")
        self.file.readline()
        self.serial = 0

    def send(self, *members):
        messages = []
        for member in members:
            self.serial += 1
            messages.append(call(self.serial, member))
        self.sock.sendall(b"".join(messages))

    def receive(self, n=1):
        """`n` answers: what each is of, as D-Bus counts, and its bytes."""
        answers = []
        for _ in range(n):
            head = self.file.read(16)
            assert len(head) == 16, "the export hung up"
            body, _, fields = struct.unpack("<4xIII", head)
            rest = self.file.read(len(padded(bytes(fields))) + body)
            answers.append((head[1], rest))
        return answers

    def close(self):
        self.file.close()
        self.sock.close()


@pytest.fixture
def pipelined():
    with contextlib.ExitStack() as stack:
        yield lambda export: stack.enter_context(contextlib.closing(
            Pipelined(export.control.path)))


@pytest.mark.parametrize("threads", [1, 3])
def test_drain_and_resume_in_quick_turns_never_hang_the_export(
        start, pipelined, threads):  # noqa: F811
    export = start(Threads=threads)
    os.sched_setaffinity(export.child.pid, {min(os.sched_getaffinity(0))})
    calls = pipelined(export)
    for _ in range(1500):
        calls.send("Drain", "Resume", "Drain", "Resume")
        calls.receive(4)
    assert export.control.get("State") == "serving"
    serves(export)
    export.control("Drain")
    assert export.control.get("State") == "drained"


def drain_in_background(export):
    """Begins a drain that cannot end yet; .join() returns what became of the call."""
    said = []

    def run():
        try:
            export.control("Drain")
            said.append("drained")
        except Failed as e:
            said.append(str(e))

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: export.control.get("State") == "draining", "draining")

    def join():
        thread.join(PATIENCE)
        assert said, "the call of Drain was not answered"
        return said[0]

    return join


def test_resume_breaks_a_drain_off_and_cuts_nobody(start):  # noqa: F811
    export = start()
    ours = connect(export)
    slow, grant = ours.client()
    client = client_over(slow)
    data = os.urandom(MIB)
    client.write(0, data)
    cookies = [client.send_read(0, MIB) for _ in range(8)]  # and takes no reply yet
    ended = drain_in_background(export)
    ours.refused("shutdown")
    export.control("Resume")
    assert "before it was drained" in ended()
    assert export.control.get("State") == "serving"
    for cookie in cookies:
        assert client.wait(cookie).check().data == data
    client.write(4096, b"on" * 2048)
    assert client.read(4096, 4096) == b"on" * 2048
    assert "resumed by" in export.log
    export.control("Drain")
    ours.expect(GONE, connection=grant.connection, reason=REASON["shutdown"])
    export.control("Resume")
    serves(export)


def test_half_a_write_goes_on_after_a_drain_that_was_broken_off(start):  # noqa: F811
    export = start(Threads=2)
    ours = connect(export)
    sock, _ = ours.client()
    client = client_over(sock)
    half_a_write(client)
    ended = drain_in_background(export)
    export.control("Resume")
    assert "before it was drained" in ended()
    sock.sendall(b"z" * (MIB + 32 - 400000))
    assert client.wait_any().error == 0
    assert client.read(MIB - 512, 512) == b"z" * 512


def test_a_drain_can_be_broken_off_and_begun_again(start):  # noqa: F811
    export = start()
    ours = connect(export)
    sock, grant = ours.client()
    half_a_write(client_over(sock))
    for _ in range(3):
        ended = drain_in_background(export)
        export.control("Resume")
        assert "before it was drained" in ended()
    ended = drain_in_background(export)
    sock.close()
    assert ended() == "drained"
    ours.expect(GONE, connection=grant.connection)
    assert export.control.get("State") == "drained"


def test_root_may_make_more_calls_than_others_can_have_waiting(start, pipelined):  # noqa: F811
    export = start()
    sock, _ = connect(export).client()
    half_a_write(client_over(sock))
    calls = pipelined(export)
    calls.send(*["Drain"] * 80)
    wait_until(lambda: export.control.get("State") == "draining", "draining")
    sock.close()
    answers = calls.receive(80)
    assert not [answer for kind, answer in answers if kind == ERROR]


def test_a_drain_only_if_idle_is_refused_while_there_is_a_client_or_one_about_to_be(start):
    export = start()
    ours = connect(export)
    grant = ours.granted()                          # somebody who is about to come in
    with pytest.raises(Failed, match="it has 1 client"):
        export.control("DrainIdle")
    client = client_over(ours.hand_over(grant.token))
    with pytest.raises(Failed, match="it has 1 client"):
        export.control("DrainIdle")
    client.read(0, 512)
    assert export.control.get("State") == "serving"
    client.sock.close()
    ours.expect(GONE)
    export.control("DrainIdle")
    assert export.control.get("State") == "drained"
    ours.refused("shutdown")


@pytest.mark.parametrize("end", ["Drain", "SIGTERM"])
def test_a_client_with_simple_replies_is_told_nothing_but_success(start, end):  # noqa: F811
    """Linux's driver makes I/O errors of all else, and sends again what had no answer."""
    export = start()
    ours = connect(export)
    clients = [client_over(ours.client(mode=wire.SIMPLE)[0], wire.SIMPLE) for _ in range(4)]
    answered = threading.Event()
    errors = []

    def load(number, client):
        offset = number * MIB
        with contextlib.suppress(wire.Closed, ConnectionError):
            for i in range(16):
                client.send_write(offset + i * 65536, b"x" * 65536)
            while True:         # there are always more under way
                client.send_write(offset, b"x" * 4096)
                errors.append(client.wait_any().error)
                answered.set()

    threads = [threading.Thread(target=load, args=pair) for pair in enumerate(clients)]
    for thread in threads:
        thread.start()
    assert answered.wait(PATIENCE)
    if end == "Drain":
        export.control("Drain")
    else:
        assert export.stop() == 0
    for thread in threads:
        thread.join(PATIENCE)
    assert set(errors) == {0}


def test_a_client_with_simple_replies_goes_on_after_a_drain_that_was_broken_off(start):  # noqa: F811
    export = start()
    ours = connect(export)
    sock, _ = ours.client(mode=wire.SIMPLE)
    client = client_over(sock, wire.SIMPLE)
    data = os.urandom(MIB)
    client.write(0, data)
    cookies = [client.send_read(0, MIB) for _ in range(8)]  # and takes no reply yet
    ended = drain_in_background(export)
    cookies += [client.send_read(0, MIB) for _ in range(8)]
    ours.refused("shutdown")
    export.control("Resume")
    assert "before it was drained" in ended()
    for cookie in cookies:
        assert client.wait(cookie).check().data == data


def has_read(export, requests):
    wait_until(lambda: export.control.clients()[0]["Requests"] == requests,
               f"{requests} requests to be read")


def tcp_client_that_reads_nothing(export):
    """A client by TCP, 4 MiB of replies to it that are on their way, and the cookies."""
    ours = connect(export)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.socket()
        sock.settimeout(PATIENCE)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(listener.getsockname())
        theirs, _ = listener.accept()
    with theirs:
        ours.send(Record(HANDOFF, token=ours.granted(mode=wire.STRUCTURED).token), [theirs])
    client = client_over(sock, wire.STRUCTURED)
    client.write(0, b"r" * MIB)
    reads = [client.send_read(0, 256 * KIB) for _ in range(16)]
    has_read(export, 17)
    return ours, client, reads


@contextlib.contextmanager
def sending(sock, data):
    """Sends it beside the block, as far as it is taken."""
    def run():
        with contextlib.suppress(OSError):
            sock.sendall(data)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join(PATIENCE)


@pytest.mark.parametrize("end", ["Drain", "SIGTERM"])
def test_the_last_replies_reach_a_client_by_tcp_that_goes_on_sending(start, end):  # noqa: F811
    export = start()
    _, client, reads = tcp_client_that_reads_nothing(export)
    if end == "Drain":
        ended = drain_in_background(export)
    else:
        export.child.send_signal(signal.SIGTERM)
        assert export.notified.wait("STOPPING=1")
    client.send_request(wire.CMD_FLUSH)
    has_read(export, 18)                # and from now on nothing
    writes = range(1000, 1064)
    for cookie in writes:
        client.pending[cookie] = wire.Reply(
            wire.Request(wire.CMD_WRITE, MIB, 65536, 0, cookie, 65536))
    with sending(client.sock, b"".join(
            wire.request_header(wire.STRUCTURED, wire.CMD_WRITE, MIB, 65536, 0, cookie) +
            b"w" * 65536 for cookie in writes)):
        for cookie in reads:
            assert client.wait(cookie).check().data == b"r" * 256 * KIB
        while client.sock.recv(65536):  # the end of file, and no reset
            pass
    client.sock.close()
    if end == "Drain":
        assert ended() == "drained"
    else:
        assert export.wait() == 0
    assert export.disk.read_bytes()[MIB : 2 * MIB] == bytes(MIB)


def test_a_client_by_tcp_that_never_closes_does_not_hold_up_a_drain(start):  # noqa: F811
    export = start()
    ours, client, reads = tcp_client_that_reads_nothing(export)
    ended = drain_in_background(export)
    client.send_write(0, b"w" * 65536)
    for cookie in reads:
        client.wait(cookie).check()
    ours.expect(GONE, reason=REASON["shutdown"])
    assert ended() == "drained"
    client.sock.close()


def unread_by_the_other_side(sock):
    (left,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    return left


HEADERS_THAT_END = {
    "a write that is too long": (wire.CMD_WRITE, 33 * MIB, None),
    "a wrong magic": (wire.CMD_FLUSH, 0, 1),
    "a disconnect": (wire.CMD_DISC, 0, None),
}


@pytest.mark.parametrize("which", HEADERS_THAT_END)
def test_what_ends_a_client_in_a_drain_ends_it_also_when_that_is_broken_off(
        start, which):  # noqa: F811
    export = start()
    ours = connect(export)
    sock, grant = ours.client(mode=wire.STRUCTURED)
    client = client_over(sock, wire.STRUCTURED)
    client.write(0, b"d" * MIB)
    for _ in range(8):
        client.send_read(0, MIB)                    # and takes no reply yet
    ended = drain_in_background(export)
    command, length, magic = HEADERS_THAT_END[which]
    never = b"".join(wire.request_header(wire.STRUCTURED, wire.CMD_WRITE, 0, 4096, 0, cookie) +
                     b"w" * 4096 for cookie in (101, 102))
    sock.sendall(wire.request_header(wire.STRUCTURED, command, 0, length, 0, 100, magic) + never)
    wait_until(lambda: unread_by_the_other_side(sock) == 0, "the export to read it")
    export.control("Resume")
    assert "before it was drained" in ended()
    sock.sendall(never)
    client.pending[100] = wire.Reply(wire.Request(command, 0, length, 0, 100, length))
    with contextlib.suppress(wire.Closed):          # replies to what nobody asked are refused
        while True:
            client.wait_any()
    reason = "disconnect" if command == wire.CMD_DISC else "protocol"
    ours.expect(GONE, connection=grant.connection, reason=REASON[reason])
    assert export.disk.read_bytes()[:4096] == b"d" * 4096
