# SPDX-License-Identifier: GPL-2.0-or-later
"""Bitmaps whose store fails, vanishes or is damaged, and whose device is changed by others, grows,
shrinks or is another one: what is told clean is clean, and what is lost is said."""

import contextlib
import fcntl
import itertools
import os
import pathlib
import re
import shutil
import struct
import subprocess
import time
import uuid

import pytest

import storefile
from conftest import (
    KIB, MIB, backing_of, needs_program, needs_root, run, sysfs, wait_until)
from nbdctl import short_folder  # noqa: F401, a fixture
from seed import seeded
from tracked import GRANULE, KIND, Load, differing, tracked  # noqa: F401

SIZE = 16 * MIB
NARROW = {"BitmapRegion": "256K", "BitmapArmLimit": 64, "BitmapCold": 1}
CATALOGUES, RECORDS = 8192, 139_264     # where they begin in the store: docs/bitmap-format.md
RECORD = 4096                           # bytes of each of the two, with that arm limit
EXT4_IOC_SHUTDOWN, WITHOUT_FLUSH = 0x8004587D, 2


# A store that cannot be made


def test_a_bitmap_for_whose_store_there_is_no_room_is_refused_and_nothing_is_left(
        tracked, file_disk, mounted):  # noqa: F811
    folder = mounted("tmpfs", size=256 * KIB)
    full = fill_up(folder)
    here = tracked(file_disk(SIZE), store=folder / "bitmaps")
    said = here.bitmap("add", "b", status=1).stderr
    assert "No space left on device" in said and str(folder) in said
    assert [path.name for path in folder.iterdir()] == ["full"]
    here.write(0)
    assert here.ctl.json("bitmap list", "disk") == []
    full.unlink()
    here.bitmap("add", "b")
    here.write(MIB)
    assert here.dirty("b") == {16}


def test_a_bitmap_whose_folder_is_missing_or_read_only_is_refused(
        tracked, file_disk, mounted):  # noqa: F811
    folder = mounted("tmpfs")
    here = tracked(file_disk(SIZE), store=folder / "bitmaps")
    run("mount", "-o", "remount,ro", folder)
    assert "Read-only file system" in here.bitmap("add", "b", status=1).stderr
    run("mount", "-o", "remount,rw", folder)
    here.bitmap("add", "b")
    assert here.state("b") == "recording"


def test_an_export_whose_bitmaps_must_be_and_cannot_is_not_served(
        refused, file_disk, short_folder):  # noqa: F811
    folder = short_folder / "conf"
    folder.mkdir()
    (folder / "disk.conf").write_text(f"[Export]\nDevice={file_disk(SIZE)}\nBitmap=b\n"
                                      "BitmapStore=/proc/nowhere/bitmaps\n")
    assert "/proc/nowhere/bitmaps" in refused(config=folder)


# A store that fails


def fill_up(folder):
    """Leaves no room on that file system."""
    path = folder / "full"
    with open(path, "wb", buffering=0) as file:
        for size in (MIB, 4096):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                pass
    return path


def punch(path, at, length):
    run(needs_program("fallocate"), "--punch-hole", f"--offset={at}", f"--length={length}", path)


