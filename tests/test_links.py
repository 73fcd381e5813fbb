# SPDX-License-Identifier: GPL-2.0-or-later
"""Who links what, and what the negotiator cannot do even if it wanted to."""

import dataclasses
import os
import re
import subprocess

import pytest
from conftest import needs_program, run
from test_abuse import is_sanitized


def needed_by(program):
    """The sonames that a program asks for."""
    told = run(needs_program("readelf"), "--dynamic", program)
    return set(re.findall(r"\(NEEDED\).*\[(.*)\]", told))


def links(program, library):
    return any(name.startswith(library) for name in needed_by(program))


def test_the_export_alone_links_liburing(programs):
    assert links(programs.export, "liburing.so")
    assert not links(programs.negotiator, "liburing.so")
    assert not links(programs.nbdctl, "liburing.so")


@pytest.mark.parametrize("name", ["nbdctl", "negotiator", "export"])
def test_nobody_links_a_tls_library_or_what_one_drags_in(programs, name):
    for library in ("libgnutls", "libssl", "libcrypto", "libnbd", "libblkio"):
        assert not links(getattr(programs, name), library), library


def test_netlink_and_modules_are_for_who_attaches(programs):
    for library in ("libnl-genl-3.so", "libkmod.so"):
        assert links(programs.nbdctl, library) and links(programs.attach, library)
        for program in (programs.negotiator, programs.tls):
            assert not links(program, library), library


def test_nbd_tls_alone_links_gnutls(programs):
    assert links(programs.tls, "libgnutls.so")
    assert not links(programs.tls, "libssl") and not links(programs.tls, "liburing.so")


def test_the_negotiator_links_what_closes_its_sandbox(programs):
    assert links(programs.negotiator, "libseccomp.so")


def test_every_program_needs_only_these_libraries(programs):
    known = ("libc.so", "libsystemd.so", "liburing.so", "libseccomp.so", "libasan.so",
             "libubsan.so", "libpthread.so", "ld-linux", "libgcc_s.so", "libm.so",
             "libsmartcols.so", "libnl-3.so", "libnl-genl-3.so", "libkmod.so")
    for program in dataclasses.astuple(programs):
        strange = {name for name in needed_by(program) if not name.startswith(known)}
        if program == programs.tls:
            strange = {name for name in strange if not name.startswith("libgnutls.so")}
        if program == programs.export:
            strange = {name for name in strange if not name.startswith("libnl-3.so")}
        assert not strange, f"{program.name} needs {strange}"


@pytest.mark.parametrize("kind", ["file", "loop512"])
def test_the_negotiator_cannot_open_the_disk_under_the_same_user(programs, disk, kind):
    if is_sanitized(programs.negotiator):
        pytest.skip("a sanitizer needs system calls that the sandbox forbids")
    path = disk(kind)
    with open(path, "r+b"):
        pass  # we can, and the negotiator runs as we do
    done = subprocess.run(
        [programs.negotiator, "--sandbox-check", path],
        capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode == 0, done.stderr or done.stdout
