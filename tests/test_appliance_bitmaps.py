# SPDX-License-Identifier: GPL-2.0-or-later
"""Dirty bitmaps of exports that systemd starts, stops and starts again, in a container: after a stop, a
restart, SIGKILL and the end of the whole machine, and with a store that fails."""

import contextlib
import json
import pathlib
import re
import sys

import pytest

from conftest import MIB, PATIENCE
from seed import seeded
from tracked import GRANULE, differing, granules_of

sys.path.insert(0, str(pathlib.Path(__file__).parent / "lab"))
pytest.register_assert_rewrite("appliance", "machine")
from appliance import SIZE, client, ended, kill, service_of, uri  # noqa: E402

pytest_plugins = ["appliance"]
pytestmark = pytest.mark.timeout(180)

STORE = "/var/lib/nbd-export/{}"
NARROW = "BitmapRegion=256K\nBitmapArmLimit=64"
RECORDS, RECORD = 139_264, 4096             # docs/bitmap-format.md, with that arm limit
EVERYTHING = set(range(SIZE // GRANULE))

# A client that writes at random, 32 deep, until it is cut off; says so after a few hundred answers.
RANDOM = """
import nbd, random, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
print("connected", flush=True)
rng, answers = random.Random(int(sys.argv[2])), 0
def answered(error):
    global answers
    answers += not error
    if answers == 300:
        print("writing", flush=True)
    return 1
try:
    while True:
        while h.aio_in_flight() < 32:
            data = nbd.Buffer.from_bytearray(bytearray(rng.randbytes(8) * 512))
            h.aio_pwrite(data, rng.randrange(h.get_size() // 4096) * 4096, answered)
        h.poll(-1)
except nbd.Error:
    pass
"""

# A client that writes a kilobyte at each of the places that it is told.
WRITE = """
import nbd, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
for at in sys.argv[2:]:
    h.pwrite(b"here" * 256, int(at))
h.shutdown()
"""

# The granules that a client is told to be dirty.
ASK = """
import json, nbd, sys
name, found = "qemu:dirty-bitmap:" + sys.argv[2], []
h = nbd.NBD()
h.add_meta_context(name)
h.connect_uri(sys.argv[1])
assert h.can_meta_context(name), name + " is not offered"
def note(context, at, entries, error):
    for length, flags in zip(entries[::2], entries[1::2]):
        if flags & 1:
            found.append((at, length))
        at += length
h.block_status(h.get_size(), 0, note)
print(json.dumps(found))
"""


class Bitmaps:
    """nbdctl, and what clients do and see."""

    def __init__(self, machine):
        self.machine = machine

    def __call__(self, verb, *words):
        return self.machine.run("nbdctl", *verb.split(), *words)

    def refused(self, verb, *words):
        """Its sentence."""
        done = self.machine.ask("nbdctl", *verb.split(), *words)
        assert done.returncode == 1, (verb, words, done.stdout)
        return done.stderr

    def rows(self, verb, *words):
        (rows,) = json.loads(self(verb, "--json", *words)).values()
        return rows

    def state(self, label, name):
        return next(row["state"] for row in self.rows("bitmap list", label) if row["name"] == name)

    def write(self, label, *places):
        self.machine.run("python3", "-c", WRITE, uri(label), *places)

    def write_error(self, label, place):
        return self.machine.ask("python3", "-c", WRITE, uri(label), place).returncode

    def dirty(self, label, name):
        """The granules, as clients are told; nbdctl says the same."""
        told = json.loads(self.machine.run("python3", "-c", ASK, uri(label), name))
        shown = self.rows("bitmap show", label, name, "--extents")
        assert sum(length for _, length in told) == sum(row["length"] for row in shown)
        return {granule for stretch in told for granule in granules_of(*stretch)}

    def events(self, name, label):
        return self.machine.journal(100, f"EVENT={name}", f"EXPORT={label}", "-o", "cat") \
            .splitlines()

    @contextlib.contextmanager
    def load(self, label, rng):
        """Writes at random, which something ends."""
        child = self.machine.popen("python3", "-c", RANDOM, uri(label), rng.randrange(1 << 30))
        assert [child.stdout.readline() for _ in range(2)] == ["connected\n", "writing\n"]
        yield
        child.communicate(timeout=PATIENCE)


@pytest.fixture
def bitmaps(machine):
    return Bitmaps(machine)


# Starts and ends -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "loop", r"a:\x2d_."])
def test_a_bitmap_goes_on_through_stops_starts_and_restarts(
        machine, export, bitmaps, loop_device, kind):
    if kind == "loop" and not loop_device:
        pytest.skip("no loop device can be made here")
    label = f"goes-on-{kind}"
    device = export(label, device=loop_device if kind == "loop" else None)
    unit = service_of(label)
    bitmaps("bitmap add", label, "b")
    bitmaps.write(label, GRANULE)
    machine.run("systemctl", "stop", unit)
    assert machine.show(unit, "ActiveState") == "inactive"
    assert bitmaps.dirty(label, "b") == {1}         # which started it
    bitmaps.write(label, 5 * GRANULE - 512)
    machine.run("systemctl", "restart", unit)
    bitmaps.write(label, 9 * GRANULE)
    machine.run("systemctl", "stop", unit)
    machine.run("systemctl", "start", unit)
    assert bitmaps.dirty(label, "b") == {1, 4, 5, 9}
    assert bitmaps.state(label, "b") == "recording"
    assert bitmaps.events("bitmap-recovered", label) == bitmaps.events("bitmap-gap", label) == []

    # What is written past it while it is off is found by what the kernel counts, or the file's times.
    machine.run("systemctl", "stop", unit)
    machine.run("dd", "if=/dev/urandom", f"of={device}", "bs=4096", "count=2", "seek=64",
                "conv=notrunc,fsync")
    assert bitmaps.state(label, "b") == "gap" and bitmaps.dirty(label, "b") == EVERYTHING
    (said,) = bitmaps.events("bitmap-gap", label)
    assert "written by others" in said
    bitmaps("bitmap clear", label, "b")
    machine.run("systemctl", "restart", unit)
    assert bitmaps.state(label, "b") == "recording" and bitmaps.dirty(label, "b") == set()


def test_an_export_that_is_killed_under_load_has_all_that_was_written_dirty(
        machine, export, bitmaps, counts):
    rng = seeded()
    device = export("killed", f"Bitmap=always\n{NARROW}")
    bitmaps("bitmap clear", "killed", "always")
    bitmaps("checkpoint create", "c0", "killed")
    before = machine.read(device)
    for number in range(1, counts(2, 20) + 1):
        with bitmaps.load("killed", rng):
            kill(machine, service_of("killed"))
        dirty = bitmaps.dirty("killed", "c0")
        assert differing(before, machine.read(device)) <= dirty
        assert dirty <= bitmaps.dirty("killed", "always")
        assert len(bitmaps.events("bitmap-recovered", "killed")) == number
    assert bitmaps.state("killed", "c0") == "recording"


def boot_ids(machine, label):
    """That of the machine, and that which systemd gives the export."""
    pid = machine.show(service_of(label), "MainPID")
    environment = machine.run("cat", f"/proc/{pid}/environ").split("\0")
    given = next(word for word in environment if word.startswith("NBD_EXPORT_BOOT_ID="))
    return (machine.run("cat", "/proc/sys/kernel/random/boot_id").replace("-", ""),
            given.partition("=")[2])


def test_a_machine_that_is_gone_at_once_comes_back_with_all_that_was_written_dirty(
        machine, export, bitmaps, counts):
    rng = seeded()
    device = export("cut", NARROW)
    bitmaps("checkpoint create", "c0", "cut")
    before, boots = machine.read(device), set()
    for _ in range(counts(2, 10)):
        with bitmaps.load("cut", rng):
            own, given = boot_ids(machine, "cut")
            assert own == given
            boots.add(own)
            machine.cut()
        machine.boot()
        dirty = bitmaps.dirty("cut", "c0")
        assert differing(before, machine.read(device)) <= dirty != EVERYTHING
        assert bitmaps.state("cut", "c0") == "recording"
        bitmaps("checkpoint create", "next", "cut")     # from here on
        bitmaps("checkpoint delete", "cut", "c0")
        bitmaps("bitmap rename", "cut", "next", "c0")
        before = machine.read(device)
    assert len(boots) == counts(2, 10), "another life of the machine each time"


def test_a_bitmap_goes_on_after_the_machine_was_shut_down_unless_the_disk_was_changed_meanwhile(
        machine, export, bitmaps):
    device = export("rebooted")
    bitmaps("bitmap add", "rebooted", "b")
    bitmaps.write("rebooted", 3 * GRANULE)

    def left():
        return re.search("^left +(.*)", machine.run("nbdctl", "bitmap", "check",
                                                    STORE.format("rebooted") + "/bitmaps"), re.M)[1]

    machine.run("systemctl", "stop", service_of("rebooted"))
    assert left() == "clean"
    assert bitmaps.dirty("rebooted", "b") == {3}
    machine.reboot()
    assert left() == "clean, as the machine stopped"
    assert bitmaps.dirty("rebooted", "b") == {3}
    assert bitmaps.state("rebooted", "b") == "recording"
    machine.power_off()
    with open(machine.folder / "changes" / device.lstrip("/"), "r+b") as disk:
        disk.write(b"by another")
    machine.boot()
    assert bitmaps.dirty("rebooted", "b") == EVERYTHING
    assert bitmaps.state("rebooted", "b") == "gap"


# nbdctl ----------------------------------------------------------------------------


def test_all_that_nbdctl_does_with_bitmaps_it_does_to_an_export_of_systemd(
        machine, export, bitmaps):
    export("verbs")
    assert machine.show(service_of("verbs"), "ActiveState") == "inactive"
    bitmaps("bitmap add", "verbs", "daily", "weekly")        # starts it
    bitmaps.write("verbs", GRANULE)
    bitmaps("bitmap disable", "verbs", "daily")
    assert bitmaps.state("verbs", "daily") == "disabled"
    assert bitmaps.dirty("verbs", "daily") == {1}
    bitmaps("bitmap enable", "verbs", "daily")
    bitmaps("bitmap clear", "verbs", "weekly")
    bitmaps.write("verbs", 2 * GRANULE)
    assert bitmaps.dirty("verbs", "daily") == {1, 2}
    assert bitmaps.dirty("verbs", "weekly") == {2}
    bitmaps("bitmap add", "verbs", "none", "--disabled")
    bitmaps("bitmap merge", "verbs", "none", "weekly")
    assert bitmaps.dirty("verbs", "none") == {2}
    bitmaps.write("verbs", 0)                               # which it has not seen
    assert bitmaps.state("verbs", "none") == "gap" and bitmaps.dirty("verbs", "none") == EVERYTHING
    bitmaps("bitmap remove", "verbs", "none")
    bitmaps("bitmap rename", "verbs", "daily", "other")
    bitmaps("bitmap clear", "verbs", "weekly")
    assert bitmaps.dirty("verbs", "weekly") == set()
    bitmaps("bitmap remove", "verbs", "weekly")
    assert [row["name"] for row in bitmaps.rows("bitmap list", "verbs")] == ["other"]
    assert "verbs" in bitmaps.refused("bitmap clear", "verbs", "nothing")
    machine.run("systemctl", "restart", service_of("verbs"))
    assert [(row["name"], row["state"]) for row in bitmaps.rows("bitmap list", "verbs")] == \
        [("other", "recording")]
    assert bitmaps.dirty("verbs", "other") == {0, 1, 2}
    machine.run("systemctl", "stop", service_of("verbs"))
    machine.run("nbdctl", "bitmap", "check", STORE.format("verbs") + "/bitmaps")


def test_a_bitmap_that_a_client_has_selected_is_busy_until_it_is_forced(machine, export, bitmaps):
    export("busy")
    bitmaps("bitmap add", "busy", "b")
    user = client(machine, """
import nbd, sys
h = nbd.NBD()
h.add_meta_context("qemu:dirty-bitmap:b")
h.connect_uri(sys.argv[1])
print("connected", flush=True)
sys.stdin.readline()
try:
    h.pread(512, 0)
except nbd.Error:
    print("closed")
""", "busy")
    assert "127.0.0.1" in bitmaps.refused("bitmap remove", "busy", "b")
    bitmaps("bitmap remove", "busy", "b", "--force")
    user.stdin.write("\n")
    assert ended(user) == ["closed"]
    assert bitmaps.rows("bitmap list", "busy") == []


def test_a_checkpoint_is_one_moment_of_several_exports_of_systemd_or_of_none(
        machine, export, bitmaps):
    for label in ("one", "two"):
        export(label)
    bitmaps("checkpoint create", "monday", "one,two")
    bitmaps.write("one", 0)
    bitmaps("checkpoint create", "tuesday", "one,two")
    bitmaps.write("one", GRANULE)
    bitmaps.write("two", GRANULE)
    for label, first in (("one", [{"start": 0, "length": GRANULE}]), ("two", [])):
        assert bitmaps.rows("checkpoint delta", label, "monday", "tuesday") == first
        assert bitmaps.rows("checkpoint delta", label, "tuesday") == \
            [{"start": GRANULE, "length": GRANULE}]
    bitmaps("checkpoint delete", "two", "tuesday")
    assert "tuesday" in bitmaps.refused("checkpoint create", "tuesday", "two,one")
    assert [row["name"] for row in bitmaps.rows("checkpoint list", "two")] == ["monday"]
    kill(machine, service_of("one"))
    bitmaps("checkpoint delta", "one", "monday", "tuesday", "--bitmap", "copy")
    assert bitmaps.dirty("one", "copy") == {0}
    assert [row["name"] for row in bitmaps.rows("checkpoint list", "one")] == ["monday", "tuesday"]


# A full file system ----------------------------------------------------------------


@pytest.fixture
def small(machine, export, bitmaps):
    """small(on_error): the export "small", whose store is on a small file system, with a bitmap;
    returns what fills that, and what makes room again."""
    folder = STORE.format("small")
    full = f"{folder}/full"

    def fill():
        machine.ask("dd", "if=/dev/zero", f"of={full}", "bs=4096")
        assert machine.run("stat", "--file-system", "--format=%a", folder) == "0"

    def begin(on_error):
        export("small", f"OnBitmapError={on_error}\nBitmapCold=1\n{NARROW}")
        machine.run("systemctl", "start", service_of("small"))      # makes its folder
        machine.run("systemctl", "stop", service_of("small"))
        machine.run("mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", folder)
        machine.run("chown", "nbd-export:", folder)
        bitmaps("bitmap add", "small", "b")
        bitmaps.write("small", GRANULE)
        return fill, lambda: machine.run("rm", full)

    yield begin
    machine.ask("systemctl", "stop", service_of("small"))
    machine.ask("umount", folder)


def take_place(machine):
    """The store's records lose theirs, as on a device that promises more than it has."""
    machine.run("fallocate", "--punch-hole", f"--offset={RECORDS}", f"--length={2 * RECORD}",
                STORE.format("small") + "/bitmaps")


def test_a_file_system_that_is_full_does_not_hinder_a_store_that_is_there(machine, bitmaps, small):
    fill, _ = small("stop")
    fill()
    bitmaps.write("small", 9 * MIB)
    assert bitmaps.dirty("small", "b") == {1, 9 * MIB // GRANULE}
    assert "No space left" in bitmaps.refused("checkpoint create", "c", "small")
    bitmaps.write("small", 17 * MIB)
    machine.run("systemctl", "restart", service_of("small"))
    assert bitmaps.dirty("small", "b") == {1, 9 * MIB // GRANULE, 17 * MIB // GRANULE}


def test_with_stop_writes_fail_while_there_is_no_room_for_records_and_go_on_after(
        machine, bitmaps, small):
    fill, make_room = small("stop")
    take_place(machine)
    fill()
    assert bitmaps.write_error("small", 9 * MIB) != 0
    machine.run("nbdinfo", uri("small"))            # reads go on
    done = machine.ask("nbdctl", "status")
    assert done.returncode == 3 and "small" in done.stderr, done
    assert bitmaps.events("bitmap-store-failing", "small") != []
    make_room()
    machine.wait_for(lambda: bitmaps.write_error("small", 17 * MIB) == 0, "writes that go on")
    assert bitmaps.state("small", "b") == "recording"
    assert {1, 17 * MIB // GRANULE} <= bitmaps.dirty("small", "b") != EVERYTHING
    kill(machine, service_of("small"))
    assert {1, 17 * MIB // GRANULE} <= bitmaps.dirty("small", "b") != EVERYTHING


def test_with_lost_writes_go_on_while_there_is_no_room_and_the_loss_is_told_and_stays(
        machine, bitmaps, small):
    fill, make_room = small("lost")
    take_place(machine)
    fill()
    machine.wait_for(lambda: bitmaps.write_error("small", 9 * MIB) == 0, "writes that go on")
    assert bitmaps.state("small", "b") == "lost" and bitmaps.dirty("small", "b") == EVERYTHING
    assert bitmaps.events("bitmap-lost", "small") != []
    done = machine.ask("nbdctl", "status")
    assert done.returncode == 3 and "small" in done.stderr, done
    kill(machine, service_of("small"))
    make_room()
    assert bitmaps.state("small", "b") == "lost" and bitmaps.dirty("small", "b") == EVERYTHING
    bitmaps("bitmap clear", "small", "b")
    bitmaps.write("small", 0)
    machine.run("systemctl", "restart", service_of("small"))
    assert bitmaps.state("small", "b") == "recording" and bitmaps.dirty("small", "b") == {0}
