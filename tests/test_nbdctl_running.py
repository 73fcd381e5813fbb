# SPDX-License-Identifier: GPL-2.0-or-later
"""nbdctl: what looks at exports, with stand-ins for the daemons."""

import json
import os
import pathlib
import re
import resource
import signal
import subprocess
import time

import pytest

from conftest import MIB, PATIENCE
from nbdctl import ctl, disk, fake, fake_export, short_folder, systemd  # noqa: F401, fixtures
from nbdctl import ATTENTION, CLIENT

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


def test_what_failed_to_start_is_failed_and_says_why(ctl, disk, systemd):
    """systemd has tried, and no client is to be needed to find out."""
    ctl.write("web1", f"Device={disk}")
    ctl.write("calm", f"Device={disk}\nName=other")
    systemd("state:nbd-export@web1.service=failed", "state:nbd-export@web1.socket=active",
            f"status:nbd-export@web1.service=cannot open {disk}: Permission denied",
            "state:nbd-export@calm.socket=active")
    rows = {row["label"]: row for row in ctl.json("list", "-o", "+reason")}
    assert rows["web1"]["state"] == "failed"
    assert rows["web1"]["reason"] == f"cannot open {disk}: Permission denied"
    assert rows["calm"]["state"] == "inactive" and rows["calm"]["reason"] is None
    problems, said = ctl.problems()
    assert problems == ["web1"] and "Permission denied" in said
    assert ctl.json("show", "web1")[0]["state"] == "failed"


def test_what_no_client_can_reach_says_so(ctl, disk, systemd):
    ctl.write("web1", f"Device={disk}")
    systemd()
    (row,) = ctl.json("list", "-o", "+reason")
    assert row["state"] == "inactive"
    assert "systemctl start nbd-export@web1.socket" in row["reason"]
    problems, said = ctl.problems()
    assert problems == ["web1"] and "systemctl start nbd-export@web1.socket" in said


def test_that_nobody_listens_for_clients_needs_attention(ctl, disk, systemd):
    ctl.write("web1", f"Device={disk}")
    systemd("state:nbd-export@web1.socket=active")
    problems, said = ctl.problems()
    assert problems == [] and "systemctl enable --now nbd-negotiator.socket" in said


@pytest.mark.parametrize("rules, told", [
    (["=failed"], "nbd-negotiator.service has failed"),
    (["=activating", "restarts:nbd-negotiator.service=2"], "is started again and again"),
])
def test_a_negotiator_that_does_not_start_needs_attention(ctl, disk, systemd, rules, told):
    """Its socket goes on listening all the while."""
    ctl.write("web1", f"Device={disk}")
    state, *more = rules
    systemd("state:nbd-export@web1.socket=active", "state:nbd-negotiator.socket=active",
            f"state:nbd-negotiator.service{state}", *more,
            "status:nbd-negotiator.service=cannot start: no room")
    problems, said = ctl.problems()
    assert problems == [] and "nobody can connect" in said
    assert told in said and "cannot start: no room" in said and said.count("\n") == 1


@pytest.mark.parametrize("state", ["inactive", "activating"])
def test_a_negotiator_that_waits_for_its_first_client_or_just_starts_is_calm(ctl, systemd, state):
    systemd("state:nbd-negotiator.socket=active", f"state:nbd-negotiator.service={state}",
            "restarts:nbd-negotiator.service=0")
    assert ctl("status").stderr == ""


def test_a_negotiator_that_answers_is_calm_however_often_it_was_started(ctl, systemd, fake):
    fake(ctl.runtime / "negotiator" / "control", "Handshakes=u:3")
    systemd("state:nbd-negotiator.socket=active", "state:nbd-negotiator.service=activating",
            "restarts:nbd-negotiator.service=7")
    assert ctl("status").stderr == ""


def test_what_can_be_reached_and_waits_for_its_first_client_is_calm(ctl, disk, systemd):
    ctl.write("web1", f"Device={disk}")
    systemd("state:nbd-export@web1.socket=active", "state:nbd-negotiator.socket=active")
    assert ctl.json("status")[0]["problems"] == []


@pytest.mark.parametrize("times", [0, 1, 7])
def test_what_is_started_again_and_again_is_a_problem(ctl, disk, systemd, times):
    ctl.write("web1", f"Device={disk}")
    systemd("state:nbd-export@web1.service=activating", f"restarts:nbd-export@web1.service={times}",
            "state:nbd-export@web1.socket=active", "state:nbd-negotiator.socket=active")
    (row,) = ctl.json("list", "-o", "+reason")
    assert row["state"] == "starting"
    if times == 0:
        assert row["reason"] is None and ctl.json("status")[0]["problems"] == []
    else:
        assert f"ended {times} time" in row["reason"]
        problems, said = ctl.problems()
        assert problems == ["web1"] and row["reason"] in said


