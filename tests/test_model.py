# SPDX-License-Identifier: GPL-2.0-or-later
"""
Random requests against a byte array.

The disk is cut into stripes, most of them smaller than a sector, which belong to the
connections in turn: nearly every sector is shared.  Each connection writes, zeroes and
trims only its own stripes, several at once, all connections together; an update that is
lost, or a neighbour that is hurt, shows in somebody's stripe.  TRIM leaves what it covers
unknown until it is written again.
"""

import os
import threading

import nbdwire as wire
import pytest
from conftest import by_mode
from nbdwire import CMD_FLAG_DF, CMD_FLAG_FAST_ZERO, CMD_FLAG_FUA, CMD_FLAG_NO_HOLE
from seed import seeded

N_CONNECTIONS = 3
DEPTH = 6  # requests in flight for each connection
KNOWN, UNKNOWN = b"\xff", b"\0"


class Disk:
    """What the disk must hold: `data` where the byte of `mask` is KNOWN."""

    def __init__(self, content):
        self.data = bytearray(content)
        self.mask = bytearray(KNOWN * len(content))

    def put(self, at, data):
        self.data[at : at + len(data)] = data
        self.mask[at : at + len(data)] = KNOWN * len(data)

    def forget(self, at, length):
        self.mask[at : at + length] = UNKNOWN * length

    def matches(self, at, got):
        """Whether the bytes got from `at` on are what they must be, as far as known."""
        want = self.data[at : at + len(got)]
        if got == want:
            return True
        mask = int.from_bytes(self.mask[at : at + len(got)], "big")
        return int.from_bytes(got, "big") & mask == int.from_bytes(want, "big") & mask

    def first_difference(self, at, got):
        for i, byte in enumerate(got):
            if self.mask[at + i] and byte != self.data[at + i]:
                return f"byte {at + i} is {byte:#04x} instead of {self.data[at + i]:#04x}"
        return "no difference"


def stripes(rng, size):
    """Cuts 0..size into pieces: mostly small and odd, some of whole sectors, a few large."""
    at = 0
    while at < size:
        length = rng.choice(
            (
                rng.randrange(1, 600),
                rng.randrange(1, 600),
                rng.randrange(1, 5000),
                512 * rng.randrange(1, 4),
                4096 - at % 4096,
                4096 * rng.randrange(1, 8),
                rng.randrange(1, 100_000),
                rng.choice((1, 1, 1, 600_000)),
            )
        )
        length = min(length, size - at)
        yield at, length
        at += length


class Connection:
    """One client, its stripes, and what it has in flight."""

    def __init__(self, client, disk, own, rng, n_requests):
        self.client, self.disk, self.rng, self.left = client, disk, rng, n_requests
        self.idle = list(own)
        self.busy = {}  # cookie: (stripe, what to do with the reply)
        self.fault = None

    def run(self):
        try:
            while self.left or self.busy:
                while self.left and self.idle and len(self.busy) < DEPTH:
                    self.start_one()
                self.finish_one()
        except Exception as fault:  # pylint: disable=broad-except
            self.fault = fault

    def start_one(self):
        self.left -= 1
        where = self.rng.randrange(len(self.idle))
        self.idle[where], self.idle[-1] = self.idle[-1], self.idle[where]
        stripe = self.idle.pop()
        begin = stripe[0] + self.rng.choice((0, self.rng.randrange(stripe[1])))
        most = stripe[0] + stripe[1] - begin
        length = self.rng.choice((most, self.rng.randrange(1, most + 1)))
        kinds = (self.write, self.write, self.write, self.zero, self.trim, self.read, self.read)
        if self.client.contexts:
            kinds += (self.status,)
        if self.rng.random() < 0.02:
            kinds = (self.flush,)
        cookie, done = self.rng.choice(kinds)(begin, length)
        self.busy[cookie] = (stripe, done)

    def finish_one(self):
        reply = self.client.wait_any()
        stripe, done = self.busy.pop(reply.request.cookie)
        done(reply)
        self.idle.append(stripe)

    def fua(self):
        return CMD_FLAG_FUA if self.rng.random() < 0.03 else 0

    def write(self, at, length):
        data = self.rng.randbytes(length)
        return self.client.send_write(at, data, self.fua()), lambda reply: (
            reply.check(),
            self.disk.put(at, data),
        )

    def zero(self, at, length):
        flags = self.fua() | self.rng.choice((0, CMD_FLAG_NO_HOLE, CMD_FLAG_FAST_ZERO))
        cookie = self.client.send_request(wire.CMD_WRITE_ZEROES, at, length, flags)

        def done(reply):
            if flags & CMD_FLAG_FAST_ZERO and reply.error == wire.ENOTSUP:
                return
            reply.check()
            self.disk.put(at, bytes(length))

        return cookie, done

    def trim(self, at, length):
        cookie = self.client.send_request(wire.CMD_TRIM, at, length, self.fua())
        self.disk.forget(at, length)
        return cookie, lambda reply: reply.check()

    def read(self, at, length):
        flags = CMD_FLAG_DF if self.client.mode and self.rng.random() < 0.3 else 0

        def done(reply):
            got = reply.check().data
            assert self.disk.matches(at, got), (
                f"READ {at}+{length}: {self.disk.first_difference(at, got)}"
            )

        return self.client.send_read(at, length, flags), done

    def status(self, at, length):
        def done(reply):
            (extents,) = reply.check().extents.values()
            here = at
            for extent, state in extents:
                extent = min(extent, at + length - here)
                if state & wire.STATE_ZERO:
                    assert self.disk.matches(here, bytes(extent)), (
                        f"{here}+{extent} is said to be zero: "
                        f"{self.disk.first_difference(here, bytes(extent))}"
                    )
                here += extent

        return self.client.send_status(at, length), done

    def flush(self, _at, _length):
        return self.client.send_request(wire.CMD_FLUSH), lambda reply: reply.check()


