# SPDX-License-Identifier: GPL-2.0-or-later
"""The systemd generator by itself: from a folder of export files to units."""

import os
import subprocess

import pytest

from conftest import BUILD, SANITIZERS, needs_program

GENERATOR = BUILD / "daemon/generator/nbd-export-generator"
DROP_IN = "50-device.conf"


class Generated:
    """What one run made of these files: {"web1": "Device=/dev/sda"}"""

    def __init__(self, folder, files, container=False, program=GENERATOR):
        self.exports = folder / "exports.d"
        self.exports.mkdir()
        for label, text in files.items():
            (self.exports / f"{label}.conf").write_text(f"[Export]\n{text}\n")
        self.folders = [folder / name for name in ("normal", "early", "late")]
        for made in self.folders:
            made.mkdir()
        self.run = self._run(program, container)
        self.normal = self.folders[0]

    def _run(self, program, container):
        env = dict(os.environ, **SANITIZERS)
        env["SYSTEMD_VIRTUALIZATION"] = "container:systemd-nspawn" if container else "vm:qemu"
        return subprocess.run([program, f"--exports={self.exports}", *self.folders], env=env,
                              capture_output=True, text=True, timeout=20, check=False)

    def files(self):
        return sorted(str(path.relative_to(self.normal)) for path in self.normal.rglob("*")
                      if not path.is_dir())

    def drop_in(self, unit):
        """Its lines, without the comment that says where they come from."""
        lines = (self.normal / f"{unit}.d" / DROP_IN).read_text().splitlines()
        assert lines[0].startswith("# Made by nbd-export-generator from /")
        return lines[1:]


@pytest.fixture
def generate(tmp_path):
    def run(files, **how):
        made = Generated(tmp_path, files, **how)
        assert made.run.returncode == 0, made.run.stderr
        assert not any(made.folders[1].iterdir()) and not any(made.folders[2].iterdir())
        return made

    return run


def test_an_export_comes_and_goes_with_its_device(generate):
    made = generate({"web1": "Device=/dev/disk/by-id/web-1"})
    bound = ["[Unit]", r"BindsTo=dev-disk-by\x2did-web\x2d1.device",
             r"After=dev-disk-by\x2did-web\x2d1.device"]
    assert made.run.stderr == ""
    assert made.files() == [
        rf"dev-disk-by\x2did-web\x2d1.device.wants/nbd-export@web1.socket",
        f"nbd-export@web1.service.d/{DROP_IN}",
        f"nbd-export@web1.socket.d/{DROP_IN}",
    ]
    assert made.drop_in("nbd-export@web1.socket") == bound
    assert made.drop_in("nbd-export@web1.service") == bound + [
        "[Service]", "DevicePolicy=closed", 'DeviceAllow="/dev/disk/by-id/web-1" rw',
        'BindPaths="-/dev/disk/by-id/web-1"']


def test_a_read_only_export_may_only_read_its_device(generate):
    made = generate({"web1": "Device=/dev/sda\nReadOnly=yes"})
    assert 'DeviceAllow="/dev/sda" r' in made.drop_in("nbd-export@web1.service")


def test_a_file_waits_for_its_file_system(generate):
    made = generate({"a": "Device=/srv/disks/a.img", "b": "Device=/srv/disks/b.img\nReadOnly=yes"})
    assert made.files()[0] == "multi-user.target.wants/nbd-export@a.socket"
    assert made.drop_in("nbd-export@a.socket") == \
        ["[Unit]", 'RequiresMountsFor="/srv/disks/a.img"']
    assert made.drop_in("nbd-export@a.service") == \
        ["[Unit]", 'RequiresMountsFor="/srv/disks/a.img"', "[Service]", "DevicePolicy=closed",
         'BindPaths="-/srv/disks/a.img"']
    assert 'BindReadOnlyPaths="-/srv/disks/b.img"' in made.drop_in("nbd-export@b.service")


def test_the_folder_of_bitmaps_is_there_before_the_export_and_may_be_written(generate):
    made = generate({"a": "Device=/dev/sda\nReadOnly=yes\nBitmapStore=/srv/my bitmaps/a"})
    lines = made.drop_in("nbd-export@a.service")
    assert 'RequiresMountsFor="/srv/my bitmaps"' in lines
    assert 'BindPaths="-/srv/my bitmaps"' in lines


