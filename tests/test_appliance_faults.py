# SPDX-License-Identifier: GPL-2.0-or-later
"""The appliance in a container when something is amiss: administrators at the same time, a full
or read-only /etc, no D-Bus, processes that are killed."""

import json
import pathlib
import sys

import pytest

from conftest import MIB, PATIENCE

sys.path.insert(0, str(pathlib.Path(__file__).parent / "lab"))
pytest.register_assert_rewrite("appliance", "machine")
from appliance import (  # noqa: E402  (its folder is not a package)
    EXPORTS, IDLER, SIZE, WRITER, check_written, client, ended, kill, service_of, socket_of, uri)

pytest_plugins = ["appliance"]
pytestmark = pytest.mark.timeout(120)

ETC = "/etc/nbd-export"
NEGOTIATOR = "nbd-negotiator.service"
MANY = 12


def size_of(machine, name):
    return int(machine.run("nbdinfo", "--size", uri(name)))


def goes_on(idler):
    idler.stdin.write("again\n")
    idler.stdin.flush()
    assert idler.stdout.readline() == "read\n"


# Administrators at the same time ---------------------------------------------------


def together(machine, *commands):
    """[(exit status, stdout, stderr)]"""
    children = [machine.popen(*command) for command in commands]
    said = [child.communicate(timeout=2 * PATIENCE) for child in children]
    return [(child.returncode, *both) for child, both in zip(children, said, strict=True)]


def files_in(machine, folder=EXPORTS):
    return machine.run("ls", "-A", folder).split()


def test_of_many_who_add_one_label_one_wins_and_the_others_are_told(machine, image):
    devices = [image(f"{n}.img", SIZE + n * MIB) for n in range(MANY)]
    done = together(machine, *(("nbdctl", "add", "same", device) for device in devices))
    won = [n for n, (status, _, _) in enumerate(done) if status == 0]
    assert len(won) == 1, done
    for n, (status, _, said) in enumerate(done):
        if n not in won:
            assert status == 1 and "same is there with other settings; --replace" in said
            assert f"{devices[won[0]]} to {devices[n]}" in said or devices[n] in said
    assert files_in(machine) == ["same.conf"]
    assert machine.run("cat", f"{EXPORTS}/same.conf") == f"[Export]\nDevice={devices[won[0]]}"
    assert size_of(machine, "same") == SIZE + won[0] * MIB


def test_many_who_add_the_same_all_have_it(machine, image):
    command = ("nbdctl", "add", "same", image("same.img"), "--description", "ours")
    done = together(machine, *[command] * MANY)
    assert [status for status, _, _ in done] == [0] * MANY, done
    assert sorted(said.split()[0] for _, said, _ in done) == ["added"] + ["same"] * (MANY - 1)
    assert files_in(machine) == ["same.conf"]
    assert size_of(machine, "same") == SIZE


def test_many_who_add_different_exports_all_have_theirs(machine, image):
    sizes = {f"web{n}": SIZE + n * MIB for n in range(MANY)}
    done = together(machine, *(("nbdctl", "add", label, image(label, size))
                               for label, size in sizes.items()))
    assert [status for status, _, _ in done] == [0] * MANY, done
    assert sorted(files_in(machine)) == sorted(f"{label}.conf" for label in sizes)
    for label, size in sizes.items():
        assert machine.show(socket_of(label), "ActiveState") == "active"
        assert size_of(machine, label) == size


def test_an_add_and_a_remove_at_the_same_time_leave_all_or_nothing(machine, image, counts):
    device = image("web1")
    for _ in range(counts(6, 40)):
        done = together(machine, ("nbdctl", "add", "web1", device), ("nbdctl", "remove", "web1"),
                        ("nbdctl", "add", "web1", device), ("nbdctl", "remove", "web1"))
        there = "web1.conf" in files_in(machine)
        state = machine.show(socket_of("web1"), "ActiveState")
        assert state == ("active" if there else "inactive"), (there, done)
        assert (machine.ask("nbdinfo", uri("web1")).returncode == 0) == there


