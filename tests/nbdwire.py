# SPDX-License-Identifier: GPL-2.0-or-later
"""The NBD protocol from a client's side, for tests.

Written from the specification (doc/proto.md of the NetworkBlockDevice project and its
extension "extended headers"), and from nothing of the server: a number that is wrong in
daemon/wire must not be wrong here too.

Three layers, each usable alone:

    Wire     bytes: send(), recv(), closed(); for tests that write the protocol out
    Options  the handshake: greeting(), option(), info(), list(), go(), ...
    Client   the transmission phase in its three modes; replies in any order

A Client checks what every server must keep: each reply belongs to a request, chunks lie
within it, none overlap, all of it is covered, DONE comes once and last, errors carry a
sentence.  What breaks that is an AssertionError, wherever it happens.

Nothing here waits longer than PATIENCE seconds for anything.
"""

import bisect
import collections
import contextlib
import dataclasses
import os
import socket
import struct

# Seconds; only ever spent when something is broken.
PATIENCE = min(30.0, max(10.0, float(os.environ.get("NBD_EXPORT_PATIENCE", "20"))))

# Handshake -----------------------------------------------------------------------

NBDMAGIC = b"NBDMAGIC"
IHAVEOPT = b"IHAVEOPT"
REP_MAGIC = 0x3E889045565A9

FLAG_FIXED_NEWSTYLE = 1 << 0
FLAG_NO_ZEROES = 1 << 1

OPT_EXPORT_NAME = 1
OPT_ABORT = 2
OPT_LIST = 3
OPT_PEEK_EXPORT = 4
OPT_STARTTLS = 5
OPT_INFO = 6
OPT_GO = 7
OPT_STRUCTURED_REPLY = 8
OPT_LIST_META_CONTEXT = 9
OPT_SET_META_CONTEXT = 10
OPT_EXTENDED_HEADERS = 11

REP_ACK = 1
REP_SERVER = 2
REP_INFO = 3
REP_META_CONTEXT = 4
REP_ERROR = 1 << 31
REP_ERR_UNSUP = REP_ERROR | 1
REP_ERR_POLICY = REP_ERROR | 2
REP_ERR_INVALID = REP_ERROR | 3
REP_ERR_PLATFORM = REP_ERROR | 4
REP_ERR_TLS_REQD = REP_ERROR | 5
REP_ERR_UNKNOWN = REP_ERROR | 6
REP_ERR_SHUTDOWN = REP_ERROR | 7
REP_ERR_BLOCK_SIZE_REQD = REP_ERROR | 8
REP_ERR_TOO_BIG = REP_ERROR | 9
REP_ERR_EXT_HEADER_REQD = REP_ERROR | 10

INFO_EXPORT = 0
INFO_NAME = 1
INFO_DESCRIPTION = 2
INFO_BLOCK_SIZE = 3

HAS_FLAGS = 1 << 0
READ_ONLY = 1 << 1
SEND_FLUSH = 1 << 2
SEND_FUA = 1 << 3
ROTATIONAL = 1 << 4
SEND_TRIM = 1 << 5
SEND_WRITE_ZEROES = 1 << 6
SEND_DF = 1 << 7
CAN_MULTI_CONN = 1 << 8
SEND_RESIZE = 1 << 9
SEND_CACHE = 1 << 10
SEND_FAST_ZERO = 1 << 11
BLOCK_STAT_PAYLOAD = 1 << 12

# Transmission --------------------------------------------------------------------

SIMPLE, STRUCTURED, EXTENDED = MODES = (0, 1, 2)
MODE_NAMES = ("simple", "structured", "extended")

REQUEST_MAGIC = 0x25609513
EXTENDED_REQUEST_MAGIC = 0x21E41C71
SIMPLE_REPLY_MAGIC = 0x67446698
STRUCTURED_REPLY_MAGIC = 0x668E33EF
EXTENDED_REPLY_MAGIC = 0x6E8A278C

