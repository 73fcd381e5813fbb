# SPDX-License-Identifier: GPL-2.0-or-later
"""nbdctl attach, detach and attached as far as they go without the kernel's driver; with it they
are tests/test_guest_attach.py."""

import pathlib
import subprocess

import pytest

from conftest import complaints, needs_root
from nbdctl import ctl, short_folder  # noqa: F401, fixtures
from nbdwire import PATIENCE


@pytest.fixture
def no_driver():
    if pathlib.Path("/sys/module/nbd").exists():
        pytest.skip("the kernel's nbd driver is loaded here")


@pytest.mark.parametrize("words", [
    ["attach"], ["attach", "nbd://h/x", "/dev/nbd0", "more"], ["attach", "h"],
    ["attach", "nbd://h/x", "/dev/sda"], ["attach", "nbd://h/x", "nbd0"],
    ["attach", "nbd://h/x", "--connections=0"], ["attach", "nbd://h/x", "--connections=65"],
    ["attach", "nbd://h/x", "--timeout=soon"], ["attach", "nbd://h/x", "--name=a b"],
    ["attach", "nbd://h/x?tls-hostname=y"], ["detach"], ["detach", "a b"], ["detach", "/dev/sda"],
    ["attached", "what"],
])
def test_a_wrong_command_line_is_said_to_be_wrong(ctl, words):
    ctl(words[0], *words[1:], status=2)


def test_without_the_driver_it_is_said_how_to_get_it(ctl, no_driver):
    said = ctl("attach", "nbd://localhost/x", status=1).stderr
    assert "nbd driver is not loaded" in said and "--load-module" in said


def test_a_module_that_is_not_there_is_named(ctl, no_driver):
    needs_root()
    if list(pathlib.Path("/lib/modules").glob("*/kernel/drivers/block/nbd.ko*")):
        pytest.skip("this kernel's modules are here")
    said = ctl("attach", "nbd://localhost/x", "--load-module", status=1).stderr
    assert "no module nbd" in said


def test_without_the_driver_nothing_is_attached(ctl, no_driver):
    assert ctl.json("attached") == []
    assert "nothing is attached by the name db" in ctl("detach", "db", status=1).stderr
    assert "not attached" in ctl("detach", "/dev/nbd0", status=1).stderr


# nbd-attach


def nbd_attach(programs, folder, label="db"):
    return subprocess.run([programs.attach, label, f"--config={folder}"], capture_output=True,
                          text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL, check=False)


@pytest.mark.parametrize("text, sentence", [
    ("", "URI= is missing"), ("[Attach]\nURI=nbds://me@h/x\n", "db.conf:2: URI="),
    ("[Attach]\nURI=nbd://h/x\nSpeed=high\n", "db.conf:3: Speed="),
])
def test_a_file_that_cannot_be_right_is_named_with_its_line(programs, tmp_path, text, sentence):
    (tmp_path / "db.conf").write_text(text)
    done = nbd_attach(programs, tmp_path)
    assert done.returncode == 1 and sentence in done.stderr
    assert not complaints(done.stderr)


@pytest.mark.parametrize("label", ["nothing", "../db", ""])
def test_a_label_without_a_file_is_refused(programs, tmp_path, label):
    (tmp_path / "db.conf").write_text("[Attach]\nURI=nbd://h/x\n")
    done = nbd_attach(programs, tmp_path / "x", label)
    assert done.returncode == 1 and done.stderr.startswith("nbd-attach: ")


def test_nbd_attach_says_that_the_driver_is_missing(programs, tmp_path, no_driver):
    (tmp_path / "db.conf").write_text("[Attach]\nURI=nbd://localhost/x\nLoadModule=no\n")
    done = nbd_attach(programs, tmp_path)
    assert done.returncode == 1 and "nbd driver is not loaded" in done.stderr
