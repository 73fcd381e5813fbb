# SPDX-License-Identifier: GPL-2.0-or-later
"""What is measured, a row each, and what ours is to reach there.

A name says client:operation-block-depth x connections[-tcp][-device]."""
import dataclasses

from devices import KIB, MIB
from servers import BY_TLS, PEERS, USUAL


@dataclasses.dataclass(frozen=True)
class Goal:
    """Floor and aim of each figure that counts; None where it does not.

    rate and cpu are against the best rival, null against the null server, size is absolute."""
    rate: tuple | None = (1.0, 1.0)
    cpu: tuple | None = None
    null: tuple | None = None
    size: tuple | None = None
    p99_lower: bool = False             # the aim includes a p99 below the best rival's
    beats_cached: bool = False          # the aim includes the peers that write to RAM
    at_least: str = ""                  # the floor includes this variant of ours


AHEAD = Goal(cpu=(1.0, 1.0))
READ_4K = Goal((2.5, 3.5), cpu=(0.3, 0.2))
WRITE_4K = Goal((2.5, 3.5), cpu=(0.3, 0.2), beats_cached=True)
FIO_4K = Goal((1.3, 1.7), null=(0.5, 0.6))
DEPTH_1 = Goal((1.0, 1.25), p99_lower=True)
LARGE = Goal((1.6, 2.0), cpu=(0.5, 0.4), null=(0.55, 0.75))
COPY = Goal((1.15, 1.4))
ZRAM = Goal((1.0, 1.25), at_least="ours-threads")
RINGS = Goal((0.95, 1.0))
BITMAP_4K = Goal((0.95, 1.0))
BITMAP_LARGE = Goal((0.99, 1.0))
TLS_LARGE = Goal((1.2, 1.5), cpu=(1.0, 0.8))
TLS_4K = Goal((1.0, 1.2))
CONNECT = Goal((0.5, 1.0))
STATUS = Goal((1.0, 2.0))


@dataclasses.dataclass(frozen=True)
class Workload:
    name: str
    title: str
    client: str                         # a row of clients.CLIENTS
    unit: str
    goal: Goal = AHEAD
    op: str = "read"                    # read, write, mix
    pattern: str = "random"
    block: int = 0
    depth: int = 1
    connections: int = 1
    transport: str = "unix"
    device: str = "loop"
    subject: str = "ours"
    rivals: tuple = PEERS               # the best of them is the measure
    servers: tuple = USUAL
    lower_is_better: bool = False
    requests: int = 0                   # to make before it is measured
    quick: bool = False

    @property
    def by_volume(self) -> bool:
        """CPU is told by GiB, not by request."""
        return self.unit == "MB/s"


def size_text(size: int) -> str:
    return f"{size // MIB}M" if size >= MIB else f"{size // KIB}k"


def io(client, op, block, depth, connections, goal=AHEAD, transport="unix", device="loop",
       pattern="random", **more) -> Workload:
    """A row of reads and writes; its name and title follow from the rest."""
    verb = {"random": "rand", "sequential": "seq"}[pattern] + op
    suffix = "".join(f"-{word}" for word in (transport, device) if word not in ("unix", "loop"))
    what = {"read": "read", "write": "write", "mix": "70/30 mix"}[op]
    many = f" × {connections} connections" if connections > 1 else ""
    by = "fio, " if client == "fio" else ""
    return Workload(
        f"{client}:{verb}-{size_text(block)}-{depth}x{connections}{suffix}",
        f"{by}{size_text(block)} {pattern} {what}, {depth}{many}, {transport}, {device}",
        client, "MB/s" if block >= 64 * KIB else "IOPS", goal, op, pattern, block, depth,
        connections, transport, device, **more)


# Depth 1 has its own goal on one connection; 32 and 64 have the on any number.
SMALL_GOALS = {("read", 1): DEPTH_1, ("write", 1): DEPTH_1, ("read", 32): READ_4K,
               ("read", 64): READ_4K, ("write", 32): WRITE_4K, ("write", 64): AHEAD}