def test_an_add_waits_until_a_remove_is_through(machine, image):
    device = image("web1")
    machine.run("nbdctl", "add", "web1", device)
    # It dawdles after the file has gone, before it asks systemd.
    slow = machine.popen("strace", "-o", "/dev/null", "--inject=connect:delay_enter=1s:when=2",
                         "nbdctl", "remove", "web1")
    machine.wait_for(lambda: files_in(machine) == [], "end of the file")
    machine.run("nbdctl", "add", "web1", device)
    assert slow.communicate(timeout=PATIENCE)[0] == "removed web1\n"
    assert machine.show(socket_of("web1"), "ActiveState") == "active"
    assert size_of(machine, "web1") == SIZE


# /etc ------------------------------------------------------------------------------


@pytest.fixture
def etc(machine, image):
    """web1, with a client; then a small file system of its own under /etc/nbd-export."""
    machine.run("nbdctl", "add", "web1", image("web1"), "--description", "old")
    idler = client(machine, IDLER, "web1")
    machine.run("sh", "-c", f"cp -a {ETC} /run/etc.kept && mount -t tmpfs -o size=64k tmpfs {ETC} "
                f"&& cp -a /run/etc.kept/. {ETC} && systemctl restart {NEGOTIATOR}")
    yield idler
    machine.run("sh", "-c", f"umount {ETC}; rm -r /run/etc.kept; systemctl daemon-reload; "
                f"systemctl restart {NEGOTIATOR}")
    idler.communicate(timeout=PATIENCE)


def is_as_it_was(machine, idler):
    assert files_in(machine) == ["web1.conf"]
    assert "Description=old" in machine.run("cat", f"{EXPORTS}/web1.conf")
    assert machine.show(socket_of("web2"), "ActiveState") == "inactive"
    assert machine.run("nbdctl", "list", "--noheadings", "-o", "LABEL,STATE").split() == \
        ["web1", "serving"]
    assert size_of(machine, "web1") == SIZE
    goes_on(idler)


def test_a_full_etc_is_told_and_loses_nothing(machine, image, etc):
    fill = machine.ask("dd", "if=/dev/zero", f"of={ETC}/filler", "bs=512")
    assert "No space left" in fill.stderr
    device = image("web2")
    for words in (("web2", device), ("web1", "/srv/web1", "--description", "new", "--replace")):
        done = machine.ask("nbdctl", "add", *words)
        assert done.returncode == 1
        assert done.stderr == f"nbdctl: error: cannot write {EXPORTS}/{words[0]}.conf: " \
            "No space left on device\n"
    is_as_it_was(machine, etc)
    machine.run("rm", f"{ETC}/filler")
    machine.run("nbdctl", "add", "web2", device)
    assert size_of(machine, "web2") == SIZE
    machine.run("nbdctl", "remove", "web2")


def test_a_read_only_etc_is_told_and_loses_nothing(machine, image, etc):
    machine.run("mount", "-o", "remount,ro", ETC)
    for words in (("add", "web2", image("web2")), ("remove", "web1", "--force"),
                  ("add", "web1", "/srv/web1", "--description", "new", "--replace")):
        done = machine.ask("nbdctl", *words)
        assert done.returncode == 1
        assert f"{EXPORTS}/{words[1]}.conf: Read-only file system" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    is_as_it_was(machine, etc)
    done = machine.ask("nbdctl", "remove", "web1", "--drain")
    assert done.returncode == 1 and "Read-only file system" in done.stderr
    assert size_of(machine, "web1") == SIZE         # it admits clients again
    machine.run("mount", "-o", "remount,rw", ETC)


def test_a_folder_in_the_place_of_another_is_read_by_a_negotiator_that_starts_anew(machine, image):
    machine.run("nbdctl", "add", "web1", image("web1"))
    idler = client(machine, IDLER, "web1")
    machine.run("sh", "-c", f"mv {ETC} {ETC}.old && cp -a {ETC}.old {ETC}")
    machine.run("nbdctl", "add", "web1", "/srv/web1", "--name", "shop", "--replace")
    machine.wait_for(lambda: machine.ask("nbdinfo", uri("shop")).returncode == 0, "the new name")
    assert machine.show(NEGOTIATOR, "Result") == "success"
    idler.stdin.write("again\n")
    assert ended(idler) == ["read"]
    machine.run("rm", "-r", f"{ETC}.old")


