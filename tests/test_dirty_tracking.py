# SPDX-License-Identifier: GPL-2.0-or-later
"""What bitmaps promise, with the daemon killed under load: what is told clean is clean, and not much
more is told dirty than was changed; copies made by the extents equal their source."""

import hashlib
import re
import threading

import pytest

import nbdwire
from conftest import GIB, KIB, MIB, needs_root, wait_until
from nbdctl import short_folder  # noqa: F401, a fixture
from nbdwire import RequestError
from seed import seeded
from tracked import DIRTY, GRANULE, KIND, Load, differing, granules_of, tracked  # noqa: F401

nbd = pytest.importorskip("nbd", reason="python3-libnbd is not installed")

SIZE = 64 * MIB
REGION, ARM_LIMIT = 256 * KIB, 64
NARROW = {"BitmapRegion": "256K", "BitmapArmLimit": ARM_LIMIT}
RECOVERED = re.compile(r"what it may have been writing \((\d+) regions\)")

servers = pytest.mark.parametrize("kind, engine, threads", [
    ("file", "threads", 1), ("file", "io_uring", 2), ("loop512", "io_uring", 1),
    ("loop4096", "threads", 2), ("zram", "io_uring", 2)])


# SIGKILL


@servers
def test_after_a_kill_under_load_all_that_differs_is_dirty_and_not_much_more(
        tracked, disk, counts, kind, engine, threads):  # noqa: F811
    rng = seeded()
    here = tracked(disk(kind, SIZE), Engine=engine, Threads=threads, **NARROW)
    here.checkpoint("c0")
    before, known, name = here.image(), set(), "c0"
    for number in range(1, counts(4, 40) + 1):
        load = Load(here, rng)
        load.wait(rng.randrange(20, 800))
        here.kill()
        load.stop()
        if rng.random() < 0.5:
            here.restart()
        dirty = here.dirty(name)
        assert differing(before, here.image()) <= dirty
        (regions,) = RECOVERED.findall(here.log())
        assert 0 < int(regions) <= ARM_LIMIT
        known |= load.touched
        assert len(dirty - known) * GRANULE <= int(regions) * REGION
        known |= dirty
        here.restart()
        if rng.random() < 0.5:
            name = f"c{number}"
            here.checkpoint(name)
            before, known = here.image(), set()
            assert here.dirty(name) == set()


def test_a_kill_while_nothing_is_written_makes_nothing_dirty_but_what_is_armed(
        tracked, file_disk):  # noqa: F811
    here = tracked(file_disk(SIZE), BitmapCold=5, **NARROW)
    here.bitmap("add", "b")
    here.write(MIB)
    wait_until(lambda: here.figures()["Armed"] == 0, "regions to be cold")
    here.write(8 * MIB)
    assert here.figures()["Armed"] == 1
    here.kill()
    assert here.dirty("b") == {16, 128, 129, 130, 131}
    assert "(1 regions) counts as changed, 256 KiB more" in here.log()
    here.kill()
    assert here.dirty("b") == {16, 128, 129, 130, 131}


# Chains of copies


class Copy:
    """A copy that is brought up to date by what a bitmap says, with libnbd."""

    def __init__(self, here):
        self.here = here
        self.data = bytearray(here.size())
        self.update(None)

    def update(self, bitmap):
        """Copies all, or what this bitmap shows as dirty."""
        client = nbd.NBD()
        if bitmap:
            client.add_meta_context(KIND + bitmap)
        client.connect_uri(f"nbd+unix:///disk?socket={self.here.server.socket}")
        for start, length in self.stretches(client, bitmap) if bitmap else [(0, len(self.data))]:
            for at in range(start, start + length, MIB):
                piece = client.pread(min(MIB, start + length - at), at)
                self.data[at : at + len(piece)] = piece
        client.shutdown()

    @staticmethod
    def stretches(client, bitmap):
        assert client.can_meta_context(KIND + bitmap)
        found = []

        def note(context, offset, entries, _error):
            if context == KIND + bitmap:
                for length, flags in zip(entries[::2], entries[1::2]):
                    if flags & DIRTY:
                        found.append((offset, length))
                    offset += length
                note.reached = offset

        note.reached = 0
        while note.reached < client.get_size():
            client.block_status(client.get_size() - note.reached, note.reached, note)
        return found

    def digest(self):
        return hashlib.sha256(self.data).hexdigest()


def one_step(here, rng, copy, number, last):
    """From the checkpoint before to a new one, with writers and crashes at any moment."""
    old, new, delta = f"c{number - 1}", f"c{number}", f"d{number}"
    load = Load(here, rng, n_clients=2)
    load.wait(rng.randrange(1, 300))

    def crash(likely):
        nonlocal load
        if rng.random() < likely:
            here.kill()
            load.stop()
            here.restart()
            load = Load(here, rng, n_clients=2)

    crash(0.5)
    if last:
        load.stop()
    here.checkpoint(new)
    if not last:
        crash(0.3)
    here("checkpoint delta", "disk", old, new, "--bitmap", delta)
    if not last:
        crash(0.3)
    copy.update(delta)
    load.stop()
    here.bitmap("remove", delta, "--force")
    here("checkpoint delete", "disk", old)


