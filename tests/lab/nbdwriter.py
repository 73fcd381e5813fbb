# SPDX-License-Identifier: GPL-2.0-or-later
"""A writer that remembers what was acknowledged: blocks with a number in each, by direct I/O, from a
thread of its own.  Before it writes a block again it reads it: what came late from a connection that
is given up would be there.  Afterwards all are read back and compared."""

import mmap
import os
import random
import struct
import threading

from guest import PATIENCE

BLOCK = 4096
FEW = 64 * BLOCK                    # so that each is written again and again


def content_of(number):
    return struct.pack("<Q", number) * (BLOCK // 8)


class Writer:
    """`with Writer(device, size) as w:` writes until the end of the block.

    w.failed is what write() or fsync() failed with.  A block whose write failed, or that was under way,
    may hold either number.
    """

    def __init__(self, path, size, seed=1, first=0):
        self.path = path
        self.seed = seed
        self.first = first              # block
        self.n_blocks = size // BLOCK
        self.acknowledged = {}          # block -> number
        self.doubtful = set()
        self.failed = []
        self.stale = []                 # (block, number, what was there)
        self.n_done = 0
        self.ending = False
        self.progress = threading.Condition()
        self.thread = threading.Thread(target=self.run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ending = True
        self.thread.join(PATIENCE * 3)
        assert not self.thread.is_alive(), "the writer hangs"

    def run(self):
        chance = random.Random(self.seed)
        buffer = mmap.mmap(-1, BLOCK)
        fd = os.open(self.path, os.O_RDWR | os.O_DIRECT)
        number = self.seed << 32
        try:
            while not self.ending:
                number += 1
                block = self.first + chance.randrange(self.n_blocks)
                self.read(fd, buffer, block)
                self.write(fd, buffer, block, number)
        except OSError as error:
            with self.progress:
                self.failed.append(error)
                self.progress.notify_all()
        finally:
            os.close(fd)

    def read(self, fd, buffer, block):
        if block not in self.acknowledged:
            return
        os.preadv(fd, [buffer], block * BLOCK)
        if buffer[:] != content_of(self.acknowledged[block]):
            self.stale.append((block, self.acknowledged[block], buffer[:8]))

    def write(self, fd, buffer, block, number):
        buffer[:] = content_of(number)
        self.doubtful.add(block)
        os.pwrite(fd, buffer, block * BLOCK)
        if number % 8 == 0:
            os.fsync(fd)
        self.acknowledged[block] = number
        self.doubtful.discard(block)
        with self.progress:
            self.n_done += 1
            self.progress.notify_all()

    def wait_for_more(self, n, patience=PATIENCE):
        """Until n more were acknowledged."""
        with self.progress:
            want = self.n_done + n
            assert self.progress.wait_for(lambda: self.n_done >= want or self.failed, patience), \
                f"{self.n_done} writes, not {want}"
            assert not self.failed, self.failed

    def check(self, path):
        """All that was acknowledged is in the device or file."""
        assert self.acknowledged and self.stale == []
        os.sync()
        with open(path, "rb", buffering=0) as disk:
            os.posix_fadvise(disk.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            for block, number in self.acknowledged.items():
                if block in self.doubtful:
                    continue
                disk.seek(block * BLOCK)
                assert disk.read(BLOCK) == content_of(number), block
