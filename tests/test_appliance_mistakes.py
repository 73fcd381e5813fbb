# SPDX-License-Identifier: GPL-2.0-or-later
"""The appliance in a container when administrators make mistakes or change their minds: exports
that cannot start, files that are gone, settings that were made with systemctl."""

import json
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent / "lab"))
pytest.register_assert_rewrite("appliance", "machine")
from appliance import (  # noqa: E402  (its folder is not a package)
    EXPORTS, IDLER, SIZE, client, ended, service_of, socket_of, uri)

pytest_plugins = ["appliance"]
pytestmark = pytest.mark.timeout(120)

# What an export whose flush fails leaves; base/latch-file.h.
LATCH = """
import os, subprocess, sys
born = subprocess.check_output(["stat", "--format=%.9W", sys.argv[1]], text=True).split(".")
st = os.stat(sys.argv[1])
folder = "/run/nbd-export/flush-failed/" + sys.argv[2]
os.makedirs(folder, exist_ok=True)
with open(f"{folder}/flush-failed-file-{st.st_dev:x}-{st.st_ino}-{born[0]}.{int(born[1])}",
          "w") as note:
    note.write("disk on fire")
"""

CONTROL = "/run/nbd-export/instances/{}/control"


def row_of(machine, label):
    listed = json.loads(machine.run("nbdctl", "list", "--json", "-o", "+REASON"))["exports"]
    return next(row for row in listed if row["label"] == label)


def test_an_export_that_cannot_start_is_tried_once_a_client_and_says_why(machine, image):
    device = image("web1")
    machine.run("nbdctl", "add", "web1", device)
    machine.run("chown", "root:", device)
    machine.run("chmod", "600", device)
    assert machine.ask("nbdinfo", uri("web1")).returncode != 0
    machine.wait_for(lambda: machine.show(service_of("web1"), "ActiveState") == "failed",
                     "the end of the attempt")
    row = row_of(machine, "web1")
    assert row["state"] == "failed" and "Permission denied" in row["reason"]
    done = machine.ask("nbdctl", "status")
    assert "web1: failed: " in done.stderr and "Permission denied" in done.stderr
    assert machine.show(service_of("web1"), "NRestarts") == "0"
    assert machine.show(socket_of("web1"), "ActiveState") == "active"

    machine.run("chown", "nbd-export:", device)
    machine.wait_for(lambda: machine.ask("nbdinfo", uri("web1")).returncode == 0,
                     "the next client to be served")
    assert row_of(machine, "web1")["state"] == "serving"


def test_no_export_may_change_another_or_sees_its_socket(machine, export):
    for label in ("web1", "web2"):
        export(label)
        machine.run("nbdinfo", "--size", uri(label))
    done = machine.ask("runuser", "-u", "nbd-export", "--", "busctl",
                       "--address=unix:path=" + CONTROL.format("web2"), "call", "org.nbd_export",
                       "/org/nbd_export/export", "org.nbd_export.Export1", "Drain")
    assert done.returncode != 0 and "only root" in done.stderr
    assert row_of(machine, "web2")["state"] == "serving"
    pid = machine.show(service_of("web1"), "MainPID")
    seen = machine.run("nsenter", "-m", "-t", pid, "ls", "/run/nbd-export/instances")
    assert seen == "web1"


def test_who_may_look_is_no_client_and_a_client_may_not_look(machine, image):
    machine.run("nbdctl", "add", "web1", image("web1"), "--allow", "local")
    nbd = "nbd+unix:///web1?socket=/run/nbd-export/nbd.sock"
    machine.run("nbdinfo", "--size", nbd)

    def ask(group, *words):
        return machine.ask("runuser", "-u", "nobody", "-G", group, "--", *words)

    def as_member(group, *words):
        return ask(group, *words).returncode

    assert as_member("nbd-export", "nbdctl", "status") == 0
    assert as_member("nbd-export", "nbdctl", "drain", "web1") == 1
    assert as_member("nbd-export", "nbdinfo", nbd) != 0
    assert as_member("nbd-client", "nbdinfo", nbd) == 0
    assert "group nbd-export may look" in ask("nbd-client", "nbdctl", "clients", "web1").stderr
    for change in (("remove", "web1"), ("add", "web2", "/srv/web1.img"), ("reload",)):
        done = ask("nbd-export", "nbdctl", *change)
        assert done.returncode == 1 and "be root" in done.stderr, done.stderr


@pytest.mark.parametrize("label", [r"a\x2db:c_d.e", "1-"])
def test_any_label_has_its_folder_in_the_sandbox(machine, image, label):
    machine.run("nbdctl", "add", label, image("disk"))
    assert int(machine.run("nbdinfo", "--size", uri(label))) == SIZE
    assert row_of(machine, label)["state"] == "serving"


