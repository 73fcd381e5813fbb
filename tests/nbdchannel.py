# SPDX-License-Identifier: GPL-2.0-or-later
"""
The channel between the negotiator and an export, both sides, in Python.

Written from the comments of daemon/wire/channel.h; shares no code with daemon/.  A
Negotiator talks to a real nbd-export, a FakeExport to a real nbd-negotiator, and both can
say anything: a Record is only a type and fields, and send() takes raw bytes as well.
"""

import array
import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import threading
from types import SimpleNamespace

from conftest import SANITIZERS, complaints
from nbdwire import PATIENCE

VERSION = 1
RECORD_MAX = 6144

OFFER, CONTEXT, LIVE, READY, FAILED, GRANTED, REFUSED, GONE = range(1, 9)
RESERVE, HANDOFF, ABANDON, REFUSAL = range(16, 20)

RIGHT_READ, RIGHT_WRITE = 1, 2
SIMPLE, STRUCTURED, EXTENDED = range(3)

REASONS = (
    "none",
    "export-unknown",
    "export-gone",
    "offer-stale",
    "no-slot",
    "start-failed",
    "start-slow",
    "shutdown",
    "protocol",
    "deadline",
    "limit",
    "token-unknown",
    "stalled",
    "peer-gone",
    "disconnect",
    "device",
    "kicked",
    "no-access",
    "tls-handshake-failed",
    "tls-untrusted",
    "tls-timeout",
    "tls-cut",
    "tls-broken",
    "tls-unavailable",
    "tls-required",
    "single-writer",
    "resized",
)
REASON = {word: number for number, word in enumerate(REASONS)}

# The body of every record: field names with struct codes; "s" is a string behind its u16
# length, "*" a list of u32 behind its u16 count.
LAYOUT = {
    OFFER: "number:Q size:Q flags:H minimum_block:I preferred_block:I maximum_payload:I"
    " n_contexts:H",
    CONTEXT: "id:I name:s",
    LIVE: "connection:Q peer:s",
    READY: "",
    FAILED: "request:I reason:I sentence:s",
    GRANTED: "request:I token:Q connection:Q size:Q flags:H",
    REFUSED: "request:I reason:I sentence:s",
    GONE: "connection:Q reason:I",
    RESERVE: "request:I offer:Q mode:B rights:B peer:s identity:s contexts:* tls:s",
    HANDOFF: "token:Q",
    ABANDON: "token:Q",
    REFUSAL: "reason:I peer:s sentence:s",
}


class BadRecord(Exception):
    """The other side sent what channel.h does not know."""


class Closed(Exception):
    """The other side closed the channel."""


class Record(SimpleNamespace):
    """A record: `type` and the fields of its layout."""

    def __init__(self, type, **fields):
        super().__init__(type=type, **fields)

    def encode(self) -> bytes:
        body = b""
        for field in LAYOUT[self.type].split():
            name, kind = field.split(":")
            value = getattr(self, name)
            if kind == "s":
                value = value.encode() if isinstance(value, str) else value
                body += struct.pack(">H", len(value)) + value
            elif kind == "*":
                body += struct.pack(f">H{len(value)}I", len(value), *value)
            else:
                body += struct.pack(">" + kind, value)
        return record_bytes(self.type, body)


def record_bytes(type, body, version=VERSION, zero=0, length=None) -> bytes:
    """A record's bytes, right unless told otherwise."""
    length = len(body) if length is None else length
    return struct.pack(">BBHI", version, type, zero, length) + body


