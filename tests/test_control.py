# SPDX-License-Identifier: GPL-2.0-or-later
"""
An export as its administrator sees it: the control socket (by busctl), reload, drain, the
service manager's side, and a device that is stuck or gone.  The negotiator is the test's.
"""

import contextlib
import ctypes
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import nbdchannel as channel
import nbdwire as wire
import pytest
from conftest import MIB, backing_of, fill, needs_program, needs_root, run, wait_until
from nbdchannel import GONE, REASON, RIGHT_READ, Record
from nbdwire import PATIENCE
from test_channel import client_over, connect, running_export, serves

INTERFACE = "org.nbd_export.Export1"
OBJECT = "/org/nbd_export/export"
NOBODY = 65534


class Failed(Exception):
    """A call was refused; the text is busctl's."""


class Control:
    """The control socket of an export, by busctl."""

    def __init__(self, path, prefix=()):
        self.path = path
        self.prefix = prefix

    def busctl(self, *words):
        done = subprocess.run(
            [*self.prefix, needs_program("busctl"), f"--address=unix:path={self.path}",
             "--json=short", *map(str, words)],
            capture_output=True, text=True, timeout=PATIENCE * 3, check=False)
        if done.returncode:
            raise Failed(done.stderr.strip())
        return done.stdout

    def __call__(self, method, *arguments):
        """Calls a method of the export; its first result."""
        out = self.busctl("call", "org.nbd_export", OBJECT, INTERFACE, method, *arguments)
        return json.loads(out)["data"][0] if out.strip() else None

    def get(self, name):
        out = self.busctl("get-property", "org.nbd_export", OBJECT, INTERFACE, name)
        return json.loads(out)["data"]

    def clients(self):
        return [{name: field["data"] for name, field in client.items()}
                for client in self("ListClients")]


@pytest.fixture
def start(tmp_path, programs):
    """start(...): as in test_channel, with a control socket."""
    with contextlib.ExitStack() as stack:

        def make(options=(), folder=tmp_path, label="disk", **how):
            path = folder / f"{label}.control"
            export = stack.enter_context(running_export(
                folder, programs.export, label=label,
                options=[f"--control={path}", *options], **how))
            export.control = Control(path)
            return export

        yield make


@pytest.fixture
def export(start):
    return start()


