#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Fails when a file includes a layer or a library that it may not know.

The two tables below are the design: docs/processes.md says why.  Every source file and
script must also say its licence in an SPDX line.

usage: check-layers.py FOLDER    the top of the source tree
"""
import pathlib
import re
import sys

# A layer, where it lives, and whose headers it may include.
LAYERS = {
    "base": ("daemon/base", {"base"}),
    "wire": ("daemon/wire", {"base", "wire"}),
    "negotiator": ("daemon/negotiator", {"base", "wire", "negotiator"}),
    "tls": ("daemon/tls", {"base", "wire", "tls"}),
    "export": ("daemon/export", {"base", "wire", "dirty", "netlink", "export"}),
    "dirty": ("daemon/dirty", {"base", "dirty"}),
    "attach": ("daemon/attach", {"base", "wire", "netlink", "attach"}),
    "ctl": ("daemon/ctl", {"base", "wire", "dirty", "netlink", "attach", "ctl"}),
    "generator": ("daemon/generator", {"base", "generator"}),
    "netlink": ("netlink", {"base", "netlink"}),
}

# A library's headers, and the one layer that may use them.
LIBRARIES = {
    r"liburing(\.h|/.*)|linux/io_uring\.h": "export",
    r"gnutls/.*": "tls",
    r"netlink/.*|libkmod\.h": "netlink",
    r"libsmartcols(\.h|/.*)": "ctl",
}

# "wire opens nothing, logs nothing, allocates nothing."
NOT_IN_WIRE = re.compile(
    r"base/(log|listen|fdpass|settings|export-settings)\.h"
    r"|stdio\.h|stdlib\.h|unistd\.h|fcntl\.h|malloc\.h|sys/(socket|uio|mman)\.h|systemd/.*")

QUOTED = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"', re.M)
ANGLED = re.compile(r"^[ \t]*#[ \t]*include[ \t]*<([^>]+)>", re.M)
SPDX = "SPDX-License-Identifier: GPL-2.0-or-later"
SOURCES = {".c", ".h", ".py", ".sh"}
SKIPPED = re.compile(r"build|build-.*|__pycache__|\.(?!ci$).*")


def layer_faults(layer: str, name: str, text: str):
    """What one file of a layer includes against the tables."""
    allowed = LAYERS[layer][1]
    for path in QUOTED.findall(text):
        other = path.split("/")[0] if "/" in path else None
        if other is None:
            yield f'{name}: "{path}" does not spell its layer'
        elif other not in allowed:
            yield f"{name}: {layer} may not include {path}"
    for path in ANGLED.findall(text):
        for pattern, owner in LIBRARIES.items():
            if re.fullmatch(pattern, path) and layer != owner:
                yield f"{name}: only {owner} may include <{path}>"
    if layer == "wire":
        for path in QUOTED.findall(text) + ANGLED.findall(text):
            if NOT_IN_WIRE.fullmatch(path):
                yield f"{name}: wire opens, logs and allocates nothing, but includes {path}"


def is_skipped(folder: pathlib.Path) -> bool:
    return bool(SKIPPED.fullmatch(folder.name)) or (folder / "meson-private").exists()


def files_of(root: pathlib.Path):
    """Every file of the tree that is ours, in order; build folders and .git are not."""
    for entry in sorted(root.iterdir()):
        if entry.is_symlink() or (entry.is_dir() and is_skipped(entry)):
            continue
        if entry.is_dir():
            yield from files_of(entry)
        else:
            yield entry


def is_source(file: pathlib.Path) -> bool:
    if file.suffix in SOURCES or file.name == "meson.build":
        return True
    with file.open("rb") as opened:
        return opened.read(2) == b"#!"


def layer_of(name: str) -> str | None:
    for layer, (folder, _) in LAYERS.items():
        if name.startswith(folder + "/"):
            return layer
    return None


def faults(root: pathlib.Path):
    for file in files_of(root):
        if not is_source(file):
            continue
        name = file.relative_to(root).as_posix()
        text = file.read_text(errors="replace")
        if not any(SPDX in line for line in text.splitlines()[:4]):
            yield f"{name}: no line says {SPDX}"
        if file.suffix not in (".c", ".h"):
            continue
        layer = layer_of(name)
        if layer:
            yield from layer_faults(layer, name, text)
        elif not name.startswith("tests/"):
            yield f"{name}: belongs to no layer"


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    root = pathlib.Path(arguments[0])
    if not (root / "daemon").is_dir():
        print(f"check-layers: {root}: no folder daemon/ there", file=sys.stderr)
        return 2
    bad = list(faults(root))
    print("\n".join(bad) or "layers hold")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
