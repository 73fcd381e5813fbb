# SPDX-License-Identifier: GPL-2.0-or-later
"""The preset: where systemd switches on all units that came with a system, nothing of ours listens
before an administrator says so."""

import pathlib
import shutil

import pytest

from conftest import BUILD, needs_program, run

PRESET = pathlib.Path(__file__).resolve().parent.parent / "units/80-nbd-export.preset"


@pytest.fixture
def root(tmp_path):
    """A system's folder with our units, our preset, and the distribution's: enable all."""
    units = tmp_path / "usr/lib/systemd/system"
    presets = tmp_path / "usr/lib/systemd/system-preset"
    for folder in (units, presets, tmp_path / "etc/systemd/system"):
        folder.mkdir(parents=True)
    for unit in (BUILD / "units").glob("nbd-*.s*"):
        shutil.copy(unit, units)
    (presets / "90-systemd.preset").write_text("enable *\n")
    return tmp_path


def enabled(root):
    run(needs_program("systemctl"), f"--root={root}", "preset-all")
    return sorted(link.name for link in (root / "etc/systemd/system").rglob("nbd-*"))


def test_nothing_listens_by_the_distributions_default(root):
    assert "nbd-negotiator.socket" in enabled(root)
    run("systemctl", f"--root={root}", "disable", "nbd-negotiator.socket")
    shutil.copy(PRESET, root / "usr/lib/systemd/system-preset")
    assert enabled(root) == []


def test_every_unit_that_can_be_enabled_is_in_the_preset(root):
    installable = [unit.name for unit in (root / "usr/lib/systemd/system").iterdir()
                   if "[Install]" in unit.read_text()]
    words = [line.split() for line in PRESET.read_text().splitlines() if line[0] != "#"]
    assert sorted(["disable", name] for name in installable) == sorted(words)
