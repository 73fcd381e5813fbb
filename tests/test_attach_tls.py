# SPDX-License-Identifier: GPL-2.0-or-later
"""nbds:// for who attaches: nbd-tls is the client of a server with TLS, and the kernel, which
tests/attach-probe plays, gets the plain end."""

import os
import pathlib
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile

import pytest

from certificates import SERVER
from conftest import MIB, needs_root
from nbdwire import PATIENCE
from test_attach_handshake import ask
from tlsfixtures import put_keys
from tlschannel import FAILED, record_bytes

CONNECT = 18
SIZE = 4 * MIB


def connect_bytes(request, host, deadline=10000, peer=b"test:1"):
    body = struct.pack(">IIH", request, deadline, len(host)) + host
    return record_bytes(CONNECT, body + struct.pack(">H", len(peer)) + peer)


@pytest.fixture
def here(tmp_path, authority, start_tls):
    """here(pair): nbd-tls of the machine that attaches, with this certificate of its own."""

    def start(pair=None, ca=authority.certificate):
        folder = tmp_path / "client-keys"
        folder.mkdir()
        if ca:
            shutil.copy(ca, folder / "ca-cert.pem")
        if pair:
            shutil.copy(pair[0], folder / "client-cert.pem")
            shutil.copy(pair[1], folder / "client-key.pem")
            (folder / "client-key.pem").chmod(0o600)
        return start_tls(folder)

    return start


def probe(program, uri, connections=1):
    return ask(uri, connections, NBD_EXPORT_TLS_CHANNEL=str(program.path))


@pytest.fixture
def server(serve, file_disk, keys):
    return serve(f"db={file_disk(SIZE)}", listen="127.0.0.1:0", tls=keys, tls_required=True)


def test_an_address_is_a_name_that_a_certificate_can_have(server, here, authority):
    uri = re.search(r"nbds://127\.0\.0\.1\S+", server.output())[0]
    done = probe(here(authority.alice), uri)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("connections", [1, 4])
def test_a_device_is_attached_over_tls(server, here, authority, connections):
    program = here(authority.alice)
    done = probe(program, f"nbds+unix:///db?socket={server.socket}", connections)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == str(SIZE) and done.stdout.split()[-1] == str(connections)
    assert "TLS1.3" in program.text()


def test_a_server_that_wants_tls_says_so(server, here, authority):
    done = probe(here(authority.alice), f"nbd+unix:///db?socket={server.socket}")
    assert done.returncode == 1 and "use nbds://" in done.stderr


def test_a_server_without_tls_gets_no_byte_more(serve, file_disk, here, authority):
    plain = serve(f"db={file_disk(SIZE)}")
    done = probe(here(authority.alice), f"nbds+unix:///db?socket={plain.socket}")
    assert done.returncode == 1 and "the server has no TLS to offer" in done.stderr


def test_a_server_of_another_name_is_refused(server, here, authority):
    done = probe(here(authority.alice),
                 f"nbds+unix:///db?socket={server.socket}&tls-hostname=nbd.example")
    assert done.returncode == 1
    assert "certificate of the server nbd.example was refused" in done.stderr
    assert "name" in done.stderr.partition("refused")[2]


def test_a_server_that_nobody_vouches_for_is_refused(server, here, authority, tmp_path):
    other = tmp_path / "other-ca.pem"
    shutil.copy(authority.stranger[0], other)
    done = probe(here(None, ca=other), f"nbds+unix:///db?socket={server.socket}")
    assert done.returncode == 1 and "was refused" in done.stderr


def test_a_server_whose_certificate_expired_is_refused(serve, file_disk, here, authority, tmp_path):
    expired = authority.issue("expired-server", SERVER.replace(
        "expiration_days = 20\n", 'activation_date = "2020-01-01 00:00:00 UTC"\n'
                                  'expiration_date = "2021-01-01 00:00:00 UTC"\n'))
    folder = put_keys(tmp_path / "expired", authority, server_pair=expired)
    old = serve(f"db={file_disk(SIZE)}", tls=folder)
    done = probe(here(authority.alice), f"nbds+unix:///db?socket={old.socket}")
    assert done.returncode == 1 and "expired" in done.stderr


@pytest.mark.parametrize("pair", [None, "expired", "mallory"])
def test_who_cannot_show_who_it_is_is_not_let_in(server, here, authority, pair):
    done = probe(here(pair and getattr(authority, pair)),
                 f"nbds+unix:///db?socket={server.socket}")
    assert done.returncode == 1 and done.stderr.count("\n") == 1


def test_without_nbd_tls_it_is_said_how_to_get_it(server, tmp_path):
    done = ask(f"nbds+unix:///db?socket={server.socket}",
               NBD_EXPORT_TLS_CHANNEL=str(tmp_path / "nothing"))
    assert done.returncode == 1 and "systemctl start nbd-tls.socket" in done.stderr


def test_without_a_ca_nothing_is_trusted(server, start_tls, authority, tmp_path):
    folder = put_keys(tmp_path / "no-ca", authority, server=False)     # pre-shared keys alone
    done = probe(start_tls(folder), f"nbds+unix:///db?socket={server.socket}")
    assert done.returncode == 1 and "no ca-cert.pem" in done.stderr


def test_an_end_of_the_server_during_the_handshake_is_told(here, authority, tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(1)
        program = here(authority.alice)
        channel = program.channel()
        ours = socket.socket(socket.AF_UNIX)
        ours.connect(str(tmp_path / "s"))
        theirs, _ = listener.accept()
        channel.send(connect_bytes(7, b"localhost"), [ours.fileno()])
        ours.close()
        theirs.close()
        failed = channel.expect(FAILED, request=7)
        assert "during the TLS handshake" in failed.sentence


STRANGER = """
import array, socket, sys
channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
channel.settimeout(20)
channel.connect(sys.argv[1])
assert channel.recv(4096)[1] == 1
ours, _ = socket.socketpair()
channel.sendmsg([bytes.fromhex(sys.argv[2])],
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [ours.fileno()]))])
sys.exit(channel.recv(4096) != b"")
"""


def test_another_user_such_as_the_negotiators_may_not_connect_to_servers(authority, start_tls,
                                                                         cleanup):
    needs_root()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="nbd-", dir="/tmp"))
    cleanup.callback(shutil.rmtree, folder)
    folder.chmod(0o755)
    put_keys(folder / "keys", authority, psk=False)
    for path in (folder, folder / "keys", *(folder / "keys").iterdir()):
        os.chown(path, 65534, 65534)
    program = start_tls(folder / "keys", folder=folder / "program", user=65534)
    program.path.chmod(0o777)
    words = [sys.executable, "-c", STRANGER, program.path, connect_bytes(7, b"localhost").hex()]
    done = subprocess.run(words, user=65533, group=65533, extra_groups=[], check=False,
                          capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    program.logged("only root may connect to servers")
