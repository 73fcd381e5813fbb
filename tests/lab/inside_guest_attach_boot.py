# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests/test_guest_attach.py runs in the guest after it has booted again; before that, as a
program of its own, it adds an export and a line of /etc/fstab for a file system on it."""

import pathlib

import pytest

pytest.register_assert_rewrite("guest")
from guest import MIB, ask, run, show, state  # noqa: E402

FOLDER = pathlib.Path("/mnt/kept")
FSTAB = ("/dev/nbd5 /mnt/kept ext4 _netdev,nofail,x-systemd.requires=nbd-attach@kept.service"
         " 0 0\n")


def set_up():
    disk = pathlib.Path("/var/tmp/kept.img")
    run("truncate", f"--size={64 * MIB}", disk)
    run("mkfs.ext4", "-q", disk)
    run("chown", "nbd-export:", disk)
    run("nbdctl", "add", "kept", disk)
    FOLDER.mkdir()
    attach_d = pathlib.Path("/etc/nbd-export/attach.d")
    attach_d.mkdir(exist_ok=True)
    (attach_d / "kept.conf").write_text(
        "[Attach]\nURI=nbd://localhost/kept\nDevice=/dev/nbd5\nConnections=2\n")
    with open("/etc/fstab", "a") as fstab:
        fstab.write(FSTAB)
    run("systemctl", "daemon-reload")
    run("systemctl", "start", "mnt-kept.mount")
    (FOLDER / "x").write_text("from before")
    run("systemctl", "stop", "mnt-kept.mount")


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left():
    """The machine is switched off without stopping units, the server among them."""
    yield
    run("systemctl", "stop", "nbd-attach@kept.service")


def test_a_file_system_of_fstab_is_mounted_at_boot():
    run("systemctl", "start", "remote-fs.target")
    assert state("mnt-kept.mount") == "active" and state("nbd-attach@kept.service") == "active"
    assert (FOLDER / "x").read_text() == "from before"
    assert run("findmnt", "--noheadings", "--output=SOURCE", FOLDER) == "/dev/nbd5"


def test_it_is_unmounted_before_its_device_goes():
    (FOLDER / "y").write_text("from now")
    assert "nbd-attach@kept.service" in show("mnt-kept.mount", "After")
    run("systemctl", "stop", "nbd-attach@kept.service")
    assert state("mnt-kept.mount") == "inactive"
    assert run("nbdctl", "attached", "--noheadings") == ""
    said = run("journalctl", "-b", "--no-pager", "--output=cat")
    assert "stays attached" not in said and "EXT4-fs error" not in said
    assert "(WRITE)" not in said        # udev, which looks at a device that goes, may fail to read
    run("systemctl", "start", "mnt-kept.mount")
    assert (FOLDER / "y").read_text() == "from now"


def test_nothing_has_failed():
    assert run("systemctl", "list-units", "--failed", "--plain", "--no-legend", "nbd-*") == ""
    assert ask("journalctl", "-b", "--grep=ordering cycle").stdout.count("ordering cycle") == 0


if __name__ == "__main__":
    set_up()