def test_a_copy_brought_up_to_date_by_chains_of_checkpoints_equals_its_source(
        tracked, disk, counts):  # noqa: F811
    rng = seeded()
    for chain in range(counts(5, 50)):
        kind, engine = rng.choice(["file", "tmpfs"]), rng.choice(["threads", "io_uring"])
        here = tracked(disk(kind, 16 * MIB), Engine=engine, Threads=rng.choice([1, 2]), **NARROW)
        if chain % 2:
            here.bitmap("add", "beside")
        with Load(here, rng) as load:
            load.wait(100)
            here.checkpoint("c0")
            copy = Copy(here)
        steps = rng.randrange(2, 5)
        for number in range(1, steps + 1):
            one_step(here, rng, copy, number, last=number == steps)
        assert copy.digest() == hashlib.sha256(here.image()).hexdigest()
        names = [row["name"] for row in here.ctl.json("bitmap list", "disk")]
        assert names == ["beside"] * (chain % 2) + [f"c{steps}"]
        here.stop()
        here.store.unlink()


# What marks, and what does not


@pytest.fixture(params=["file", "loop512", "loop4096", "zram", "ramfs"])
def marked(request, tracked, disk):  # noqa: F811
    """An export of each kind of disk, with a bitmap, and its client."""
    here = tracked(disk(request.param, 16 * MIB), **NARROW)
    here.bitmap("add", "b")
    here.user = here.client()
    return here


def request_of(name, flags=0):
    command = {"write-zeroes": nbdwire.CMD_WRITE_ZEROES, "trim": nbdwire.CMD_TRIM}[name]
    return lambda client, at, length: client.call(command, at, length, flags)


KINDS_OF_CHANGE = {
    "write": lambda client, at, length: client.write(at, b"x" * length),
    "fua": lambda client, at, length: client.write(at, b"x" * length, nbdwire.CMD_FLAG_FUA),
    "zero": request_of("write-zeroes"),
    "no-hole": request_of("write-zeroes", nbdwire.CMD_FLAG_NO_HOLE),
    "trim": request_of("trim"),
    "trim-fua": request_of("trim", nbdwire.CMD_FLAG_FUA),
}


def test_changes_of_each_kind_mark_the_granules_that_they_touch(marked):
    at = 0
    for start, length in [(0, GRANULE), (GRANULE - 1, 2), (4095, 1), (513, 3 * GRANULE)]:
        for name, change in KINDS_OF_CHANGE.items():
            at += 5 * GRANULE
            before = marked.image()
            change(marked.user, at + start, length)
            dirty = marked.dirty("b")
            touched = set(granules_of(at + start, length))
            assert differing(before, marked.image()) <= dirty
            # A trim may leave what it does not cover by whole sectors.
            assert dirty <= touched and (dirty == touched or name.startswith("trim")), name
            marked.bitmap("clear", "b", "--force")


def test_a_fast_zeroing_marks_its_granules_or_is_refused_and_changes_nothing(marked):
    marked.write(MIB, b"x" * MIB)
    marked.bitmap("clear", "b")
    before = marked.image()
    reply = marked.user.call(nbdwire.CMD_WRITE_ZEROES, MIB, 2 * GRANULE,
                             nbdwire.CMD_FLAG_FAST_ZERO)
    dirty = marked.dirty("b")
    assert dirty <= {16, 17}
    if reply.error:
        assert differing(before, marked.image()) == set()
    else:
        assert dirty == {16, 17}


def test_what_only_looks_marks_nothing_and_writes_nothing_to_the_store(marked):
    figures = marked.figures()
    marked.user.read(0, MIB)
    marked.user.read(4097, 13)
    marked.user.cache(0, MIB)
    marked.user.flush()
    assert marked.dirty("b") == set()
    assert marked.figures() == figures


def test_a_write_that_the_device_refuses_leaves_its_granules_dirty(
        tracked, mounted, disk_folder):  # noqa: F811
    needs_root()
    small = mounted("tmpfs", size=2 * MIB)
    path = small / "disk"
    path.touch()
    with open(path, "r+b") as file:
        file.truncate(8 * MIB)
    here = tracked(path)
    here.bitmap("add", "b")
    with here.client() as client:
        assert client.write_error(0, b"x" * 4 * MIB)
        assert here.dirty("b") >= set(granules_of(0, 2 * MIB))
        assert client.write_error(6 * MIB, b"x" * 512)
        client.read(0, 512)
    assert 96 in here.dirty("b")
    here.restart()
    assert 96 in here.dirty("b")


