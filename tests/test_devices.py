# SPDX-License-Identifier: GPL-2.0-or-later
"""Any device: what can be served, what is refused and in which words, and who may share it."""

import contextlib
import errno
import fcntl
import os
import pathlib
import select
import signal
import socket
import subprocess

import pytest

import nbdwire
from conftest import (F_OFD_GETLK, F_OFD_SETLK, GIB, KIB, MIB, TIB, backing_of, by_mode,
                      every_disk, fill, lock_byte, loop_attach, needs_program, needs_root, pattern,
                      run, sysfs, takes_o_direct, wait_until)
from nbdwire import (CMD_READ, CMD_WRITE_ZEROES, EINVAL, ENOSPC, EXTENDED, INFO_BLOCK_SIZE,
                     PATIENCE, READ_ONLY)

# Sizes


@by_mode()
@every_disk
def test_every_kind_of_disk_is_served_in_every_mode(serve, disk, kind, mode):
    path = disk(kind, 8 * MIB, pattern(MIB))
    client = serve(path).client("", mode, infos=[INFO_BLOCK_SIZE])
    assert client.size == 8 * MIB
    assert client.read(0, MIB) == pattern(MIB)
    assert client.read(8 * MIB - 512, 512) == bytes(512)


@pytest.mark.parametrize("direct", ["yes", "no"])
@pytest.mark.parametrize("size", [512, 1024, 4096 - 512, 4096 + 512, 3 * 4096 + 1536, MIB - 512])
def test_a_file_of_an_odd_number_of_sectors_is_served_to_its_last_byte(
        serve, file_disk, direct, size):
    """Its tail is shorter than the alignment of direct I/O, and stays where it is."""
    path = file_disk(size, pattern(size))
    client = serve(path, direct=direct).client()
    assert client.size == size
    assert client.read(0, size) == pattern(size)
    client.write(size - 5, b"tail!", nbdwire.CMD_FLAG_FUA)
    assert client.read(size - 5, 5) == b"tail!"
    client.zero(size - 100, 50)
    client.trim(size - 300, 100)
    client.flush()
    assert path.stat().st_size == size
    assert path.read_bytes()[-5:] == b"tail!"
    assert path.read_bytes()[-100:-50] == bytes(50)


@by_mode()
@pytest.mark.parametrize("size", [513, 1000, 4097, MIB + 1, MIB + 511])
def test_a_regular_file_never_grows_nor_loses_its_last_bytes(serve, file_disk, mode, size):
    path = file_disk(size, pattern(size))
    client = serve(path).client("", mode)
    served = size // 512 * 512
    assert client.size == served
    client.write(served - 10, bytes(10))
    assert client.write_error(served - 10, bytes(11)) == ENOSPC
    assert client.error(CMD_WRITE_ZEROES, served, 512) == ENOSPC
    client.zero(0, served)
    client.zero(0, served, nbdwire.CMD_FLAG_NO_HOLE)
    client.trim(0, served)
    client.write(0, pattern(served, 2))
    client.flush()
    assert client.disconnect()
    assert path.stat().st_size == size
    assert path.read_bytes() == pattern(served, 2) + pattern(size)[served:]


@pytest.mark.parametrize("sector", [512, 4096])
def test_a_file_on_any_sectors_is_served_to_its_last_byte(serve, loop_disk, mounted, sector):
    """ext4 over 4096-byte sectors: direct I/O wants 4096 even at the end of the file."""
    folder = mounted("ext4", device=loop_disk(64 * MIB, sector))
    size = 5 * 4096 + 512
    path = fill(folder / "disk", size, pattern(size))
    client = serve(path).client("", EXTENDED)
    assert client.read(0, size) == pattern(size)
    client.write(5 * 4096 - 1, pattern(513, 8), nbdwire.CMD_FLAG_FUA)
    assert client.read(5 * 4096 - 1, 513) == pattern(513, 8)
    assert path.stat().st_size == size


