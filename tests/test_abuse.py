# SPDX-License-Identifier: GPL-2.0-or-later
"""Clients that hang up, stall, talk nonsense or take all they can; programs that die."""

import contextlib
import os
import pathlib
import random
import selectors
import signal
import socket
import struct
import time

import nbdwire as wire
import pytest
from conftest import MIB, backing_of, by_mode, pattern, processes_with, wait_until
from nbdwire import Client
from seed import seeded
from test_channel import mutate


MUCH = 32 * MIB
AT_ONCE = 16


def rss(pid):
    """Resident memory in bytes."""
    pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def n_fds(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def is_sanitized(program):
    return b"__asan_init" in program.read_bytes()


def whole_handshake(option=wire.OPT_GO):
    """From the client's flags to its first request, in structured mode."""
    payload = b"" if option == wire.OPT_EXPORT_NAME else wire.go_payload("", [3])
    context = wire.meta_payload("", [wire.BASE_ALLOCATION])
    return b"".join(
        (
            wire.u32(wire.FLAG_FIXED_NEWSTYLE | wire.FLAG_NO_ZEROES),
            wire.option_header(wire.OPT_LIST, 0),
            wire.option_header(wire.OPT_STRUCTURED_REPLY, 0),
            wire.option_header(wire.OPT_SET_META_CONTEXT, len(context)),
            context,
            wire.option_header(option, len(payload)),
            payload,
            wire.request_header(wire.STRUCTURED, wire.CMD_WRITE, 0, 512, cookie=1),
            b"w" * 512,
            wire.request_header(wire.STRUCTURED, wire.CMD_READ, 0, 512, cookie=2),
        )
    )


# In the handshake ------------------------------------------------------------------------


@pytest.mark.parametrize("option", [wire.OPT_GO, wire.OPT_EXPORT_NAME], ids=["go", "export-name"])
@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
def test_a_client_may_leave_after_any_byte(serve, file_disk, option, how):
    server = serve(file_disk(), listen="127.0.0.1:0")
    handshake = whole_handshake(option)
    bystander = server.client()
    head = len(handshake) - 512 - 28  # the middle of a WRITE's payload is tried once
    for length in [*range(head + 1), head + 100, *range(len(handshake) - 28, len(handshake) + 1)]:
        with wire.Wire(server.tcp_address()) as client:
            client.send_some(handshake[:length])
            if how == "reset":
                client.sock.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            elif how == "half-close":
                client.shutdown_sending()
                client.until_closed()
        if length % 20 == 0:
            assert len(bystander.read(4096, 512)) == 512
    assert bystander.read(0, 512) in (bytes(512), b"w" * 512)
    assert server.client().read(0, 1)


def test_200_connections_dropped_in_the_handshake_leave_nothing_behind(serve, file_disk):
    server = serve(file_disk())
    (negotiator,), (export,) = server.pids("nbd-negotiator"), server.pids("nbd-export")
    server.client().disconnect()
    before = n_fds(negotiator), n_fds(export)
    rng = seeded()
    handshake = whole_handshake()
    clients = []
    for _ in range(200):
        client = wire.Wire(server.socket)
        client.send_some(handshake[: rng.randrange(len(handshake) - 600)])
        clients.append(client)
    assert server.client().read(0, 512) == bytes(512)
    for client in rng.sample(clients, len(clients)):
        client.close()
    server.connections.close()
    wait_until(lambda: n_fds(negotiator) <= before[0], "the negotiator to forget them")
    wait_until(lambda: n_fds(export) <= before[1], "the export to forget them")


def test_garbage_in_the_handshake_ends_only_that_connection(serve, file_disk, counts):
    server = serve(file_disk())
    rng = seeded()
    bystander = server.client()
    handshake = whole_handshake()
    for step in range(counts(400, 20_000)):
        flags = rng.choice((None, 3))
        with wire.Wire(server.socket) as client:
            if flags is None:
                client.send_some(rng.randbytes(rng.randrange(1, 2000)))
            else:
                client.send_some(handshake[:4], mutate(rng, handshake[4:-568]))
            if rng.random() < 0.5:
                client.shutdown_sending()
                client.until_closed()
        if step % 100 == 0:
            assert bystander.read(0, 512) == bytes(512), f"step {step}"
    assert server.client().read(0, 1)


# In the transmission phase ---------------------------------------------------------------


def random_request(rng, mode):
    """A request that is nearly right."""
    command = rng.choice((*range(9), rng.getrandbits(16)))
    length = rng.choice((0, 1, 512, 4096, 65536, 33 << 20, 1 << 31, rng.getrandbits(32)))
    offset = rng.choice((0, 1, 511, 4096, (8 << 20) - 1, 8 << 20, 1 << 63, rng.getrandbits(64)))
    flags = rng.choice((0, 0, 1, 2, 4, 8, 16, 32, 33, rng.getrandbits(16)))
    if mode == wire.EXTENDED and rng.random() < 0.1:
        length = rng.choice((1 << 40, 1 << 63, (1 << 64) - 1))
    payload = b""
    if command == wire.CMD_WRITE or flags & wire.CMD_FLAG_PAYLOAD_LEN:
        length %= 100_000
        payload = rng.randbytes(length)
    return wire.request_header(mode, command, offset, length, flags, rng.getrandbits(64)) + payload


@by_mode()
def test_garbage_requests_end_only_that_connection(serve, file_disk, counts, mode):
    server = serve(file_disk())
    rng = seeded()
    bystander = server.client()
    contexts = [wire.BASE_ALLOCATION] if mode else []
    for step in range(counts(100, 5_000)):
        client = server.client(mode=mode, contexts=contexts)
        client.sock.setblocking(False)
        stream = b"".join(random_request(rng, mode) for _ in range(rng.randrange(1, 30)))
        if rng.random() < 0.7:
            stream = mutate(rng, stream)
        with contextlib.suppress(OSError):
            while stream:
                stream = stream[client.sock.send(stream) :]
                client.sock.recv(1 << 20)
        client.close()
        if step % 20 == 0:
            assert len(bystander.read(0, 512)) == 512, f"step {step}"
    bystander.flush()


@by_mode()
def test_a_client_may_leave_after_any_byte_of_a_request(serve, file_disk, mode):
    server = serve(file_disk())
    stream = wire.request_header(mode, wire.CMD_READ, 0, 65536, cookie=1)
    flags = wire.CMD_FLAG_PAYLOAD_LEN if mode == wire.EXTENDED else 0
    stream += wire.request_header(mode, wire.CMD_WRITE, 8192, 64, flags, cookie=2) + b"w" * 64
    for length in range(len(stream) + 1):
        client = server.client(mode=mode)
        client.send(stream[:length])
        client.close()
    # What had not arrived as a whole was not done.
    assert server.client().read(8192, 64) in (bytes(64), b"w" * 64)


def test_a_write_that_was_cut_off_leaves_sectors_alone_that_did_not_arrive(serve, file_disk):
    server = serve(file_disk(8 * MIB, pattern(8 * MIB)))
    (export,) = server.pids("nbd-export")
    reader = server.client()
    reader.read(0, 512)  # the export has it
    before = n_fds(export)
    client = server.client()
    client.send(
        wire.request_header(wire.EXTENDED, wire.CMD_WRITE, 4 * MIB, 4 * MIB,
                            wire.CMD_FLAG_PAYLOAD_LEN, 1),
        b"w" * MIB,
    )
    client.close()
    wait_until(lambda: n_fds(export) <= before, "the export to close it")
    got = reader.read(4 * MIB, 4 * MIB)
    assert got[MIB:] == pattern(8 * MIB)[5 * MIB :]


def test_descriptors_that_a_client_sends_are_dropped(serve, file_disk):
    server = serve(file_disk())
    (negotiator,), (export,) = server.pids("nbd-negotiator"), server.pids("nbd-export")
    server.client().disconnect()
    before = n_fds(negotiator), n_fds(export)
    client = wire.Wire(server.socket)
    for at, byte in enumerate(whole_handshake()):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            socket.send_fds(client.sock, [bytes([byte])], [theirs.fileno()] * (1 + at % 3))
    client.shutdown_sending()
    client.until_closed()
    client.close()
    server.connections.close()
    wait_until(lambda: n_fds(negotiator) <= before[0], "the negotiator to have none of them")
    wait_until(lambda: n_fds(export) <= before[1], "the export to have none of them")


def blockade(server, n):
    """Clients that read nothing, that stop mid-request, and that vanish: 3 × n."""
    for i in range(n):
        deaf = server.client(mode=wire.SIMPLE)
        for _ in range(128):
            deaf.send_read(0, MIB)
        half = server.client()
        half.send(wire.request_header(half.mode, wire.CMD_READ, 0, 512)[: 1 + i % 31])
        stalled = server.client(mode=wire.STRUCTURED)
        stalled.send(
            wire.request_header(stalled.mode, wire.CMD_WRITE, 4 * MIB, 2 * MIB), bytes(1000 * i)
        )
        gone = server.client()
        for _ in range(64):
            gone.send_read(0, 65536)
            gone.send_write(4 * MIB, bytes(512))
        gone.close()


def test_clients_that_stall_or_vanish_cost_others_nothing(serve, file_disk):
    server = serve(file_disk(8 * MIB, pattern(4 * MIB)))
    blockade(server, 20)
    client = server.client()
    slowest = 0
    wanted = pattern(4 * MIB)
    for i in range(300):
        began = time.monotonic()
        at = i * 8192 + i
        assert client.read(at, 4096) == wanted[at : at + 4096]
        client.write(6 * MIB + i * 512, bytes([i % 256]) * 512)
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 10, f"a small read and a small write took {slowest:.1f} s"


def test_thousands_of_writes_that_share_sectors_cost_others_little(serve, file_disk):
    """Each covers halves of two sectors and so has to wait for the one before it."""
    server = serve(file_disk(8 * MIB))
    clients = [server.client(mode=wire.SIMPLE) for _ in range(40)]
    bystander = server.client()
    for i, client in enumerate(clients):
        for k in range(128):
            client.send_write((i * 128 + k) * 512 + 256, bytes([1 + i]) * 512)
    slowest = 0
    for _ in range(100):
        began = time.monotonic()
        bystander.read(7 * MIB, 4096)
        slowest = max(slowest, time.monotonic() - began)
    for client in clients:
        assert all(reply.error == 0 for reply in client.wait_all())
    assert slowest < 10, f"a small read took {slowest:.1f} s"
    got = bystander.read(256, 40 * 65536)
    assert got == b"".join(bytes([1 + i]) * 65536 for i in range(40))


@by_mode()
@pytest.mark.parametrize("seconds", [0, 0.05, 1.5], ids=["at-once", "soon", "later"])
def test_clients_that_asked_for_much_and_leave_free_everything(serve, file_disk, mode, seconds):
    """Before, while and after their unread replies have to give their memory up."""
    server = serve(file_disk(64 * MIB, b"content." * (8 * MIB)))
    (export,) = server.pids("nbd-export")
    bystander = server.client()
    bystander.read(0, 8)  # it is there now
    before = n_fds(export)
    for _ in range(1 if seconds > 1 else 8):
        clients = [server.client(mode=mode) for _ in range(8)]
        for client in clients:
            for i in range(16):
                client.send_read((i % 2) * MUCH, MUCH)
        leave_at = time.monotonic() + seconds
        while time.monotonic() < leave_at:
            assert bystander.read(0, 8) == b"content."
        for client in clients:
            client.close()
    wait_until(lambda: n_fds(export) <= before, "the export to close them all")
    assert bystander.read(0, 8) == b"content."


# Memory ----------------------------------------------------------------------------------

@by_mode()
def test_clients_that_read_late_get_every_byte(serve, file_disk, mode):
    """Their replies gave the memory up meanwhile, and have to be read once more."""
    wanted = pattern(MIB) * 32
    server = serve(file_disk(32 * MIB, wanted))
    clients = [server.client(mode=mode) for _ in range(3)]
    for client in clients:
        for _ in range(2):
            client.send_read(0, MUCH)
    bystander = server.client()
    late = time.monotonic() + 1.5
    while time.monotonic() < late:
        assert bystander.read(4096, 512) == wanted[4096:4608]
    for client in clients:
        while client.pending:
            assert client.wait_any().data == wanted


class Crowd:
    """
    Clients by the dozen on one selector, each with 16 requests of 32 MiB outstanding:
    readers and writers that move, some that never read, some that stop in a WRITE.
    """

    def __init__(self, server):
        self.server = server
        self.moving = {}  # socket: bytes still to be received
        self.sending = {}  # socket: list of memoryviews
        self.selector = selectors.DefaultSelector()
        self.scratch = bytearray(MIB)
        self.payload = memoryview(b"payload." * (MUCH // 8))

    def connect(self, mode):
        client = self.server.client(mode=mode)
        client.sock.setblocking(False)
        return client.sock

    @staticmethod
    def header(mode, command, number):
        flags = wire.CMD_FLAG_PAYLOAD_LEN if (mode, command) == (wire.EXTENDED, 1) else 0
        return wire.request_header(mode, command, MUCH * (number % 2), MUCH, flags, number)

    def reader(self):
        sock = self.connect(wire.SIMPLE)
        self.expect(sock, AT_ONCE * (MUCH + 16))
        self.queue(sock, [self.header(wire.SIMPLE, wire.CMD_READ, i) for i in range(AT_ONCE)])

    def writer(self):
        sock = self.connect(wire.SIMPLE)
        self.expect(sock, AT_ONCE * 16)
        for i in range(AT_ONCE):
            self.queue(sock, [self.header(wire.SIMPLE, wire.CMD_WRITE, i), self.payload])

    def deaf(self, mode):
        sock = self.connect(mode)
        self.queue(sock, [self.header(mode, wire.CMD_READ, i) for i in range(AT_ONCE)])

    def stalling(self, mode, length):
        sock = self.connect(mode)
        self.queue(sock, [self.header(mode, wire.CMD_WRITE, 1), self.payload[:length]])

    def expect(self, sock, length):
        self.moving[sock] = length
        self.watch(sock)

    def queue(self, sock, parts):
        self.sending.setdefault(sock, []).extend(memoryview(part) for part in parts)
        self.watch(sock)

    def watch(self, sock):
        events = selectors.EVENT_READ if sock in self.moving else 0
        events |= selectors.EVENT_WRITE if sock in self.sending else 0
        known = sock in self.selector.get_map()
        if not events:
            if known:
                self.selector.unregister(sock)
        elif known:
            self.selector.modify(sock, events)
        else:
            self.selector.register(sock, events)

    def send(self, sock):
        parts = self.sending[sock]
        parts[0] = parts[0][sock.send(parts[0]) :]
        if not parts[0]:
            parts.pop(0)
        if not parts:
            del self.sending[sock]
            self.watch(sock)

    def receive(self, sock):
        n = sock.recv_into(self.scratch)
        assert n, f"closed with {self.moving[sock]} bytes to come\n{self.server.log()}"
        self.moving[sock] -= n
        if not self.moving[sock]:
            del self.moving[sock]
            self.watch(sock)

    def run(self, every_round, patience):
        """Until all that move are served; fails when nothing at all moves for so long."""
        while self.moving:
            ready = self.selector.select(patience)
            assert ready, (
                f"nothing moves: {len(self.moving)} clients wait for "
                f"{sum(self.moving.values()) / MIB:.0f} MiB\n{self.server.log()}"
            )
            for key, events in ready:
                sock = key.fileobj
                try:
                    if events & selectors.EVENT_READ and sock in self.moving:
                        self.receive(sock)
                    if events & selectors.EVENT_WRITE and sock in self.sending:
                        self.send(sock)
                except (BrokenPipeError, ConnectionResetError):
                    assert sock not in self.moving, f"a client that moves was closed\n{self.log()}"
                    del self.sending[sock]
                    self.watch(sock)
            every_round()

    def log(self):
        return self.server.log()


@pytest.mark.timeout(900)
def test_memory_stays_within_the_budget_and_all_that_move_are_served(
    serve, tmpfs_disk, counts, programs
):
    budget = 64 * MIB
    server = serve(tmpfs_disk(2 * MUCH, b"content." * (2 * MUCH // 8)), memory="64M")
    (export,) = server.pids("nbd-export")
    rng = seeded()
    crowd = Crowd(server)
    kinds = (
        [crowd.reader] * counts(2, 40)
        + [crowd.writer] * counts(2, 40)
        + [lambda: crowd.deaf(rng.choice(wire.MODES))] * counts(8, 60)
        + [lambda: crowd.stalling(rng.choice(wire.MODES), rng.randrange(MIB))] * counts(8, 60)
    )
    rng.shuffle(kinds)
    for start in kinds:
        start()
    most = 0

    def measure():
        nonlocal most
        most = max(most, rss(export))

    crowd.run(measure, patience=60)
    if not is_sanitized(programs.export):  # a sanitizer keeps memory of its own
        assert most < budget + 24 * MIB, f"{most / MIB:.0f} MiB"
    assert server.client().read(0, 512) is not None


# Programs that die -----------------------------------------------------------------------


def test_an_export_that_is_killed_takes_only_its_own_clients_along(serve, file_disk):
    one, two = file_disk(name="one"), file_disk(name="two")
    server = serve(f"one={one}", f"two={two}")
    server.lossy = True
    clients = {name: [server.client(name) for _ in range(3)] for name in ("one", "two")}
    clients["one"][0].write(0, b"kept" * 128)
    clients["one"][0].flush()
    victims = [pid for pid in server.pids("nbd-export") if holds(pid, one)]
    assert len(victims) == 1
    pending = clients["two"][0].send_read(0, 4096)
    os.kill(victims[0], signal.SIGKILL)
    for client in clients["one"]:
        assert client.closed()
    assert clients["two"][0].wait(pending).error == 0
    for client in clients["two"]:
        client.write(512, b"x" * 512)

    fresh = server.client("one")
    assert fresh.read(0, 4) == b"kept"
    assert victims[0] not in server.pids("nbd-export")
    assert len(server.pids("nbd-export")) == 2


def holds(pid, path):
    """Whether a process has this file open."""
    for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(fd) == str(path):
                return True
    return False


def test_an_export_that_is_killed_again_and_again_comes_back(serve, file_disk):
    server = serve(file_disk(8 * MIB, b"still here"))
    server.lossy = True
    for _ in range(4):
        client = server.client()
        assert client.read(0, 10) == b"still here"
        os.kill(server.pids("nbd-export")[0], signal.SIGKILL)
        assert client.closed()
    assert server.client().read(0, 10) == b"still here"


def test_a_negotiator_that_is_killed_is_not_noticed_in_transmission(serve, file_disk):
    server = serve(file_disk())
    server.lossy = True
    client = server.client()
    haggling = server.options()
    (negotiator,) = server.pids("nbd-negotiator")
    os.kill(negotiator, signal.SIGKILL)
    assert haggling.closed()
    for i in range(100):
        client.write(i * 512, bytes([i]) * 512)
        assert client.read(i * 512, 512) == bytes([i]) * 512
    client.flush()
    fresh = server.client()  # waits in the listening socket until there is a new one
    assert fresh.read(512, 512) == b"\1" * 512
    assert client.read(512, 512) == b"\1" * 512
    assert client.disconnect()
    assert server.pids("nbd-negotiator") != [negotiator]


def test_killing_nbdctl_leaves_no_process(serve, file_disk):
    server = serve(file_disk())
    server.stopped = True  # nothing is left to stop
    client = server.client()
    server.child.kill()
    server.child.wait()
    assert client.closed()
    wait_until(lambda: not processes_with(server.marker.encode()), "the children to end")


@by_mode()
def test_sigterm_answers_or_finishes_what_is_in_flight(serve, file_disk, mode):
    disk = file_disk(16 * MIB)
    server = serve(disk)
    client = server.client(mode=mode)
    data = {i: bytes([i]) * 65536 for i in range(1, 200)}
    cookies = {client.send_write(i * 65536, piece): i for i, piece in data.items()}
    client.wait(next(iter(cookies)))
    server.stop()  # checks the exit status, and that nothing is left
    acknowledged = {1}
    with contextlib.suppress(wire.Closed):
        while client.pending:
            reply = client.wait_any()
            assert reply.error in (0, wire.ESHUTDOWN)
            if not reply.error:
                acknowledged.add(cookies[reply.request.cookie])
    contents = disk.read_bytes()
    for i in acknowledged:
        assert contents[i * 65536 : (i + 1) * 65536] == data[i], f"write {i} was acknowledged"


def test_sigterm_ends_a_server_whose_clients_stall(serve, file_disk):
    server = serve(file_disk())
    blockade(server, 5)
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 50     # and not for all of what they might do


# Devices that fail -----------------------------------------------------------------------


@by_mode()
@pytest.mark.parametrize("direct", ["yes", "no"])
def test_a_file_that_was_cut_is_an_error_and_never_zeroes(serve, file_disk, direct, mode):
    disk = file_disk(8 * MIB, pattern(8 * MIB))
    server = serve(disk, direct=direct)
    errors = []
    for offset, length in (
        (4 * MIB, 512), (6 * MIB, 65536), (8 * MIB - 512, 512), (8 * MIB - 1, 1),
        (4 * MIB - 512, 1024), (4 * MIB - 1, 2), (3 * MIB, 2 * MIB), (0, 8 * MIB),
    ):
        if mode == wire.SIMPLE and length > MIB:
            continue  # may have been acknowledged already: checked below
        disk.write_bytes(pattern(8 * MIB))
        client = server.client(mode=mode)
        os.truncate(disk, 4 * MIB)
        # This failure closes it, unless the look every few seconds has done so before.
        with contextlib.suppress(wire.Closed, ConnectionError):
            reply = client.call(wire.CMD_READ, 0, 4 * MIB)
            assert reply.error in (0, wire.ESHUTDOWN), f"READ of what is there: {reply}"
            assert reply.error or reply.data == pattern(4 * MIB)
            reply = client.call(wire.CMD_READ, offset, length)
            assert reply.error in (wire.EIO, wire.ESHUTDOWN), f"READ {offset}+{length}: {reply}"
            errors.append(reply.error)
    assert wire.EIO in errors


def test_a_simple_read_that_fails_half_way_is_never_completed_with_zeroes(serve, file_disk):
    disk = file_disk(40 * MIB, pattern(40 * MIB))
    client = serve(disk).client(mode=wire.SIMPLE)
    os.truncate(disk, 20 * MIB)
    try:
        assert client.call(wire.CMD_READ, 4 * MIB, 32 * MIB).error == wire.EIO
    except wire.Closed as closed:
        assert closed.got == pattern(40 * MIB)[4 * MIB :][: len(closed.got)]


@by_mode()
def test_a_device_that_fails_is_an_error_and_the_connection_lives(serve, loop_disk, mode):
    device = loop_disk(8 * MIB, content=pattern(8 * MIB))
    client = serve(device).client(mode=mode)
    os.truncate(backing_of(device), 4 * MIB)
    assert client.error(wire.CMD_READ, 6 * MIB, 65536) == wire.EIO
    assert client.error(wire.CMD_READ, 6 * MIB + 1, 7) == wire.EIO
    assert client.read(0, MIB) == pattern(MIB)
    os.truncate(backing_of(device), 8 * MIB)
    assert client.read(6 * MIB, 4096) == bytes(4096)


def test_a_flush_that_failed_is_remembered(serve, mounted, cleanup):
    """
    Written to the page cache of a loop device whose own file system has no room: the first
    flush learns that data was lost, the kernel forgets it by telling, the export does not.
    """
    from conftest import fill, loop_attach

    folder = mounted("tmpfs", 8 * MIB)
    device = loop_attach(cleanup, fill(folder / "backing", 64 * MIB), direct=False)
    server = serve(device, direct="no")
    server.lossy, server.status = True, 1
    client = server.client()
    client.write(0, b"early")
    client.flush()
    for i in range(32):
        client.write(i * MIB, random.randbytes(MIB))
    reply = client.call(wire.CMD_FLUSH)
    assert reply.error == wire.EIO and reply.sentence
    for _ in range(3):
        assert client.error(wire.CMD_FLUSH) == wire.EIO
    assert client.write_error(0, b"x" * 512, wire.CMD_FLAG_FUA) == wire.EIO
    assert client.read(0, 512)

    other = server.client()
    assert other.error(wire.CMD_FLUSH) == wire.EIO
    os.kill(server.pids("nbd-export")[0], signal.SIGKILL)
    assert client.closed()
    fresh = server.client()
    assert fresh.error(wire.CMD_FLUSH) == wire.EIO, "a restart forgot it"
    assert fresh.read(0, 512)


def test_many_clients_come_and_go(serve, file_disk, counts):
    server = serve(file_disk())
    (export,) = server.pids("nbd-export")
    for _ in range(20):
        server.client().disconnect()
    server.connections.close()
    before = n_fds(export)
    for step in range(counts(300, 10_000)):
        with Client(server.socket, mode=step % 3) as client:
            cookie = client.send_read(0, 4096)
            if step % 2:
                assert client.wait(cookie).error == 0
    wait_until(lambda: n_fds(export) <= before, "their descriptors to be closed")


def test_replies_of_many_clients_at_once_reach_whom_they_are_for(serve, file_disk):
    """More requests become ready together than the ring's queue has entries."""
    server = serve(file_disk(MIB, b"".join(i.to_bytes(8, "big") * 64 for i in range(2048))))
    (export,) = server.pids("nbd-export")
    clients = [server.client(mode=wire.STRUCTURED) for _ in range(200)]
    rng = seeded()
    wanted = []
    for i, client in enumerate(clients):
        offsets = {k: rng.randrange(2048) for k in range(600)}
        lengths = {k: rng.choice((0, 0, 512)) for k in offsets}
        wanted.append((offsets, lengths))
    os.kill(export, signal.SIGSTOP)
    for i, client in enumerate(clients):
        offsets, lengths = wanted[i]
        client.send(b"".join(
            wire.request_header(wire.STRUCTURED, wire.CMD_READ, offsets[k] * 512, lengths[k], 0,
                                i << 32 | k)
            for k in offsets))
    os.kill(export, signal.SIGCONT)
    for i, client in enumerate(clients):
        offsets, lengths = wanted[i]
        for _ in offsets:
            magic, _, _, cookie, length = struct.unpack(">IHHQI", client.recv(20))
            body = client.recv(length)
            assert magic == 0x668E33EF and cookie >> 32 == i
            k = cookie & 0xFFFFFFFF
            want = offsets[k].to_bytes(8, "big") * 64 if lengths[k] else b""
            assert body[8:] == want
