# SPDX-License-Identifier: GPL-2.0-or-later
"""The servers: ours, the peers at their best settings, and the null server; how each is
started on a device, known to be ready, and ended."""
import contextlib
import dataclasses
import os
import pathlib
import re
import shutil
import socket
import subprocess
import time
from typing import Callable

import certificates
import processes
from devices import Device
from processes import Failed
from stopping import stopping

SEARCH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
EXPORT = "disk"
BITMAPS = [f"b{i}" for i in range(10)]
USUAL_CONNECTIONS = 200 # ours takes so many, and those in their handshake, without being told
START_LIMIT = 10        # seconds


@dataclasses.dataclass(frozen=True)
class Build:
    """What is measured: a build folder of ours, its load generator, settings to try."""
    folder: pathlib.Path
    load: pathlib.Path
    settings: dict

    @property
    def nbdctl(self):
        return self.folder / "daemon/ctl/nbdctl"


@dataclasses.dataclass(frozen=True)
class Place:
    """Where one server of one cell works: its device, its address, a folder of its own."""
    device: Device
    folder: pathlib.Path
    kept: pathlib.Path          # another one, on a disk
    port: int | None            # None: the unix socket
    build: Build
    connections: int            # how many there will be

    @property
    def socket(self):
        return self.folder / "nbd.sock"

    @property
    def output(self):
        return self.folder / "server.out"

    @property
    def address(self):
        return f"tcp:127.0.0.1:{self.port}" if self.port else f"unix:{self.socket}"

    @property
    def uri(self):
        if self.port:
            return f"nbd://127.0.0.1:{self.port}/{EXPORT}"
        return f"nbd+unix:///{EXPORT}?socket={self.socket}"

    def pick(self, unix, tcp):
        """Words of a command line, by transport."""
        return tcp if self.port else unix


@dataclasses.dataclass(frozen=True)
class Server:
    name: str
    title: str
    program: str = ""                   # empty: not a peer's program
    package: str = ""
    command: Callable[[Place], list] | None = None      # None: the device itself, by fio
    cached: bool = False                # writes end in the page cache
    daemon: bool = False                # leaves its parent, and a pid file
    probed: bool = True                 # ready when it greets; else when its pid file is there
    replies: str = "structured"         # the best that it can be asked for
    version: str = "--version"
    tls: bool = False                   # demands it, and no certificate of the client
    prepare: Callable[[Place], None] = lambda place: None       # once it is ready

    @property
    def peer(self):
        return bool(self.program)

    def lacks(self) -> str:
        """Why it cannot be measured here, or nothing."""
        if self.peer and not shutil.which(self.program, path=SEARCH):
            return f"{self.program} is missing: install the package {self.package}"
        return ""

    def version_here(self) -> str:
        if not self.peer or self.lacks():
            return ""
        done = subprocess.run([shutil.which(self.program, path=SEARCH), self.version],
                              capture_output=True, text=True, timeout=10, check=False,
                              stdin=subprocess.DEVNULL)
        found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
        return f"{self.program} {found[0]}" if found else ""


def ours(tls=False, **fixed):
    """Ours by `nbdctl serve`; settings that have no option go by a folder of LABEL.conf."""
    def command(place: Place) -> list:
        settings = place.build.settings | fixed
        if "Bitmap" in settings:
            settings = {"BitmapStore": place.kept / "bitmaps"} | settings
        if place.connections > USUAL_CONNECTIONS:
            settings = {"MaxConnections": place.connections + 100, "Memory": "1G"} | settings
        where = place.pick(["--unix", place.socket], ["--listen", f"127.0.0.1:{place.port}"])
        if tls:
            where += ["--tls-required", "--tls", certificates.server_in(place.folder.parent)]
        serve = [place.build.nbdctl, "serve", *where]
        if not settings:
            return [*serve, f"{EXPORT}={place.device.path}"]
        config = place.folder / "exports"
        config.mkdir()
        lines = {"Device": place.device.path} | settings
        (config / f"{EXPORT}.conf").write_text(
            "[Export]\n" + "".join(f"{key}={value}\n" for key, value in lines.items()))
        return [*serve, "--config", config]
    return command