QUICK_SMALL = {("read", 1, 1), ("read", 32, 1), ("read", 64, 2), ("write", 32, 1)}
SMALL = tuple(
    io("load", op, 4 * KIB, depth, connections, SMALL_GOALS[op, depth],
       quick=(op, depth, connections) in QUICK_SMALL)
    for op in ("read", "write") for depth in (1, 32, 64) for connections in (1, 2, 4))

LARGE_SHAPES = (("read", 64 * KIB, 16, "random"), ("read", 128 * KIB, 8, "sequential"),
                ("write", 128 * KIB, 8, "sequential"), ("read", MIB, 4, "sequential"),
                ("write", MIB, 4, "sequential"))
QUICK_LARGE = {("read", 64 * KIB, "unix"), ("read", 128 * KIB, "tcp"), ("read", MIB, "unix"),
               ("write", MIB, "unix")}
BIG = tuple(
    io("load", op, block, depth, 1, LARGE, transport, pattern=pattern,
       quick=(op, block, transport) in QUICK_LARGE)
    for transport in ("unix", "tcp") for op, block, depth, pattern in LARGE_SHAPES)

BY_FIO = (
    io("fio", "read", 4 * KIB, 1, 1, DEPTH_1),
    io("fio", "read", 4 * KIB, 32, 1, FIO_4K, quick=True),
    io("fio", "read", 4 * KIB, 32, 4, FIO_4K),
    io("fio", "write", 4 * KIB, 32, 1, FIO_4K),
    io("fio", "mix", 4 * KIB, 32, 1, FIO_4K),
    io("fio", "read", 4 * KIB, 32, 1, FIO_4K, "tcp"),
    *(io("fio", op, block, depth, 1, LARGE, transport, pattern="sequential")
      for transport in ("unix", "tcp") for op, block, depth, pattern in LARGE_SHAPES
      if pattern == "sequential"))

TCP_AND_ZRAM = (
    io("load", "read", 4 * KIB, 1, 1, DEPTH_1, "tcp"),
    io("load", "read", 4 * KIB, 32, 1, AHEAD, "tcp"),
    io("load", "write", 4 * KIB, 32, 1, AHEAD, "tcp"),
    *(io("load", op, 4 * KIB, depth, 1, ZRAM, device="zram",
         servers=(USUAL[0], "ours-threads", *USUAL[1:]), quick=(op, depth) == ("read", 32))
      for op in ("read", "write") for depth in (1, 32)),
    io("load", "read", MIB, 4, 1, AHEAD, device="zram", pattern="sequential"))

NO_DIRECT = tuple(name for name in USUAL if name != "direct")
SERVED = tuple(name for name in NO_DIRECT if name != "null")
NO_FORKS = tuple(name for name in SERVED if name != "nbd-server")
OTHERS = (
    Workload("nbdcopy-x4", "nbdcopy, 4 connections, unix, loop to null:",
             "nbdcopy", "MB/s", COPY, connections=4, servers=NO_DIRECT, quick=True),
    Workload("connect", "connect, GO, disconnect, one after the other", "connect", "per s",
             CONNECT, rivals=("qemu-uring", "qemu-native"), servers=NO_DIRECT, quick=True),
    Workload("status", "block status of 4 GiB in 65,536 extents", "status",
             "extents/s", STATUS, device="fragmented", servers=SERVED, quick=True),
    Workload("rss-idle", "RSS without a client", "idle", "MiB",
             Goal(None, size=(8, 6)), connections=0, servers=NO_FORKS, lower_is_better=True),
    Workload("rss-1000", "RSS per idle connection, at 1,000", "idle", "KiB",
             Goal(None, size=(6, 4)), connections=1000, servers=NO_FORKS,
             lower_is_better=True),
    *(dataclasses.replace(
        io("load", op, block, depth, 4, RINGS, pattern=pattern), name=f"rings-{name}",
        title=f"second ring: {name}, {depth} × 4 connections", subject="ours-2-rings",
        rivals=("ours",), servers=("ours", "ours-2-rings", "null"))
      for name, op, block, depth, pattern in (
          ("randread-4k", "read", 4 * KIB, 32, "random"),
          ("randwrite-4k", "write", 4 * KIB, 32, "random"),
          ("seqread-1M", "read", MIB, 4, "sequential"))))

