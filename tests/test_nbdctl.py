# SPDX-License-Identifier: GPL-2.0-or-later
"""nbdctl: command lines, add, and what systemd is asked to do, with a stand-in for systemd."""

import contextlib
import fcntl
import os
import pathlib
import re
import select
import subprocess

import pytest

from conftest import MIB, fill, needs_program, needs_root
from nbdctl import (CLIENT, ctl, disk, fake, fake_export, served,  # noqa: F401, fixtures
                    short_folder, systemd)
from nbdwire import PATIENCE

VERBS = ("add", "remove", "list", "show", "status", "clients", "kick", "drain", "resume",
         "clear-error", "check", "reload", "log", "serve")
LISTING = ("list", "show web1", "status", "clients", "check")
OF_A_LABEL = ("remove", "show", "kick --all", "drain", "resume", "clear-error", "log", "clients")


# The command line


def test_help_lists_every_verb_with_a_line_of_its_own(ctl):
    said = subprocess.run([ctl.program, "--help"], capture_output=True, text=True, timeout=60)
    listed = re.findall(r"^  ([a-z-]+) +\S", said.stdout, re.M)
    assert said.returncode == 0 and set(VERBS) <= set(listed)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(ctl, verb):
    done = subprocess.run([ctl.program, verb, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith(f"Usage: nbdctl {verb} [OPTION...]")
    assert "Exit status" in done.stdout and max(map(len, done.stdout.splitlines())) <= 90


@pytest.mark.parametrize("verb", LISTING)
def test_help_of_a_listing_verb_explains_its_columns_and_table_options(ctl, verb):
    verb = verb.split()[0]
    text = subprocess.run([ctl.program, verb, "--help"], capture_output=True, text=True,
                          timeout=60).stdout
    assert "Columns" in text
    assert all(option in text for option in ("--json", "-o, --output", "--noheadings"))


@pytest.mark.parametrize("words", [
    ["add"], ["add", "web1"], ["add", "web1", "/dev/x", "y"], ["add", "../x", "/dev/x"],
    ["add", "", "/dev/x"], ["add", ".x", "/dev/x"], ["add", "a b", "/dev/x"],
    ["add", "x" * 65, "/dev/x"], ["add", "w", "/dev/x", "--threads"],
    ["add", "w", "/dev/x", "--threads=x"], ["add", "w", "/dev/x", "--memory=lots"],
    ["add", "w", "/dev/x", "--allow=10.0.0.0/33"], ["add", "w", "/dev/x", "--allow="],
    ["add", "w", "/dev/x", "--engine=steam"], ["add", "w", "/dev/x", "--direct=maybe"],
    ["add", "w", "/dev/x", "--shared"], ["add", "w", "/dev/x", "--nonsense"],
    ["add", "w", "/dev/x", "--read-only=yes"],
    ["add", "--", "-x", "/dev/x"],
    ["remove"], ["remove", "a", "b"], ["remove", "../a"], ["remove", "a", "--drain=soon"],
    ["remove", "a", "--drain=0"],
    ["show"], ["show", "a/b"], ["list", "web1"], ["list", "--output=SIZE,WEIGHT"],
    ["list", "-o", ""], ["clients", "a", "b"], ["clients", "../a"], ["kick", "web1"],
    ["kick", "web1", "one"], ["kick", "web1", "-1"], ["kick", "web1", "1", "--all"],
    ["drain"], ["resume"], ["clear-error"], ["clear-error", "../.."], ["log"], ["log", "a/b"],
    ["log", "a", "-n", "few"], ["log", "a", "-n"], ["reload", "web1"], ["status", "web1"],
    ["nonsense"],
])
def test_a_wrong_command_line_is_status_2_with_a_sentence_and_changes_nothing(ctl, words):
    done = ctl(words[0], *words[1:], status=2)
    assert done.stdout == "" and ctl.files() == []


@pytest.mark.parametrize("options, key", [
    (["--memory=1M"], "Memory"), (["--threads=65"], "Threads"), (["--threads=0"], "Threads"),
    (["--max-connections=0"], "MaxConnections"), (["--name="], "Name"),
    (["--name=a\nb"], "Name"), (["--description=\udcff"], "Description"),
    (["--name", "x" * 4097], "Name"), (["--description= x"], "Description"),
])
def test_a_value_that_no_file_can_have_is_refused_by_its_key_or_option(ctl, disk, options, key):
    done = ctl("add", "web1", disk, *options, status=2)
    assert f"{key}=" in done.stderr or options[0].split("=")[0] in done.stderr
    assert ctl.files() == []


def test_every_verb_of_a_label_says_that_there_is_none(ctl):
    for verb in OF_A_LABEL:
        if verb != "log":
            done = ctl(verb, "web1", status=1)
            assert "there is no export web1" in done.stderr, verb


@pytest.mark.parametrize("verb", ["drain", "resume", "kick --all"])
def test_a_verb_for_what_runs_says_that_it_does_not_run(ctl, disk, verb):
    ctl.write("web1", f"Device={disk}")
    assert "web1 does not run" in ctl(verb, "web1", status=1).stderr


def test_output_that_cannot_be_written_is_status_1(ctl, disk):
    ctl.write("web1", f"Device={disk}")
    with open("/dev/full", "w") as full:
        done = subprocess.run(ctl.command("list"), stdout=full, stderr=subprocess.PIPE, text=True,
                              timeout=60, env=ctl.env)
    assert done.returncode == 1 and "standard output" in done.stderr


# add


def test_add_writes_the_file_that_a_person_would_write(ctl, disk):
    done = ctl("add", "web1", disk)
    assert done.stdout.startswith(f"added web1: {disk}, read-write\n")
    assert ctl.files() == ["web1.conf"] and ctl.read("web1") == [f"Device={disk}"]
    assert (ctl.exports / "web1.conf").stat().st_mode & 0o777 == 0o644


def test_add_writes_every_option_as_its_key(ctl, disk):
    ctl("add", "web1", disk, "--name", "disks/Straße 1", "--description", "root disk",
        "--read-only", "--shared", "--default", "--start-at-boot", "--idle-timeout=60",
        "--resize-reconnect", "--max-connections=3", "--max-connections-per-source=2",
        "--single-writer", "--memory=128M", "--threads=2", "--engine=threads", "--direct=no",
        "--allow", "10.0.0.0/8", "--allow", "[2001:db8::]/32:read", "--tls=require",
        "--identity", "read dns:*.example.org", "--identity", "write dn:CN=a b,O=c")
    assert set(ctl.read("web1")) == {
        f"Device={disk}", "Name=disks/Straße 1", "Description=root disk", "ReadOnly=yes",
        "Shared=yes", "Default=yes", "StartAtBoot=yes", "IdleTimeout=60", "MaxConnections=3",
        "MaxConnectionsPerSource=2", "SingleWriter=yes", f"Memory={128 * MIB}", "Threads=2",
        "Engine=threads", "ResizeReconnect=yes", "Direct=no", "Allow=10.0.0.0/8 [2001:db8::]/32:read",
        "TLS=require", "Identity=read dns:*.example.org", "Identity=write dn:CN=a b,O=c"}
    (row,) = ctl.json("show", "web1")
    assert row["tls"] == "require" and row["resize-reconnect"] is True
    assert row["identity"] == ["read dns:*.example.org", "write dn:CN=a b,O=c"]


@pytest.mark.parametrize("name", ["two words", "a/b/c", "über", "磁盘", "\\x41", "50%", '"'])
def test_a_name_with_spaces_slashes_or_utf8_comes_back_as_it_was(ctl, disk, name):
    ctl("add", "web1", disk, "--name", name)
    (row,) = ctl.json("list")
    assert row["name"] == name
    for locale in ("C", "C.UTF-8"):
        assert name.replace("\\", "\\x5c") in ctl("list", env={"LC_ALL": locale}).stdout


def test_add_takes_a_relative_path_from_where_it_is(ctl, disk):
    ctl("add", "web1", disk.name, cwd=disk.parent)
    assert ctl.read("web1") == [f"Device={disk}"]


def test_add_takes_back_what_a_path_goes_up(ctl, disk):
    folder = disk.parent / "sub"
    folder.mkdir()
    ctl("add", "web1", f"{folder}/./..//{disk.name}")
    assert ctl.read("web1") == [f"Device={disk}"]


def test_above_a_link_is_where_the_kernel_says_that_it_is(ctl, disk, tmp_path):
    folder = disk.parent / "sub"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    ctl("add", "web1", f"{tmp_path}/link/../{disk.name}")
    assert ctl.read("web1") == [f"Device={disk}"]


def test_the_last_part_of_a_path_may_be_a_link_and_stays_one(ctl, disk, tmp_path):
    (tmp_path / "link").symlink_to(disk)
    ctl("add", "web1", f"{tmp_path}/../{tmp_path.name}/link")
    assert ctl.read("web1") == [f"Device={tmp_path}/link"]


def test_a_file_with_a_path_that_goes_up_is_bad(ctl, disk):
    ctl.write("web1", f"Device={disk.parent}/../{disk.parent.name}/{disk.name}")
    said = ctl("check", status=1).stdout
    assert "Device=" in said and ".." in said


def test_a_unit_cannot_have_a_block_device_by_a_link_from_elsewhere(ctl, loop_disk, systemd,
                                                                    tmp_path):
    systemd()
    device = loop_disk(MIB)
    link = tmp_path / "link"
    link.symlink_to(device)
    said = ctl("add", "web1", link, status=1).stderr
    assert "not beneath /dev" in said and f"use {device}" in said and ctl.files() == []
    ctl.write("web1", f"Device={link}")
    assert f"use {device}" in ctl("check", status=1).stdout


def test_a_unit_cannot_have_a_file_beneath_dev(ctl, disk, systemd):
    needs_root()
    systemd()
    link = pathlib.Path("/dev/shm") / f"nbd-export-test-{os.getpid()}"
    link.symlink_to(disk)
    try:
        said = ctl("add", "web1", link, status=1).stderr
        assert "regular file, but beneath /dev" in said and f"use {disk}" in said
        ctl.write("web1", f"Device={link}")
        assert f"use {disk}" in ctl("check", status=1).stdout
    finally:
        link.unlink()
    link.write_bytes(b"x" * MIB)
    try:
        assert "put it elsewhere" in ctl("check", status=1).stdout
    finally:
        link.unlink()


def test_what_a_killed_writer_has_left_goes_with_the_next_change(ctl, disk):
    for name in (".web1.conf.new", ".db.conf.new"):
        (ctl.exports / name).write_text("[Export]\nDev")
    ctl("add", "web1", disk)
    assert ctl.files() == ["web1.conf"]


def test_a_new_name_is_on_the_disk_before_add_says_so(ctl, disk):
    strace = needs_program("strace")
    done = subprocess.run([strace, "-f", "-y", "-e", "trace=rename,renameat,renameat2,fsync",
                           *ctl.command("add", "web1", disk)], capture_output=True, text=True,
                          timeout=60, check=True, env=dict(ctl.env, ASAN_OPTIONS="detect_leaks=0"))
    calls = [line for line in done.stderr.splitlines() if str(ctl.exports) in line]
    named = next(n for n, line in enumerate(calls) if "rename" in line)
    assert any("fsync" in line for line in calls[:named])
    assert any("fsync" in line and f"<{ctl.exports}>" in line for line in calls[named:])


def test_adding_the_same_again_says_so_and_leaves_the_file_alone(ctl, disk):
    path = ctl.write("web1", f"# mine\nDevice={disk}")
    before = path.read_text(), path.stat().st_ino
    assert "is there already, with these settings" in ctl("add", "web1", disk).stdout
    assert (path.read_text(), path.stat().st_ino) == before


def test_adding_with_other_settings_is_refused_and_tells_the_difference(ctl, disk):
    ctl("add", "web1", disk, "--description=old")
    said = ctl("add", "web1", disk, "--description=new", "--read-only", status=1).stderr
    assert "Description=new, not old" in said and "ReadOnly=yes, not no" in said
    assert "--replace" in said and "Description=old" in ctl.read("web1")


def test_replace_gives_these_settings_and_no_others(ctl, disk):
    ctl("add", "web1", disk, "--description=old", "--threads=2")
    done = ctl("add", "web1", disk, "--read-only", "--replace")
    assert done.stdout.startswith("changed web1: ") and "ReadOnly=yes, not no" in done.stdout
    assert ctl.read("web1") == [f"Device={disk}", "ReadOnly=yes"]


def test_replace_of_a_new_export_adds_it(ctl, disk):
    assert ctl("add", "web1", disk, "--replace").stdout.startswith("added web1")


def test_a_bad_file_is_only_overwritten_by_replace(ctl, disk):
    ctl.write("web1", "Devce=/dev/x")
    assert "Devce=" in ctl("add", "web1", disk, status=1).stderr
    ctl("add", "web1", disk, "--replace")
    assert ctl.read("web1") == [f"Device={disk}"]


@pytest.mark.parametrize("options, words", [
    (["--name=shop"], 'the name "shop" is that of the export db'),
    (["--default"], "the export db answers to the empty name"),
])
def test_what_only_one_export_can_have_is_refused_to_a_second(ctl, file_disk, options, words):
    ctl("add", "db", file_disk(MIB, name="a"), "--name=shop", "--default")
    done = ctl("add", "web1", file_disk(MIB, name="b"), *options, status=1)
    assert words in done.stderr and ctl.files() == ["db.conf"]


def test_a_device_that_another_export_has_is_refused(ctl, disk, tmp_path):
    ctl("add", "db", disk)
    link = tmp_path / "link"
    link.symlink_to(disk)
    assert "the export db has it" in ctl("add", "web1", link, status=1).stderr


def test_a_file_that_both_only_read_may_be_exported_twice(ctl, disk):
    ctl("add", "db", disk, "--read-only")
    ctl("add", "web1", disk, "--read-only")


@pytest.mark.parametrize("device, words", [
    ("/nonexistent", "/nonexistent"), ("/tmp", "directory"),
    ("/dev/null", "neither a block device"),
])
def test_a_device_that_cannot_be_served_is_refused_in_words(ctl, device, words):
    done = ctl("add", "web1", device, status=1)
    assert words in done.stderr and "nbd-export[" not in done.stderr and ctl.files() == []


def test_a_mounted_device_is_refused_with_the_place(ctl, mounted, loop_disk):
    needs_program("mkfs.ext4")
    device = loop_disk(32 * MIB)
    folder = mounted("ext4", device=device)
    done = ctl("add", "web1", device, status=1)
    assert "in use" in done.stderr and str(folder) in done.stderr and ctl.files() == []
    ctl("add", "web1", device, "--read-only", "--shared")


def test_a_file_that_a_running_export_has_is_refused(ctl, served, disk):
    server, _ = served()
    path = next(path for path in disk.parent.iterdir() if path.name == "one")
    assert "in use" in ctl("add", "web9", path, status=1).stderr
    assert server.child.poll() is None


def test_the_check_leaves_nothing_behind(ctl, disk):
    def trials():
        return {p for d in ("/run", "/tmp") for p in pathlib.Path(d).glob("nbdctl-check-*")}

    before = trials()
    ctl("add", "web1", disk)
    ctl("add", "web2", "/nonexistent", status=1)
    assert trials() <= before


def test_a_check_that_is_killed_is_told(ctl, disk, tmp_path):
    program = tmp_path / "nbd-export"
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o755)
    done = ctl("add", "web1", disk, env={"NBD_EXPORT_PROGRAMS": str(tmp_path)}, status=1)
    assert "SIGKILL" in done.stderr and ctl.files() == []


def test_the_folder_is_made_if_it_is_not_there(ctl, disk):
    ctl.exports = ctl.folder / "new" / "exports.d"
    ctl("add", "web1", disk)
    assert ctl.files() == ["web1.conf"]


def test_add_from_a_folder_of_no_units_says_that_nothing_was_started(ctl, disk):
    assert "none was started" in ctl("add", "web1", disk).stdout


# Races


def test_two_administrators_who_add_different_exports_both_win(ctl, file_disk, counts):
    for n in range(counts(5, 50)):
        disks = [file_disk(MIB, name=f"{n}-{i}") for i in range(4)]
        children = [ctl.start("add", f"w{n}-{i}", d) for i, d in enumerate(disks)]
        ends = [(child.communicate(timeout=PATIENCE), child.returncode) for child in children]
        assert [status for _, status in ends] == [0] * 4, ends
    assert len(ctl.files()) == 4 * (n + 1)


def test_of_two_who_add_one_label_differently_one_wins(ctl, file_disk, counts):
    for n in range(counts(5, 50)):
        disks = [file_disk(MIB, name=f"{n}-{i}") for i in range(2)]
        children = [ctl.start("add", f"w{n}", d) for d in disks]
        ends = [(child.communicate(timeout=PATIENCE), child.returncode) for child in children]
        statuses = [status for _, status in ends]
        assert sorted(statuses) == [0, 1], ends
        assert "other settings" in ends[statuses.index(1)][0][1]
        assert ctl.read(f"w{n}") == [f"Device={disks[statuses.index(0)]}"]
        assert ctl.files() == [f"w{i}.conf" for i in range(n + 1)] or n > 9


def test_of_two_who_add_one_device_one_wins(ctl, disk):
    children = [ctl.start("add", label, disk) for label in ("a", "b")]
    ends = [(child.communicate(timeout=PATIENCE), child.returncode) for child in children]
    assert sorted(status for _, status in ends) == [0, 1] and len(ctl.files()) == 1


def test_who_waits_for_another_is_told_so(ctl, disk):
    lock = hold_lock(ctl)
    child = ctl.start("add", "web1", disk)
    assert select.select([child.stderr], [], [], PATIENCE)[0]
    assert "waiting for another nbdctl" in child.stderr.readline()
    assert ctl.files() == []
    os.close(lock)
    child.communicate(timeout=PATIENCE)
    assert child.returncode == 0 and ctl.files() == ["web1.conf"]


def test_who_waits_gives_up_after_a_time_and_tells_of_what(ctl, disk):
    lock = hold_lock(ctl)
    done = ctl("add", "web1", disk, status=1, env={"NBD_EXPORT_LOCK_PATIENCE": "1"})
    assert "another nbdctl keeps changing" in done.stderr and ".lock" in done.stderr
    assert ctl.files() == []
    os.close(lock)


def test_nobody_else_can_hold_the_lock(ctl, disk, systemd):
    """Any user may open, and so lock, a folder that he can read."""
    folder = os.open(ctl.exports, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    ctl("add", "web1", disk)
    systemd()
    ctl("remove", "web1")
    os.close(folder)
    for lock in (ctl.exports / ".lock", ctl.runtime / "nbdctl.lock"):
        assert lock.stat().st_mode & 0o777 == 0o600


def hold_lock(ctl):
    lock = os.open(ctl.exports / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


# A folder that takes no more


def fill_up(folder):
    ballast = os.open(folder / "ballast", os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while True:
            os.write(ballast, b"x" * 4096)
    os.close(ballast)


def test_a_full_folder_gets_no_half_of_a_file(ctl, disk, mounted):
    ctl.exports = mounted("tmpfs", size=64 << 10)
    fill_up(ctl.exports)
    before = ctl.files()
    done = ctl("add", "web1", disk, "--description", "x" * 4000, status=1)
    assert "No space left" in done.stderr and str(ctl.exports) in done.stderr
    assert ctl.files() == before


def test_a_full_folder_keeps_the_old_file_at_replace(ctl, disk, mounted):
    ctl.exports = mounted("tmpfs", size=64 << 10)
    ctl("add", "web1", disk, "--description=old")
    fill_up(ctl.exports)
    ctl("add", "web1", disk, "--description", "x" * 4000, "--replace", status=1)
    assert ctl.read("web1") == [f"Device={disk}", "Description=old"]
    ctl("remove", "web1")
    assert ctl.files() == ["ballast"]


def test_a_read_only_folder_is_told_and_stays_as_it_is(ctl, disk, mounted, systemd):
    ctl.exports = mounted("tmpfs")
    ctl.write("db", f"Device={disk}")
    subprocess.run(["mount", "-o", "remount,ro", ctl.exports], check=True, timeout=60)
    manager = systemd()
    other = fill(disk.parent / "other", MIB)
    for words in (["add", "web1", other], ["remove", "db"]):
        done = ctl(*words, status=1)
        assert "Read-only file system" in done.stderr and str(ctl.exports) in done.stderr
    assert ctl.files() == ["db.conf"] and manager.calls() == []


def test_a_folder_that_one_may_not_write_to_is_told(ctl, disk):
    needs_root()
    ctl.folder.chmod(0o755)
    disk.parent.chmod(0o755)
    disk.chmod(0o666)
    done = ctl("add", "web1", disk, status=1, user=65534, group=65534, extra_groups=[])
    assert "Permission denied" in done.stderr and ctl.files() == []


# systemd


def test_add_reloads_systemd_and_starts_the_socket(ctl, disk, systemd):
    manager = systemd("state:nbd-negotiator.socket=active")
    done = ctl("add", "web1", disk)
    assert done.stdout == f"added web1: {disk}, read-write\n" and done.stderr == ""
    assert [c for c in manager.calls() if c != "Subscribe"] == [
        "Reload", "StartUnit nbd-export@web1.socket", "LoadUnit nbd-negotiator.socket"]


def test_add_says_so_when_nobody_listens_for_clients(ctl, disk, systemd):
    systemd()
    assert "systemctl enable --now nbd-negotiator.socket" in ctl("add", "web1", disk).stderr


def test_an_export_that_starts_at_boot_starts_now_too(ctl, disk, systemd):
    manager = systemd()
    ctl("add", "web1", disk, "--start-at-boot")
    calls = manager.calls()
    assert "StartUnit nbd-export@web1.socket" in calls
    assert "StartUnit nbd-export@web1.service" in calls


@pytest.mark.parametrize("result, words", [
    ("dependency", "device's unit"), ("failed", '"failed"'), ("timeout", '"timeout"')])
def test_a_job_that_fails_is_told_and_the_file_stays(ctl, disk, systemd, result, words):
    systemd(f"job:nbd-export@web1.socket={result}")
    done = ctl("add", "web1", disk, status=1)
    assert "is written, but" in done.stderr and words in done.stderr
    assert "nbd-export@web1.socket" in done.stderr and ctl.files() == ["web1.conf"]


def test_what_systemd_refuses_is_told_in_its_words(ctl, disk, systemd):
    systemd("error:StartUnit=Unit is masked.")
    assert "Unit is masked." in ctl("add", "web1", disk, status=1).stderr


def test_adding_again_makes_up_for_a_start_that_failed(ctl, disk, systemd):
    systemd("error:StartUnit=Not today.")
    ctl("add", "web1", disk, status=1)
    assert "is there, but" in ctl("add", "web1", disk, status=1).stderr
    ctl.folder.joinpath("systemd").unlink()
    manager = systemd()
    ctl("add", "web1", disk)
    assert "StartUnit nbd-export@web1.socket" in manager.calls()


def test_without_systemd_add_says_what_is_left_to_do(ctl, disk):
    ctl.env["NBD_EXPORT_SYSTEMD"] = f"unix:path={ctl.folder}/nobody"
    done = ctl("add", "web1", disk, status=1)
    assert "is written" in done.stderr and "systemctl daemon-reload" in done.stderr
    assert "systemctl start nbd-export@web1.socket" in done.stderr and ctl.files() == ["web1.conf"]


def test_without_systemd_remove_says_what_is_left_to_do(ctl, disk):
    ctl.write("web1", f"Device={disk}")
    ctl.env["NBD_EXPORT_SYSTEMD"] = f"unix:path={ctl.folder}/nobody"
    done = ctl("remove", "web1", status=1)
    assert "systemctl stop nbd-export@web1.socket" in done.stderr and ctl.files() == []


def test_remove_stops_the_units_and_reloads_systemd(ctl, disk, systemd):
    ctl.write("web1", f"Device={disk}")
    manager = systemd("state:nbd-export@web1.socket=active", "state:nbd-export@web1.service=active")
    assert ctl("remove", "web1").stdout == "removed web1\n"
    wanted = ("StopUnit", "Reload", "ResetFailedUnit")
    calls = [c for c in manager.calls() if c.split()[0] in wanted]
    assert calls == ["StopUnit nbd-export@web1.socket", "StopUnit nbd-export@web1.service",
                     "ResetFailedUnit nbd-export@web1.socket",
                     "ResetFailedUnit nbd-export@web1.service", "Reload"]


def test_remove_stops_no_unit_that_is_not_active(ctl, disk, systemd):
    ctl.write("web1", f"Device={disk}")
    manager = systemd()
    ctl("remove", "web1")
    assert not [c for c in manager.calls() if c.startswith("StopUnit")]


def test_reload_starts_what_was_written_by_hand(ctl, disk, systemd, fake):
    ctl.write("db", f"Device={disk}")
    ctl.write("web1", f"Device={disk}\nName=x\nStartAtBoot=yes")
    manager = systemd()
    negotiator = fake(ctl.runtime / "negotiator" / "control")
    assert "reloaded 2 exports" in ctl("reload").stdout
    calls = [c for c in manager.calls() if c.split()[0] in ("Reload", "StartUnit")]
    assert calls == ["Reload", "StartUnit nbd-export@db.socket", "StartUnit nbd-export@web1.socket",
                     "StartUnit nbd-export@web1.service"]
    assert negotiator.calls() == ["Reload"]


@pytest.mark.parametrize("state, started", [("inactive", False), ("failed", True)])
def test_reload_starts_no_service_that_was_stopped_but_one_that_failed(ctl, disk, systemd, state,
                                                                       started):
    ctl.write("web1", f"Device={disk}\nStartAtBoot=yes")
    manager = systemd("state:nbd-export@web1.socket=active",
                      f"state:nbd-export@web1.service={state}")
    ctl("reload")
    calls = manager.calls()
    assert "StartUnit nbd-export@web1.socket" in calls
    assert ("StartUnit nbd-export@web1.service" in calls) == started


def test_reload_goes_on_after_one_that_does_not_start(ctl, disk, systemd):
    ctl.write("a", f"Device={disk}")
    ctl.write("b", f"Device={disk}\nName=x")
    manager = systemd("job:nbd-export@a.socket=failed")
    done = ctl("reload", status=1)
    assert "nbd-export@a.socket" in done.stderr
    assert "StartUnit nbd-export@b.socket" in manager.calls()


def test_reload_waits_for_no_device_that_is_not_there(ctl, systemd):
    """Its unit's job would take a minute and a half; the device starts the socket when it comes."""
    ctl.write("a", "Device=/dev/nbd-export/none\nStartAtBoot=yes")
    manager = systemd("job:nbd-export@a.socket=never", "job:nbd-export@a.service=never")
    done = ctl("reload")
    assert "reloaded 1 export" in done.stdout and "/dev/nbd-export/none" in done.stderr
    # systemd starts it with the device; a job for it would time out, by nobody's fault.
    assert [call for call in manager.calls() if call.startswith("StartUnit")] == []


def test_reload_stops_what_has_no_file_any_more(ctl, disk, systemd):
    ctl.write("web1", f"Device={disk}")
    ctl.write("bad", "Nonsense=1")
    manager = systemd(*(f"state:nbd-export@{unit}=active" for unit in (
        "web1.socket", "bad.socket", "gone.socket", "gone.service")),
        "state:nbd-export@idle.service=inactive", "state:nbd-other@x.socket=active")
    (ctl.runtime / "instances" / "gone").mkdir(parents=True)
    done = ctl("reload", status=1)
    assert "stopped gone" in done.stdout and "Nonsense" in done.stderr
    assert [c for c in manager.calls() if c.startswith("StopUnit")] == [
        "StopUnit nbd-export@gone.socket", "StopUnit nbd-export@gone.service"]
    assert not (ctl.runtime / "instances" / "gone").exists()


def test_reload_stops_what_has_no_file_also_when_another_does_not_start(ctl, disk, systemd):
    ctl.write("a", f"Device={disk}")
    manager = systemd("job:nbd-export@a.socket=failed", "state:nbd-export@gone.socket=active")
    done = ctl("reload", status=1)
    assert "stopped gone" in done.stdout and "1 export could not be reloaded" in done.stderr
    assert "StopUnit nbd-export@gone.socket" in manager.calls()


def test_reload_tells_what_did_not_start_and_what_did_not_stop(ctl, disk, systemd):
    ctl.write("a", f"Device={disk}")
    systemd("job:nbd-export@a.socket=failed", "job:nbd-export@gone.socket=failed",
            "state:nbd-export@gone.socket=active")
    said = ctl("reload", status=1).stderr
    assert "gone has no file any more" in said and "1 export could not be reloaded" in said


def test_reload_that_reaches_no_systemd_says_so_once(ctl, disk):
    ctl.write("a", f"Device={disk}")
    ctl.env["NBD_EXPORT_SYSTEMD"] = f"unix:path={ctl.folder}/nobody"
    assert ctl("reload", status=1).stderr.count("cannot reach systemd") == 1


def test_reload_goes_on_with_what_has_clients_and_names_it(ctl, fake_export, systemd):
    export = fake_export(*CLIENT, label="gone")
    (ctl.exports / "gone.conf").unlink()
    manager = systemd("state:nbd-export@gone.socket=active", "state:nbd-export@gone.service=active")
    said = ctl("reload", status=1).stderr
    assert "gone has no file any more" in said and "192.0.2.1:4711" in said
    assert "nbdctl remove gone" in said
    assert export.calls() == ["ListClients"]
    assert not [c for c in manager.calls() if c.startswith("StopUnit")]


def test_remove_forgets_what_was_set_for_the_units(ctl, disk, systemd):
    """Or the next export of that label would have it: systemctl set-property, edit."""
    ctl.write("web1", f"Device={disk}")
    path = "/etc/systemd/system.control/nbd-export@web1.service.d/50-CPUQuota.conf"
    manager = systemd(f"reverted:nbd-export@web1.service={path}")
    assert path in ctl("remove", "web1").stderr
    calls = [c for c in manager.calls() if c.split()[0] in ("RevertUnitFiles", "Reload")]
    assert calls == ["RevertUnitFiles"] * 2 + ["Reload"]


def test_remove_names_what_it_could_not_forget(ctl, disk, systemd):
    ctl.write("web1", f"Device={disk}")
    systemd("error:RevertUnitFiles=Read-only file system")
    assert "systemctl revert nbd-export@web1.service" in ctl("remove", "web1").stderr


def test_remove_again_makes_up_for_a_stop_that_failed(ctl, disk, systemd):
    ctl.write("web1", f"Device={disk}")
    active = "state:nbd-export@web1.socket=active"
    systemd(active, "error:StopUnit=Not today.")
    assert "Not today." in ctl("remove", "web1", status=1).stderr
    assert ctl.files() == []
    ctl.folder.joinpath("systemd").unlink()
    manager = systemd(active)
    assert ctl("remove", "web1").stdout == "removed web1\n"
    assert "StopUnit nbd-export@web1.socket" in manager.calls()


def test_remove_of_nothing_but_a_folder_clears_it(ctl, systemd):
    systemd("state:nbd-export@web1.socket=inactive")
    folder = ctl.runtime / "instances" / "web1"
    folder.mkdir(parents=True)
    ctl("remove", "web1")
    assert not folder.exists()
    assert "there is no export web1" in ctl("remove", "web1", status=1).stderr


def test_reload_names_a_bad_file_and_does_the_rest(ctl, disk):
    ctl.write("a", f"Device={disk}")
    ctl.write("b", "Nonsense=1")
    done = ctl("reload", status=1)
    assert "Nonsense=" in done.stderr and "reloaded 1 export\n" in done.stdout