def null(place: Place) -> list:
    return [place.build.load, "null", "--listen", place.address, "--size", place.device.size]


def qemu_nbd(aio: str, tls=False):
    def command(place: Place) -> list:
        where = place.pick(["-k", place.socket], ["-b", "127.0.0.1", "-p", place.port])
        if tls:
            where += ["--tls-creds=tls0", "--object",
                      "tls-creds-x509,id=tls0,endpoint=server,verify-peer=no,"
                      f"dir={certificates.folder_in(place.folder.parent)}"]
        return ["qemu-nbd", "-f", "raw", "--cache=none", f"--aio={aio}", "--discard=unmap",
                "-e", 0, "-t", "-x", EXPORT, *where, place.device.path]
    return command


def storage_daemon(place: Place) -> list:
    """In Debian 12 it aborts whenever a client leaves, so that no probe may come first."""
    kind = "host_device" if place.device.path.is_block_device() else "file"
    where = place.pick(f"addr.type=unix,addr.path={place.socket}",
                       f"addr.type=inet,addr.host=127.0.0.1,addr.port={place.port}")
    return ["qemu-storage-daemon", "--object", "iothread,id=thread0",
            "--blockdev", f"driver={kind},node-name=node0,filename={place.device.path},"
            "cache.direct=on,aio=io_uring,discard=unmap",
            "--nbd-server", f"{where},max-connections=0",
            "--export", f"type=nbd,id=export0,node-name=node0,name={EXPORT},writable=on,"
            "iothread=thread0", "--pidfile", place.folder / "pid"]


def nbdkit(*settings, tls=False):
    def command(place: Place) -> list:
        where = place.pick(["-U", place.socket], ["-i", "127.0.0.1", "-p", place.port])
        if tls:
            where += ["--tls=require",
                      f"--tls-certificates={certificates.folder_in(place.folder.parent)}"]
        return ["nbdkit", "-f", "-e", EXPORT, *where, "file", place.device.path, *settings]
    return command


def nbd_server(place: Place) -> list:
    config = place.folder / "config"
    where = place.pick(f"unixsock = {place.socket}",
                       f"listenaddr = 127.0.0.1\nport = {place.port}")
    config.write_text(f"[generic]\n{where}\nallowlist = true\n"
                      f"[{EXPORT}]\nexportname = {place.device.path}\nflush = true\nfua = true\n")
    return ["nbd-server", "-C", config, "-p", place.folder / "pid"]


def write_all(place: Place):
    """As in a steady state: buffers are there, and each region is armed."""
    processes.run(place.build.load, "run", "--to", place.address, "--export", EXPORT, "--op",
                  "write", "--pattern", "sequential", "--block", "1M", "--depth", 4,
                  "--connections", 4)


def with_bitmaps(n: int = 1, steady: bool = False, **more) -> dict:
    """The columns of ours with so many bitmaps that record: without a store they begin as lost."""
    names = BITMAPS[:n]

    def prepare(place: Place):
        (runtime,) = place.folder.glob("nbdctl-*")
        processes.run(place.build.nbdctl, "bitmap", "clear", f"--runtime={runtime}",
                      f"--exports={place.folder}/exports", EXPORT, *names)
        if steady:
            write_all(place)

    return {"command": ours(Bitmap=" ".join(names), **more), "prepare": prepare}


