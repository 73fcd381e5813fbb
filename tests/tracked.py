# SPDX-License-Identifier: GPL-2.0-or-later
"""An export with bitmaps, clients that change it at random, and what is true of it.

    tracked(disk, Key=value, ...)   the export "disk" of `nbdctl serve --config`; see Tracked
    Load(here, rng)                 clients that write, zero and trim at random, 32 deep
    differing(a, b)                 the granules in which two images are not the same
"""

import json
import os
import pathlib
import signal
import subprocess
import threading

import pytest

from conftest import KIB, MIB, needs_program, wait_until
from nbdctl import Ctl, short_folder  # noqa: F401, a fixture
from nbdwire import PATIENCE, Closed, RequestError

KIND = "qemu:dirty-bitmap:"
GRANULE = 64 * KIB
DIRTY = 1


def granules_of(start, length):
    """The granules that these bytes touch."""
    return range(start // GRANULE, (start + length - 1) // GRANULE + 1)


def differing(a, b):
    assert len(a) == len(b)
    a, b = memoryview(a), memoryview(b)
    return {at // GRANULE for at in range(0, len(a), GRANULE)
            if a[at : at + GRANULE] != b[at : at + GRANULE]}


class Tracked:
    """The export "disk", until it is stopped, and again from start() on."""

    def __init__(self, serve, ctl, disk, store, settings, env=None):
        self.serve, self.ctl, self.disk, self.store = serve, ctl, pathlib.Path(disk), store
        self.env = env
        self.configure(**{"Device": disk, "BitmapStore": store} | settings)
        self.start()

    def configure(self, **settings):
        self.settings = getattr(self, "settings", {}) | settings
        self.ctl.write("disk", "\n".join(f"{key}={value}" for key, value in self.settings.items()))

    def start(self):
        self.server = self.serve(config=self.ctl.exports, env=self.env)
        (self.ctl.runtime,) = self.server.runtime.iterdir()

    def stop(self):
        self.server.connections.close()
        self.server.stop()

    def restart(self, meanwhile=lambda: None):
        self.stop()
        self.server.destroy()
        meanwhile()
        self.start()

    def pid(self):
        (pid,) = self.server.pids("nbd-export")
        return pid

    def kill(self):
        """SIGKILL; the next client has it started again."""
        self.server.lossy = True
        pid = self.pid()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "the export's end")

    def crash(self, meanwhile=lambda: None):
        """SIGKILL, and a start that is not put off because the last run was a short one."""
        self.kill()
        self.restart(meanwhile)

    # Clients

    def client(self, *bitmaps):
        """Connected, with these bitmaps selected."""
        return self.server.client("disk", contexts=[KIND + name for name in bitmaps])

    def write(self, at, data=b"x" * 512):
        with self.client() as client:
            client.write(at, data)

    def dirty(self, name):
        """The granules that a client is told to be dirty."""
        with self.client(name) as client:
            found, at = set(), 0
            while at < client.size:
                for length, flags in client.status(at, client.size - at)[KIND + name]:
                    if flags & DIRTY:
                        found.update(granules_of(at, length))
                    at += length
            return found

    def everything(self):
        return set(granules_of(0, self.size()))

    # nbdctl

    def __call__(self, verb, *words, **how):
        return self.ctl(verb, *words, **how)

    def start_verb(self, verb, *words):
        return subprocess.Popen(self.ctl.command(verb, *words), env=self.ctl.env, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                stdin=subprocess.DEVNULL)

    def bitmap(self, verb, *words, **how):
        return self.ctl(f"bitmap {verb}", "disk", *words, **how)

    def checkpoint(self, name, **how):
        return self.ctl("checkpoint create", name, "disk", **how)

    def row(self, name):
        rows = self.ctl.json("bitmap list", "disk")
        return next(row for row in rows if row["name"] == name)

    def state(self, name):
        return self.row(name)["state"]

    def figures(self):
        """What the export says of its store: Records, PageWrites, Armed, Failing, ..."""
        return {name: field["data"]
                for name, field in self.call("org.nbd_export.Bitmaps1", "Status")[0].items()}

    def call(self, interface, method):
        """By D-Bus: what it answers."""
        control = self.ctl.runtime / "instances/disk/control"
        out = subprocess.check_output(
            [needs_program("busctl"), f"--address=unix:path={control}", "--json=short", "call",
             "org.nbd_export", "/org/nbd_export/export", interface, method],
            text=True, timeout=PATIENCE)
        return json.loads(out)["data"] if out else None

    # The truth

    def image(self):
        with open(self.disk, "rb") as disk:
            return disk.read()

    def size(self):
        with open(self.disk, "rb") as disk:
            return disk.seek(0, os.SEEK_END)

    def log(self):
        return self.server.log()


@pytest.fixture
def tracked(serve, programs, disk_folder, short_folder):  # noqa: F811
    """tracked(disk, Key=value, ...) → Tracked, without a bitmap yet"""

    def start(disk, store=None, env=None, **settings):
        ctl = Ctl(programs.nbdctl, short_folder)
        return Tracked(serve, ctl, disk, store or disk_folder / "bitmaps", settings, env)

    return start


class Load:
    """Clients that change the disk at random, 32 requests deep each, until the export is killed
    or stop().

    .touched    the granules of all that was asked for
    .answers    how many requests succeeded
    """

    DEPTH = 32
    LONGEST = {"write": 96 * KIB, "zero": MIB, "trim": MIB}

    def __init__(self, here, rng, n_clients=3, kinds=("write", "write", "write", "zero", "trim")):
        self.kinds, self.touched, self.answers, self.wrong = kinds, set(), 0, []
        self.stopping = threading.Event()
        self.some = threading.Condition()
        self.size = here.size()
        clients = [here.client() for _ in range(n_clients)]
        self.threads = [threading.Thread(target=self._run, args=(client, type(rng)(rng.random())))
                        for client in clients]
        for thread in self.threads:
            thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()

    def _run(self, client, rng):
        try:
            with client:
                while not self.stopping.is_set():
                    while len(client.pending) < self.DEPTH:
                        self._ask(client, rng)
                    self._note(client.wait_any())
                for reply in client.wait_all():
                    self._note(reply)
        except (Closed, ConnectionError):
            pass                                # it was killed
        except (RequestError, AssertionError, OSError) as error:
            self.wrong.append(error)
        with self.some:
            self.some.notify_all()

    def _note(self, reply):
        reply.check()
        with self.some:
            self.answers += 1
            self.some.notify_all()

    def _ask(self, client, rng):
        """Mostly near to where another was, as clients do; at any byte for each third."""
        kind = rng.choice(self.kinds)
        length = rng.randrange(1, rng.choice([8 * KIB, self.LONGEST[kind]]))
        middle = rng.choice([self.size // 8, self.size // 2, rng.randrange(self.size)])
        at = min(middle + rng.randrange(MIB), self.size - length)
        if rng.random() < 0.7:
            at, length = at & ~4095, max(4096, length & ~4095)
        self.touched.update(granules_of(at, length))
        if kind == "write":
            client.send_write(at, rng.randbytes(16) * (length // 16) + b"!" * (length % 16))
        else:
            client.send_request({"zero": 6, "trim": 4}[kind], at, length)

    def wait(self, n):
        """Until so many requests have succeeded."""
        with self.some:
            enough = self.some.wait_for(lambda: self.answers >= n or self.wrong, PATIENCE)
        assert enough and not self.wrong, (self.answers, self.wrong)

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(PATIENCE * 2)
            assert not thread.is_alive(), "a request that is not answered"
        assert not self.wrong, self.wrong
