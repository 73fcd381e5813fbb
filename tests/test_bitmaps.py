# SPDX-License-Identifier: GPL-2.0-or-later
"""Dirty bitmaps as an administrator commands them: nbdctl bitmap and nbdctl checkpoint with a running
`nbdctl serve`, and what clients see of it."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading

import pytest

from conftest import MIB, needs_program, needs_root, run, wait_until
from nbdctl import Ctl, ctl, disk, fake, fake_export, short_folder, systemd  # noqa: F401, fixtures
from nbdwire import PATIENCE

nbd = pytest.importorskip("nbd", reason="libnbd's Python binding is not installed")

KIB64 = 64 << 10
DOCS = pathlib.Path(__file__).resolve().parent.parent / "docs/dirty-tracking.md"
NOBODY = 65534


class Bitmaps:
    """A running `nbdctl serve` of "web1" and "db", and nbdctl for it."""

    def __init__(self, serve, program, disks, folder, **options):
        self.disks = disks
        self.kept = folder / "kept"
        self.server = serve(*(f"{label}={disk}" for label, disk in disks.items()),
                            env={"STATE_DIRECTORY": str(self.kept)}, **options)
        (private,) = self.server.runtime.iterdir()
        self.ctl = Ctl(program, folder)
        self.ctl.runtime, self.ctl.exports = private, private / "exports"

    def __call__(self, verb, *words, **how):
        return self.ctl(verb, *words, **how)

    def list(self, label="web1"):
        return {row["name"]: row for row in self.ctl.json("bitmap list", label, "-o",
                                                          "+created,checkpoint,percent")}

    def extents(self, name, label="web1"):
        return pairs(self.ctl.json("bitmap show", label, name, "--extents"))

    def delta(self, *words):
        return pairs(self.ctl.json("checkpoint delta", *words))

    def uri(self, label):
        return f"nbd+unix:///{label}?socket={self.server.socket}"

    def write(self, at, length=4096, label="web1"):
        with self.server.client(label) as client:
            client.write(at, b"x" * length)


def pairs(rows):
    return [(row["start"], row["length"]) for row in rows]


@pytest.fixture
def bitmaps(serve, programs, file_disk, short_folder):
    """bitmaps(**options of serve) → Bitmaps, on disks of 8 and 16 MiB."""
    disks = {"web1": file_disk(8 * MIB, name="one"), "db": file_disk(16 * MIB, name="two")}
    return lambda **options: Bitmaps(serve, programs.nbdctl, disks, short_folder, **options)


@pytest.fixture
def select(cleanup):
    """select(bitmaps, label, name, ...) → libnbd's handle that has selected these bitmaps."""

    def connect(b, label, *names):
        client = nbd.NBD()
        for name in names:
            client.add_meta_context(f"qemu:dirty-bitmap:{name}")
        client.connect_uri(b.uri(label))
        cleanup.callback(close, client)
        assert all(client.can_meta_context(f"qemu:dirty-bitmap:{name}") for name in names)
        return client

    def close(client):
        with contextlib.suppress(nbd.Error):
            client.shutdown()

    return connect


def dirty(client, name):
    """[(start, length)] that a client is told."""
    found = []

    def note(context, offset, entries, _error):
        if context == f"qemu:dirty-bitmap:{name}":
            for length, flags in zip(entries[::2], entries[1::2]):
                if flags & 1:
                    found.append((offset, length))
                offset += length

    client.block_status(client.get_size(), 0, note)
    return found


# add, list, show


def test_a_bitmap_records_what_clients_write(bitmaps):
    b = bitmaps()
    assert b.list() == {}
    b.write(0)
    assert "added bitmap daily of web1" in b("bitmap add", "web1", "daily").stdout
    b.write(MIB)
    b.write(MIB + KIB64 - 1, 2)
    row = b.list()["daily"]
    assert row["state"] == "recording" and row["dirty"] == 2 * KIB64 and row["size"] == 8 * MIB
    assert row["granularity"] == KIB64 and row["clients"] == 0 and row["checkpoint"] is False
    assert row["percent"] == 1 and row["reason"] is None
    assert b.extents("daily") == [(MIB, 2 * KIB64)]
    assert "daily" in b("bitmap list").stdout and b.list("db") == {}


