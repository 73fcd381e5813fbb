# SPDX-License-Identifier: GPL-2.0-or-later
"""`nbdctl serve`: its command line, what it prints, and how it looks after its children."""

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys

import pytest

from conftest import (MIB, Server, needs_program, pattern, processes_with, run, serve_arguments,
                      wait_until)
from nbdwire import (EXTENDED, OPT_GO, PATIENCE, READ_ONLY, REP_ERR_PLATFORM, Client, OptionError,
                     Options, go_payload)

NEGOTIATOR, EXPORT = "nbd-negotiator", "nbd-export"


@pytest.fixture
def nbdctl(programs):
    """nbdctl(word, ...) → the finished process of a command that ends by itself."""
    return lambda *words, **how: subprocess.run(
        [programs.nbdctl, *map(os.fspath, words)], capture_output=True, text=True,
        timeout=PATIENCE, check=False, stdin=subprocess.DEVNULL, **how)


@pytest.fixture
def start(programs, cleanup):
    """As serve(), for a server that the test ends itself; does not wait for READY=1."""

    def begin(*paths, ready=True, env=None, unix=True, **options):
        server = Server(programs, serve_arguments(paths, options), unix, env)
        cleanup.callback(server.destroy)
        cleanup.callback(server.connections.close)
        if ready:
            assert server.start(), server.log()
        return server

    return begin


@pytest.fixture
def with_programs(programs, tmp_path):
    """with_programs(export="shell lines") → an environment in which those lines run before
    the real program; $REAL is its path."""

    def make(**scripts):
        for name, real in ((EXPORT, programs.export), (NEGOTIATOR, programs.negotiator)):
            program = tmp_path / name
            lines = scripts.get(name.removeprefix("nbd-"), "")
            program.write_text(f'#!/bin/sh\nREAL="{real}"\n{lines}\nexec "$REAL" "$@"\n')
            program.chmod(0o755)
        return {"NBD_EXPORT_PROGRAMS": str(tmp_path)}

    return make


def nothing_left(server):
    assert not processes_with(server.marker.encode())
    assert not server.socket.exists()
    assert not any(server.runtime.iterdir())


def ended(server):
    """Its exit code."""
    return server.child.wait(PATIENCE)


def config(folder, **files):
    """A folder with LABEL.conf for each label="lines"."""
    folder.mkdir(exist_ok=True)
    for label, lines in files.items():
        (folder / f"{label}.conf").write_text(f"[Export]\n{lines}\n")
    return folder


# The command line


@pytest.mark.parametrize("words", [["--help"], ["help"], ["serve", "--help"]])
def test_help_goes_to_standard_output_and_shows_how_to_begin(nbdctl, words):
    done = nbdctl(*words)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith("Usage: nbdctl") and "nbdctl serve disk.img" in done.stdout


def test_help_of_serve_names_every_option_and_the_exit_codes(nbdctl):
    text = nbdctl("serve", "--help").stdout
    for option in ("listen", "insecure-listen", "unix", "config", "read-only", "shared",
                   "description", "direct", "memory", "max-connections", "debug"):
        assert f"  --{option}" in text
    assert "Exit status" in text and max(map(len, text.splitlines())) <= 90


def test_version_is_told(nbdctl):
    done = nbdctl("--version")
    assert done.returncode == 0 and done.stdout.startswith("nbdctl (nbd-export) ")


@pytest.mark.parametrize("words, says", [
    ([], "which verb"),
    (["frobnicate"], 'no verb "frobnicate"'),
    (["serve"], "nothing to serve"),
    (["serve", "--frobnicate", "disk"], "no such option"),
    (["serve", "--listen"], "--listen needs a value"),
    (["serve", "--listen", "10809", "disk"], "write ADDRESS:PORT"),
    (["serve", "--unix", "", "disk"], "empty"),
    (["serve", "--memory", "1M", "disk"], "too little"),
    (["serve", "--memory", "much", "disk"], "--memory"),
    (["serve", "--max-connections", "0", "disk"], "not between 1 and 65472"),
    (["serve", "--max-connections", "65473", "disk"], "not between 1 and 65472"),
    (["serve", "--direct", "maybe", "disk"], "yes or no"),
    (["serve", "--shared", "disk"], "--shared needs --read-only"),
    (["serve", "--config", "/etc", "disk"], "not both"),
    (["serve", "--config", "/etc", "--config", "/usr"], "already given"),
    (["serve", "--config", "/etc", "--read-only"], "--read-only does not go with --config"),
    (["serve", "=disk"], "empty name"),
    (["serve", "a\nb=disk"], "control character"),
    (["serve", "--description", "a\tb", "disk"], "control character"),
    (["serve", b"\xff=disk"], "UTF-8"),
    (["serve", f"{4097 * 'n'}=disk"], "longer than 4096 bytes"),
])
def test_a_wrong_command_line_is_exit_code_2_and_one_sentence(nbdctl, words, says):
    done = nbdctl(*words)
    assert done.returncode == 2 and done.stdout == ""
    assert says in done.stderr and done.stderr.count("\n") == 1


