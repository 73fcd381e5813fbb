# SPDX-License-Identifier: GPL-2.0-or-later
"""A checkpoint of several exports, and processes that are killed at each step of its making: all of
them have it afterwards, or none, and nothing is left over."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import threading

import pytest

from conftest import MIB, needs_program, needs_root, wait_until
from nbdctl import Ctl, short_folder  # noqa: F401, a fixture
from nbdwire import PATIENCE
from seed import seeded

LABELS = ("web1", "db")
GROUPS = pathlib.Path(os.environ["NBD_EXPORT_GROUPS"])


class Relay:
    """Stands between nbdctl and the exports' control sockets, and does something at the n-th piece
    that goes either way."""

    def __init__(self, pair, at, act):
        self.at, self.act, self.n, self.lock = at, act, 0, threading.Lock()
        self.listeners, self.acted, self.wrong = [], False, None
        self.done = threading.Event()
        for label in LABELS:
            control = pair.ctl.runtime / "instances" / label / "control"
            real = control.with_name("real")
            if not real.exists():
                control.rename(real)
            with contextlib.suppress(FileNotFoundError):
                control.unlink()
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(control))
            listener.listen()
            self.listeners.append((listener, control, real))
            threading.Thread(target=self._accept, args=(listener, real), daemon=True).start()

    def _accept(self, listener, real):
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(real))
                for a, b in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(a, b), daemon=True).start()

    def _pass_on(self, a, b):
        with contextlib.suppress(OSError):
            while data := a.recv(65536):
                with self.lock:
                    self.n += 1
                    now = self.n == self.at
                if now:
                    self.acted = True
                    try:
                        self.act()
                    except AssertionError as wrong:
                        self.wrong = wrong
                    self.done.set()
                b.sendall(data)
        for side in (a, b):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def close(self):
        assert not self.acted or self.done.wait(PATIENCE)
        for listener, control, real in self.listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            if real.exists():
                real.rename(control)
        if self.wrong:
            raise self.wrong


class Pair:
    """`nbdctl serve` of two exports, each with a bitmap."""

    def __init__(self, serve, program, folder, file_disk):
        self.ctl, self.serve = Ctl(program, folder), serve
        for label in LABELS:
            self.ctl.write(label, f"Device={file_disk(8 * MIB, name=label)}\n"
                                  f"BitmapStore={folder / label}.bitmaps")
        self.start()
        for label in LABELS:
            self.ctl("bitmap add", label, "whole")

    def start(self):
        self.server, self.killed = self.serve(config=self.ctl.exports), 0
        (self.ctl.runtime,) = self.server.runtime.iterdir()

    def restart(self):
        wait_until(lambda: self.server.log().count("by SIGKILL; it starts again") == self.killed,
                   "nbdctl serve to notice")
        self.server.connections.close()
        self.server.stop()
        self.server.destroy()
        self.start()

    def status(self, label):
        control = self.ctl.runtime / "instances" / label / "control"
        out = subprocess.check_output(
            [needs_program("busctl"), f"--address=unix:path={control}", "--json=short", "call",
             "org.nbd_export", "/org/nbd_export/export", "org.nbd_export.Bitmaps1", "Status"],
            text=True, timeout=PATIENCE)
        return {name: field["data"] for name, field in json.loads(out)["data"][0].items()}

    def pending(self):
        return sum(self.status(label)["Pending"] for label in LABELS)

    def names(self, label):
        return [row["name"] for row in self.ctl.json("bitmap list", label)]

    def kill(self, victim, command):
        """nbdctl, the export of one label, or everything."""
        self.server.lossy = True
        if victim in ("nbdctl", "everything"):
            command.kill()
        for pid in self.server.pids("nbd-export"):
            with contextlib.suppress(FileNotFoundError):
                words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if victim == "everything" or victim.encode() in words:
                    os.kill(pid, signal.SIGKILL)
                    self.killed += 1


@pytest.fixture
def pair(serve, programs, file_disk, short_folder):  # noqa: F811
    needs_root()
    needs_program("busctl")
    for path in GROUPS.iterdir():               # of members that never came back
        path.unlink()
    return Pair(serve, programs.nbdctl, short_folder, file_disk)


def make_and_kill(pair, name, victim, step):
    """(whether it came to that, nbdctl's exit status)"""
    started = threading.Event()
    command = None

    def act():
        started.wait(PATIENCE)
        pair.kill(victim, command)

    relay = Relay(pair, step, act)
    command = pair.ctl.start("checkpoint create", name, ",".join(LABELS))
    started.set()
    command.communicate(timeout=PATIENCE * 3)
    relay.close()
    if victim != "nbdctl" and relay.acted:
        pair.restart()
    return relay.acted, command.returncode


@pytest.mark.timeout(600)
@pytest.mark.parametrize("victim", ["nbdctl", "web1", "db", "everything"])
def test_all_or_none_have_a_checkpoint_whoever_is_killed_at_whatever_step(pair, counts, victim):
    rng = seeded()
    step, made, given_up = 1, 0, 0
    acted = True
    while acted:
        name = f"c{step}"
        acted, status = make_and_kill(pair, name, victim, step)
        wait_until(lambda: pair.pending() == 0, "the decision to be known")
        names = pair.names("web1")
        assert names == pair.names("db"), f"killed at step {step}"
        assert (name in names) or status, f"{name} is not there after step {step}"
        made += name in names
        given_up += name not in names
        if name in names:
            for label in LABELS:
                pair.ctl("checkpoint delete", label, name)
        step += counts(rng.randrange(1, 3) if victim == "nbdctl" else rng.randrange(2, 7), 1)
    assert made >= 1 and given_up >= 1
    with pair.server.client("web1") as client:          # and nobody is held
        client.write(0, b"x" * 512)
    words = {path.read_text() for path in GROUPS.iterdir()}
    assert words <= {"committed\n"}, "what nobody decided is not kept"


def test_a_checkpoint_of_a_group_is_not_seen_before_it_is_decided(pair):
    step, seen = 1, []
    while len(seen) >= step - 1:
        name = f"c{step}"

        def look(name=name):
            undecided = "undecided\n" in {path.read_text() for path in GROUPS.iterdir()}
            seen.append(undecided)
            assert not undecided or not any(name in pair.names(label) for label in LABELS)

        relay = Relay(pair, step, look)
        pair.ctl("checkpoint create", name, ",".join(LABELS))
        relay.close()
        assert all(name in pair.names(label) for label in LABELS)
        assert not any(GROUPS.iterdir())
        for label in LABELS:
            pair.ctl("checkpoint delete", label, name)
        step += 1
    assert not all(seen) and any(seen)


def test_an_export_that_cannot_see_what_the_group_agrees_by_takes_no_part(pair, tmp_path):
    said = pair.ctl("checkpoint create", "c", ",".join(LABELS), status=1,
                    env={"NBD_EXPORT_GROUPS": str(tmp_path)}).stderr
    assert "no checkpoint was made" in said and "does not see" in said
    assert pair.names("web1") == pair.names("db") == ["whole"] and pair.pending() == 0
