# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures and clients for tests of the appliance in a container; a plugin of pytest.

    machine             a booted container, one for each file of tests; see machine.py
    loop_device         a loop device that it sees, or None
    export(label)       a file-backed export by a hand-written file
    image(name)          a file to export; afterwards all exports are removed
    client(...)         one of the programs below, connected
"""

import errno
import os
import shutil
import subprocess
import tempfile
import urllib.parse

import pytest

from conftest import MIB, PATIENCE, needs_program, run
from machine import Machine, needs_container

SIZE = 64 * MIB
EXPORTS = "/etc/nbd-export/exports.d"

# A client in the container that writes block after block, each with its number in it, and says
# at the end how many were acknowledged and how it ended.
WRITER = """
import json, nbd, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
print("connected", flush=True)
n = 0
try:
    while True:
        h.pwrite(n.to_bytes(8, "big") * 512, n % 4096 * 4096)
        n += 1
        if n == 100:
            print("writing", flush=True)
except nbd.Error as error:
    print(json.dumps({"acknowledged": n, "errno": error.errno}), flush=True)
"""

# One that connects at each line, and writes to a thousand blocks, from the one on that it is
# told, until it is cut off; at the end it says which number each was acknowledged with.
LOADER = """
import json, nbd, sys
first, acknowledged, n = int(sys.argv[2]), {}, 1
for line in sys.stdin:
    h = nbd.NBD()
    h.connect_uri(sys.argv[1])
    try:
        for i in range(1 << 60):
            h.pwrite(n.to_bytes(8, "big") * 512, (first + n % 1000) * 4096)
            acknowledged[first + n % 1000] = n
            n += 1
            if i == 50:
                print("writing", flush=True)
    except nbd.Error as error:
        print(error.errno, flush=True)
        n += 1
print(json.dumps(acknowledged))
"""

# One that does a request whenever it gets a line.
IDLER = """
import nbd, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
print("connected", flush=True)
for line in sys.stdin:
    h.pread(4096, 0)
    print("read", flush=True)
"""


@pytest.fixture(scope="module")
def loop_device():
    """A loop device of the host, which the container sees; None where there is none."""
    losetup = needs_program("losetup")
    with tempfile.NamedTemporaryFile(dir="/var/tmp", prefix="nbd-appliance-") as backing:
        backing.truncate(SIZE)
        done = subprocess.run([losetup, "--find", "--show", backing.name], capture_output=True,
                              text=True, timeout=20, check=False)
        if done.returncode != 0:
            yield None
            return
        node = done.stdout.strip()
        before = os.stat(node)
        shutil.chown(node, "root", "disk")              # as udev has it
        os.chmod(node, 0o660)
        yield node
        os.chown(node, before.st_uid, before.st_gid)
        os.chmod(node, before.st_mode & 0o777)
        run(losetup, "--detach", node)


@pytest.fixture(scope="module")
def machine(loop_device):
    needs_container()
    folder = tempfile.mkdtemp(prefix="nbd-machine-", dir="/var/tmp")
    made = None
    try:
        made = Machine(folder)
        yield made
    finally:
        if made:
            made.end()
        shutil.rmtree(folder, ignore_errors=True)


def uri(name):
    return "nbd://localhost/" + urllib.parse.quote(name, safe="")


def socket_of(label):
    return f"nbd-export@{label}.socket"


def service_of(label):
    return f"nbd-export@{label}.service"


@pytest.fixture
def export(machine):
    """export(label, more keys): a file-backed export by a hand-written file, gone afterwards."""
    made = set()

    def add(label, more="", device=None):
        if not device:
            device = file_of(machine, f"{label}.img")
        machine.write(f"{EXPORTS}/{label}.conf",
                      f"[Export]\nDevice={device}\n{more}\n")
        made.add(label)
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "start", socket_of(label))
        machine.run("systemctl", "reload-or-restart", "nbd-negotiator.service")
        return device

    yield add
    for label in made:
        machine.ask("systemctl", "stop", socket_of(label), service_of(label))
        machine.remove(f"{EXPORTS}/{label}.conf")
    machine.run("systemctl", "daemon-reload")


def file_of(machine, name, size=SIZE):
    """A file that an export may have."""
    path = f"/srv/{name}"
    machine.run("mkdir", "-p", os.path.dirname(path))
    machine.run("truncate", f"--size={size}", path)
    machine.run("chown", "nbd-export:", path)
    return path


@pytest.fixture
def image(machine):
    """image(name, size): a file to export; afterwards all exports are removed."""
    yield lambda *arguments: file_of(machine, *arguments)
    for name in machine.run("ls", EXPORTS).split():
        machine.run("nbdctl", "remove", "--force", name.removesuffix(".conf"))
    machine.run("find", "/srv", "-mindepth", "1", "-delete")


def client(machine, program, name):
    child = machine.popen("python3", "-c", program, uri(name))
    said = child.stdout.readline()
    assert said == "connected\n", said + child.stderr.read() + machine.journal(30)
    return child


def said_by(child):
    """The next line; an errno as its name."""
    line = child.stdout.readline().strip()
    return errno.errorcode[int(line)] if line.isdigit() else line


def ended(child):
    out, err = child.communicate(timeout=PATIENCE)
    assert child.returncode == 0, err
    return out.splitlines()


def fields(text):
    """What `nbdctl show` and `status` print, a column a line."""
    return dict(line.split(None, 1) for line in text.splitlines() if len(line.split()) > 1)


def check_written(machine, device, acknowledged):
    """So many writes of a WRITER are in the file."""
    content = machine.read(device)
    assert acknowledged > 0
    for block in range(min(acknowledged, 4096)):
        newest = (acknowledged - 1 - block) // 4096 * 4096 + block
        got = int.from_bytes(content[block * 4096:block * 4096 + 8], "big")
        assert got in (newest, newest + 4096), block    # the one in flight may be there


def kill(machine, unit):
    """SIGKILL; returns once systemd has another process for it."""
    before = machine.show(unit, "MainPID")
    machine.run("systemctl", "kill", "--signal=KILL", "--kill-who=main", unit)
    machine.wait_for(lambda: machine.show(unit, "MainPID") not in ("0", before) and
                     machine.show(unit, "ActiveState") == "active", f"restart of {unit}")
