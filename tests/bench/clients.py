# SPDX-License-Identifier: GPL-2.0-or-later
"""The clients that put load on a server, and what one cell yields: rates, latencies, CPU time
and memory of the server's whole process tree."""
import dataclasses
import json
import pathlib
import shutil
import subprocess
import time
from typing import Callable

import processes
from devices import Device
from processes import Failed
from servers import BITMAPS, EXPORT, SEARCH, Place, Server
from workloads import Workload

SLACK = 20              # seconds that a cell may take longer than it should
CONNECT_LIMIT = 30      # seconds for the idle connections to stand


@dataclasses.dataclass
class Sample:
    """One cell, once.  rate is in the workload's unit; missing figures are None."""
    rate: float
    requests: int | None = None
    bytes: int | None = None
    p50_us: float | None = None
    p99_us: float | None = None
    cpu_ns: int | None = None
    rss_kib: int | None = None
    tree_rate: float | None = None      # for memory: over the tree, where rate is one process

    @property
    def cpu_us_per_request(self):
        return self.cpu_ns / 1e3 / self.requests if self.cpu_ns and self.requests else None

    @property
    def cpu_ms_per_gib(self):
        return self.cpu_ns / 1e6 / (self.bytes / 2**30) if self.cpu_ns and self.bytes else None


@dataclasses.dataclass(frozen=True)
class Cell:
    """One server under one workload: what a client needs to know."""
    workload: Workload
    server: Server
    place: Place
    pid: int | None             # of the server; None: the device itself
    seconds: float
    folder: pathlib.Path

    def load(self, verb: str, *options) -> list:
        """A command line of nbd-load."""
        tls = ["--tls", "x509"] if self.server.tls else []
        return [self.place.build.load, verb, "--to", self.place.address, "--export", EXPORT,
                "--mode", self.server.replies, *tls, *options]

    @property
    def output(self):
        return self.folder / "client.out"

    def finish(self, client, limit: float) -> int:
        """Waits for a client, and returns the most memory that the server had meanwhile."""
        deadline = time.monotonic() + limit
        most, step = 0, max(0.1, self.seconds / 2)
        try:
            with processes.watched(client.pid) as ended:
                while not ended.poll(step * 1000):
                    if time.monotonic() > deadline:
                        raise Failed(f"the client was not done after {limit:.0f} s")
                    most = max(most, self.memory("VmHWM"))
        finally:
            if client.poll() is None:
                processes.end(client.pid)
                client.poll()
        if client.returncode:
            raise Failed(processes.complaint(self.output))
        return max(most, self.memory("VmHWM"))

    def memory(self, field: str, name: str = "") -> int:
        """KiB of the server's tree, or of those of its processes that have that name."""
        tree = processes.tree_of(self.pid) if self.pid else []
        return processes.memory_kib([p for p in tree if not name or processes.name_of(p) == name],
                                    field)

    def measure(self, argv) -> tuple[str, int, int]:
        """A client from start to end: its output, the server's CPU time and peak memory."""
        before = processes.cpu_ns(self.pid) if self.pid else 0
        client = processes.start(argv, self.output)
        most = self.finish(client, self.seconds * 2 + SLACK)
        used = processes.cpu_ns(self.pid) - before if self.pid else 0
        return self.output.read_text(), used, most

    def measure_json(self, argv) -> tuple[dict, int, int]:
        text, used, most = self.measure(argv)
        try:
            return json.loads(text[text.index("{"):]), used, most
        except ValueError as error:
            raise Failed(f"no JSON from {argv[0]}: {processes.complaint(self.output)}") from error


def load(cell: Cell) -> Sample:
    work = cell.workload
    told, used, most = cell.measure_json(cell.load(
        "run", "--op", work.op, "--read-percent", 70, "--pattern", work.pattern,
        "--block", work.block, "--depth", work.depth, "--connections", work.connections,
        "--seconds", cell.seconds, "--json"))
    if told["errors"]:
        raise Failed(f"{told['errors']} requests failed")
    rate = told["mb_per_s"] if work.by_volume else told["iops"]
    latency = told["latency_us"]
    return Sample(rate, told["requests"], told["bytes"], latency["p50"], latency["p99"],
                  used, most)


def fio_words(work: Workload, seconds: float) -> list:
    verb = {("random", "read"): "randread", ("random", "write"): "randwrite",
            ("random", "mix"): "randrw", ("sequential", "read"): "read",
            ("sequential", "write"): "write"}[work.pattern, work.op]
    return ["fio", "--name=bench", f"--rw={verb}", "--rwmixread=70", f"--bs={work.block}",
            f"--iodepth={work.depth}", f"--numjobs={work.connections}", "--group_reporting",
            "--time_based", f"--runtime={round(seconds * 1000)}ms", "--norandommap",
            "--output-format=json"]


def fio_sample(work: Workload, told: dict, used: int, most: int) -> Sample:
    job = told["jobs"][0]
    if job["error"]:
        raise Failed(f"fio: error {job['error']}")
    both = [job[way] for way in ("read", "write") if job[way]["total_ios"]]
    if not both:
        raise Failed("fio did nothing")
    rate = sum(way["bw_bytes"] / 1e6 if work.by_volume else way["iops"] for way in both)
    busiest = max(both, key=lambda way: way["total_ios"])
    points = busiest["clat_ns"].get("percentile", {})
    return Sample(rate, sum(way["total_ios"] for way in both),
                  sum(way["io_bytes"] for way in both),
                  points.get("50.000000", 0) / 1e3 or None,
                  points.get("99.000000", 0) / 1e3 or None, used or None, most or None)


