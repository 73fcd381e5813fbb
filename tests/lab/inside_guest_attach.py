# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests/test_guest_attach.py runs in the guest: devices that nbdctl attach and nbd-attach make of
exports, with the kernel's driver; servers that die, networks that break.

LONG=1 in the environment: the long counts.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import signal
import socket
import subprocess
import time

import pytest

pytest.register_assert_rewrite("guest")
from guest import MIB, PATIENCE, ask, journal, run, show, state, wait_for  # noqa: E402
from nbdwriter import FEW, Writer  # noqa: E402

pytest_plugins = ["guest"]

LONG = os.environ.get("LONG") == "1"
ATTACH_D = pathlib.Path("/etc/nbd-export/attach.d")
SIZE = 64 * MIB


def attached():
    return json.loads(run("nbdctl", "attached", "--json", "-o", "+live,reason"))["devices"]


def the_only():
    (device,) = attached()
    return device


def attach(*words):
    return run("nbdctl", "attach", "--load-module", *words)


def use(device):
    """A file system with files that are written, read and compared."""
    run("mkfs.ext4", "-q", device)
    run("mount", device, "/mnt")
    try:
        run("fio", "--name=x", "--directory=/mnt", "--size=2M", "--rw=randwrite", "--bs=16k",
            "--verify=crc32c", "--do_verify=1", "--end_fsync=1")
    finally:
        run("umount", "/mnt")
    run("e2fsck", "-fn", device)


def write_at_once(device, meanwhile):
    """Four writers, each with blocks of its own; all go on after `meanwhile`, and none fails."""
    with contextlib.ExitStack() as writing:
        writers = [writing.enter_context(Writer(device, FEW, seed=i, first=64 * i))
                   for i in range(4)]
        for writer in writers:
            writer.wait_for_more(5)
        meanwhile()
        for writer in writers:
            writer.wait_for_more(5)
    for writer in writers:
        assert writer.failed == []
    return writers


# Servers


