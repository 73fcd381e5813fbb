# SPDX-License-Identifier: GPL-2.0-or-later
"""The appliance as installed, under systemd as PID 1, in a container of scripts/lab.

One container serves all of these tests, one after the other.  What needs kernel modules or
device units is in the guest's tests.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse

import pytest

from conftest import MIB, PATIENCE, needs_program, run

sys.path.insert(0, str(pathlib.Path(__file__).parent / "lab"))
from machine import Machine, needs_container  # noqa: E402  (its folder is not a package)

pytestmark = pytest.mark.timeout(120)

SIZE = 64 * MIB

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
            device = f"/srv/{label}.img"
            machine.run("truncate", f"--size={SIZE}", device)
            machine.run("chown", "nbd-export:", device)
        machine.write(f"/etc/nbd-export/exports.d/{label}.conf",
                      f"[Export]\nDevice={device}\n{more}\n")
        made.add(label)
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "start", socket_of(label))
        machine.run("systemctl", "reload-or-restart", "nbd-negotiator.service")
        return device

    yield add
    for label in made:
        machine.ask("systemctl", "stop", socket_of(label), service_of(label))
        machine.remove(f"/etc/nbd-export/exports.d/{label}.conf")
    machine.run("systemctl", "daemon-reload")


def client(machine, program, name):
    child = machine.popen("python3", "-c", program, uri(name))
    said = child.stdout.readline()
    assert said == "connected\n", said + child.stderr.read() + machine.journal(30)
    return child


def ended(child):
    out, err = child.communicate(timeout=PATIENCE)
    assert child.returncode == 0, err
    return out.splitlines()


def test_a_hand_written_file_is_an_export_that_starts_with_its_first_client(machine, export):
    export("web1", "Description=the first disk")
    assert machine.show(socket_of("web1"), "ActiveState") == "active"
    assert machine.show(service_of("web1"), "ActiveState") == "inactive"

    assert int(machine.run("nbdinfo", "--size", uri("web1"))) == SIZE
    assert machine.show(service_of("web1"), "ActiveState") == "active"
    assert machine.show(service_of("web1"), "StatusText") != ""
    assert "web1" in machine.run("systemctl", "--no-pager", "status", service_of("web1"))
    listed = json.loads(machine.run("nbdinfo", "--list", "--json", "nbd://localhost"))
    assert "web1" in [one["export-name"] for one in listed["exports"]]


def test_the_unix_socket_serves_too(machine, export):
    export("web1")
    assert int(machine.run("nbdinfo", "--size",
                           "nbd+unix:///web1?socket=/run/nbd-export/nbd.sock")) == SIZE


@pytest.mark.parametrize("label, name", [
    ("plain", "with space/and slash"), ("utf8", "größe/ディスク"), (r"a\x2db:c_d.e", "odd label")])
def test_names_may_hold_what_names_hold(machine, export, label, name):
    export(label, f"Name={name}")
    assert int(machine.run("nbdinfo", "--size", uri(name))) == SIZE


def test_a_file_may_lie_where_the_sandbox_hides_everything_else(machine, export):
    for folder in ("/home/disks", "/var/tmp/a b", "/srv/100%i:\"x"):
        machine.run("mkdir", "-p", folder)
        machine.run("truncate", f"--size={SIZE}", f"{folder}/disk")
        machine.run("chown", "nbd-export:", f"{folder}/disk")
        export("hidden", device=f"{folder}/disk")
        machine.run("systemctl", "stop", service_of("hidden"))
        assert int(machine.run("nbdinfo", "--size", uri("hidden"))) == SIZE, folder


def test_a_loop_device_is_served_and_is_the_only_one_in_sight(machine, export, loop_device):
    if not loop_device:
        pytest.skip("no loop devices here")
    export("loop", device=loop_device)
    assert int(machine.run("nbdinfo", "--size", uri("loop"))) == SIZE
    pid = machine.show(service_of("loop"), "MainPID")
    seen = machine.run("nsenter", "-m", "-t", pid, "find", "/dev", "-exec", "test", "-b",
                       "{}", ";", "-print")
    assert seen == loop_device
    machine.run("python3", "-c", "import nbd,sys; h=nbd.NBD(); h.connect_uri(sys.argv[1]); "
                "h.pwrite(b'x'*4096, 0); h.flush(); assert h.pread(4096, 0) == b'x'*4096",
                uri("loop"))


def locked_memory(machine, pid):
    limits = machine.run("cat", f"/proc/{pid}/limits")
    return re.search(r"Max locked memory +(\w+)", limits)[1]


def test_io_uring_direct_io_and_locked_memory_work_in_the_sandbox(machine, export):
    export("fast", "Engine=io_uring")
    assert "can_trim: true" in machine.run("nbdinfo", uri("fast"))
    pid = machine.show(service_of("fast"), "MainPID")
    fds = machine.run("ls", "-l", f"/proc/{pid}/fd")
    assert "io_uring" in fds
    number = next(line.split(" -> ")[0].split()[-1] for line in fds.splitlines()
                  if line.endswith("/srv/fast.img"))
    flags = int(machine.run("sed", "-n", r"s/^flags:\s*//p", f"/proc/{pid}/fdinfo/{number}"), 8)
    assert flags & 0o40000, "no O_DIRECT"
    # All that this container may have; unlimited where it may.
    assert locked_memory(machine, pid) in ("unlimited", locked_memory(machine, 1))


def test_a_stop_finishes_what_is_in_flight_and_loses_nothing(machine, export):
    device = export("web1")
    writer = client(machine, WRITER, "web1")
    assert writer.stdout.readline() == "writing\n"
    machine.run("systemctl", "stop", service_of("web1"))
    assert machine.show(service_of("web1"), "Result") == "success"
    acknowledged = json.loads(ended(writer)[-1])["acknowledged"]
    last = min(acknowledged, 4096)
    content = (machine.folder / "root" / device.lstrip("/")).read_bytes()
    for block in range(last):
        newest = (acknowledged - 1 - block) // 4096 * 4096 + block
        got = int.from_bytes(content[block * 4096:block * 4096 + 8], "big")
        assert got in (newest, newest + 4096), block    # the one in flight may be there
    # The socket still listens, and the next client starts it again.
    assert int(machine.run("nbdinfo", "--size", uri("web1"))) == SIZE


def kill(machine, unit):
    """SIGKILL; returns once systemd has another process for it."""
    before = machine.show(unit, "MainPID")
    machine.run("systemctl", "kill", "--signal=KILL", "--kill-who=main", unit)
    machine.wait_for(lambda: machine.show(unit, "MainPID") not in ("0", before) and
                     machine.show(unit, "ActiveState") == "active", f"restart of {unit}")


def test_a_killed_export_is_back_and_its_neighbour_notices_nothing(machine, export):
    export("web1")
    export("web2")
    neighbour = client(machine, IDLER, "web2")
    assert int(machine.run("nbdinfo", "--size", uri("web1"))) == SIZE
    for _ in range(8):                      # more often than systemd's usual start limit
        kill(machine, service_of("web1"))
    assert int(machine.run("nbdinfo", "--size", uri("web1"))) == SIZE
    neighbour.stdin.write("again\n")
    assert ended(neighbour) == ["read"]
    said = machine.journal(1000, f"--unit={service_of('web1')}")
    assert "status=9/KILL" in said


def test_a_killed_negotiator_is_back_and_clients_in_transmission_notice_nothing(machine, export):
    export("web1")
    idler = client(machine, IDLER, "web1")
    kill(machine, "nbd-negotiator.service")
    assert int(machine.run("nbdinfo", "--size", uri("web1"))) == SIZE
    idler.stdin.write("again\n")
    assert ended(idler) == ["read"]


def test_a_reload_disturbs_no_client_and_a_bad_file_changes_nothing(machine, export):
    export("web1")
    idler = client(machine, IDLER, "web1")
    before = [machine.show(unit, "MainPID") for unit in (service_of("web1"),
                                                         "nbd-negotiator.service")]
    path = "/etc/nbd-export/exports.d/web1.conf"
    for text in ("[Export]\nDevice=/srv/web1.img\nDescription=new\n", "[Export]\nColour=red\n"):
        machine.write(path, text)
        machine.run("systemctl", "reload", service_of("web1"))
        machine.run("systemctl", "reload", "nbd-negotiator.service")
    machine.wait_for(lambda: "Colour" in machine.journal(100, f"--unit={service_of('web1')}"),
                     "word about the bad file")
    after = [machine.show(unit, "MainPID") for unit in (service_of("web1"),
                                                        "nbd-negotiator.service")]
    assert before == after
    idler.stdin.write("again\n")
    assert ended(idler) == ["read"]


def test_the_watchdog_is_fed(machine, export):
    export("web1")
    units = (service_of("web1"), "nbd-negotiator.service")
    folders = [f"/run/systemd/system/{unit}.d" for unit in units]
    for folder in folders:
        machine.run("mkdir", "-p", folder)
        machine.run("sh", "-c", f"printf '[Service]\\nWatchdogSec=1\\n' >{folder}/fast.conf")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", *units)
    for unit in units:
        stamps = {machine.show(unit, "WatchdogTimestampMonotonic")}

        def fed_three_times(unit=unit, stamps=stamps):
            stamps.add(machine.show(unit, "WatchdogTimestampMonotonic"))
            return len(stamps) > 3

        machine.wait_for(fed_three_times, f"food for the watchdog of {unit}")
        assert machine.show(unit, "NRestarts") == "0"
    machine.run("rm", "-r", *folders)
    machine.run("systemctl", "daemon-reload")


def test_nbdctl_add_makes_what_a_hand_written_file_makes(machine):
    machine.run("truncate", f"--size={SIZE}", "/srv/ctl.img")
    machine.run("chown", "nbd-export:", "/srv/ctl.img")
    machine.run("nbdctl", "add", "ctl", "/srv/ctl.img", "--description", "by nbdctl")
    try:
        assert machine.show(socket_of("ctl"), "ActiveState") == "active"
        assert int(machine.run("nbdinfo", "--size", uri("ctl"))) == SIZE
        assert "ctl" in machine.run("nbdctl", "list", "--noheadings")
    finally:
        machine.run("nbdctl", "remove", "ctl")
    assert machine.show(socket_of("ctl"), "ActiveState") == "inactive"
    assert "ctl" not in machine.run("ls", "/etc/nbd-export/exports.d", "/run/nbd-export/instances")


def test_busctl_reads_the_control_sockets(machine, export):
    export("web1")
    machine.run("nbdinfo", "--size", uri("web1"))
    for socket, path, interface, name in (
            ("instances/web1", "export", "Export1", "Size"),
            ("negotiator", "negotiator", "Negotiator1", "Exports")):
        said = machine.run("busctl", f"--address=unix:path=/run/nbd-export/{socket}/control",
                           "introspect", "org.nbd_export", f"/org/nbd_export/{path}")
        assert f"org.nbd_export.{interface}" in said and f".{name} " in said


def test_a_bad_file_is_named_in_the_journal_and_stops_no_other(machine, export):
    machine.write("/etc/nbd-export/exports.d/bad.conf", "[Export]\nColour=red\n")
    try:
        export("web1")
        assert int(machine.run("nbdinfo", "--size", uri("web1"))) == SIZE
        machine.wait_for(lambda: "exports.d/bad.conf" in machine.journal(
            100, "--identifier=nbd-export-generator"), "word about the bad file")
    finally:
        machine.remove("/etc/nbd-export/exports.d/bad.conf")


def test_an_export_without_a_file_cannot_be_started(machine):
    done = machine.ask("systemctl", "start", socket_of("typo"))
    assert done.returncode != 0


@pytest.mark.parametrize("unit, most", [("nbd-negotiator.service", 1.5),
                                        (service_of("web1"), 2.0)])
def test_the_sandbox_is_as_tight_as_promised(machine, export, unit, most):
    export("web1")
    done = machine.ask("systemd-analyze", "security", "--no-pager",
                       f"--threshold={int(most * 10)}", unit)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_programs_run_as_users_of_their_own_without_capabilities(machine, export):
    export("web1")
    machine.run("nbdinfo", "--size", uri("web1"))
    for unit, user in ((service_of("web1"), "nbd-export"),
                       ("nbd-negotiator.service", "nbd-negotiator")):
        pid = machine.show(unit, "MainPID")
        assert machine.run("ps", "-o", "user:32=", "-p", pid) == user
        status = dict(line.split(":\t", 1) for line in
                      machine.run("cat", f"/proc/{pid}/status").splitlines())
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
        assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"


def test_after_the_machine_booted_again_the_export_is_there(machine, export):
    export("web1")
    export("early", "StartAtBoot=yes")
    machine.reboot()
    assert machine.show(socket_of("web1"), "ActiveState") == "active"
    assert machine.show(service_of("web1"), "ActiveState") == "inactive"
    machine.wait_for(lambda: machine.show(service_of("early"), "ActiveState") == "active",
                     "start at boot")
    assert int(machine.run("nbdinfo", "--size", uri("web1"))) == SIZE
    assert machine.run("systemctl", "list-units", "--failed", "--plain", "--no-legend",
                       "nbd-*") == ""