@pytest.mark.parametrize("sector", [512, 4096])
@pytest.mark.parametrize("size", [4096, 12 * 4096, MIB + 4096])
def test_a_block_device_of_few_sectors_is_served_whole(serve, loop_disk, sector, size):
    device = loop_disk(size, sector, pattern(size))
    client = serve(device).client()
    assert client.size == size
    assert client.read(0, size) == pattern(size)
    client.write(size - 1, b"!")
    client.flush()
    assert backing_of(device).read_bytes()[-1:] == b"!"
    assert client.error(CMD_READ, size - 1, 2) == EINVAL


@pytest.mark.parametrize("kind", ["tmpfs", "xfs"])
def test_a_16_tib_sparse_file_is_served(serve, mounted, kind):
    folder = mounted(kind, size=512 * MIB)
    path = fill(folder / "disk", 16 * TIB)
    client = serve(path).client("", EXTENDED, contexts=["base:allocation"])
    assert client.size == 16 * TIB
    for offset in (0, 2**31 - 1, 2**32 - 2, 2**32 + 1, 2**41, 16 * TIB - 4096):
        client.write(offset, b"here")
        assert client.read(offset, 4) == b"here"
    assert client.read(16 * TIB - 512, 512) == bytes(512)
    assert client.error(CMD_READ, 16 * TIB, 1) == EINVAL
    client.zero(0, 16 * TIB)
    client.flush()
    assert client.read(2**41, 4) == bytes(4)
    client.trim(0, 16 * TIB)
    assert sum(length for length, _ in client.status(0, 16 * TIB)["base:allocation"]) == 16 * TIB
    assert path.stat().st_size == 16 * TIB


def test_a_file_as_large_as_ext4_allows_is_served(serve, disk_folder):
    """16 TiB but for a bit, on the file system of the disks' folder, with O_DIRECT."""
    try:
        path = fill(disk_folder / "disk", 16 * TIB - MIB)
    except OSError as error:
        assert error.errno == errno.EFBIG
        pytest.skip("the file system of the test's disks has no files of 16 TiB")
    client = serve(path).client()
    assert client.size == 16 * TIB - MIB
    for offset in (2**32 - 1, 16 * TIB - MIB - 4):
        client.write(offset, b"here")
        assert client.read(offset, 4) == b"here"


@pytest.mark.parametrize("size", [2**63 - 1, 2**63 - 512, 2**62])
def test_sizes_up_to_8_eib_less_1_are_served(serve, tmpfs_disk, size):
    path = tmpfs_disk(size)
    client = serve(path).client("", EXTENDED, contexts=["base:allocation"])
    end = size // 512 * 512
    assert client.size == end
    client.write(end - 4, b"last")
    assert client.read(end - 5, 5) == b"\0last"
    assert client.error(CMD_READ, end - 4, 5) == EINVAL
    assert client.error(CMD_READ, 2**63 - 1, 1) == EINVAL
    assert client.error(CMD_READ, 2**64 - 1, 1) == EINVAL
    assert client.write_error(2**64 - 4, b"last") == ENOSPC
    client.zero(0, end)
    assert client.read(end - 4, 4) == bytes(4)
    told = client.status(0, end)["base:allocation"]
    assert sum(length for length, _ in told) == end


# Read-only


@every_disk
def test_any_disk_can_be_served_read_only(serve, disk, kind):
    client = serve(disk(kind, 8 * MIB, pattern(MIB)), read_only=True).client()
    assert client.flags & READ_ONLY
    assert client.read(0, MIB) == pattern(MIB)
    assert client.write_error(0, b"no") == nbdwire.EPERM


def test_a_read_only_export_opens_its_disk_for_reading_alone(serve, file_disk):
    needs_root()
    path = file_disk(MIB)
    server = serve(path, read_only=True)
    (pid,) = server.pids("nbd-export")
    modes = [flags for target, flags in open_files(pid) if target == str(path)]
    assert modes and all(flags & os.O_ACCMODE == os.O_RDONLY for flags in modes)


def open_files(pid):
    """[(path, flags)] of another process."""
    found = []
    for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            info = pathlib.Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text()
            flags = next(line for line in info.splitlines() if line.startswith("flags:"))
            found.append((os.readlink(entry), int(flags.split()[1], 8)))
    return found