class Server:
    """A program that serves a file as `db` on a port, in a network namespace or not."""

    def __init__(self, kind, folder, port=10900, space=None):
        self.kind = kind
        self.folder = folder
        self.port = port
        self.space = space
        self.host = "10.77.0.1" if space else "127.0.0.1"
        self.path = folder / "disk"
        with self.path.open("wb") as disk:
            disk.truncate(SIZE)
        self.child = None
        self.options = []

    def command(self):
        ours = ["nbdctl", "serve", f"db={self.path}", "--listen", f"{self.host}:{self.port}",
                *self.options]
        if self.kind == "nbdctl":
            return [*ours, "--insecure-listen"]
        if self.kind == "tls":
            return [*ours, "--tls", KEYS / "server", "--tls-required"]
        if self.kind == "qemu-nbd":
            return ["qemu-nbd", "-f", "raw", "-t", "-e", "8", "-b", self.host, "-p", self.port,
                    "-x", "db", self.path]
        return ["nbdkit", "-f", "-i", self.host, "-p", self.port, "file", self.path]

    @property
    def uri(self):
        return f"nbd://{self.host}:{self.port}/db"

    def start(self):
        inside = ["ip", "netns", "exec", self.space] if self.space else []
        with (self.folder / "log").open("ab") as log:
            self.child = subprocess.Popen([*inside, *map(str, self.command())], stdout=log,
                                          stderr=log, stdin=subprocess.DEVNULL,
                                          start_new_session=True)
        wait_for(self.answers, f"{self.kind}: {(self.folder / 'log').read_text()}")

    def answers(self):
        assert self.child.poll() is None, (self.folder / "log").read_text()
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 5):
            return True
        return False

    def kill(self):
        """With all that it started: nothing of it answers any more."""
        pids = [self.child.pid, *children_of(self.child.pid)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.child.wait(PATIENCE)
        wait_for(lambda: not any(alive(pid) for pid in pids), "end of the server")
        self.child = None

    def stop(self):
        if self.child:
            self.kill()


def children_of(pid):
    found = []
    for thread in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        for child in thread.read_text().split():
            found += [int(child), *children_of(child)]
    return found


def alive(pid):
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.fixture
def server(stack, tmp_path):
    """server(kind): one that runs, and ends with the test, after what is attached."""

    def make(kind="nbdctl", **how):
        made = Server(kind, tmp_path, **how)
        stack.callback(made.stop)
        made.start()
        stack.callback(detach_all)
        return made

    return make


def detach_all():
    for device in attached():
        ask("nbdctl", "detach", "--force", device["device"])


@pytest.fixture
def kept(stack):
    """kept(uri, **keys): nbd-attach@test.service keeps it; the path of the device."""

    def make(uri, **keys):
        ATTACH_D.mkdir(parents=True, exist_ok=True)
        lines = [f"URI={uri}", *(f"{key}={value}" for key, value in keys.items())]
        (ATTACH_D / "test.conf").write_text("[Attach]\n" + "\n".join(lines) + "\n")
        stack.callback((ATTACH_D / "test.conf").unlink)
        stack.callback(run, "systemctl", "stop", "nbd-attach@test.service")
        run("systemctl", "start", "nbd-attach@test.service")
        return the_only()["device"]

    return make


def live():
    return the_only()["live"]


# nbdctl attach, detach, attached


def test_the_driver_is_loaded_only_when_that_is_asked_for(server):
    made = server()
    run("modprobe", "-r", "nbd")
    done = ask("nbdctl", "attach", made.uri)
    assert done.returncode == 1 and "nbd driver is not loaded" in done.stderr
    assert not pathlib.Path("/sys/module/nbd").exists()
    assert attach(made.uri) == "/dev/nbd0"
    assert the_only()["state"] == "attached"


@pytest.mark.parametrize("kind", ["nbdctl", "qemu-nbd", "nbdkit"])
def test_a_file_system_lives_on_an_export_of_any_server(server, kind):
    made = server(kind)
    device = attach(made.uri)
    assert the_only()["size"] == SIZE
    assert pathlib.Path(f"/sys/block/{device[5:]}/size").read_text().strip() == str(SIZE // 512)
    use(device)
    run("nbdctl", "detach", device)
    assert attached() == []


@pytest.mark.parametrize("connections", [1, 2, 4])
def test_data_written_over_several_connections_is_there(server, connections):
    made = server()
    device = attach(made.uri, "--connections", connections, "--name", "db")
    assert the_only()["connections"] == connections
    peers = run("ss", "-Htn", "state", "established", "dport", "=", f":{made.port}")
    assert len(peers.splitlines()) == connections
    writers = write_at_once(device, lambda: None)
    run("nbdctl", "detach", "db")
    for writer in writers:
        writer.check(made.path)


def test_what_is_attached_is_not_attached_again(server):
    made = server()
    device = attach(made.uri, "--name", "db")
    assert attach(made.uri, "--name", "db") == device
    assert attach(made.uri, device) == device
    for words in ([made.uri + "2", "--name", "db"], [made.uri, "--name", "other", device],
                  [made.uri, "--name", "db", "/dev/nbd7"]):
        done = ask("nbdctl", "attach", *words)
        assert done.returncode == 1 and "attached" in done.stderr
    assert attach(made.uri, "--read-only", "--name", "ro") != device
    assert {row["mode"] for row in attached()} == {"rw", "ro"}


def test_a_device_in_use_is_not_taken_away(server):
    made = server()
    device = attach(made.uri, "--name", "db")
    with open(device, "rb") as held, contextlib.ExitStack() as mounted:
        run("mkfs.ext4", "-q", device)
        run("mount", device, "/mnt")
        mounted.callback(run, "umount", "/mnt")
        done = ask("nbdctl", "detach", "db")
        assert done.returncode == 1 and "in use" in done.stderr
        assert held.read(512) is not None and the_only()["device"] == device


def test_refusals_say_why(server):
    made = server()
    device = attach(made.uri)
    nobody = ["setpriv", "--reuid=nobody", "--clear-groups"]
    for words, sentence in [
        ([*nobody, "nbdctl", "attach", made.uri], "only root may"),
        (["nbdctl", "attach", f"{made.uri}2"], "has no export of that name"),
        (["nbdctl", "attach", f"nbd://{made.host}:1/db"], "refused"),
        (["nbdctl", "attach", "nbd://nowhere.invalid/db"], "cannot find the host"),
        (["nbdctl", "attach", "--name=x", made.uri, device], "attached with no name"),
    ]:
        done = ask(*words)
        assert done.returncode == 1 and sentence in done.stderr, (words, done.stderr)
    assert run(*nobody, "nbdctl", "attached", "--noheadings").startswith(device)


def test_another_programs_device_is_left_alone(server, stack):
    made = server()
    run("nbd-client", "-N", "db", made.host, made.port, "/dev/nbd3")
    stack.callback(ask, "nbd-client", "-d", "/dev/nbd3")
    assert the_only()["state"] == "foreign"
    done = ask("nbdctl", "attach", made.uri, "/dev/nbd3")
    assert done.returncode == 1 and "by somebody else" in done.stderr
    assert attach(made.uri) == "/dev/nbd0"


def test_nbd_client_attaches_our_export_over_four_connections(server, stack):
    made = server()
    run("nbd-client", "-C", "4", "-N", "db", made.host, made.port, "/dev/nbd0")
    stack.callback(ask, "nbd-client", "-d", "/dev/nbd0")
    peers = run("ss", "-Htn", "state", "established", "dport", "=", f":{made.port}")
    assert len(peers.splitlines()) == 4
    use("/dev/nbd0")
    run("nbd-client", "-d", "/dev/nbd0")


def test_attaching_and_detaching_leaves_nothing_behind(server):
    made = server()
    attach(made.uri, "--name", "db")
    run("nbdctl", "detach", "db")
    before = sorted(path.name for path in pathlib.Path("/sys/block").glob("nbd*"))
    for _ in range(100 if LONG else 10):
        device = attach(made.uri, "--name", "db", "--connections", 2)
        assert os.stat(device).st_rdev
        run("nbdctl", "detach", "db")
        assert attached() == []
    assert sorted(path.name for path in pathlib.Path("/sys/block").glob("nbd*")) == before
    wait_for(lambda: not run("ss", "-Htn", "state", "established", "dport", "=", f":{made.port}"),
             "end of the connections")


# Over TLS

KEYS = pathlib.Path("/root/keys")
TLS = pathlib.Path("/etc/nbd-export/tls")


@pytest.fixture
def keys(stack):
    """nbd-tls has what it takes to be a client."""
    for path in (KEYS / "client").iterdir():
        run("install", "-m", "600", path, TLS)
        stack.callback((TLS / path.name).unlink)
    stack.callback(run, "systemctl", "stop", "nbd-tls.socket", "nbd-tls.service")
    run("systemctl", "start", "nbd-tls.socket")


def test_a_device_is_attached_over_tls_and_outlives_server_and_nbd_tls(keys, server, kept):
    made = server("tls")
    device = kept(f"nbds://{made.host}:{made.port}/db", Connections=2, Timeout=2,
                  DeadConnectionTimeout=120)
    use(device)
    with Writer(device, FEW) as writer:
        writer.wait_for_more(10)
        made.kill()
        wait_for(lambda: live() == 0, "loss")
        made.start()
        wait_for(lambda: live() == 2, "reconnection")
        writer.wait_for_more(10)
        before = times_restored()
        run("systemctl", "kill", "--signal=KILL", "nbd-tls.service")
        wait_for(lambda: times_restored() > before and live() == 2, "sessions by the next one")
        writer.wait_for_more(10)
    assert writer.failed == []
    writer.check(device)
    run("systemctl", "stop", "nbd-attach@test.service")
    writer.check(made.path)


# nbd-attach@.service


def test_a_server_that_comes_back_in_time_costs_no_write(server, kept):
    made = server()
    device = kept(made.uri, Connections=2, Timeout=2, DeadConnectionTimeout=120)
    assert the_only()["state"] == "watched" and live() == 2
    assert "2 connections" in show("nbd-attach@test.service", "StatusText")
    with Writer(device, FEW) as writer:
        writer.wait_for_more(20)
        made.kill()
        wait_for(lambda: live() == 0, "loss")
        assert the_only()["state"] == "reconnecting" and "refused" in the_only()["reason"]
        made.start()
        wait_for(lambda: live() == 2, "reconnection")
        writer.wait_for_more(20)
    assert writer.failed == []
    writer.check(device)
    run("systemctl", "stop", "nbd-attach@test.service")
    assert attached() == []
    writer.check(made.path)


def test_without_a_server_for_too_long_writes_fail_and_later_ones_succeed(server, kept):
    made = server()
    device = kept(made.uri, Timeout=2, DeadConnectionTimeout=3)
    with Writer(device, FEW) as writer:
        writer.wait_for_more(5)
        made.kill()
        wait_for(lambda: writer.failed, "I/O error")
    made.start()
    wait_for(lambda: live() == 1, "reconnection")
    with Writer(device, FEW, seed=writer.seed + 1) as again:
        again.wait_for_more(5)
    assert again.failed == []
    again.check(device)


@pytest.fixture
def network(stack):
    """cut(), mend(): of a link to a namespace where a server can be."""
    run("ip", "netns", "add", "srv")
    stack.callback(run, "ip", "netns", "delete", "srv")
    run("ip", "link", "add", "cable", "type", "veth", "peer", "name", "eth0", "netns", "srv")
    run("ip", "address", "add", "10.77.0.2/24", "dev", "cable")
    run("ip", "link", "set", "cable", "up")
    for words in (["link", "set", "lo", "up"], ["address", "add", "10.77.0.1/24", "dev", "eth0"],
                  ["link", "set", "eth0", "up"]):
        run("ip", "-n", "srv", *words)
    return lambda how: run("ip", "-n", "srv", "link", "set", "eth0", how)


@pytest.mark.parametrize("seconds", [5] + [60] * LONG)
def test_a_network_that_breaks_costs_no_write(network, server, kept, seconds):
    made = server(space="srv")
    device = kept(made.uri, Connections=2, Timeout=3, DeadConnectionTimeout=300)
    with Writer(device, FEW) as writer:
        writer.wait_for_more(20)
        network("down")
        until = time.monotonic() + seconds
        wait_for(lambda: time.monotonic() > until, "time")
        network("up")
        writer.wait_for_more(20, patience=120)
        wait_for(lambda: live() == 2, "reconnection")
    assert writer.failed == []
    writer.check(device)
    run("systemctl", "stop", "nbd-attach@test.service")
    writer.check(made.path)


def test_an_export_that_is_restarted_costs_no_write(export, kept, stack, loop):
    export("web1", loop())
    stack.callback(detach_all)
    device = kept("nbd://localhost/web1", Connections=2, Timeout=2)
    def restart():
        before = times_restored()
        run("systemctl", "restart", "nbd-export@web1.service")
        wait_for(lambda: times_restored() > before and live() == 2, "reconnection")

    for writer in write_at_once(device, restart):
        writer.check(device)


def times_restored():
    return len(run("journalctl", "-b", "--no-pager", "--output=cat", "EVENT=link-restored",
                   "--output-fields=EVENT").splitlines())


def test_a_killed_nbd_attach_takes_the_device_over_again(server, kept):
    made = server()
    device = kept(made.uri, Connections=2, Timeout=2)
    pid = show("nbd-attach@test.service", "MainPID")
    with Writer(device, FEW) as writer:
        writer.wait_for_more(5)
        run("kill", "-KILL", pid)
        made.kill()
        made.start()
        wait_for(lambda: the_only()["live"] == 2, "reconnection by the next one")
        writer.wait_for_more(5)
    assert writer.failed == []
    assert show("nbd-attach@test.service", "MainPID") != pid
    assert the_only()["device"] == device


def test_a_killed_nbd_attach_leaves_connections_that_live_as_they_are(server, kept):
    made = server()
    device = kept(made.uri, Connections=2, Timeout=2)
    established = ["ss", "-Htn", "state", "established", "dport", "=", f":{made.port}"]
    before = sorted(run(*established).splitlines())
    pid = show("nbd-attach@test.service", "MainPID")
    with made.path.open("r+b") as disk:         # what old connections know nothing of
        disk.truncate(2 * SIZE)
    run("kill", "-KILL", pid)
    wait_for(lambda: show("nbd-attach@test.service", "MainPID") not in (pid, "0") and
             the_only()["state"] == "watched", "takeover")
    wait_for(lambda: sorted(run(*established).splitlines()) == before, "end of the others")
    assert the_only()["size"] == SIZE
    made.kill()
    made.start()
    wait_for(lambda: the_only()["size"] == 2 * SIZE, "growth, as all connections are new")
    assert live() == 2 and the_only()["device"] == device


def test_an_export_that_comes_back_read_only_is_waited_for(server, kept):
    made = server()
    device = kept(made.uri, Timeout=2, DeadConnectionTimeout=120)
    made.kill()
    made.options = ["--read-only"]
    made.start()
    wait_for(lambda: "become read-only" in (the_only()["reason"] or ""), "reason")
    assert live() == 0 and "become read-only" in journal()
    made.kill()
    made.options = []
    made.start()
    wait_for(lambda: live() == 1, "reconnection")
    with Writer(device, FEW) as writer:
        writer.wait_for_more(5)
    assert writer.failed == []


def test_a_device_that_is_detached_while_it_is_open_is_not_tried_for_ever(server, kept):
    device = kept(server().uri, Timeout=2)
    with open(device, "rb"):
        done = ask("nbdctl", "detach", "test")
        assert done.returncode == 1 and "until it is closed" in done.stderr, done.stderr
        ask("systemctl", "kill", "--signal=KILL", "nbd-attach@test.service")
        wait_for(lambda: state("nbd-attach@test.service") == "inactive", "end of the next one")
        assert "while it was open" in journal()
    wait_for(lambda: attached() == [], "end of the device")


def test_a_lock_that_somebody_holds_is_named(server):
    device = attach(server().uri)
    with open("/run/nbd-export/attach.lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = ask("nbdctl", "detach", device)
    assert done.returncode == 1 and "/run/nbd-export/attach.lock is locked" in done.stderr
    run("nbdctl", "detach", device)


def test_a_device_that_is_mounted_outlives_the_stop_of_its_unit(server, kept):
    made = server()
    device = kept(made.uri)
    run("mkfs.ext4", "-q", device)
    run("mount", device, "/mnt")
    run("systemctl", "stop", "nbd-attach@test.service")
    pathlib.Path("/mnt/x").write_text("still there")
    assert the_only()["state"] == "attached" and "stays attached" in journal()
    run("umount", "/mnt")
    run("systemctl", "start", "nbd-attach@test.service")
    wait_for(lambda: the_only()["state"] == "watched", "watch")


def test_a_detached_device_ends_its_unit_without_failure(server, kept):
    kept(server().uri)
    run("nbdctl", "detach", "test")
    wait_for(lambda: state("nbd-attach@test.service") == "inactive", "end of the unit")
    assert attached() == []


def test_a_grown_export_grows_the_device(server, kept):
    made = server()
    device = kept(made.uri, Timeout=2)
    made.kill()
    with made.path.open("r+b") as disk:
        disk.truncate(2 * SIZE)
    made.start()
    wait_for(lambda: the_only()["size"] == 2 * SIZE, "growth")
    assert int(run("blockdev", "--getsize64", device)) == 2 * SIZE


def test_a_file_that_cannot_be_right_fails_the_unit(stack):
    ATTACH_D.mkdir(parents=True, exist_ok=True)
    path = ATTACH_D / "bad.conf"
    path.write_text("[Attach]\nURI=nbds://me@host/x\n")
    stack.callback(path.unlink)
    stack.callback(run, "systemctl", "stop", "nbd-attach@bad.service")
    assert ask("systemctl", "start", "nbd-attach@bad.service").returncode != 0
    assert "bad.conf:2: URI=" in journal()