def test_what_runs_without_a_file_is_listed_with_its_clients_and_is_a_problem(ctl, fake_export):
    fake_export("Name=s:shop", "Device=s:/dev/shop", "Connections=u:1", *CLIENT)
    fake_export("Name=s:calm", label="calm")
    (ctl.exports / "web1.conf").unlink()
    rows = {row["label"]: row for row in ctl.json("list", "-o", "+reason")}
    assert rows["calm"]["state"] == "serving"
    assert rows["web1"]["state"] == "no-file" and "nbdctl remove web1" in rows["web1"]["reason"]
    assert (rows["web1"]["name"], rows["web1"]["device"], rows["web1"]["clients"]) == \
        ("shop", "/dev/shop", 1)
    assert [row["export"] for row in ctl.json("clients")] == ["web1"]
    problems, said = ctl.problems()
    assert problems == ["web1"] and "web1: no-file: it runs, but has no file" in said
    (row,) = ctl.json("status", status=ATTENTION)
    assert (row["exports"], row["running"], row["clients"]) == (1, 2, 1)


def test_what_clients_can_start_without_a_file_is_listed_and_is_a_problem(ctl, systemd):
    systemd("state:nbd-export@gone.socket=active", "state:nbd-export@old.socket=inactive",
            "state:nbd-negotiator.socket=active")
    (ctl.runtime / "instances" / "left").mkdir(parents=True)        # of one that has ended
    (row,) = ctl.json("list", "-o", "+reason")
    assert (row["label"], row["state"], row["clients"]) == ("gone", "no-file", 0)
    problems, said = ctl.problems()
    assert problems == ["gone"] and "clients may start it, but has no file" in said


def test_list_needs_no_systemd(ctl, disk):
    ctl.write("web1", f"Device={disk}")
    ctl.env["NBD_EXPORT_SYSTEMD"] = f"unix:path={ctl.folder}/nobody"
    assert ctl.json("list")[0]["state"] == "inactive"


def test_the_failed_flush_of_what_does_not_run_is_seen(ctl, disk):
    ctl.write("web1", f"Device={disk}")
    ctl.latch(disk, "disk on fire\n")
    assert ctl.json("show", "web1")[0]["flush-failed"] == "disk on fire"
    problems, said = ctl.problems()
    assert problems == ["web1"] and "disk on fire" in said and "clear-error" in said


def test_status_is_a_summary_with_a_line_for_each_problem(ctl, fake_export, fake):
    fake_export("FlushFailed=s:disk on fire", "Connections=u:2", "BytesRead=t:1048576")
    ctl.write("bad", "Nonsense=1")
    fake(ctl.runtime / "negotiator" / "control", "Handshakes=u:3", "Clients=u:2", "Refused=t:4",
         "Since=t:1700000000000000")
    done = ctl("status", status=ATTENTION)
    assert "disk on fire" in done.stderr and "clear-error" in done.stderr
    assert "Nonsense" in done.stderr and "1 MiB" in done.stdout
    (row,) = ctl.json("status", status=ATTENTION)
    assert row["negotiator"] == "running" and row["handshakes"] == 3 and row["refused"] == 4
    assert row["problems"] == ["web1"] and row["clients"] == 2 and row["bad-files"] == 1


def test_status_of_nothing_is_calm(ctl):
    done = ctl("status")
    assert done.stderr == "" and "inactive" in done.stdout
    assert ctl.json("status")[0]["problems"] == []


def test_every_label_with_a_problem_is_whole_however_many_there_are(ctl, disk, systemd):
    labels = [f"export-with-a-long-label-{i:02}" + "x" * 37 for i in range(60)]
    for label in labels:
        ctl.write(label, f"Device={disk}\nReadOnly=yes\nShared=yes")
    systemd("state:nbd-negotiator.socket=active")
    problems, said = ctl.problems()
    assert problems == labels and said.count("clients cannot reach it") == len(labels)


def test_an_export_that_does_not_answer_keeps_no_other_from_being_listed(ctl, fake_export):
    fake_export("silent:GetAll", label="mute")
    fake_export("Name=s:shop")
    rows = {row["label"]: row for row in ctl.json("list", "-o", "+reason")}
    assert rows["mute"]["state"] == "no-answer" and "does not answer" in rows["mute"]["reason"]
    assert rows["web1"]["state"] == "serving"


