# SPDX-License-Identifier: GPL-2.0-or-later
"""A real nbd-negotiator, and exports that a test plays: fixtures, and what clients do there."""

import contextlib
import random
import select
import socket
import time

import nbdchannel as channel
import nbdwire as wire
import pytest
from nbdchannel import RESERVE
from nbdwire import PATIENCE


class Bench:
    """A negotiator with a unix socket for clients, and a folder for fake exports."""

    def __init__(self, stack, folder, binary, make=False):
        if make:
            folder.mkdir()
        self.stack, self.folder, self.binary = stack, folder, binary
        self.exports, self.channels = folder / "exports", folder / "channels"
        self.exports.mkdir()
        self.channels.mkdir()
        self.socket = folder / "clients"
        self.process = None
        self.fakes = {}
        self.tcp = {}

    def listen(self, host, family=socket.AF_INET, backlog=4096):
        """Another socket for clients: TCP at that address."""
        listener = self.stack.enter_context(socket.socket(family))
        listener.bind((host, 0))
        listener.listen(backlog)
        self.tcp[host] = listener

    def export(self, label="disk", listening=True, **settings):
        """A configured export, and the fake one behind it."""
        keys = "".join(f"{key}={value}\n" for key, value in settings.items())
        (self.exports / f"{label}.conf").write_text(f"[Export]\nDevice=/dev/null\n{keys}")
        if not listening or label in self.fakes:
            return self.fakes.get(label)
        fake = channel.FakeExport(self.channels / f"{label}.channel")
        self.stack.callback(fake.close)
        self.fakes[label] = fake
        return fake

    def start(self, *arguments, **how):
        listener = self.stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(self.socket))
        listener.listen(256)
        self.process = self.stack.enter_context(
            channel.program(
                [self.binary, f"--exports={self.exports}", f"--channels={self.channels}",
                 *arguments],
                [listener, *self.tcp.values()],
                self.folder,
                name="negotiator",
                **how,
            )
        )
        return self.process

    def client(self, at=None, **how):
        """A client in the handshake, by the unix socket or by TCP `at` this host."""
        address = self.tcp[at].getsockname()[:2] if at else self.socket
        return self.stack.enter_context(contextlib.closing(wire.Options(address, **how)))


@pytest.fixture
def bench(tmp_path, programs):
    with contextlib.ExitStack() as stack:
        yield Bench(stack, tmp_path, programs.negotiator)


@pytest.fixture
def fake(bench):
    """One fake export, `disk`, and a running negotiator that has patience with it."""
    export = bench.export()
    bench.start("--start-timeout=20")
    return export


@pytest.fixture
def given_up(bench):
    """The same with a negotiator that gives up on it in a second: for who awaits that."""
    export = bench.export()
    bench.start("--start-timeout=1")
    return export


def asks_go(bench, name="disk"):
    """A client that has sent GO and not read the answer."""
    client = bench.client()
    client.send_option(wire.OPT_GO, wire.go_payload(name))
    return client


def error_of(client):
    """The error that answers a client's GO; the connection must live on."""
    answer = client.receive_replies(wire.OPT_GO)[-1]
    assert answer.is_error, "GO was acknowledged"
    assert answer.text, "a refusal without words"
    assert client.list() is not None
    return answer


def asks_until_connected(bench, export, name="disk"):
    """
    A client that sends GO until the negotiator connects to the export, and that export's
    end: for a second after a failed start the negotiator only repeats its refusal.  What it
    has given up by now, on behalf of who came before, is passed over.
    """
    client = asks_go(bench, name)
    while True:
        ready = readable(client.sock, export.listener)
        if export.listener in ready:
            end = export.accept()
            if not end.is_given_up():
                return client, end
            end.close()
            continue
        assert client.sock in ready, "neither an answer nor a connection to the export"
        assert client.receive_replies(wire.OPT_GO)[-1].type == wire.REP_ERR_PLATFORM
        time.sleep(0.05)
        client.send_option(wire.OPT_GO, wire.go_payload(name))


def readable(*sockets):
    return select.select(sockets, [], [], PATIENCE)[0]


def end_to_end(bench, export, name="disk"):
    """A client all the way to the hand-off, after whatever came before."""
    client, end = asks_until_connected(bench, export, name)
    end.offer()
    end.grant(end.expect(RESERVE))
    told = wire.parse_info(client.receive_replies(wire.OPT_GO))
    assert told.size == channel.ExportEnd.SIZE
    handed = end.receive_client()
    handed.sendall(b"from the export")
    assert client.recv(15) == b"from the export"
    return client, handed, end


def pipelined_handshake(option):
    """Everything a hasty client sends at once: flags, options, GO; and what follows them."""
    payload = b"disk" if option == wire.OPT_EXPORT_NAME else wire.go_payload("disk", [3])
    handshake = (
        wire.u32(wire.FLAG_FIXED_NEWSTYLE | wire.FLAG_NO_ZEROES)
        + wire.option_header(wire.OPT_STRUCTURED_REPLY, 0)
        + wire.option_header(option, len(payload))
        + payload
    )
    rng = random.Random(1)
    requests = b"".join(
        wire.request_header(wire.STRUCTURED, wire.CMD_WRITE, i << 12, 4096, cookie=i)
        + rng.randbytes(4096)
        for i in range(8)
    )
    return handshake, requests
