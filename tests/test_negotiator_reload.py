# SPDX-License-Identifier: GPL-2.0-or-later
"""SIGHUP, the sandbox around it, and the negotiator's control socket."""

import contextlib
import ctypes
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import time

import nbdchannel as channel
import nbdwire as wire
import pytest
from conftest import needs_root, run, wait_until
from nbdchannel import REFUSAL, RESERVE
from nbdwire import PATIENCE
from negotiator_bench import Bench, asks_go
from test_access import HERE, configure, enters, refused_with, sees
from test_links import is_sanitized

OBJECT = ("/org/nbd_export/negotiator", "org.nbd_export.Negotiator1")


class Reloading(Bench):
    """A Bench whose notifications are read, and whose negotiator can be told to reload."""

    def begin(self, *arguments):
        self.config = self.folder / "negotiator.conf"
        self.control = self.folder / "control"
        path = self.folder / "told"
        self.notify = self.stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self.notify.bind(str(path))
        self.notify.settimeout(PATIENCE)
        process = self.start(f"--config={self.config}", f"--control={self.control}", *arguments,
                             wait_ready=False, env={"NOTIFY_SOCKET": str(path)})
        self.told_until("READY=1")
        return process

    def told_until(self, word):
        """Everything that the service manager is told, up to that."""
        told = []
        while not told or word not in told[-1].split("\n"):
            told.append(self.notify.recv(4096).decode())
        return told

    def reload(self):
        self.process.child.send_signal(signal.SIGHUP)
        told = self.told_until("READY=1")
        order = [t for t in told if not t.startswith("STATUS=")]
        assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", order[0]), order
        self.last_status = order[-1].split("STATUS=")[1]
        return order[-1]


@pytest.fixture
def bench(tmp_path, programs):
    with contextlib.ExitStack() as stack:
        bench = Reloading(stack, tmp_path, programs.negotiator)
        bench.listen(HERE)
        yield bench


def kept(bench):
    return [line for line in bench.process.log.splitlines() if "stays in force" in line]


def test_an_export_comes_changes_and_goes_with_its_file(bench):
    bench.export(Description="before")
    bench.begin()
    assert sees(bench) == [(b"disk", b"before")]
    bench.export("second", Name="another")
    assert "2 exports" in bench.reload()
    assert sees(bench) == [(b"disk", b"before"), (b"another", b"")]
    bench.export(Description="after", Name="renamed")
    bench.reload()
    assert sees(bench) == [(b"renamed", b"after"), (b"another", b"")]
    (bench.exports / "second.conf").unlink()
    bench.reload()
    assert sees(bench) == [(b"renamed", b"after")]
    assert not kept(bench)


def test_a_client_in_the_handshake_goes_on(bench):
    fake = bench.export()
    bench.begin()
    quiet = bench.client()
    quiet.structured_reply()
    waiting = asks_go(bench)
    end = fake.accept()
    bench.export("second")
    bench.reload()
    end.offer()
    end.grant(end.expect(RESERVE))
    assert wire.parse_info(waiting.receive_replies(wire.OPT_GO)).size == channel.ExportEnd.SIZE
    end.receive_client().sendall(b"x")
    assert waiting.recv(1) == b"x"
    assert len(quiet.list()) == 2


def test_contexts_that_were_selected_survive_a_reload(bench):
    fake = bench.export()
    bench.begin()
    client = bench.client()
    client.structured_reply()
    client.send_option(wire.OPT_SET_META_CONTEXT, wire.meta_payload("disk", ["base:allocation"]))
    end = fake.ready()
    assert len(client.receive_replies(wire.OPT_SET_META_CONTEXT)) == 2
    bench.reload()
    client.send_option(wire.OPT_GO, wire.go_payload("disk"))
    assert end.expect(RESERVE).contexts == [0]


def test_an_export_whose_file_goes_is_kept_for_who_waits_for_it(bench):
    fake = bench.export()
    bench.begin()
    waiting = asks_go(bench)
    end = fake.accept()
    (bench.exports / "disk.conf").unlink()
    bench.reload()
    assert sees(bench) == []
    end.offer()
    end.grant(end.expect(RESERVE))
    waiting.receive_replies(wire.OPT_GO)
    end.receive_client().sendall(b"x")
    assert waiting.recv(1) == b"x"
    assert end.closed(), "the link to an export that nobody knows any more"


def test_an_export_whose_file_goes_and_that_hangs_up_refuses_who_waits(bench):
    fake = bench.export()
    bench.begin()
    waiting = [asks_go(bench) for _ in range(3)]
    end = fake.accept()
    (bench.exports / "disk.conf").unlink()
    bench.reload()
    end.close()
    for client in waiting:
        assert client.receive_replies(wire.OPT_GO)[-1].type == wire.REP_ERR_PLATFORM
        assert client.list() == []