class Full:
    """A file system without room, where the store has lost the place for some of its parts."""

    def __init__(self, mounted, begin, length):
        self.folder = mounted("tmpfs", size=4 * MIB)
        self.store = self.folder / "bitmaps"
        self.begin, self.length = begin, length
        self.catalogue = begin < RECORDS

    def fail(self):
        self.full = fill_up(self.folder)
        punch(self.store, self.begin, self.length)
        fill_up_more = self.folder / "more"
        with open(fill_up_more, "wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass

    def work(self):
        self.full.unlink()


class Immutable:
    """A store on ext4 that nobody may write to, and nobody may remove."""

    catalogue = True

    def __init__(self, mounted):
        self.store = mounted("ext4", size=32 * MIB) / "bitmaps"
        needs_program("chattr")

    def fail(self):
        run("chattr", "+i", self.store)

    def work(self):
        run("chattr", "-i", self.store)


FAILURES = {
    "records": lambda mounted: Full(mounted, RECORDS, 2 * RECORD),
    "all": lambda mounted: Full(mounted, CATALOGUES, MIB),
    "immutable": Immutable,
}


@pytest.fixture(params=FAILURES)
def failing(request, mounted):
    """A store that fails from .fail() on, and works again from .work() on."""
    needs_root()
    made = FAILURES[request.param](mounted)
    yield made
    if isinstance(made, Immutable):
        made.work()


@pytest.mark.parametrize("failing", ["records", "immutable"], indirect=True)
def test_with_stop_writes_fail_while_the_store_does_and_then_go_on(
        tracked, file_disk, failing):  # noqa: F811
    here = tracked(file_disk(SIZE), store=failing.store, OnBitmapError="stop", **NARROW)
    here.bitmap("add", "b")
    with here.client() as client:
        client.write(0, b"x" * 512)
        before = here.image()
        failing.fail()
        assert client.write_error(MIB, b"y" * 512) != 0
        assert client.write_error(0, b"y" * 512) != 0, "where it is armed, too"
        assert client.error(6, 2 * MIB, MIB) != 0 and client.error(4, 2 * MIB, MIB) != 0
        assert client.read(MIB, 512) == bytes(512)
        assert here.image() == before and here.figures()["Failing"]
        assert here.log().count("writes fail until bitmaps can be kept again") == 1
        failing.work()
        wait_until(lambda: client.write_error(MIB, b"z" * 512) == 0, "writes to go on")
    here.server.wait_for_log("bitmaps can be kept again; writes go on")
    assert here.figures()["Failing"] == "" and here.state("b") == "recording"
    assert differing(bytes(SIZE), here.image()) <= here.dirty("b") <= {0, 16, *range(32, 48)}
    here.kill()
    assert {0, 16} <= here.dirty("b") != here.everything()


def test_with_stop_an_edit_that_fails_changes_nothing_and_writes_go_on_after(
        tracked, file_disk, failing):  # noqa: F811
    here = tracked(file_disk(SIZE), store=failing.store, OnBitmapError="stop", **NARROW)
    here.bitmap("add", "b")
    here.write(0)
    failing.fail()
    verbs = [["add", "new"], ["clear", "b"]]
    if failing.catalogue:
        verbs += [["remove", "b"], ["rename", "b", "new"]]
    for words in verbs:
        assert here.bitmap(*words, status=1).stderr
    assert [row["name"] for row in here.ctl.json("bitmap list", "disk")] == ["b"]
    failing.work()
    with here.client() as client:
        wait_until(lambda: client.write_error(MIB, b"z" * 512) == 0, "writes to go on")
    assert {0, 16} <= here.dirty("b") != here.everything()
    here.bitmap("add", "new")
    here.kill()
    assert {0, 16} <= here.dirty("b") != here.everything()


def test_with_lost_writes_go_on_and_what_is_lost_is_lost_after_a_restart_too(
        tracked, file_disk, failing):  # noqa: F811
    here = tracked(file_disk(SIZE), store=failing.store, OnBitmapError="lost", Bitmap="b",
                   **NARROW)
    here.bitmap("clear", "b")
    with here.client() as client:
        client.write(0, b"x" * 512)
        failing.fail()
        if isinstance(failing, Immutable):      # nor can the loss be said durably
            assert client.write_error(MIB, b"y" * 512) != 0
            failing.work()
        wait_until(lambda: client.write_error(MIB, b"y" * 512) == 0, "writes to go on")
    here.server.wait_for_log("bitmaps are lost")
    assert here.state("b") == "lost" and here.dirty("b") == here.everything()
    if not isinstance(failing, Immutable):
        failing.work()
    here.crash()
    assert here.dirty("b") == here.everything() and here.state("b") == "lost"
    here.restart()
    assert here.dirty("b") == here.everything() and here.state("b") == "lost"
    here.bitmap("clear", "b")
    here.write(2 * MIB)
    assert here.dirty("b") == {32}


@pytest.mark.parametrize("on_error", ["stop", "lost"])
def test_a_file_system_that_vanishes_costs_no_truth(
        tracked, file_disk, mounted, on_error):  # noqa: F811
    folder = mounted("ext4", size=32 * MIB)
    here = tracked(file_disk(SIZE), store=folder / "bitmaps", OnBitmapError=on_error, Bitmap="b",
                   **NARROW)
    here.bitmap("clear", "b")
    here.write(0)
    before = here.image()
    fd = os.open(folder, os.O_RDONLY)
    fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", WITHOUT_FLUSH))
    os.close(fd)
    with here.client() as client:
        assert client.write_error(MIB, b"y" * 512) != 0     # not even the loss can be kept
        assert client.read(MIB, 512) == bytes(512)
    assert here.bitmap("add", "new", status=1).stderr
    assert here.image() == before
    device = run("findmnt", "--noheadings", "--output=SOURCE", folder)
    here.stop()
    run("umount", folder)
    run("mount", device, folder)
    here.start()
    assert 0 in here.dirty("b")
    here.write(MIB)
    assert {0, 16} <= here.dirty("b")


@pytest.mark.parametrize("on_error", ["stop", "lost"])
def test_a_file_system_whose_device_takes_no_writes_any_more_costs_no_truth(
        tracked, file_disk, mounted, cleanup, disk_folder, on_error):  # noqa: F811
    """Of older kernels, ext4 tells of that once; a sync that is tried again succeeds."""
    below, saved = mounted("tmpfs", size=48 * MIB), disk_folder / "saved"
    image, folder = below / "image", below / "folder"
    folder.mkdir()
    image.touch()
    os.truncate(image, 32 * MIB)
    run(needs_program("mkfs.ext4"), "-q", "-F", image)
    run("mount", "-o", "loop", image, folder)
    cleanup.callback(subprocess.run, ["umount", folder], check=False)
    here = tracked(file_disk(SIZE), store=folder / "bitmaps", OnBitmapError=on_error, Bitmap="b",
                   **NARROW)
    here.bitmap("clear", "b")
    here.write(0)
    before = here.image()
    run("sync", "--file-system", folder)
    shutil.copyfile(image, saved)
    punch(image, 0, 32 * MIB)
    full = fill_up(below)
    answers = []
    with here.client() as client:
        deadline = time.monotonic() + 2.5               # it tries again each second
        for at in itertools.cycle(range(0, SIZE, 256 * KIB)):
            answers.append(client.write_error(at, b"y" * 512))
            if time.monotonic() > deadline:
                break
    assert any(answers), "changes without a record of them"
    here.kill()
    here.server.lossy = True
    here.stop()
    run("umount", folder)
    full.unlink()
    shutil.copyfile(saved, image)
    run("mount", "-o", "loop", image, folder)
    changed = differing(before, here.image())
    here.start()
    assert changed <= here.dirty("b")
    here.stop()
    run("umount", folder)


# Changes by others


@pytest.mark.parametrize("kind", ["file", "loop512", "zram"])
def test_what_others_write_while_the_export_is_off_is_a_gap(tracked, disk, kind):  # noqa: F811
    here = tracked(disk(kind, SIZE), **NARROW)
    here.bitmap("add", "b", "frozen")
    here.checkpoint("c0")
    here.write(0)
    here.checkpoint("c1")
    here("checkpoint delta", "disk", "c0", "c1", "--bitmap", "delta")
    here.bitmap("add", "off", "--disabled")
    for _ in range(2):
        here.restart()
        assert here.state("b") == "recording" and here.dirty("b") == {0}, "nobody wrote"

    def write():
        with open(here.disk, "r+b", buffering=0) as file:
            file.seek(3 * MIB)
            file.write(b"foreign!" * 512)
            os.fsync(file)

    here.restart(write)
    for name in ("b", "c0", "c1", "off"):
        assert here.state(name) == "gap" and here.dirty(name) == here.everything()
    assert here.state("delta") == "frozen" and here.dirty("delta") == {0}
    said = re.findall(r"bitmap b: (\d+) sectors were written by others", here.log())
    assert said == [] if kind == "file" else int(said[0]) >= 8
    here.restart()
    assert here.state("b") == "gap"
    here.bitmap("clear", "b")
    assert here.dirty("b") == set()
    here.restart()
    assert here.state("b") == "recording" and here.dirty("b") == set()


@pytest.mark.parametrize("by", ["discard", "replaced"])
def test_what_others_do_otherwise_is_found_as_well(
        tracked, loop_disk, file_disk, disk_folder, by):  # noqa: F811
    device = loop_disk(SIZE) if by == "discard" else file_disk(SIZE)
    here = tracked(device, **NARROW)
    here.bitmap("add", "b")
    here.write(0)

    def discard():
        run(needs_program("blkdiscard"), "--offset", MIB, "--length", MIB, device)

    def replace():
        shutil.copy2(device, disk_folder / "other")     # with its times
        os.replace(disk_folder / "other", device)

    here.restart(discard if by == "discard" else replace)
    assert here.dirty("b") == here.everything()
    assert here.state("b") == ("gap" if by == "discard" else "lost")


LOOP_CTL_REMOVE = 0x4C81


def renew(device):
    """Makes a loop device of the same file anew: its counters are at zero, as after a boot."""
    backing, sector = backing_of(device), sysfs(device, "queue/logical_block_size")
    run("losetup", "--detach", device)
    with open("/dev/loop-control", "rb") as control:
        def gone():
            with contextlib.suppress(OSError):
                fcntl.ioctl(control, LOOP_CTL_REMOVE, int(str(device).removeprefix("/dev/loop")))
                return True

        wait_until(gone, f"the end of {device}")
    run("losetup", "--sector-size", sector, "--direct-io=on", device, backing)


def scribble(device):
    with open(device, "r+b", buffering=0) as file:
        file.write(b"foreign!" * 512)
        os.fsync(file)


@pytest.mark.parametrize("left", ["as the machine stopped", "alone"])
@pytest.mark.parametrize("read_only", [False, True])
def test_after_a_start_of_the_machine_only_who_was_there_until_it_stopped_vouches_for_the_device(
        tracked, loop_disk, monkeypatch, left, read_only):  # noqa: F811
    here = tracked(loop_disk(SIZE), **NARROW)
    here.bitmap("add", "b")
    here.write(0)
    if read_only:
        here.restart(lambda: here.configure(ReadOnly="yes"))

    def next_boot(*others):
        renew(here.disk)
        for do in others:
            do(here.disk)
        monkeypatch.setenv("NBD_EXPORT_BOOT_ID", uuid.uuid4().hex)
        here.configure(ReadOnly="no")

    def stop():
        if left != "alone":
            here.call("org.nbd_export.Export1", "MachineStops")
        here.restart(next_boot)

    stop()
    said = "bitmap b: what others wrote after it was left, before the machine started anew, is not known"
    if left == "alone":
        assert here.state("b") == "gap" and here.dirty("b") == here.everything()
        assert said in here.log()
        here.bitmap("clear", "b")
        return
    assert here.state("b") == "recording" and here.dirty("b") == {0}
    here.call("org.nbd_export.Export1", "MachineStops")
    here.restart(lambda: next_boot(scribble))
    assert here.state("b") == "gap" and here.dirty("b") == here.everything()
    assert re.search(r"bitmap b: \d+ sectors were written by others", here.log())


def test_a_device_that_was_made_anew_while_nobody_watched_is_a_gap(tracked, loop_disk):  # noqa: F811
    here = tracked(loop_disk(SIZE), **NARROW)
    here.bitmap("add", "b")
    here.restart(lambda: renew(here.disk))
    assert here.state("b") == "gap" and here.dirty("b") == here.everything()
    assert "before the device was made anew, is not known" in here.log()


@pytest.mark.parametrize("others", [False, True])
def test_after_a_power_cut_what_others_wrote_since_the_machine_is_back_is_a_gap(
        tracked, loop_disk, monkeypatch, others):  # noqa: F811
    here = tracked(loop_disk(SIZE), **NARROW)
    here.bitmap("add", "b")
    here.write(0)

    def next_boot():
        renew(here.disk)
        monkeypatch.setenv("NBD_EXPORT_BOOT_ID", uuid.uuid4().hex)
        if others:
            scribble(here.disk)

    here.crash(next_boot)
    assert here.state("b") == ("gap" if others else "recording")
    assert here.dirty("b") == (here.everything() if others else {0, 1, 2, 3})


def test_a_device_whose_writes_the_kernel_does_not_count_is_a_gap_after_each_restart(
        tracked, loop_disk, cleanup):  # noqa: F811
    here = tracked(loop_disk(SIZE), **NARROW)
    iostats = pathlib.Path("/sys/block") / here.disk.name / "queue/iostats"
    cleanup.callback(iostats.write_text, "1")
    here.bitmap("add", "b")
    here.restart(lambda: iostats.write_text("0"))
    assert here.state("b") == "gap"
    here.bitmap("clear", "b")
    here.restart(lambda: iostats.write_text("1"))
    assert here.state("b") == "gap"
    here.bitmap("clear", "b")
    here.restart()
    assert here.state("b") == "recording"


def test_what_others_write_to_a_read_only_export_is_a_gap_and_it_shows_only_what_is_frozen(
        tracked, file_disk):  # noqa: F811
    nbd = pytest.importorskip("nbd", reason="python3-libnbd is not installed")
    here = tracked(file_disk(SIZE), **NARROW)
    here.checkpoint("c")
    here.write(0)
    here.bitmap("add", "b")
    here("checkpoint delta", "disk", "c", "--bitmap", "frozen")
    here.restart(lambda: here.configure(ReadOnly="yes"))
    client = nbd.NBD()
    for name in ("b", "c", "frozen"):
        client.add_meta_context(KIND + name)
    client.connect_uri(f"nbd+unix:///disk?socket={here.server.socket}")
    assert [name for name in ("b", "c", "frozen") if client.can_meta_context(KIND + name)] == \
        ["frozen"]
    client.shutdown()
    assert here.dirty("frozen") == {0}
    with open(here.disk, "r+b", buffering=0) as file:
        file.write(b"foreign!")
    here.kill()
    here.restart(lambda: here.configure(ReadOnly="no"))
    assert here.state("b") == here.state("c") == "gap"
    assert here.state("frozen") == "frozen" and here.dirty("frozen") == {0}


def test_a_device_that_shrinks_and_grows_again_while_it_is_served_is_lost(
        tracked, loop_disk):  # noqa: F811
    here = tracked(loop_disk(SIZE), **NARROW)
    here.bitmap("add", "b")
    loop = Loop(here.disk)
    loop.resize(SIZE // 2)
    wait_until(lambda: here.state("b") == "lost", "the new size to be noticed")
    loop.resize(SIZE)
    here.restart()
    assert here.state("b") == "lost" and here.dirty("b") == here.everything()


# Devices that are not what they were


class Loop:
    """A loop device that can be given another size."""

    def __init__(self, path):
        self.path = path

    def resize(self, size):
        os.truncate(backing_of(self.path), size)
        run("losetup", "--set-capacity", self.path)


class File:
    def __init__(self, path):
        self.path = path

    def resize(self, size):
        """With the times as they were, as on a block device."""
        stat = os.stat(self.path)
        os.truncate(self.path, size)
        os.utime(self.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.fixture(params=["file", "loop512"])
def elastic(request, disk):
    path = disk(request.param, SIZE)
    return File(path) if request.param == "file" else Loop(path)


GROWN = set(range(SIZE // GRANULE, 2 * SIZE // GRANULE))


def test_what_a_device_has_grown_by_is_dirty_and_the_rest_as_it_was(
        tracked, elastic):  # noqa: F811
    here = tracked(elastic.path, **NARROW)
    here.bitmap("add", "b")
    here.write(MIB)
    here.checkpoint("c")
    here.restart(lambda: elastic.resize(2 * SIZE))
    assert "grown to 32 MiB" in here.log()
    everything = isinstance(elastic, File)      # whose ctime tells that something was done
    assert here.dirty("b") == (here.everything() if everything else {16} | GROWN)
    assert here.dirty("c") == (here.everything() if everything else GROWN)
    here.write(SIZE + MIB)
    here.bitmap("clear", "b")
    here.write(2 * SIZE - 1, b"x")
    assert here.dirty("b") == {max(GROWN)}
    here.crash()
    assert max(GROWN) in here.dirty("b") != here.everything()


def test_a_device_that_grew_after_a_kill_has_armed_regions_and_the_new_range_dirty(
        tracked, elastic):  # noqa: F811
    here = tracked(elastic.path, **NARROW)
    here.bitmap("add", "b")
    here.write(MIB)
    here.kill()
    here.restart(lambda: elastic.resize(2 * SIZE))
    assert {16} | GROWN <= here.dirty("b")


def test_all_of_a_device_that_has_shrunk_is_dirty(tracked, elastic):  # noqa: F811
    here = tracked(elastic.path, **NARROW)
    here.bitmap("add", "b")
    here.write(0)
    here.restart(lambda: elastic.resize(SIZE // 2))
    assert "the device has shrunk" in here.log()
    assert here.state("b") == "lost" and here.dirty("b") == here.everything()
    here.bitmap("clear", "b")
    here.write(SIZE // 2 - 1, b"x")
    assert here.dirty("b") == {SIZE // 2 // GRANULE - 1}
    here.restart(lambda: elastic.resize(SIZE))
    assert set(range(SIZE // 2 // GRANULE - 1, SIZE // GRANULE)) <= here.dirty("b")
    here.restart(lambda: elastic.resize(2 * SIZE))
    assert set(range(SIZE // 2 // GRANULE - 1, 2 * SIZE // GRANULE)) <= here.dirty("b")


def test_a_device_that_shrank_after_a_kill_under_load_is_served(tracked, elastic):  # noqa: F811
    """What was armed lies behind its end."""
    here = tracked(elastic.path, **NARROW | {"BitmapCold": 250})
    here.bitmap("add", "b")
    with here.client() as client:
        for at in range(0, SIZE, MIB):
            client.write(at, b"x" * 512)
    here.crash(lambda: elastic.resize(2 * MIB))
    assert here.dirty("b") == here.everything() and here.state("b") == "lost"
    here.bitmap("clear", "b")
    here.write(MIB)
    assert here.dirty("b") == {16}
    here.kill()
    assert 16 in here.dirty("b") != here.everything()


def test_the_store_of_another_device_makes_everything_dirty(tracked, file_disk):  # noqa: F811
    here = tracked(file_disk(SIZE), **NARROW)
    here.bitmap("add", "b")
    here.write(0)
    other = file_disk(SIZE, name="other")
    here.restart(lambda: here.configure(Device=other))
    assert "the store was kept for another device" in here.log()
    assert here.state("b") == "lost" and here.dirty("b") == set(range(SIZE // GRANULE))
    here.restart(lambda: here.configure(Device=here.disk))
    assert here.state("b") == "lost"


def test_a_store_that_is_missing_makes_the_bitmaps_of_the_settings_lost(
        tracked, file_disk):  # noqa: F811
    here = tracked(file_disk(SIZE), Bitmap="b", **NARROW)
    assert here.state("b") == "lost"
    here.bitmap("clear", "b")
    here.write(0)
    here.restart(here.store.unlink)
    assert here.state("b") == "lost" and here.dirty("b") == here.everything()
    assert "there was no store of bitmaps" in here.log()


# Damage


@pytest.fixture
def worn(tracked, file_disk):  # noqa: F811
    """A store with everything in it, as a kill has left it; .copies: it, and the disk; .truth."""
    here = tracked(file_disk(SIZE), Bitmap="b", **NARROW | {"BitmapCold": 250})
    here.bitmap("clear", "b")
    before = here.image()
    rng = seeded()
    with here.client() as client:
        for _ in range(30):
            client.write(rng.randrange(SIZE // 2) & ~511, rng.randbytes(512))
    here.checkpoint("c0")
    with here.client() as client:
        for _ in range(30):
            client.write(rng.randrange(SIZE // 2) & ~511, rng.randbytes(512))
    here.kill()
    here.bytes = here.store.read_bytes()
    here.truth = {"b": differing(before, here.image()), "c0": here.dirty("c0")}
    here.damaged = here.store.with_name("damaged")
    here.rng = rng
    return here


def parts_of(store):
    """What is not a hole in it, by pieces of a block."""
    return [at for at in range(0, len(store), 4096) if any(store[at : at + 4096])]


def test_a_store_with_bytes_flipped_never_shows_clean_what_was_dirty(worn, counts):
    here, rng = worn, worn.rng
    places = parts_of(here.bytes)
    program = here.ctl.command("bitmap check")[0]
    left = counts(100, 2000)
    while left > 0:
        n = min(left, rng.choice([1, 1, 2, 2, 10]))
        left -= n
        damaged = bytearray(here.bytes)
        for _ in range(n):
            at = rng.choice(places) + rng.randrange(rng.choice([64, 256, 4096]))
            damaged[at] ^= 1 << rng.randrange(8)
        serve_with(here, damaged)
        here.damaged.write_bytes(damaged)
        done = subprocess.run([program, "bitmap", "check", here.damaged], capture_output=True,
                              env=here.ctl.env, text=True)
        assert done.returncode in (0, 1), done.stderr


def serve_with(here, store):
    """Nothing that was dirty is clean; a bitmap may have gone, but not one of the settings."""
    here.crash(lambda: here.store.write_bytes(store))
    with here.server.options() as options:
        options.structured_reply()
        listed = options.list_contexts("disk", ["qemu:dirty-bitmap:"])
    assert "qemu:dirty-bitmap:b" in listed
    for context in listed:
        name = context.split(":", 2)[2]
        missing = here.truth[name] - here.dirty(name)
        assert not missing, (name, missing)


@pytest.mark.parametrize("length", [0, 1, 4095, 8192, 73_728, 139_264, 147_456, 180_000])
def test_a_store_that_is_cut_off_never_shows_clean_what_was_dirty(worn, length):
    serve_with(worn, worn.bytes[:length])


def test_a_store_whose_blocks_read_as_another_time_ago_is_not_believed(worn, counts):
    """Blocks of zeroes, or of another place in it."""
    places = parts_of(worn.bytes)
    for at, _ in zip(itertools.cycle(places), range(counts(10, 200))):
        damaged = bytearray(worn.bytes)
        source = worn.rng.choice(places)
        damaged[at : at + 4096] = worn.rng.choice([bytes(4096), worn.bytes[source : source + 4096]])
        serve_with(worn, damaged)


# The format


def test_the_store_is_as_its_format_is_documented(tracked, file_disk, counts):  # noqa: F811
    """Read by another program, which was written from docs/bitmap-format.md."""
    rng = seeded()
    here = tracked(file_disk(SIZE), Bitmap="first", **NARROW)
    here.bitmap("clear", "first")
    for number in range(counts(4, 40)):
        here.bitmap("add", f"n{number}")
        if rng.random() < 0.5:
            here.bitmap("disable", f"n{number}")
        load = Load(here, rng, n_clients=1)
        load.wait(rng.randrange(20, 400))
        if rng.random() < 0.5:
            here.checkpoint(f"c{number}")
        here.kill()
        load.stop()
        read = storefile.read(here.store)
        assert read.attached
        here.restart()
        rows = here.ctl.json("bitmap list", "disk")
        assert read.names() == [row["name"] for row in rows]
        for row in rows:
            assert read.state(row["name"]) == row["state"], row
            assert read.dirty(row["name"]) == here.dirty(row["name"]), row
    here.stop()
    read = storefile.read(here.store)
    assert not read.attached and read.armed == set()