def test_two_exports_with_one_name_are_refused_naming_both(nbdctl, file_disk):
    done = nbdctl("serve", "/srv/a/disk", "other=/srv/c", "/srv/b/disk")
    assert done.returncode == 2
    assert "/srv/a/disk and /srv/b/disk" in done.stderr and 'as "disk"' in done.stderr


@pytest.mark.parametrize("address", ["0.0.0.0:0", "*:0", "[::]:0", "192.0.2.1:10809"])
def test_an_address_that_others_reach_is_refused(nbdctl, address):
    done = nbdctl("serve", "--listen", address, "disk")
    assert done.returncode == 2
    assert address in done.stderr and "--insecure-listen" in done.stderr


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
def test_an_address_that_others_reach_needs_an_access_rule(nbdctl, file_disk, tmp_path, address):
    folder = config(tmp_path / "conf", web=f"Device={file_disk(MIB)}")
    done = nbdctl("serve", "--listen", address, "--config", folder)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    for word in (address, str(folder), "Allow=", "--insecure-listen"):
        assert word in done.stderr


def test_an_address_that_others_reach_is_served_to_whom_the_rules_let_in(serve, file_disk,
                                                                         tmp_path):
    disks = [file_disk(MIB, name=name) for name in ("one", "two", "three")]
    folder = config(tmp_path / "conf", here=f"Device={disks[0]}\nAllow=127.0.0.2:read",
                    there=f"Device={disks[1]}\nAllow=192.0.2.1", none=f"Device={disks[2]}")
    server = serve(config=folder, listen="0.0.0.0:0", unix=False)
    address = "127.0.0.1", server.tcp_address()[1]

    def listed(**how):
        return [name for name, _ in server.closing(Options(address, **how)).list()]

    assert listed() == [b"none"]
    assert listed(source="127.0.0.2") == [b"here", b"none"]
    client = server.client("here", address=address, source="127.0.0.2")
    assert client.flags & READ_ONLY
    assert "none has no Allow=" in server.log() and "here has no" not in server.log()