def test_show_has_all_about_one_bitmap_upright(bitmaps):
    b = bitmaps()
    b("bitmap add", "web1", "daily")
    lines = dict(line.split(maxsplit=1) for line in
                 b("bitmap show", "web1", "daily").stdout.splitlines())
    assert lines["STATE"] == "recording" and lines["GRANULARITY"] == "64 KiB"
    (row,) = b.ctl.json("bitmap show", "web1", "daily")
    assert row["name"] == "daily" and row["export"] == "web1"
    assert b.ctl.json("bitmap show", "web1", "daily", "--extents") == []


def test_several_bitmaps_are_added_at_once_and_listed_in_that_order(bitmaps):
    b = bitmaps()
    b("bitmap add", "web1", "a", "b", "c")
    assert list(b.list()) == ["a", "b", "c"]


def test_a_granularity_is_given_with_the_first_bitmap_and_holds_for_all(bitmaps):
    b = bitmaps()
    b("bitmap add", "web1", "daily", "--granularity", "4K")
    b.write(5000, 1)
    assert b.extents("daily") == [(4096, 4096)]
    b("bitmap add", "web1", "weekly")
    assert b.list()["weekly"]["granularity"] == 4096
    assert "granularity" in b("bitmap add", "web1", "x", "--granularity", "64K", status=1).stderr
    assert "power of two" in b("bitmap add", "web1", "x", "--granularity", "5K", status=2).stderr


def test_bitmaps_are_there_again_after_a_restart(bitmaps):
    b = bitmaps()
    b("bitmap add", "web1", "daily")
    b.write(MIB)
    before = b.list()["daily"]
    b.server.stop()
    b = bitmaps()
    assert b.list()["daily"] | {"since": 0} == before | {"since": 0}
    assert b.list("db") == {}
    assert not (b.kept / "db").exists(), "made only when it is needed"
    assert os.stat(b.kept / "web1").st_mode & 0o7777 == 0o700


def test_bitmaps_of_the_settings_are_made(serve, programs, file_disk, short_folder):
    folder = short_folder / "conf"
    folder.mkdir()
    store = short_folder / "elsewhere"
    (folder / "web1.conf").write_text(
        f"[Export]\nDevice={file_disk(8 * MIB)}\nBitmap=daily weekly\nBitmapStore={store}\n"
        "BitmapGranularity=128K\n")
    server = serve(config=folder)
    (private,) = server.runtime.iterdir()
    ctl = Ctl(programs.nbdctl, short_folder)
    ctl.runtime, ctl.exports = private, private / "exports"
    rows = ctl.json("bitmap list", "web1")
    assert [row["name"] for row in rows] == ["daily", "weekly"]
    assert rows[0]["granularity"] == 128 << 10 and store.is_file()
    (shown,) = ctl.json("show", "web1")
    assert shown["bitmaps"] == ["daily", "weekly"] and shown["bitmap-store"] == str(store)


def test_labels_with_a_colon_have_bitmaps_of_their_own(serve, programs, file_disk, short_folder):
    labels = ["a", "a:b", "a:b:c", "a:", ":", ":a"]
    conf = short_folder / "conf"
    conf.mkdir()
    for i, label in enumerate(labels):
        (conf / f"{label}.conf").write_text(
            f"[Export]\nDevice={file_disk(MIB, name=f'disk{i}')}\nBitmap=b{i}\n")
    kept = short_folder / "kept"
    server = serve(config=conf, env={"STATE_DIRECTORY": str(kept)})
    (private,) = server.runtime.iterdir()
    ctl = Ctl(programs.nbdctl, short_folder)
    ctl.runtime, ctl.exports = private, private / "exports"
    for i, label in enumerate(labels):
        assert [row["name"] for row in ctl.json("bitmap list", label)] == [f"b{i}"], label
    assert sorted(path.parent.name for path in kept.glob("*/bitmaps")) == sorted(labels)
    ctl("checkpoint create", "c0", ",".join(labels))


# The states, by disable, enable and clear