def test_the_channel_is_not_connected_again(bench):
    fake = bench.export(MaxConnectionsPerSource=1)
    bench.begin()
    _, handed, _, end = enters(bench, fake, at=HERE)
    bench.reload()
    assert "1 clients" in refused_with(bench, wire.REP_ERR_POLICY, at=HERE)
    end.expect(REFUSAL)
    enters(bench, fake, end, connection=2)
    assert fake.nobody_waits()
    handed.sendall(b"still here")


def test_a_bad_file_leaves_the_old_settings_standing_and_is_logged(bench):
    bench.export(Description="good", Allow="any")
    bench.export("other")
    bench.begin()
    (bench.exports / "disk.conf").write_text("[Export]\nDevice=/dev/null\nAllow=everybody\n")
    bench.export("other", Description="new")
    bench.reload()
    assert sees(bench) == [(b"disk", b"good"), (b"other", b"new")]
    (line,) = kept(bench)
    assert "disk.conf:3: Allow=everybody" in line
    assert bench.last_status.endswith("; a file of settings is bad (see the journal), "
                                      "older ones hold")
    bench.export(Description="mended")
    bench.reload()
    assert bench.last_status.endswith(" refused")
    assert sees(bench)[0] == (b"disk", b"mended")


def test_a_bad_file_that_is_new_is_skipped(bench):
    bench.export()
    bench.begin()
    (bench.exports / "bad.conf").write_text("[Export]\n")
    bench.reload()
    assert len(sees(bench)) == 1
    (line,) = [line for line in bench.process.log.splitlines() if "is skipped" in line]
    assert line.startswith("nbd-negotiator[bad]: ")
    assert line.endswith("bad.conf: Device= is missing; the file is skipped")


def test_a_bad_negotiator_conf_leaves_the_old_one_standing(bench):
    bench.export()
    bench.export("open", Allow="any")
    bench.config = bench.folder / "negotiator.conf"
    configure(bench, Allow="192.0.2.1")
    bench.begin()
    assert sees(bench) == [(b"open", b"")]
    configure(bench, Allow="any", MaxClients=0)
    bench.export("third", Allow="any")
    bench.reload()
    assert sees(bench) == [(b"open", b""), (b"third", b"")], "only the good files changed"
    assert "negotiator.conf:3: MaxClients=0" in kept(bench)[0]
    assert "older ones hold" in bench.last_status
    configure(bench, Allow="any")
    bench.reload()
    assert len(sees(bench)) == 3


def test_a_bad_negotiator_conf_at_the_start_is_told_and_nothing_is_served(bench):
    bench.export()
    bench.config = bench.folder / "negotiator.conf"
    configure(bench, Port=10809)
    process = bench.start(f"--config={bench.config}", wait_ready=False)
    assert process.wait() == 1
    assert "negotiator.conf:2: Port=: not a key of this section" in process.log


def test_a_negotiator_conf_that_appears_counts_from_then_on(bench):
    bench.export()
    bench.begin()
    assert len(sees(bench)) == 1
    configure(bench, Allow="192.0.2.1")
    bench.reload()
    assert sees(bench) == []
    bench.config.unlink()
    bench.reload()
    assert len(sees(bench)) == 1


def test_rules_that_become_tighter_hold_for_who_is_here_already(bench):
    bench.export()
    bench.begin()
    client = bench.client()
    assert len(client.list()) == 1
    bench.export(Allow="192.0.2.1")
    bench.reload()
    assert client.list() == []
    assert client.result(wire.OPT_GO, wire.go_payload("disk")) == wire.REP_ERR_UNKNOWN


def test_a_folder_that_is_gone_changes_nothing(bench):
    bench.export()
    bench.begin()
    shutil.rmtree(bench.exports)
    bench.reload()
    assert len(sees(bench)) == 1
    assert "cannot read the folder" in kept(bench)[0]


def test_many_reloads_leak_nothing(bench):
    fake = bench.export()
    bench.begin()
    kept_open = enters(bench, fake)
    bench.reload()
    before = bench.process.n_fds()
    for i in range(50):
        bench.export(f"more-{i % 3}", Description=str(i))
        bench.reload()
    assert len(sees(bench)) == 4
    wait_until(lambda: bench.process.n_fds() <= before, f"fds {bench.process.fds()}")
    assert kept_open


# The sandbox ------------------------------------------------------------------------


