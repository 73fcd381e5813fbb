# SPDX-License-Identifier: GPL-2.0-or-later
"""Where keys are not: in no log, in no core dump, in no process but nbd-tls."""

import base64
import contextlib
import os
import pathlib
import re
import resource
import secrets
import signal
import socket
import subprocess

import pytest

from conftest import MIB, SANITIZERS, children_of, needs_program, needs_root, wait_until
from nbdwire import PATIENCE, STRUCTURED
from test_abuse import is_sanitized
from tlsfixtures import PROGRAM, context, put_keys, starttls

LARGEST = 1 << 30       # a sanitizer's shadow is larger, and holds no data


def private_number(path):
    """The secret of an elliptic curve's key in PEM: 32 bytes."""
    lines = re.search(r"PRIVATE KEY-----\n(.*?)-----END", path.read_text(), re.S)[1]
    der = base64.b64decode(lines)
    at = der.index(b"\x02\x01\x01\x04") + 5       # RFC 5915, alone or in PKCS #8
    return der[at:at + der[at - 1]].lstrip(b"\0")


def forms_of(secret):
    """As it is, the other way round (as big numbers lie in memory), and as text."""
    return {secret, secret[::-1], secret.hex().encode(), secret.hex().upper().encode(),
            base64.b64encode(secret).rstrip(b"=")[:-1]}


class Secrets:
    def __init__(self, folder):
        key = folder / "server-key.pem"
        psk = [bytes.fromhex(line.split(":")[1])
               for line in (folder / "psk.keys").read_text().splitlines()]
        of_pem = {line.encode() for line in key.read_text().splitlines() if len(line) == 64
                  and "-" not in line}
        self.forms = {"the server's key": forms_of(private_number(key)) | of_pem,
                      "a pre-shared key": set().union(*map(forms_of, psk))}

    def in_bytes(self, data):
        return {name for name, forms in self.forms.items() if any(form in data for form in forms)}

    def in_process(self, pid):
        """Which of them are in its memory, whatever that is mapped from."""
        found = set()
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
                low, high, readable = re.match(r"(\w+)-(\w+) (.)", line).groups()
                start, size = int(low, 16), int(high, 16) - int(low, 16)
                if readable != "r" or size > LARGEST or "[v" in line:
                    continue
                with contextlib.suppress(OSError):      # a hole, such as beyond a file's end
                    memory.seek(start)
                    found |= self.in_bytes(memory.read(size))
        return found


@pytest.fixture
def keys(tmp_path, authority):
    folder = put_keys(tmp_path / "keys", authority)
    (folder / "psk.keys").write_text(f"bob:{secrets.token_hex(32)}\n")
    return folder


@pytest.fixture
def server(serve, file_disk, keys):
    server = serve(f"disk={file_disk(MIB)}", tls=keys, tls_required=True, debug=True)
    server.secrets = Secrets(keys)
    return server


def by_psk(server, line):
    """A client of libnbd's with this line of a key file; whether it got in."""
    needs_program("nbdinfo")
    path = server.folder / "client.psk"
    path.write_text(line)
    uri = f"nbds+unix://{line.split(':')[0]}@/disk?socket={server.socket}&tls-psk-file={path}"
    return subprocess.run(["nbdinfo", "--size", uri], capture_output=True, timeout=PATIENCE,
                          check=False).returncode == 0


def use_keys(server, authority, keys):
    """What brings keys into use: clients of either kind, and files that are wrong."""
    client = starttls(server.options(), context(authority, authority.alice))
    client.enter_mode(STRUCTURED)
    client.go("disk")
    line = (keys / "psk.keys").read_text()
    assert by_psk(server, line)
    assert not by_psk(server, f"bob:{secrets.token_hex(32)}\n")
    (tls,) = server.pids("nbd-tls")
    (keys / "psk.keys").write_text(line + line.strip() + "0z\n")
    os.kill(tls, signal.SIGHUP)
    server.wait_for_log("psk.keys: line 2")
    (keys / "psk.keys").write_text(line)
    (keys / "server-key.pem").write_text((keys / "server-key.pem").read_text()[:-60])
    os.kill(tls, signal.SIGHUP)
    server.wait_for_log("server-key.pem: ")
    return client