@pytest.fixture
def open_folder():
    """A folder that every user can enter, unlike pytest's."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="nbd-open-", dir="/var/tmp"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


class Cut:
    """A socket that sends only the first bytes of all that it is given."""

    def __init__(self, sock, n):
        self.sock, self.left = sock, n

    def sendall(self, data):
        self.sock.sendall(bytes(data)[: self.left])
        self.left = max(0, self.left - len(data))

    def sendmsg(self, parts, *_):
        data = b"".join(parts)
        self.sendall(data)
        return len(data)


def half_a_write(client):
    """A WRITE whose second half never comes."""
    whole, client.sock = client.sock, Cut(client.sock, 400000)
    client.send_write(0, b"z" * MIB)
    client.sock = whole


def status(export, wanted, since=0, patience=PATIENCE):
    """Waits for a STATUS= with that text."""
    found = export.notified.wait(
        lambda message: "STATUS=" in message and wanted in message, since, patience)
    assert found, f"no STATUS= with {wanted!r} in {export.notified.messages}\n{export.log}"
    return found


def told(export, sentence):
    wait_until(lambda: sentence in export.log, f"{sentence!r} in the log")


# The object ------------------------------------------------------------------------------


# test_control_page.py has them all.
PROPERTIES = {
    "Label": "s", "Name": "s", "Device": "s", "Description": "s", "State": "s",
    "StateReason": "s", "Size": "t", "ReadOnly": "b", "Direct": "b", "Rotational": "b",
    "WriteCache": "b", "CanDiscard": "b", "Sector": "u", "PhysicalBlock": "u", "OptimalIO": "u",
    "Engine": "s", "Threads": "u", "Memory": "t", "MemoryUsed": "t", "MaxConnections": "u",
    "Connections": "u", "Requests": "t", "Errors": "t", "BytesRead": "t", "BytesWritten": "t",
    "Since": "t", "FlushFailed": "s", "BitmapProblem": "s", "StuckSince": "t",
}  # fmt: skip


def test_properties_tell_settings_device_and_state(start):
    before = time.time_ns() // 1000
    export = start(Name="the wire's name", Description="words", MaxConnections=7, Threads=2,
                   ReadOnly="yes")
    got = {name: export.control.get(name) for name in PROPERTIES}
    assert got["Label"] == "disk" and got["Name"] == "the wire's name"
    assert got["Device"] == str(export.disk) and got["Description"] == "words"
    assert got["State"] == "serving" and got["StateReason"] == ""
    assert got["Size"] == 8 * MIB and got["ReadOnly"] is True and got["WriteCache"] is True
    assert got["Engine"] in ("io_uring", "threads")
    assert (got["Threads"], got["MaxConnections"], got["Memory"]) == (2, 7, 128 * MIB)
    assert got["Sector"] >= 1 and got["PhysicalBlock"] >= 512
    for name in ("Connections", "Requests", "Errors", "BytesRead", "BytesWritten", "MemoryUsed",
                 "StuckSince"):
        assert got[name] == 0, name
    assert got["FlushFailed"] == ""
    assert before <= got["Since"] <= time.time_ns() // 1000


def test_clients_are_listed_with_what_they_agreed_and_did(export):
    ours = connect(export)
    sock, grant = ours.client(peer="192.0.2.1:4711", contexts=[0, 1])
    reader, _ = ours.client(peer="192.0.2.2:1", mode=channel.SIMPLE, rights=RIGHT_READ)
    client = client_over(sock)
    client.write(0, b"x" * 65536)
    client.read(0, 4096)
    assert client.write_error(8 * MIB, b"x" * 512) == wire.ENOSPC
    clients = {c["Peer"]: c for c in export.control.clients()}
    assert set(clients) == {"192.0.2.1:4711", "192.0.2.2:1"}
    first = clients["192.0.2.1:4711"]
    assert first["Connection"] == grant.connection and first["Mode"] == "extended"
    assert first["Contexts"] == ["base:allocation", "qemu:allocation-depth"]
    assert (first["Requests"], first["Errors"]) == (3, 1)
    assert (first["BytesRead"], first["BytesWritten"]) == (4096, 65536)
    assert (first["InFlight"], first["Memory"], first["ReadOnly"]) == (0, 0, False)
    assert abs(first["Since"] / 1e6 - time.time()) < 60
    second = clients["192.0.2.2:1"]
    assert (second["Mode"], second["ReadOnly"], second["Contexts"]) == ("simple", True, [])
    reader.close()
    ours.expect(GONE)


def test_totals_count_clients_that_left_too(export):
    ours = connect(export)
    for _ in range(3):
        sock, _ = ours.client()
        with client_over(sock) as client:
            client.write(0, b"x" * 4096)
        sock.close()
        ours.expect(GONE)
    sock, _ = ours.client()
    client_over(sock).read(0, 8192)
    get = export.control.get
    assert (get("Requests"), get("BytesWritten"), get("BytesRead")) in (
        (n, 3 * 4096, 8192) for n in (4, 7))
    assert get("Connections") == 1


def test_a_request_in_flight_is_listed_with_its_memory(export):
    ours = connect(export)
    sock, _ = ours.client()
    client = client_over(sock)
    client.write(0, b"y" * MIB)
    other = client_over(ours.client()[0])
    half_a_write(other)
    wait_until(lambda: any(c["InFlight"] == 1 and c["Memory"] >= 65536
                           for c in export.control.clients()), "a request in flight")


def test_idle_callers_do_not_keep_others_out(export):
    idle = []
    for _ in range(8):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(export.control.path))
        idle.append(sock)
    assert export.control.get("State") == "serving"
    idle[0].sendall(b"\0AUTH GARBAGE\r\n" * 100)
    idle[1].sendall(os.urandom(4096))
    for sock in idle:
        sock.close()
    assert export.control.get("State") == "serving"
    serves(export)


def test_callers_who_come_and_go_leave_no_descriptor(export):
    export.control.get("State")
    wait_until(lambda: not export.control.clients(), "nobody")
    before = export.n_fds()
    for _ in range(10):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(export.control.path))
        sock.close()
        export.control.get("State")
    wait_until(lambda: export.n_fds() <= before, "descriptors closed")


def test_a_caller_that_says_nothing_does_not_delay_the_end(export):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(export.control.path))
        assert export.control.get("State") == "serving"
        began = time.monotonic()
        assert export.stop() == 0
        assert time.monotonic() - began < 10


def test_so_many_idle_callers_that_are_not_root_leave_room_for_root(open_folder, start):
    needs_root()
    export = start(folder=open_folder)
    holder = subprocess.Popen(
        ["setpriv", f"--reuid={NOBODY}", f"--regid={os.getegid()}", "--clear-groups",
         sys.executable, "-c", HOLD_MANY, str(export.control.path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "done\n"
        assert export.control.get("State") == "serving"
    finally:
        holder.stdin.close()
        holder.wait(PATIENCE)
        holder.stdout.close()


# 100 connections that say nothing, until the end of the input.
HOLD_MANY = """
import socket, sys
held = []
for _ in range(100):
    held.append(socket.socket(socket.AF_UNIX))
    held[-1].connect(sys.argv[1])
