# SPDX-License-Identifier: GPL-2.0-or-later
"""Clients that other people wrote, against `nbdctl serve`."""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest
from conftest import MIB, ROOT, needs_program, pattern, run
from nbdwire import PATIENCE
from seed import seeded

nbd = pytest.importorskip("nbd", reason="libnbd's Python binding is not installed")


def uri_of(server, name=""):
    return f"nbd+unix:///{name}?socket={server.socket}"


def content(size=8 * MIB):
    """A quarter of data, a quarter of nothing, a quarter of data ..."""
    quarter = size // 4
    return pattern(quarter) + bytes(quarter) + pattern(quarter, 2) + bytes(quarter)


@pytest.fixture
def sparse_disk(disk):
    """A disk of this kind with content() on it, holes where it is zero if it can."""

    def make(kind="file", size=8 * MIB):
        path = disk(kind, size, b"")
        wanted = content(size)
        with open(path, "r+b", buffering=0) as device:
            for at in range(0, size, 64 << 10):
                piece = wanted[at : at + (64 << 10)]
                if any(piece):
                    os.pwrite(device.fileno(), piece, at)
            os.fsync(device)
        return path

    return make


def contents(path):
    with open(path, "rb") as file:
        return file.read()


def joined(extents):
    """Neighbours of one kind made one: clients cut extents as they like."""
    found = []
    for offset, length, kind in extents:
        if found and found[-1][2] == kind and found[-1][0] + found[-1][1] == offset:
            found[-1][1] += length
        else:
            found.append([offset, length, kind])
    return found


# nbdinfo, nbdcopy ------------------------------------------------------------------------


def test_nbdinfo_shows_all_that_an_export_offers(serve, sparse_disk):
    nbdinfo = needs_program("nbdinfo")
    server = serve(f"disk={sparse_disk()}", description="a disk for tests")
    (export,) = json.loads(run(nbdinfo, "--json", uri_of(server, "disk")))["exports"]
    assert export["export-name"] == "disk"
    assert export["description"] == "a disk for tests"
    assert export["export-size"] == 8 * MIB
    assert export["contexts"] == ["base:allocation", "qemu:allocation-depth"]
    assert export["block_size_maximum"] == 32 * MIB
    assert export["block_size_preferred"] >= 4096
    assert not export["is_read_only"]
    for what in ("cache", "df", "fast_zero", "flush", "fua", "multi_conn", "trim", "zero"):
        assert export[f"can_{what}"], what


def test_nbdinfo_lists_every_export(serve, file_disk):
    nbdinfo = needs_program("nbdinfo")
    one, two = file_disk(MIB, name="one"), file_disk(2 * MIB, name="two")
    server = serve(f"first={one}", f"second={two}")
    told = json.loads(run(nbdinfo, "--list", "--json", uri_of(server)))["exports"]
    assert {e["export-name"]: e["export-size"] for e in told} == {
        "first": MIB,
        "second": 2 * MIB,
    }
    assert run(nbdinfo, "--size", uri_of(server, "second")) == str(2 * MIB)


def test_nbdinfo_maps_data_and_holes(serve, sparse_disk):
    nbdinfo = needs_program("nbdinfo")
    server = serve(sparse_disk())
    told = json.loads(run(nbdinfo, "--map", "--json", uri_of(server)))
    extents = joined((e["offset"], e["length"], e["type"]) for e in told)
    quarter = 2 * MIB
    assert extents == [[i * quarter, quarter, 3 * (i % 2)] for i in range(4)]