def test_an_export_without_rules_is_not_for_others_where_another_has_some(serve, file_disk,
                                                                          tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        own = probe.getsockname()[0]
    folder = config(tmp_path / "conf", web=f"Device={file_disk(MIB, name='one')}\nAllow={own}",
                    db=f"Device={file_disk(MIB, name='two')}")
    server = serve(config=folder, listen="0.0.0.0:0", unix=False)
    address = own, server.tcp_address()[1]
    assert server.closing(Options(address)).list() == [(b"web", b"")]


def test_an_address_that_others_reach_is_served_if_one_insists(serve, file_disk):
    server = serve(f"db={file_disk(MIB)}", listen="0.0.0.0:0", insecure_listen=True)
    assert server.tcp_address()[0] == "0.0.0.0"
    assert server.client(address=("127.0.0.1", server.tcp_address()[1])).size == MIB


# Names and addresses


def test_one_line_for_each_export_and_socket_tells_an_address_that_works(serve, file_disk):
    nbdinfo = needs_program("nbdinfo")
    server = serve(file_disk(MIB, name="one"), f"zw ei={file_disk(2 * MIB, name='2')}",
                   listen="127.0.0.1:0")
    assert len(server.output().splitlines()) == 4
    for name, size in (("one", MIB), ("zw ei", 2 * MIB)):
        assert len(server.uris[name]) == 2
        assert {uri.split(":")[0] for uri in server.uris[name]} == {"nbd", "nbd+unix"}
        for uri in server.uris[name]:
            assert run(nbdinfo, "--size", uri) == str(size)


def test_without_addresses_it_makes_a_private_socket(serve, file_disk):
    server = serve(f"db={file_disk(MIB)}", unix=False)
    (uri,) = server.uris["db"]
    path = uri.partition("?socket=")[2]
    assert path.startswith(f"{server.runtime}/")
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
    assert server.client("db", address=path).size == MIB


def test_without_a_usable_runtime_folder_the_private_one_is_elsewhere(start, file_disk):
    server = start(file_disk(MIB, name="db"), unix=False, ready=False)
    server.env["XDG_RUNTIME_DIR"] = "/nonexistent"
    assert server.start(), server.log()
    path = server.uris["db"][0].partition("?socket=")[2]
    assert path.startswith(("/run/nbdctl-", "/tmp/nbdctl-"))
    assert server.client("db", address=path).size == MIB
    server.stop()
    assert not os.path.exists(os.path.dirname(path))


def test_a_path_is_exported_under_its_last_part(serve, file_disk):
    server = serve(file_disk(MIB, name="one"))
    assert server.options().list() == [(b"one", b"")]


def test_a_path_may_be_relative(serve, file_disk):
    server = serve(str(file_disk(MIB, name="one")).lstrip("/"))
    assert server.client("one").size == MIB


def test_an_equals_sign_in_an_existing_path_is_part_of_it(serve, file_disk):
    path = file_disk(MIB, name="a=b")
    relative = str(path).lstrip("/")
    server = serve(relative, f"x={path}", shared=True, read_only=True)
    assert sorted(server.options().list()) == [(b"a=b", b""), (b"x", b"")]


@pytest.mark.parametrize("name", ["a/b", "--help", ".hidden", "ünï", "a b", "%41?x#y", "n" * 4096],
                         ids=lambda name: name[:8])
def test_any_name_can_be_served(serve, file_disk, name):
    path = file_disk(MIB)
    if "/" in name:                 # "a/b=PATH" would be a path
        server = serve(config=config(path.parent / "conf", x=f"Name={name}\nDevice={path}"))
        socket_path = server.socket
    else:
        socket_path = path.parent / "socket"
        server = serve("--unix", socket_path, "--", f"{name}={path}", unix=False)
    assert server.client(name, address=socket_path).size == MIB
    if len(name) < 100:
        assert run(needs_program("nbdinfo"), "--size", server.uris[name][0]) == str(MIB)


def test_names_that_differ_only_in_odd_characters_do_not_collide(serve, file_disk):
    names = ["a b", "a?b", "a_b", "a_b-2"]
    server = serve(*(f"{name}={file_disk((i + 1) * MIB, name=str(i))}"
                     for i, name in enumerate(names)))
    assert [server.client(name).size for name in names] == [MIB, 2 * MIB, 3 * MIB, 4 * MIB]


def test_a_single_export_answers_to_the_empty_name_and_one_of_two_does_not(serve, file_disk):
    one, two = file_disk(MIB, name="one"), file_disk(MIB, name="two")
    assert serve(one).client("").size == MIB
    with pytest.raises(OptionError):
        serve(two, f"again={two}", shared=True, read_only=True).client("")


def test_settings_of_the_command_line_hold_for_every_path(serve, file_disk):
    server = serve(file_disk(MIB, name="one"), file_disk(MIB, name="two"), read_only=True,
                   description="for reading", max_connections=1)
    assert server.options().list() == [(b"one", b"for reading"), (b"two", b"for reading")]
    for name in ("one", "two"):
        assert server.client(name).flags & READ_ONLY


# All or nothing


@pytest.mark.parametrize("path, says", [
    ("", "empty path"),
    ("/nonexistent/disk", "/nonexistent/disk: No such file"),
    ("/usr", "/usr"),
    ("/", "/"),
])
def test_a_path_that_cannot_be_served_is_exit_code_1_and_named(refused, path, says):
    assert says in refused(path)


def test_one_bad_path_keeps_all_others_from_being_served(refused, file_disk):
    log = refused(file_disk(MIB, name="good"), "/nonexistent/bad", "/nonexistent/worse")
    assert "/nonexistent/bad" in log and "/nonexistent/worse" in log
    assert "2 of 3 exports could not start" in log


def test_a_disk_that_somebody_else_writes_is_refused(serve, refused, file_disk):
    path = file_disk(MIB)
    serve(f"db={path}")
    assert str(path) in refused(path)


@pytest.mark.parametrize("listen", ["nonexistent.invalid:10809", "[::1]:65536", "127.0.0.1:x"])
def test_an_address_that_cannot_be_listened_on_is_named(refused, file_disk, listen):
    assert f"cannot listen on {listen}" in refused(file_disk(MIB), listen=listen)


def test_a_port_in_use_is_named(refused, file_disk):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        log = refused(file_disk(MIB), listen=address)
    assert f"cannot listen on {address}" in log and "in use" in log


def test_a_stale_unix_socket_is_replaced(serve, file_disk, tmp_path):
    path = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
    server = serve("--unix", path, file_disk(MIB), unix=False)
    assert server.client(address=path).size == MIB
    server.stop()
    assert not path.exists()


def test_a_unix_socket_in_use_is_refused_and_stays(serve, nbdctl, file_disk):
    server = serve(file_disk(MIB, name="first"))
    done = nbdctl("serve", "--unix", server.socket, file_disk(MIB, name="second"))
    assert done.returncode == 1 and "listens there already" in done.stderr
    assert server.client("first").size == MIB


def test_a_file_in_the_place_of_the_socket_is_refused_and_stays(nbdctl, file_disk, tmp_path):
    path = tmp_path / "precious"
    path.write_text("data")
    done = nbdctl("serve", "--unix", path, file_disk(MIB))
    assert done.returncode == 1 and "not a socket" in done.stderr
    assert path.read_text() == "data"


# --config


def test_a_folder_is_served_and_its_bad_files_are_named_and_skipped(serve, file_disk, tmp_path):
    folder = config(tmp_path / "conf",
                    web=f"Device={file_disk(MIB, name='1')}\nDescription=the web",
                    db=f"Name=die Datenbank\nDevice={file_disk(2 * MIB, name='2')}\nReadOnly=yes",
                    missing="Device=/nonexistent/disk",
                    typo="Devise=/dev/null")
    (folder / "notes.txt").write_text("not an export")
    server = serve(config=folder)
    assert sorted(server.options().list()) == [(b"die Datenbank", b""), (b"web", b"the web")]
    assert server.client("die Datenbank").flags & READ_ONLY
    assert sorted(server.uris) == ["die Datenbank", "web"]
    assert "typo.conf:2" in server.log() and "missing.conf is skipped" in server.log()
    assert "/nonexistent/disk: No such file" in server.log()
    assert not server.log().count("notes.txt")


def test_of_two_files_with_one_name_one_is_skipped(serve, file_disk, tmp_path):
    folder = config(tmp_path / "conf", a=f"Name=disk\nDevice={file_disk(MIB, name='1')}",
                    b=f"Name=disk\nDevice={file_disk(2 * MIB, name='2')}")
    server = serve(config=folder)
    assert server.client("disk").size == MIB
    assert "b.conf" in server.log()


def test_a_folder_in_which_nothing_can_be_served_is_exit_code_1(refused, tmp_path):
    assert "no good LABEL.conf" in refused(config=config(tmp_path / "empty"))
    assert "no good LABEL.conf" in refused(config=config(tmp_path / "bad", x="Devise=/dev/null"))
    assert "1 of 1 export could not start" in refused(
        config=config(tmp_path / "gone", x="Device=/nonexistent/disk"))


def test_a_folder_that_cannot_be_read_is_named(refused):
    assert "/nonexistent/conf: No such file" in refused(config="/nonexistent/conf")


# The end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_stop_leaves_nothing_and_is_exit_code_0(start, file_disk, number):
    server = start(file_disk(MIB, name="one"), file_disk(MIB, name="two"))
    server.client("one").write(0, b"x" * 4096)
    server.child.send_signal(number)
    assert ended(server) == 0, server.log()
    nothing_left(server)


def test_a_signal_to_stop_that_comes_during_the_start_leaves_nothing(start, file_disk,
                                                                     with_programs, tmp_path):
    os.mkfifo(tmp_path / "started")
    server = start(file_disk(MIB), ready=False,
                   env=with_programs(export=f"echo >'{tmp_path}/started'; exec sleep 1000"))
    server.child = subprocess.Popen(server.command, env=server.env, stdout=subprocess.DEVNULL,
                                    stderr=subprocess.DEVNULL)
    (tmp_path / "started").read_text()
    server.child.terminate()
    assert ended(server) == 0
    nothing_left(server)


def test_a_hangup_is_ignored_under_nohup(start, file_disk):
    server = start(file_disk(MIB), ready=False)
    server.command = ["nohup", *server.command]
    assert server.start()
    server.child.send_signal(signal.SIGHUP)
    assert server.client().size == MIB
    server.stop()


def test_children_end_by_themselves_when_nbdctl_is_killed(start, file_disk):
    server = start(file_disk(MIB, name="one"), file_disk(MIB, name="two"))
    assert len(server.children()) == 3
    server.child.kill()
    server.child.wait()
    wait_until(lambda: not processes_with(server.marker.encode()), "the children's end")


def test_a_socket_that_somebody_else_made_meanwhile_is_not_removed(start, file_disk):
    server = start(file_disk(MIB))
    server.socket.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(server.socket))
        server.child.terminate()
        assert ended(server) == 0
        assert server.socket.exists()


