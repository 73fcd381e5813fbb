# SPDX-License-Identifier: GPL-2.0-or-later
"""What the units' sandbox lets through and what not: one export and another, in a container."""

import ctypes
import json
import pathlib
import re
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent / "lab"))
pytest.register_assert_rewrite("appliance", "machine")
from appliance import (  # noqa: E402  (its folder is not a package)
    EXPORTS, IDLER, SIZE, client, ended, service_of, uri)

pytest_plugins = ["appliance"]
pytestmark = pytest.mark.timeout(120)

NOTES = "/run/nbd-export/flush-failed"

# An export that was taken over tries what it can do to another one, whose process it knows: what
# it could is "done", what not has an errno's name.
TAKEN_OVER = """
import ctypes, errno, json, os, resource, signal, socket, sys
other, label = int(sys.argv[1]), sys.argv[2]
libc = ctypes.CDLL(None, use_errno=True)
results = {}

def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)

def attempt(what):
    def run(function):
        try:
            function()
            results[what] = "done"
        except OSError as error:
            results[what] = errno.errorcode[error.errno]
    return run

here = ctypes.create_string_buffer(8)
vector = (ctypes.c_size_t * 2)(ctypes.addressof(here), 8)
attempt("see it")(lambda: os.stat(f"/proc/{other}"))
attempt("read its memory")(lambda: os.open(f"/proc/{other}/mem", os.O_RDONLY))
attempt("write its memory")(lambda: os.open(f"/proc/{other}/mem", os.O_RDWR))
attempt("copy its memory")(lambda: call("process_vm_readv", other, vector, 1, vector, 1, 0))
attempt("change its memory")(lambda: call("process_vm_writev", other, vector, 1, vector, 1, 0))
attempt("trace it")(lambda: call("ptrace", 16, other, 0, 0))
attempt("open its files")(lambda: os.listdir(f"/proc/{other}/fd"))
attempt("limit it")(lambda: resource.prlimit(other, resource.RLIMIT_CPU, (1, 1)))
attempt("kill")(lambda: os.kill(other, 0))
attempt("tgkill")(lambda: call("tgkill", other, other, 0))
attempt("sigqueue")(lambda: call("sigqueue", other, 0, 0))
attempt("pidfd")(lambda: signal.pidfd_send_signal(os.pidfd_open(other), 0))
attempt("see its bitmaps")(lambda: os.stat(f"/var/lib/nbd-export/{label}"))
attempt("see its control socket")(lambda: os.stat(f"/run/nbd-export/instances/{label}"))
attempt("be its negotiator")(lambda: socket.socket(
    socket.AF_UNIX, socket.SOCK_SEQPACKET).connect(f"/run/nbd-export/channels/{label}.channel"))
for path in ("nbd.sock", "negotiator/control"):
    attempt(path)(lambda: socket.socket(socket.AF_UNIX).connect(f"/run/nbd-export/{path}"))
notes = "/run/nbd-export/flush-failed"
attempt("forget its failed flush")(lambda: os.unlink(f"{notes}/{label}/flush-failed-x"))
attempt("invent a failed flush")(lambda: open(f"{notes}/{label}/flush-failed-y", "w"))
attempt("invent another")(lambda: open(f"{notes}/flush-failed-y", "w"))
attempt("note its own")(lambda: open(f"{notes}/evil/flush-failed-y", "w"))
print(json.dumps(results))
"""


@pytest.fixture
def taken_over(machine, export):
    """taken_over(label) → {what: "done" or an errno}, of an export that runs the program above."""
    folder = f"/run/systemd/system/{service_of('evil')}.d"

    def run(label):
        export("evil")
        machine.write("/srv/taken-over.py", TAKEN_OVER)
        pid = machine.show(service_of(label), "MainPID")
        machine.run("mkdir", "-p", folder)
        machine.run("sh", "-c", "printf '[Service]\\nType=oneshot\\nRestart=no\\nExecStop=\\n"
                    "ExecStart=\\n"
                    f"ExecStart=python3 /srv/taken-over.py {pid} {label}\\n"
                    f"StandardOutput=truncate:/srv/results\\n' >{folder}/x.conf")
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "start", service_of("evil"))
        return json.loads(machine.read("/srv/results"))

    yield run
    machine.run("rm", "-rf", folder, "/srv/taken-over.py", "/srv/results")