def test_a_file_with_a_label_that_looks_like_an_option_is_bad(machine, image):
    device = image("web1")
    machine.write(f"{EXPORTS}/-x.conf", f"[Export]\nDevice={device}\n")
    try:
        done = machine.ask("nbdctl", "check")
        assert done.returncode == 1 and "cannot be an export's label" in done.stdout
    finally:
        machine.remove(f"{EXPORTS}/-x.conf")


def test_remove_leaves_nothing_that_the_next_export_of_that_label_has(machine, image):
    device = image("web1")
    machine.run("nbdctl", "add", "web1", device)
    machine.run("systemctl", "set-property", service_of("web1"), "CPUWeight=7")
    assert machine.show(service_of("web1"), "CPUWeight") == "7"
    machine.run("nbdctl", "remove", "web1")
    machine.run("nbdctl", "add", "web1", device)
    assert machine.show(service_of("web1"), "CPUWeight") != "7"
    assert machine.ask("ls", f"/etc/systemd/system.control/{service_of('web1')}.d").returncode != 0


def test_remove_leaves_no_trace_but_bitmaps_and_those_can_be_purged_afterwards(machine, image):
    def traces():
        return machine.run("find", "/etc/nbd-export/exports.d", "/var/lib/nbd-export",
                           "/run/nbd-export/instances", "/run/nbd-export/channels",
                           "/run/nbd-export/flush-failed", "/run/systemd/generator",
                           "-name", "*web1*").split()

    machine.run("nbdctl", "add", "web1", image("web1"), "--start-at-boot")
    machine.run("nbdctl", "remove", "web1")
    assert traces() == []
    machine.run("nbdctl", "add", "web1", image("web1"), "--start-at-boot", "--bitmap", "daily")
    assert "(--purge removes them)" in machine.run("nbdctl", "remove", "web1")
    assert traces() == ["/var/lib/nbd-export/web1"]
    assert "removed before" in machine.run("nbdctl", "remove", "web1", "--purge")
    assert traces() == []
    again = machine.ask("nbdctl", "remove", "web1", "--purge")
    assert again.returncode == 1 and "there is no export web1" in again.stderr


def test_reload_stops_an_export_whose_file_was_removed_unless_it_has_clients(machine, image):
    machine.run("nbdctl", "add", "web1", image("web1"))
    idler = client(machine, IDLER, "web1")
    machine.remove(f"{EXPORTS}/web1.conf")
    done = machine.ask("nbdctl", "reload")
    assert done.returncode == 1 and "web1 has no file any more" in done.stderr
    idler.stdin.write("again\n")
    assert ended(idler) == ["read"]

    def stopped():
        return machine.ask("nbdctl", "reload").returncode == 0

    machine.wait_for(stopped, "reload without clients")
    for unit in (socket_of("web1"), service_of("web1")):
        assert machine.show(unit, "ActiveState") == "inactive"
    assert "web1" not in machine.run("ls", "/run/nbd-export/instances")


def test_reload_starts_what_is_new_but_not_what_was_stopped(machine, image):
    def write(label):
        machine.write(f"{EXPORTS}/{label}.conf",
                      f"[Export]\nDevice={image(label)}\nStartAtBoot=yes\n")
        machine.run("nbdctl", "reload")

    def state(label):
        return machine.show(service_of(label), "ActiveState")

    write("web1")
    assert state("web1") == "active"
    machine.run("systemctl", "stop", service_of("web1"))
    write("web2")
    assert state("web2") == "active" and state("web1") == "inactive"
    assert int(machine.run("nbdinfo", "--size", uri("web1"))) == SIZE


def test_a_replace_that_died_half_way_is_made_up_for_by_another(machine, image):
    new = image("new")
    machine.run("nbdctl", "add", "web1", image("old"))
    machine.run("nbdinfo", "--size", uri("web1"))
    machine.run("nbdctl", "drain", "web1")
    machine.write(f"{EXPORTS}/web1.conf", f"[Export]\nDevice={new}\n")
    assert "takes up Device=" in machine.ask("nbdctl", "add", "web1", new).stderr
    assert row_of(machine, "web1")["state"] == "drained"
    machine.run("nbdctl", "add", "web1", new, "--replace")
    assert int(machine.run("nbdinfo", "--size", uri("web1"))) == SIZE
    assert row_of(machine, "web1")["device"] == new


def test_a_folder_of_other_files_has_no_part_in_what_runs(machine, image):
    machine.run("nbdctl", "add", "web1", image("web1"))
    machine.run("nbdinfo", "--size", uri("web1"))
    machine.run("mkdir", "-p", "/srv/others")
    assert machine.run("nbdctl", "list", "--exports=/srv/others", "--noheadings") == ""
    machine.remove(f"{EXPORTS}/web1.conf")
    assert machine.run("nbdctl", "list", "--noheadings", "-o", "LABEL,STATE").split() == ["web1", "no-file"]
    assert machine.ask("nbdctl", "status").returncode == 3
    machine.run("nbdctl", "remove", "web1")
    assert machine.ask("nbdctl", "status").returncode == 0


