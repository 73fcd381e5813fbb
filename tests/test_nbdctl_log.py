# SPDX-License-Identifier: GPL-2.0-or-later
"""nbdctl log, on a journal made for it."""

import os
import signal
import subprocess

import pytest

from nbdctl import ctl, short_folder  # noqa: F401, fixtures
from nbdwire import PATIENCE


def test_log_says_that_there_is_nothing(ctl, tmp_path):
    done = ctl("log", "web1", "-D", tmp_path)
    assert done.stdout == "" and "no entry about web1" in done.stderr


def test_log_of_a_folder_that_is_not_there_is_status_1(ctl):
    assert "journal" in ctl("log", "web1", "-D", "/nonexistent", status=1).stderr


def journal_entries():
    """For systemd-journal-remote, in its export format."""
    base = 1700000000000000
    texts = [
        ("_SYSTEMD_UNIT=nbd-export@web1.service", "first of web1"),
        ("_SYSTEMD_UNIT=nbd-export@db.service", "of another"),
        ("_SYSTEMD_UNIT=nbd-negotiator.service\nEXPORT=web1", "refused by the negotiator"),
        ("_SYSTEMD_UNIT=nbd-negotiator.service\nEXPORT=db", "of another again"),
        ("_SYSTEMD_UNIT=liar.service\nEXPORT=web1", "a lie"),
        ("_SYSTEMD_UNIT=init.scope\n_PID=1\nUNIT=nbd-export@web1.socket", "Listening on web1"),
        ("_SYSTEMD_UNIT=nbd-export@web1.service", "last of web1"),
    ]
    return "".join(
        f"__REALTIME_TIMESTAMP={base + i * 1000000}\n__MONOTONIC_TIMESTAMP={1000000 * (i + 1)}\n"
        f"_BOOT_ID={'0123456789abcdef' * 2}\n_HOSTNAME=box\nSYSLOG_IDENTIFIER=nbd\n"
        f"{fields}\nMESSAGE={text}\n" + ("" if "_PID" in fields else "_PID=42\n") + "\n"
        for i, (fields, text) in enumerate(texts))


@pytest.fixture
def journal(tmp_path):
    remote = "/lib/systemd/systemd-journal-remote"
    if not os.access(remote, os.X_OK):
        pytest.skip("systemd-journal-remote is not installed")
    subprocess.run([remote, "-o", tmp_path / "x.journal", "-"], input=journal_entries().encode(),
                   check=True, capture_output=True, timeout=60)
    return tmp_path


def test_log_prints_what_is_about_the_export_as_journalctl_does(ctl, journal):
    lines = ctl("log", "web1", "-D", journal, env={"TZ": "UTC"}).stdout.splitlines()
    assert [line.split(": ", 1)[1] for line in lines] == [
        "first of web1", "refused by the negotiator", "Listening on web1", "last of web1"]
    assert lines[0] == "Nov 14 22:13:20 box nbd[42]: first of web1"


@pytest.mark.parametrize("n, expected", [(0, 0), (1, 1), (3, 3), (4, 4), (100, 4)])
def test_log_prints_the_last_lines(ctl, journal, n, expected):
    lines = ctl("log", "web1", "-D", journal, "-n", str(n)).stdout.splitlines()
    assert len(lines) == expected
    assert not lines or lines[-1].endswith("last of web1")


def test_log_follows_until_it_is_interrupted(ctl, journal):
    child = ctl.start("log -f", "web1", "-D", journal)
    for text in ("first of web1", "refused", "Listening", "last of web1"):
        assert text in child.stdout.readline()
    assert child.poll() is None
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=PATIENCE)
