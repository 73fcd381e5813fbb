# SPDX-License-Identifier: GPL-2.0-or-later
"""A container with systemd as PID 1 and the build installed: what scripts/lab boots.

    machine = Machine(folder)       boots; pytest.skip() where that cannot be
    machine.run("systemctl", ...)   a command in it that must succeed; its output
    machine.ask(...)                the same, and it may fail: CompletedProcess
    machine.popen(...)              one that goes on
    machine.write(path, text)       a file in it; machine.read(path)
    machine.reboot()                powers it off and boots it again
    machine.cut()                   everything in it is gone at once, as when its power goes
    machine.end()
"""

import os
import pathlib
import select
import signal
import subprocess
import time

import pytest

from conftest import BUILD, PATIENCE, ROOT, needs_program, needs_root

LAB = ROOT / "scripts/lab"
ENVIRONMENT = ["HOME=/root", "LC_ALL=C.UTF-8",
               "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]


def needs_container():
    """Skips, or returns once there is an image to boot."""
    needs_root()
    needs_program("systemd-nspawn")
    if b"__asan_init" in (BUILD / "daemon/export/nbd-export").read_bytes():
        pytest.skip("a build with sanitizers does not run in the units' sandbox")
    done = subprocess.run([LAB, "container", "build"], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=900, check=False)
    if done.returncode != 0:
        pytest.skip(done.stderr.strip().splitlines()[-1])


class Machine:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.lab = None
        self.leader = None
        self.children = []
        self.boot()

    def boot(self):
        env = dict(os.environ, NBD_EXPORT_BUILD=str(BUILD))
        with open(self.folder / "lab.log", "ab") as log:
            self.lab = subprocess.Popen([LAB, "container", "boot", self.folder], env=env,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=log, text=True)
        readable, _, _ = select.select([self.lab.stdout], [], [], 90)
        words = self.lab.stdout.readline().split() if readable else []
        if words[:1] != ["ready"]:
            self.end()
            raise AssertionError(f"no container: {self.log()}")
        self.leader = words[1]

    def log(self):
        names = ("lab.log", "install.log", "console.log")
        return "".join(f"\n{name}: {(self.folder / name).read_text(errors='replace')[-2000:]}"
                       for name in names if (self.folder / name).exists())

    def command(self, *words):
        return ["nsenter", "-a", "-t", self.leader, "env", "-i", *ENVIRONMENT,
                *(str(word) for word in words)]

    def ask(self, *words, timeout=PATIENCE * 2, **kwargs):
        return subprocess.run(self.command(*words), capture_output=True, text=True,
                              errors="replace", stdin=subprocess.DEVNULL, timeout=timeout,
                              check=False, **kwargs)

    def run(self, *words, **kwargs):
        done = self.ask(*words, **kwargs)
        assert done.returncode == 0, \
            f"{words}: {done.returncode} {done.stderr or done.stdout}\n{self.journal(20)}"
        return done.stdout.strip()

    def popen(self, *words):
        child = subprocess.Popen(self.command(*words), stdin=subprocess.PIPE, text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.children.append(child)
        return child

    def reap(self):
        """Ends what still runs by its end of input: a machine waits at its own end for what is in
        it, and who kills nsenter leaves behind what that has started."""
        for child in self.children:
            try:
                if child.poll() is None:
                    child.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                child.kill()
                child.communicate()
        self.children = []

    def path(self, path):
        """Where a path of it is here, as far as it has mounted nothing there."""
        return self.folder / "root" / str(path).lstrip("/")

    def read(self, path):
        return self.path(path).read_bytes()

    def write(self, path, text):
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def remove(self, path):
        self.path(path).unlink(missing_ok=True)

    # systemd

    def show(self, unit, name):
        """One property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit)

    def journal(self, lines=1000, *arguments):
        """What was logged until now."""
        self.ask("journalctl", "--sync")
        return self.ask("journalctl", "--no-pager", "--output=short-monotonic",
                        f"--lines={lines}", *arguments).stdout

    def wait_for(self, condition, what, patience=PATIENCE):
        deadline = time.monotonic() + patience
        while not (result := condition()):
            assert time.monotonic() < deadline, f"no {what}\n{self.journal(40)}"
            time.sleep(0.05)
        return result

    # The end of it

    def power_off(self):
        """As somebody who shuts the machine down; what was written stays."""
        self.reap()
        self.ask("systemctl", "--no-block", "poweroff")
        assert self.lab.wait(60) == 0, self.log()
        self.lab.stdout.close()
        self.lab = None

    def cut(self):
        """SIGKILL for all that runs in it; what it had written stays, as it is one kernel."""
        os.kill(int(self.leader), signal.SIGKILL)
        self.lab.wait(60)
        self.lab.stdout.close()
        self.lab = None
        self.reap()

    def reboot(self):
        self.power_off()
        self.boot()

    def end(self):
        if self.lab is None:
            return
        self.reap()
        self.lab.terminate()
        try:
            self.lab.wait(60)
        except subprocess.TimeoutExpired:
            self.lab.kill()
            self.lab.wait()
        self.lab.stdout.close()
        self.lab = None