@pytest.mark.parametrize("direct, expected", [("yes", True), ("no", False)])
def test_o_direct_is_used_unless_direct_no(serve, file_disk, direct, expected):
    needs_root()
    path = file_disk(MIB)
    server = serve(path, direct=direct)
    (pid,) = server.pids("nbd-export")
    found = [bool(flags & os.O_DIRECT) for target, flags in open_files(pid) if target == str(path)]
    assert any(found) == expected


def test_a_device_that_the_kernel_calls_read_only_is_served_read_only(serve, loop_disk):
    device = loop_disk(MIB, content=pattern(MIB), read_only=True)
    client = serve(device, read_only=True).client()
    assert client.flags & READ_ONLY
    assert client.read(0, MIB) == pattern(MIB)


def test_a_device_that_the_kernel_calls_read_only_is_never_offered_for_writing(
        serve, refused, loop_disk):
    """Either is right: a refusal in words, or an export that says it is read-only."""
    device = loop_disk(MIB, read_only=True)
    try:
        server = serve(device)
    except AssertionError:
        assert str(device) in refused(device)
        return
    client = server.client()
    assert client.flags & READ_ONLY
    assert client.write_error(0, b"no") == nbdwire.EPERM


def test_a_file_without_write_permission_is_refused_for_writing_and_served_read_only(
        serve, refused, file_disk, disk_folder):
    if os.geteuid() == 0:
        pytest.skip("root may write everything")
    path = file_disk(MIB)
    path.chmod(0o400)
    assert str(path) in refused(path)
    assert serve(path, read_only=True).client().flags & READ_ONLY


# File systems without O_DIRECT


def test_without_o_direct_a_file_is_served_buffered_and_that_is_said_once(serve, ramfs_disk):
    path = ramfs_disk(MIB)
    assert not takes_o_direct(path)
    server = serve(path)
    for _ in range(3):
        with contextlib.closing(server.client()) as client:
            client.write(1, b"buffered")
            client.flush()
    said = [line for line in server.log().splitlines()
            if "direct" in line.lower() and str(path) in line]
    assert len(said) == 1, server.log()
    assert path.read_bytes()[1:9] == b"buffered"


def test_with_o_direct_nothing_is_said_about_it(serve, file_disk):
    server = serve(file_disk(MIB))
    server.client().write(1, b"direct")
    assert "direct" not in server.log().lower().replace(str(server.folder), "")


def test_where_direct_no_is_asked_nothing_is_said_about_it(serve, ramfs_disk):
    server = serve(ramfs_disk(MIB), direct="no")
    server.client().write(1, b"buffered")
    assert "direct" not in server.log().lower()


# Refusals


def assert_sentence(text, path):
    lines = [line for line in text.splitlines() if str(path) in line]
    assert lines, f"no sentence about {path}:\n{text}"
    return " ".join(lines).lower()


def test_a_missing_path_is_refused_with_its_name(refused, disk_folder):
    path = disk_folder / "nowhere"
    assert "no such file" in assert_sentence(refused(path), path)


def test_a_directory_is_refused_with_its_name(refused, disk_folder):
    assert "directory" in assert_sentence(refused(disk_folder), disk_folder)


@pytest.mark.parametrize("size", [0, 1, 511])
def test_a_file_without_a_whole_sector_is_refused_with_its_name(refused, file_disk, size):
    path = file_disk(size)
    sentence = assert_sentence(refused(path), path)
    assert any(word in sentence for word in ("empty", "small", "512", "short"))


def test_an_empty_device_is_refused_with_its_name(refused, zram_disk):
    device = zram_disk(MIB)
    number = device.name.removeprefix("zram")
    pathlib.Path(f"/sys/block/zram{number}/reset").write_text("1")
    assert_sentence(refused(device), device)


def test_an_empty_path_is_refused(refused):
    assert "path" in refused("", statuses=(1, 2)).lower()


@pytest.mark.parametrize("kind", ["fifo", "socket", "character-device"])
def test_what_is_neither_file_nor_block_device_is_refused_with_its_name(
        refused, disk_folder, cleanup, kind):
    path = disk_folder / kind
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        cleanup.enter_context(socket.socket(socket.AF_UNIX)).bind(str(path))
    else:
        path = pathlib.Path("/dev/zero")
    assert_sentence(refused(path), path)