def test_a_disabled_bitmap_keeps_what_it_has_and_a_write_meanwhile_is_a_gap(bitmaps):
    b = bitmaps()
    b("bitmap add", "web1", "daily")
    b.write(0)
    b("bitmap disable", "web1", "daily")
    assert b.list()["daily"]["state"] == "disabled"
    assert b.extents("daily") == [(0, KIB64)]
    b("bitmap enable", "web1", "daily")
    assert b.list()["daily"]["state"] == "recording" and b.extents("daily") == [(0, KIB64)]
    b("bitmap disable", "web1", "daily")
    b.write(MIB)
    b("bitmap enable", "web1", "daily")
    row = b.list()["daily"]
    assert row["state"] == "gap" and row["reason"] and row["dirty"] == 8 * MIB
    b("bitmap clear", "web1", "daily")
    row = b.list()["daily"]
    assert row["state"] == "recording" and row["dirty"] == 0


def test_status_names_the_bitmaps_that_have_lost_track(bitmaps):
    b = bitmaps()
    b("bitmap add", "web1", "daily")
    assert b("status").stderr == ""
    b("bitmap disable", "web1", "daily")
    b.write(MIB)
    problems, said = b.ctl.problems()
    assert problems == ["web1"]
    assert "web1: all of the device counts as changed in the bitmaps daily (gap)" in said
    b("bitmap clear", "web1", "daily")
    assert b("status").stderr == ""


def test_a_bitmap_may_begin_disabled(bitmaps):
    b = bitmaps()
    b("bitmap add", "web1", "later", "--disabled")
    assert b.list()["later"]["state"] == "disabled" and b.list()["later"]["dirty"] == 0


def test_rename_remove_and_merge(bitmaps):
    b = bitmaps()
    b("bitmap add", "web1", "a")
    b.write(0)
    b("bitmap add", "web1", "b")
    b.write(MIB)
    assert "renamed" in b("bitmap rename", "web1", "b", "c").stdout
    b("bitmap merge", "web1", "c", "a")
    assert b.extents("c") == [(0, KIB64), (MIB, KIB64)]
    b("bitmap remove", "web1", "a")
    assert list(b.list()) == ["c"] and b.extents("c") == [(0, KIB64), (MIB, KIB64)]


def test_what_cannot_be_done_is_said(bitmaps):
    b = bitmaps()
    b("bitmap add", "web1", "daily")
    assert "there is a bitmap" in b("bitmap add", "web1", "daily", status=1).stderr
    for words in (["clear", "web1", "x"], ["remove", "web1", "x"], ["show", "web1", "x"],
                  ["show", "web1", "x", "--map"], ["show", "web1", "x", "--extents"],
                  ["rename", "web1", "x", "y"], ["merge", "web1", "daily", "x"]):
        assert "there is no" in b(f"bitmap {words[0]}", *words[1:], status=1).stderr, words
    assert "there is a bitmap" in b("bitmap rename", "web1", "daily", "daily", status=1).stderr
    assert "there is no export nosuch" in b("bitmap list", "nosuch", status=1).stderr
    assert "cannot hold a space" in b("bitmap add", "web1", "a b", status=1).stderr
    assert "255 bytes" in b("bitmap add", "web1", "x" * 256, status=1).stderr
    assert list(b.list()) == ["daily"]


@pytest.mark.parametrize("words", [
    [], ["nosuch"], ["add"], ["add", "web1"], ["rename", "web1", "a"], ["merge", "web1", "a"],
    ["show", "web1"], ["add", "--nosuch", "web1", "a"],
    ["show", "web1", "a", "--map", "--extents"], ["show", "web1", "a", "--map", "--json"]])
def test_a_wrong_command_line_is_told(ctl, words):
    done = subprocess.run([ctl.program, "bitmap", *words], capture_output=True, text=True,
                          timeout=PATIENCE, env=ctl.env)
    assert done.returncode == 2 and "--help" in done.stderr or "both" in done.stderr \
        or "programs" in done.stderr


