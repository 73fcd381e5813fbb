# SPDX-License-Identifier: GPL-2.0-or-later
"""TLS from end to end: `nbdctl serve --tls`, and QEMU's and libnbd's clients."""

import hashlib
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import urllib.parse

import pytest

import nbdwire as wire
from conftest import MIB, needs_program, pattern, wait_until
from nbdwire import PATIENCE, Client, Closed
from test_clients import debian13, debian13_root  # noqa: F401  (fixtures)
from tlsfixtures import PSK_KEY, context, put_keys, starttls

SIZE = 16 * MIB


@pytest.fixture(scope="session")
def for_clients(authority, tmp_path_factory):
    """for_clients[NAME]: a folder as QEMU and libnbd want it, with this client's files."""
    folders = {}
    for name in ("alice", "mallory", "stranger", "expired"):
        folder = tmp_path_factory.mktemp(name)
        cert, key = getattr(authority, name)
        shutil.copy(cert, folder / "client-cert.pem")
        shutil.copy(key, folder / "client-key.pem")
        shutil.copy(authority.certificate, folder / "ca-cert.pem")
        folders[name] = folder
    folders["psk"] = tmp_path_factory.mktemp("psk")
    (folders["psk"] / "keys.psk").write_text(f"bob:{PSK_KEY}\n")
    folders["wrong psk"] = tmp_path_factory.mktemp("wrong-psk")
    (folders["wrong psk"] / "keys.psk").write_text(f"bob:{'00' * 32}\n")
    folders["eve"] = tmp_path_factory.mktemp("eve")
    (folders["eve"] / "keys.psk").write_text(f"eve:{PSK_KEY}\n")
    return folders


@pytest.fixture
def server(serve, file_disk, keys):
    """One disk, by TCP and by a unix socket; TLS is required."""
    server = serve(f"disk={file_disk(SIZE)}", listen="127.0.0.1:0", tls=keys, tls_required=True)
    server.port = int(re.search(r"nbds://127\.0\.0\.1:(\d+)", server.output())[1])
    return server


def run(*command, good=True):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          timeout=PATIENCE * 3, check=False, stdin=subprocess.DEVNULL)
    assert (done.returncode == 0) == good, f"{command}: {done.stderr or done.stdout}"
    return done.stdout if good else done.stderr


# URIs and addresses


def uri(server, way, folder, user=None):
    """The export's URI for libnbd."""
    query = (f"tls-psk-file={folder / 'keys.psk'}" if user else f"tls-certificates={folder}")
    at = f"{user}@" if user else ""
    if way == "tcp":
        return f"nbds://{at}localhost:{server.port}/disk?{query}"
    socket = urllib.parse.quote(str(server.socket))
    return f"nbds+unix://{at}/disk?socket={socket}&{query}"


def qemu(server, way, folder, user=None):
    """The words that tell QEMU's tools where it is."""
    kind = f"psk,username={user}" if user else "x509,verify-peer=on"
    place = (f"host=localhost,port={server.port}" if way == "tcp"
             else f"path={server.socket},tls-hostname=localhost")
    return ["--object", f"tls-creds-{kind},id=tls,endpoint=client,dir={folder}", "--image-opts",
            f"driver=nbd,{place},export=disk,tls-creds=tls"]


WAYS = pytest.mark.parametrize("way", ["tcp", "unix"])
METHODS = pytest.mark.parametrize("who, user", [("alice", None), ("psk", "bob")],
                                  ids=["x509", "psk"])


# Clients ------------------------------------------------------------------------------------


@WAYS
@METHODS
def test_libnbd_copies_there_and_back(server, for_clients, tmp_path, way, who, user):
    needs_program("nbdcopy")
    there = uri(server, way, for_clients[who], user)
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(pattern(SIZE, 3))
    run("nbdcopy", source, there)
    run("nbdcopy", there, back)
    assert back.read_bytes() == source.read_bytes()
    told = json.loads(run("nbdinfo", "--json", there))
    assert told["TLS"] is True and told["exports"][0]["export-size"] == SIZE