@pytest.mark.parametrize("verb", ["list", "status", "clients"])
def test_many_that_do_not_answer_take_no_longer_than_one_and_hide_nobody(ctl, fake_export, fake,
                                                                         verb):
    silent = [f"mute{i}" for i in range(4)]
    for label in silent:
        fake_export("silent:GetAll", "silent:ListClients", label=label)
    stopped = fake_export(label="stopped")
    stopped.child.send_signal(signal.SIGSTOP)
    negotiator = fake(ctl.runtime / "negotiator" / "control")
    negotiator.child.send_signal(signal.SIGSTOP)
    fake_export("Connections=u:1", *CLIENT)
    began = time.monotonic()
    done = ctl(verb, "--json", status={"list": 0, "status": ATTENTION, "clients": 1}[verb])
    assert time.monotonic() - began < 12     # one after the other: 15
    (rows,) = json.loads(done.stdout).values()
    if verb == "list":
        assert {row["label"]: row["state"] for row in rows} == dict.fromkeys(
            [*silent, "stopped"], "no-answer") | {"web1": "serving"}
    elif verb == "status":
        assert rows[0]["negotiator"] == "no-answer" and rows[0]["clients"] == 1
        assert sorted(rows[0]["problems"]) == [*silent, "stopped"] and rows[0]["running"] == 1
    else:
        assert [(row["export"], row["connection"]) for row in rows] == [("web1", 7)]
    for label in [*silent, "stopped"] if verb != "list" else []:
        assert f"{label} does not answer" in done.stderr


def test_a_call_of_one_that_is_stopped_ends_with_a_sentence(ctl, fake_export):
    fake_export().child.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert "no answer" in ctl("kick", "web1", "7", status=1).stderr
    assert ctl.json("show", "web1")[0]["state"] == "no-answer"
    assert time.monotonic() - began < 25


def test_more_exports_are_asked_at_once_than_a_process_may_have_open_by_default(ctl, fake_export):
    """Each takes a descriptor, and the soft limit is for programs that use select(2)."""
    for i in range(40):
        fake_export(label=f"web{i}")
    rows = json.loads(ctl("list", "--json", preexec_fn=few_descriptors).stdout)["exports"]
    assert [row["state"] for row in rows] == ["serving"] * 40


def few_descriptors():
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 4096))


def test_clients_shows_all_about_each(ctl, fake_export):
    fake_export(*CLIENT, "client", "client:Connection=t:8", "client:Peer=s:unix:pid=1,uid=0")
    first, second = ctl.json("clients", "web1")
    assert first == {"export": "web1", "connection": 7, "address": "192.0.2.1:4711",
                     "since": "2023-11-14T22:13:20Z", "mode": "extended",
                     "tls": "TLS1.3 TLS_AES_128_GCM_SHA256", "identity": "dn:CN=alice",
                     "contexts": ["base:allocation", "other"], "requests": 12, "read": MIB,
                     "written": 0, "in-flight": 3, "memory": 256 << 10}
    assert second["connection"] == 8 and second["contexts"] == []
    assert second["tls"] is None and second["identity"] is None
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


@pytest.mark.parametrize("name, shown", [
    (b"\xff", "\ufffd"), (b"a\xe2\x82", "a\ufffd\ufffd"), (b"tab\t\x01", "tab\t\x01"),
    ("é".encode() * 80, "é" * 80)], ids=["no-utf8", "half-a-character", "controls", "long"])
@pytest.mark.parametrize("folder", ["é" * 100, "a" + "é" * 100], ids=["even", "odd"])
def test_names_of_files_that_are_no_text_do_not_spoil_json(ctl, name, shown, folder):
    """Of a long path a sentence has a part, which begins or ends where it may."""
    ctl.exports = ctl.folder / folder
    ctl.exports.mkdir()
    pathlib.Path(os.fsdecode(os.fsencode(ctl.exports) + b"/" + name + b".conf")).touch()
    done = subprocess.run(ctl.command("check", "--json", "-o", "+FILE"), env=ctl.env, check=False,
                          capture_output=True, timeout=PATIENCE)
    (row,) = json.loads(done.stdout.decode())["files"]
    assert row["file"] == f"{ctl.exports}/{shown}.conf"
    assert row["result"] == "bad" and row["problem"]


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
