# SPDX-License-Identifier: GPL-2.0-or-later
"""What reaches the journal, told by a socket that stands in for journald's in a mount namespace
of its own."""
import os
import pathlib
import re
import shutil
import socket
import subprocess
import threading

import pytest

import nbdwire
from conftest import needs_program, needs_root, wait_until

ROOT = pathlib.Path(__file__).resolve().parent.parent
IDS = dict(re.findall(r'\{\s*"([a-z-]+)",\s*"([0-9a-f]{32})"',
                      (ROOT / "daemon/base/events.c").read_text()))


class Journal:
    """`nbdctl serve` with a journal: .entries are dicts, in the order they came."""

    def __init__(self, programs, folder, paths, options):
        needs_root()
        unshare = needs_program("unshare")
        self.entries = []
        self.socket = folder / "nbd"
        (folder / "j").mkdir()
        self.journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.journal.bind(str(folder / "j/socket"))
        self.reads = threading.Event()      # whether it does; one more entry may come
        self.reads.set()
        self.reader = threading.Thread(target=self.read)
        self.reader.start()
        self.stderr = open(folder / "stderr", "w+b")    # noqa: SIM115
        st = os.fstat(self.stderr.fileno())
        script = 'mount -t tmpfs none /run && mkdir -p /run/systemd/journal && ' \
                 'mount --bind "$1" /run/systemd/journal && shift && exec "$@"'
        command = [unshare, "--mount", "--propagation", "private", "sh", "-c", script, "sh",
                   folder / "j", programs.nbdctl, "serve", "--unix", self.socket, *options, *paths]
        self.child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.stderr,
            text=True, env=dict(os.environ, JOURNAL_STREAM=f"{st.st_dev}:{st.st_ino}",
                                NBD_EXPORT_FLUSH_FAILED=str(folder / "state")))
        said = self.child.stdout.readline()
        if "serving" not in said:
            text = (folder / "stderr").read_text()
            self.stop()
            if "unshare" in text or "mount" in text:
                pytest.skip(f"no mount namespace here: {text}")
            raise AssertionError(text)

    def read(self):
        """Until an empty datagram: a journal that is not read makes its writers wait."""
        while self.reads.wait() and (raw := self.journal.recv(65536)):
            lines = raw.decode().splitlines()
            if all(re.match(r"[A-Z_]+=", line) for line in lines):
                self.entries.append(dict(line.split("=", 1) for line in lines))
            else:
                self.entries.append({"EVENT": "broken", "MESSAGE": repr(lines)})

    def wait(self, event):
        """The first entry of this kind."""
        return wait_until(lambda: [e for e in self.entries if e.get("EVENT") == event],
                          f"{event} in {self.entries}")[0]

    def stop(self):
        """The exit status; afterwards all entries are there."""
        self.reads.set()
        if self.child.poll() is None:
            self.child.terminate()
        status = self.child.wait(60)
        if self.reader.is_alive():
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
                end.sendto(b"", self.journal.getsockname())
            self.reader.join()
            self.journal.close()
            self.child.stdout.close()
            self.stderr.close()
        assert "broken" not in {e.get("EVENT") for e in self.entries}, self.entries
        return status


@pytest.fixture
def journal(programs, tmp_path_factory, cleanup):
    def start(*paths, options=()):
        folder = tmp_path_factory.mktemp("j", numbered=True)
        (folder / "state").mkdir()
        made = Journal(programs, folder, paths, options)
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        cleanup.callback(made.stop)
        return made
    return start


def test_a_client_is_one_entry_when_it_comes_and_one_with_its_counters_when_it_goes(
        journal, file_disk):
    j = journal(f"web1={file_disk(1 << 20)}")
    with nbdwire.Client(j.socket, "web1", nbdwire.EXTENDED) as client:
        client.write(0, b"x" * 8192)
        client.read(0, 4096)
        assert client.error(nbdwire.CMD_READ, 1 << 30, 4096)
    ended = j.wait("client-ended")
    assert ended["MESSAGE_ID"] == IDS["client-ended"] and ended["EXPORT"] == "web1"
    assert ended["SYSLOG_IDENTIFIER"] == "nbd-export" and ended["PRIORITY"] == "6"
    assert ended["REQUESTS"] == "3" and ended["ERRORS"] == "1"
    assert ended["BYTES_READ"] == "4096" and ended["BYTES_WRITTEN"] == "8192"
    assert 0 < int(ended["DURATION_USEC"]) < 600 * 10 ** 6
    assert ended["REASON"] == "peer-gone" or ended["REASON"] == "disconnect"
    admitted = j.wait("client-admitted")
    assert admitted["CONNECTION"] == ended["CONNECTION"] and admitted["CLIENT"] == ended["CLIENT"]
    assert j.wait("client-handed-over")["CONNECTION"] == ended["CONNECTION"]
    assert len([e for e in j.entries if e.get("EVENT") == "client-ended"]) == 1