CMD_READ = 0
CMD_WRITE = 1
CMD_DISC = 2
CMD_FLUSH = 3
CMD_TRIM = 4
CMD_CACHE = 5
CMD_WRITE_ZEROES = 6
CMD_BLOCK_STATUS = 7
CMD_RESIZE = 8

CMD_FLAG_FUA = 1 << 0
CMD_FLAG_NO_HOLE = 1 << 1
CMD_FLAG_DF = 1 << 2
CMD_FLAG_REQ_ONE = 1 << 3
CMD_FLAG_FAST_ZERO = 1 << 4
CMD_FLAG_PAYLOAD_LEN = 1 << 5

REPLY_FLAG_DONE = 1 << 0
REPLY_NONE = 0
REPLY_OFFSET_DATA = 1
REPLY_OFFSET_HOLE = 2
REPLY_BLOCK_STATUS = 5
REPLY_BLOCK_STATUS_EXT = 6
REPLY_ERROR_BIT = 1 << 15
REPLY_ERROR = REPLY_ERROR_BIT | 1
REPLY_ERROR_OFFSET = REPLY_ERROR_BIT | 2

EPERM = 1
EIO = 5
ENOMEM = 12
EINVAL = 22
ENOSPC = 28
EOVERFLOW = 75
ENOTSUP = 95
ESHUTDOWN = 108
ERRORS = {EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN}

BASE_ALLOCATION = "base:allocation"
ALLOCATION_DEPTH = "qemu:allocation-depth"
STATE_HOLE = 1 << 0
STATE_ZERO = 1 << 1

MAX_STRING = 4096
MAX_PAYLOAD = 32 << 20


def as_bytes(text):
    return text if isinstance(text, bytes) else text.encode()


def u16(*values):
    return struct.pack(f">{len(values)}H", *values)


def u32(*values):
    return struct.pack(f">{len(values)}I", *values)


def u64(*values):
    return struct.pack(f">{len(values)}Q", *values)


def string(text):
    """A length and the text."""
    return u32(len(as_bytes(text))) + as_bytes(text)


def option_header(option, length, magic=IHAVEOPT):
    return magic + u32(option, length)


def go_payload(name="", infos=()):
    return string(name) + u16(len(infos)) + u16(*infos)


def meta_payload(name, queries):
    return string(name) + u32(len(queries)) + b"".join(string(q) for q in queries)


def request_header(mode, command, offset=0, length=0, flags=0, cookie=0, magic=None):
    if mode == EXTENDED:
        magic = EXTENDED_REQUEST_MAGIC if magic is None else magic
        return struct.pack(">IHHQQQ", magic, flags, command, cookie, offset, length)
    magic = REQUEST_MAGIC if magic is None else magic
    return struct.pack(">IHHQQI", magic, flags, command, cookie, offset, length)


class Closed(Exception):
    """The server ended the connection while bytes were awaited."""

    def __init__(self, got, wanted):
        super().__init__(f"closed by the server after {len(got)} of {wanted} bytes: {got[:64]!r}")
        self.got = got


class OptionError(Exception):
    """An option was refused; `reply.text` is the server's sentence."""

    def __init__(self, reply):
        super().__init__(f"option {reply.option}: {reply.type:#x} {reply.text!r}")
        self.reply = reply
        self.type = reply.type
        self.text = reply.text


class RequestError(Exception):
    """A request failed; `code` is the error on the wire."""

    def __init__(self, reply):
        super().__init__(f"request {reply.request}: error {reply.error} {reply.sentence!r}")
        self.reply = reply
        self.code = reply.error
        self.sentence = reply.sentence


