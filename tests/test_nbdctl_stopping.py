# SPDX-License-Identifier: GPL-2.0-or-later
"""nbdctl: what stops running exports or takes clients from them, with stand-ins for the daemons."""

import fcntl
import json
import os
import socket
import struct
import subprocess

import pytest

from conftest import MIB, needs_root
from nbdctl import ctl, disk, fake, fake_export, short_folder, systemd  # noqa: F401, fixtures
from nbdctl import CLIENT
from nbdwire import PATIENCE


def test_remove_refuses_while_clients_are_connected_and_names_them(ctl, fake_export):
    export = fake_export(*CLIENT)
    said = ctl("remove", "web1", status=1).stderr
    assert "1 client: 192.0.2.1:4711" in said and "--drain" in said
    assert ctl.files() == ["web1.conf"] and export.calls() == ["ListClients"]


def test_remove_names_a_few_of_many_clients(ctl, fake_export):
    fake_export(*CLIENT * 40)
    said = ctl("remove", "web1", status=1).stderr
    assert "40 clients" in said and "..." in said


def test_remove_with_drain_waits_for_it(ctl, fake_export, systemd):
    systemd()
    export = fake_export(*CLIENT)
    ctl("remove", "web1", "--drain")
    assert export.calls() == ["Drain"] and ctl.files() == []


def test_a_drain_that_lasts_too_long_leaves_the_export_as_it_was(ctl, fake_export, systemd):
    manager = systemd()
    export = fake_export("silent:Drain")
    said = ctl("remove", "web1", "--drain=1", status=1).stderr
    assert "not drained after 1 s" in said and ctl.files() == ["web1.conf"]
    assert export.calls() == ["Drain", "Resume"] and manager.calls() == []


def test_a_drain_that_cannot_be_broken_off_is_told(ctl, fake_export, systemd):
    systemd()
    fake_export("silent:Drain", "error:Resume=it is stopping")
    said = ctl("remove", "web1", "--drain=1", status=1).stderr
    assert "goes on draining" in said and "it is stopping" in said and "as it was" not in said
    assert ctl.files() == ["web1.conf"]


def test_a_drain_that_fails_lets_clients_in_again(ctl, fake_export, systemd):
    systemd()
    export = fake_export("error:Drain=drained, but flushing the device failed")
    assert "flushing the device failed" in ctl("remove", "web1", "--drain", status=1).stderr
    assert export.calls() == ["Drain", "Resume"] and ctl.files() == ["web1.conf"]


def test_force_after_a_drain_that_lasts_too_long_removes_it(ctl, fake_export, systemd):
    systemd()
    export = fake_export("silent:Drain")
    assert ctl("remove", "web1", "--drain=1", "--force").stdout.startswith("removed web1")
    assert export.calls() == ["Drain"] and ctl.files() == []


def test_remove_lets_nobody_in_before_it_stops_what_has_no_clients(ctl, fake_export, systemd):
    systemd()
    export = fake_export()
    ctl("remove", "web1")
    assert export.calls() == ["ListClients", "DrainIdle"]


def test_who_comes_in_just_before_a_remove_is_no_more_cut_off_than_others(ctl, fake_export,
                                                                          systemd):
    manager = systemd()
    export = fake_export("busy:DrainIdle=it has 1 client")
    assert "web1: it has 1 client" in ctl("remove", "web1", status=1).stderr
    assert ctl.files() == ["web1.conf"] and manager.calls() == []
    assert export.calls() == ["ListClients", "DrainIdle", "ListClients"]


def test_an_export_whose_file_cannot_be_removed_serves_again(ctl, fake_export, systemd, mounted):
    systemd()
    export = fake_export()
    ctl.exports = mounted("tmpfs")
    ctl.write("web1", "Device=/dev/x")
    subprocess.run(["mount", "-o", "remount,ro", ctl.exports], check=True, timeout=60)
    assert "Read-only" in ctl("remove", "web1", status=1).stderr
    assert export.calls() == ["ListClients", "DrainIdle", "Resume"]