def test_keys_are_in_nbd_tls_and_in_no_other_process(server, authority, keys):
    needs_root()
    use_keys(server, authority, keys)
    (tls,) = server.pids("nbd-tls")
    assert server.secrets.in_process(tls) == set(server.secrets.forms), "this sees what is there"
    others = {server.child.pid, *server.children(),
              *(pid for child in server.children() for pid in children_of(child))} - {tls}
    assert len(others) == 3
    for pid in others:
        assert server.secrets.in_process(pid) == set()
        assert not any("gnutls" in line for line in
                       pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines())


def test_keys_are_in_no_log(server, authority, keys):
    use_keys(server, authority, keys)
    log = server.log().encode()
    assert b"CN=alice" in log and b"psk:bob" in log
    assert server.secrets.in_bytes(log) == set()
    assert b"PRIVATE" not in log


def test_no_other_process_has_a_file_of_keys_open(server, authority, keys):
    use_keys(server, authority, keys)
    (tls,) = server.pids("nbd-tls")
    for pid in {server.child.pid, *server.children()} - {tls}:
        for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                assert keys.name not in os.readlink(fd).split("/")


def test_keys_are_in_no_word_of_a_command_line_and_no_environment(server, authority, keys):
    for pid in {server.child.pid, *server.children()}:
        for name in ("cmdline", "environ"):
            told = pathlib.Path(f"/proc/{pid}/{name}").read_bytes()
            assert server.secrets.in_bytes(told) == set() and b"PRIVATE" not in told


@pytest.fixture
def core_files():
    """A limit under which the kernel would write core dumps."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard == 0:
        pytest.skip("core dumps are forbidden here")
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def test_nbd_tls_that_crashes_leaves_no_core(core_files, authority, keys, tmp_path, cleanup):
    if is_sanitized(PROGRAM):
        pytest.skip("a sanitizer takes the signal for itself")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "channel"))
        listener.listen()
        child = subprocess.Popen(
            ["sh", "-c", 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"', "sh", PROGRAM,
             f"--credentials={keys}"], cwd=tmp_path, stdin=subprocess.DEVNULL,
            stderr=(tmp_path / "log").open("wb"), preexec_fn=lambda: os.dup2(listener.fileno(), 3),
            close_fds=False)
    cleanup.callback(child.poll)
    wait_until(lambda: b"ready for TLS" in (tmp_path / "log").read_bytes(), "nbd-tls")
    child.send_signal(signal.SIGSEGV)
    _, status = os.waitpid(child.pid, 0)
    child.returncode = -os.WTERMSIG(status)
    assert os.WTERMSIG(status) == signal.SIGSEGV and not os.WCOREDUMP(status)


def test_what_makes_keys_tells_none(programs, tmp_path):
    """certtool gets paths, never a key; nor is one printed."""
    needs_program("strace")
    needs_program("certtool")
    trace = tmp_path / "trace"
    done = subprocess.run(
        ["strace", "-f", "-s", "4096", "-v", "-e", "trace=execve", "-o", trace, programs.nbdctl,
         "tls", "init", tmp_path / "tls", "--psk", "bob"], capture_output=True, timeout=PATIENCE,
        check=False, env=dict(os.environ, **SANITIZERS))
    if done.returncode and b"ptrace" in done.stderr:
        pytest.skip("strace may trace nothing here")
    assert done.returncode == 0, done.stderr
    made = Secrets(tmp_path / "tls")
    words = trace.read_bytes()
    assert b"--generate-privkey" in words
    assert made.in_bytes(words + done.stdout + done.stderr) == set()