def run_model(server, path, size, mode, n_requests, content):
    """The whole test: random requests, then everything read back twice."""
    rng = seeded()
    disk = Disk(content)
    owned = [[] for _ in range(N_CONNECTIONS)]
    for i, stripe in enumerate(stripes(rng, size)):
        owned[i % N_CONNECTIONS].append(stripe)
    contexts = [wire.BASE_ALLOCATION] if mode != wire.SIMPLE else []
    connections = [
        Connection(
            server.client(mode=mode, contexts=contexts),
            disk,
            own,
            type(rng)(rng.getrandbits(64)),
            n_requests,
        )
        for own in owned
    ]
    threads = [threading.Thread(target=c.run) for c in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    faults = [c.fault for c in connections if c.fault]
    if faults:
        raise faults[0]

    fresh = server.client(mode=mode)
    for at in range(0, size, 1 << 20):
        compare(disk, at, fresh.read(at, min(1 << 20, size - at)), "read back")
    fresh.flush()
    server.stop()
    assert os.path.getsize(path) in (0, len(content)), "the file has another size now"
    with open(path, "rb") as file:
        for at in range(0, len(content), 1 << 20):
            compare(disk, at, file.read(min(1 << 20, len(content) - at)), "on the disk")


def compare(disk, at, got, where):
    assert disk.matches(at, got), f"{where}: {disk.first_difference(at, got)}"


MIB = 1 << 20
# What is served: the size of the disk, its kind, and how.
DISKS = {
    "file": ("file", 3 * MIB, {}),
    "file-with-a-tail": ("file", 2 * MIB + 1536 + 77, {}),
    "file-buffered": ("file", 3 * MIB + 77, {"direct": "no"}),
    "loop-512": ("loop512", 3 * MIB, {}),
    "loop-4096": ("loop4096", 3 * MIB, {}),
    "zram": ("zram", 3 * MIB, {}),
}


# What the request loop runs on.
LOOPS = {
    "one-ring": {"engine": "io_uring"},
    "two-rings": {"engine": "io_uring", "threads": 2},
    "thread-pool": {"engine": "threads"},
    "two-thread-pools": {"engine": "threads", "threads": 2},
}


@by_mode()
@pytest.mark.parametrize("loops", LOOPS)
@pytest.mark.parametrize("which", DISKS)
def test_every_byte_is_what_was_written_last(disk, serve, counts, which, loops, mode):
    kind, length, how = DISKS[which]
    how = how | LOOPS[loops]
    rng = seeded()
    content = rng.randbytes(length // 2) + bytes(length - length // 2)
    path = disk(kind, length, content)
    server = serve(path, **how)
    run_model(server, path, length - length % 512, mode, counts(1_000, 40_000), content)


@pytest.mark.parametrize("loops", LOOPS)
@pytest.mark.parametrize("which", ["file", "loop-512", "loop-4096", "zram"])
def test_neighbours_in_one_sector_never_lose_an_update(disk, serve, counts, which, loops):
    """Eight connections write adjacent bytes of a few sectors, as fast as they can."""
    kind, length, how = DISKS[which]
    server = serve(disk(kind, length), **how, **LOOPS[loops])
    clients = [server.client() for _ in range(8)]
    groups = range(3, 16 << 10, 509)
    for step in range(1, counts(60, 3_000) + 1):
        value = bytes([step % 256])
        for at in groups:
            for i, client in enumerate(clients):
                client.send_write(at + i, value)
        for client in clients:
            assert all(reply.error == 0 for reply in client.wait_all())
        got = clients[step % len(clients)].read(0, 20 << 10)
        for at in groups:
            assert got[at : at + 8] == value * 8, f"round {step}, offset {at}"
