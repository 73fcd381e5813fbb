# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks with a write cache that forgets: what their user has not flushed may be gone after a cut.

    disk = LossyDisk(path, size, socket)    an NBD server of its own, for QEMU; the file is the medium
    disk.cut(rng)                           the power goes: of what was not flushed all, nothing
                                            or some sectors are kept, each as it was at any time
    disk.content()                          as its user sees it;  disk.medium()
    disk.close()

A disk keeps 512-byte sectors: each is written as a whole or not.
"""

import contextlib
import mmap
import os
import socket
import struct
import threading

SECTOR = 512
READ, WRITE, DISC, FLUSH, TRIM, ZEROES = 0, 1, 2, 3, 4, 6
FUA = 1
FLAGS = 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6     # flush, FUA, trim, zeroes
EINVAL = 22


class LossyDisk:
    def __init__(self, path, size, listen):
        self.size = size
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.truncate(self.fd, size)
        self.file = mmap.mmap(self.fd, size)
        self.seen = mmap.mmap(-1, size)             # what is in the cache, and what is not
        for start, end in self.data():
            self.seen[start:end] = self.file[start:end]
        self.cached = {}                            # by sector, all that it was since a flush
        self.lock = threading.Lock()
        self.flushes = self.writes = 0
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(listen))
        self.listener.listen()
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def data(self):
        """[(start, end)] of what is no hole, in whole sectors."""
        at = 0
        while True:
            try:
                start = os.lseek(self.fd, at, os.SEEK_DATA)
            except OSError:
                return
            at = os.lseek(self.fd, start, os.SEEK_HOLE)
            yield start, at

    # The disk

    def write(self, at, data, fua):
        self.writes += 1
        self.seen[at : at + len(data)] = data
        if fua:
            self.file[at : at + len(data)] = data
        for i in range(0, len(data), SECTOR):
            if fua:                                 # and no older state of it may come later
                self.cached.pop(at + i, None)
            else:
                self.cached.setdefault(at + i, []).append(data[i : i + SECTOR])

    def flush(self):
        self.flushes += 1
        for at, states in self.cached.items():
            self.file[at : at + SECTOR] = states[-1]
        self.cached.clear()

    def cut(self, rng):
        """Once nobody uses it any more."""
        self.wait_unused()
        kept = rng.choice([0, rng.random(), 1])
        for at, states in self.cached.items():
            if rng.random() < kept:
                self.file[at : at + SECTOR] = rng.choice(states) if kept < 1 else states[-1]
            self.seen[at : at + SECTOR] = self.file[at : at + SECTOR]
        lost = len(self.cached)
        self.cached.clear()
        return lost

    def content(self):
        with self.lock:
            return self.seen[:]

    def medium(self):
        with self.lock:
            return self.file[:]

    # The server: one user at a time

    def accept(self):
        while True:
            try:
                user, _ = self.listener.accept()
            except OSError:
                return
            with user, contextlib.suppress(EOFError, ConnectionError):
                self.handshake(user)
                while self.request(user):
                    pass

    def wait_unused(self):
        """Until what the last user had sent is in the cache: it is one thread that does all, which
        answers the next user after the last one is through."""
        with socket.socket(socket.AF_UNIX) as next_one:
            next_one.connect(self.listener.getsockname())
            take(next_one, 18)

    def handshake(self, user):
        user.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
        take(user, 4)
        while True:
            _, option, length = struct.unpack(">8sII", take(user, 16))
            take(user, length)

            def reply(kind, data=b"", option=option):
                user.sendall(struct.pack(">QIII", 0x3E889045565A9, option, kind, len(data)) + data)

            if option in (6, 7):                    # INFO, GO
                reply(3, struct.pack(">HQH", 0, self.size, FLAGS))
                reply(3, struct.pack(">HIII", 3, SECTOR, 4096, 1 << 25))
                reply(1)
                if option == 7:
                    return
            elif option == 2:                       # ABORT
                raise EOFError
            else:
                reply(1 << 31 | 1)

    def request(self, user):
        magic, flags, kind, cookie, at, length = struct.unpack(">IHHQQI", take(user, 28))
        assert magic == 0x25609513
        data = take(user, length) if kind == WRITE else b""
        if kind == DISC:
            return False
        error, answer = 0, b""
        with self.lock:
            if at + length > self.size or at % SECTOR or length % SECTOR:
                error = EINVAL
            elif kind == READ:
                answer = self.seen[at : at + length]
            elif kind in (WRITE, TRIM, ZEROES):
                self.write(at, data or bytes(length), flags & FUA)
            elif kind == FLUSH:
                self.flush()
            else:
                error = EINVAL
        user.sendall(struct.pack(">IIQ", 0x67446698, error, cookie) + answer)
        return True

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(20)
        self.file.close()
        self.seen.close()
        os.close(self.fd)


def take(sock, n):
    """That many bytes, or EOFError."""
    data = bytearray()
    while len(data) < n:
        piece = sock.recv(n - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