def test_a_second_ctrl_c_tells_what_is_awaited_and_skips_nothing(start, file_disk):
    server = start(file_disk(MIB, name="one"))
    (export,) = server.pids(EXPORT)
    os.kill(export, signal.SIGSTOP)         # it takes its time
    server.child.send_signal(signal.SIGINT)
    server.wait_for_log("stopping, because of Ctrl-C")
    server.child.send_signal(signal.SIGINT)
    server.wait_for_log("waiting for")
    wait_until(lambda: not server.pids(NEGOTIATOR), "the negotiator's end")
    assert server.child.poll() is None and server.pids(EXPORT) == [export]
    os.kill(export, signal.SIGCONT)
    assert ended(server) == 0, server.log()
    nothing_left(server)


def test_a_third_ctrl_c_kills_what_is_left(start, file_disk):
    server = start(file_disk(MIB, name="one"))
    (export,) = server.pids(EXPORT)
    os.kill(export, signal.SIGSTOP)
    for says in ("stopping", "waiting for nbd-", "killing nbd-export[one]"):
        server.child.send_signal(signal.SIGINT)
        server.wait_for_log(says)
        if says == "stopping":
            wait_until(lambda: not server.pids(NEGOTIATOR), "the negotiator's end")
    assert ended(server) == 1
    nothing_left(server)