class Wire:
    """Raw bytes to and from a server.

    `address`: the path of a unix socket, or (host, port).  `receive_buffer`, in bytes,
    makes a client that takes little before it reads.  `source` is the client's own address.
    """

    def __init__(self, address, patience=PATIENCE, receive_buffer=None, source=None):
        family = socket.AF_UNIX
        if isinstance(address, tuple):
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.settimeout(patience)
        # Room for some hundred requests that the server has not read: a socket with a timeout
        # counts as full when a quarter of its buffer is.
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            if source is not None:
                self.sock.bind((source, 0))
            self.sock.connect(address if isinstance(address, tuple) else str(address))
        except BaseException:
            self.sock.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self.sock.close()

    def fileno(self):
        return self.sock.fileno()

    def send(self, *parts):
        self.sock.sendall(b"".join(parts))

    def send_some(self, *parts):
        """Sends what the server will take; False when it hung up meanwhile."""
        try:
            self.sock.sendall(b"".join(parts))
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def recv(self, size):
        data = bytearray(size)
        view = memoryview(data)
        done = 0
        while done < size:
            try:
                n = self.sock.recv_into(view[done:])
            except (ConnectionResetError, BrokenPipeError):
                n = 0
            if n == 0:
                raise Closed(bytes(data[:done]), size)
            done += n
        return bytes(data)

    def unpack(self, fmt):
        return struct.unpack(fmt, self.recv(struct.calcsize(fmt)))

    def until_closed(self):
        """All that still comes until the server closes the connection."""
        data = b""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while more := self.sock.recv(1 << 16):
                data += more
        return data

    def closed(self):
        """Whether the server closes without another byte; waits for one or the other."""
        try:
            return self.sock.recv(1) == b""
        except (ConnectionResetError, BrokenPipeError):
            return True

    def shutdown_sending(self):
        self.sock.shutdown(socket.SHUT_WR)


@dataclasses.dataclass(frozen=True)
class OptionReply:
    option: int
    type: int
    data: bytes

    @property
    def is_error(self):
        return bool(self.type & REP_ERROR)

    @property
    def text(self):
        """The sentence of an error; has to be UTF-8."""
        return self.data.decode() if self.is_error else None


@dataclasses.dataclass
class Info:
    """What INFO or GO told.  Members stay None when the server did not tell."""

    size: int = None
    flags: int = None
    name: bytes = None
    description: bytes = None
    block_size: tuple = None  # minimum, preferred, maximum

    @property
    def minimum(self):
        return self.block_size[0]

    @property
    def preferred(self):
        return self.block_size[1]

    @property
    def maximum(self):
        return self.block_size[2]


def parse_info(replies):
    info = Info()
    for reply in replies:
        if reply.type != REP_INFO:
            continue
        (kind,) = struct.unpack(">H", reply.data[:2])
        body = reply.data[2:]
        if kind == INFO_EXPORT:
            assert info.size is None, "NBD_INFO_EXPORT came twice"
            info.size, info.flags = struct.unpack(">QH", body)
        elif kind == INFO_NAME:
            assert info.name is None, "NBD_INFO_NAME came twice"
            info.name = body
        elif kind == INFO_DESCRIPTION:
            assert info.description is None, "NBD_INFO_DESCRIPTION came twice"
            info.description = body
        elif kind == INFO_BLOCK_SIZE:
            assert info.block_size is None, "NBD_INFO_BLOCK_SIZE came twice"
            info.block_size = struct.unpack(">III", body)
        else:
            raise AssertionError(f"unknown information type {kind}")
    return info


