#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes corpus-NAME/ for each fuzz target: one good input per shape that a decoder knows.

The files are checked in; run this again, in this folder, when a format changes.  Those of
corpus-store are units of stores that the daemon has made, without the first 32 bytes.
"""
import pathlib
import struct


def pack(fmt, *fields):
    return struct.pack(">" + fmt, *fields)


def text(fmt, s):
    return pack(fmt, len(s)) + s


def go(name, *infos):
    return text("I", name) + pack(f"H{len(infos)}H", len(infos), *infos)


def meta(name, *queries):
    return text("I", name) + pack("I", len(queries)) + b"".join(text("I", q) for q in queries)


def request(mode, flags, kind, offset, length):
    magic = 0x21E41C71 if mode == 2 else 0x25609513
    return bytes([mode]) + pack("IHHQQQ" if mode == 2 else "IHHQQI", magic, flags, kind,
                                0x1122334455667788, offset, length)


def status_filter(n_selected, length, *ids):
    return bytes([3, n_selected]) + pack(f"Q{len(ids)}I", length, *ids)


def record(kind, body=b""):
    return pack("BBHI", 1, kind, 0, len(body)) + body


def reserve(mode, peer, identity, tls, *ids):
    return record(16, pack("IQBB", 9, 1, mode, 3) + text("H", peer) + text("H", identity)
                  + pack(f"H{len(ids)}I", len(ids), *ids) + text("H", tls))


def established(method, subject=b"", fingerprint=b"", psk=b"", *names):
    return record(2, pack("IQ", 9, 1) + text("H", b"TLS1.3") + text("H", b"TLS_AES_128_GCM_SHA256")
                  + pack("B", method) + text("H", subject) + text("H", fingerprint)
                  + text("H", psk) + pack("H", len(names)) + b"".join(text("H", n) for n in names))


ALL_QUERIES = b"base:allocation", b"base:", b"qemu:", b"qemu:dirty-bitmap:", b"qemu:allocation-depth"
SEEDS = {
    "option": {
        "client-flags": b"\0" + pack("I", 3),
        "header": b"\1" + b"IHAVEOPT" + pack("II", 7, 6),
        "go-default": b"\2" + go(b""),
        "go": b"\2" + go(b"disk", 0, 1, 2, 3, 99),
        "go-long": b"\2" + go(b"n" * 4096, 3),
        "export-name": b"\3disk",
        "meta-none": b"\4" + meta(b"disk"),
        "meta-all": b"\4" + meta(b"", *ALL_QUERIES),
        "meta-twice": b"\4" + meta(b"disk", b"qemu:dirty-bitmap:a", b"qemu:dirty-bitmap:a", b""),
        "meta-long": b"\4" + meta(b"disk", b"\0" * 4097, b"base:allocation"),
    },
    "request": {
        "read": request(0, 0, 0, 4096, 512),
        "write": request(1, 1, 1, 0, 33554432),
        "trim-extended": request(2, 0, 4, 1 << 40, 1 << 40),
        "write-extended": request(2, 0x20, 1, 0, 4096),
        "status-extended": request(2, 0x28, 7, 0, 12),
        "disconnect": request(2, 0, 2, 0, 0),
        "filter-one": status_filter(1, 4096, 1),
        "filter-many": status_filter(64, 1 << 50, *range(1, 65)),
    },
    "channel": {
        "offer": record(1, pack("QQHIIIH", 1, 1 << 40, 0x0D7D, 512, 4096, 33554432, 2)),
        "offer-read-only": record(1, pack("QQHIIIH", 2, 512, 3, 1, 4096, 4096, 0)),
        "context": record(2, pack("I", 2) + text("H", b"qemu:dirty-bitmap:caf\xc3\xa9")),
        "live": record(3, pack("Q", 5) + text("H", b"[::1]:4711")),
        "ready": record(4),
        "failed": record(5, pack("II", 0, 5) + text("H", b"cannot open")),
        "granted": record(6, pack("IQQQH", 9, 77, 5, 1 << 40, 0x1081)),
        "refused": record(7, pack("II", 9, 4) + text("H", b"no slot is free")),
        "gone": record(8, pack("QI", 5, 14)),
        "reserve": reserve(2, b"127.0.0.1:4711", b"", b"", 0, 1),
        "reserve-simple": reserve(0, b"", b"dn:CN=client", b"TLS1.3 AES"),
        "reserve-many": reserve(1, b"unix:pid=1,uid=0", b"", b"", *range(64)),
        "handoff": record(17, pack("Q", 77)),
        "abandon": record(18, pack("Q", 77)),
    },
    "tls-channel": {
        "hello": record(1, pack("BQ", 7, 1 << 31) + text("H", b"CN=server")),
        "hello-psk": record(1, pack("BQH", 2, 0, 0)),
        "anonymous": established(1),
        "certificate": established(2, b"CN=alice,O=Example", b"0a" * 32, b"",
                                   b"dns:a.example", b"email:a@b", b"uri:spiffe://a", b"ip:::1"),
        "certificate-many": established(2, b"", b"f9" * 32, b"", *[b"dns:x"] * 64),
        "key": established(3, b"", b"", b"bob"),
        "failed": record(3, pack("II", 9, 19) + text("H", b"it showed none")),
        "ended": record(4, pack("QI", 1, 14)),
        "start": record(16, pack("IIB", 9, 10000, 2) + text("H", b"127.0.0.1:4711")),
        "cancel": record(17, pack("I", 9)),
        "connect": record(18, pack("II", 9, 10000) + text("H", b"nbd.example") + text("H", b"x:1")),
    },
    "answer": {
        "greeting": b"\0NBDMAGICIHAVEOPT" + pack("H", 3),
        "ack": b"\1" + pack("QIII", 0x3E889045565A9, 7, 1, 0),
        "error": b"\1" + pack("QIII", 0x3E889045565A9, 7, 0x80000006, 40),
        "size": b"\2" + pack("HQH", 0, 1 << 40, 0x16D),
        "block-sizes": b"\2" + pack("HIII", 3, 1, 4096, 1 << 25),
        "name": b"\2" + pack("H", 1) + b"disk",
    },
}

for target, inputs in SEEDS.items():
    folder = pathlib.Path(__file__).parent / f"corpus-{target}"
    folder.mkdir(exist_ok=True)
    for name, content in inputs.items():
        (folder / name).write_bytes(content)