def test_a_dangling_link_is_refused_and_a_good_one_served(serve, refused, disk_folder, file_disk):
    link = disk_folder / "link"
    link.symlink_to(file_disk(MIB))
    assert serve(link).client().size == MIB
    broken = disk_folder / "broken"
    broken.symlink_to("nowhere")
    assert_sentence(refused(broken), broken)


def test_a_path_that_may_not_be_opened_is_refused_with_the_reason(refused, file_disk):
    if os.geteuid() == 0:
        pytest.skip("root may open everything")
    path = file_disk(MIB)
    path.chmod(0)
    assert "permission" in assert_sentence(refused(path), path)


def test_one_bad_path_among_good_ones_stops_all_before_anything_listens(
        refused, file_disk, disk_folder):
    bad = disk_folder / "nowhere"
    assert_sentence(refused(file_disk(MIB, name="a"), bad, file_disk(MIB, name="b")), bad)


def test_a_zoned_device_is_refused_with_its_name(refused, cleanup):
    needs_root()
    folder = pathlib.Path("/sys/kernel/config/nullb/nbd-export-test")
    if not folder.parent.is_dir():
        pytest.skip("no null_blk with configfs, nor another way to a zoned device; the guest has one")
    folder.mkdir()
    cleanup.callback(folder.rmdir)
    for key, value in (("zoned", 1), ("memory_backed", 1), ("size", 256), ("zone_size", 4),
                       ("power", 1)):
        (folder / key).write_text(str(value))
    device = pathlib.Path("/dev") / f"nullb{(folder / 'index').read_text().strip()}"
    wait_until(device.exists, str(device))
    assert "zone" in assert_sentence(refused(device), device)


# Devices in use


def test_a_mounted_device_is_refused_with_its_name_and_that_it_is_in_use(
        refused, loop_disk, mounted):
    device = loop_disk(32 * MIB)
    folder = mounted("ext4", device=device)
    sentence = assert_sentence(refused(device), device)
    assert "in use" in sentence or "busy" in sentence or "mounted" in sentence
    assert_sentence(refused(device, read_only=True), device)
    assert os.path.ismount(folder)


def test_a_mounted_device_is_served_read_only_where_it_is_shared(serve, loop_disk, mounted):
    device = loop_disk(32 * MIB)
    folder = mounted("ext4", device=device)
    (folder / "file").write_text("hello")
    run("sync", "--file-system", folder)
    client = serve(device, read_only=True, shared=True).client()
    assert client.flags & READ_ONLY
    assert client.read(1024 + 56, 2) == b"\x53\xef"


def test_shared_does_not_open_a_mounted_device_for_writing(refused, loop_disk, mounted):
    device = loop_disk(32 * MIB)
    mounted("ext4", device=device)
    assert refused(device, shared=True, statuses=(1, 2))


def test_a_device_that_another_holds_exclusively_is_refused(refused, loop_disk, cleanup):
    device = loop_disk(MIB)
    holder = os.open(device, os.O_RDWR | os.O_EXCL)
    cleanup.callback(os.close, holder)
    sentence = assert_sentence(refused(device), device)
    assert "in use" in sentence or "busy" in sentence


def exclusive_open_error(device):
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL))
    except OSError as error:
        return error.errno
    return None


@pytest.mark.parametrize("read_only", [False, True], ids=["writable", "read-only"])
@pytest.mark.parametrize("kind", ["loop512", "zram"])
def test_a_device_that_is_exported_cannot_be_opened_exclusively_or_mounted(
        serve, disk, kind, read_only):
    device = disk(kind, MIB)
    server = serve(device, read_only=read_only)
    assert exclusive_open_error(device) == errno.EBUSY
    server.stop()
    assert exclusive_open_error(device) is None


@pytest.mark.parametrize("kind", ["file", "loop512", "tmpfs", "ramfs"])
def test_a_disk_is_not_exported_twice_for_writing(serve, refused, disk, kind):
    path = disk(kind, MIB)
    server = serve(path)
    assert_sentence(refused(path), path)
    assert_sentence(refused(path, read_only=True), path)
    assert server.client().read(0, 512) == bytes(512)