class Options(Wire):
    """A connection in the handshake phase: greeting and option haggling."""

    def __init__(self, address, flags=FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES, **how):
        """`flags` None: nothing is read or sent yet."""
        super().__init__(address, **how)
        self.client_flags = flags
        if flags is not None:
            self.server_flags = self.greeting()
            self.send(u32(flags))

    def greeting(self):
        magic, opt_magic, flags = self.unpack(">8s8sH")
        assert magic == NBDMAGIC and opt_magic == IHAVEOPT
        return flags

    def send_option(self, option, payload=b""):
        self.send(option_header(option, len(payload)), payload)

    def receive_reply(self, option):
        magic, answered, kind, length = self.unpack(">QIII")
        assert magic == REP_MAGIC, f"bad magic {magic:#x} in an option reply"
        assert answered == option, f"reply to option {answered} instead of {option}"
        assert length <= 2 * MAX_STRING + 64, f"option reply of {length} bytes"
        reply = OptionReply(option, kind, self.recv(length))
        if kind == REP_ACK:
            assert reply.data == b"", "NBD_REP_ACK with data"
        if reply.is_error:
            reply.data.decode()  # a sentence, or nothing, in UTF-8
        return reply

    def receive_replies(self, option):
        """All replies to one option, the final ACK or error last."""
        replies = [self.receive_reply(option)]
        while replies[-1].type != REP_ACK and not replies[-1].is_error:
            replies.append(self.receive_reply(option))
        return replies

    def option(self, option, payload=b""):
        """Sends an option and returns its replies, the ACK or error last."""
        self.send_option(option, payload)
        return self.receive_replies(option)

    def result(self, option, payload=b""):
        """The type of the final reply alone."""
        return self.option(option, payload)[-1].type

    def must(self, option, payload=b""):
        """The replies before the ACK; OptionError for an error."""
        replies = self.option(option, payload)
        if replies[-1].is_error:
            raise OptionError(replies[-1])
        return replies[:-1]

    def list(self):
        """[(name, description)], both bytes."""
        found = []
        for reply in self.must(OPT_LIST):
            assert reply.type == REP_SERVER
            (length,) = struct.unpack(">I", reply.data[:4])
            assert length <= len(reply.data) - 4
            found.append((reply.data[4 : 4 + length], reply.data[4 + length :]))
        return found

    def info(self, name="", infos=()):
        return parse_info(self.must(OPT_INFO, go_payload(name, infos)))

    def go(self, name="", infos=()):
        return parse_info(self.must(OPT_GO, go_payload(name, infos)))

    def export_name(self, name=""):
        """(size, flags) by NBD_OPT_EXPORT_NAME; Closed when the server refuses."""
        self.send_option(OPT_EXPORT_NAME, as_bytes(name))
        size, flags = self.unpack(">QH")
        if not self.client_flags & FLAG_NO_ZEROES:
            assert self.recv(124) == bytes(124)
        return size, flags

    def structured_reply(self):
        self.must(OPT_STRUCTURED_REPLY)

    def extended_headers(self):
        self.must(OPT_EXTENDED_HEADERS)

    def enter_mode(self, mode):
        if mode == STRUCTURED:
            self.structured_reply()
        elif mode == EXTENDED:
            self.extended_headers()

    def _contexts(self, option, name, queries):
        found = {}
        for reply in self.must(option, meta_payload(name, queries)):
            assert reply.type == REP_META_CONTEXT
            (number,) = struct.unpack(">I", reply.data[:4])
            context = reply.data[4:].decode()
            assert context not in found, f"context {context} came twice"
            found[context] = number
        return found

    def list_contexts(self, name="", queries=()):
        """{context: id} that the export offers."""
        return self._contexts(OPT_LIST_META_CONTEXT, name, queries)

    def set_contexts(self, name="", queries=()):
        """{context: id} that are now selected."""
        found = self._contexts(OPT_SET_META_CONTEXT, name, queries)
        assert len(set(found.values())) == len(found), f"identifiers are not unique: {found}"
        return found


@dataclasses.dataclass
class Chunk:
    """One structured or extended chunk, or (type None) a simple reply."""

    type: int
    flags: int
    data: bytes
    offset: int = None  # of an OFFSET_DATA, OFFSET_HOLE or ERROR_OFFSET
    length: int = None  # of the bytes that an OFFSET_DATA or OFFSET_HOLE describes


@dataclasses.dataclass
class Request:
    command: int
    offset: int
    length: int
    flags: int
    cookie: int
    effect: int  # how long a range it is about; differs from length with a status filter