def test_a_folder_of_exports_that_is_not_there_is_an_empty_one(machine, image):
    machine.run("rm", "-r", EXPORTS)
    machine.run("systemctl", "restart", NEGOTIATOR)
    assert machine.show(NEGOTIATOR, "ActiveState") == "active"
    machine.run("nbdctl", "add", "web1", image("web1"))
    machine.wait_for(lambda: machine.ask("nbdinfo", uri("web1")).returncode == 0, "the export")
    machine.run("rm", f"{EXPORTS}/web1.conf")
    machine.run("nbdctl", "reload")


def test_bad_settings_at_the_start_are_told_once_an_attempt_and_no_more_is_served(machine, image):
    machine.run("nbdctl", "add", "web1", image("web1"))
    settings = f"{ETC}/negotiator.conf"
    machine.write(settings, "[Negotiator]\nAllow=10.0.0.0/8\nColour=red\n")

    def told():
        return machine.journal("all", "EVENT=negotiator-failed").count("negotiator.conf:3")

    def restarts():
        return int(machine.show(NEGOTIATOR, "NRestarts"))

    try:
        assert machine.ask("systemctl", "restart", NEGOTIATOR).returncode != 0
        patient = machine.popen("nbdinfo", "--size", uri("web1"))
        machine.wait_for(lambda: "tried again" in machine.show(NEGOTIATOR, "StatusText"),
                         "word about the next attempt")
        machine.wait_for(lambda: restarts() >= 2, "another attempt")
        assert told() <= restarts() + 1
        done = machine.ask("nbdctl", "status")
        assert done.returncode == 3 and "negotiator.conf:3" in done.stderr
        assert "nobody can connect" in done.stderr and done.stderr.count("\n") == 1
        assert patient.poll() is None       # nobody is let in, for nobody knows who may
        machine.write(settings, "[Negotiator]\nAllow=127.0.0.0/8 ::1\n")
        assert patient.communicate(timeout=PATIENCE)[0] == f"{SIZE}\n"
        assert machine.ask("nbdctl", "status").returncode == 0
        machine.write(settings, "[Negotiator]\nColour=red\n")
        done = machine.ask("nbdctl", "status")
        assert done.returncode == 3 and "negotiator.conf:2" in done.stderr
        assert "older settings hold" in done.stderr
    finally:
        machine.remove(settings)
        machine.run("systemctl", "restart", NEGOTIATOR)


# /var and /run ---------------------------------------------------------------------


@pytest.mark.parametrize("folder, state", [
    ("/var/lib/nbd-export", "starting"), ("/run/nbd-export/instances", "starting"),
    ("/run/nbd-export/flush-failed", "starting")])
def test_a_read_only_folder_is_told_with_the_export_that_needs_it(machine, image, folder, state):
    machine.run("nbdctl", "add", "web1", image("web1"))
    machine.run("nbdctl", "add", "web2", image("web2"))
    idler = client(machine, IDLER, "web2")
    machine.run("mkdir", "-p", folder)
    machine.run("mount", "-t", "tmpfs", "-o", "ro", "tmpfs", folder)
    try:
        assert machine.ask("nbdinfo", uri("web1")).returncode != 0

        def row():
            rows = json.loads(machine.run("nbdctl", "list", "--json", "-o", "+REASON"))
            return next(row for row in rows["exports"] if row["label"] == "web1")

        machine.wait_for(lambda: row()["reason"] and "is started again" in row()["reason"],
                         "word about the restarts")
        assert row()["state"] == state
        done = machine.ask("nbdctl", "status")
        assert done.returncode == 3 and "web1: starting: it has ended" in done.stderr
        goes_on(idler)
    finally:
        machine.run("umount", folder)
    assert ended(idler) == []
    machine.wait_for(lambda: machine.ask("nbdinfo", uri("web1")).returncode == 0, "its return")
    assert machine.ask("nbdctl", "status").returncode == 0