@pytest.mark.parametrize("verb", ["bitmap", "checkpoint"])
def test_each_verb_of_a_group_has_its_help(ctl, verb):
    listed = subprocess.run([ctl.program, verb, "--help"], capture_output=True, text=True,
                            timeout=PATIENCE, check=True).stdout
    words = re.findall(rf"^  {verb} ([a-z]+)", listed, re.M)
    assert "list" in words
    for word in words:
        text = subprocess.run([ctl.program, verb, word, "--help"], capture_output=True, text=True,
                              timeout=PATIENCE, check=True).stdout
        assert text.startswith(f"Usage: nbdctl {verb} {word} ")


def test_a_read_only_export_records_nothing(bitmaps):
    b = bitmaps(read_only=True)
    assert "read-only" in b("bitmap add", "web1", "daily", status=1).stderr
    assert "read-only" in b("checkpoint create", "daily", "web1", status=1).stderr
    assert b.list() == {}


# Pictures


def test_the_map_is_a_character_for_each_part(bitmaps):
    b = bitmaps()
    b("bitmap add", "web1", "daily")
    b.write(0, MIB)
    b.write(4 * MIB, 4096)
    head, picture = b("bitmap show", "web1", "daily", "--map", "--ascii").stdout.splitlines()
    assert head == "1.1 MiB of 8 MiB dirty; a character is 128 KiB"
    assert picture == "#" * 8 + "." * 24 + "+" + "." * 31


def test_the_map_has_blocks_where_the_locale_is_utf8(bitmaps):
    b = bitmaps()
    b("bitmap add", "web1", "daily")
    b.write(0, MIB)
    lines = {locale: b("bitmap show", "web1", "daily", "--map",
                       env={"LC_ALL": locale}).stdout.splitlines()[1]
             for locale in ("C.UTF-8", "C")}
    assert lines["C.UTF-8"] == "\u2588" * 8 + "\u00b7" * 56
    assert lines["C"] == "#" * 8 + "." * 56


# Clients


def test_a_client_sees_a_bitmap_that_was_added_before_it_came(bitmaps, select):
    b = bitmaps()
    before = b.server.client("web1")
    b("bitmap add", "web1", "daily", "other")
    before.write(MIB, b"x" * 4096)
    client = select(b, "web1", "daily")
    assert dirty(client, "daily") == [(MIB, KIB64)]
    rows = b.list()
    assert rows["daily"]["clients"] == 1 and rows["other"]["clients"] == 0
    assert "qemu:dirty-bitmap:daily" in json.dumps(b.ctl.json("clients", "web1"))


@pytest.mark.parametrize("words", [["clear", "daily"], ["remove", "daily"], ["disable", "daily"],
                                   ["rename", "daily", "new"], ["merge", "daily", "other"]])
def test_a_bitmap_that_a_client_has_selected_is_busy_until_it_is_forced(bitmaps, select, words):
    b = bitmaps()
    b("bitmap add", "web1", "daily", "other")
    client = select(b, "web1", "daily")
    unconcerned = select(b, "web1", "other")
    peer = next(row["address"] for row in b.ctl.json("clients", "web1")
                if "qemu:dirty-bitmap:daily" in row["contexts"])
    verb, name, *more = words
    said = b(f"bitmap {verb}", "web1", name, *more, status=1).stderr
    assert peer in said and "--force" in said and "1 client:" in said
    assert b.list()["daily"]["state"] == "recording"
    client.pread(512, 0)
    b(f"bitmap {verb}", "web1", name, *more, "--force")
    with pytest.raises(nbd.Error):
        client.pread(512, 0)
    unconcerned.pread(512, 0)
    log = b.server.log()
    assert "is closed by user" in log and "bitmap daily was" in log


def test_each_change_is_in_the_log_with_who_made_it(bitmaps):
    b = bitmaps()
    b("bitmap add", "web1", "daily")
    b("bitmap rename", "web1", "daily", "weekly")
    b("bitmap remove", "web1", "weekly")
    b("checkpoint create", "c1", "web1")
    b("checkpoint create", "c2", "web1")
    b("checkpoint delta", "web1", "c1", "c2", "--bitmap", "both")
    b.server.wait_for_log("bitmap both was made as a delta from c1 to c2 by user")
    log = b.server.log()
    assert f"bitmap daily was added by user {os.geteuid()} (process " in log
    assert "bitmap daily was renamed to weekly by user" in log


