# SPDX-License-Identifier: GPL-2.0-or-later
"""nbdctl: what looks at exports and what changes running ones, with stand-ins for the daemons and
with a running `nbdctl serve`; and the journal."""

import calendar
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

import pytest

from conftest import MIB, needs_root, wait_until
from nbdctl import (CLIENT, Ctl, ctl, disk, fake, fake_export,  # noqa: F401, fixtures
                    served, short_folder, systemd)
from nbdwire import EXTENDED, PATIENCE, SIMPLE

LISTING = ("list", "show web1", "status", "clients", "check")


# list, show, status, clients, check


def test_no_exports_are_an_empty_list(ctl):
    assert ctl("list").stdout == "" and ctl.json("list") == []
    ctl.exports.rmdir()
    assert ctl.json("list") == [] and ctl.json("clients") == []


def test_list_shows_what_does_not_run_from_its_file(ctl, disk):
    ctl.write("web1", f"Device={disk}\nName=shop\nReadOnly=yes")
    ctl.write("gone", "Device=/nonexistent")
    rows = {row["label"]: row for row in ctl.json("list")}
    assert rows["web1"] == {"label": "web1", "name": "shop", "device": str(disk),
                            "size": 8 * MIB, "mode": "ro", "state": "inactive", "clients": 0}
    assert rows["gone"]["state"] == "no-device" and rows["gone"]["size"] is None
    table = ctl("list").stdout.splitlines()
    assert table[0].split() == ["LABEL", "NAME", "DEVICE", "SIZE", "MODE", "STATE", "CLIENTS"]
    assert "8 MiB" in table[2] and "inactive" in table[2]


def test_list_shows_the_size_of_a_block_device_without_opening_it(ctl, loop_disk):
    ctl.write("web1", f"Device={loop_disk(8 * MIB)}")
    assert ctl.json("list")[0]["size"] == 8 * MIB


def test_list_has_a_row_for_a_bad_file_and_says_what_is_wrong(ctl):
    ctl.write("web1", "Nonsense=1")
    done = ctl("list", "--json", "-o", "label,state,reason")
    ((row,),) = json.loads(done.stdout).values()
    assert row["state"] == "bad-file" and "Nonsense" in row["reason"] and "Nonsense" in done.stderr


def test_columns_are_chosen_and_added_and_headings_left_out(ctl, disk):
    ctl.write("web1", f"Device={disk}")
    assert ctl("list", "-o", "state,LABEL").stdout == "STATE    LABEL\ninactive web1\n"
    assert ctl("list", "--noheadings", "--output=label").stdout == "web1\n"
    assert ctl("list", "-o+reason").stdout.splitlines()[0].endswith("CLIENTS REASON")
    assert [list(row) for row in ctl.json("list", "-olabel,size")] == [["label", "size"]]


@pytest.mark.parametrize("verb", LISTING)
def test_every_listing_verb_takes_all_its_columns_in_both_forms(ctl, verb, fake_export):
    fake_export("Connections=u:1", *CLIENT)
    text = ctl(verb.split()[0], "--help").stdout.split("Columns")[1]
    columns = re.findall(r"^  ([A-Z-]+) ", text, re.M)
    assert columns
    everything = ",".join(columns)
    rows = ctl.json(verb, "-o", everything)
    assert list(rows[0]) == [column.lower() for column in columns]
    assert all(column in ctl(verb, "-o", everything).stdout for column in columns)
    assert "LABEL" not in ctl(verb.replace("show web1", "list"), "--noheadings").stdout


def test_show_tells_the_settings_of_what_does_not_run(ctl, disk):
    path = ctl.write("web1", f"Device={disk}\nThreads=2\nAllow=any")
    (row,) = ctl.json("show", "web1")
    assert row["file"] == str(path) and row["threads"] == 2 and row["memory"] == 128 * MIB
    assert row["allow"] == "any" and row["state"] == "inactive" and row["sector"] is None
    lines = dict(line.split(maxsplit=1) for line in ctl("show", "web1").stdout.splitlines())
    assert lines["THREADS"] == "2" and lines["SIZE"] == "8 MiB" and lines["SECTOR"] == "-"
    assert "FLUSH" in lines["DURABILITY"]


def test_show_of_a_bad_file_is_its_fault(ctl):
    ctl.write("web1", "Nonsense=1")
    assert "Nonsense" in ctl("show", "web1", status=1).stderr


