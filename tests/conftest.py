# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests stand on: programs, servers and disks.

    serve(*paths, ...)      a running `nbdctl serve`; see Server
    refused(*paths, ...)    one that must not start: its sentence on stderr
    file_disk(size)         a regular file that takes O_DIRECT
    loop_disk(size, 4096)   a loop device with sectors of that size
    zram_disk(size)         a block device in memory
    tmpfs_disk(size)        a file in memory
    freezable               a folder whose file system freeze() can freeze
    ramfs_disk(size)        a file on a file system that has no O_DIRECT
    mounted(kind, ...)      a file system of that kind, mounted on a folder
    counts(short, long)     the number to use, by --long

Everything that a test makes is taken down in reverse order, so a server ends before its
disk goes.  Each server, when it ends, must do so on SIGTERM, with exit status 0, leave no
process and no socket, not have lost a child meanwhile, and have kept the sanitizers quiet.
"""

import atexit
import array
import contextlib
import ctypes
import dataclasses
import errno
import fcntl
import functools
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.parse
import uuid

import pytest

import nbdwire
from nbdwire import PATIENCE, Client

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("NBD_EXPORT_BUILD", ROOT / "build")).absolute()

# Where exports and nbdctl agree on checkpoints of several of them: all the tests' programs alike.
os.environ["NBD_EXPORT_GROUPS"] = tempfile.mkdtemp(prefix="nbd-groups-")
atexit.register(shutil.rmtree, os.environ["NBD_EXPORT_GROUPS"], ignore_errors=True)
DISKS = os.environ.get("NBD_EXPORT_TEST_DISKS", "/var/tmp")

SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=99",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
}

pytest_plugins = ["tlsfixtures"]

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40


# Programs inherit what is ignored: as under nohup(1), or in the background of a shell.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="full counts instead of short ones")
    parser.addoption("--engine", help="what servers run on where a test does not say")
    parser.addoption("--threads", help="request loops of servers where a test does not say")


@pytest.fixture
def counts(request):
    """counts(short, long): how often to do something in this run."""
    full = request.config.getoption("--long")
    return lambda short, long: long if full else short


@pytest.fixture
def only_long(request):
    """For a test that takes its time by nature."""
    if not request.config.getoption("--long"):
        pytest.skip("takes a minute; run with --long")


@pytest.fixture
def cleanup():
    """What undoes, in reverse order, all that the other fixtures make."""
    with contextlib.ExitStack() as stack:
        yield stack


def by_mode(*modes):
    """Runs a test in each of these modes: `@by_mode(SIMPLE, EXTENDED)`; all by default."""
    modes = modes or nbdwire.MODES
    return pytest.mark.parametrize("mode", modes, ids=[nbdwire.MODE_NAMES[m] for m in modes])


# Programs ------------------------------------------------------------------------


@dataclasses.dataclass
class Programs:
    nbdctl: pathlib.Path
    negotiator: pathlib.Path
    export: pathlib.Path
    tls: pathlib.Path
    attach: pathlib.Path


@pytest.fixture(scope="session")
def programs():
    """The programs of the build folder NBD_EXPORT_BUILD (default: build/)."""
    found = Programs(BUILD / "daemon/ctl/nbdctl", BUILD / "daemon/negotiator/nbd-negotiator",
                     BUILD / "daemon/export/nbd-export", BUILD / "daemon/tls/nbd-tls",
                     BUILD / "daemon/attach/nbd-attach")
    for program in dataclasses.astuple(found):
        if not os.access(program, os.X_OK):
            pytest.exit(f"{program} is not built; meson setup {BUILD} && ninja -C {BUILD}", 2)
    return found


def complaints(text):
    """The lines in which a sanitizer complains."""
    return [line for line in text.splitlines() if "Sanitizer" in line or "runtime error" in line]


def needs_root():
    if os.geteuid() != 0:
        pytest.skip("needs root")


def needs_program(name):
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not found:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command, **kwargs):
    """A command that must succeed; returns its output."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          timeout=PATIENCE * 3, check=False, **kwargs)
    assert done.returncode == 0, f"{command}: {done.stderr or done.stdout}"
    return done.stdout.strip()


def wait_until(condition, what, patience=PATIENCE):
    """For what no descriptor tells: asks again every few milliseconds."""
    deadline = time.monotonic() + patience
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited {patience} s for {what}"
        time.sleep(0.005)
    return result