def test_a_refused_client_is_one_entry_with_who_what_and_why(journal, file_disk):
    j = journal(f"web1={file_disk(1 << 20)}")
    with nbdwire.Options(j.socket) as options:
        assert options.result(nbdwire.OPT_GO, nbdwire.go_payload("no\nsuch")) \
            == nbdwire.REP_ERR_UNKNOWN
    refused = j.wait("client-refused")
    assert refused["REASON"] == "export-unknown" and "no such" not in refused["MESSAGE"]
    assert refused["MESSAGE_ID"] == IDS["client-refused"] and refused["PRIORITY"] == "5"
    assert refused["CLIENT"] and "there is no export" in refused["MESSAGE"]


def test_a_refusal_by_the_export_is_in_the_journal_of_both(journal, file_disk):
    j = journal(f"web1={file_disk(1 << 20)}", options=["--max-connections", "1"])
    with nbdwire.Client(j.socket, "web1", nbdwire.SIMPLE), nbdwire.Options(j.socket) as options:
        assert options.result(nbdwire.OPT_GO, nbdwire.go_payload("web1")) == nbdwire.REP_ERR_POLICY

        def both():
            return {e["SYSLOG_IDENTIFIER"] for e in j.entries if e.get("EVENT") == "client-refused"
                    and e["REASON"] == "no-slot" and e["EXPORT"] == "web1" and e["CLIENT"]}
        wait_until(lambda: both() == {"nbd-negotiator", "nbd-export"}, "both entries")


def test_the_lives_of_the_processes_are_events(journal, file_disk):
    j = journal(f"web1={file_disk(1 << 20)}")
    assert j.wait("export-started")["EXPORT"] == "web1"
    j.wait("negotiator-started")
    assert j.stop() == 0
    assert j.wait("export-stopped")["EXPORT"] == "web1"
    j.wait("negotiator-stopped")
    assert all(e["MESSAGE_ID"] == IDS[e["EVENT"]] for e in j.entries if "EVENT" in e)


@pytest.mark.parametrize("mode", nbdwire.MODES)
def test_at_debug_level_each_option_request_and_reply_has_its_name(journal, file_disk, mode):
    j = journal(f"web1={file_disk(1 << 20)}", options=["--debug"])
    with nbdwire.Client(j.socket, "web1", mode) as client:
        client.write(0, b"x" * 4096)
        client.read(0, 4096)
        client.error(nbdwire.CMD_READ, 1 << 30, 4096)
    j.wait("client-ended")
    text = "\n".join(e["MESSAGE"] for e in j.entries)
    for name in ["NBD_OPT_GO", "NBD_REP_INFO NBD_INFO_EXPORT", "NBD_REP_ACK", "NBD_CMD_READ",
                 "NBD_SUCCESS", "NBD_EINVAL"]:
        assert name in text, name
    chunk = "reply: simple" if mode == nbdwire.SIMPLE else "reply: NBD_REPLY_TYPE_OFFSET_DATA"
    assert chunk in text


def test_a_journal_that_does_not_read_holds_up_no_client_and_hears_how_much_was_lost(
        journal, file_disk):
    room = int(pathlib.Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
    j = journal(f"web1={file_disk(1 << 20)}")
    with nbdwire.Client(j.socket, "web1", nbdwire.SIMPLE) as client:
        j.reads.clear()
        for _ in range(room // 2 + 20):     # each is three entries
            with nbdwire.Client(j.socket, "web1", nbdwire.SIMPLE) as other:
                other.read(0, 4096)
        client.read(0, 4096)
        j.reads.set()       # and nobody comes any more, whose entry could bring the word with it

        def told():
            return {e["SYSLOG_IDENTIFIER"] for e in j.entries if e.get("EVENT") == "messages-lost"}
        wait_until(lambda: told() == {"nbd-export", "nbd-negotiator"}, "word about what was lost")
    assert int(j.wait("messages-lost")["MESSAGE"].split("messages were lost")[0].split()[-1]) > 0