def test_show_tells_a_failed_flush_and_what_is_stuck(ctl, fake_export):
    fake_export("FlushFailed=s:disk on fire", "StuckSince=t:1700000000000000",
                "StateReason=s:because", "WriteCache=b:1")
    (row,) = ctl.json("show", "web1")
    assert row["flush-failed"] == "disk on fire" and row["stuck-since"] == "2023-11-14T22:13:20Z"
    assert row["reason"] == "because" and row["write-cache"] is True


def test_the_durability_of_a_block_device_is_what_the_kernel_says(ctl, loop_disk):
    device = loop_disk(8 * MIB)
    cache = pathlib.Path(f"/sys/block/{device.name}/queue/write_cache").read_text().strip()
    ctl.write("web1", f"Device={device}")
    words = ctl.json("show", "web1")[0]["durability"]
    assert words.startswith("volatile" if cache == "write back" else "no volatile")


def test_status_is_a_summary_with_a_line_for_each_problem(ctl, fake_export, fake):
    fake_export("FlushFailed=s:disk on fire", "Connections=u:2", "BytesRead=t:1048576")
    ctl.write("bad", "Nonsense=1")
    fake(ctl.runtime / "negotiator" / "control", "Handshakes=u:3", "Clients=u:2", "Refused=t:4",
         "Since=t:1700000000000000")
    done = ctl("status")
    assert "disk on fire" in done.stderr and "clear-error" in done.stderr
    assert "Nonsense" in done.stderr and "1 MiB" in done.stdout
    (row,) = ctl.json("status")
    assert row["negotiator"] == "running" and row["handshakes"] == 3 and row["refused"] == 4
    assert row["problems"] == ["web1"] and row["clients"] == 2 and row["bad-files"] == 1


def test_status_of_nothing_is_calm(ctl):
    done = ctl("status")
    assert done.stderr == "" and "inactive" in done.stdout
    assert ctl.json("status")[0]["problems"] == []


def test_an_export_that_does_not_answer_keeps_no_other_from_being_listed(ctl, fake_export):
    fake_export("silent:GetAll", label="mute")
    fake_export("Name=s:shop")
    rows = {row["label"]: row for row in ctl.json("list", "-o", "+reason")}
    assert rows["mute"]["state"] == "no-answer" and "does not answer" in rows["mute"]["reason"]
    assert rows["web1"]["state"] == "serving"


def test_clients_shows_all_about_each(ctl, fake_export):
    fake_export(*CLIENT, "client", "client:Connection=t:8", "client:Peer=s:unix:pid=1,uid=0")
    first, second = ctl.json("clients", "web1")
    assert first == {"export": "web1", "connection": 7, "address": "192.0.2.1:4711",
                     "since": "2023-11-14T22:13:20Z", "mode": "extended",
                     "contexts": ["base:allocation", "other"], "requests": 12, "read": MIB,
                     "written": 0, "in-flight": 3, "memory": 256 << 10}
    assert second["connection"] == 8 and second["contexts"] == []
    assert "base:allocation,other" in ctl("clients").stdout


def test_check_finds_every_bad_file_and_touches_nothing(ctl, disk, loop_disk):
    device = loop_disk(MIB)
    ctl.write("good", f"Device={device}")
    ctl.write("absent", "Device=/nonexistent")
    ctl.write("typo", "Devce=/dev/x")
    ctl.write("twin", f"Device={disk}\nName=good")
    ctl.write("folder", "Device=/tmp")
    ctl.write("shared", f"Device={disk}\nShared=yes")
    (ctl.exports / "a b.conf").write_text(f"[Export]\nDevice={disk}\n")
    done = ctl("check", "--json", status=1)
    rows = json.loads(done.stdout)["files"]
    assert {row["label"]: row["result"] for row in rows} == {
        "good": "good", "absent": "no-device", "typo": "bad", "twin": "bad", "folder": "bad",
        "shared": "bad", "-": "bad"}
    assert "5 files are bad" in done.stderr


def test_check_of_a_device_that_two_exports_want_names_the_other(ctl, disk):
    ctl.write("a", f"Device={disk}")
    ctl.write("b", f"Device={disk}")
    assert "the export b has it" in ctl("check", "a", status=1).stdout


