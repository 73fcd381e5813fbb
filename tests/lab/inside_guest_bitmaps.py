# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests/test_guest.py runs in the guest about the stores of bitmaps: on dm-log-writes, replayed to
every flush; on dm-flakey, which drops writes or fails them; on a file system that is full."""

import contextlib
import os
import pathlib
import random
import shutil
import time

import nbd
import pytest

pytest.register_assert_rewrite("guest")
import storefile  # noqa: E402  (in tests/)
from guest import (  # noqa: E402
    MIB, ask, connect, events, run, show, state, wait_for)
from logwrites import LogWrites  # noqa: E402

pytest_plugins = ["guest"]

SIZE, GRANULE = 16 * MIB, 65536
STORES = pathlib.Path("/var/lib/nbd-export")
STORE_SIZE = {"ext4": 48 * MIB, "xfs": 320 * MIB}
NARROW = "BitmapRegion=256K\nBitmapArmLimit=64\nBitmapCold=1"

file_systems = pytest.mark.parametrize("kind", ["ext4", "xfs"])


def seeded():
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    return random.Random(seed)


def sectors(device):
    return run("blockdev", "--getsz", device)


class Store:
    """A file system on a device, where the export of that label keeps its bitmaps."""

    def __init__(self, stack, label, kind, device):
        self.folder, self.kind, self.device = STORES / label, kind, device
        self.path = self.folder / "bitmaps"
        words = {"ext4": ["-q", "-F", "-E", "nodiscard"], "xfs": ["-q", "-K"]}[kind]
        run(f"mkfs.{kind}", *words, device)
        self.folder.mkdir(parents=True, exist_ok=True)
        stack.callback(self.end)
        self.mount()

    def mount(self):
        run("mount", self.device, self.folder)

    def umount(self):
        run("umount", self.folder)

    def end(self):
        if self.folder.is_mount():
            self.umount()
        shutil.rmtree(self.folder)


@pytest.fixture
def bitmaps(stack, export, loop):
    """bitmaps(label, kind, store, data, more): an export whose store is on that device, with the
    checkpoint c0, and no client yet."""

    def make(label, kind, store=None, data=None, more=""):
        made = Store(stack, label, kind, store or loop(STORE_SIZE[kind]))
        export(label, data or loop(SIZE), f"{NARROW}\n{more}")
        stack.callback(stop, label)
        run("nbdctl", "checkpoint", "create", "c0", label)
        return made

    return make


def stop(label):
    run("systemctl", "stop", f"nbd-export@{label}.socket", f"nbd-export@{label}.service")


def start(label):
    run("systemctl", "start", f"nbd-export@{label}.socket")


def backing(device):
    """The file of a loop device, in which everything is that has been written to it."""
    return pathlib.Path(run("losetup", "--noheadings", "--output=BACK-FILE", device))


def differing(a, b):
    return {at // GRANULE for at in range(0, SIZE, GRANULE) if a[at : at + GRANULE] !=
            b[at : at + GRANULE]}


def dirty(label, name="c0"):
    context, found = f"qemu:dirty-bitmap:{name}", set()
    handle = nbd.NBD()
    handle.add_meta_context(context)
    handle.connect_uri(f"nbd://localhost/{label}")
    assert handle.can_meta_context(context)

    def note(_name, at, entries, _error):
        for length, flags in zip(entries[::2], entries[1::2]):
            if flags & 1:
                found.update(range(at // GRANULE, (at + length - 1) // GRANULE + 1))
            at += length

    handle.block_status(SIZE, 0, note)
    handle.shutdown()
    return found


class Writer:
    """A client that writes at random places, several at a time; what was answered without an error is
    in .written, as granules."""

    def __init__(self, label, rng):
        self.handle, self.rng, self.written, self.errors = connect(label), rng, set(), 0

    def write(self, n):
        """So many requests, until all are answered.  False: it was cut off."""
        try:
            for _ in range(n):
                self.ask()
            while self.handle.aio_in_flight():
                self.handle.poll(-1)
        except nbd.Error:
            return False
        return True

    def ask(self):
        at = self.rng.choice([0, self.rng.randrange(SIZE)]) // 2 + self.rng.randrange(SIZE // 2)
        at = min(at & ~4095, SIZE - 4096)

        def answered(error):
            if error:
                self.errors += 1
            else:
                self.written.add(at // GRANULE)
            return 1

        while self.handle.aio_in_flight() >= 16:
            self.handle.poll(-1)
        data = nbd.Buffer.from_bytearray(bytearray(self.rng.randbytes(16) * 256))
        self.handle.aio_pwrite(data, at, answered)


# dm-log-writes ----------------------------------------------------------------------


@contextlib.contextmanager
def mounted(path, kind, folder):
    """A copy of a file system's image, as after a power cut."""
    copy = path.with_suffix(".copy")
    run("cp", "--sparse=always", path, copy)
    folder.mkdir(exist_ok=True)
    run("mount", "-o", "loop", "-t", kind, copy, folder)
    yield
    run("umount", folder)
    copy.unlink()