def test_an_export_without_a_file_can_be_removed(machine, image):
    machine.run("nbdctl", "add", "web1", image("web1"))
    machine.run("nbdinfo", "--size", uri("web1"))
    machine.remove(f"{EXPORTS}/web1.conf")
    assert machine.run("nbdctl", "remove", "web1") == "removed web1"
    assert machine.show(service_of("web1"), "ActiveState") == "inactive"
    assert machine.ask("nbdctl", "remove", "web1").returncode == 1


def test_another_device_waits_until_clients_have_left(machine, image):
    machine.run("nbdctl", "add", "web1", image("old"))
    new = image("new", 2 * SIZE)
    idler = client(machine, IDLER, "web1")
    done = machine.ask("nbdctl", "add", "web1", new, "--replace")
    assert done.returncode == 1 and "another device" in done.stderr
    idler.stdin.write("again\n")
    assert ended(idler) == ["read"]
    machine.wait_for(lambda: machine.ask("nbdctl", "add", "web1", new, "--replace").returncode == 0,
                     "replace without clients")
    assert int(machine.run("nbdinfo", "--size", uri("web1"))) == 2 * SIZE


def test_clearing_the_error_of_what_does_not_run_is_in_the_journal(machine, image):
    device = image("web1")
    machine.run("nbdctl", "add", "web1", device)
    machine.run("nbdinfo", "--size", uri("web1"))
    machine.run("systemctl", "stop", service_of("web1"))
    machine.run("python3", "-c", LATCH, device, "web1")
    assert "disk on fire" in machine.ask("nbdctl", "status").stderr
    machine.run("nbdctl", "clear-error", "web1")
    machine.wait_for(lambda: "cleared by nbdctl" in machine.run("nbdctl", "log", "web1"),
                     "an entry about it")
    assert "disk on fire" in machine.journal(5, "EVENT=flush-cleared", "EXPORT=web1")


def test_debug_is_switched_on_as_the_page_says(machine, export):
    export("web1")
    folder = f"/run/systemd/system/{service_of('web1')}.d"
    machine.run("mkdir", "-p", folder)
    machine.run("sh", "-c", "printf '[Service]\\nEnvironment=NBD_EXPORT_OPTIONS=--debug\\n' "
                f">{folder}/debug.conf")
    machine.run("systemctl", "daemon-reload")
    machine.run("nbdinfo", "--size", uri("web1"))
    command = machine.show(service_of("web1"), "MainPID")
    assert "--debug" in machine.run("sh", "-c", f"tr '\\0' ' ' </proc/{command}/cmdline")
    machine.run("rm", "-r", folder)
    machine.run("systemctl", "daemon-reload")


# What starts and cannot ------------------------------------------------------------


def starts_of(machine, unit):
    """How often systemd has begun to start it, as the journal says."""
    machine.run("journalctl", "--sync")
    return machine.journal("all", f"--unit={unit}").count("Starting ")


def test_an_export_whose_file_was_removed_starts_once_a_client_and_says_why(machine, image):
    machine.run("nbdctl", "add", "gone", image("gone"))
    machine.run("nbdinfo", "--size", uri("gone"))
    machine.run("systemctl", "stop", service_of("gone"))
    machine.remove(f"{EXPORTS}/gone.conf")
    for n in range(2, 5):
        assert machine.ask("nbdinfo", uri("gone")).returncode != 0
        machine.wait_for(lambda: machine.show(service_of("gone"), "ActiveState") == "failed",
                         "the end of the attempt")
        assert starts_of(machine, service_of("gone")) <= n
    assert "gone.conf" in machine.journal(9, "EVENT=client-refused", "EXPORT=gone")
    assert machine.show(socket_of("gone"), "ActiveState") == "active"
    assert machine.show(service_of("gone"), "NRestarts") == "0"
    machine.run("nbdctl", "reload")
    assert machine.show(socket_of("gone"), "ActiveState") == "inactive"


def test_a_condition_that_does_not_hold_costs_the_machine_no_endless_starts(machine, image):
    version = int(machine.run("systemctl", "--version").split()[1])
    if version >= 254:
        pytest.skip(f"systemd {version} has a limit of its own (PollLimitBurst=)")
    machine.run("nbdctl", "add", "web1", image("web1"))
    folder = f"/run/systemd/system/{service_of('web1')}.d"
    machine.run("mkdir", "-p", folder)
    machine.run("sh", "-c", f"printf '[Unit]\\nConditionPathExists=/none\\n' >{folder}/c.conf")
    machine.run("systemctl", "daemon-reload")
    assert machine.ask("nbdinfo", uri("web1")).returncode != 0
    machine.wait_for(lambda: machine.show(socket_of("web1"), "Result") == "trigger-limit-hit",
                     "an end to the starts")
    machine.run("rm", "-r", folder)
    machine.run("nbdctl", "reload")
    assert int(machine.run("nbdinfo", "--size", uri("web1"))) == SIZE
