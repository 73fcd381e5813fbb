# SPDX-License-Identifier: GPL-2.0-or-later
"""What the servers serve, all of it in memory: a loop device with direct I/O, a zram device,
a fragmented file and a huge one, on a tmpfs of this run's own; and a folder for what a server keeps,
on a disk.  Everything is removed at the end."""
import contextlib
import dataclasses
import fcntl
import os
import pathlib
import select
import shutil
import tempfile
import time

from processes import PATIENCE, Failed, run
from stopping import stopping

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
BLKFLSBUF = 0x1261
LOOP_SIZE = GIB
ZRAM_SIZE = 512 * MIB
FRAGMENTED_SIZE, EXTENTS = 4 * GIB, 65536
HUGE_SIZE = 16 * TIB
KEPT = os.environ.get("NBD_EXPORT_TEST_DISKS", "/var/tmp")     # a real file system
NEEDED = 3 * GIB
ZRAM_CONTROL = pathlib.Path("/sys/class/zram-control")


@dataclasses.dataclass(frozen=True)
class Device:
    path: pathlib.Path
    size: int
    sparse: bool = False        # and it stays so

    def settle(self):
        """What a server left in the page cache is written and forgotten."""
        if self.sparse:
            os.truncate(self.path, 0)
            os.truncate(self.path, self.size)
        with open(self.path, "rb") as opened:
            if self.path.is_block_device():
                fcntl.ioctl(opened, BLKFLSBUF)
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def content() -> bytes:
    """1 MiB of which every 4 KiB are half random, half zeroes: zram gets 2:1."""
    return b"".join(os.urandom(2 * KIB) + bytes(2 * KIB) for _ in range(256))


def fill(path: pathlib.Path, size: int):
    piece = content()
    with open(path, "r+b", buffering=0) as opened:
        for _ in range(size // len(piece)):
            opened.write(piece)
        os.fsync(opened.fileno())


def again_until(act, what: str):
    """For what the kernel refuses while somebody still looks at a device."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return act()
        except (OSError, Failed) as error:
            if time.monotonic() > deadline:
                raise Failed(f"{what}: {error}") from error
            select.poll().poll(20)


class Devices:
    """Makes each device when it is first asked for; close() removes all of them."""

    def __init__(self):
        self.undo = contextlib.ExitStack()
        self.made: dict[str, Device | Failed] = {}
        self.folder = self.kept = None

    def close(self):
        self.undo.close()

    def prepare(self):
        """The tmpfs, which also holds sockets and outputs."""
        if os.geteuid() != 0:
            raise Failed("making a tmpfs, loop and zram devices needs root")
        available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if available < NEEDED:
            raise Failed(f"needs {NEEDED >> 30} GiB of free memory, has {available >> 20} MiB")
        with stopping.later():
            self.folder = pathlib.Path(tempfile.mkdtemp(prefix="nbd-bench."))
            self.undo.callback(shutil.rmtree, self.folder, ignore_errors=True)
            run("mount", "-t", "tmpfs", "-o", f"mode=700,size={NEEDED}", "tmpfs", self.folder)
            self.undo.callback(again_until, lambda: run("umount", self.folder),
                               f"{self.folder} cannot be unmounted")
            self.kept = pathlib.Path(tempfile.mkdtemp(prefix="nbd-bench.", dir=KEPT))
            self.undo.callback(shutil.rmtree, self.kept, ignore_errors=True)

    def get(self, name: str) -> Device:
        if name not in self.made:
            try:
                self.made[name] = MAKERS[name](self)
            except (Failed, OSError) as failure:
                self.made[name] = Failed(f"no {name} device: {failure}")
        if isinstance(self.made[name], Failed):
            raise self.made[name]
        return self.made[name]

    def loop(self) -> Device:
        backing = self.folder / "loop.raw"
        backing.touch()
        os.truncate(backing, LOOP_SIZE)
        fill(backing, LOOP_SIZE)
        with stopping.later():
            path = pathlib.Path(run("losetup", "--find", "--show", "--direct-io=on", backing))
            self.undo.callback(again_until, lambda: run("losetup", "--detach", path),
                               f"{path} cannot be detached")
        if pathlib.Path(f"/sys/block/{path.name}/loop/dio").read_text().strip() != "1":
            raise Failed("no direct I/O for loop devices on tmpfs: needs Linux 6.6 or later")
        return Device(path, LOOP_SIZE)

    def zram(self) -> Device:
        if not ZRAM_CONTROL.exists():
            with contextlib.suppress(Failed):
                run("modprobe", "zram")
        if not ZRAM_CONTROL.exists():
            raise Failed("the kernel has no zram")
        with stopping.later():
            number = int((ZRAM_CONTROL / "hot_add").read_text())
            self.undo.callback(again_until, lambda: remove_zram(number),
                               f"zram{number} cannot be removed")
            pathlib.Path(f"/sys/block/zram{number}/disksize").write_text(str(ZRAM_SIZE))
        path = pathlib.Path(f"/dev/zram{number}")
        fill(path, ZRAM_SIZE)
        return Device(path, ZRAM_SIZE)

    def fragmented(self) -> Device:
        """Data and hole by turns: 65,536 extents of 64 KiB, of which little is data."""
        path = self.folder / "fragmented.raw"
        step = 2 * FRAGMENTED_SIZE // EXTENTS
        with open(path, "wb", buffering=0) as opened:
            opened.truncate(FRAGMENTED_SIZE)
            for offset in range(0, FRAGMENTED_SIZE, step):
                os.pwrite(opened.fileno(), b"data" * KIB, offset)
        return Device(path, FRAGMENTED_SIZE)

    def huge(self) -> Device:
        """Holes, but for what is written until the next cell."""
        path = self.folder / "huge.raw"
        path.touch()
        os.truncate(path, HUGE_SIZE)
        return Device(path, HUGE_SIZE, sparse=True)


def remove_zram(number: int):
    pathlib.Path(f"/sys/block/zram{number}/reset").write_text("1")
    (ZRAM_CONTROL / "hot_remove").write_text(str(number))


MAKERS = {"loop": Devices.loop, "zram": Devices.zram, "fragmented": Devices.fragmented,
          "huge": Devices.huge}