def test_edits_go_on_while_a_client_writes(bitmaps):
    b = bitmaps()
    b("bitmap add", "web1", "all")
    stop = threading.Event()
    written = set()

    def write():
        with b.server.client("web1") as client:
            at = 0
            while not stop.is_set():
                at = (at + 37 * KIB64) % (8 * MIB)
                client.write(at, b"y" * 512)
                written.add(at)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for i in range(5):
            b("bitmap add", "web1", f"b{i}")
            b("checkpoint create", f"c{i}", "web1")
            b("bitmap merge", "web1", f"b{i}", "all")
            b("bitmap clear", "web1", f"b{i}")
            b("bitmap show", "web1", f"b{i}", "--map")
            b("bitmap remove", "web1", f"b{i}")
    finally:
        stop.set()
        writer.join()
    recorded = b.extents("all")
    assert written and all(any(start <= at < start + length for start, length in recorded)
                           for at in written)
    assert b.list()["c0"]["dirty"] >= b.list()["c4"]["dirty"]


def test_others_than_root_may_look_and_not_change(bitmaps):
    needs_root()
    b = bitmaps()
    b("bitmap add", "web1", "daily")
    for path in (b.ctl.runtime, b.ctl.exports, b.ctl.runtime / "instances",
                 b.ctl.runtime / "instances/web1", b.ctl.runtime.parent, b.server.folder):
        path.chmod(0o755)
    (b.ctl.runtime / "instances/web1/control").chmod(0o666)

    def as_nobody(*words):
        return subprocess.run(
            ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
             *b.ctl.command(*words)], capture_output=True, text=True, timeout=PATIENCE,
            env=b.ctl.env)

    if not os.access(b.ctl.program, os.X_OK) or "Permission" in as_nobody("list").stderr:
        pytest.skip("the build folder is not for other users")
    assert "daily" in as_nobody("bitmap list", "web1").stdout
    assert "only root" in as_nobody("bitmap remove", "web1", "daily").stderr
    assert "may not call Remove" in b.server.log() and list(b.list()) == ["daily"]


# Checkpoints


def test_a_delta_is_what_changed_between_two_checkpoints(bitmaps, select):
    b = bitmaps()
    b.write(0)
    assert "made checkpoint mon of web1" in b("checkpoint create", "mon", "web1").stdout
    b.write(MIB)
    b("checkpoint create", "tue", "web1")
    b.write(2 * MIB)
    assert b.delta("web1", "mon", "tue") == [(MIB, KIB64)]
    assert b.delta("web1", "mon") == [(MIB, KIB64), (2 * MIB, KIB64)]
    assert b.delta("web1", "tue") == [(2 * MIB, KIB64)]
    b("checkpoint delta", "web1", "mon", "tue", "--bitmap", "backup")
    row = b.list()["backup"]
    assert row["state"] == "frozen" and row["dirty"] == KIB64
    b.write(3 * MIB)
    assert dirty(select(b, "web1", "backup"), "backup") == [(MIB, KIB64)]
    assert [row["name"] for row in b.ctl.json("checkpoint list", "web1")] == ["mon", "tue"]
    b("checkpoint delete", "web1", "mon")
    assert list(b.list()) == ["tue", "backup"] and b.extents("backup") == [(MIB, KIB64)]


def test_what_is_no_checkpoint_is_neither_deleted_nor_compared(bitmaps):
    b = bitmaps()
    b("bitmap add", "web1", "plain")
    b("checkpoint create", "mon", "web1")
    b.write(0)
    b("checkpoint create", "tue", "web1")
    assert "no checkpoint" in b("checkpoint delete", "web1", "plain", status=1).stderr
    assert "no checkpoint" in b("checkpoint delta", "web1", "plain", "mon", status=1).stderr
    assert "before" in b("checkpoint delta", "web1", "tue", "mon", status=1).stderr
    assert b("checkpoint delta", "web1", "tue", "mon", "--bitmap", "x", status=1).stderr
    assert list(b.list()) == ["plain", "mon", "tue"]