def test_a_disk_is_not_exported_twice_by_one_server_either(refused, file_disk):
    path = file_disk(MIB)
    assert_sentence(refused(f"a={path}", f"b={path}"), path)


@pytest.mark.parametrize("kind", ["file", "tmpfs", "ramfs"])
def test_a_file_is_exported_read_only_as_often_as_one_likes(serve, refused, disk, kind):
    path = disk(kind, MIB, pattern(512))
    servers = [serve(path, read_only=True) for _ in range(3)]
    for server in servers:
        assert server.client().read(0, 512) == pattern(512)
    assert_sentence(refused(path), path)


# The locks that QEMU knows
#
# QEMU's file driver locks one byte of the file for each permission: 100 + bit for one that
# it holds, 200 + bit for one that it does not let others have.

CONSISTENT_READ, WRITE, WRITE_UNCHANGED, RESIZE = range(4)
HELD, UNSHARED = 100, 200


def locked(path, base):
    """Which permissions are locked at this base by somebody else."""
    fd = os.open(path, os.O_RDWR)
    try:
        return {bit for bit in range(4) if lock_byte(fd, base + bit, fcntl.F_WRLCK, F_OFD_GETLK)}
    finally:
        os.close(fd)


def test_a_writable_file_is_locked_on_the_bytes_that_qemu_looks_at(serve, file_disk):
    path = file_disk(MIB)
    server = serve(path)
    assert {CONSISTENT_READ, WRITE} <= locked(path, HELD)
    assert {WRITE, RESIZE} <= locked(path, UNSHARED)
    server.stop()
    assert locked(path, HELD) == locked(path, UNSHARED) == set()


def test_a_read_only_file_is_locked_on_the_bytes_that_qemu_looks_at(serve, file_disk):
    path = file_disk(MIB)
    serve(path, read_only=True)
    assert CONSISTENT_READ in locked(path, HELD)
    assert WRITE not in locked(path, HELD)
    assert {WRITE, RESIZE} <= locked(path, UNSHARED)
    assert CONSISTENT_READ not in locked(path, UNSHARED)


def hold(cleanup, path, *bytes_):
    """Locks bytes as a reader of them would, until the test ends."""
    fd = os.open(path, os.O_RDWR)
    cleanup.callback(os.close, fd)
    for byte in bytes_:
        lock_byte(fd, byte, fcntl.F_RDLCK, F_OFD_SETLK)


@pytest.mark.parametrize("byte, read_only", [
    (HELD + WRITE, False), (UNSHARED + WRITE, False), (UNSHARED + CONSISTENT_READ, False),
    (HELD + WRITE, True), (UNSHARED + CONSISTENT_READ, True),
], ids=["writer", "no-writers", "no-readers", "writer-ro", "no-readers-ro"])
def test_a_file_that_another_has_locked_against_it_is_refused(
        refused, file_disk, cleanup, byte, read_only):
    path = file_disk(MIB)
    hold(cleanup, path, byte)
    sentence = assert_sentence(refused(path, read_only=read_only), path)
    assert "lock" in sentence or "in use" in sentence or "another" in sentence


@pytest.mark.parametrize("bytes_", [
    [HELD + CONSISTENT_READ], [HELD + CONSISTENT_READ, UNSHARED + WRITE, UNSHARED + RESIZE],
], ids=["a-reader", "a-reader-that-wants-no-writers"])
def test_a_file_that_another_only_reads_is_served_read_only(serve, file_disk, cleanup, bytes_):
    path = file_disk(MIB)
    hold(cleanup, path, *bytes_)
    assert serve(path, read_only=True).client().read(0, 512) == bytes(512)


def qemu_io(path, *words):
    return subprocess.run([needs_program("qemu-io"), "-f", "raw", *words, str(path)],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=PATIENCE, check=False)


def test_qemu_may_not_open_a_file_that_is_exported_writable(serve, file_disk):
    path = file_disk(MIB)
    serve(path)
    done = qemu_io(path, "-c", "write 0 512")
    assert done.returncode != 0 and "lock" in done.stderr, done
    assert path.read_bytes() == bytes(MIB)