def test_a_removal_that_fails_leaves_drained_what_was_drained_before(ctl, fake_export, systemd,
                                                                     mounted):
    systemd()
    export = fake_export("State=s:drained")
    ctl.exports = mounted("tmpfs")
    ctl.write("web1", "Device=/dev/x")
    subprocess.run(["mount", "-o", "remount,ro", ctl.exports], check=True, timeout=60)
    for how in ([], ["--drain"]):
        assert "Read-only" in ctl("remove", "web1", *how, status=1).stderr
    assert export.calls() == ["ListClients", "DrainIdle", "Drain"]


@pytest.mark.parametrize("rule, words", [("silent:Drain", "not drained after 1 s"),
                                         ("error:Drain=no luck", "no luck")])
def test_who_waits_in_vain_for_the_drain_of_another_does_not_break_it_off(ctl, fake_export, systemd,
                                                                          rule, words):
    systemd()
    export = fake_export("State=s:draining", rule)
    assert words in ctl("remove", "web1", "--drain=1", status=1).stderr
    assert export.calls() == ["Drain"] and ctl.files() == ["web1.conf"]


def test_replace_gives_clients_no_other_device(ctl, fake_export, file_disk, systemd):
    manager = systemd("state:nbd-export@web1.service=active")
    other = file_disk(8 * MIB, name="other")
    export = fake_export(*CLIENT)
    before = ctl.read("web1")
    said = ctl("add", "web1", other, "--replace", status=1).stderr
    assert "another device" in said and "192.0.2.1:4711" in said and "--drain" in said
    assert ctl.read("web1") == before and manager.calls() == []
    assert export.calls() == ["ListClients"]


@pytest.mark.parametrize("how, asked", [("--drain", ["Drain"]), ("--force", [])])
def test_replace_with_another_device_stops_what_runs(ctl, fake_export, file_disk, systemd, how,
                                                     asked):
    manager = systemd("state:nbd-export@web1.service=active")
    other = file_disk(8 * MIB, name="other")
    export = fake_export(*CLIENT)
    done = ctl("add", "web1", other, "--replace", how)
    assert ctl.read("web1") == [f"Device={other}"] and "takes up" not in done.stderr
    assert [c for c in export.calls() if c != "Reload"] == asked
    assert [c for c in manager.calls() if c.split()[0] in ("Reload", "StopUnit", "StartUnit")] == [
        "Reload", "StopUnit nbd-export@web1.service", "StartUnit nbd-export@web1.socket"]


def test_replace_with_another_device_of_one_without_clients_stops_it(ctl, fake_export, file_disk,
                                                                     systemd):
    manager = systemd("state:nbd-export@web1.service=active")
    export = fake_export()
    ctl("add", "web1", file_disk(8 * MIB, name="other"), "--replace")
    assert "StopUnit nbd-export@web1.service" in manager.calls()
    assert [c for c in export.calls() if c != "Reload"] == ["ListClients", "DrainIdle"]


def test_replace_again_makes_up_for_a_stop_that_failed(ctl, fake_export, disk, file_disk, systemd):
    export = fake_export(f"Device=s:{disk}")
    other = file_disk(8 * MIB, name="other")
    ctl.env["NBD_EXPORT_SYSTEMD"] = f"unix:path={ctl.folder}/nobody"
    said = ctl("add", "web1", other, "--replace", status=1).stderr
    assert "daemon-reload; systemctl stop nbd-export@web1.service; systemctl start" in said
    manager = systemd("state:nbd-export@web1.service=active")
    done = ctl("add", "web1", other, "--replace")
    assert "with another device was stopped" in done.stdout
    assert [c for c in manager.calls() if c.split()[0] in ("Reload", "StopUnit", "StartUnit")] == [
        "Reload", "StopUnit nbd-export@web1.service", "StartUnit nbd-export@web1.socket"]
    assert [c for c in export.calls() if c != "Reload"] == ["ListClients", "DrainIdle"] * 2