print("done", flush=True)
sys.stdin.read()
"""


# Who may -------------------------------------------------------------------------------


def test_who_is_not_root_may_read_but_change_nothing(open_folder, start):
    needs_root()
    export = start(folder=open_folder)
    stranger = Control(export.control.path, prefix=[
        "setpriv", f"--reuid={NOBODY}", f"--regid={os.getegid()}", "--clear-groups"])
    assert stranger.get("State") == "serving"
    assert stranger.clients() == []
    for call in (["Kick", "t", "1"], ["Drain"], ["Resume"], ["ClearError"], ["Reload"]):
        with pytest.raises(Failed, match="only root may do this"):
            stranger(*call)
    assert f"user {NOBODY}" in export.log and "may not call Drain" in export.log
    assert export.control.get("State") == "serving"


def run_as_nobody(folder, program):
    """A program that becomes nobody, in a folder that nobody owns."""
    os.chown(folder, NOBODY, NOBODY)
    wrapper = folder / "export"
    wrapper.write_text(f"#!/bin/sh\nexport NBD_EXPORT_FLUSH_FAILED={folder}/latches\n"
                       f"HOME={folder} exec setpriv --reuid={NOBODY} --regid={NOBODY} "
                       f'--clear-groups {folder}/program "$@"\n')
    shutil.copy(program, folder / "program")
    wrapper.chmod(0o755)
    return wrapper


@pytest.mark.parametrize("trusted", [False, True])
def test_another_process_of_its_own_user_may_change_something_only_if_told_so(
        open_folder, programs, trusted, request):
    needs_root()
    path = open_folder / "control"
    disk = fill(open_folder / "shared.img", MIB)
    disk.chmod(0o666)
    own = ["--control-own-user"] if trusted else []
    before = os.umask(0)  # it shall reach the socket of the service manager
    request.addfinalizer(lambda: os.umask(before))
    with running_export(open_folder, run_as_nobody(open_folder, programs.export), device=disk,
                        options=[f"--control={path}", *own]) as export:
        same = Control(path, prefix=["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}",
                                     "--clear-groups"])
        assert same.get("State") == "serving"
        if trusted:
            same("Drain")
            same("Resume")
        else:
            with pytest.raises(Failed, match="only root may do this"):
                same("Drain")
            assert "may not call Drain" in export.log
        Control(path)("Drain")


def test_who_is_not_in_the_group_cannot_connect(open_folder, start):
    needs_root()
    export = start(folder=open_folder)
    assert export.control.path.stat().st_mode & 0o777 == 0o660
    stranger = Control(export.control.path, prefix=[
        "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"])
    with pytest.raises(Failed, match="Permission denied"):
        stranger.get("State")


def test_the_trusted_user_and_nobody_else_may_be_a_negotiator(open_folder, start):
    needs_root()
    export = start(folder=open_folder, options=["--trust-user=nobody"])
    export.path.chmod(0o666)

    def connects_as(uid):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
                connect(export)
                code = 0
            finally:
                os._exit(code)
        return os.waitpid(pid, 0)[1] == 0

    assert connects_as(NOBODY)
    assert not connects_as(12345)
    assert connects_as(0)


def test_a_trusted_user_who_does_not_exist_is_an_error(start):
    with pytest.raises(AssertionError, match="there is no user nosuchuser"):
        start(options=["--trust-user=nosuchuser"])


def test_the_control_socket_replaces_a_stale_one_and_goes_with_the_process(start, tmp_path):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "disk.control"))
    export = start()
    assert export.control.get("State") == "serving"
    assert export.stop() == 0
    assert not export.control.path.exists()


def test_a_file_in_the_control_sockets_place_is_left_alone(start, tmp_path):
    (tmp_path / "disk.control").write_text("precious")
    with pytest.raises(AssertionError, match="cannot listen at the control socket"):
        start()
    assert (tmp_path / "disk.control").read_text() == "precious"


# Kick, drain, resume ---------------------------------------------------------------------


def test_kick_closes_one_client_and_says_so(export):
    ours = connect(export)
    one, grant = ours.client(peer="one:1")
    two, _ = ours.client(peer="two:1")
    export.control("Kick", "t", grant.connection)
    assert one.recv(1) == b""
    ours.expect(GONE, connection=grant.connection, reason=REASON["kicked"])
    assert client_over(two).read(0, 512) is not None
    assert f"connection {grant.connection} is closed by user {os.geteuid()}" in export.log
    with pytest.raises(Failed, match="no connection"):
        export.control("Kick", "t", grant.connection)


def test_drain_waits_admits_nobody_and_resume_serves_again(export):
    ours = connect(export)
    sock, grant = ours.client()
    client = client_over(sock)
    client.write(0, b"a" * 4096)
    late = ours.granted()
    export.control("Drain")
    assert export.control.get("State") == "drained"
    assert export.control.get("StateReason") == "by its administrator"
    ours.expect(GONE, connection=grant.connection, reason=REASON["shutdown"])
    assert "drained by its administrator" in ours.refused("shutdown").sentence
    with contextlib.suppress(channel.Closed):
        end = ours.hand_over(late.token)
        assert end.recv(1) == b""
    assert "Drained" in status(export, "Drained, admits nobody")
    export.control("Drain")  # once more changes nothing
    ours.expect(channel.REFUSED)  # the hand-off
    export.control("Resume")
    assert export.control.get("State") == "serving"
    serves(export)
    with pytest.raises(Failed, match="not drained"):
        export.control("Resume")
    export.control("Drain")
    export.control("Resume")
    serves(export)


def test_a_drained_export_stops_well(export):
    export.control("Drain")
    assert export.stop() == 0


def test_stop_during_drain_ends_the_process(export):
    ours = connect(export)
    sock, _ = ours.client()
    client = client_over(sock)
    half_a_write(client)  # the drain waits for it
    drain = threading.Thread(target=drain_quietly, args=[export])
    drain.start()
    wait_until(lambda: export.control.get("State") == "draining", "draining")
    export.child.send_signal(signal.SIGTERM)
    sock.close()
    assert export.wait() == 0
    drain.join()


def drain_quietly(export):
    with contextlib.suppress(Failed):
        export.control("Drain")


@pytest.mark.parametrize("end", ["drain", "stop"])
def test_no_acknowledged_write_is_lost_by_a_drain_under_load(start, end):
    export = start(Threads=2)
    ours = connect(export)
    acknowledged, refused = {}, []
    lock = threading.Lock()

    def load(number, sock):
        client = client_over(sock)
        mine = range(number, 128, 4)
        with contextlib.suppress(wire.Closed, ConnectionError, OSError):
            for turn in range(100000):
                cookies = {}
                for block in mine:
                    data = bytes([number, turn % 256, block]) * 1024
                    cookies[client.send_write(block * 65536, data)] = (block, data)
                for cookie, (block, data) in cookies.items():
                    error = client.wait(cookie).error
                    with lock:
                        if error == 0:
                            acknowledged[block] = data
                        else:
                            refused.append(error)

    threads = [threading.Thread(target=load, args=(i, ours.client()[0])) for i in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(acknowledged) == 128, "load")
    if end == "drain":
        export.control("Drain")
        assert export.control.get("Connections") == 0
    else:
        assert export.stop() == 0
    for thread in threads:
        thread.join()
    contents = export.disk.read_bytes()
    # A write in flight at the end may have been done without its reply being read; one that
    # was acknowledged is there, or the next one to its block.
    for block, data in acknowledged.items():
        found = contents[block * 65536 : block * 65536 + len(data)]
        assert found[0] == data[0] and found[2] == block and found == found[:3] * 1024
        assert (found[1] - data[1]) % 256 in (0, 1)
    assert set(refused) <= {wire.ESHUTDOWN}


# A failed flush --------------------------------------------------------------------------


def test_a_failed_flush_is_the_devices_whatever_the_export_is_called(start, tmp_path):
    disk = fill(tmp_path / "flushed.img", 8 * MIB)
    shared = {"NBD_EXPORT_FLUSH_FAILED": str(tmp_path / "latches")}
    first = start(device=disk, env=shared)
    born = run("stat", "-c", "%.9W", disk).split(".")
    st = disk.stat()
    assert first.stop() == 0
    name = f"flush-failed-file-{st.st_dev:x}-{st.st_ino}-{born[0]}.{int(born[1])}"
    (tmp_path / "latches" / name).write_text("it\x1b[31m said no\nand more\n")
    second = start(label="other", device=disk, env=shared)
    assert second.control.get("FlushFailed") == "it\ufffd[31m said no"
    assert second.stop() == 1
    third = start(label="third", device=fill(tmp_path / "third.img", MIB), env=shared)
    assert third.control.get("FlushFailed") == ""


def test_a_note_of_another_export_counts_becomes_its_own_and_is_cleared_with_it(start, tmp_path):
    """As with units, each of which has a folder of its own for them."""
    disk = fill(tmp_path / "flushed.img", 8 * MIB)
    latches = tmp_path / "latches"
    for label in ("one", "two"):
        (latches / label).mkdir(parents=True)
    born = run("stat", "-c", "%.9W", disk).split(".")
    st = disk.stat()
    name = f"flush-failed-file-{st.st_dev:x}-{st.st_ino}-{born[0]}.{int(born[1])}"
    (latches / "one" / name).write_text("the disk said no")
    env = {"NBD_EXPORT_FLUSH_FAILED": str(latches)}
    export = start(label="two", device=disk, env=env)
    assert export.control.get("FlushFailed") == "the disk said no"
    assert (latches / "two" / name).read_text() == "the disk said no"
    assert export.control("ClearError") == "the disk said no"
    assert list(latches.rglob("flush-failed-*")) == []
    assert export.stop() == 0


def test_what_lies_where_a_failed_flush_is_remembered_is_not_followed(start, tmp_path):
    disk = fill(tmp_path / "flushed.img", 8 * MIB)
    born = run("stat", "-c", "%.9W", disk).split(".")
    st = disk.stat()
    latches = tmp_path / "latches"
    latches.mkdir()
    path = latches / f"flush-failed-file-{st.st_dev:x}-{st.st_ino}-{born[0]}.{int(born[1])}"
    for label, make in (("fifo", os.mkfifo), ("link", lambda p: p.symlink_to("/etc/passwd"))):
        make(path)
        export = start(label=label, device=disk, env={"NBD_EXPORT_FLUSH_FAILED": str(latches)})
        assert export.control.get("FlushFailed") == "a flush failed"
        assert export.control("ClearError") == "a flush failed"
        assert not path.is_symlink() and not path.exists()
        assert export.stop() == 0


def test_clear_error_lets_flush_work_again(start, tmp_path):
    disk = fill(tmp_path / "flushed.img", 8 * MIB)
    born = run("stat", "-c", "%.9W", disk).split(".")
    st = disk.stat()
    state = tmp_path / "latched"
    state.mkdir(mode=0o700)
    latch = state / f"flush-failed-file-{st.st_dev:x}-{st.st_ino}-{born[0]}.{int(born[1])}"
    latch.write_text("the disk said no at 5\n")
    export = start(device=disk, env={"NBD_EXPORT_FLUSH_FAILED": str(state)})
    assert export.control.get("FlushFailed") == "the disk said no at 5"
    ours = connect(export)
    client = client_over(ours.client()[0])
    with pytest.raises(Exception):
        client.flush()
    status(export, "FLUSH and FUA fail")
    assert export.control("ClearError") == "the disk said no at 5"
    client.flush()
    client.write(0, b"q" * 4096, wire.CMD_FLAG_FUA)
    assert not latch.exists()
    assert export.control.get("FlushFailed") == ""
    assert "cleared by user" in export.log
    with pytest.raises(Failed, match="no flush has failed"):
        export.control("ClearError")


# Reload ----------------------------------------------------------------------------------


def rewrite(export, **settings):
    keys = "".join(f"{key}={value}\n" for key, value in settings.items())
    export.conf.write_text(f"[Export]\nDevice={export.disk}\n{keys}")


def reload(export):
    """SIGHUP, as systemctl reload does; returns once READY=1 has come again."""
    since = len(export.notified.messages)
    export.child.send_signal(signal.SIGHUP)
    begun = export.notified.wait("RELOADING=1", since)
    assert begun and "MONOTONIC_USEC=" in begun
    stamp = int(begun.split("MONOTONIC_USEC=")[1].split()[0])
    assert 0 <= time.monotonic_ns() // 1000 - stamp < 60_000_000
    assert export.notified.wait("READY=1", since)


def test_reload_takes_over_what_can_change_and_disturbs_no_client(start):
    export = start(MaxConnections=2, Description="old")
    ours = connect(export)
    number = ours.offer.number
    clients = [client_over(ours.client()[0]) for _ in range(2)]
    ours.refused("no-slot")
    rewrite(export, MaxConnections=40, Description="new", IdleTimeout=3600)
    reload(export)
    assert export.control.get("Description") == "new"
    assert export.control.get("MaxConnections") == 40
    clients += [client_over(ours.client()[0]) for _ in range(38)]
    ours.refused("no-slot")
    for i, client in enumerate(clients):
        client.write(i * 4096, bytes([i]) * 4096)
    for i, client in enumerate(clients):
        assert client.read(i * 4096, 4096) == bytes([i]) * 4096
    assert connect(export).offer.number == number  # nothing in it has changed
    rewrite(export, MaxConnections=3)
    export.control("Reload")
    ours.refused("no-slot")
    assert clients[39].read(0, 512) is not None


def test_negotiators_get_a_new_offer_when_it_changes(start):
    export = start(MaxConnections=1)
    ours = connect(export)
    assert not ours.offer.flags & wire.CAN_MULTI_CONN
    old = ours.offer
    rewrite(export, MaxConnections=2)
    reload(export)
    assert ours.read_offer().number > old.number
    assert ours.offer.flags & wire.CAN_MULTI_CONN
    ours.refused("offer-stale", offer=old.number)
    ours.client()


def test_what_needs_a_restart_is_named_and_stays(export, tmp_path):
    other = fill(tmp_path / "other.img", 4 * MIB)
    rewrite(export, Threads=4, Engine="threads", ReadOnly="yes", Description="new")
    export.conf.write_text(export.conf.read_text().replace(str(export.disk), str(other)))
    reload(export)
    assert "only after a restart: Device=, ReadOnly=, Threads=, Engine=" in export.log
    get = export.control.get
    assert get("Size") == 8 * MIB and get("Threads") == 1 and get("ReadOnly") is False
    assert get("Description") == "new" and get("Device") == str(export.disk)
    serves(export)


def test_as_many_connections_as_there_can_be_are_taken_at_the_start_and_by_a_reload(start):
    export = start(MaxConnections=65471, Memory="4G")
    rewrite(export, MaxConnections=65472, Memory="4G")
    reload(export)
    assert export.control.get("MaxConnections") == 65472
    serves(export)
    rewrite(export, MaxConnections=65473, Memory="4G")
    reload(export)
    assert "MaxConnections=65473: not between 1 and 65472" in export.log
    assert export.control.get("MaxConnections") == 65472
    serves(export)


@pytest.mark.parametrize("bad", ["[Export]\nDevice=relative\n", "[Export]\nNonsense=1\n", "",
                                 "[Export]\nDevice=/dev/zero\nMaxConnections=1000000\n", None])
def test_a_bad_file_leaves_the_old_settings_standing(start, bad):
    export = start(Description="old", MaxConnections=5)
    if bad is None:
        export.conf.unlink()
    else:
        export.conf.write_text(bad)
    reload(export)
    assert "the settings stay as they were" in export.log
    status(export, "its file is bad, older settings hold")
    assert export.control.get("Description") == "old"
    assert export.control.get("MaxConnections") == 5
    with pytest.raises(Failed):
        export.control("Reload")
    serves(export)


def test_a_storm_of_reloads_ends_with_the_last_file(export):
    for i in range(1, 30):
        rewrite(export, MaxConnections=i, Description=f"number {i}")
        export.child.send_signal(signal.SIGHUP)
    wait_until(lambda: export.control.get("Description") == "number 29", "the last file")
    assert export.control.get("MaxConnections") == 29
    serves(export)


def test_a_reload_that_is_asked_for_during_another_reads_the_file_that_is_there_then(start):
    export = start(MaxConnections=1)
    answers = []

    def ask():
        answers.append(export.control("Reload"))

    with frozen_ring(export):               # which the first one needs for more connections
        rewrite(export, MaxConnections=2, Description="first")
        callers = [threading.Thread(target=ask)]
        callers[0].start()
        wait_until(lambda: any("RELOADING=1" in m for m in export.notified.messages), "the first")
        rewrite(export, MaxConnections=3, Description="second")
        callers.append(threading.Thread(target=ask))
        callers[1].start()
        # By now it should have been heard; a census with that ring takes a second.
        assert export.control.get("Description") != "second"
        assert answers == []
    for caller in callers:
        caller.join(PATIENCE)
    assert len(answers) == 2
    assert export.control.get("Description") == "second"
    assert export.control.get("MaxConnections") == 3


# The service manager ---------------------------------------------------------------------


def test_status_tells_clients_and_bytes_and_follows_them(export):
    status(export, "no clients, 0 bytes read, 0 bytes written")
    ours = connect(export)
    clients = [client_over(ours.client()[0]) for _ in range(3)]
    clients[0].write(0, b"x" * (3 * MIB))
    status(export, "3 clients, 0 bytes read, 3 MiB written")
    clients[1].read(0, MIB)
    status(export, "3 clients, 1 MiB read, 3 MiB written")
    clients[2].sock.close()
    status(export, "2 clients, 1 MiB read")


def test_a_stop_is_told_and_extends_its_time(export):
    ours = connect(export)
    sock, _ = ours.client()
    client = client_over(sock)
    half_a_write(client)
    wait_until(lambda: any(c["InFlight"] for c in export.control.clients()), "a request")
    export.child.send_signal(signal.SIGTERM)
    assert export.notified.wait("STOPPING=1")
    assert export.notified.wait("EXTEND_TIMEOUT_USEC=")
    status(export, "Draining: 1 client")
    assert export.control.get("State") == "draining"
    sock.close()
    assert export.wait() == 0


def test_the_watchdog_is_fed(start):
    export = start(env={"WATCHDOG_USEC": "400000"})
    for _ in range(5):
        since = len(export.notified.messages)
        assert export.notified.wait("WATCHDOG=1", since, patience=5)


PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207


@contextlib.contextmanager
def frozen_ring(export):
    """Stops one ring's thread, and no other, as long as it lasts."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    tasks = pathlib.Path(f"/proc/{export.pid}/task")
    # A thread names itself, and perhaps after READY=1.
    tid = wait_until(lambda: next((int(t.name) for t in tasks.iterdir()
                                   if (t / "comm").read_text() == "ring\n"), None), "a ring")
    if libc.ptrace(PTRACE_SEIZE, tid, None, None):
        pytest.skip(f"cannot trace: {os.strerror(ctypes.get_errno())}")
    libc.ptrace(PTRACE_INTERRUPT, tid, None, None)
    os.waitpid(tid, 0x40000000)  # __WALL
    yield
    libc.ptrace(PTRACE_DETACH, tid, None, None)