def test_check_of_some_labels_looks_at_those(ctl, disk):
    ctl.write("good", f"Device={disk}")
    ctl.write("typo", "Devce=/dev/x")
    assert "typo" not in ctl("check", "good").stdout
    ctl("check", "typo", "good", status=1)
    assert "there is no such export" in ctl("check", "none", status=1).stdout


# remove, kick, drain, clear-error with stand-ins


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
    (folder / "flush-failed-x").write_text("bad\n")
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


def test_clear_error_tells_what_it_cleared(ctl, fake_export):
    fake_export("answer:ClearError=disk on fire")
    assert "disk on fire" in ctl("clear-error", "web1").stdout


def test_clear_error_of_what_does_not_run_removes_what_was_remembered(ctl, disk):
    ctl.write("web1", f"Device={disk}")
    assert "no flush has failed" in ctl("clear-error", "web1", status=1).stderr
    folder = ctl.runtime / "instances" / "web1"
    folder.mkdir(parents=True)
    (folder / "flush-failed-x").write_text("disk on fire at 4\n")
    assert "disk on fire" in ctl("clear-error", "web1").stdout
    assert list(folder.iterdir()) == []


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


# The real daemons, by `nbdctl serve`


def test_list_show_and_status_tell_of_what_serves(served):
    server, ctl = served()
    with server.client("web1") as client:
        client.write(0, b"x" * 4096)
        rows = {row["label"]: row for row in ctl.json("list", "-o", "+written,since")}
        assert rows["web1"]["state"] == "serving" and rows["web1"]["clients"] == 1
        assert rows["web1"]["written"] == 4096 and rows["db"]["clients"] == 0
        (shown,) = ctl.json("show", "web1")
        assert shown["sector"] and shown["engine"] in ("io_uring", "threads")
        assert shown["clients"] == 1 and shown["written"] == 4096
        (status,) = ctl.json("status")
    assert status["negotiator"] == "running" and status["running"] == 2 and status["clients"] == 1


@pytest.mark.parametrize("mode, word", [(SIMPLE, "simple"), (EXTENDED, "extended")])
def test_clients_tells_of_real_ones(served, mode, word):
    server, ctl = served()
    with server.client("db", mode=mode):
        (row,) = ctl.json("clients")
    assert row["export"] == "db" and row["mode"] == word and row["address"].startswith("unix:")
    since = calendar.timegm(time.strptime(row["since"], "%Y-%m-%dT%H:%M:%SZ"))
    assert abs(since - time.time()) < 60


def test_a_kicked_client_is_gone_and_may_come_again(served):
    server, ctl = served()
    client = server.client("web1")
    (row,) = ctl.json("clients", "web1")
    ctl("kick", "web1", str(row["connection"]))
    with pytest.raises((EOFError, OSError, AssertionError)):
        client.read(0, 512)
    wait_until(lambda: ctl.json("clients") == [], "the client to be gone")
    server.client("web1").read(0, 512)


def test_drain_closes_clients_and_resume_lets_them_in(served):
    server, ctl = served()
    server.client("web1")
    assert "drained web1" in ctl("drain", "web1").stdout
    assert {row["label"]: row["state"] for row in ctl.json("list")} == {"web1": "drained",
                                                                        "db": "serving"}
    with pytest.raises(Exception):
        server.client("web1")
    server.client("db").read(0, 512)
    assert "serves again" in ctl("resume", "web1").stdout
    server.client("web1").read(0, 512)


def test_reload_is_heard_by_all(served):
    server, ctl = served()
    with server.client("web1") as client:
        ctl("reload")
        client.read(0, 512)
    server.wait_for_log("nbd-negotiator: settings were read again")


def test_add_and_remove_are_not_for_serve(served, disk):
    _, ctl = served()
    for words in (["add", "new", disk], ["remove", "web1"]):
        done = subprocess.run([ctl.program, *words], capture_output=True, text=True, timeout=60,
                              env=dict(ctl.env, NBD_EXPORT_RUNTIME=str(ctl.runtime)))
        assert done.returncode == 1 and "serves what it was started with" in done.stderr


def test_the_environment_tells_where_serve_is(served):
    _, ctl = served()
    done = subprocess.run([ctl.program, "list", "--noheadings", "-olabel,state"], text=True,
                          env=dict(ctl.env, NBD_EXPORT_RUNTIME=str(ctl.runtime)),
                          capture_output=True, timeout=60)
    assert done.stdout.split() == ["db", "serving", "web1", "serving"]