# Servers -------------------------------------------------------------------------


def processes_with(variable):
    """Processes that have this "NAME=value" in their environment, zombies apart."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and variable in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
    return found


def children_of(pid):
    """{pid: name of the program}, without those that end meanwhile."""
    found = {}
    for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found[int(child)] = pathlib.Path(f"/proc/{child}/comm").read_text().strip()
    return found


class Server:
    """A running `nbdctl serve`.

    .socket      path of its unix socket
    .uris        {name: [URI]} as printed on stdout
    .folder      for the test's own use; goes away with the server
    .children()  {pid: program}
    .lossy       set to True by a test that kills children on purpose
    .status      what it exits with at SIGTERM; set by a test whose flushes fail
    """

    def __init__(self, programs, arguments, unix=True, env=None):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="nbd-", dir="/tmp"))
        self.runtime = self.folder / "run"
        self.runtime.mkdir(mode=0o700)
        self.state = self.folder / "state"
        self.state.mkdir(mode=0o700)
        self.socket = self.folder / "nbd"
        self.marker = f"NBD_EXPORT_TEST={uuid.uuid4()}"
        self.lossy = False
        self.status = 0
        self.stopped = False
        self.child = None
        self.connections = contextlib.ExitStack()
        self.uris = {}
        command = [programs.nbdctl, "serve", *arguments]
        if unix:
            command += ["--unix", self.socket]
        self.command = [os.fspath(word) for word in command]
        self.env = dict(os.environ, **SANITIZERS, XDG_RUNTIME_DIR=str(self.runtime),
                        NBD_EXPORT_FLUSH_FAILED=str(self.state),
                        STATE_DIRECTORY=str(self.folder / "kept")) | (env or {})
        self.env.pop("LISTEN_FDS", None)
        self.env.pop("LISTEN_PID", None)
        name, value = self.marker.split("=")
        self.env[name] = value

    def start(self):
        """Runs until READY=1; True, or False when the program ended before that."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(self.folder / "notify"))
            self.env["NOTIFY_SOCKET"] = str(self.folder / "notify")
            with open(self.folder / "stdout", "wb") as out, \
                    open(self.folder / "stderr", "wb") as err:
                self.child = subprocess.Popen(self.command, env=self.env, stdout=out, stderr=err,
                                              stdin=subprocess.DEVNULL, cwd="/")
            ready = self._wait_ready(notify)
        if ready:
            self._read_uris()
            self.first_children = self.children()
        return ready

    def _wait_ready(self, notify):
        ended = os.pidfd_open(self.child.pid)
        try:
            deadline = time.monotonic() + PATIENCE * 2
            while True:
                left = deadline - time.monotonic()
                assert left > 0, f"no READY=1 from {self.command}\n{self.log()}"
                readable, _, _ = select.select([notify, ended], [], [], left)
                if notify in readable and b"READY=1" in notify.recv(8192).split(b"\n"):
                    return True
                if ended in readable and notify not in readable:
                    self.child.wait()
                    return False
        finally:
            os.close(ended)

    def _read_uris(self):
        pattern = re.compile(r"serving (.*) at (nbd(?:\+unix)?://.*)")
        for line in self.output().splitlines():
            if match := pattern.fullmatch(line):
                self.uris.setdefault(match[1], []).append(match[2])

    # Looking at it

    def output(self):
        return (self.folder / "stdout").read_text(errors="surrogateescape")

    def log(self):
        return (self.folder / "stderr").read_text(errors="surrogateescape")

    def wait_for_log(self, text, patience=PATIENCE):
        wait_until(lambda: text in self.log(), f"{text!r} in the log", patience)

    def children(self):
        return children_of(self.child.pid)

    def pids(self, program):
        return sorted(pid for pid, name in self.children().items() if name == program[:15])

    def tcp_address(self):
        """(host, port) of the first TCP URI."""
        for uris in self.uris.values():
            for uri in uris:
                parts = urllib.parse.urlsplit(uri)
                if parts.scheme == "nbd":
                    return parts.hostname, parts.port
        raise AssertionError(f"no TCP address among {self.uris}")

    # Clients

    def options(self, **how):
        """A connection in the handshake phase."""
        return self.closing(nbdwire.Options(self.socket, **how))

    def client(self, name="", mode=nbdwire.EXTENDED, **how):
        """A connection in the transmission phase."""
        return self.closing(Client(how.pop("address", self.socket), name, mode, **how))

    def closing(self, connection):
        """Closes this connection before the server ends."""
        self.connections.callback(connection.close)
        return connection

    # The end of it

    def stop(self, patience=PATIENCE * 2):
        """SIGTERM, and everything that is promised about it."""
        if self.stopped:
            return
        self.stopped = True
        if self.child.poll() is None and not self.lossy:
            assert self.children() == self.first_children, \
                f"children came or went: {self.first_children} {self.children()}\n{self.log()}"
        self.child.terminate()
        try:
            status = self.child.wait(patience)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after SIGTERM\n{self.log()}") from None
        assert not complaints(self.log()), self.log()
        assert status == self.status, f"exit status {status} after SIGTERM\n{self.log()}"
        left = processes_with(self.marker.encode())
        assert not left, f"processes were left behind: {left}"
        assert not self.socket.exists(), f"{self.socket} was left behind"
        assert not any(self.runtime.iterdir()), \
            f"left behind: {sorted(self.runtime.rglob('*'))}"

    def destroy(self):
        """For the way out of a test, whatever happened in it."""
        if self.child is not None and self.child.poll() is None:
            self.child.kill()
            self.child.wait()
        for pid in processes_with(self.marker.encode()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


def serve_arguments(paths, options):
    """Keyword options become the command line's: read_only=True, max_connections=1."""
    words = []
    for key, value in options.items():
        option = "--" + key.replace("_", "-")
        if value is True:
            words.append(option)
        elif value is not None and value is not False:
            values = value if isinstance(value, (list, tuple)) else [value]
            if option in ("--direct",):
                words += [f"{option}={v}" for v in values]
            else:
                words += [word for v in values for word in (option, str(v))]
    return words + [os.fspath(path) for path in paths]


def loops_wished(config, options):
    """--engine and --threads of pytest's command line, where the test leaves it open."""
    if "config" in options:
        return {}
    wished = {"engine": config.getoption("--engine"), "threads": config.getoption("--threads")}
    if "memory" in options:
        wished.pop("threads")           # each loop would need its own
    return {key: value for key, value in wished.items() if value}


@pytest.fixture
def serve(programs, cleanup, request):
    """serve("NAME=PATH" or PATH, ..., read_only=True, direct="no", ...) → Server.

    `unix=False` leaves out --unix; `env` adds to the environment; every other keyword is
    an option of `nbdctl serve`.  Returns once READY=1 has come.
    """

    def start(*paths, unix=True, env=None, **options):
        options = loops_wished(request.config, options) | options
        server = Server(programs, serve_arguments(paths, options), unix, env)
        cleanup.callback(server.destroy)
        assert server.start(), f"{server.command} did not start:\n{server.log()}"
        cleanup.callback(server.stop)
        cleanup.callback(server.connections.close)
        return server

    return start


@pytest.fixture
def refused(programs, cleanup):
    """As serve(), for what cannot be served: must end before it listens; → its stderr.

    `statuses` are the exit statuses that are right.
    """

    def start(*paths, statuses=(1,), env=None, **options):
        server = Server(programs, serve_arguments(paths, options), True, env)
        cleanup.callback(server.destroy)
        assert not server.start(), f"{server.command} serves what it should refuse"
        assert server.child.returncode in statuses, server.log()
        assert not server.socket.exists(), "listened before it refused"
        assert not processes_with(server.marker.encode()), "processes were left behind"
        assert not complaints(server.log()), server.log()
        assert server.output() == "", "promised to serve before it refused"
        return server.log()

    return start


# Disks ---------------------------------------------------------------------------


@pytest.fixture
def disk_folder(cleanup):
    """A folder on a real file system, if NBD_EXPORT_TEST_DISKS (/var/tmp) is on one."""
    folder = tempfile.mkdtemp(prefix="nbd-disks-", dir=DISKS)
    cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
    return pathlib.Path(folder)


def fill(path, size, content=None):
    """A sparse file of `size` bytes that begins with `content`."""
    with open(path, "wb") as file:
        file.write(content or b"")
        file.truncate(size)
    return pathlib.Path(path)


def takes_o_direct(path):
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except OSError as error:
        assert error.errno == errno.EINVAL
        return False
    return True


@pytest.fixture
def file_disk(disk_folder):
    """file_disk(size, content=b"", name="disk") → path of a regular file."""

    def make(size=8 * MIB, content=None, name="disk"):
        return fill(disk_folder / name, size, content)

    return make


def loop_detach(device):
    subprocess.run(["losetup", "--detach", device], check=False, capture_output=True)
    wait_until(lambda: not os.path.exists(f"/sys/block/{os.path.basename(device)}/loop"),
               f"{device} to be free")


def loop_attach(cleanup, backing, sector_size=512, read_only=False, direct=True):
    """The path of a loop device over the file `backing`."""
    needs_root()
    losetup = needs_program("losetup")
    if not os.path.exists("/dev/loop-control"):
        pytest.skip("this kernel has no loop devices")
    device = run(losetup, "--find", "--show", f"--direct-io={'on' if direct else 'off'}",
                 "--sector-size", sector_size, *(["--read-only"] if read_only else []), backing)
    cleanup.callback(loop_detach, device)
    return pathlib.Path(device)


@pytest.fixture
def loop_disk(cleanup, disk_folder):
    """loop_disk(size, sector_size=512, read_only=False, direct=True) → device path.

    Its backing file is beside it: backing_of(device).
    """
    made = []

    def make(size=8 * MIB, sector_size=512, content=None, **how):
        backing = fill(disk_folder / f"backing-{len(made)}", size, content)
        made.append(backing)
        return loop_attach(cleanup, backing, sector_size, **how)

    return make


def sysfs(device, attribute):
    """An attribute of a block device, such as "queue/logical_block_size"."""
    return pathlib.Path(f"/sys/block/{os.path.basename(device)}/{attribute}").read_text().strip()


def backing_of(device):
    return pathlib.Path(sysfs(device, "loop/backing_file"))


@pytest.fixture
def zram_disk(cleanup):
    """zram_disk(size) → device path."""

    def remove(number):
        def gone():
            try:
                pathlib.Path("/sys/class/zram-control/hot_remove").write_text(number)
            except OSError as error:
                assert error.errno == errno.EBUSY
                return False
            return True

        wait_until(gone, f"/dev/zram{number} to be free")

    def make(size=8 * MIB):
        needs_root()
        control = pathlib.Path("/sys/class/zram-control/hot_add")
        if not control.exists():
            pytest.skip("this kernel has no zram")
        number = control.read_text().strip()
        cleanup.callback(remove, number)
        device = pathlib.Path(f"/dev/zram{number}")
        pathlib.Path(f"/sys/block/zram{number}/disksize").write_text(str(size))
        wait_until(device.exists, f"{device}")
        return device

    return make


@pytest.fixture
def mounted(cleanup, disk_folder):
    """mounted(kind, size=..., device=...) → the folder a new file system is mounted on.

    tmpfs and ramfs need nothing; others are made by mkfs.KIND on a loop device (or on
    `device`).  `options` are mount's.
    """

    def make(kind, size=256 * MIB, device=None, options=None):
        needs_root()
        folder = pathlib.Path(tempfile.mkdtemp(prefix="mnt-", dir=disk_folder))
        words = ["-t", kind]
        if kind in ("tmpfs", "ramfs"):
            options = options or (f"size={size}" if kind == "tmpfs" else None)
            device = kind
        else:
            mkfs = needs_program(f"mkfs.{kind}")
            if f"\t{kind}\n" not in pathlib.Path("/proc/filesystems").read_text():
                pytest.skip(f"this kernel has no {kind}")
            if device is None:
                backing = fill(disk_folder / f"{folder.name}.{kind}", size)
                device = loop_attach(cleanup, backing)
            run(mkfs, "-q", device)
        if options:
            words += ["-o", options]
        run("mount", *words, device, folder)
        cleanup.callback(run, "umount", folder)
        return folder

    return make


@pytest.fixture
def freezable(mounted):
    """A folder whose file system can be frozen: writes wait, reads do not."""
    needs_program("fsfreeze")
    return mounted("ext4", size=64 * MIB)


class Thaw:
    """Sees to it that a frozen file system is thawed, whatever the test comes to."""

    def __init__(self, folder):
        self.folder = folder

    def __enter__(self):
        return self

    def now(self):
        if self.folder:
            run("fsfreeze", "--unfreeze", self.folder)
            self.folder = None

    def __exit__(self, *exc):
        self.now()


def freeze(cleanup, folder):
    """Writes to the file system `folder` wait from here on, until .now() of what is returned."""
    run("fsfreeze", "--freeze", folder)
    return cleanup.enter_context(Thaw(folder))


@pytest.fixture
def tmpfs_disk(cleanup):
    """tmpfs_disk(size) → path of a file in memory; no root needed."""

    def make(size=8 * MIB, content=None, name="disk"):
        if not os.path.isdir("/dev/shm") or \
                run("stat", "--file-system", "--format=%T", "/dev/shm") != "tmpfs":
            pytest.skip("/dev/shm is not a tmpfs")
        folder = tempfile.mkdtemp(prefix="nbd-disks-", dir="/dev/shm")
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        return fill(pathlib.Path(folder) / name, size, content)

    return make


@pytest.fixture
def ramfs_disk(mounted):
    """ramfs_disk(size) → path of a file whose file system has neither O_DIRECT, nor holes
    that it tells about, nor a quick way to write zeroes."""

    def make(size=8 * MIB, content=None, name="disk"):
        path = fill(mounted("ramfs") / name, size, content)
        assert not takes_o_direct(path)
        return path

    return make


@pytest.fixture
def disk(request, file_disk, loop_disk, zram_disk, tmpfs_disk, ramfs_disk):
    """disk(kind, size, content): any of DISK_KINDS by its name."""
    makers = {
        "file": file_disk,
        "loop512": lambda size, content: loop_disk(size, 512, content),
        "loop4096": lambda size, content: loop_disk(size, 4096, content),
        "zram": lambda size, content: _written(zram_disk(size), content),
        "tmpfs": tmpfs_disk,
        "ramfs": ramfs_disk,
    }
    return lambda kind, size=8 * MIB, content=None: makers[kind](size, content)


DISK_KINDS = ("file", "loop512", "loop4096", "zram", "tmpfs", "ramfs")
every_disk = pytest.mark.parametrize("kind", DISK_KINDS)


def _written(path, content):
    if content:
        with open(path, "r+b", buffering=0) as device:
            device.write(content)
            os.fsync(device)
    return path


@functools.lru_cache(maxsize=64)
def pattern(size, seed=1):
    """Bytes in which every 8 differ from all others, and from another seed's."""
    words, low = (size + 7) // 8, (seed & 0xFFFF) << 16 | 0xA55A
    numbers = array.array("Q", range(low, low + (words << 32), 1 << 32))
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers.tobytes()[:size]


# Facts from the kernel ---------------------------------------------------------------


def direct_alignment(path):
    """statx(2)'s dio_offset_align of a file, or None where the kernel does not tell."""
    libc = ctypes.CDLL(None, use_errno=True)
    statx_dioalign = 0x2000
    buffer = ctypes.create_string_buffer(256)
    if not hasattr(libc, "statx") or libc.statx(-100, os.fsencode(path), 0, statx_dioalign,
                                                buffer) != 0:
        return None
    (mask,) = struct.unpack_from("=I", buffer, 0)
    memory_align, offset_align = struct.unpack_from("=II", buffer, 0x98)
    return offset_align if mask & statx_dioalign and memory_align else None


def true_minimum(path):
    """The minimum block size that a server must report for this disk, opened O_DIRECT."""
    if str(path).startswith("/dev/") and path.is_block_device():
        return int(sysfs(path, "queue/logical_block_size"))
    if not takes_o_direct(path):
        return 1
    return direct_alignment(path) or None


F_OFD_GETLK, F_OFD_SETLK = 36, 37


def lock_byte(fd, byte, kind=fcntl.F_WRLCK, command=F_OFD_GETLK):
    """Whether somebody else holds a lock on this byte that `kind` would meet (F_OFD_GETLK),
    or takes one (F_OFD_SETLK)."""
    flock = struct.pack("@hhqqi4x", kind, os.SEEK_SET, byte, 1, 0)
    answer = fcntl.fcntl(fd, command, flock)
    return struct.unpack("@hhqqi4x", answer)[0] != fcntl.F_UNLCK