def test_inside_the_sandbox_only_settings_can_be_read(programs, tmp_path):
    folder, conf = tmp_path / "etc" / "exports.d", tmp_path / "etc" / "negotiator.conf"
    folder.mkdir(parents=True)
    (folder / "a.conf").write_text("[Export]\n")
    conf.write_text("")
    (tmp_path / "disk").write_text("")
    (folder / "link.conf").symlink_to(tmp_path / "disk")
    (folder / "device.conf").symlink_to("/dev/zero")

    def readable(path):
        done = subprocess.run(
            [programs.negotiator, f"--exports={folder}", f"--config={conf}", "--sandbox-check",
             path], capture_output=True, text=True, check=False, timeout=PATIENCE,
            env={"PATH": os.environ["PATH"]})
        assert done.returncode in (0, 1), done.stderr
        return done.returncode == 1

    if is_sanitized(programs.negotiator):
        pytest.skip("a sanitizer needs files that the sandbox forbids")
    if ctypes.CDLL(None).syscall(444, None, 0, 1) < 1:  # landlock_create_ruleset(2): the version
        pytest.skip("this kernel has no Landlock")
    assert readable(folder / "a.conf") and readable(conf)
    for path in (tmp_path / "disk", folder / "link.conf", folder / "device.conf", "/dev/zero",
                 "/etc/passwd", "/proc/self/status"):
        assert not readable(path), path


def without_landlock(program, folder):
    """That program on a kernel that does not know Landlock: seccomp answers for it."""
    wrapper = folder / "without-landlock"
    wrapper.write_text(f"""#!/usr/bin/python3
import ctypes, os, struct, sys
def op(code, jt, jf, k):
    return struct.pack("<HBBI", code, jt, jf, k)
rules = (op(0x20, 0, 0, 0)                                        # the call's number
         + op(0x15, 0, 1, 444) + op(0x06, 0, 0, 0x00050000 | 38)  # landlock_create_ruleset: ENOSYS
         + op(0x06, 0, 0, 0x7fff0000))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0                            # PR_SET_NO_NEW_PRIVS
at = ctypes.create_string_buffer(rules)
assert libc.prctl(22, 2, struct.pack("<HxxxxxxQ", 4, ctypes.addressof(at)), 0, 0) == 0
os.execv({str(program)!r}, [{str(program)!r}, *sys.argv[1:]])
""")
    wrapper.chmod(0o755)
    return wrapper


def test_without_landlock_a_reload_ends_it_to_be_started_again(bench):
    if is_sanitized(bench.binary):
        pytest.skip("a sanitizer needs files that the sandbox forbids")
    bench.binary = without_landlock(bench.binary, bench.folder)
    fake = bench.export()
    bench.begin()
    _, handed, _, end = enters(bench, fake)
    busctl(bench, "call", "org.x", *OBJECT, "Reload")
    assert bench.process.wait() == 75  # RestartForceExitStatus= in the unit
    assert "no Landlock" in bench.process.log
    handed.sendall(b"still here")


def test_files_that_the_sandbox_does_not_know_are_read_by_the_next_one(bench):
    if is_sanitized(bench.binary):
        pytest.skip("a sanitizer needs files that the sandbox forbids")
    if ctypes.CDLL(None).syscall(444, None, 0, 1) < 1:  # landlock_create_ruleset(2): the version
        pytest.skip("this kernel has no Landlock")
    fake = bench.export()
    (bench.folder / "etc").mkdir()
    bench.begin(f"--config={bench.folder}/etc/negotiator.conf")
    _, handed, _, end = enters(bench, fake)
    bench.exports.rename(bench.folder / "old")
    bench.exports.mkdir()
    busctl(bench, "call", "org.x", *OBJECT, "Reload")
    assert bench.process.wait() == 75
    assert "another place" in bench.process.log
    handed.sendall(b"still here")


def test_a_folder_of_exports_that_is_not_there_is_an_empty_one(bench):
    bench.exports.rmdir()
    bench.begin()
    assert sees(bench) == []
    assert "no exports until there is one" in bench.process.log


def test_bad_settings_at_the_start_are_told_at_once_and_end_it_after_a_pause(bench):
    bench.config = bench.folder / "negotiator.conf"
    bench.config.write_text("[Negotiator]\nColour=red\n")
    process = bench.start(f"--config={bench.config}", "--pause=3600", wait_ready=False)
    said = process.notified.wait("STATUS=cannot start")
    assert "negotiator.conf:2" in said and "tried again" in said
    assert process.log.count("negotiator.conf:2") == 1 and process.alive()
    assert process.stop() == 1


# STATUS= and the control socket ----------------------------------------------------------