class Reply:
    """All that came in answer to one request."""

    def __init__(self, request):
        self.request = request
        self.error = 0
        self.sentence = ""
        self.simple = False
        self.chunks = []
        self.extents = {}  # context id: [(length, flags)]
        self.data = b""  # of a READ, from its first content on
        self._covered = []  # (begin, end), sorted

    def check(self):
        """Returns itself, or raises RequestError."""
        if self.error:
            raise RequestError(self)
        return self

    def cover(self, offset, length):
        begin, end = offset - self.request.offset, offset - self.request.offset + length
        assert length > 0, "an empty content chunk"
        assert 0 <= begin and end <= self.request.length, "a chunk outside of its request"
        at = bisect.bisect_left(self._covered, (begin, end))
        for other_begin, other_end in self._covered[max(at - 1, 0) : at + 1]:
            assert end <= other_begin or begin >= other_end, "content chunks overlap"
        self._covered.insert(at, (begin, end))
        if not self.data:
            self.data = bytearray(self.request.length)
        return begin, end

    def covers_all(self):
        return sum(end - begin for begin, end in self._covered) == self.request.length


class Client(Options):
    """A connection in the transmission phase.

    `contexts` are selected before GO; `.contexts` is then {name: id}.  Use as a context
    manager, or close() it.
    """

    def __init__(self, address, name="", mode=EXTENDED, contexts=(), infos=(INFO_BLOCK_SIZE,),
                 **how):
        super().__init__(address, **how)
        try:
            self.enter_mode(mode)
            self.begin(mode)
            if contexts:
                self.contexts = self.set_contexts(name, contexts)
            self.told = self.go(name, infos)
            self.size, self.flags = self.told.size, self.told.flags
        except BaseException:
            self.close()
            raise

    def begin(self, mode):
        """Prepares for transmission; for subclasses and tests that negotiate themselves."""
        self.mode = mode
        self.contexts = {}
        self.pending = {}
        self.done = collections.OrderedDict()
        self.cookie = 0x1122334400000000
        self.order = []  # cookies, as their last chunk came in

    @classmethod
    def over(cls, options, mode):
        """A client over a connection that has negotiated already."""
        self = cls.__new__(cls)
        self.sock = options.sock
        self.client_flags = options.client_flags
        self.begin(mode)
        return self

    # Requests

    def send_request(self, command, offset=0, length=0, flags=0, payload=b"", cookie=None,
                     effect=None):
        """Sends exactly this, without judgement, and returns the cookie."""
        if cookie is None:
            self.cookie += 1
            cookie = self.cookie
        assert cookie not in self.pending
        self.pending[cookie] = Reply(Request(command, offset, length, flags, cookie,
                                             length if effect is None else effect))
        self.send(request_header(self.mode, command, offset, length, flags, cookie), payload)
        return cookie

    def send_read(self, offset, length, flags=0):
        return self.send_request(CMD_READ, offset, length, flags)

    def send_write(self, offset, data, flags=0):
        if self.mode == EXTENDED:
            flags |= CMD_FLAG_PAYLOAD_LEN
        return self.send_request(CMD_WRITE, offset, len(data), flags, bytes(data))

    def send_status(self, offset, length, flags=0, only=None):
        """`only`: context ids, sent as the payload that narrows the question (extended)."""
        if only is None:
            return self.send_request(CMD_BLOCK_STATUS, offset, length, flags)
        payload = u64(length) + u32(*only)
        return self.send_request(CMD_BLOCK_STATUS, offset, len(payload),
                                 flags | CMD_FLAG_PAYLOAD_LEN, payload, effect=length)

    # Replies

    def receive(self):
        """Takes in one simple reply or one chunk; returns its request's Reply."""
        (magic,) = self.unpack(">I")
        if magic == SIMPLE_REPLY_MAGIC:
            return self._simple_reply()
        if magic == STRUCTURED_REPLY_MAGIC:
            assert self.mode == STRUCTURED, "a structured chunk that was not negotiated"
            flags, kind, cookie, length = self.unpack(">HHQI")
            return self._chunk(flags, kind, self._reply_of(cookie), length)
        if magic == EXTENDED_REPLY_MAGIC:
            assert self.mode == EXTENDED, "an extended chunk that was not negotiated"
            flags, kind, cookie, offset, length = self.unpack(">HHQQQ")
            reply = self._reply_of(cookie)
            assert offset == reply.request.offset, "an extended chunk with another offset"
            return self._chunk(flags, kind, reply, length)
        raise AssertionError(f"bad magic {magic:#x} in a reply")

    def _reply_of(self, cookie):
        assert cookie in self.pending, f"a reply to {cookie:#x}, which nobody asked"
        return self.pending[cookie]

    def _simple_reply(self):
        assert self.mode != EXTENDED, "a simple reply in extended mode"
        error, cookie = self.unpack(">IQ")
        reply = self._reply_of(cookie)
        reply.simple = True
        reply.error = error
        assert error == 0 or error in ERRORS, f"error {error} is not of the protocol"
        if self.mode == STRUCTURED:
            assert reply.request.command not in (CMD_READ, CMD_BLOCK_STATUS), \
                "a simple reply where only a structured one may be"
            assert not reply.chunks, "a simple reply after chunks"
            assert not error, "an error without a sentence in structured mode"
        elif reply.request.command == CMD_READ and not error:
            reply.data = bytearray(self.recv(reply.request.length))
        self._finish(reply)
        return reply

    def _chunk(self, flags, kind, reply, length):
        assert flags in (0, REPLY_FLAG_DONE), f"unknown chunk flags {flags:#x}"
        assert length <= MAX_PAYLOAD + 64, f"a chunk of {length} bytes"
        chunk = Chunk(kind, flags, self.recv(length))
        reply.chunks.append(chunk)
        if kind & REPLY_ERROR_BIT:
            self._error_chunk(chunk, reply)
        elif kind == REPLY_NONE:
            assert length == 0 and flags == REPLY_FLAG_DONE, "a NONE chunk that is not bare"
        elif kind in (REPLY_OFFSET_DATA, REPLY_OFFSET_HOLE):
            self._content_chunk(chunk, reply)
        else:
            self._status_chunk(chunk, reply)
        if flags & REPLY_FLAG_DONE:
            self._complete(reply)
            self._finish(reply)
        return reply

    @staticmethod
    def _error_chunk(chunk, reply):
        assert chunk.type in (REPLY_ERROR, REPLY_ERROR_OFFSET), f"error type {chunk.type:#x}"
        tail = 8 if chunk.type == REPLY_ERROR_OFFSET else 0
        error, length = struct.unpack(">IH", chunk.data[:6])
        assert len(chunk.data) == 6 + length + tail, "an error chunk's lengths do not match"
        assert error in ERRORS, f"error {error} is not of the protocol"
        assert 0 < length <= MAX_STRING, "an error without a sentence"
        sentence = chunk.data[6 : 6 + length].decode()
        if tail:
            (chunk.offset,) = struct.unpack(">Q", chunk.data[-8:])
            request = reply.request
            assert request.offset <= chunk.offset <= request.offset + request.length
        if not reply.error:
            reply.error, reply.sentence = error, sentence

    @staticmethod
    def _content_chunk(chunk, reply):
        assert reply.request.command == CMD_READ, "content in answer to no READ"
        (chunk.offset,) = struct.unpack(">Q", chunk.data[:8])
        if chunk.type == REPLY_OFFSET_DATA:
            chunk.length = len(chunk.data) - 8
            begin, end = reply.cover(chunk.offset, chunk.length)
            reply.data[begin:end] = chunk.data[8:]
        else:
            assert len(chunk.data) == 12, "a hole chunk of a wrong length"
            (chunk.length,) = struct.unpack(">I", chunk.data[8:])
            begin, end = reply.cover(chunk.offset, chunk.length)
            reply.data[begin:end] = bytes(end - begin)
        if reply.request.flags & CMD_FLAG_DF:
            content = [c for c in reply.chunks if c.length is not None]
            assert len(content) == 1, "several content chunks in spite of DF"

    def _status_chunk(self, chunk, reply):
        assert reply.request.command == CMD_BLOCK_STATUS, f"chunk type {chunk.type} unasked"
        if self.mode == EXTENDED:
            assert chunk.type == REPLY_BLOCK_STATUS_EXT, f"chunk type {chunk.type} in extended mode"
            context, count = struct.unpack(">II", chunk.data[:8])
            pairs = list(struct.iter_unpack(">QQ", chunk.data[8:]))
            assert count == len(pairs), "the count of extents does not match"
        else:
            assert chunk.type == REPLY_BLOCK_STATUS, f"chunk type {chunk.type} in structured mode"
            (context,) = struct.unpack(">I", chunk.data[:4])
            pairs = list(struct.iter_unpack(">II", chunk.data[4:]))
        assert pairs, "a status without extents"
        assert all(length for length, _ in pairs), "an empty extent"
        assert context not in reply.extents, f"two chunks about context {context}"
        assert context in self.contexts.values(), f"context {context} was not selected"
        if reply.request.flags & CMD_FLAG_REQ_ONE:
            assert len(pairs) == 1, "several extents in spite of REQ_ONE"
        assert sum(length for length, _ in pairs[:-1]) < reply.request.effect
        reply.extents[context] = pairs

    @staticmethod
    def _complete(reply):
        if reply.error:
            return
        if reply.request.command == CMD_READ:
            assert reply.covers_all(), "a READ succeeded without all of its data"
        if reply.request.command == CMD_BLOCK_STATUS:
            assert reply.extents, "a BLOCK_STATUS succeeded without an answer"

    def _finish(self, reply):
        del self.pending[reply.request.cookie]
        self.done[reply.request.cookie] = reply
        self.order.append(reply.request.cookie)

    def wait(self, cookie):
        """The whole reply to this request; others that come first are kept."""
        while cookie not in self.done:
            self.receive()
        return self.done.pop(cookie)

    def wait_any(self):
        """Whichever reply is complete first."""
        while not self.done:
            self.receive()
        return self.done.popitem(last=False)[1]

    def wait_all(self):
        while self.pending:
            self.receive()
        done, self.done = list(self.done.values()), collections.OrderedDict()
        return done

    # A request and its reply

    def call(self, command, offset=0, length=0, flags=0, payload=b"", effect=None):
        """The Reply, successful or not."""
        return self.wait(self.send_request(command, offset, length, flags, payload,
                                           effect=effect))

    def error(self, command, offset=0, length=0, flags=0, payload=b""):
        """The error code of the reply; 0 for success."""
        return self.call(command, offset, length, flags, payload).error

    def read(self, offset, length, flags=0):
        return bytes(self.wait(self.send_read(offset, length, flags)).check().data)

    def write(self, offset, data, flags=0):
        self.wait(self.send_write(offset, data, flags)).check()

    def write_error(self, offset, data, flags=0):
        return self.wait(self.send_write(offset, data, flags)).error

    def flush(self, flags=0):
        self.call(CMD_FLUSH, flags=flags).check()

    def trim(self, offset, length, flags=0):
        self.call(CMD_TRIM, offset, length, flags).check()

    def cache(self, offset, length, flags=0):
        self.call(CMD_CACHE, offset, length, flags).check()

    def zero(self, offset, length, flags=0):
        self.call(CMD_WRITE_ZEROES, offset, length, flags).check()

    def status(self, offset, length, flags=0, only=None):
        """{context name: [(length, flags)]}"""
        reply = self.wait(self.send_status(offset, length, flags, only)).check()
        names = {number: name for name, number in self.contexts.items()}
        return {names[number]: pairs for number, pairs in reply.extents.items()}

    def disconnect(self):
        """NBD_CMD_DISC; the server must close without a word.  True if it did."""
        self.send(request_header(self.mode, CMD_DISC))
        return self.closed()