def test_qemu_may_read_what_is_exported_writable_where_it_insists(serve, file_disk):
    path = file_disk(MIB)
    serve(path).client().write(0, b"\xAB" * 512, nbdwire.CMD_FLAG_FUA)
    done = qemu_io(path, "-r", "-U", "-c", "read -P 0xAB 0 512")
    assert done.returncode == 0 and "verification failed" not in done.stdout, done


def test_qemu_may_read_and_not_write_what_is_exported_read_only(serve, file_disk):
    path = file_disk(MIB, b"\xAB" * 512)
    serve(path, read_only=True)
    done = qemu_io(path, "-r", "-c", "read -P 0xAB 0 512")
    assert done.returncode == 0 and "verification failed" not in done.stdout, done
    done = qemu_io(path, "-c", "write 0 512")
    assert done.returncode != 0 and "lock" in done.stderr, done


@pytest.fixture
def qemu_nbd(disk_folder, cleanup):
    """qemu_nbd(path, *words): QEMU's server on a file, ready when this returns."""

    def start(path, *words):
        program = needs_program("qemu-nbd")
        pid_file = disk_folder / "qemu.pid"
        run(program, "--fork", f"--pid-file={pid_file}", "--persistent", "--format=raw",
            f"--socket={disk_folder}/qemu.sock", *words, path)
        pid = int(pid_file.read_text())
        pidfd = os.pidfd_open(pid)
        cleanup.callback(os.close, pidfd)

        def end():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGTERM)
            assert select.select([pidfd], [], [], PATIENCE)[0], "qemu-nbd does not end"

        cleanup.callback(end)

    return start


def test_a_file_that_qemu_exports_writable_is_refused(refused, file_disk, qemu_nbd):
    path = file_disk(MIB)
    qemu_nbd(path)
    assert_sentence(refused(path), path)
    assert_sentence(refused(path, read_only=True), path)


def test_a_file_that_qemu_exports_read_only_is_served_read_only(serve, file_disk, qemu_nbd):
    path = file_disk(MIB)
    qemu_nbd(path, "--read-only")
    assert serve(path, read_only=True).client().read(0, 512) == bytes(512)


# Limits from the kernel


def test_the_size_of_a_device_is_the_kernels(serve, cleanup, disk_folder):
    backing = fill(disk_folder / "odd", 3 * MIB + 512)
    device = loop_attach(cleanup, backing)
    client = serve(device).client()
    assert client.size == int(sysfs(device, "size")) * 512 == 3 * MIB + 512
    client.write(3 * MIB + 500, b"end of disk!")
    assert client.read(3 * MIB + 500, 12) == b"end of disk!"


def test_a_device_without_discard_takes_trim_all_the_same(serve, cleanup, mounted):
    backing = mounted("ramfs") / "backing"
    backing.write_bytes(pattern(MIB))
    device = loop_attach(cleanup, backing, direct=False)
    assert int(sysfs(device, "queue/discard_max_bytes")) == 0
    client = serve(device).client()
    client.trim(0, 512 * KIB)
    assert client.read(512 * KIB, 512 * KIB) == pattern(MIB)[512 * KIB :]


def test_several_disks_of_all_kinds_are_served_at_once(serve, disk):
    kinds = ("file", "loop512", "loop4096", "zram", "tmpfs")
    server = serve(*(f"{kind}={disk(kind, MIB, pattern(4096, i))}"
                     for i, kind in enumerate(kinds)))
    for i, kind in enumerate(kinds):
        client = server.client(kind)
        assert client.read(0, 4096) == pattern(4096, i)
        client.write(100, kind.encode())
    for kind in kinds:
        assert server.client(kind).read(100, len(kind)) == kind.encode()


@pytest.mark.parametrize("size", [5 * GIB])
def test_a_device_of_several_gib_is_addressed_beyond_32_bits(serve, loop_disk, size):
    client = serve(loop_disk(size)).client()
    for offset in (2**31 - 1, 2**32 - 2, size - 4):
        client.write(offset, b"here")
        assert client.read(offset, 4) == b"here"