@pytest.mark.parametrize("kind", ["file", "loop4096", "zram"])
def test_nbdcopy_brings_a_disk_out_and_in_again(serve, disk, kind, tmp_path):
    nbdcopy = needs_program("nbdcopy")
    wanted = content(16 * MIB)
    server = serve(f"from={disk(kind, 16 * MIB, wanted)}")
    uri = uri_of(server)
    out = tmp_path / "out"
    run(nbdcopy, "--connections=4", "--requests=64", uri, out)
    assert out.read_bytes() == wanted
    changed = wanted[::-1]
    out.write_bytes(changed)
    run(nbdcopy, "--connections=4", "--requests=64", "--flush", out, uri)
    run(nbdcopy, "--synchronous", uri, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == changed


def test_nbdcopy_copies_from_export_to_export(serve, sparse_disk, file_disk):
    nbdcopy = needs_program("nbdcopy")
    target = file_disk(8 * MIB, pattern(8 * MIB, 3), name="target")
    server = serve(f"from={sparse_disk()}", f"to={target}")
    run(nbdcopy, "--connections=2", uri_of(server, "from"), uri_of(server, "to"))
    server.stop()
    assert contents(target) == content()


# libnbd ----------------------------------------------------------------------------------


@pytest.fixture
def connect(cleanup):
    """connect(server, name, prepare=...) → libnbd's handle."""

    def make(server, name="", prepare=lambda handle: None):
        handle = nbd.NBD()
        prepare(handle)
        handle.connect_uri(uri_of(server, name))

        def leave():
            if handle.aio_is_ready():
                handle.shutdown()

        cleanup.callback(leave)
        return handle

    return make


def unaligned(handle):
    """Makes libnbd send what is smaller than the minimum block, which we promise to take."""
    handle.set_strict_mode(handle.get_strict_mode() & ~nbd.STRICT_ALIGN)


def simple(handle):
    unaligned(handle)
    handle.set_request_structured_replies(False)


def structured(handle):
    unaligned(handle)
    handle.add_meta_context("base:allocation")


LIBNBD_MODES = {"simple": simple, "structured": structured}


@pytest.mark.parametrize("mode", LIBNBD_MODES)
@pytest.mark.parametrize("kind", ["file", "loop512", "loop4096"])
def test_libnbd_finds_every_command_working(serve, connect, disk, kind, mode):
    handle = connect(serve(disk(kind, 8 * MIB)), prepare=LIBNBD_MODES[mode])
    assert handle.get_size() == 8 * MIB
    assert handle.get_structured_replies_negotiated() == (mode == "structured")
    handle.pwrite(b"one", 1)
    handle.pwrite(b"two" * 4096, 100_001, nbd.CMD_FLAG_FUA)
    assert bytes(handle.pread(6, 0)) == b"\0one\0\0"
    assert bytes(handle.pread(3 * 4096, 100_001)) == b"two" * 4096
    handle.zero(4096, 100_001)
    handle.zero(4096, 200_000, nbd.CMD_FLAG_NO_HOLE)
    assert bytes(handle.pread(5000, 100_001)) == bytes(4096) + (b"two" * 4096)[4096:5000]
    handle.cache(1 << 20, 0)
    handle.trim(1 << 20, 2 << 20)
    handle.trim(513, 3 << 20)
    handle.flush()
    assert bytes(handle.pread(3, 1)) == b"one"


def test_libnbd_reads_extents_of_every_context(serve, connect, sparse_disk):
    def prepare(handle):
        handle.add_meta_context("base:allocation")
        handle.add_meta_context("qemu:allocation-depth")

    handle = connect(serve(sparse_disk()), prepare=prepare)
    found = {}

    def extents(context, offset, entries, _error):
        for length, state in zip(entries[::2], entries[1::2]):
            found.setdefault(context, []).append((offset, length, state))
            offset += length

    at = 0
    while at < 8 * MIB:
        handle.block_status(8 * MIB - at, at, extents)
        at = min(sum(e[1] for e in of) for of in found.values())
    quarter = 2 * MIB
    assert joined(found["base:allocation"]) == [
        [i * quarter, quarter, 3 * (i % 2)] for i in range(4)
    ]
    assert sum(e[1] for e in found["qemu:allocation-depth"]) == 8 * MIB


def test_libnbd_reads_structured_chunks_of_data_and_holes(serve, connect, sparse_disk):
    handle = connect(serve(sparse_disk()))
    kinds = []

    def chunk(_data, offset, status, _error):
        kinds.append((offset, status))

    got = handle.pread_structured(4 * MIB, MIB, chunk)
    assert bytes(got) == content()[MIB : 5 * MIB]
    assert {status for _, status in kinds} <= {nbd.READ_DATA, nbd.READ_HOLE}
    assert (2 * MIB, nbd.READ_HOLE) in kinds
    kinds.clear()
    handle.pread_structured(4 * MIB, MIB, chunk, nbd.CMD_FLAG_DF)
    assert kinds == [(MIB, nbd.READ_DATA)]


@pytest.mark.parametrize("size", [512, 4096, 65536, 5001])
def test_libnbd_keeps_128_requests_in_flight(serve, connect, file_disk, size):
    handle = connect(serve(file_disk(16 * MIB)), prepare=unaligned)
    rng = seeded()
    wanted = [rng.randbytes(size) for _ in range(128)]
    done = []

    def finish(cookies):
        while len(done) < len(cookies):
            assert handle.poll(int(PATIENCE) * 1000) == 1, "nothing moves any more"
            for cookie in [c for c in cookies if c not in done]:
                if handle.aio_command_completed(cookie):
                    done.append(cookie)
        done.clear()

    buffers = [nbd.Buffer.from_bytearray(bytearray(data)) for data in wanted]
    finish([handle.aio_pwrite(b, i * size) for i, b in enumerate(buffers)])
    buffers = [nbd.Buffer(size) for _ in wanted]
    finish([handle.aio_pread(b, i * size) for i, b in enumerate(buffers)])
    assert [bytes(b.to_bytearray()) for b in buffers] == wanted


def test_libnbd_is_refused_with_words(serve, connect, file_disk):
    server = serve(f"disk={file_disk()}", f"other={file_disk(name='other')}")
    with pytest.raises(nbd.Error):
        connect(server, "nothing")
    handle = connect(server, "disk", lambda h: h.set_strict_mode(0))
    for call in (
        lambda: handle.pread(512, 8 * MIB),
        lambda: handle.pwrite(b"x" * 512, 8 * MIB),
        lambda: handle.trim(512, 1 << 62),
        lambda: handle.zero(512, 8 * MIB - 1),
    ):
        with pytest.raises(nbd.Error):
            call()
    assert bytes(handle.pread(512, 0)) == bytes(512)


def test_libnbd_cannot_write_to_a_read_only_export(serve, connect, file_disk):
    handle = connect(
        serve(file_disk(), read_only=True), prepare=lambda h: h.set_strict_mode(0)
    )
    assert handle.is_read_only()
    for call in (
        lambda: handle.pwrite(b"x" * 512, 0),
        lambda: handle.trim(512, 0),
        lambda: handle.zero(512, 0),
    ):
        with pytest.raises(nbd.Error) as refused:
            call()
        assert refused.value.errno == "EPERM"


# qemu ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "loop512", "loop4096"])
def test_qemu_img_converts_compares_and_maps(serve, sparse_disk, kind, tmp_path):
    qemu_img = needs_program("qemu-img")
    disk = sparse_disk(kind)
    server = serve(disk)
    uri = uri_of(server)
    out = tmp_path / "out.qcow2"
    info = json.loads(run(qemu_img, "info", "--output=json", uri))
    assert info["virtual-size"] == 8 * MIB and info["format"] == "raw"
    run(qemu_img, "convert", "-f", "raw", "-O", "qcow2", uri, out)
    run(qemu_img, "compare", "-f", "raw", "-F", "qcow2", uri, out)
    mapped = json.loads(run(qemu_img, "map", "-f", "raw", "--output=json", uri))
    told = joined((e["start"], e["length"], e["data"]) for e in mapped)
    assert sum(length for _, length, _ in told) == 8 * MIB
    if kind == "file":
        assert told == [[i * 2 * MIB, 2 * MIB, i % 2 == 0] for i in range(4)]

    other = tmp_path / "other.raw"
    other.write_bytes(content()[::-1])
    run(qemu_img, "convert", "-n", "-m", "8", "-W", "-f", "raw", "-O", "raw", other, uri)
    run(qemu_img, "compare", "-f", "raw", "-F", "raw", uri, other)
    server.stop()
    assert contents(disk) == content()[::-1]


def test_qemu_io_reads_writes_zeroes_discards_and_flushes(serve, file_disk):
    qemu_io = needs_program("qemu-io")
    disk = file_disk(8 * MIB)
    server = serve(disk)
    commands = [
        "write -P 0x11 0 64k",
        "write -P 0x22 1001 77",
        "read -P 0x11 0 1001",
        "read -P 0x22 1001 77",
        "read -P 0x11 1078 10000",
        "write -z 4000 5000",
        "read -P 0 4000 5000",
        "read -P 0x11 9000 1000",
        "write -f -P 0x33 1M 1M",
        "write -z -u 1M 64k",
        "discard 1M 512k",
        "aio_write -P 0x44 2M 1M",
        "aio_write -P 0x55 3M 1M",
        "aio_flush",
        "flush",
        "read -P 0x44 2M 1M",
        "read -P 0x55 3M 1M",
        "write -P 0x66 8388607 1",
        "read -P 0x66 8388607 1",
    ]
    words = [word for command in commands for word in ("-c", command)]
    for cache in ("writeback", "writethrough"):
        told = run(qemu_io, "-f", "raw", "-t", cache, *words, uri_of(server))
        assert "failed" not in told and "mismatch" not in told.lower(), told
    server.stop()
    assert contents(disk)[1001:1078] == b"\x22" * 77


# fio -------------------------------------------------------------------------------------

FIO = ("--ioengine=nbd", "--verify=crc32c", "--verify_fatal=1", "--thread", "--minimal")


def needs_fio_nbd():
    fio = needs_program("fio")
    if "nbd" not in run(fio, "--enghelp").split():
        pytest.skip("fio has no nbd engine")
    return fio


def fio_words(uri, *more):
    return [needs_fio_nbd(), "--name=verify", *FIO, f"--uri={uri}", *more]


FIO_LOADS = {
    "4k": ("--rw=randwrite", "--bs=4k", "--iodepth=128"),
    "mixed": ("--rw=randrw", "--bsrange=4k-64k", "--iodepth=32"),
    "1m": ("--rw=write", "--bs=1m", "--iodepth=4"),
}


@pytest.mark.parametrize("load", FIO_LOADS)
@pytest.mark.parametrize("kind", ["file", "loop4096"])
def test_fio_reads_back_what_it_wrote(serve, disk, kind, load):
    server = serve(disk(kind, 16 * MIB))
    run(*fio_words(uri_of(server), "--size=16m", *FIO_LOADS[load]))


@pytest.mark.parametrize("size", ["--bs=1000", "--bsrange=512-20k"])
def test_fio_reads_back_odd_blocks_where_the_minimum_is_1(serve, file_disk, size):
    server = serve(file_disk(16 * MIB), direct="no")
    run(*fio_words(uri_of(server), "--size=16m", "--rw=write", size, "--iodepth=64"))


# Several at once -------------------------------------------------------------------------


def test_several_programs_work_at_once(serve, disk, tmp_path):
    qemu_img, nbdcopy = needs_program("qemu-img"), needs_program("nbdcopy")
    wanted = content(16 * MIB)
    disks = [disk("file", 16 * MIB, wanted), disk("loop512", 16 * MIB)]
    server = serve(f"still={disks[0]}", f"busy={disks[1]}")
    still, busy = uri_of(server, "still"), uri_of(server, "busy")
    quarter = 4 * MIB
    commands = [
        [qemu_img, "convert", "-f", "raw", "-O", "raw", still, tmp_path / "a"],
        [nbdcopy, "--connections=3", still, tmp_path / "b"],
        [qemu_img, "compare", "-f", "raw", "-F", "raw", still, str(disks[0]), "-U"],
        *(
            fio_words(busy, "--rw=randwrite", "--bsrange=512-20k", "--iodepth=16",
                      f"--offset={i * quarter}", f"--size={quarter}")
            for i in range(4)
        ),
    ]
    running = [
        subprocess.Popen([str(w) for w in words], stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT)
        for words in commands
    ]
    for words, child in zip(commands, running):
        output, _ = child.communicate(timeout=PATIENCE * 3)
        assert child.returncode == 0, f"{words}: {output.decode()}"
    assert (tmp_path / "a").read_bytes() == wanted
    assert (tmp_path / "b").read_bytes() == wanted


# Debian 13: clients with extended headers ------------------------------------------------


class Tree:
    """A Debian 13 file tree, and programs run in it by chroot."""

    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="nbd-", dir=self.root / "tmp"))

    def inside(self, path):
        return "/" + str(path.relative_to(self.root))

    def run(self, *words, **how):
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        return run("chroot", self.root, *words, env=environment, **how)

    def python(self, script, *arguments):
        return self.run("/usr/bin/python3", "-c", script, *arguments)


