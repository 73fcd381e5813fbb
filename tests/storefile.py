# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads a store of bitmaps as docs/bitmap-format.md says, and shares nothing with daemon/dirty.

    store = read(path)          Damaged, if nothing is to be had from it
    store.dirty(name)           the granules that the bitmap shows, after an unclean end, too
    store.state(name), store.names(), store.attached, store.armed
"""

import struct

BLOCK, CATALOGUES, CATALOGUE = 4096, 8192, 65_536
PAGE_GRANULES, NONE = 32_256, 0xFFFFFFFF
STATES = ("recording", "disabled", "frozen", "gap", "lost")


class Damaged(Exception):
    pass


def crc_table():
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        yield value


CRC = tuple(crc_table())


def crc32c(*parts):
    crc = 0xFFFFFFFF
    for part in parts:
        for byte in part:
            crc = CRC[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


class Unit:
    """One that is right, or ValueError."""

    def __init__(self, data, at, size, magic, uuid=None):
        self.head = data[at : at + 64]
        if len(self.head) < 64 or self.head[:8] != magic:
            raise ValueError("not there")
        self.uuid = self.head[8:24]
        self.sequence, used, crc = *struct.unpack_from(">Q", self.head, 24), \
            *struct.unpack_from(">II", self.head, 56)
        self.body = data[at + 64 : at + used]
        if not 64 <= used <= size or len(self.body) != used - 64:
            raise ValueError("of a wrong size")
        if crc32c(self.head[:60], self.body) != crc or uuid not in (None, self.uuid):
            raise ValueError("damaged")

    def own(self, form, at):
        return struct.unpack_from(form, self.head, at)


def latest(units):
    """Of a unit's slots, by functions that read them, the one that counts."""
    right = []
    for take in units:
        try:
            right.append(take())
        except (ValueError, struct.error):
            pass
    return max(right, key=lambda unit: unit.sequence, default=None)


class Reader:
    """Takes a body apart."""

    def __init__(self, body):
        self.body, self.at = body, 0

    def __call__(self, form):
        values = struct.unpack_from(">" + form, self.body, self.at)
        self.at += struct.calcsize(">" + form)
        return values[0] if len(values) == 1 else values

    def text(self):
        n = self("H")
        return self(f"{n}s").decode()

    def areas(self):
        words = self("3Q")
        return {64 * i + bit for i in range(3) for bit in range(64) if words[i] >> bit & 1}


class Store:
    def __init__(self, data):
        self.data = data
        self.read_geometry()
        self.read_catalogue()
        self.read_record()
        self.deltas = {area: self.read_delta(area, number) for area, number in self.ids.items()}
        if self.attached and self.recording is not None:
            self.deltas[self.recording] |= self.armed

    def read_geometry(self):
        geometry = None
        for at in 0, BLOCK:
            try:
                geometry = geometry or Unit(self.data, at, BLOCK, b"NBDbmGEO")
            except ValueError:
                pass
        if not geometry:
            raise Damaged("no geometry")
        self.uuid = geometry.uuid
        version, self.granule_shift, self.region_shift, self.arm_limit = geometry.own(">IBBxxI", 32)
        if version != 1:
            raise Damaged(f"version {version}")
        (self.size, _, _, self.records, self.record_size, self.areas, self.area_size, _, self.pages,
         _, _) = struct.unpack_from(">QQQQQQQIIII", geometry.body)
        self.n_granules = -(-self.size >> self.granule_shift)
        self.everything = set(range(self.n_granules))

    def slots(self, at, size, magic, kind=Unit):
        return [lambda slot=slot: kind(self.data, at + slot * size, size, magic, self.uuid)
                for slot in range(2)]

    def read_catalogue(self):
        unit = latest(self.slots(CATALOGUES, CATALOGUE, b"NBDbmCAT"))
        if not unit:
            raise Damaged("no catalogue")
        take = Reader(unit.body)
        self.attached = take("B") == 1
        take("Q")
        self.device_size, _, recording, _, _ = take("QQIQQ")
        self.recording = None if recording == NONE else recording
        take("61s")
        self.identity = take.text()
        self.ids = dict(take("HQ") for _ in range(take("H")))
        self.bitmaps, self.groups = {}, {}
        for _ in range(take("H")):
            name, (state, flags, _, _) = take.text(), take("BBQQ")
            take.text()
            self.bitmaps[name] = (STATES[state], flags, take.areas(), take.areas())
            if flags & 8:
                self.groups[name] = take.text()

    def read_record(self):
        record = latest(self.slots(self.records, self.record_size, b"NBDbmREC"))
        self.armed, self.announced = set(), set()
        if not self.attached:
            return
        if not record:
            self.armed = self.everything
            return
        (_, n_regions, n_pages) = record.own(">QII", 32)
        words = struct.unpack(f">{n_regions + n_pages}I", record.body)
        width = 1 << (self.region_shift - self.granule_shift)
        for region in words[:n_regions]:
            self.armed |= set(range(region * width, (region + 1) * width)) & self.everything
        self.announced = {(word & 0x7FFFFFFF, word >> 31) for word in words[n_regions:]}

    def read_slot(self, at, number):
        """None: never written.  ValueError: damaged."""
        block = self.data[at : at + BLOCK].ljust(BLOCK, b"\0")
        if not any(block):
            return None
        unit = Unit(block, 0, BLOCK, b"NBDbmPAG", self.uuid)
        (written_for,) = unit.own(">Q", 32)
        if written_for > number:
            raise ValueError("of a later delta")
        return unit if written_for == number else None

    def read_delta(self, area, number):
        found = set()
        for page in range(self.pages):
            units, damaged = [], []
            for slot in range(2):
                at = self.areas + area * self.area_size + (2 * page + slot) * BLOCK
                try:
                    units.append(self.read_slot(at, number))
                except ValueError:
                    damaged.append(slot)
            first = page * PAGE_GRANULES
            torn = self.attached and area == self.recording and len(damaged) == 1 and \
                (page, damaged[0]) in self.announced
            if damaged and not torn:
                found |= set(range(first, first + PAGE_GRANULES)) & self.everything
            newest = max(filter(None, units), key=lambda unit: unit.sequence, default=None)
            for i, word in enumerate(struct.unpack(">504Q", newest.body) if newest else ()):
                while word:
                    bit = word & -word
                    found.add(first + 64 * i + bit.bit_length() - 1)
                    word ^= bit
        return found & self.everything

    def names(self):
        return list(self.bitmaps)

    def state(self, name):
        state, flags, _, missed = self.bitmaps[name]
        return "gap" if state == "disabled" and self.union(missed, flags & 4) else state

    def union(self, areas, and_recording):
        areas = areas | ({self.recording} if and_recording and self.recording is not None else set())
        return set().union(*(self.deltas[area] for area in areas))

    def dirty(self, name):
        _, flags, areas, _ = self.bitmaps[name]
        if self.state(name) in ("gap", "lost"):
            return self.everything
        return self.union(areas, flags & 2)


def read(path):
    with open(path, "rb") as file:
        return Store(file.read())