@WAYS
@METHODS
def test_qemu_reads_writes_and_maps(server, for_clients, tmp_path, way, who, user):
    needs_program("qemu-io")
    words = qemu(server, way, for_clients[who], user)
    run("qemu-io", *words, "-c", "write -P 0x5a 1M 4M", "-c", "flush", "-c",
        "read -P 0x5a 1M 4M", "-c", "read -P 0 5M 1M", "-c", "write -z 2M 64k")
    run("qemu-img", "convert", *words, "-O", "raw", tmp_path / "back")
    content = (tmp_path / "back").read_bytes()
    assert content[MIB:2 * MIB] == b"\x5a" * MIB and content[2 * MIB:2 * MIB + 65536] == \
        bytes(65536)
    extents = json.loads(run("qemu-img", "map", "--output=json", *words))
    assert sum(extent["length"] for extent in extents) == SIZE


@METHODS
def test_clients_of_debian_13_work_as_well(server, for_clients, debian13, who, user):  # noqa: F811
    """With extended headers, which libnbd 1.22 and QEMU 10 have."""
    keys = debian13.folder / "keys"
    shutil.copytree(for_clients[who], keys)
    (debian13.folder / "source").write_bytes(pattern(SIZE, 5))
    folder, source, back = (debian13.inside(debian13.folder / name)
                            for name in ("keys", "source", "back"))
    query = f"tls-psk-file={folder}/keys.psk" if user else f"tls-certificates={folder}"
    there = f"nbds://{user + '@' if user else ''}127.0.0.1:{server.port}/disk?{query}"
    debian13.run("nbdcopy", source, there)
    told = json.loads(debian13.run("nbdinfo", "--json", there))
    assert told["TLS"] is True and told["structured"] is True
    kind = f"psk,username={user}" if user else "x509"
    debian13.run("qemu-img", "convert", "--object",
                 f"tls-creds-{kind},id=tls,endpoint=client,dir={folder}", "--image-opts",
                 f"driver=nbd,host=127.0.0.1,port={server.port},export=disk,tls-creds=tls", "-O",
                 "raw", back)
    assert (debian13.folder / "back").read_bytes() == pattern(SIZE, 5)
    assert "(extended, TLS1.3" in server.log()


@pytest.mark.parametrize("who, user", [("mallory", None), ("stranger", None), ("expired", None),
                                       ("wrong psk", "bob"), ("eve", "eve")])
def test_clients_with_bad_credentials_are_refused(server, for_clients, who, user):
    needs_program("qemu-img")
    run("qemu-img", "info", *qemu(server, "tcp", for_clients[who], user), good=False)
    run("nbdinfo", uri(server, "tcp", for_clients[who], user), good=False)
    server.wait_for_log("tls-untrusted")


def test_clients_in_clear_are_told_what_to_do(server):
    needs_program("qemu-img")
    said = run("qemu-img", "info", f"nbd://127.0.0.1:{server.port}/disk", good=False)
    assert "TLS" in said
    run("nbdinfo", f"nbd://127.0.0.1:{server.port}/disk", good=False)


def test_a_client_notices_a_server_with_another_certificate(server, for_clients, authority,
                                                            tmp_path):
    """It is the client's part, and fails where the name or the CA is another's."""
    needs_program("nbdinfo")
    words = qemu(server, "tcp", for_clients["alice"])
    run("qemu-img", "info", *[word.replace("host=localhost", "host=127.0.0.2") for word in words],
        good=False)
    strange = tmp_path / "strange"
    shutil.copytree(for_clients["alice"], strange)
    shutil.copy(for_clients["stranger"] / "client-cert.pem", strange / "ca-cert.pem")
    run("nbdinfo", uri(server, "tcp", strange), good=False)