def test_the_watchdog_is_not_fed_while_a_ring_does_not_answer(start):
    export = start(env={"WATCHDOG_USEC": "400000"}, Threads=2)
    assert export.notified.wait("WATCHDOG=1")
    with frozen_ring(export):
        for _ in range(3):      # one may be under way
            since = len(export.notified.messages)
            if not export.notified.wait("WATCHDOG=1", since, patience=1.5):
                break
        else:
            pytest.fail(f"the watchdog is fed: {export.notified.messages}")
        # The main thread is well, and says what it knows.
        assert export.control.get("State") == "serving"
        assert export.control.clients() == []
    assert export.notified.wait("WATCHDOG=1", len(export.notified.messages), patience=5)


def outlast(start, seconds):
    """Returns once another export, which begins only now, has been idle for so long."""
    assert start(label="other", IdleTimeout=seconds).wait() == 0


def test_an_export_without_clients_ends_after_its_idle_time(start):
    export = start(IdleTimeout=4)
    ours = connect(export)
    sock, _ = ours.client()
    with client_over(sock) as client:
        client.write(0, b"w" * 512)
        outlast(start, 4)
        client.read(0, 512)
    assert export.alive()
    sock.close()
    ours.expect(GONE)
    assert ours.closed()
    assert export.wait() == 0
    assert "no client for 4 s" in export.log
    assert export.notified.wait("STOPPING=1")