def test_an_idle_export_of_serve_ends_and_comes_back_with_its_next_client(serve, programs, disk,
                                                                         short_folder):
    folder = short_folder / "conf"
    folder.mkdir()
    (folder / "web1.conf").write_text(f"[Export]\nDevice={disk}\nIdleTimeout=1\n")
    server = serve(config=folder)
    server.lossy = True
    ctl = Ctl(programs.nbdctl, short_folder)
    (ctl.runtime,) = server.runtime.iterdir()
    ctl.exports = ctl.runtime / "exports"
    for _ in range(2):
        server.client("web1").close()
        wait_until(lambda: server.pids("nbd-export") == [], "the export to end")
        assert ctl.json("list")[0]["state"] == "inactive"
    server.client("web1").read(0, 512)
    assert ctl.json("list")[0]["state"] == "serving"
    assert "exit code" not in server.log()


# log


def test_log_says_that_there_is_nothing(ctl, tmp_path):
    done = ctl("log", "web1", "-D", tmp_path)
    assert done.stdout == "" and "no entry about web1" in done.stderr


def test_log_of_a_folder_that_is_not_there_is_status_1(ctl):
    assert "journal" in ctl("log", "web1", "-D", "/nonexistent", status=1).stderr


def journal_entries():
    """For systemd-journal-remote, in its export format."""
    base = 1700000000000000
    texts = [
        ("_SYSTEMD_UNIT=nbd-export@web1.service", "first of web1"),
        ("_SYSTEMD_UNIT=nbd-export@db.service", "of another"),
        ("_SYSTEMD_UNIT=nbd-negotiator.service\nEXPORT=web1", "refused by the negotiator"),
        ("_SYSTEMD_UNIT=nbd-negotiator.service\nEXPORT=db", "of another again"),
        ("_SYSTEMD_UNIT=liar.service\nEXPORT=web1", "a lie"),
        ("_SYSTEMD_UNIT=init.scope\n_PID=1\nUNIT=nbd-export@web1.socket", "Listening on web1"),
        ("_SYSTEMD_UNIT=nbd-export@web1.service", "last of web1"),
    ]
    return "".join(
        f"__REALTIME_TIMESTAMP={base + i * 1000000}\n__MONOTONIC_TIMESTAMP={1000000 * (i + 1)}\n"
        f"_BOOT_ID={'0123456789abcdef' * 2}\n_HOSTNAME=box\nSYSLOG_IDENTIFIER=nbd\n"
        f"{fields}\nMESSAGE={text}\n" + ("" if "_PID" in fields else "_PID=42\n") + "\n"
        for i, (fields, text) in enumerate(texts))


@pytest.fixture
def journal(tmp_path):
    remote = "/lib/systemd/systemd-journal-remote"
    if not os.access(remote, os.X_OK):
        pytest.skip("systemd-journal-remote is not installed")
    subprocess.run([remote, "-o", tmp_path / "x.journal", "-"], input=journal_entries().encode(),
                   check=True, capture_output=True, timeout=60)
    return tmp_path


def test_log_prints_what_is_about_the_export_as_journalctl_does(ctl, journal):
    lines = ctl("log", "web1", "-D", journal, env={"TZ": "UTC"}).stdout.splitlines()
    assert [line.split(": ", 1)[1] for line in lines] == [
        "first of web1", "refused by the negotiator", "Listening on web1", "last of web1"]
    assert lines[0] == "Nov 14 22:13:20 box nbd[42]: first of web1"


@pytest.mark.parametrize("n, expected", [(0, 0), (1, 1), (3, 3), (4, 4), (100, 4)])
def test_log_prints_the_last_lines(ctl, journal, n, expected):
    lines = ctl("log", "web1", "-D", journal, "-n", str(n)).stdout.splitlines()
    assert len(lines) == expected
    assert not lines or lines[-1].endswith("last of web1")


def test_log_follows_until_it_is_interrupted(ctl, journal):
    child = ctl.start("log -f", "web1", "-D", journal)
    for text in ("first of web1", "refused", "Listening", "last of web1"):
        assert text in child.stdout.readline()
    assert child.poll() is None
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=PATIENCE)
