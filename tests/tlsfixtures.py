# SPDX-License-Identifier: GPL-2.0-or-later
"""Keys for every test of TLS, made once, and nbd-tls alone."""

import os
import re
import resource
import shutil
import signal
import socket
import ssl
import subprocess

import pytest

from certificates import SERVER, Authority, day
from conftest import BUILD, SANITIZERS, complaints, needs_program, wait_until
from nbdwire import OPT_STARTTLS, PATIENCE
from tlschannel import HELLO, Channel

PROGRAM = BUILD / "daemon/tls/nbd-tls"
PSK_KEY = "5d" * 32


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """A CA, and everything that it has signed."""
    needs_program("certtool")
    ca = Authority(tmp_path_factory.mktemp("ca"))
    ca.server = ca.issue("server", SERVER)
    ca.alice = ca.client("alice", "expiration_days = 20\nemail = alice@example.org\n"
                         "dns_name = alice.example.org\nuri = spiffe://example.org/alice\n"
                         "ip_address = 192.0.2.7\n")
    ca.expired = ca.client("expired", f'activation_date = "{day(-20)}"\n'
                           f'expiration_date = "{day(-10)}"\n')
    ca.early = ca.client("early", f'activation_date = "{day(10)}"\n'
                         f'expiration_date = "{day(20)}"\n')
    ca.purposeless = ca.client("purposeless", purpose="tls_www_server\nsigning_key\n")
    ca.mallory = ca.client("mallory")
    ca.crl = ca.revoke(ca.mallory[0])
    other = Authority(tmp_path_factory.mktemp("other"))
    ca.stranger = other.client("stranger")
    return ca


def put_keys(folder, authority, psk=True, server=True, server_pair=None):
    """The files that nbd-tls reads."""
    folder.mkdir(exist_ok=True)
    cert, key = server_pair or authority.server
    if server:
        shutil.copy(cert, folder / "server-cert.pem")
        shutil.copy(key, folder / "server-key.pem")
        (folder / "server-key.pem").chmod(0o600)
        shutil.copy(authority.certificate, folder / "ca-cert.pem")
        shutil.copy(authority.crl, folder / "ca-crl.pem")
    if psk:
        (folder / "psk.keys").write_text(f"bob:{PSK_KEY}\nhost 2:{'a7' * 32}\n")
        (folder / "psk.keys").chmod(0o600)
    return folder


class Program:
    """A running nbd-tls."""

    def __init__(self, folder, credentials, *arguments, soft_limit=None, user=None):
        self.folder = folder
        self.path = folder / "channel"
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.settimeout(PATIENCE)
        self.notify.bind(str(folder / "notify"))
        (folder / "notify").chmod(0o777)
        self.log = folder / "log"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(str(self.path))
        listener.listen(16)

        def prepare():
            os.dup2(listener.fileno(), 3)
            if soft_limit:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft_limit, soft_limit))
            if user:
                os.setgroups([])
                os.setresgid(user, user, user)
                os.setresuid(user, user, user)

        env = dict(os.environ, **SANITIZERS, LISTEN_FDS="1",
                   NOTIFY_SOCKET=str(folder / "notify"))
        env.pop("CREDENTIALS_DIRECTORY", None)
        with listener, self.log.open("wb") as log:
            self.child = subprocess.Popen(
                ["sh", "-c", 'LISTEN_PID=$$ exec "$@"', "sh", PROGRAM,
                 f"--credentials={credentials}", *arguments],
                env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=prepare,
                close_fds=False)

    def told(self, wanted):
        """The next notification that has this line's beginning; also of what came meanwhile."""
        while True:
            text = self.notify.recv(4096).decode()
            if wanted in text:
                return text

    def ready(self):
        try:
            self.status = self.told("READY=1")
        except TimeoutError:
            pytest.fail(f"not ready: {self.text()}")
        return self

    def channel(self):
        channel = Channel(self.path)
        channel.hello = channel.expect(HELLO)
        return channel

    def text(self):
        return self.log.read_text()

    def logged(self, pattern):
        return wait_until(lambda: re.search(pattern, self.text()), f"{pattern!r} in the log")

    def stop(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
        status = self.child.wait(PATIENCE)
        self.notify.close()
        assert not complaints(self.text()), self.text()
        return status


@pytest.fixture
def start_tls(tmp_path, cleanup):
    """start_tls(credentials, ...): a running nbd-tls that ends well."""
    assert os.access(PROGRAM, os.X_OK), f"{PROGRAM} is not built"

    def go(credentials, *arguments, folder=None, **options):
        folder = folder or tmp_path / f"program-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        program = Program(folder, credentials, *arguments, **options)

        def stop():
            assert program.stop() == 0, program.text()

        cleanup.callback(stop)
        return program.ready()

    return go


def context(authority, pair=None, version=None):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.load_verify_locations(authority.certificate)
    if pair:
        c.load_cert_chain(*pair)
    if version:
        c.minimum_version = c.maximum_version = version
    return c


@pytest.fixture
def keys(tmp_path, authority):
    """A folder with all of them."""
    return put_keys(tmp_path / "keys", authority)


def starttls(client, tls):
    """A client in the handshake (nbdwire.Options) goes on by TLS."""
    client.must(OPT_STARTTLS)
    return wrap(client, tls)


def wrap(client, tls):
    client.sock = tls.wrap_socket(client.sock, server_hostname="localhost")
    return client
