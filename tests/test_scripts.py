# SPDX-License-Identifier: GPL-2.0-or-later
"""The scripts and the documents: the layer check on made-up trees, usage and help texts, and
whether what there is to configure is written down."""
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
LICENCE = "SPDX-License-Identifier: GPL-2.0-or-later"


def check(root):
    done = subprocess.run([sys.executable, ROOT / "scripts/check-layers.py", root],
                          capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    return done.returncode, done.stdout


def plant(root, files):
    (root / "daemon").mkdir(exist_ok=True)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def c_file(*includes):
    return f"/* {LICENCE} */\n" + "".join(f"#include {i}\n" for i in includes)


def test_this_tree_keeps_its_layers():
    assert check(ROOT) == (0, "layers hold\n")


def test_includes_that_point_down_are_accepted(tmp_path):
    plant(tmp_path, {
        "daemon/base/a.c": c_file('"base/a.h"', "<systemd/sd-daemon.h>"),
        "daemon/wire/a.c": c_file('"wire/a.h"', '"base/bytes.h"', "<string.h>"),
        "daemon/export/a.c": c_file('"export/a.h"', '"wire/a.h"', '"dirty/a.h"',
                                    '"netlink/a.h"', "<liburing.h>"),
        "daemon/tls/a.c": c_file('"wire/a.h"', "<gnutls/gnutls.h>"),
        "daemon/ctl/a.c": c_file('"ctl/a.h"', '"netlink/a.h"'),
        "netlink/a.c": c_file('"netlink/a.h"', '"base/a.h"', "<netlink/genl/genl.h>",
                              "<libkmod.h>"),
        "tests/unit/a.c": c_file('"check.h"', '"export/a.h"', '"negotiator/a.h"'),
    })
    assert check(tmp_path) == (0, "layers hold\n")


@pytest.mark.parametrize("name, include, complaint", [
    ("daemon/base/a.c", '"wire/nbd.h"', "base may not include wire/nbd.h"),
    ("daemon/wire/a.h", '"export/ring.h"', "wire may not include export/ring.h"),
    ("daemon/negotiator/a.c", '"export/device.h"', "negotiator may not include export/device.h"),
    ("daemon/negotiator/a.c", '"netlink/module.h"', "negotiator may not include netlink/"),
    ("daemon/export/a.c", '"negotiator/client.h"', "export may not include negotiator/client.h"),
    ("daemon/dirty/a.c", '"wire/nbd.h"', "dirty may not include wire/nbd.h"),
    ("daemon/ctl/a.c", '"export/device.h"', "ctl may not include export/device.h"),
    ("daemon/tls/a.c", '"negotiator/client.h"', "tls may not include negotiator/client.h"),
    ("netlink/a.c", '"wire/nbd.h"', "netlink may not include wire/nbd.h"),
    ("daemon/export/sub/a.c", '"ctl/main.h"', "export may not include ctl/main.h"),
    ("daemon/export/a.c", '"device.h"', "does not spell its layer"),
    ("daemon/negotiator/a.c", "<liburing.h>", "only export may include <liburing.h>"),
    ("daemon/ctl/a.c", "<linux/io_uring.h>", "only export may include <linux/io_uring.h>"),
    ("daemon/negotiator/a.c", "<gnutls/gnutls.h>", "only tls may include <gnutls/gnutls.h>"),
    ("daemon/ctl/a.c", "<netlink/netlink.h>", "only netlink may include <netlink/netlink.h>"),
    ("daemon/export/a.c", "<libkmod.h>", "only netlink may include <libkmod.h>"),
    ("daemon/wire/a.c", '"base/log.h"', "wire opens, logs and allocates nothing"),
    ("daemon/wire/a.c", "<stdlib.h>", "wire opens, logs and allocates nothing"),
    ("daemon/misc/a.c", "<string.h>", "belongs to no layer"),
])
def test_an_include_against_the_design_is_named(tmp_path, name, include, complaint):
    plant(tmp_path, {name: c_file("<stdint.h>", include)})
    status, said = check(tmp_path)
    assert status == 1
    assert said.startswith(name + ": ") and complaint in said


def test_an_include_with_odd_spacing_is_seen(tmp_path):
    plant(tmp_path, {"daemon/base/a.c": f"/* {LICENCE} */\n #  include\t\"wire/nbd.h\"\n"})
    assert check(tmp_path)[0] == 1


@pytest.mark.parametrize("name, text", [
    ("daemon/base/a.c", "#include <stdint.h>\n"),
    ("daemon/base/a.h", ""),
    ("tests/test_a.py", "import os\n"),
    ("scripts/a", "#!/bin/sh\ntrue\n"),
    (".ci/run", "#!/bin/sh\ntrue\n"),
    ("daemon/base/b.c", "\n" * 10 + f"/* {LICENCE} */\n"),
])
def test_a_source_without_its_licence_line_is_named(tmp_path, name, text):
    plant(tmp_path, {name: text})
    status, said = check(tmp_path)
    assert status == 1
    assert said.startswith(f"{name}: no line says SPDX")


def test_build_folders_and_dot_folders_are_not_looked_at(tmp_path):
    plant(tmp_path, {"build/a.c": "", "build-x/a.c": "", ".git/a.c": "",
                     "tests/__pycache__/a.py": "", "README.md": "text\n"})
    assert check(tmp_path)[0] == 0


def test_every_fault_is_told_not_only_the_first(tmp_path):
    plant(tmp_path, {"daemon/base/a.c": '#include "wire/nbd.h"\n',
                     "daemon/wire/a.c": c_file("<liburing.h>")})
    assert len(check(tmp_path)[1].splitlines()) == 3


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["/nonexistent"]])
def test_the_layer_check_refuses_wrong_arguments(arguments):
    done = subprocess.run([sys.executable, ROOT / "scripts/check-layers.py", *arguments],
                          capture_output=True, timeout=60)
    assert done.returncode == 2 and done.stderr