@file_systems
def test_at_every_flush_the_store_shows_all_that_was_written(
        bitmaps, loop, stack, counts, kind):
    run("modprobe", "dm-log-writes")
    rng, label = seeded(), f"logged-{kind}"
    device, log = loop(STORE_SIZE[kind]), loop(512 * MIB)
    run("dmsetup", "create", label, "--table", f"0 {sectors(device)} log-writes {device} {log}")
    stack.callback(lambda: ask("dmsetup", "remove", "--retry", label))
    data = loop(SIZE)
    store = bitmaps(label, kind, store=f"/dev/mapper/{label}", data=data)

    written = {}

    def mark(name, granules):
        written[name] = set(granules)
        run("dmsetup", "message", label, "0", "mark", name)

    mark("0", [])
    writer = Writer(label, rng)
    for number in range(1, counts(6, 60) + 1):
        assert writer.write(rng.randrange(1, 40))
        if number % 3 == 0:
            run("nbdctl", "checkpoint", "create", f"c{number}", label)
        mark(f"{number}", writer.written)
    assert writer.errors == 0
    writer.handle.shutdown()
    stop(label)
    mark("left", writer.written)
    store.umount()
    run("dmsetup", "remove", "--retry", label)

    logged = LogWrites(log)
    image = pathlib.Path(f"/var/tmp/{label}.img")
    with image.open("wb") as file:
        file.truncate(STORE_SIZE[kind])
    stack.callback(image.unlink)
    first = next(i for i, entry in enumerate(logged.entries) if entry.mark == "0")
    flushes = [i for i, entry in enumerate(logged.entries) if entry.is_flush and i > first]
    chosen = sorted(rng.sample(flushes, min(len(flushes), counts(5, 1 << 30))))
    print(f"{len(logged.entries)} entries, {len(flushes)} flushes, {len(chosen)} of them tried")
    done, seen, folder = 0, "0", pathlib.Path(f"/var/tmp/{label}")
    for last in chosen:
        logged.replay(done, last, image)
        seen = [entry.mark for entry in logged.entries[:last] if entry.mark][-1]
        done = last + 1
        with mounted(image, kind, folder):
            run("nbdctl", "bitmap", "check", folder / "bitmaps")
            read = storefile.read(folder / "bitmaps")
            missing = written[seen] - read.dirty("c0")
            assert read.state("c0") == "recording" and not missing, (last, seen, missing)
    folder.rmdir()


# dm-flakey --------------------------------------------------------------------------


class Flakey:
    """A device-mapper device that works, drops what is written, or fails it."""

    def __init__(self, stack, name, device):
        self.name, self.device, self.path = name, device, f"/dev/mapper/{name}"
        run("dmsetup", "create", name, "--table", self.table("1000000 0"))
        stack.callback(run, "dmsetup", "remove", "--retry", name)
        stack.callback(self.work)

    def table(self, words):
        return f"0 {sectors(self.device)} flakey {self.device} 0 {words}"

    def change(self, words):
        run("dmsetup", "load", self.name, "--table", self.table(words))
        run("dmsetup", "suspend", "--noflush", "--nolockfs", self.name)
        run("dmsetup", "resume", self.name)

    def work(self):
        self.change("1000000 0")

    def drop_writes(self):
        self.change("0 1000000 1 drop_writes")

    def error_writes(self):
        self.change("0 1000000 1 error_writes")