@pytest.mark.parametrize("name", ["trim", "write-zeroes"])
def test_a_change_of_more_than_may_be_armed_marks_all_of_it(
        tracked, tmpfs_disk, name):  # noqa: F811
    size = 8 * GIB
    disk = tmpfs_disk(size)
    here = tracked(disk, store=disk.with_name("bitmaps"), BitmapArmLimit=64, BitmapRegion="64K")
    here.bitmap("add", "b")
    with here.client("b") as client, here.client() as other:
        cookie = client.send_request(
            {"trim": nbdwire.CMD_TRIM, "write-zeroes": nbdwire.CMD_WRITE_ZEROES}[name],
            GRANULE + 512, 6 * GIB)
        for number in range(100):
            other.write(7 * GIB + number * MIB, b"x")       # does not wait for all that
        client.wait(cookie).check()
        extents = client.status(0, 7 * GIB)[KIND + "b"]
        assert extents == [(GRANULE, 0), (6 * GIB + GRANULE, DIRTY), (GIB - 2 * GRANULE, 0)]
    here.kill()
    with here.client("b") as client:
        after = client.status(0, 7 * GIB)[KIND + "b"]
        assert after[0][1] == 0 or after[0][0] >= 6 * GIB
        assert sum(length for length, flags in after if flags) <= 6 * GIB + GRANULE + 4 * MIB


# Edits beside clients


def test_edits_of_several_administrators_at_once_and_writes_do_not_hinder_each_other(
        tracked, file_disk, counts):  # noqa: F811
    rng = seeded()
    here = tracked(file_disk(SIZE), Threads=2, **NARROW)
    here.bitmap("add", "whole")
    before = here.image()
    said = []

    def administer(me):
        for number in range(counts(3, 30)):
            for verb, *words in (["add", f"{me}"], ["disable", f"{me}"], ["enable", f"{me}"],
                                 ["clear", f"{me}"], ["merge", f"{me}", "whole"],
                                 ["rename", f"{me}", f"{me}-{number}"], ["remove", f"{me}-{number}"]):
                child = here.start_verb(f"bitmap {verb}", "disk", *words)
                out, _ = child.communicate()
                if child.returncode:
                    said.append((verb, words, out))

    with Load(here, rng) as load:
        load.wait(50)
        threads = [threading.Thread(target=administer, args=(f"t{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert said == []
    assert [row["name"] for row in here.ctl.json("bitmap list", "disk")] == ["whole"]
    assert here.state("whole") == "recording"
    dirty = here.dirty("whole")
    assert differing(before, here.image()) <= dirty <= load.touched


def test_drain_reload_and_kick_beside_edits_lose_nothing(tracked, file_disk, counts):  # noqa: F811
    rng = seeded()
    here = tracked(file_disk(SIZE), **NARROW)
    here.bitmap("add", "b")
    before, touched = here.image(), set()
    for number in range(counts(3, 30)):
        with here.client() as client:
            at = rng.randrange(SIZE // GRANULE) * GRANULE
            cookies = [client.send_write((at + n * 512) % SIZE, rng.randbytes(512))
                       for n in range(64)]
            touched |= {(at + n * 512) % SIZE // GRANULE for n in range(64)}
            commands = [here.start_verb("checkpoint create", f"c{number}", "disk"),
                        here.start_verb("reload", "disk"),
                        here.start_verb("kick", "disk", "--all")]
            commands.append(here.start_verb("drain", "disk") if number % 2 else
                            here.start_verb("bitmap add", "disk", f"b{number}"))
            answers = [child.communicate()[0] for child in commands]
            del cookies
        if number % 2:
            here("resume", "disk")
        if commands[0].returncode == 0:
            assert here.state(f"c{number}") == "recording"
        else:
            assert "stop" in answers[0] or "drain" in answers[0], answers[0]
        dirty = here.dirty("b")
        assert differing(before, here.image()) <= dirty <= touched
    assert here.state("b") == "recording"


# What it costs


def steps_of_the_store(here, rng):
    """(records, pages) that the same writes cost."""
    before = here.figures()
    with here.client() as client:
        for _ in range(200):
            client.write(rng.randrange(16) * 4 * MIB + rng.randrange(MIB), b"x" * 512)
    after = here.figures()
    return [after[name] - before[name] for name in ("Records", "PageWrites")]


def test_ten_bitmaps_cost_the_store_what_one_does_and_armed_regions_nothing(
        tracked, file_disk):  # noqa: F811
    rng = seeded()
    here = tracked(file_disk(SIZE), BitmapRegion="4M", BitmapCold=250)
    here.bitmap("add", "b0")
    one = steps_of_the_store(here, type(rng)(1))
    assert 1 <= one[0] <= 16 and one[1] == 0
    assert steps_of_the_store(here, type(rng)(1)) == [0, 0]
    here.bitmap("clear", "b0")
    here.bitmap("add", *(f"b{n}" for n in range(1, 10)))
    assert steps_of_the_store(here, type(rng)(1)) == [0, 0], "what is armed stays armed at a cut"
    here.restart()
    assert steps_of_the_store(here, type(rng)(1)) == one
    with pytest.raises(RequestError), here.client() as client:
        client.write(SIZE, b"x")
    assert all(here.dirty(f"b{n}") == here.dirty("b0") for n in range(1, 10))