def test_a_checkpoint_of_two_exports_is_made_of_both_or_none(bitmaps):
    b = bitmaps()
    said = b("checkpoint create", "mon", "web1,db").stdout.splitlines()
    assert said == ["made checkpoint mon of web1", "made checkpoint mon of db"]
    b("bitmap add", "db", "tue")
    said = b("checkpoint create", "tue", "web1,db", status=1).stderr
    assert "there is a bitmap" in said and "no checkpoint was made" in said
    assert list(b.list()) == ["mon"]
    b("bitmap add", "web1", "wed")
    assert "no checkpoint was made" in b("checkpoint create", "wed", "web1,db", status=1).stderr
    assert list(b.list("db")) == ["mon", "tue"]
    b.write(0, label="db")
    b.write(0)
    assert b.delta("db", "mon") == b.delta("web1", "mon") == [(0, KIB64)]


@pytest.mark.parametrize("labels", ["web1,web1", "web1,", ",", ""])
def test_labels_that_cannot_be_are_told(bitmaps, labels):
    b = bitmaps()
    b("checkpoint create", "mon", labels, status=2)
    assert b.list() == {}


def test_one_export_that_does_not_run_keeps_the_others_from_a_checkpoint(bitmaps):
    b = bitmaps()
    (b.ctl.exports / "idle.conf").write_text("[Export]\nDevice=/x\n")
    assert "does not run" in b("checkpoint create", "mon", "web1,idle", status=1).stderr
    assert b.list() == {}


def test_writes_of_two_exports_are_on_the_same_side_of_a_checkpoint(bitmaps):
    """What is written to the one and then, once answered, to the other: never the second alone."""
    b = bitmaps()
    stop = threading.Event()
    ready = threading.Event()

    def write():
        with b.server.client("web1") as one, b.server.client("db") as two:
            i = 0
            while not stop.is_set():
                at = (i % 128) * KIB64
                one.write(at, b"1" * 512)
                two.write(at, b"2" * 512)
                i += 1
                if i == 4:
                    ready.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert ready.wait(PATIENCE)
        names = [f"c{i}" for i in range(6)]
        for name in names:
            b("checkpoint create", name, "web1,db")
    finally:
        stop.set()
        writer.join()
    for earlier, later in zip(names, names[1:]):
        first = granules(b.delta("web1", earlier, later))
        second = granules(b.delta("db", earlier, later))
        # Where it stood at either end, one of a pair may be on the other side: the first before
        # the checkpoint and the second after it.
        assert len(second - first) <= 1 and len(first - second) <= 1


def granules(extents):
    return {at for start, length in extents for at in range(start, start + length, KIB64)}


class Held:
    """A D-Bus connection that holds an export, by the control socket."""

    def __init__(self, path):
        self.child = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
        assert self.child.stdout.readline() == "held\n"

    def leave(self):
        self.child.kill()
        self.child.wait()
        self.child.stdout.close()


HOLDER = """
import socket, struct, sys, time
def string(s):
    return struct.pack("<I", len(s)) + s.encode() + b"\\0"
def pad(b, n):
    return b + b"\\0" * (-len(b) % n)
def call(serial, path, interface, member):
    fields = b""
    for code, kind, value in ((1, "o", path), (2, "s", interface), (3, "s", member)):
        fields = pad(fields, 8) + bytes([code, 1]) + kind.encode() + b"\\0" + string(value)
    return pad(b"l\\1\\0\\1" + struct.pack("<III", 0, serial, len(fields)) + fields, 8)
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(b"\\0AUTH EXTERNAL\\r\\nDATA\\r\\nBEGIN\\r\\n")
seen = b""
while seen.count(b"\\r\\n") < 2:
    seen += s.recv(4096)
rest = seen.split(b"\\r\\n", 2)[2]
s.sendall(call(1, "/org/nbd_export/export", "org.nbd_export.Bitmaps1", "Hold"))
answer = rest or s.recv(4096)
print("held" if answer[1] == 2 else answer, flush=True)
time.sleep(600)
"""