@file_systems
def test_after_both_devices_have_stopped_to_take_writes_all_that_was_taken_is_dirty(
        bitmaps, loop, stack, counts, kind):
    """As a power cut: what comes after a moment is lost, of the data first."""
    run("modprobe", "dm-flakey")
    rng, label = seeded(), f"dropped-{kind}"
    devices = {"data": loop(SIZE), "store": loop(STORE_SIZE[kind])}
    flakey = {name: Flakey(stack, f"{label}-{name}", device) for name, device in devices.items()}
    store = bitmaps(label, kind, flakey["store"].path, flakey["data"].path)
    file = backing(devices["data"])
    before = file.read_bytes()
    for _ in range(counts(1, 20)):
        writer = Writer(label, rng)
        assert writer.write(rng.randrange(20, 200))
        child = os.fork()
        if child == 0:                          # goes on meanwhile
            while writer.write(100):
                pass
            os._exit(0)
        flakey["data"].drop_writes()
        flakey["store"].drop_writes()
        run("systemctl", "kill", "--signal=KILL", f"nbd-export@{label}.service")
        os.waitpid(child, 0)
        stop(label)
        store.umount()
        for device in flakey.values():
            device.work()
        store.mount()
        start(label)
        missing = differing(before, file.read_bytes()) - dirty(label)
        assert not missing, missing
        assert events("bitmap-recovered", label) != []
    handle = connect(label)
    handle.pwrite(bytes(4096), 0)
    handle.shutdown()


@pytest.mark.parametrize("on_error", ["lost", "stop"])
def test_while_the_device_under_the_store_fails_no_change_is_made_that_is_not_kept(
        bitmaps, loop, stack, on_error):
    run("modprobe", "dm-flakey")
    rng, label = seeded(), f"failing-{on_error}"
    device, data = loop(STORE_SIZE["ext4"]), loop(SIZE)
    flakey = Flakey(stack, f"{label}-store", device)
    store = bitmaps(label, "ext4", flakey.path, data, f"OnBitmapError={on_error}")
    file = backing(data)
    before = file.read_bytes()
    handle = connect(label)
    handle.pwrite(b"a" * 4096, 0)
    flakey.error_writes()
    failed, began, number = 0, time.monotonic(), 0
    while number < 60 or time.monotonic() < began + 5:      # it tries again each second
        number += 1
        try:
            handle.pwrite(rng.randbytes(4096), number * 4 * GRANULE % SIZE)
        except nbd.Error:
            failed += 1
    assert failed > 0, "new regions, without a record of them"
    assert handle.pread(4096, 0) == b"a" * 4096, "reads go on"
    handle.shutdown()
    assert events("bitmap-store-failing", label) or events("bitmap-lost", label)
    run("systemctl", "kill", "--signal=KILL", f"nbd-export@{label}.service")
    stop(label)
    store.umount()
    flakey.work()
    store.mount()
    start(label)
    missing = differing(before, file.read_bytes()) - dirty(label)
    assert not missing, missing
    again = Writer(label, rng)
    assert again.write(50) and again.errors == 0
    assert again.written <= dirty(label)
    again.handle.shutdown()


# A full file system -----------------------------------------------------------------


@file_systems
def test_a_store_on_a_full_file_system_goes_on_and_a_new_checkpoint_is_refused(
        bitmaps, loop, counts, kind):
    rng, label = seeded(), f"full-{kind}"
    data = loop(SIZE)
    store = bitmaps(label, kind, data=data, more="OnBitmapError=stop")
    before = backing(data).read_bytes()
    full = store.folder / "full"
    for block in MIB, 4096:
        ask("dd", "if=/dev/zero", f"of={full}", f"bs={block}", "oflag=append", "conv=notrunc")
    ask("sync", "--file-system", store.folder)
    writer = Writer(label, rng)
    for _ in range(counts(2, 20)):
        assert writer.write(100)
        done = ask("nbdctl", "checkpoint", "create", "c1", label)
        assert done.returncode == 1 and "No space left" in done.stderr, done
    assert writer.errors == 0
    run("systemctl", "kill", "--signal=KILL", f"nbd-export@{label}.service")
    wait_for(lambda: state(f"nbd-export@{label}.service") == "active", "restart")
    now = backing(data).read_bytes()
    assert differing(before, now) <= dirty(label) and writer.written <= dirty(label)
    full.unlink()
    run("nbdctl", "checkpoint", "create", "c1", label)
    assert dirty(label, "c1") == set()
    assert show(f"nbd-export@{label}.service", "ActiveState") == "active"