def fio(cell: Cell) -> Sample:
    words = [*fio_words(cell.workload, cell.seconds), "--ioengine=nbd", f"--uri={cell.place.uri}"]
    return fio_sample(cell.workload, *cell.measure_json(words))


def direct(cell: Cell) -> Sample:
    """The device itself: the same load, without NBD; one job for each connection."""
    device: Device = cell.place.device
    words = [*fio_words(cell.workload, cell.seconds), "--ioengine=io_uring", "--direct=1",
             f"--filename={device.path}"]
    if cell.workload.pattern == "sequential" and cell.workload.connections > 1:
        words.append(f"--offset_increment={100 // cell.workload.connections}%")
    return fio_sample(cell.workload, *cell.measure_json(words))


def nbdcopy(cell: Cell) -> Sample:
    """Copies the device once; CPU and rate are over the whole run of nbdcopy."""
    start = time.monotonic()
    _, used, most = cell.measure(["nbdcopy", f"--connections={cell.workload.connections}",
                                  cell.place.uri, "null:"])
    size = cell.place.device.size
    return Sample(size / 1e6 / (time.monotonic() - start), None, size, None, None, used, most)


def connect(cell: Cell) -> Sample:
    told, used, most = cell.measure_json(cell.load("connect", "--seconds", cell.seconds,
                                                   "--json"))
    latency = told["latency_us"]
    return Sample(told["per_second"], told["connections"], None, latency["p50"], latency["p99"],
                  used, most)


def status(cell: Cell) -> Sample:
    """The best of a few passes over the whole file; a request is an extent here."""
    passes = 3
    told, used, most = cell.measure_json(cell.load("status", "--repeat", passes, "--json"))
    if told["extents"] < 2:
        raise Failed("tells no extents")
    return Sample(told["extents"] / min(told["seconds"]), told["extents"] * passes, None,
                  None, None, used, most)


def bitmap_map(cell: Cell) -> Sample:
    """Seconds for all of a bitmap's map, the best of a few, after writes all over the device."""
    passes = 5
    work = cell.workload
    cell.measure_json(cell.load(
        "run", "--op", "write", "--pattern", "random", "--block", work.block, "--depth", work.depth,
        "--connections", 1, "--requests", work.requests, "--json"))
    told, used, most = cell.measure_json(cell.load(
        "status", "--context", f"qemu:dirty-bitmap:{BITMAPS[0]}", "--mode", "extended",
        "--repeat", passes, "--json"))
    if told["extents"] < work.requests:
        raise Failed(f"tells {told['extents']} extents after {work.requests} writes")
    return Sample(min(told["seconds"]), told["requests"] * passes, None, None, None, used, most)


def wait_line(cell: Cell, client, line: str):
    """Until the client has printed that line; its output is a file, so asks again."""
    deadline = time.monotonic() + CONNECT_LIMIT
    with processes.watched(client.pid) as ended:
        while line not in cell.output.read_text().splitlines():
            if ended.poll(10):
                raise Failed(f"nbd-load: {processes.complaint(cell.output)}")
            if time.monotonic() > deadline:
                raise Failed(f"the connections did not stand after {CONNECT_LIMIT} s")


def idle(cell: Cell) -> Sample:
    """RSS: of our export's process beside our tree, of the peers' tree.  With connections, what
    each of them adds."""
    count = cell.workload.connections
    export = "nbd-export" if cell.memory("VmRSS", "nbd-export") else ""
    without = [cell.memory("VmRSS", name) for name in (export, "")]
    if not count:
        return Sample(without[0] / 1024, tree_rate=without[1] / 1024, rss_kib=without[1])
    client = processes.start(cell.load("idle", "--connections", count), cell.output,
                             stdin=subprocess.PIPE)
    try:
        wait_line(cell, client, "ready")
        with_them = [cell.memory("VmRSS", name) for name in (export, "")]
    finally:
        client.stdin.close()
        with processes.watched(client.pid) as ended:
            if not ended.poll(processes.PATIENCE * 1000):
                processes.end(client.pid)
        client.poll()
    one, tree = ((after - before) / count for before, after in zip(without, with_them))
    return Sample(one, tree_rate=tree, rss_kib=with_them[1])


@dataclasses.dataclass(frozen=True)
class Client:
    run: Callable[[Cell], Sample]
    program: str = ""           # empty: nbd-load, of the build folder
    package: str = ""

    def lacks(self, build) -> str:
        if self.program and not shutil.which(self.program, path=SEARCH):
            return f"{self.program} is missing: install the package {self.package}"
        if not self.program and not build.load.exists():
            return f"{build.load} is not built"
        return ""


CLIENTS = {
    "load": Client(load),
    "fio": Client(fio, "fio", "fio"),
    "direct": Client(direct, "fio", "fio"),
    "nbdcopy": Client(nbdcopy, "nbdcopy", "libnbd-bin"),
    "connect": Client(connect),
    "status": Client(status),
    "map": Client(bitmap_map),
    "idle": Client(idle),
}
