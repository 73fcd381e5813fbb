# SPDX-License-Identifier: GPL-2.0-or-later
"""The load generator: what it measures is worth something only if it sees what is wrong."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

import pytest

from conftest import BUILD, KIB, MIB, needs_program, wait_until
from nbdctl import short_folder  # noqa: F401, a fixture
from nbdwire import PATIENCE
from tracked import tracked  # noqa: F401

NBD_LOAD = BUILD / "tests/load/nbd-load"
LATENCIES = {"min", "mean", "p50", "p90", "p99", "p999", "max"}
old_mode = pytest.mark.parametrize("mode", ["simple", "structured"])


@pytest.fixture
def folder(cleanup):
    made = pathlib.Path(tempfile.mkdtemp(prefix="nbd-load-", dir="/tmp"))
    cleanup.callback(shutil.rmtree, made)
    return made


@pytest.fixture
def null(folder, cleanup):
    """The address of a null server of 64 MiB."""
    address = f"unix:{folder}/null"
    server = subprocess.Popen([NBD_LOAD, "null", "--listen", address, "--size", "64M"],
                              stdout=subprocess.PIPE)
    cleanup.callback(server.stdout.close)
    cleanup.callback(lambda: server.wait(PATIENCE))
    cleanup.callback(server.terminate)
    assert server.stdout.readline() == b"ready\n"
    return address


@pytest.fixture
def peer(folder, cleanup):
    """peer(program, *arguments) → the address of another project's server, once it serves."""

    def make(program, *arguments):
        pids = folder / "pid"
        how = {"qemu-nbd": ["--fork", "--persistent", "--shared=0", f"--pid-file={pids}", "-fraw",
                            f"--socket={folder}/peer"],
               "nbdkit": [f"--pidfile={pids}", f"--unix={folder}/peer"]}[program]
        with open(folder / "log", "wb") as log:
            subprocess.run([needs_program(program), *how, *arguments], check=True, stdout=log,
                           stderr=log, stdin=subprocess.DEVNULL, timeout=PATIENCE)
        wait_until(lambda: pids.exists() and pids.read_text().endswith("\n"), "the pid")
        pid = int(pids.read_text())
        ended = os.pidfd_open(pid)
        cleanup.callback(os.close, ended)
        cleanup.callback(wait_until, lambda: not os.path.exists(f"/proc/{pid}"), program)
        cleanup.callback(signal.pidfd_send_signal, ended, signal.SIGTERM)
        return f"unix:{folder}/peer"

    return make


def load(verb, address, *options, status=0):
    """Runs it; returns its JSON and what it said on stderr."""
    done = subprocess.run([NBD_LOAD, verb, "--to", address, "--json", *map(str, options)],
                          capture_output=True, text=True, stdin=subprocess.DEVNULL,
                          timeout=PATIENCE * 3, check=False)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout), done.stderr


def one_pass(operation, address, mode, connections=2, status=0):
    return load("run", address, "--verify", "--op", operation, "--pattern", "sequential", "--block",
                "64K", "--depth", 8, "--connections", connections, "--mode", mode, status=status)


@pytest.mark.parametrize("mode", ["simple", "structured", "extended"])
@pytest.mark.parametrize("operation", ["read", "write", "mix"])
def test_every_request_is_answered_and_counted(null, mode, operation):
    told, _ = load("run", null, "--op", operation, "--pattern", "random", "--block", "4K",
                   "--depth", 32, "--connections", 3, "--requests", 10000, "--mode", mode)
    assert (told["requests"], told["errors"], told["bytes"]) == (10000, 0, 10000 * 4 * KIB)
    assert set(told["latency_us"]) == LATENCIES
    assert 0 < told["latency_us"]["p50"] <= told["latency_us"]["p99"] <= told["latency_us"]["max"]


def test_content_that_is_not_what_was_written_fails(null):
    told, said = one_pass("read", null, "structured", status=1)
    assert told["errors"] == told["requests"] == 64 * MIB // (64 * KIB)
    assert "wrong content" in said


@old_mode
def test_content_that_was_written_is_read_back(file_disk, peer, mode):
    address = peer("qemu-nbd", file_disk(4 * MIB))
    for operation, connections in ("write", 2), ("read", 3):
        told, _ = one_pass(operation, address, mode, connections)
        assert (told["requests"], told["errors"]) == (64, 0)


def test_content_that_was_written_is_read_back_from_this_server(serve, file_disk):
    address = f"unix:{serve(file_disk(4 * MIB)).socket}"
    for mode in "simple", "structured", "extended":
        for operation in "write", "read":
            assert one_pass(operation, address, mode)[0]["requests"] == 64


@old_mode
def test_one_wrong_byte_is_found_and_told(file_disk, peer, mode):
    disk = file_disk(4 * MIB)
    address = peer("qemu-nbd", disk)
    one_pass("write", address, mode)
    with open(disk, "r+b") as opened:
        byte = os.pread(opened.fileno(), 1, 1234567)[0]
        os.pwrite(opened.fileno(), bytes([byte ^ 1]), 1234567)
    told, said = one_pass("read", address, mode, status=1)
    assert told["errors"] == 1
    assert "read at 1179648: wrong content at 1234567" in said


@old_mode
def test_error_replies_are_counted(file_disk, peer, mode):
    address = peer("nbdkit", "--filter=error", "file", file_disk(4 * MIB), "error-pread=EIO",
                   "error-pread-rate=50%")
    told, said = load("run", address, "--op", "read", "--pattern", "random", "--block", "4K",
                      "--depth", 8, "--connections", 2, "--requests", 500, "--mode", mode,
                      status=1)
    assert told["requests"] == 500 and 100 < told["errors"] < 400
    assert told["bytes"] == (500 - told["errors"]) * 4 * KIB
    assert ": error 5" in said


def test_status_counts_extents(serve, tmpfs_disk):
    disk = tmpfs_disk(8 * MIB)
    with open(disk, "r+b") as opened:
        for start in range(0, 8 * MIB, MIB):
            os.pwrite(opened.fileno(), b"x" * (64 * KIB), start)
    address = f"unix:{serve(disk).socket}"
    for mode in "structured", "extended":
        told, _ = load("status", address, "--repeat", 3, "--mode", mode)
        assert told["extents"] == 16 and len(told["seconds"]) == 3


def test_status_is_that_of_the_context_that_was_asked_for(tracked, tmpfs_disk):  # noqa: F811
    here = tracked(tmpfs_disk(8 * MIB))
    here.bitmap("add", "b")
    for at in 0, MIB, 5 * MIB:
        here.write(at)
    address = f"unix:{here.server.socket}"
    told, _ = load("status", address, "--export", "disk", "--context", "qemu:dirty-bitmap:b")
    assert told["extents"] == 6
    done = subprocess.run([NBD_LOAD, "status", "--to", address, "--export", "disk", "--context",
                           "x:y"], capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1 and b"has no x:y" in done.stderr


def test_connections_are_counted_and_idle_ones_held(null):
    told, _ = load("connect", null, "--seconds", 0.2)
    assert told["connections"] > 0 and set(told["latency_us"]) == LATENCIES
    done = subprocess.run([NBD_LOAD, "idle", "--to", null, "--connections", "100"],
                          capture_output=True, input=b"", timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (0, b"ready\n")
