# SPDX-License-Identifier: GPL-2.0-or-later
"""What latches a failed flush, what does not, and where it is remembered."""

import os
import pathlib
import shutil
import subprocess
import tempfile

import nbdwire as wire
import pytest
from conftest import MIB, SANITIZERS

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