def decode(data: bytes) -> Record:
    if len(data) < 8:
        raise BadRecord(f"a record of {len(data)} bytes")
    version, type, zero, length = struct.unpack_from(">BBHI", data)
    if version != VERSION or zero or length != len(data) - 8 or type not in LAYOUT:
        raise BadRecord(f"header {data[:8].hex()} of {len(data)} bytes")
    at = 8
    fields = {}

    def take(code):
        nonlocal at
        try:
            value = struct.unpack_from(">" + code, data, at)
        except struct.error as short:
            raise BadRecord(f"record {type} is too short") from short
        at += struct.calcsize(">" + code)
        return value

    for field in LAYOUT[type].split():
        name, kind = field.split(":")
        if kind == "s":
            fields[name] = take(f"{take('H')[0]}s")[0].decode()
        elif kind == "*":
            fields[name] = list(take(f"{take('H')[0]}I"))
        else:
            fields[name] = take(kind)[0]
    if at != len(data):
        raise BadRecord(f"record {type} has {len(data) - at} bytes too many")
    return Record(type, **fields)


class End:
    """One end of a channel connection."""

    def __init__(self, sock):
        self.sock = sock
        sock.settimeout(PATIENCE)

    def send(self, record, fds=()):
        data = record if isinstance(record, bytes) else record.encode()
        fds = [fd if isinstance(fd, int) else fd.fileno() for fd in fds]
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self.sock.sendmsg([data], control)
        except (BrokenPipeError, ConnectionResetError) as gone:
            raise Closed from gone

    def recv_with_fds(self):
        """The next record and the descriptors that came with it (the caller's)."""
        try:
            data, control, flags, _ = self.sock.recvmsg(
                RECORD_MAX + 1, socket.CMSG_LEN(16 * 4), socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError as gone:
            raise Closed from gone
        if not data:
            raise Closed
        fds = array.array("i")
        for level, kind, payload in control:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise BadRecord("a record that is too long, or too many descriptors")
        return decode(data), list(fds)

    def recv(self):
        record, fds = self.recv_with_fds()
        assert not fds, "a descriptor where none belongs"
        return record

    def expect(self, type, **fields):
        """The next record, which must be of this type and have these values."""
        return self.check(self.recv(), type, fields)

    @staticmethod
    def check(record, type, fields):
        assert record.type == type, f"expected record {type}, got {record}"
        for name, value in fields.items():
            assert getattr(record, name) == value, f"{name}: expected {value}, got {record}"
        return record

    def closed(self) -> bool:
        """Whether the other side closes it, sooner or later; reads what still comes."""
        try:
            while True:
                for fd in self.recv_with_fds()[1]:
                    os.close(fd)
        except Closed:
            return True
        except TimeoutError:
            return False

    def close(self):
        self.sock.close()


class Negotiator(End):
    """The negotiator's end, against a real export."""

    def __init__(self, path):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Blocking, so that it waits when the queue of connections is full; but not for ever.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(PATIENCE), 0))
        sock.connect(str(path))
        super().__init__(sock)
        self.requests = 0
        self.offer = None
        self.contexts = []
        self.live = []
        self.gone = []

    def expect(self, type, **fields):
        """As End.expect(); but clients may be told as gone at any time in between."""
        record = self.gone.pop(0) if type == GONE and self.gone else self.recv()
        while type != GONE and record.type == GONE:
            self.gone.append(record)
            record = self.recv()
        return self.check(record, type, fields)

    def read_offer(self):
        """Everything from OFFER to READY."""
        self.contexts, self.live = [], []
        self.offer = self.expect(OFFER)
        while (record := self.recv()).type != READY:
            assert record.type in (CONTEXT, LIVE), record
            (self.contexts if record.type == CONTEXT else self.live).append(record)
        assert len(self.contexts) == self.offer.n_contexts
        return self.offer

    def reserve(self, **fields):
        """Sends a RESERVE that is right unless told otherwise; returns it."""
        self.requests += 1
        record = Record(
            RESERVE,
            **{
                "request": self.requests,
                "offer": self.offer.number,
                "mode": EXTENDED,
                "rights": RIGHT_READ | RIGHT_WRITE,
                "peer": "test:1",
                "identity": "",
                "contexts": [],
                "tls": "",
            }
            | fields,
        )
        self.send(record)
        return record

    def granted(self, **fields):
        """Reserves and expects the grant."""
        request = self.reserve(**fields).request
        return self.expect(GRANTED, request=request)

    def refused(self, reason, **fields):
        """Reserves and expects a refusal for that reason."""
        request = self.reserve(**fields).request
        record = self.expect(REFUSED, request=request, reason=REASON[reason])
        assert record.sentence, "a refusal without words"
        return record

    def hand_over(self, token, kind=socket.SOCK_STREAM):
        """Hands over one end of a socketpair; returns the other, the client's."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        with theirs:
            self.send(Record(HANDOFF, token=token), [theirs])
        ours.settimeout(PATIENCE)
        return ours

    def client(self, **fields):
        """A client all the way: its socket and the grant."""
        grant = self.granted(**fields)
        return self.hand_over(grant.token), grant


class FakeExport:
    """The export's end, for a real negotiator: a listening channel socket."""

    def __init__(self, path):
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.settimeout(PATIENCE)
        self.listener.bind(str(path))
        self.listener.listen(16)

    def accept(self):
        return ExportEnd(self.listener.accept()[0])

    def ready(self, **fields):
        """Accepts a connection and makes a good offer on it."""
        end = self.accept()
        end.offer(**fields)
        return end

    def nobody_waits(self):
        """True when no connection is pending."""
        self.listener.setblocking(False)
        try:
            self.listener.accept()[0].close()
            return False
        except BlockingIOError:
            return True
        finally:
            self.listener.settimeout(PATIENCE)

    def close(self):
        self.listener.close()