SERVERS = (
    Server("ours", "ours", command=ours()),
    Server("ours-2-rings", "ours, Threads=2", command=ours(Threads=2)),
    Server("ours-threads", "ours, Engine=threads", command=ours(Engine="threads")),
    Server("ours-steady", "ours, all written once", command=ours(), prepare=write_all),
    Server("ours-bitmap", "ours, a dirty bitmap, all written once", **with_bitmaps(steady=True)),
    Server("ours-10-bitmaps", "ours, ten dirty bitmaps, all written once",
           **with_bitmaps(10, steady=True)),
    Server("ours-new-bitmap", "ours, a dirty bitmap, nothing armed", **with_bitmaps()),
    Server("ours-many-regions", "ours, a bitmap, 65,536 regions of 4 MiB",
           **with_bitmaps(BitmapArmLimit=65536, BitmapCold=250)),
    Server("ours-few-regions", "ours, a bitmap, 64 regions of 1 MiB",
           **with_bitmaps(BitmapRegion="1M", BitmapArmLimit=64)),
    Server("ours-tls", "ours, TLS", command=ours(tls=True), tls=True),
    Server("qemu-uring", "qemu-nbd, io_uring", "qemu-nbd", "qemu-utils", qemu_nbd("io_uring")),
    Server("qemu-native", "qemu-nbd, native", "qemu-nbd", "qemu-utils", qemu_nbd("native")),
    Server("qsd", "qemu-storage-daemon, I/O thread", "qemu-storage-daemon", "qemu-system-common",
           storage_daemon, probed=False),
    Server("nbdkit", "nbdkit file", "nbdkit", "nbdkit", nbdkit(), cached=True),
    Server("nbdkit-none", "nbdkit file, cache=none", "nbdkit", "nbdkit", nbdkit("cache=none")),
    Server("nbd-server", "nbd-server", "nbd-server", "nbd-server", nbd_server, cached=True,
           daemon=True, replies="simple", version="-V"),
    Server("qemu-tls", "qemu-nbd, io_uring, TLS", "qemu-nbd", "qemu-utils",
           qemu_nbd("io_uring", tls=True), tls=True),
    Server("nbdkit-tls", "nbdkit file, cache=none, TLS", "nbdkit", "nbdkit",
           nbdkit("cache=none", tls=True), tls=True),
    Server("null", "null server", command=null),
    Server("direct", "direct: fio on the device"),
)
BY_NAME = {server.name: server for server in SERVERS}
# What a row measures unless it says otherwise; the others are variants of ours.
USUAL = tuple(s.name for s in SERVERS if not s.name.startswith("ours-") and not s.tls)
PEERS = tuple(s.name for s in SERVERS if s.peer and not s.tls)
BY_TLS = tuple(s.name for s in SERVERS if s.tls)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return held.getsockname()[1]


def greets(place: Place) -> bool:
    """Whether somebody there says the first bytes of the protocol."""
    family = socket.AF_INET if place.port else socket.AF_UNIX
    with socket.socket(family) as client:
        client.settimeout(START_LIMIT)
        try:
            client.connect(("127.0.0.1", place.port) if place.port else str(place.socket))
            return client.recv(8, socket.MSG_WAITALL) == b"NBDMAGIC"
        except OSError:
            return False


def pid_in_file(place: Place) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int((place.folder / "pid").read_text())
    return None


def wait_ready(server: Server, place: Place, child):
    """Looks again every few milliseconds; what ends meanwhile has failed."""
    deadline = time.monotonic() + START_LIMIT
    with processes.watched(child.pid) as ended:
        while not (greets(place) if server.probed else pid_in_file(place)):
            gone = ended.poll(2)
            if gone and (not server.daemon or child.wait() != 0):
                raise Failed(f"did not start: {processes.complaint(place.output)}")
            if time.monotonic() > deadline:
                raise Failed(f"was not ready after {START_LIMIT} s: "
                             f"{processes.complaint(place.output)}")


@contextlib.contextmanager
def running(server: Server, place: Place):
    """A server that is ready, in folders that go away with it: yields its pid."""
    if why := server.lacks():
        raise Failed(why)
    home = place.folder
    with contextlib.ExitStack() as undo:
        for folder in (home, place.kept):
            folder.mkdir()
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
        with stopping.later():
            child = processes.start(server.command(place), place.output,
                                    environment={"PATH": SEARCH, "XDG_RUNTIME_DIR": str(home),
                                                 "NBD_EXPORT_FLUSH_FAILED": str(home)})
            undo.callback(end_daemon if server.daemon else end_child, place, child)
        wait_ready(server, place, child)
        server.prepare(place)
        yield pid_in_file(place) if server.daemon else child.pid


def end_child(_place: Place, child):
    if child.poll() is None:
        processes.end(child.pid)
    child.poll()


def end_daemon(place: Place, child):
    end_child(place, child)
    pid = pid_in_file(place)
    if pid and processes.name_of(pid) == "nbd-server":
        processes.end(pid)