@pytest.mark.parametrize("required", [True, False])
def test_addresses_are_printed_as_clients_have_to_use_them(serve, file_disk, keys, required):
    server = serve(f"disk={file_disk()}", listen="127.0.0.1:0", tls=keys, tls_required=required)
    schemes = re.findall(r"^serving disk at ([a-z+]+):", server.output(), re.M)
    in_clear = [] if required else ["nbd", "nbd+unix"]
    assert sorted(schemes) == sorted([*in_clear, "nbds", "nbds+unix"])


def test_exports_of_a_folder_have_their_own_rules(serve, file_disk, keys, authority, tmp_path):
    disk = file_disk(SIZE)
    folder = tmp_path / "exports"
    folder.mkdir()
    for name, lines in {"open": "", "inside": "TLS=require\nIdentity=read dn:CN=alice,O=Test",
                        "clear": "TLS=off"}.items():
        (folder / f"{name}.conf").write_text(
            f"[Export]\nDevice={disk}\nReadOnly=yes\nShared=yes\n{lines}\n")
    server = serve(config=folder, tls=keys)
    assert {name: sorted({uri.split(":")[0] for uri in uris})
            for name, uris in server.uris.items()} == {"open": ["nbd+unix"], "clear": ["nbd+unix"]}
    assert set(re.findall(r"^serving (\w+) at nbds", server.output(), re.M)) == {"open", "inside"}
    assert server.options().list() == [(b"clear", b""), (b"open", b"")]
    secure = starttls(server.options(), context(authority, authority.alice))
    assert secure.list() == [(b"inside", b""), (b"open", b"")]
    without = serve(config=folder)
    assert "inside is for clients with TLS (TLS=require), which there is only with --tls" in \
        without.log()


# A whole server ------------------------------------------------------------------------------


def secure_client(server, authority, pair="alice", mode=wire.EXTENDED):
    """A connection in the transmission phase, by TLS."""
    options = server.options()
    starttls(options, context(authority, getattr(authority, pair)))
    options.enter_mode(mode)
    options.go("disk", [wire.INFO_BLOCK_SIZE])
    return server.closing(Client.over(options, mode))