def test_a_hold_ends_with_the_connection_that_asked_for_it(bitmaps, cleanup):
    b = bitmaps()
    held = Held(b.ctl.runtime / "instances/web1/control")
    cleanup.callback(held.leave)
    client = b.server.client("web1")
    client.send_write(0, b"x" * 4096)
    assert "holds" in b("checkpoint create", "mon", "web1,db", status=1).stderr
    assert b.list() == {} and b.list("db") == {}
    held.leave()
    client.read(0, 512)
    b("checkpoint create", "mon", "web1,db")


def test_an_export_stops_although_it_is_held(bitmaps, cleanup):
    b = bitmaps()
    held = Held(b.ctl.runtime / "instances/web1/control")
    cleanup.callback(held.leave)
    b.server.stop()


# The store


def test_a_store_on_the_exported_file_itself_is_refused(refused, file_disk, short_folder):
    folder = short_folder / "conf"
    folder.mkdir()
    disk = file_disk(8 * MIB)
    (folder / "web1.conf").write_text(f"[Export]\nDevice={disk}\nBitmap=a\nBitmapStore={disk}\n")
    assert "BitmapStore= can put it elsewhere" in refused(config=folder)


def test_a_store_on_a_file_system_that_lies_on_the_exported_device_is_refused(
        refused, loop_disk, short_folder, cleanup):
    needs_root()
    device = loop_disk(64 * MIB)
    if not shutil.which("mkfs.ext4"):
        pytest.skip("mkfs.ext4 is not installed")
    run("mkfs.ext4", "-q", device)
    mounted = short_folder / "mounted"
    mounted.mkdir()
    if subprocess.run(["mount", device, mounted], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    cleanup.callback(subprocess.run, ["umount", mounted])
    folder = short_folder / "conf"
    folder.mkdir()
    (folder / "web1.conf").write_text(f"[Export]\nDevice={device}\nReadOnly=yes\nShared=yes\n"
                                      f"BitmapStore={mounted}/bitmaps\n")
    assert "BitmapStore= can put it elsewhere" in refused(config=folder)


def test_check_examines_the_file_of_bitmaps(bitmaps, ctl):
    b = bitmaps()
    b("bitmap add", "web1", "daily")
    b.write(MIB)
    store = b.kept / "web1" / "bitmaps"
    b.server.stop()
    done = ctl("bitmap check", store)
    assert "daily" in done.stdout and "recording" in done.stdout
    store.write_bytes(b"\0" * 8192 + store.read_bytes()[8192:])
    assert str(store) in ctl("bitmap check", store, status=1).stderr
    assert "No such file" in ctl("bitmap check", "/nonexistent", status=1).stderr


def test_remove_leaves_bitmaps_from_elsewhere_to_the_administrator_and_purge_takes_them(
        ctl, short_folder):
    store = short_folder / "web1.bitmaps"
    for purge in ([], ["--purge"]):
        ctl.write("web1", f"Device=/dev/null\nBitmapStore={store}")
        store.write_bytes(b"bits")
        said = ctl("remove", "web1", *purge).stdout
        assert store.exists() == (not purge)
        assert said == ("removed web1, and its bitmaps\n" if purge else
                        f"removed web1; its bitmaps stay, to be removed by hand: {store}\n")
    ctl.write("web1", f"Device=/dev/null\nBitmapStore={store}")
    assert ctl("remove", "web1", "--purge").stdout == "removed web1; it had no bitmaps\n"


@pytest.mark.parametrize("lines", ["Nonsense=1", None], ids=["bad", "gone"])
def test_purge_does_not_deny_bitmaps_that_it_cannot_know_of(ctl, systemd, lines):
    systemd("state:nbd-export@web1.socket=active")
    if lines:
        ctl.write("web1", lines)
    said = ctl("remove", "web1", "--purge").stdout
    assert "no bitmaps" not in said and "BitmapStore= may have kept elsewhere stays" in said


def test_bitmaps_in_their_usual_place_can_be_purged_afterwards(ctl):
    """The usual place of root is the machine's, so it is somebody else's here."""
    needs_root()
    nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": [],
              "env": {"XDG_STATE_HOME": str(ctl.folder / "state")}}
    store = ctl.folder / "state/nbd-export/web1/bitmaps"
    for setting in ("", f"BitmapStore={store}"):
        store.parent.mkdir(parents=True, exist_ok=True)
        store.write_bytes(b"bits")
        ctl.write("web1", f"Device=/dev/null\n{setting}")
        run("chown", "-R", str(NOBODY), ctl.folder)
        assert f"{store} (--purge removes them)" in ctl("remove", "web1", **nobody).stdout
        assert "removed before" in ctl("remove", "web1", "--purge", **nobody).stdout
        assert not store.parent.exists()
    said = ctl("remove", "web1", "--purge", status=1, **nobody).stderr
    assert "there is no export" in said