@pytest.fixture(scope="session")
def debian13_root():
    script = ROOT / "scripts/debian13-tree"
    if os.geteuid() != 0:
        pytest.skip("chroot into a Debian 13 tree needs root")
    made = subprocess.run([script], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no Debian 13 tree: {made.stderr.strip()}")
    return made.stdout.strip()


@pytest.fixture
def debian13(debian13_root):
    tree = Tree(debian13_root)
    yield tree
    shutil.rmtree(tree.folder, ignore_errors=True)


def tcp_uri(server, name=""):
    host, port = server.tcp_address()
    return f"nbd://{host}:{port}/{name}"


EXTENDED = """
import nbd, sys
h = nbd.NBD()
h.set_strict_mode(h.get_strict_mode() & ~nbd.STRICT_ALIGN)
h.add_meta_context("base:allocation")
h.add_meta_context("qemu:allocation-depth")
h.connect_uri(sys.argv[1])
assert h.get_extended_headers_negotiated(), "no extended headers"
assert h.get_protocol() == "newstyle-fixed"
size = h.get_size()
assert size == 16 << 40, size
assert h.can_block_status_payload()

h.pwrite(b"far away", (16 << 40) - 4099, nbd.CMD_FLAG_FUA)
assert h.pread(8, (16 << 40) - 4099) == b"far away"

# One request over more than 4 GiB each
h.pwrite(b"x" * 4096, 5 << 30)
h.zero(6 << 30, 0)
assert h.pread(4096, 5 << 30) == bytes(4096)
h.pwrite(b"y" * 4096, 9 << 30)
h.trim(6 << 30, 8 << 30)
h.flush()

found = {}
def extents(context, offset, entries, error):
    found.setdefault(context, []).extend(entries)
h.block_status_64(10 << 40, 0, extents)
assert sorted(found) == ["base:allocation", "qemu:allocation-depth"], found
lengths = [e[0] for e in found["base:allocation"]]
assert max(lengths) > 4 << 30, lengths
assert sum(lengths) <= 10 << 40, lengths

found.clear()
h.block_status_filter(1 << 40, 0, ["qemu:allocation-depth"], extents)
assert list(found) == ["qemu:allocation-depth"], found
h.shutdown()
print("all good")
"""


def test_libnbd_with_extended_headers_reaches_all_of_16_tib(serve, tmpfs_disk, debian13):
    server = serve(tmpfs_disk(16 << 40), listen="127.0.0.1:0")
    assert debian13.python(EXTENDED, tcp_uri(server)) == "all good"


IN_FLIGHT = """
import nbd, random, sys
h = nbd.NBD()
h.set_strict_mode(h.get_strict_mode() & ~nbd.STRICT_ALIGN)
h.connect_uri(sys.argv[1])
assert h.get_extended_headers_negotiated()
rng = random.Random(int(sys.argv[2]))
for size in (512, 5001, 65536):
    wanted = [rng.randbytes(size) for _ in range(128)]
    waiting = []
    def finish():
        while waiting:
            assert h.poll(20000) == 1, "nothing moves any more"
            waiting[:] = [c for c in waiting if not h.aio_command_completed(c)]
    out = [nbd.Buffer.from_bytearray(bytearray(w)) for w in wanted]
    waiting += [h.aio_pwrite(b, i * size) for i, b in enumerate(out)]
    finish()
    back = [nbd.Buffer(size) for _ in wanted]
    waiting += [h.aio_pread(b, i * size) for i, b in enumerate(back)]
    finish()
    assert [bytes(b.to_bytearray()) for b in back] == wanted
h.shutdown()
print("all good")
"""


@pytest.mark.parametrize("kind", ["file", "loop4096"])
def test_libnbd_with_extended_headers_keeps_128_requests_in_flight(serve, disk, debian13, kind):
    server = serve(disk(kind, 16 * MIB), listen="127.0.0.1:0")
    number = seeded().getrandbits(32)
    assert debian13.python(IN_FLIGHT, tcp_uri(server), number) == "all good"


def test_nbdinfo_and_nbdcopy_of_debian_13(serve, sparse_disk, debian13):
    server = serve(f"disk={sparse_disk()}", listen="127.0.0.1:0")
    uri = tcp_uri(server, "disk")
    told = json.loads(debian13.run("nbdinfo", "--json", uri))
    assert told["structured"] and told["protocol"] == "newstyle-fixed"
    assert told["extended"], "no extended headers"
    out = debian13.folder / "out"
    debian13.run("nbdcopy", "--connections=4", uri, debian13.inside(out))
    assert out.read_bytes() == content()
    out.write_bytes(content()[::-1])
    debian13.run("nbdcopy", "--connections=4", debian13.inside(out), uri)
    mapped = json.loads(debian13.run("nbdinfo", "--map", "--json", uri))
    assert sum(e["length"] for e in mapped) == 8 * MIB
    back = debian13.folder / "back"
    debian13.run("nbdcopy", "--synchronous", uri, debian13.inside(back))
    assert back.read_bytes() == content()[::-1]


def test_qemu_10_converts_compares_and_maps(serve, sparse_disk, file_disk, debian13):
    target = file_disk(8 * MIB, pattern(8 * MIB, 5), name="target")
    server = serve(f"from={sparse_disk()}", f"to={target}", listen="127.0.0.1:0")
    source, sink = tcp_uri(server, "from"), tcp_uri(server, "to")
    raw = ("-f", "raw")
    debian13.run("qemu-img", "convert", "-n", "-W", "-m", "8", *raw, "-O", "raw", source, sink)
    debian13.run("qemu-img", "compare", *raw, "-F", "raw", source, sink)
    mapped = json.loads(debian13.run("qemu-img", "map", *raw, "--output=json", source))
    told = joined((e["start"], e["length"], e["data"]) for e in mapped)
    assert told == [[i * 2 * MIB, 2 * MIB, i % 2 == 0] for i in range(4)]
    told = debian13.run(
        "qemu-io", *raw, "-c", "write -P 7 1001 5000", "-c", "read -P 7 1001 5000",
        "-c", "write -z 0 4M", "-c", "read -P 0 0 4M", "-c", "discard 4M 4M", "-c", "flush", sink
    )
    assert "failed" not in told
    server.stop()
    assert contents(target)[: 4 * MIB] == bytes(4 * MIB)