def test_much_data_comes_through_unchanged(serve, file_disk, keys, authority, counts):
    """In both directions, with many requests in flight, and compared at the end."""
    size = counts(64, 1024) * MIB
    path = file_disk(size)
    server = serve(f"disk={path}", tls=keys, tls_required=True)
    client = secure_client(server, authority)
    digest = hashlib.sha256()
    for at in range(0, size, MIB):
        data = pattern(MIB, at // MIB)
        digest.update(data)
        client.write(at, data)
    client.flush()
    assert hashlib.sha256(path.read_bytes()).digest() == digest.digest()
    again = hashlib.sha256()
    for at in range(0, size, MIB):
        again.update(client.read(at, MIB))
    assert again.digest() == digest.digest()


def test_nbdctl_clients_shows_who_uses_tls_and_how(server, programs, authority):
    secure_client(server, authority)
    runtime = next(server.runtime.iterdir())
    rows = json.loads(run(programs.nbdctl, "clients", "--json", "--runtime", runtime))["clients"]
    (row,) = rows
    assert row["identity"] == "dn:CN=alice,O=Test"
    assert re.fullmatch(r"TLS1\.3 TLS_[A-Z0-9_]+", row["tls"])
    assert row["address"].startswith("unix:")
    wait_until(lambda: re.search(r"connection 1 begins \(extended, TLS1\.3 TLS_\S+, "
                                 r"dn:CN=alice,O=Test\)", server.log()), "the export's entry")


def test_when_nbd_tls_dies_its_clients_go_and_others_stay(serve, file_disk, keys, authority):
    server = serve(f"disk={file_disk(SIZE)}", tls=keys)
    clear = server.client("disk")
    secure = secure_client(server, authority)
    assert secure.read(0, 512) == bytes(512)
    server.lossy = True
    (pid,) = server.pids("nbd-tls")
    os.kill(pid, signal.SIGKILL)
    with pytest.raises((OSError, Closed)):
        secure.read(0, 512)
    server.wait_for_log("nbd-tls was killed by SIGKILL; clients that used TLS are gone")
    assert clear.read(0, 512) == bytes(512)
    assert secure_client(server, authority).read(0, 512) == bytes(512)


def test_when_the_negotiator_dies_clients_with_tls_stay(server, authority):
    secure = secure_client(server, authority)
    assert secure.read(0, 512) == bytes(512)        # it has been handed over
    server.lossy = True
    (pid,) = server.pids("nbd-negotiator")
    os.kill(pid, signal.SIGKILL)
    server.wait_for_log("nbd-negotiator was killed by SIGKILL")
    assert secure.read(0, 512) == bytes(512)
    assert secure_client(server, authority).read(0, 512) == bytes(512)
    assert secure.read(512, 512) == bytes(512)


def test_a_stop_delivers_what_clients_were_promised(serve, file_disk, keys, authority):
    """nbd-tls outlives the exports, so that their last replies get through; what an export had not
    read yet is not answered, and the end is close_notify."""
    path = file_disk(SIZE)
    server = serve(f"disk={path}", tls=keys, tls_required=True)
    client = secure_client(server, authority)
    client.sock.suppress_ragged_eofs = False
    cookies = [client.send_write(at, pattern(MIB)) for at in range(0, 8 * MIB, MIB)]
    client.wait(cookies[0])
    server.lossy = True
    server.child.terminate()
    for i, cookie in enumerate(cookies[1:], 1):
        try:
            reply = client.wait(cookie)
        except Closed:
            break
        assert reply.error or path.read_bytes()[i * MIB:(i + 1) * MIB] == pattern(MIB)
    assert client.sock.recv(1) == b"", "the end is not TLS's"


def test_keys_are_replaced_while_clients_are_there(serve, file_disk, keys, authority):
    server = serve(f"disk={file_disk(SIZE)}", tls=keys, tls_required=True)
    secure = secure_client(server, authority)
    shutil.copy(authority.revoke(authority.mallory[0], authority.alice[0]), keys / "ca-crl.pem")
    try:
        (pid,) = server.pids("nbd-tls")
        os.kill(pid, signal.SIGHUP)
        server.wait_for_log("keys were read again")
        assert secure.read(0, 512) == bytes(512)
        with pytest.raises((OSError, Closed)):
            secure_client(server, authority)
        server.wait_for_log("revoked")
    finally:
        authority.crl = authority.revoke(authority.mallory[0])


def test_only_a_server_that_can_use_its_keys_starts(refused, file_disk, keys, tmp_path):
    (keys / "server-key.pem").write_text("nonsense")
    assert "nbd-tls" in refused(f"disk={file_disk()}", tls=keys)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "there are no keys" in refused(f"disk={file_disk()}", tls=empty)
    assert "--tls-required" in refused(f"disk={file_disk()}", statuses=(2,), tls_required=True)


@pytest.mark.parametrize("ca", [True, False], ids=["with a CA", "without"])
def test_other_machines_may_come_by_tls_with_a_certificate_and_not_without(
        serve, file_disk, authority, tmp_path, ca):
    keys = put_keys(tmp_path / "keys", authority, psk=False)
    if not ca:
        (keys / "ca-cert.pem").unlink()
        (keys / "ca-crl.pem").unlink()
    server = serve(f"disk={file_disk()}", listen="0.0.0.0:0", tls=keys, tls_required=True)
    port = int(re.search(r"nbds://[^/]*:(\d+)", server.output())[1])

    def come(pair):
        options = server.closing(wire.Options(("127.0.0.1", port)))
        return starttls(options, context(authority, pair)).list()

    with pytest.raises((OSError, Closed, ssl.SSLError)):
        come(None)
    if ca:
        assert come(authority.alice) == [(b"disk", b"")]
    else:
        with pytest.raises((OSError, Closed, ssl.SSLError)):
            come(authority.alice)
