# SPDX-License-Identifier: GPL-2.0-or-later
"""nbdctl for tests: on a folder of files and a runtime folder of the test's own, with stand-ins
for the daemons and for systemd (tests/fake-control) or a running `nbdctl serve`."""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest

from conftest import BUILD, MIB, SANITIZERS, complaints
from nbdwire import PATIENCE


ATTENTION = 3           # of `nbdctl status`: somebody has to look


class Ctl:
    """nbdctl on a folder of files and a runtime folder of the test's own."""

    def __init__(self, program, folder):
        self.program = program
        self.folder = folder
        self.exports = folder / "exports.d"
        self.runtime = folder / "run"
        self.exports.mkdir(exist_ok=True)
        self.runtime.mkdir(exist_ok=True)
        self.env = dict(os.environ, **SANITIZERS)
        for name in ("NBD_EXPORT_RUNTIME", "NBD_EXPORT_SYSTEMD", "JOURNAL_STREAM"):
            self.env.pop(name, None)
        self.env["NBD_EXPORT_FLUSH_FAILED"] = str(folder / "flush-failed")

    def command(self, verb, *words):
        return [self.program, *verb.split(), f"--exports={self.exports}",
                f"--runtime={self.runtime}", *map(os.fspath, words)]

    def start(self, verb, *words, **how):
        return subprocess.Popen(self.command(verb, *words), stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
                                env=self.env, **how)

    def __call__(self, verb, *words, status=0, env=None, **how):
        """The finished process, which must have exited so."""
        done = subprocess.run(self.command(verb, *words), capture_output=True, text=True,
                              timeout=PATIENCE * 3, check=False, stdin=subprocess.DEVNULL,
                              env=dict(self.env, **(env or {})), **how)
        assert done.returncode == status, f"{done.args}: {done.stdout}{done.stderr}"
        assert not complaints(done.stderr), done.stderr
        if status:
            assert done.stderr.startswith("nbdctl: "), "a sentence says why"
        return done

    def json(self, verb, *words, status=0):
        """The rows of a listing."""
        (rows,) = json.loads(self(verb, "--json", *words, status=status).stdout).values()
        return rows

    def problems(self):
        """What `nbdctl status` has to say: labels, and its lines."""
        done = self("status", "--json", status=ATTENTION)
        return json.loads(done.stdout)["status"][0]["problems"], done.stderr

    def write(self, label, lines):
        path = self.exports / f"{label}.conf"
        path.write_text(f"[Export]\n{lines}\n")
        return path

    def latch(self, disk, text):
        """Somebody has remembered that a flush of this file failed; where."""
        folder = pathlib.Path(self.env["NBD_EXPORT_FLUSH_FAILED"])
        folder.mkdir(exist_ok=True)
        born = subprocess.run(["stat", "--format=%.9W", disk], check=True, text=True, timeout=60,
                              capture_output=True).stdout.strip().split(".")
        st = os.stat(disk)
        path = folder / f"flush-failed-file-{st.st_dev:x}-{st.st_ino}-{born[0]}.{int(born[1])}"
        if text is not None:
            path.write_text(text)
        return path

    def files(self):
        """Without the lock, which is nobody's concern."""
        return sorted(path.name for path in self.exports.iterdir() if path.name != ".lock")

    def read(self, label):
        return (self.exports / f"{label}.conf").read_text().splitlines()[1:]


@pytest.fixture
def short_folder(cleanup):
    """Short enough for sockets' paths."""
    folder = tempfile.mkdtemp(prefix="nbdctl-", dir="/tmp")
    cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
    return pathlib.Path(folder)


@pytest.fixture
def ctl(programs, short_folder):
    return Ctl(programs.nbdctl, short_folder)


@pytest.fixture
def disk(file_disk):
    return file_disk(8 * MIB)


@pytest.fixture
def served(serve, programs, file_disk, short_folder):
    """served(**options) → (server, Ctl of its private folder); exports "web1" and "db"."""

    def start(**options):
        server = serve(f"web1={file_disk(8 * MIB, name='one')}",
                       f"db={file_disk(16 * MIB, name='two')}", **options)
        (private,) = server.runtime.iterdir()
        ctl = Ctl(programs.nbdctl, short_folder)
        ctl.runtime = private
        ctl.exports = private / "exports"
        return server, ctl

    return start


# Stand-ins


class Fake:
    """A running fake-control; .calls() is what was asked of it."""

    def __init__(self, path, rules):
        program = BUILD / "tests/fake-control/fake-control"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.child = subprocess.Popen([program, path, *rules], stdout=subprocess.PIPE,
                                      stdin=subprocess.DEVNULL, text=True)
        self.address = f"unix:path={path}"
        assert self.child.stdout.readline() == "ready\n"

    def calls(self):
        self.stop()
        return self.child.stdout.read().splitlines()

    def stop(self):
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()


@pytest.fixture
def fake(cleanup):
    def start(path, *rules):
        made = Fake(path, rules)
        cleanup.callback(made.child.stdout.close)
        cleanup.callback(made.stop)
        return made

    return start


@pytest.fixture
def fake_export(fake, ctl, disk):
    """fake_export(*rules, label="web1") → a running export that says what the rules say."""

    def start(*rules, label="web1"):
        ctl.write(label, f"Device={disk}")
        return fake(ctl.runtime / "instances" / label / "control", "State=s:serving",
                    "Size=t:8388608", *rules)

    return start


CLIENT = ("client", "client:Connection=t:7", "client:Peer=s:192.0.2.1:4711",
          "client:Mode=s:extended", "client:TLS=s:TLS1.3 TLS_AES_128_GCM_SHA256",
          "client:Identity=s:dn:CN=alice",
          "client:Contexts=l:base:allocation", "client:InFlight=u:3", "client:Memory=t:262144",
          "client:Requests=t:12", "client:BytesRead=t:1048576", "client:Since=t:1700000000000000")


@pytest.fixture
def systemd(fake, ctl):
    """systemd(*rules) → a stand-in for systemd, which nbdctl then takes for it."""

    def start(*rules):
        made = fake(ctl.folder / "systemd", *rules)
        ctl.env["NBD_EXPORT_SYSTEMD"] = made.address
        return made

    return start