def test_a_full_var_keeps_bitmaps_from_being_added_and_nothing_else(machine, image):
    machine.run("nbdctl", "add", "web1", image("web1"))
    machine.run("nbdinfo", "--size", uri("web1"))
    machine.run("systemctl", "stop", service_of("web1"))
    state = "/var/lib/nbd-export/web1"
    machine.run("mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", state)
    try:
        machine.run("sh", "-c", f"chown nbd-export: {state}; head -c 4096 /dev/zero >{state}/full")
        idler = client(machine, IDLER, "web1")
        done = machine.ask("nbdctl", "bitmap", "add", "web1", "daily")
        assert done.returncode == 1 and "No space left" in done.stderr
        goes_on(idler)
        assert ended(idler) == []
    finally:
        machine.run("systemctl", "stop", service_of("web1"))
        machine.run("umount", state)


# D-Bus -----------------------------------------------------------------------------


@pytest.fixture
def no_dbus(machine):
    machine.run("systemctl", "stop", "dbus.socket", "dbus.service")
    assert machine.ask("busctl", "status").returncode != 0
    yield
    machine.run("systemctl", "start", "dbus.socket")
    machine.wait_for(lambda: machine.ask("busctl", "status").returncode == 0, "D-Bus")


def test_without_dbus_everything_works_over_systemds_own_socket(machine, image, no_dbus):
    said = machine.run("nbdctl", "add", "web1", image("web1"))
    assert said == "added web1: /srv/web1, read-write"
    assert size_of(machine, "web1") == SIZE
    machine.run("nbdctl", "reload")
    machine.run("nbdctl", "drain", "web1")
    machine.run("nbdctl", "resume", "web1")
    machine.run("nbdctl", "remove", "web1")
    assert machine.show(socket_of("web1"), "ActiveState") == "inactive"


def what_is_left(machine, *words):
    """Runs nbdctl without a way to systemd, and then, with one, what it says is left to do."""
    machine.run("mv", "/run/systemd/private", "/run/systemd/private.away")
    done = machine.ask("nbdctl", *words)
    machine.run("mv", "/run/systemd/private.away", "/run/systemd/private")
    assert done.returncode == 1 and "cannot reach systemd" in done.stderr
    assert "added" not in done.stdout and "removed" not in done.stdout
    machine.run("sh", "-e", "-c", done.stderr.split("What is left to do: ")[1])


def test_without_a_way_to_systemd_what_is_left_to_do_is_said(machine, image, no_dbus):
    machine.run("systemctl", "start", NEGOTIATOR)
    what_is_left(machine, "add", "web1", image("web1"))
    assert size_of(machine, "web1") == SIZE
    what_is_left(machine, "remove", "web1")
    assert files_in(machine) == []
    assert machine.ask("nbdinfo", uri("web1")).returncode != 0
    assert machine.show(socket_of("web1"), "ActiveState") == "inactive"


def test_after_a_reload_what_could_not_start_is_tried_at_once(machine, image):
    machine.run("nbdctl", "add", "web1", image("web1"))
    machine.run("systemctl", "stop", socket_of("web1"))
    assert machine.ask("nbdinfo", uri("web1")).returncode != 0
    machine.run("nbdctl", "reload")
    assert size_of(machine, "web1") == SIZE


# SIGKILL ---------------------------------------------------------------------------


def test_a_killed_export_has_lost_nothing_and_its_clients_are_told_at_once(machine, image):
    device = image("web1")
    machine.run("nbdctl", "add", "web1", device)
    writer = client(machine, WRITER, "web1")
    assert writer.stdout.readline() == "writing\n"
    kill(machine, service_of("web1"))
    check_written(machine, device, json.loads(ended(writer)[-1])["acknowledged"])
    machine.run("journalctl", "--sync")
    log = machine.run("nbdctl", "log", "web1")
    assert "Main process exited, code=killed, status=9/KILL" in log
    assert "serving /srv/web1, " in log.split("status=9/KILL")[-1]      # it is back
    assert machine.show(service_of("web1"), "NRestarts") == "1"
    assert machine.run("nbdctl", "clients", "--noheadings") == ""
    assert size_of(machine, "web1") == SIZE


