# SPDX-License-Identifier: GPL-2.0-or-later
"""What latches a failed flush, what does not, and where it is remembered."""

import contextlib
import errno
import os
import pathlib
import shutil
import subprocess
import tempfile
import threading

import nbdwire as wire
import pytest
from conftest import MIB, SANITIZERS, fill, needs_program, run, wait_until
from nbdwire import PATIENCE
from syncasks import Syncs
from test_channel import client_over, connect, running_export
from test_control import Failed, start  # noqa: F401
from test_drain import drain_in_background

NOBODY = 65534


def test_a_full_file_system_is_no_failed_flush(serve, mounted):
    path = mounted("ext4", size=16 * MIB) / "disk"
    path.touch()
    os.truncate(path, 64 * MIB)
    client = serve(path).client()
    full = [i for i in range(64) if client.write_error(i * MIB, b"z" * MIB)]
    assert full
    assert client.write_error(63 * MIB, b"q" * 4096, wire.CMD_FLAG_FUA) == wire.ENOSPC
    client.flush()


@pytest.fixture
def open_folder():
    """A folder that every user can enter, unlike pytest's."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="nbd-open-", dir="/var/tmp"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def test_an_export_starts_without_root_and_without_a_runtime_folder(programs, open_folder):
    """As after su, or in a container: no XDG_RUNTIME_DIR, and /run is root's."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    for program in (programs.nbdctl, programs.negotiator, programs.export):
        shutil.copy(program, open_folder)
    disk = open_folder / "disk"
    disk.write_bytes(bytes(MIB))
    os.chown(disk, NOBODY, NOBODY)
    env = {k: v for k, v in os.environ.items()
           if k not in ("XDG_RUNTIME_DIR", "NBD_EXPORT_FLUSH_FAILED", "NOTIFY_SOCKET")}
    child = subprocess.Popen(
        ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
         open_folder / "nbdctl", "serve", disk],
        env=env | SANITIZERS | {"NBD_EXPORT_PROGRAMS": str(open_folder)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = child.stdout.readline()
    finally:
        child.terminate()
        _, errors = child.communicate(timeout=30)
    assert line.startswith("serving disk at "), errors
    assert child.returncode == 0, errors


@pytest.fixture
def asking(start, tmp_path, file_disk, cleanup):  # noqa: F811
    """asking(answer, ...): an export of a file, and its syncs, of which `answer` decides."""

    def make(answer, disk=None, label="disk", **settings):
        disk = disk or file_disk()
        syncs = cleanup.enter_context(contextlib.closing(Syncs(tmp_path, disk, answer)))
        export = start(device=disk, label=label, env=syncs.env, Engine="threads", **settings)
        syncs.seen.clear()                      # of its start
        return export, syncs

    return make


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fua_is_told_was_lost_is_no_secret_to_the_next_flush(asking, error):
    """The kernel tells once what became of a file's page cache, whoever asks."""
    lost = []
    export, syncs = asking(lambda what: lost.pop() if lost else 0)
    client = client_over(connect(export).client()[0])
    client.write(0, b"a" * 4096, wire.CMD_FLAG_FUA)
    assert set(syncs.seen) == {"sync"}
    client.write(4096, b"b" * 4096)
    lost.append(error)
    assert client.write_error(8192, b"c" * 4096, wire.CMD_FLAG_FUA)
    assert client.call(wire.CMD_FLUSH).error == wire.EIO
    assert "flush" in export.control.get("FlushFailed")
    assert export.stop() == 1


def test_a_flush_beside_the_last_one_of_a_drain_is_told_what_that_one_is(asking):
    let_go = threading.Event()
    answers = [errno.EIO]

    def answer(what):
        error = answers.pop() if answers else 0
        if error:
            assert let_go.wait(PATIENCE)
        return error

    export, syncs = asking(answer)
    ended = drain_in_background(export)
    wait_until(lambda: syncs.seen, "the last flush")
    export.control("Resume")
    assert "before it was drained" in ended()
    client = client_over(connect(export).client()[0])
    cookie = client.send_request(wire.CMD_FLUSH)
    for _ in range(200):                        # the time of a flush that would not wait
        client.read(0, 4096)
    let_go.set()
    assert client.wait(cookie).error == wire.EIO
    assert "flush" in export.control.get("FlushFailed")
    assert export.stop() == 1


def test_a_drain_after_a_failed_flush_tries_once_more_and_says_that_one_failed(asking):
    answers = [errno.EIO]
    export, syncs = asking(lambda what: answers.pop() if answers else 0)
    client = client_over(connect(export).client()[0])
    assert client.call(wire.CMD_FLUSH).error == wire.EIO
    with pytest.raises(Failed, match="flushing the device failed"):
        export.control("Drain")
    assert syncs.seen == ["sync"] * 2
    assert "drained, but a flush failed" in export.log
    assert export.stop() == 1
    assert "what was written since the one before it may be lost" in export.log


def test_a_sync_at_the_start_that_fails_is_no_secret_to_the_first_flush(
        asking, start, file_disk, tmp_path):  # noqa: F811
    """The bitmaps' look at what others have written takes the kernel's word away from FLUSH."""
    disk, store = file_disk(), tmp_path / "bitmaps"
    assert start(device=disk, Bitmap="b", BitmapStore=store).stop() == 0
    answers = [errno.EIO]
    export, _ = asking(lambda what: answers.pop() if answers else 0, disk, "again",
                       BitmapStore=store)
    assert not answers
    assert "at the start" in export.control.get("FlushFailed")
    client = client_over(connect(export).client()[0])
    assert client.call(wire.CMD_FLUSH).error == wire.EIO
    assert export.stop() == 1


def test_where_nothing_can_be_written_a_flush_has_nothing_to_do(asking):
    """On squashfs and ISO 9660 a sync is an invalid argument."""
    export, syncs = asking(lambda what: errno.EINVAL, ReadOnly="yes")
    client = client_over(connect(export).client()[0])
    client.flush()
    assert syncs.seen == ["sync"]
    assert export.stop() == 0
    assert syncs.seen == ["sync"] * 2


NOBODY_ELSE = 54321     # of whom nothing runs but the export
AS_NOBODY_ELSE = ["setpriv", f"--reuid={NOBODY_ELSE}", f"--regid={NOBODY_ELSE}", "--clear-groups"]


@pytest.fixture
def of_another_user(programs, open_folder, cleanup):
    """An export of a file, as a user to whom limits apply."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    program = shutil.copy(programs.export, open_folder)
    script = open_folder / "as-somebody-else"
    script.write_text(f"#!/bin/sh\nexec {' '.join(AS_NOBODY_ELSE)} {program} \"$@\"\n")
    script.chmod(0o755)
    notes = open_folder / "notes"
    disk = fill(open_folder / "disk", 8 * MIB)
    notes.mkdir()
    for path in (notes, disk):
        os.chown(path, NOBODY_ELSE, NOBODY_ELSE)
    cleanup.callback(os.umask, os.umask(0))             # for the socket of READY=1
    return cleanup.enter_context(running_export(
        open_folder, script, device=disk, env={"NBD_EXPORT_FLUSH_FAILED": str(notes)}))


def test_what_the_kernel_has_no_thread_for_is_done_all_the_same(of_another_user):
    """io_uring cancels what it cannot begin: that is no failed flush, and nobody's mistake."""
    export = of_another_user
    client = client_over(connect(export).client()[0])
    run(*AS_NOBODY_ELSE, needs_program("prlimit"), f"--pid={export.pid}", "--nproc=1:1")
    data = os.urandom(MIB)
    client.write(0, data, wire.CMD_FLAG_FUA)
    client.flush()
    client.zero(4096, 8192, wire.CMD_FLAG_FUA)
    client.trim(MIB // 2, 65536)
    client.flush()
    assert client.read(0, 4096) == data[:4096]
    assert "failed" not in export.log
