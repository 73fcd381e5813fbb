# SPDX-License-Identifier: GPL-2.0-or-later
"""Power cuts under load, in the guest of scripts/lab: two exports, the stores of their bitmaps on ext4
and on XFS, all on disks that lose what was not flushed (tests/lab/lossy.py).

QEMU is killed while clients write; each disk keeps what was flushed, and of the rest all, nothing
or some sectors.  After the next boot all that differs from the image of any checkpoint is dirty,
and what was acknowledged with FUA or before a flush is there.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading

import pytest

import guestlab
from conftest import KIB, MIB, needs_program, wait_until
from nbdwire import (
    CMD_FLAG_FUA, CMD_FLUSH, CMD_TRIM, CMD_WRITE, CMD_WRITE_ZEROES, SIMPLE, Client, Closed)
from seed import seeded
from tracked import DIRTY, GRANULE, KIND, differing, granules_of

sys.path.insert(0, str(pathlib.Path(__file__).parent / "lab"))
from lossy import SECTOR, LossyDisk  # noqa: E402  (its folder is not a package)

LIMIT = 1600                                 # seconds for a boot and what follows, on a busy machine
SIZE, STORE_SIZE, REGION = 32 * MIB, 320 * MIB, 256 * KIB
KINDS = ("ext4", "xfs")
BLOCK = 4 * KIB

pytestmark = pytest.mark.timeout(5000)

# What the guest does at each boot; /lab is shared with this side.
SCRIPT = """
set -eu
cd /lab
ip link set lo up
device=$(ls /sys/class/net | grep -v '^lo$')
ip address add 10.0.2.15/24 dev $device
ip link set $device up
if [ "$LAB_BOOT" = 1 ]; then
	for kind in ext4 xfs; do
		mkdir -p /var/lib/nbd-export/$kind
		echo "/dev/disk/by-id/virtio-store-$kind /var/lib/nbd-export/$kind $kind defaults 0 0"
	done >>/etc/fstab
	systemctl daemon-reload
	mount -a
	for kind in ext4 xfs; do
		nbdctl add $kind /dev/disk/by-id/virtio-data-$kind --allow 10.0.2.0/24 \
			--bitmap-region 256K --bitmap-arm-limit 64 --bitmap-cold 1
	done
	sync
fi
for kind in ext4 xfs; do
	nbdctl bitmap list $kind --json >$kind.json
	journalctl --sync
	journalctl -b -o cat EVENT=bitmap-recovered EXPORT=$kind >$kind.recovered
	findmnt -n -o FSTYPE /var/lib/nbd-export/$kind >$kind.type
done
touch up
until [ -e go ]; do sleep 0.1; done
nbdctl checkpoint create "$(cat go)" ext4,xfs
touch ready
while [ ! -e stop ]; do                             # edits that are cut off, too
	sleep 0.5
	nbdctl checkpoint create passing ext4,xfs || true
	nbdctl checkpoint delete ext4 passing || true
	nbdctl checkpoint delete xfs passing || true