def test_a_drained_export_waits_for_its_administrator_however_long(start):
    export = start(IdleTimeout=4)
    connect(export)
    export.control("Drain")
    outlast(start, 4)
    assert export.control.get("State") == "drained"
    export.control("Resume")
    assert export.wait() == 0


def test_a_reload_turns_the_idle_time_on_and_off(start):
    export = start(IdleTimeout=4)
    rewrite(export)
    reload(export)
    outlast(start, 4)
    assert export.alive()
    rewrite(export, IdleTimeout=4)
    reload(export)
    assert export.wait() == 0


# What the negotiator refused -------------------------------------------------------------


def test_what_the_negotiator_refuses_is_in_the_exports_log(export):
    ours = connect(export)
    ours.send(Record(channel.REFUSAL, reason=REASON["limit"], peer="192.0.2.9:99",
                     sentence="too many of you"))
    told(export, "192.0.2.9:99")
    assert "too many of you" in export.log and "(limit)" in export.log
    assert ours.client()


# The device ------------------------------------------------------------------------------


def test_a_device_that_vanishes_ends_the_export_with_one_entry(loop_disk, start):
    device = loop_disk(8 * MIB)
    export = start(device=device)
    ours = connect(export)
    sock, grant = ours.client()
    client = client_over(sock)
    client.write(0, b"x" * 4096)
    with backing_of(device).open("r+b") as backing:
        backing.truncate(0)
    run(needs_program("losetup"), "--set-capacity", device)
    with contextlib.suppress(wire.Closed, ConnectionError):
        assert client.write_error(0, b"y" * 4096)
        while True:
            assert client.write_error(0, b"y" * 4096) in (wire.EIO, wire.ENOSPC, wire.ESHUTDOWN)
    ours.expect(GONE, connection=grant.connection, reason=REASON["device"])
    assert export.wait() == 0
    assert export.log.count("is gone") == 1
    assert not list(export.state.iterdir())  # it is no failed flush
    assert export.notified.wait("The device is gone")