class ExportEnd(End):
    """One accepted connection of a FakeExport."""

    HAS_FLAGS, FLUSH, FUA, TRIM, ZEROES = 1 << 0, 1 << 2, 1 << 3, 1 << 5, 1 << 6
    SIZE = 1 << 20
    FLAGS = HAS_FLAGS | FLUSH | FUA | TRIM | ZEROES

    @staticmethod
    def offer_records(contexts=("base:allocation", "qemu:allocation-depth"), **fields):
        offer = Record(
            OFFER,
            **{
                "number": 1,
                "size": ExportEnd.SIZE,
                "flags": ExportEnd.FLAGS,
                "minimum_block": 512,
                "preferred_block": 4096,
                "maximum_payload": 32 << 20,
                "n_contexts": len(contexts),
            }
            | fields,
        )
        named = [Record(CONTEXT, id=i, name=name) for i, name in enumerate(contexts)]
        return [offer, *named, Record(READY)]

    def is_given_up(self):
        """Whether the other end has closed it already; looks, and waits for nothing."""
        return bool(select.select([self.sock], [], [], 0)[0]) and \
            self.sock.recv(1, socket.MSG_PEEK) == b""

    def offer(self, **fields):
        for record in self.offer_records(**fields):
            self.send(record)

    def grant(self, reserve, token=0x1234, **fields):
        values = {
            "request": reserve.request,
            "token": token,
            "connection": 1,
            "size": self.SIZE,
            "flags": self.FLAGS,
        }
        self.send(Record(GRANTED, **(values | fields)))

    def refuse(self, reserve, reason, sentence="not today"):
        self.send(
            Record(REFUSED, request=reserve.request, reason=REASON[reason], sentence=sentence)
        )

    def receive_client(self, token=0x1234):
        """The HANDOFF: the client's socket, as an export gets it."""
        record, fds = self.recv_with_fds()
        assert (record.type, record.token) == (HANDOFF, token), record
        assert len(fds) == 1, f"{len(fds)} descriptors in a hand-off"
        sock = socket.socket(fileno=fds[0])
        assert sock.type == socket.SOCK_STREAM
        sock.settimeout(PATIENCE)
        return sock


# Programs that take their sockets by LISTEN_FDS ------------------------------------------