# The children


def test_ctrl_c_in_a_terminal_reaches_no_child(serve, file_disk):
    server = serve(file_disk(MIB))
    for pid in server.children():
        assert os.getpgid(pid) == pid != os.getpgid(server.child.pid)


def test_children_get_their_sockets_and_no_descriptor_of_ours(start, file_disk, tmp_path):
    server = start(file_disk(MIB, name="one"), ready=False)
    with open(tmp_path / "secret", "w") as secret:
        server.child = subprocess.Popen(server.command, env=server.env, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, pass_fds=[secret.fileno()])
    with server.child.stdout as output:
        assert output.readline().startswith(b"serving one at ")
    opened = {pid: {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
              for pid in (server.child.pid, *server.children())}
    ours = {str(tmp_path / "secret"), os.readlink(f"/proc/{server.child.pid}/fd/1")}
    assert ours <= opened.pop(server.child.pid)
    assert len(opened) == 2
    assert not any(files & ours for files in opened.values())


def test_a_killed_export_is_started_again_by_the_next_client(serve, file_disk):
    server = serve(file_disk(MIB, pattern(MIB), name="one"), file_disk(MIB, name="two"))
    server.lossy = True
    lost, other = server.client("one"), server.client("two")
    before = server.pids(EXPORT)
    victim = next(pid for pid in before
                  if b"one" in open(f"/proc/{pid}/cmdline", "rb").read().split(b"\0"))
    os.kill(victim, signal.SIGKILL)
    assert lost.closed()
    server.wait_for_log("nbd-export[one] was killed by SIGKILL")
    assert victim not in server.pids(EXPORT) and len(server.pids(EXPORT)) == 1
    assert server.client("one").read(0, 4096) == pattern(MIB)[:4096]
    assert len(server.pids(EXPORT)) == 2
    other.write(0, b"y" * 4096)
    assert other.read(0, 4096) == b"y" * 4096


def test_a_killed_export_does_not_start_by_itself(serve, file_disk):
    server = serve(file_disk(MIB, name="one"), debug=True)
    server.lossy = True
    os.kill(server.pids(EXPORT)[0], signal.SIGKILL)
    server.wait_for_log("nbd-export[one] waits for a client")       # its back-off is over
    assert server.options().list() == [(b"one", b"")]
    assert server.pids(EXPORT) == []


def test_clients_in_transmission_do_not_notice_that_the_negotiator_was_killed(serve, file_disk):
    server = serve(file_disk(MIB, name="one"))
    server.lossy = True
    client = server.client("one")
    client.write(0, b"a" * 4096)
    (negotiator,) = server.pids(NEGOTIATOR)
    export = server.pids(EXPORT)
    os.kill(negotiator, signal.SIGKILL)
    server.wait_for_log("nbd-negotiator was killed by SIGKILL")
    assert client.read(0, 4096) == b"a" * 4096
    # Nobody is turned away meanwhile: the sockets listen on.
    assert server.client("one").read(0, 4096) == b"a" * 4096
    client.write(4096, b"b" * 4096)
    assert client.read(4096, 4096) == b"b" * 4096
    assert server.pids(EXPORT) == export and server.pids(NEGOTIATOR) != [negotiator]


def test_a_program_that_keeps_failing_is_started_ever_more_seldom(serve, file_disk,
                                                                   with_programs, tmp_path):
    broken, starts = tmp_path / "broken", tmp_path / "starts"
    server = serve(file_disk(MIB), env=with_programs(
        negotiator=f"date +%s.%N >>'{starts}'; [ ! -e '{broken}' ] || exit 3"))
    server.lossy = True
    broken.touch()
    os.kill(server.pids(NEGOTIATOR)[0], signal.SIGKILL)
    wait_until(lambda: len(starts.read_text().split()) >= 5, "four more starts")
    broken.unlink()
    times = [float(word) for word in starts.read_text().split()][1:5]
    pauses = [b - a for a, b in zip(times, times[1:])]
    assert all(pause >= 0.2 * 2 ** i - 0.02 for i, pause in enumerate(pauses)), pauses
    assert "ended with exit code 3 before it was ready" in server.log()
    assert server.client().size == MIB


def test_a_client_hears_that_its_export_crashes_at_every_start(serve, file_disk, with_programs,
                                                               tmp_path):
    broken = tmp_path / "broken"
    server = serve(file_disk(MIB, name="one"), env=with_programs(
        export=f"[ ! -e '{broken}' ] || kill -SEGV $$"))
    server.lossy = True
    broken.touch()
    os.kill(server.pids(EXPORT)[0], signal.SIGKILL)
    server.wait_for_log("was killed by SIGKILL")
    options = server.options()
    last = options.option(OPT_GO, go_payload("one"))[-1]
    assert last.type == REP_ERR_PLATFORM and "SIGSEGV" in last.text
    broken.unlink()
    wait_until(lambda: options.option(OPT_GO, go_payload("one"))[-1].type == 1,
               "a start that succeeds")


def test_an_export_that_crashes_at_the_first_start_is_named(refused, file_disk, with_programs):
    log = refused(file_disk(MIB, name="one"), env=with_programs(export="kill -SEGV $$"))
    assert "nbd-export[one] was killed by SIGSEGV before it was ready" in log


def test_a_negotiator_that_crashes_at_the_first_start_is_named(refused, file_disk, with_programs):
    log = refused(file_disk(MIB), env=with_programs(negotiator="exit 3"))
    assert "nbd-negotiator ended with exit code 3 before it was ready" in log


def test_a_program_that_is_not_there_is_named(refused, file_disk, tmp_path):
    log = refused(file_disk(MIB), env={"NBD_EXPORT_PROGRAMS": str(tmp_path)})
    assert f"no program {tmp_path}/nbd-" in log


def test_a_program_that_cannot_be_executed_is_named(refused, file_disk, with_programs, tmp_path):
    env = with_programs()
    (tmp_path / EXPORT).write_text("#!/nonexistent/interpreter\n")
    log = refused(file_disk(MIB), env=env)
    assert f"cannot start {tmp_path}/nbd-export" in log and "No such file" in log


def test_only_the_started_process_itself_can_say_that_it_is_ready(refused, file_disk,
                                                                   with_programs):
    liar = ("import os, socket; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)"
            '.sendto(b\\"READY=1\\", os.environ[\\"NOTIFY_SOCKET\\"])')
    log = refused(file_disk(MIB, name="one"), env=with_programs(
        export=f"{sys.executable} -c \"{liar}\"; exit 4"))
    assert "nbd-export[one] ended with exit code 4 before it was ready" in log


def test_standard_output_that_nobody_reads_does_no_harm(start, file_disk):
    server = start(file_disk(MIB), ready=False)
    server.command = ["sh", "-c", '"$@" | true', "sh", *server.command]
    server.child = subprocess.Popen(server.command, env=server.env, stderr=subprocess.DEVNULL)

    def listens():
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError), \
                socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(server.socket))
            return True

    wait_until(listens, "a socket that listens")
    with Client(server.socket, "", EXTENDED) as client:
        assert client.size == MIB
    with Options(server.socket):
        pass
