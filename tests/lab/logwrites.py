# SPDX-License-Identifier: GPL-2.0-or-later
"""What dm-log-writes has logged: all that was written to a device, and when it was durable.

    log = LogWrites(path)           the log device
    log.entries                     [Entry]; .is_flush and .mark are what there is to look at
    log.replay(first, last, path)   writes entries first to last to a file or device
"""

import dataclasses
import struct

MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8


@dataclasses.dataclass
class Entry:
    at: int                         # bytes, as are all here
    length: int
    flags: int
    mark: str                       # its name, or nothing
    data: int                       # where in the log

    @property
    def is_flush(self):
        """All before it, and itself, is durable."""
        return bool(self.flags & (FLUSH | FUA))


class LogWrites:
    def __init__(self, path):
        self.path = path
        with open(path, "rb") as log:
            magic, version, n, self.sector = struct.unpack("<QQQI", log.read(28))
            assert (magic, version) == (MAGIC, 1), "not a log of dm-log-writes"
            self.entries, at = [], self.sector
            for _ in range(n):
                log.seek(at)
                sector, n_sectors, flags, length = struct.unpack("<QQQQ", log.read(32))
                mark = log.read(length).decode() if flags & MARK else ""
                at += self.sector
                self.entries.append(Entry(sector * self.sector, n_sectors * self.sector, flags,
                                          mark.rstrip("\0"), at))
                if not flags & (DISCARD | MARK):
                    at += n_sectors * self.sector

    def replay(self, first, last, path):
        with open(self.path, "rb") as log, open(path, "r+b") as target:
            for entry in self.entries[first : last + 1]:
                if entry.flags & MARK or not entry.length:
                    continue
                log.seek(entry.data)
                target.seek(entry.at)
                target.write(bytes(entry.length) if entry.flags & DISCARD else
                             log.read(entry.length))