@pytest.mark.parametrize("script", ["install-packages", "quickstart", "test", "fuzz", "lab"])
def test_a_script_explains_itself(script):
    done = subprocess.run([ROOT / "scripts" / script, "--help"], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 0 and f"scripts/{script}" in done.stdout and not done.stderr


@pytest.mark.parametrize("script", ["install-packages", "quickstart", "test", "lab"])
def test_a_script_refuses_unknown_arguments(script):
    done = subprocess.run([ROOT / "scripts" / script, "--no-such-thing"], capture_output=True,
                          text=True, stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 2 and f"scripts/{script}" in done.stderr and not done.stdout


@pytest.mark.parametrize("purpose", ["build", "quickstart", "test"])
def test_package_lists_grow_by_purpose(purpose):
    done = subprocess.run([ROOT / "scripts/install-packages", "--list", purpose],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    packages = done.stdout.split()
    assert {"gcc", "meson", "liburing-dev"} <= set(packages)
    assert ("qemu-utils" in packages) == (purpose != "build")
    assert ("python3-pytest" in packages) == (purpose == "test")


def test_ci_runs_the_test_script_and_nothing_else():
    lines = (ROOT / ".ci/run").read_text().splitlines()
    commands = [line for line in lines if line and not line.startswith("#")]
    assert len(commands) == 1 and commands[0].endswith('scripts/test"')


def documented(name):
    return (ROOT / "docs" / name).read_text()


def test_every_option_error_that_is_sent_is_documented():
    sources = [*(ROOT / "daemon/negotiator").glob("*.c"), *(ROOT / "daemon/wire").glob("option.c")]
    text = "".join(path.read_text() for path in sources)
    errors = set(re.findall(r"NBD_REP_(ERR_[A-Z_]+)", text))
    assert "ERR_UNKNOWN" in errors
    assert [error for error in sorted(errors) if error not in documented("protocol.md")] == []


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/testing.md",
                                  "docs/processes.md", "docs/configuration.md", "docs/control.md",
                                  "docs/protocol.md"])
def test_files_that_a_document_names_are_there(name):
    text = (ROOT / name).read_text()
    paths = set(re.findall(r"(?<![\w/])((?:docs|scripts|tests|daemon)/[\w./*-]*[\w*])", text))
    paths -= {path for path in paths if "NAME" in path or "*" in path}
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
