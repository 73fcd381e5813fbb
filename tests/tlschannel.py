# SPDX-License-Identifier: GPL-2.0-or-later
"""The negotiator's end of the channel to nbd-tls, written from daemon/wire/tls-channel.h."""

import array
import os
import socket
import struct
from types import SimpleNamespace

from nbdchannel import BadRecord, Closed, record_bytes
from nbdwire import PATIENCE

HELLO, ESTABLISHED, FAILED, ENDED = 1, 2, 3, 4
START, CANCEL = 16, 17
X509, PSK, VERIFY = 1, 2, 4
OFF, OPTIONAL, REQUIRED = range(3)
ANONYMOUS, BY_X509, BY_PSK = 1, 2, 3

REASONS = {
    6: "start-slow", 7: "shutdown", 8: "protocol", 10: "limit", 13: "peer-gone",
    14: "disconnect", 18: "tls-handshake-failed", 19: "tls-untrusted", 20: "tls-timeout",
    21: "tls-cut", 22: "tls-broken", 23: "tls-unavailable", 24: "tls-required",
}

# As in nbdchannel; "l" is a list of strings behind its u16 count.
LAYOUT = {
    HELLO: "can:B not_after:Q subject:s",
    ESTABLISHED: "request:I session:Q version:s cipher:s method:B subject:s fingerprint:s psk:s"
    " names:l",
    FAILED: "request:I reason:I sentence:s",
    ENDED: "session:Q reason:I",
}


class Record(SimpleNamespace):
    """A record that nbd-tls sent."""


def decode(data):
    if len(data) < 8:
        raise BadRecord(f"a record of {len(data)} bytes")
    version, kind, zero, length = struct.unpack_from(">BBHI", data)
    if version != 1 or zero or length != len(data) - 8 or kind not in LAYOUT:
        raise BadRecord(f"header {data[:8].hex()} of {len(data)} bytes")
    at = 8
    fields = {}

    def take(code):
        nonlocal at
        (value,) = struct.unpack_from(">" + code, data, at)
        at += struct.calcsize(">" + code)
        return value

    def text():
        return take(f"{take('H')}s").decode()

    for field in LAYOUT[kind].split():
        name, code = field.split(":")
        if code == "s":
            fields[name] = text()
        elif code == "l":
            fields[name] = [text() for _ in range(take("H"))]
        else:
            fields[name] = take(code)
    if at != len(data):
        raise BadRecord(f"record {kind} has {len(data) - at} bytes too many")
    if "reason" in fields:
        fields["reason"] = REASONS[fields["reason"]]
    return Record(type=kind, **fields)


def start_bytes(request, certificate=OFF, deadline=10000, peer="test:1"):
    peer = peer.encode() if isinstance(peer, str) else peer
    body = struct.pack(">IIBH", request, deadline, certificate, len(peer)) + peer
    return record_bytes(START, body)


class Channel:
    """A negotiator's connection to nbd-tls."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(str(path))
        self.requests = 0
        self.hello = None

    def recv(self):
        """The next record and the descriptor that came with it, or None."""
        try:
            data, control, flags, _ = self.sock.recvmsg(16384, socket.CMSG_LEN(64),
                                                        socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError as gone:
            raise Closed from gone
        if not data:
            raise Closed
        fds = array.array("i")
        for _, _, payload in control:
            fds.frombytes(payload)
        assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
        record = decode(data)
        assert len(fds) == (record.type == ESTABLISHED)
        return record, (fds[0] if fds else None)

    def expect(self, kind, **fields):
        record, fd = self.recv()
        assert record.type == kind, f"expected record {kind}, got {record}"
        for name, value in fields.items():
            assert getattr(record, name) == value, f"{name}: expected {value}, got {record}"
        return (record, fd) if kind == ESTABLISHED else record

    def send(self, data, fds=()):
        fds = [fd if isinstance(fd, int) else fd.fileno() for fd in fds]
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self.sock.sendmsg([data], control)
        except (BrokenPipeError, ConnectionResetError) as gone:
            raise Closed from gone

    def start(self, sock, **fields):
        """Gives a client's socket away, ours is closed; returns the request."""
        self.requests += 1
        with sock:
            self.send(start_bytes(self.requests, **fields), [sock])
        return self.requests

    def cancel(self, request):
        self.send(record_bytes(CANCEL, struct.pack(">I", request)))

    def established(self, **fields):
        """The next record must tell of a session; the record and its plain end."""
        record, fd = self.expect(ESTABLISHED, **fields)
        plain = socket.socket(fileno=fd)
        plain.settimeout(PATIENCE)
        return record, plain

    def closed(self):
        """Whether nbd-tls closes it, sooner or later; reads what still comes."""
        try:
            while True:
                fd = self.recv()[1]
                if fd is not None:
                    os.close(fd)
        except Closed:
            return True
        except TimeoutError:
            return False

    def close(self):
        self.sock.close()