def test_replace_takes_no_clients_from_what_runs_with_another_device_than_its_file_says(
        ctl, fake_export, disk, systemd):
    manager = systemd("state:nbd-export@web1.service=active")
    export = fake_export("Device=s:/dev/other", *CLIENT)
    path = ctl.write("web1", f"# mine\nDevice={disk}")
    assert "192.0.2.1:4711" in ctl("add", "web1", disk, "--replace", status=1).stderr
    assert manager.calls() == [] and export.calls() == ["ListClients"]
    assert "# mine" in path.read_text()


def test_add_tells_of_what_runs_with_another_device_than_its_file_says(ctl, fake_export, disk,
                                                                      systemd):
    manager = systemd("state:nbd-export@web1.service=active")
    fake_export("Device=s:/dev/other")
    done = ctl("add", "web1", disk)
    assert "there already" in done.stdout and "takes up Device= only" in done.stderr
    assert "StopUnit nbd-export@web1.service" not in manager.calls()


def test_remove_with_force_asks_nobody(ctl, fake_export, systemd):
    systemd()
    export = fake_export(*CLIENT, "silent:ListClients")
    ctl("remove", "web1", "--force")
    assert export.calls() == [] and ctl.files() == []


def test_remove_does_not_say_removed_of_what_goes_on_running(ctl, fake_export):
    fake_export()
    assert "still runs" in ctl("remove", "web1", status=1).stderr


def test_remove_leaves_no_trace_in_the_runtime_folder(ctl, disk, systemd):
    systemd()
    ctl.write("web1", f"Device={disk}")
    folder = ctl.runtime / "instances" / "web1"
    folder.mkdir(parents=True)
    (folder / "control").write_text("")
    assert "no bitmaps" in ctl("remove", "web1", "--purge").stdout
    assert not folder.exists()


def test_remove_leaves_alone_what_it_does_not_know(ctl, disk, systemd):
    systemd()
    ctl.write("web1", f"Device={disk}")
    folder = ctl.runtime / "instances" / "web1"
    folder.mkdir(parents=True)
    (folder / "precious").write_text("")
    assert "cannot remove" in ctl("remove", "web1").stderr
    assert (folder / "precious").exists()


def test_remove_takes_a_bad_file_too(ctl):
    ctl.write("web1", "Nonsense=1")
    ctl("remove", "web1")
    assert ctl.files() == []


def test_kick_and_its_failure_are_told(ctl, fake_export):
    export = fake_export(*CLIENT, *CLIENT)
    assert ctl("kick", "web1", "7").stdout == "kicked client 7 of web1\n"
    assert ctl("kick", "web1", "--all").stdout == "kicked 2 clients of web1\n"
    assert export.calls() == ["Kick 7", "ListClients", "Kick 7", "Kick 7"]
    other = fake_export("error:Kick=there is no connection 9", label="db")
    assert "there is no connection 9" in ctl("kick", "db", "9", status=1).stderr
    assert other.calls() == ["Kick 9"]


def test_replace_of_a_running_export_says_what_waits_for_a_restart(ctl, fake_export, disk):
    export = fake_export("Connections=u:2")
    said = ctl("add", "web1", disk, "--threads=2", "--description=x", "--replace").stderr
    assert "2 clients" in said and "Threads=" in said and "systemctl restart" in said
    assert "Description=" not in said and "Reload" in export.calls()


@pytest.fixture
def held(disk):
    """Somebody has locked the disk, as an export does that writes to it."""
    with open(disk, "r+b") as file:
        for byte in (101, 201):
            fcntl.fcntl(file, fcntl.F_OFD_SETLK,
                        struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0))
        yield


def test_an_export_that_runs_gets_its_lost_file_back(ctl, fake_export, disk, held):
    export = fake_export(f"Device=s:{disk}", *CLIENT)
    (ctl.exports / "web1.conf").unlink()
    ctl("add", "web1", disk, "--description", "found")
    assert ctl.read("web1") == [f"Device={disk}", "Description=found"]
    assert export.calls() == ["Reload"]


def test_what_is_held_by_another_is_refused_also_where_the_file_was_lost(ctl, fake_export, disk,
                                                                         held):
    fake_export("Device=s:/dev/other", *CLIENT)
    (ctl.exports / "web1.conf").unlink()
    assert "has it locked" in ctl("add", "web1", disk, status=1).stderr
    assert ctl.files() == []


