# SPDX-License-Identifier: GPL-2.0-or-later
"""nbd-export --confine: what it cannot open any more, and that all it does later works in there."""

import ctypes
import random
import signal
import subprocess

import nbdwire as wire
import pytest
from conftest import MIB, SANITIZERS, fill, loop_attach, wait_until
from test_channel import client_over, connect, serves
from test_control import OBJECT, start  # noqa: F401, a fixture

BITMAPS = "org.nbd_export.Bitmaps1"


@pytest.fixture(autouse=True)
def landlock():
    if ctypes.CDLL(None).syscall(444, None, 0, 1) < 1:  # landlock_create_ruleset(2): the version
        pytest.skip("this kernel has no Landlock")


@pytest.fixture
def confined(start, tmp_path):  # noqa: F811
    """confined(...): an export as a unit starts it, with folders of its own."""

    def make(**how):
        state, notes = tmp_path / "bitmaps-of-disk", tmp_path / "notes"
        state.mkdir(exist_ok=True)
        (notes / "disk").mkdir(parents=True, exist_ok=True)
        export = start(options=["--confine", "--debug"], env={
            "STATE_DIRECTORY": str(state), "NBD_EXPORT_FLUSH_FAILED": str(notes)}, **how)
        assert "may open its own files only" in export.log
        export.bitmaps, export.notes = state, notes / "disk"
        return export

    return make


@pytest.mark.parametrize("which", ["another image", "the folder above", "its own settings", "/etc"])
def test_only_its_own_files_can_be_opened(programs, tmp_path, file_disk, which):
    exports = tmp_path / "exports"
    exports.mkdir()
    (exports / "disk.conf").write_text(f"[Export]\nDevice={file_disk(MIB)}\n")
    (tmp_path / "other.img").write_bytes(b"secret")
    path = {"another image": tmp_path / "other.img", "the folder above": tmp_path,
            "its own settings": exports / "disk.conf", "/etc": "/etc/passwd"}[which]
    done = subprocess.run(
        [programs.export, "disk", f"--exports={exports}", f"--sandbox-check={path}"],
        capture_output=True, text=True, timeout=60, check=False,
        env=SANITIZERS | {"STATE_DIRECTORY": str(tmp_path / "none"), "PATH": "/usr/bin",
                          "NBD_EXPORT_FLUSH_FAILED": str(tmp_path / "notes")})
    may = which in ("its own settings", "/etc")
    assert done.returncode == (1 if may else 0), done.stderr
    assert ("can be opened in the sandbox" in done.stderr) == may


def test_bitmaps_are_made_kept_and_removed(confined):
    export = confined()
    export.control.busctl("call", "org.nbd_export", OBJECT, BITMAPS, "Add", "sa{sv}", "daily", 0)
    assert [path.name for path in export.bitmaps.iterdir()] == ["bitmaps"]
    ours = connect(export)
    with client_over(ours.client()[0]) as client:
        client.write(0, b"x" * 65536)
    export.control.busctl("call", "org.nbd_export", OBJECT, BITMAPS, "Remove", "sa{sv}", "daily",
                          0)
    assert "Permission denied" not in export.log


def test_a_failed_flush_is_noted_and_cleared(confined, mounted, cleanup):
    folder = mounted("tmpfs", 8 * MIB)
    device = loop_attach(cleanup, fill(folder / "backing", 64 * MIB), direct=False)
    export = confined(device=device, Direct="no")
    ours = connect(export)
    client = client_over(ours.client()[0])
    for i in range(32):
        client.write(i * MIB, random.randbytes(MIB))
    assert client.error(wire.CMD_FLUSH) == wire.EIO
    assert len(list(export.notes.iterdir())) == 1
    assert "cannot note the failed flush" not in export.log
    assert export.control("ClearError")
    assert list(export.notes.iterdir()) == []
    export.stop(signal.SIGKILL)             # there is still no room for what it has


def test_settings_are_read_again_and_the_control_socket_goes_with_it(confined):
    export = confined()
    export.conf.write_text(f"[Export]\nDevice={export.disk}\nDescription=new\n")
    export.child.send_signal(signal.SIGHUP)
    wait_until(lambda: export.control.get("Description") == "new", "the new file")
    serves(export)
    path = export.control.path
    assert path.exists()
    assert export.stop() == 0
    assert not path.exists()