def test_an_export_that_was_taken_over_cannot_touch_another(machine, export, taken_over):
    export("web1")
    machine.run("nbdinfo", "--size", uri("web1"))
    for folder in ("web1", "evil"):
        machine.run("install", "-d", "-o", "nbd-export", f"{NOTES}/{folder}")
    machine.run("install", "-o", "nbd-export", "/dev/null", f"{NOTES}/web1/flush-failed-x")
    pid = machine.show(service_of("web1"), "MainPID")
    results = taken_over("web1")
    assert [what for what, result in results.items() if result == "done"] == ["note its own"]
    assert machine.show(service_of("web1"), "MainPID") == pid
    assert int(machine.run("nbdinfo", "--size", uri("web1"))) == SIZE
    machine.run("rm", f"{NOTES}/web1/flush-failed-x", f"{NOTES}/evil/flush-failed-y")


# Landlock, which is the export's own part ------------------------------------------


@pytest.fixture
def landlock():
    if ctypes.CDLL(None).syscall(444, None, 0, 1) < 1:  # landlock_create_ruleset(2): the version
        pytest.skip("this kernel has no Landlock")


def can_open(machine, label, path):
    """Whether the export's sandbox lets it; who asks is its user."""
    command = machine.show(service_of(label), "ExecStart")
    program = re.search(r"path=(\S+)", command)[1]
    done = machine.ask("runuser", "-u", "nbd-export", "-G", "disk", "--", program, label,
                       f"--exports={EXPORTS}", f"--sandbox-check={path}")
    assert done.returncode == 0 or "can be opened in the sandbox" in done.stderr, done.stderr
    return done.returncode != 0


def test_an_export_can_open_nothing_that_another_exports(machine, export, landlock):
    export("web1")
    other = export("web2")
    machine.run("runuser", "-u", "nbd-export", "--", "cat", other)
    assert not can_open(machine, "web1", other)
    assert can_open(machine, "web1", "/etc/passwd")
    assert "--confine" in machine.show(service_of("web1"), "ExecStart")


def test_settings_are_read_again_where_their_folder_was_put_in_the_place_of_another(
        machine, export):
    export("web1")
    idler = client(machine, IDLER, "web1")
    folder = pathlib.Path(EXPORTS).parent
    machine.run("sh", "-c", f"mv {folder} {folder}.old && cp -a {folder}.old {folder} && "
                f"echo Description=new >>{EXPORTS}/web1.conf")
    machine.run("systemctl", "reload", service_of("web1"))
    machine.wait_for(lambda: machine.journal(9, "EVENT=settings-reloaded", "EXPORT=web1").strip(),
                     "settings to be read again")
    idler.stdin.write("again\n")
    assert ended(idler) == ["read"]
    machine.run("rm", "-r", f"{folder}.old")
    machine.run("systemctl", "restart", "nbd-negotiator.service")


def test_a_bitmap_is_as_good_after_a_restart_as_before(machine, export):
    export("web1")
    machine.run("nbdinfo", "--size", uri("web1"))
    machine.run("nbdctl", "bitmap", "add", "web1", "daily")
    state = ("nbdctl", "bitmap", "list", "web1", "--noheadings", "-o", "STATE")
    assert machine.run(*state) == "recording"
    machine.run("systemctl", "restart", service_of("web1"))
    assert machine.run(*state) == "recording"


def test_a_crash_of_an_export_is_told_although_it_leaves_no_core(machine, export):
    export("web1")
    machine.run("nbdinfo", "--size", uri("web1"))
    machine.run("systemctl", "kill", "--signal=ABRT", service_of("web1"))
    machine.wait_for(lambda: "status=6/ABRT" in machine.journal(
        100, f"--unit={service_of('web1')}"), "word about the crash")
    machine.wait_for(lambda: machine.show(service_of("web1"), "NRestarts") == "1", "a restart")
    assert int(machine.run("nbdinfo", "--size", uri("web1"))) == SIZE
    assert machine.run("sh", "-c", f"ls {EXPORTS}") == "web1.conf"