def test_a_killed_negotiator_comes_back_knowing_who_is_connected(machine, image):
    machine.run("nbdctl", "add", "web1", image("web1"), "--max-connections", 1)
    idler = client(machine, IDLER, "web1")
    half = machine.popen("python3", "-c", "import socket; "
                         "s = socket.create_connection(('::1', 10809)); "
                         "print(len(s.recv(18)), flush=True); print(s.recv(1))")
    assert half.stdout.readline() == "18\n"
    kill(machine, NEGOTIATOR)
    assert ended(half) == ["b''"]                       # its handshake ended with it
    assert "status=9/KILL" in machine.journal(50, f"--unit={NEGOTIATOR}")
    goes_on(idler)
    assert machine.ask("nbdinfo", uri("web1")).returncode != 0
    machine.wait_for(lambda: "no-slot" in machine.journal(
        20, "EVENT=client-refused", "EXPORT=web1", "--output=verbose"), "word about the refusal")
    assert ended(idler) == []
    machine.wait_for(lambda: machine.ask("nbdinfo", uri("web1")).returncode == 0, "free place")


@pytest.mark.parametrize("at", ["fsync", "rename"])
def test_an_add_that_is_killed_leaves_all_or_nothing(machine, image, at):
    device = image("web1")
    # The first of each is the check's, in a folder of its own.
    done = machine.ask("strace", "-o", "/dev/null", f"--inject={at}:signal=KILL:when=2",
                       "nbdctl", "add", "web1", device)
    assert done.returncode != 0 and done.stdout == ""
    if "web1.conf" in files_in(machine):
        assert machine.run("cat", f"{EXPORTS}/web1.conf") == f"[Export]\nDevice={device}"
    machine.run("nbdctl", "check")
    machine.run("nbdctl", "add", "web1", device)
    assert size_of(machine, "web1") == SIZE
    machine.run("sh", "-c", f"rm -f {EXPORTS}/.web1.*")


# The journal -----------------------------------------------------------------------


def test_a_journal_that_hangs_ends_no_export_and_keeps_no_client_out(machine, image):
    machine.run("nbdctl", "add", "web1", image("web1"))
    folder = f"/run/systemd/system/{service_of('web1')}.d"
    machine.run("mkdir", "-p", folder)
    machine.run("sh", "-c", f"printf '[Service]\\nWatchdogSec=4\\n' >{folder}/watchdog.conf")
    machine.run("systemctl", "daemon-reload")
    idler = client(machine, IDLER, "web1")
    process = machine.show(service_of("web1"), "MainPID")
    journald = machine.show("systemd-journald.service", "MainPID")
    room = int(machine.run("cat", "/proc/sys/net/unix/max_dgram_qlen"))
    machine.run("kill", "-STOP", journald)
    try:
        machine.run("sh", "-e", "-c", f"for i in $(seq {room // 2 + 20}); do "
                    f"nbdinfo --size {uri('web1')} >/dev/null; done", timeout=100)
        stamps = {machine.show(service_of("web1"), "WatchdogTimestampMonotonic")}

        def fed():
            stamps.add(machine.show(service_of("web1"), "WatchdogTimestampMonotonic"))
            return len(stamps) > 4          # a quarter of the four seconds each

        machine.wait_for(fed, "food for the watchdog")
        goes_on(idler)
    finally:
        machine.run("kill", "-CONT", journald)
    assert machine.show(service_of("web1"), "MainPID") == process
    assert ended(idler) == []
    for unit in (service_of("web1"), NEGOTIATOR):
        machine.run("nbdinfo", "--size", uri("web1"))
        machine.wait_for(lambda unit=unit: "messages were lost" in machine.journal(
            50, f"--unit={unit}", "EVENT=messages-lost"), f"word of {unit} about what was lost")
    machine.run("rm", "-r", folder)
    machine.run("systemctl", "daemon-reload")