def test_the_status_tells_figures(bench):
    fake = bench.export()
    bench.begin()
    kept_open = enters(bench, fake)
    told = bench.told_until("STATUS=1 export, 0 clients in the handshake, 1 being served, "
                            "0 refused")
    assert all(t.startswith("STATUS=1 export") for t in told)
    assert kept_open


def test_a_service_manager_that_does_not_listen_holds_up_nothing(bench):
    """Its queue of datagrams is short, and full after a while."""
    fake = bench.export()
    bench.begin()
    bench.notify.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    filler = bench.stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    filler.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            filler.sendto(b"STATUS=filler", str(bench.folder / "told"))
    enters(bench, fake)
    select.select([], [], [], 1.5)
    assert len(sees(bench)) == 1


def busctl(bench, *words):
    if not shutil.which("busctl"):
        pytest.skip("busctl is not installed")
    return run("busctl", f"--address=unix:path={bench.control}", *words)


def test_busctl_can_look_at_it_and_read_it(bench):
    fake = bench.export(Name="web's disk")
    bench.export("other")
    bench.begin()
    enters_name = bench.client()
    enters_name.send_option(wire.OPT_INFO, wire.go_payload("web's disk"))
    end = fake.ready()
    enters_name.receive_replies(wire.OPT_INFO)
    shown = busctl(bench, "introspect", "org.x", *OBJECT)
    for member in ("Handshakes", "Clients", "Refused", "Exports", "Since", "ListExports",
                   "Reload"):
        assert f".{member} " in shown, member
    assert busctl(bench, "get-property", "org.x", *OBJECT, "Exports") == "u 2"
    assert busctl(bench, "get-property", "org.x", *OBJECT, "Handshakes") == "u 1"
    listed = busctl(bench, "--json=short", "call", "org.x", *OBJECT, "ListExports")
    assert "web's disk" in listed and '"Known":{"type":"b","data":true}' in listed
    assert '"Known":{"type":"b","data":false}' in listed
    end.close()


def test_root_can_reload_it_there_and_learns_why_not(bench):
    bench.export()
    bench.begin()
    bench.export("second")
    busctl(bench, "call", "org.x", *OBJECT, "Reload")
    assert len(sees(bench)) == 2
    configure(bench, Nonsense=1)
    done = subprocess.run(["busctl", f"--address=unix:path={bench.control}", "call", "org.x",
                           *OBJECT, "Reload"], capture_output=True, text=True, check=False,
                          timeout=PATIENCE)
    assert done.returncode != 0 and "Nonsense=: not a key" in done.stderr


def test_others_may_read_and_not_change(bench):
    needs_root()
    bench.export()
    bench.begin()
    os.chmod(bench.control, 0o666)
    path = bench.folder
    while path != path.parent:
        with contextlib.suppress(PermissionError):
            os.chmod(path, path.stat().st_mode | 0o055)
        path = path.parent
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "busctl",
                 f"--address=unix:path={bench.control}"]
    assert run(*as_nobody, "get-property", "org.x", *OBJECT, "Exports") == "u 1"
    done = subprocess.run([*as_nobody, "call", "org.x", *OBJECT, "Reload"], capture_output=True,
                          text=True, check=False, timeout=PATIENCE)
    assert done.returncode != 0 and "only root" in done.stderr
    assert "user 65534" in bench.process.log and "may not call Reload" in bench.process.log


def test_callers_that_come_go_and_talk_nonsense_hold_up_nobody(bench):
    bench.export()
    bench.begin()
    before = bench.process.n_fds()
    for nonsense in (b"", b"\0", b"AUTH\r\n", b"\0AUTH EXTERNAL 30\r\nBEGIN\r\n" + b"x" * 4096):
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as caller:
            caller.connect(str(bench.control))
            with contextlib.suppress(BrokenPipeError):
                caller.sendall(nonsense)
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            caller = stack.enter_context(socket.socket(socket.AF_UNIX))
            caller.connect(str(bench.control))
        assert len(sees(bench)) == 1
    wait_until(lambda: bench.process.n_fds() <= before, f"fds {bench.process.fds()}")
    assert busctl(bench, "get-property", "org.x", *OBJECT, "Exports") == "u 1"


def test_a_caller_that_says_nothing_does_not_delay_the_end(bench):
    bench.export()
    bench.begin()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as caller:
        caller.connect(str(bench.control))
        assert busctl(bench, "get-property", "org.x", *OBJECT, "Exports") == "u 1"
        began = time.monotonic()
        assert bench.process.stop() == 0
        assert time.monotonic() - began < 10


def test_the_control_socket_is_for_its_group(bench):
    bench.export()
    bench.begin()
    assert oct(bench.control.stat().st_mode)[-3:] == "660"