# What dirty bitmaps cost, beside ours without any.
RANDOM_4K = io("load", "write", 4 * KIB, 32, 1)
LARGE_1M = io("load", "write", MIB, 4, 1, pattern="sequential")
HUGE_1, HUGE_32 = (io("load", "write", 4 * KIB, depth, 1, device="huge") for depth in (1, 32))
HUGE_1M = io("load", "write", MIB, 4, 1, device="huge", pattern="sequential")


def bitmaps(name, title, row, subject, goal=Goal(None), rivals=("ours-steady",)) -> Workload:
    return dataclasses.replace(row, name=f"bitmaps-{name}", title=f"dirty bitmaps: {title}",
                               goal=goal, subject=subject, rivals=rivals, quick=False,
                               servers=(*rivals, subject))


BITMAPS = (
    bitmaps("one-4k", "one, 4k random write", RANDOM_4K, "ours-bitmap", BITMAP_4K),
    bitmaps("ten-4k", "ten beside one, 4k random write", RANDOM_4K, "ours-10-bitmaps", BITMAP_4K,
            ("ours-bitmap",)),
    bitmaps("one-1M", "one, 1M sequential write", LARGE_1M, "ours-bitmap", BITMAP_LARGE),
    bitmaps("first-touch-1", "4k random write, depth 1, each the first into its region", HUGE_1,
            "ours-new-bitmap", rivals=("ours",)),
    bitmaps("first-touch-1M", "1M sequential write, all of it the first into its region", HUGE_1M,
            "ours-new-bitmap", rivals=("ours",)),
    bitmaps("first-touch-32", "4k random write, depth 32, each the first into its region", HUGE_32,
            "ours-many-regions", rivals=()),
    bitmaps("beyond-limit-4k", "4k random write over 16 times what may be armed", RANDOM_4K,
            "ours-few-regions", rivals=("ours",)),
    bitmaps("beyond-limit-32", "4k random write, depth 32, each beyond 1,024 regions", HUGE_32,
            "ours-new-bitmap", rivals=()),
    Workload("bitmaps-map-16T", "dirty bitmaps: the map of 16 TiB after 50,000 writes all over it",
             "map", "s", Goal(None, size=(1.0, 0.5)), block=4 * KIB, depth=64, device="huge",
             subject="ours-many-regions", rivals=(), servers=("ours-many-regions",),
             lower_is_better=True, requests=50_000))

# With TLS: against the peers with TLS, and 1 MiB against qemu-nbd.
IN_TLS = tuple(
    dataclasses.replace(row, name=f"tls-{name}", title=f"TLS: {row.title}", subject="ours-tls",
                        rivals=rivals, servers=BY_TLS, quick=False)
    for row, name, rivals in (
        *((io("load", op, MIB, 4, 1, TLS_LARGE, transport, pattern="sequential"),
           f"seq{op}-1M-{transport}", ("qemu-tls",))
          for transport in ("unix", "tcp") for op in ("read", "write")),
        *((io("load", op, 4 * KIB, 32, 1, TLS_4K, transport), f"rand{op}-4k-{transport}",
           ("qemu-tls", "nbdkit-tls"))
          for transport in ("unix", "tcp") for op in ("read", "write")),
        (Workload("", "handshakes, GO, disconnect, one after the other", "connect", "per s",
                  Goal(None)), "connect", ("qemu-tls", "nbdkit-tls"))))

WORKLOADS = (*SMALL, io("load", "mix", 4 * KIB, 32, 1), *BIG, *TCP_AND_ZRAM, *BY_FIO, *OTHERS,
             *BITMAPS, *IN_TLS)