def test_a_stop_of_an_export_whose_device_is_gone_is_no_failure(loop_disk, start):
    device = loop_disk(8 * MIB)
    export = start(device=device)
    with backing_of(device).open("r+b") as backing:
        backing.truncate(0)
    run(needs_program("losetup"), "--set-capacity", device)
    assert export.stop() == 0
    assert not list(export.state.iterdir())


@pytest.mark.parametrize("engine", ["io_uring", "threads"])
def test_a_stuck_device_is_a_warning_and_a_status_never_an_end(mounted, start, engine):
    folder = mounted("ext4", size=64 * MIB)
    freeze = needs_program("fsfreeze")
    export = start(device=fill(folder / "disk", 8 * MIB, b"d" * 8 * MIB), Engine=engine,
                   env={"WATCHDOG_USEC": "1000000"})
    ours = connect(export)
    client = client_over(ours.client()[0])
    client.write(0, b"x" * 4096)
    run(freeze, "--freeze", folder)
    try:
        cookie = client.send_write(4096, b"y" * 4096)
        status(export, "the device has not answered for", patience=PATIENCE + 20)
        assert export.log.count("has not answered") == 1
        stuck = export.control.get("StuckSince")
        assert 10e6 <= time.time_ns() / 1000 - stuck < 60e6
        since = len(export.notified.messages)
        assert export.notified.wait("WATCHDOG=1", since)
    finally:
        run(freeze, "--unfreeze", folder)
    assert client.wait(cookie).error == 0
    told(export, "answers again")
    assert export.control.get("StuckSince") == 0


# With nbdctl serve -----------------------------------------------------------------------


def test_an_export_that_was_idle_serves_the_next_client(serve, file_disk, tmp_path):
    exports = tmp_path / "exports.d"
    exports.mkdir()
    disk = file_disk(8 * MIB)
    (exports / "idle.conf").write_text(f"[Export]\nDevice={disk}\nIdleTimeout=1\n")
    server = serve(config=exports)
    server.lossy = True  # its child comes and goes
    for turn in range(4):
        before = server.log().count("no client for 1 s")    # it may have ended before we came
        with server.client("idle") as client:
            client.write(0, bytes([turn + 1]) * 4096)
            assert client.read(0, 4096) == bytes([turn + 1]) * 4096
        wait_until(lambda before=before: server.log().count("no client for 1 s") > before,
                   "the idle end")
    assert "exited" not in server.log()