def test_who_waits_to_add_the_label_anew_loses_no_bitmaps_to_the_purge(ctl, short_folder):
    strace = needs_program("strace")
    store = short_folder / "web1.bitmaps"
    store.write_bytes(b"bits")
    ctl.write("web1", f"Device=/dev/null\nBitmapStore={store}")
    done = subprocess.run([strace, "-y", "-e", "trace=unlink,unlinkat,close",
                           *ctl.command("remove", "web1", "--purge")], capture_output=True,
                          text=True, timeout=60, check=True,
                          env=dict(ctl.env, ASAN_OPTIONS="detect_leaks=0"))
    calls = done.stderr.splitlines()
    purged = next(n for n, line in enumerate(calls) if f'"{store}"' in line)
    unlocked = next(n for n, line in enumerate(calls) if f"<{ctl.exports}/.lock>" in line)
    assert purged < unlocked and not store.exists()


def test_add_writes_what_is_said_of_bitmaps(ctl, disk):
    ctl("add", "web1", disk, "--bitmap", "a", "--bitmap", "b", "--bitmap-cold", "9",
        "--bitmap-granularity", "4K", "--bitmap-region", "1M", "--on-bitmap-error", "stop",
        "--bitmap-arm-limit", "64", "--bitmap-store", "/srv/x")
    assert sorted(ctl.read("web1"))[:8] == sorted([
        "Bitmap=a b", "BitmapArmLimit=64", "BitmapCold=9", "BitmapGranularity=4096",
        "BitmapRegion=1048576", "BitmapStore=/srv/x", f"Device={disk}", "OnBitmapError=stop"])
    (row,) = ctl.json("show", "web1", "-o", "+bitmap-cold,on-bitmap-error,bitmap-region")
    assert row["bitmaps"] == ["a", "b"] and row["bitmap-cold"] == 9
    assert row["on-bitmap-error"] == "stop" and row["bitmap-region"] == MIB
    said = ctl("add", "web1", disk, "--bitmap", "a", status=1).stderr
    assert "Bitmap=a, not a b" in said
    assert "twice" in ctl("add", "x", disk, "--bitmap", "a", "--bitmap", "a", status=2).stderr


def test_an_export_that_does_not_run_is_started_by_systemd(ctl, disk, systemd):
    ctl.write("web1", f"Device={disk}")
    manager = systemd("error:StartUnit=it is masked")
    said = ctl("bitmap add", "web1", "daily", status=1).stderr
    assert "cannot be started" in said
    assert any("nbd-export@web1.service" in call for call in manager.calls())


# The page for people


def test_the_program_in_the_documentation_brings_a_copy_up_to_date(bitmaps, tmp_path):
    script = tmp_path / "incremental.py"
    script.write_text(re.search(r"```python\n(.*?)```", DOCS.read_text(), re.S)[1])
    copy = tmp_path / "copy.raw"
    b = bitmaps()
    b.write(0, MIB)
    b("checkpoint create", "c0", "web1")
    shutil.copy(b.disks["web1"], copy)
    for i in range(3):
        b.write((i + 2) * MIB + 512, 3 * KIB64)
        b("checkpoint create", f"c{i + 1}", "web1")
        b("checkpoint delta", "web1", f"c{i}", f"c{i + 1}", "--bitmap", "backup")
        done = subprocess.run([sys.executable, script, b.uri("web1"), "backup", copy],
                              capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{4 * KIB64} of {8 * MIB} bytes copied\n"
        b("bitmap remove", "web1", "backup")
        b("checkpoint delete", "web1", f"c{i}")
        assert copy.read_bytes() == pathlib.Path(b.disks["web1"]).read_bytes()