class Program:
    """A running daemon: its pid, its log, and how to ask it to end."""

    def __init__(self, child, log):
        self.child = child
        self.log_path = log
        self.ended = False  # by the test, on purpose

    @property
    def pid(self):
        return self.child.pid

    @property
    def log(self):
        return self.log_path.read_text(errors="replace")

    def n_fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def fds(self):
        """What its descriptors are, sorted; numbers that the kernel hands out left out."""
        names = []
        for fd in os.listdir(f"/proc/{self.pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                names.append(os.readlink(f"/proc/{self.pid}/fd/{fd}").split(":")[0])
        return sorted(names)

    def rss(self):
        """Resident memory in bytes."""
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def alive(self):
        return self.child.poll() is None

    def wait(self):
        """Its exit code, once it ended; for a test that expects it to."""
        self.ended = True
        return self.child.wait(PATIENCE)

    def stop(self, number=signal.SIGTERM):
        """Signals it and returns its exit code."""
        self.child.send_signal(number)
        return self.wait()

    def kill(self):
        if self.alive():
            self.child.kill()
        return self.wait()


# The service manager's side of sd_listen_fds(3): the sockets from 3 on, and our own pid in
# LISTEN_PID, which only a program that is already the child can know.
LAUNCH = """
n=$1; shift
for ((i = 0; i < n; i++)); do
    eval "exec {at}<&$1 $1<&-"
    moved+=("$at"); shift
done
for ((i = 0; i < n; i++)); do
    eval "exec $((i + 3))<&${moved[i]} ${moved[i]}<&-"
done
export LISTEN_FDS=$n LISTEN_PID=$$
exec "$@"
"""


class Notifications:
    """The service manager's end of sd_notify(3): reads all that comes, as it comes."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(path))
        self.sock.settimeout(0.05)
        self.messages = []
        self.changed = threading.Condition()
        self.ended = False
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        while not self.ended:
            with contextlib.suppress(TimeoutError):
                message = self.sock.recv(4096).decode()
                with self.changed:
                    self.messages.append(message)
                    self.changed.notify_all()

    def wait(self, wanted, since=0, patience=PATIENCE):
        """The first message, from number `since` on, that has this text (or passes it)."""
        test = wanted if callable(wanted) else lambda message: wanted in message

        def found():
            return next(filter(test, self.messages[since:]), None)

        with self.changed:
            self.changed.wait_for(found, patience)
            return found()

    def close(self):
        self.ended = True
        self.thread.join()
        self.sock.close()


@contextlib.contextmanager
def program(argv, sockets, run_dir, name="program", wait_ready=True, env=None):
    """
    Runs `argv` with listening sockets until READY=1, and yields a Program.  Unless the test
    ended it, it must be alive at the end, and then end with 0 on SIGTERM.
    """
    notify_path = run_dir / f"{name}.notify"
    log = run_dir / f"{name}.log"
    fds = [sock.fileno() for sock in sockets]
    with contextlib.closing(Notifications(notify_path)) as notify, log.open("wb") as err:
        environment = os.environ | SANITIZERS | {"NOTIFY_SOCKET": str(notify_path)} | (env or {})
        child = subprocess.Popen(
            ["bash", "-c", LAUNCH, name, str(len(fds)), *map(str, fds), *map(str, argv)],
            env=environment,
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            stderr=err,
        )
        running = Program(child, log)
        running.notified = notify
        try:
            if wait_ready:
                await_ready(notify, running, name)
            yield running
            if not running.ended:
                assert running.alive(), f"{name} ended with {child.returncode}:\n{running.log}"
                assert running.stop() == 0, f"{name} did not end well:\n{running.log}"
            assert not complaints(running.log), running.log
        finally:
            running.kill()
            notify_path.unlink()


def await_ready(notify, running, name):
    for _ in range(int(PATIENCE) * 5):
        if notify.wait("READY=1", patience=0.2):
            return
        assert running.alive(), f"{name} ended before it was ready:\n{running.log}"
    raise AssertionError(f"{name} never said READY=1:\n{running.log}")