def test_what_is_in_use_elsewhere_is_refused_when_it_was_shared_until_now(ctl, fake_export, disk,
                                                                          held):
    export = fake_export(f"Device=s:{disk}", "Shared=b:1", *CLIENT)
    ctl.write("web1", f"Device={disk}\nReadOnly=yes\nShared=yes")
    before = ctl.read("web1")
    for claim in ([], ["--read-only"]):
        assert "has it locked" in ctl("add", "web1", disk, *claim, "--replace", status=1).stderr
    assert ctl.read("web1") == before and export.calls() == []


@pytest.mark.parametrize("runs, becomes", [("Shared=b:1", ["--read-only", "--shared"]),
                                           ("Shared=b:0", [])])
def test_what_the_running_export_holds_itself_is_not_in_use(ctl, fake_export, disk, held, runs,
                                                           becomes):
    fake_export(f"Device=s:{disk}", runs, *CLIENT)
    ctl("add", "web1", disk, *becomes, "--description", "new", "--replace")


def test_clients_of_a_lost_file_get_no_other_device(ctl, fake_export, disk):
    fake_export("Device=s:/dev/other", *CLIENT)
    (ctl.exports / "web1.conf").unlink()
    assert "another device" in ctl("add", "web1", disk, status=1).stderr
    assert ctl.files() == []


def test_clear_error_tells_what_it_cleared(ctl, fake_export):
    fake_export("answer:ClearError=disk on fire")
    assert "disk on fire" in ctl("clear-error", "web1").stdout


def test_clear_error_of_what_does_not_run_removes_what_was_remembered(ctl, disk):
    ctl.write("web1", f"Device={disk}")
    assert "no flush has failed" in ctl("clear-error", "web1", status=1).stderr
    path = ctl.latch(disk, "disk on \x1b[31mfire at 4\n")
    said = ctl("clear-error", "web1").stdout
    assert "disk on" in said and "fire at 4" in said and "\x1b" not in said
    assert not path.exists()


def test_clear_error_waits_for_nothing_that_stands_in_the_place_of_a_note(ctl, disk):
    """The folder is the service's, which may be anybody by then."""
    ctl.write("web1", f"Device={disk}")
    path = ctl.latch(disk, None)
    os.mkfifo(path)
    assert "cleared" in ctl("clear-error", "web1").stdout
    assert not path.exists()


def test_remove_keeps_the_note_of_a_failed_flush(ctl, disk, systemd):
    systemd()
    ctl("add", "web1", disk)
    path = ctl.latch(disk, "disk on fire")
    ctl("remove", "web1")
    assert path.exists()
    ctl("add", "other", disk)
    assert ctl.json("show", "other")[0]["flush-failed"] == "disk on fire"


def test_a_socket_that_one_may_not_connect_to_is_told(ctl, fake_export):
    needs_root()
    fake_export()
    for path in (ctl.folder, ctl.exports, ctl.runtime):
        path.chmod(0o755)
    (ctl.runtime / "instances").chmod(0o755)
    (ctl.runtime / "instances" / "web1").chmod(0o700)
    nobody = {"user": 65534, "group": 65534, "extra_groups": []}
    assert "Permission denied" in ctl("drain", "web1", status=1, **nobody).stderr
    (row,) = json.loads(ctl("list", "--json", **nobody).stdout)["exports"]
    assert row["state"] == "unknown" and row["clients"] is None


def test_bytes_that_are_no_dbus_are_a_failure_not_a_hang(ctl, disk):
    ctl.write("web1", f"Device={disk}")
    path = ctl.runtime / "instances" / "web1" / "control"
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(8)
        child = ctl.start("drain", "web1")
        conn, _ = listener.accept()
        conn.sendall(b"HTTP/1.0 400 What?\r\n\r\n" * 100)
        conn.close()
        _, said = child.communicate(timeout=PATIENCE)
    assert child.returncode == 1 and said.startswith("nbdctl: ")