done >>edits 2>&1
"""


def free_port():
    """One that nobody is given by chance between two boots."""
    for port in range(20000, 30000):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


class Guest:
    """The machine, and what it has shared."""

    def __init__(self, folder, cleanup):
        self.folder = folder
        self.share = folder / "share"
        self.share.mkdir()
        self.disks, self.options = {}, []
        self.cleanup = cleanup
        self.port = free_port()
        self.options += ["-netdev", f"user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:10809",
                         "-device", "virtio-net-pci,netdev=n"]
        self.child = None

    def add_disk(self, name, size):
        path = self.folder / f"{name}.socket"
        self.disks[name] = disk = LossyDisk(self.folder / name, size, path)
        self.cleanup.callback(disk.close)
        self.options += ["-drive", f"if=none,id={name},format=raw,discard=unmap,"
                         f"file=nbd+unix:///?socket={path}",
                         "-device", f"virtio-blk-pci,drive={name},serial={name}"]

    def boot(self):
        """Until it waits for `go`."""
        for name in ("up", "go", "ready", "stop"):
            (self.share / name).unlink(missing_ok=True)
        env = guestlab.environment(LIMIT, NBD_EXPORT_LAB_QEMU=" ".join(self.options))
        with open(self.folder / "console.log", "ab") as log:
            self.child = subprocess.Popen([guestlab.LAB, "guest", "boot", self.folder, "bash", "-c",
                                           SCRIPT],
                                          env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.wait_for("up")

    def wait_for(self, name):
        def there():
            assert self.child.poll() is None, self.said()
            return (self.share / name).exists()

        wait_until(there, f"{name} of the guest\n{self.said()}", LIMIT)

    def said(self):
        log = (self.folder / "console.log").read_text(errors="replace")
        return log[-4000:] + "".join((self.share / name).read_text(errors="replace")[-6000:]
                                     for name in ("edits", "journal")
                                     if (self.share / name).exists())

    def cut(self, rng):
        """SIGKILL of QEMU, and each disk forgets.  How many sectors were not flushed."""
        os.kill(int((self.folder / "qemu.pid").read_text()), signal.SIGKILL)
        assert self.child.wait(60) == 125
        self.child = None
        return sum(disk.cut(rng) for disk in self.disks.values())

    def power_off(self):
        """Once checkpoints of both have been made after the last cut."""
        (self.share / "go").write_text("last")
        self.wait_for("ready")
        before = self.n_edits()
        wait_until(lambda: self.n_edits() > before, f"a checkpoint\n{self.said()}", LIMIT)
        (self.share / "stop").touch()
        assert self.child.wait(LIMIT) == 0, self.said()
        self.child = None

    def n_edits(self):
        edits = self.share / "edits"
        return edits.read_text().count("made checkpoint passing of xfs") if edits.exists() else 0

    def end(self):
        if self.child:
            guestlab.end(self.child)

    def client(self, name, *bitmaps):
        return Client(("127.0.0.1", self.port), name, contexts=[KIND + word for word in bitmaps])

    def dirty(self, name, bitmap):
        with self.client(name, bitmap) as client:
            found, at = set(), 0
            while at < client.size:
                for length, flags in client.status(at, client.size - at)[KIND + bitmap]:
                    if flags & DIRTY:
                        found.update(granules_of(at, length))
                    at += length
            return found


@pytest.fixture
def guest(cleanup):
    for program in ("mkfs.ext4", "mkfs.xfs"):
        needs_program(program)
    guestlab.needs_guest()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="nbd-power-", dir="/var/tmp"))
    cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
    made = Guest(folder, cleanup)
    cleanup.callback(made.end)
    for kind, options in (("ext4", ["-q", "-F", "-E", "nodiscard"]), ("xfs", ["-q", "-K"])):
        store = folder / f"store-{kind}"
        with open(store, "wb") as file:
            file.truncate(STORE_SIZE)
        subprocess.run([needs_program(f"mkfs.{kind}"), *options, store], check=True, timeout=60)
        made.add_disk(f"store-{kind}", STORE_SIZE)
        made.add_disk(f"data-{kind}", SIZE)
    return made


class Truth:
    """What may be in each block of a disk: its content at the last cut, or what was written since,
    but nothing from before what was settled by FUA or a flush."""

    def __init__(self, content):
        self.begin(content)

    def begin(self, content):
        self.base = content
        self.written = {}                   # block: values, in order; one is in flight at most
        self.settled = {}                   # block: how many values are before the settled one
        self.acknowledged = {}

    def settle(self, blocks):
        for block, n in blocks.items():
            self.settled[block] = max(n, self.settled.get(block, -1))

    def check(self, content):
        for block, values in self.written.items():
            first = self.settled.get(block, -1)
            may = {struct.pack(">Q", value) * (SECTOR // 8) for value in values[max(first, 0):]}
            for at in range(block * BLOCK, (block + 1) * BLOCK, SECTOR):
                found = content[at : at + SECTOR]
                assert found in may or (first < 0 and found == self.base[at : at + SECTOR]), \
                    f"block {block} has {found[:8].hex()}: none of {values[max(first, 0):]}"
        for block in range(len(content) // BLOCK):
            if block not in self.written:
                at = block * BLOCK
                assert content[at : at + BLOCK] == self.base[at : at + BLOCK], f"block {block}"


class Load(threading.Thread):
    """A client that writes, zeroes, trims and flushes at random, 16 deep, until the power goes."""

    def __init__(self, guest, name, truth, rng):
        super().__init__(daemon=True)
        self.client, self.truth, self.rng = guest.client(name), truth, rng
        self.answers, self.wrong = 0, None
        self.busy, self.asked = {}, {}
        self.start()

    def run(self):
        try:
            with self.client, contextlib.suppress(Closed, ConnectionError, TimeoutError):
                while True:
                    while len(self.client.pending) < 16:
                        self.ask()
                    self.note(self.client.wait_any())
        except Exception as error:          # noqa: BLE001, for the thread that waits
            self.wrong = error

    def ask(self):
        rng, truth = self.rng, self.truth
        if rng.random() < 0.03:
            cookie = self.client.send_request(CMD_FLUSH)
            self.asked[cookie] = dict(truth.acknowledged)
            return
        block = rng.choice([0, 1000, rng.randrange(SIZE // BLOCK - 600)]) + rng.randrange(600)
        if block in self.busy:
            return
        kind = rng.choice([CMD_WRITE] * 6 + [CMD_WRITE_ZEROES, CMD_TRIM])
        value = rng.randrange(1, 1 << 64) if kind == CMD_WRITE else 0
        flags = CMD_FLAG_FUA if rng.random() < 0.1 and kind != CMD_TRIM else 0
        values = truth.written.setdefault(block, [])
        values.append(value)
        if kind == CMD_WRITE:
            data = struct.pack(">Q", value) * (BLOCK // 8)
            cookie = self.client.send_write(block * BLOCK, data, flags)
        else:
            cookie = self.client.send_request(kind, block * BLOCK, BLOCK, flags)
        self.busy[block] = cookie
        self.asked[cookie] = (block, len(values) - 1)

    def note(self, reply):
        reply.check()
        self.answers += 1
        request, what = reply.request, self.asked.pop(reply.request.cookie)
        if request.command == CMD_FLUSH:
            self.truth.settle(what)
            return
        block, n = what
        del self.busy[block]
        if request.command != CMD_TRIM:     # after which it may have what it had
            self.truth.acknowledged[block] = n
        if request.flags & CMD_FLAG_FUA:
            self.truth.settle({block: n})


class Rounds:
    """Checkpoints, their images, and what is true after each cut."""

    def __init__(self, guest, rng):
        self.guest, self.rng = guest, rng
        self.data = {kind: guest.disks[f"data-{kind}"] for kind in KINDS}
        self.truth = {kind: Truth(bytes(SIZE)) for kind in KINDS}
        self.images = {kind: {} for kind in KINDS}      # by checkpoint
        self.touched = {kind: {} for kind in KINDS}

    def checkpoint(self, name):
        (self.guest.share / "go").write_text(name)
        self.guest.wait_for("ready")
        for kind, disk in self.data.items():
            assert disk.content() == disk.medium(), "a checkpoint flushes the device"
            self.images[kind][name] = disk.content()
            self.touched[kind][name] = set()

    def load_until_cut(self):
        """How many sectors each disk had not been told to keep."""
        loads = {kind: Load(self.guest, kind, self.truth[kind], type(self.rng)(self.rng.random()))
                 for kind in KINDS}
        least = self.rng.randrange(20, 400)

        def enough():
            wrong = [load.wrong for load in loads.values() if load.wrong]
            assert not wrong, (wrong, self.guest.said())
            return all(load.answers >= least for load in loads.values())

        wait_until(enough, f"{least} answers\n{self.guest.said()}", LIMIT)
        lost = self.guest.cut(self.rng)
        for kind, load in loads.items():
            load.join(60)
            assert not load.is_alive() and not load.wrong, load.wrong
            for touched in self.touched[kind].values():
                touched.update(self.truth[kind].written)
        return lost

    def check(self):
        for kind, disk in self.data.items():
            content = disk.content()
            self.truth[kind].check(content)
            self.truth[kind].begin(content)
            self.check_bitmaps(kind, content)

    def check_bitmaps(self, kind, content):
        share = self.guest.share
        assert (share / f"{kind}.type").read_text() == f"{kind}\n"
        assert len((share / f"{kind}.recovered").read_text().splitlines()) == 1
        (rows,) = json.loads((share / f"{kind}.json").read_text()).values()
        states = {row["name"]: row["state"] for row in rows}
        states.pop("passing", None)
        assert states == dict.fromkeys(self.images[kind], "recording")
        for name, image in self.images[kind].items():
            dirty = self.guest.dirty(kind, name)
            missing = differing(image, content) - dirty
            assert not missing, (kind, name, missing)
            regions = {block * BLOCK // REGION for block in self.touched[kind][name]}
            assert {granule * GRANULE // REGION for granule in dirty} <= regions


def test_a_disk_that_forgets_keeps_what_was_flushed_and_sectors_as_they_were_at_some_time(
        cleanup, tmp_path):
    rng = seeded()
    disk = LossyDisk(tmp_path / "disk", MIB, tmp_path / "socket")
    cleanup.callback(disk.close)
    seen = set()
    for number in range(30):
        with Client(tmp_path / "socket", mode=SIMPLE) as client:
            client.write(0, b"f" * SECTOR)
            client.write(0, b"F" * SECTOR, CMD_FLAG_FUA)
            client.write(SECTOR, b"s" * SECTOR)
            client.flush()
            client.write(SECTOR, b"1" * SECTOR)
            client.write(SECTOR, b"2" * SECTOR)
            client.zero(2 * SECTOR, SECTOR) if number % 2 else \
                client.write(2 * SECTOR, b"x" * SECTOR)
            assert client.read(0, 2 * SECTOR) == b"F" * SECTOR + b"2" * SECTOR
        assert disk.cut(rng) == 2
        content = disk.content()
        assert content == disk.medium()
        assert content[:SECTOR] == b"F" * SECTOR and not any(content[3 * SECTOR:])
        assert len(set(content[SECTOR : 2 * SECTOR])) == 1
        seen.add(content[SECTOR : SECTOR + 1])
    assert seen == {b"s", b"1", b"2"}


def test_after_power_cuts_all_that_was_written_is_dirty_and_all_that_was_flushed_is_there(
        guest, counts):
    rng = seeded()
    rounds, lost = Rounds(guest, rng), []
    guest.boot()
    for number in range(1, counts(3, 20) + 1):
        rounds.checkpoint(f"c{number}")
        lost.append(rounds.load_until_cut())
        guest.boot()
        rounds.check()
    assert any(lost), "the disks had nothing to lose"
    guest.power_off()