def test_start_at_boot_wants_the_service_too(generate):
    made = generate({"a": "Device=/srv/a\nStartAtBoot=yes", "b": "Device=/dev/b\nStartAtBoot=yes"})
    wants = [name for name in made.files() if ".wants/" in name]
    assert wants == [
        "dev-b.device.wants/nbd-export@b.service", "dev-b.device.wants/nbd-export@b.socket",
        "multi-user.target.wants/nbd-export@a.service",
        "multi-user.target.wants/nbd-export@a.socket",
    ]
    assert os.readlink(made.normal / wants[0]).endswith("/nbd-export@.service")
    assert os.readlink(made.normal / wants[1]).endswith("/nbd-export@.socket")


def test_a_container_has_no_units_for_devices_and_waits_for_none(generate):
    made = generate({"a": "Device=/dev/loop0"}, container=True)
    assert made.files()[0] == "multi-user.target.wants/nbd-export@a.socket"
    assert made.drop_in("nbd-export@a.socket") == ["[Unit]"]
    assert 'DeviceAllow="/dev/loop0" rw' in made.drop_in("nbd-export@a.service")


def test_bad_files_are_named_and_the_others_are_not_their_concern(generate):
    made = generate({
        "bad": "Device=/dev/x\nColour=red",
        "climbs": "Device=/dev/../etc/shadow",
        "good": "Device=/dev/good",
        "long": f"Device=/dev/{'-' * 80}",
        "twice": "Device=/dev/y\nName=good",
    })
    said = made.run.stderr.splitlines()
    assert [line.split("/exports.d/")[1].split(".conf")[0] for line in said] == \
        ["bad", "climbs", "twice", "long"]
    assert all(line.endswith("; the file is skipped") for line in said)
    assert "bad.conf:3" in said[0] and "Colour" in said[0]
    assert all("good" in name for name in made.files())


def test_a_folder_that_is_not_there_is_no_fault(tmp_path):
    done = subprocess.run([GENERATOR, f"--exports={tmp_path}/none", tmp_path],
                          capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_output_that_takes_nothing_is_an_error(tmp_path):
    (tmp_path / "a.conf").write_text("[Export]\nDevice=/dev/a\n")
    (tmp_path / "nbd-export@a.socket.d").write_text("in the way")
    done = subprocess.run([GENERATOR, f"--exports={tmp_path}", tmp_path],
                          capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert "nbd-export@a.socket.d" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["/a", "/b"], ["--colour", "/a"]])
def test_a_wrong_command_line_is_refused(arguments):
    done = subprocess.run([GENERATOR, *arguments], capture_output=True, timeout=20, check=False)
    assert done.returncode == 2


PATHS = ["/dev/sda", "/dev/a b", "/dev/100%i", "/dev/flüchtig", r"/dev/disk/by-label/a\x20b",
         "/dev//x/./y/", "/dev/q\"u'o", "/dev/.h", "/dev/@-_:.,;=~$`"]


@pytest.mark.parametrize("path", PATHS)
def test_a_device_is_called_what_systemd_calls_it(generate, path):
    escape = needs_program("systemd-escape")
    want = subprocess.run([escape, "--path", "--suffix=device", path], capture_output=True,
                          text=True, timeout=20, check=True).stdout.strip()
    made = generate({"a": f"Device={path}"})
    assert f"BindsTo={want}" in made.drop_in("nbd-export@a.socket")


@pytest.mark.parametrize("path", ["/dev/sda", "/srv/a b", "/srv/100%i", "/srv/flüchtig:x",
                                  r"/srv/a\x20b", "/srv/q\"u'o"])
def test_systemd_understands_what_was_made(generate, tmp_path, path):
    """`systemd-analyze verify` complains about every line that it cannot read."""
    analyze = needs_program("systemd-analyze")
    made = generate({"a": f"Device={path}"})
    for kind in ("service", "socket"):
        text = (BUILD / f"units/nbd-export@.{kind}").read_text()
        (made.normal / f"nbd-export@.{kind}").write_text(text)
    env = dict(os.environ, SYSTEMD_UNIT_PATH=f"{made.normal}:", SYSTEMD_LOG_LEVEL="info")
    done = subprocess.run([analyze, "verify", "--man=no", "nbd-export@a.service"], env=env,
                          cwd=made.normal, capture_output=True, text=True, timeout=60, check=False)
    said = [line for line in done.stderr.splitlines() if "nbd-export" in line or DROP_IN in line]
    assert not [line for line in said if "is not executable" not in line], done.stderr
