# SPDX-License-Identifier: GPL-2.0-or-later
"""nbdctl tls: what it makes, and what it finds wrong."""

import json
import os
import re
import shutil
import stat

import pytest

from certificates import SERVER, Authority, certtool, day
from conftest import needs_program, run
from nbdwire import PATIENCE
from nbdctl import ctl, short_folder  # noqa: F401
from test_tls_relay import attempt, connect
from tlschannel import REQUIRED
from tlsfixtures import PSK_KEY, context

CERTIFICATE_FILES = ["ca-cert.pem", "client-cert.pem", "client-key.pem"]


@pytest.fixture
def tls(ctl, tmp_path):  # noqa: F811
    """tls(verb, ...) → `nbdctl tls VERB`, finished."""
    needs_program("certtool")
    return lambda verb, *words, **how: ctl(f"tls {verb}", *words, **how)


@pytest.fixture
def site(tls, tmp_path):
    """A folder of keys, made by `nbdctl tls init`; the CA is beside it."""
    folder = tmp_path / "tls"
    tls("init", folder, "--client", "alice", "--psk", "bob", "--host", "storage1",
        "--host", "127.0.0.1")
    return folder


def ca_of(folder):
    return folder.with_name(folder.name + "-ca")


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# init ----------------------------------------------------------------------------


def test_init_makes_a_ca_a_server_and_clients(site, tls):
    assert names(site) == ["ca-cert.pem", "psk.keys", "server-cert.pem", "server-key.pem"]
    assert names(ca_of(site)) == [".lock", "ca-cert.pem", "ca-key.pem", "clients",
                                   "issued"]
    assert names(ca_of(site) / "clients/alice") == CERTIFICATE_FILES
    assert names(ca_of(site) / "clients/bob") == ["keys.psk"]
    assert (site / "psk.keys").read_text() == (ca_of(site) / "clients/bob/keys.psk").read_text()
    tls("check", site, "--host", "storage1", "--host", "127.0.0.1")


def test_secrets_are_for_their_owner_alone(site):
    secrets = [*site.parent.rglob("*-key.pem"), *site.parent.rglob("*psk*")]
    assert len(secrets) == 5
    assert {mode(path) for path in secrets} == {0o600}
    folders = [site, ca_of(site), *(ca_of(site) / "clients").iterdir()]
    assert {mode(path) for path in folders} == {0o700}
    assert mode(site / "server-cert.pem") == 0o644


def test_init_tells_what_it_made_and_what_is_next(tls, tmp_path):
    said = tls("init", tmp_path / "tls", "--client", "alice", "--psk", "bob").stdout
    for words in ("tls-ca\n", "ca-key.pem", "offline", "clients/alice\n", "clients/bob\n",
                  "nbdctl tls check", "localhost", "tls-creds-x509", "tls-psk-file"):
        assert words in said
    assert "PRIVATE" not in said and not re.search("[0-9a-f]{64}", said)


def test_init_refuses_to_overwrite(site, tls):
    before = {path: path.read_bytes() for path in site.parent.rglob("*") if path.is_file()}
    assert "--replace" in tls("init", site, status=1).stderr
    assert "--replace" in tls("client", "alice", site, status=1).stderr
    assert "--replace" in tls("client", "bob", site, "--psk", status=1).stderr
    assert before == {path: path.read_bytes() for path in site.parent.rglob("*") if path.is_file()}


def test_replace_renews_the_server_by_the_same_ca(site, tls):
    ca, cert = (site / "ca-cert.pem").read_bytes(), (site / "server-cert.pem").read_bytes()
    said = tls("init", site, "--replace", "--host", "storage2").stdout
    assert "which was there" in said
    assert (site / "ca-cert.pem").read_bytes() == ca
    assert (site / "server-cert.pem").read_bytes() != cert
    tls("check", site, "--host", "storage2")
    assert "not for storage1" in tls("check", site, "--host", "storage1", status=1).stdout


def test_no_second_ca_is_made_where_the_key_of_the_first_is_offline(site, tls):
    (ca_of(site) / "ca-key.pem").rename(site.parent / "elsewhere")
    for words in (("init", site, "--replace"), ("client", "carol", site)):
        assert "--ca" in tls(*words, status=1).stderr
    ca_of(site).rename(site.parent / "offline")
    assert "--ca" in tls("init", site, "--replace", status=1).stderr
    (site.parent / "elsewhere").rename(site.parent / "offline/ca-key.pem")
    tls("init", site, "--replace", "--ca", site.parent / "offline")
    tls("check", site)


def test_without_certtool_the_package_is_named_and_nothing_is_left(tls, tmp_path):
    done = tls("init", tmp_path / "tls", status=1, env={"PATH": str(tmp_path)})
    assert "gnutls-bin" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [
    ["--client", "../alice"], ["--client", "al ice"], ["--client", "a\nca"], ["--client", ""],
    ["--psk", "a:b"], ["--psk", "#a"], ["--host", "a b"], ["--host", 'a"'], ["--host", "-a"],
    ["--days", "0"], ["--days", "many"], ["--client", "x" * 64],
])
def test_names_that_would_mean_something_else_are_refused(tls, tmp_path, words):
    tls("init", tmp_path / "tls", *words, status=2)
    assert list(tmp_path.iterdir()) == []


def test_the_ca_does_not_lie_where_the_server_looks(tls, tmp_path):
    assert "folder of the CA" in tls("init", tmp_path / "tls", "--ca", tmp_path / "tls",
                                     status=2).stderr


def test_keys_are_for_the_names_that_were_asked_for(site, tls):
    tls("client", "carol", site, "--psk")
    tls("client", "bob", site, "--psk", "--replace")
    lines = (site / "psk.keys").read_text().splitlines()
    assert sorted(line.split(":")[0] for line in lines) == ["bob", "carol"]
    assert all(re.fullmatch(r"\w+:[0-9a-f]{64}", line) for line in lines)
    assert (ca_of(site) / "clients/bob/keys.psk").read_text().strip() in lines


# What is made, in use --------------------------------------------------------------


class Issued:
    """As the other tests know an authority."""

    def __init__(self, folder, clients=None):
        self.certificate = ca_of(folder) / "ca-cert.pem"
        self.folder = clients or ca_of(folder) / "clients"
        self.folder.mkdir(exist_ok=True)

    def pair(self, name):
        return self.folder / name / "client-cert.pem", self.folder / name / "client-key.pem"


def test_nbd_tls_knows_the_clients_that_were_made(site, tls, start_tls):
    tls("client", "carol", site)
    issued = Issued(site)
    channel = start_tls(site).channel()
    for name in ("alice", "carol"):
        client, record, plain = connect(channel, context_for(issued, name), certificate=REQUIRED)
        client.close()
        plain.close()
        assert record.subject == f"CN={name}"
        channel.recv()
    channel.close()


def context_for(issued, name):
    made = context(issued, issued.pair(name))
    made.check_hostname = False         # it connects to what the test calls localhost
    return made


def test_a_client_that_was_revoked_is_refused(site, tls, start_tls, tmp_path):
    """Its files may be with the client by then; and it may have got some twice."""
    for name in ("carol", "dave", "erin"):
        tls("client", name, site)
    issued = Issued(site, tmp_path / "moved")
    for name in ("carol", "dave", "erin"):
        (ca_of(site) / "clients" / name).rename(issued.folder / name)
    tls("client", "dave", site, status=1)
    tls("client", "dave", site, "--replace")
    shutil.copytree(ca_of(site) / "clients/dave", issued.folder / "dave again")
    tls("revoke", "carol", site)
    tls("revoke", "dave", site)
    assert names(ca_of(site) / "clients/dave") == ["ca-cert.pem"]
    tls("revoke", "dave", site, status=1)
    tls("client", "dave", site)             # a new one, which is good
    channel = start_tls(site).channel()
    for name in ("carol", "dave", "dave again"):
        assert "revoked" in attempt(channel, context_for(issued, name),
                                    certificate=REQUIRED).sentence.lower()
    for folder, name in ((issued, "erin"), (Issued(site), "dave")):
        client, _, plain = connect(channel, context_for(folder, name), certificate=REQUIRED)
        client.close()
        plain.close()
        channel.recv()
    channel.close()


def test_of_changes_at_the_same_time_none_is_lost(site, tls, ctl):  # noqa: F811
    clients = [f"client{i}" for i in range(8)]

    def at_once(*words):
        started = [ctl.start("tls " + word[0], *word[1:]) for word in words]
        for child in started:
            _, why = child.communicate(timeout=PATIENCE)
            assert child.returncode == 0, why

    at_once(*(("client", name, site) for name in clients),
            *(("client", f"key{i}", site, "--psk") for i in range(8)))
    lines = (site / "psk.keys").read_text().splitlines()
    assert {line.split(":")[0] for line in lines} == {"bob", *(f"key{i}" for i in range(8))}
    at_once(*(("revoke", name, site) for name in clients))
    told = run("certtool", "--crl-info", "--infile", site / "ca-crl.pem")
    assert "Revoked certificates (8)" in told


def test_revoking_takes_a_key_away(site, tls):
    tls("client", "carol", site, "--psk")
    tls("revoke", "bob", site)
    assert [line.split(":")[0] for line in (site / "psk.keys").read_text().splitlines()] == ["carol"]
    assert "neither" in tls("revoke", "nobody", site, status=1).stderr


def test_revoking_leaves_the_key_of_a_longer_name(site, tls):
    """What stands before an identity's colon may be the name of another."""
    keys = site / "psk.keys"
    longer = f"site:alice:{PSK_KEY}\n"
    keys.write_text(longer)
    assert "neither" in tls("revoke", "site", site, status=1).stderr
    assert keys.read_text() == longer
    tls("client", "site", site, "--psk")
    assert keys.read_text().startswith(longer + "site:")
    tls("revoke", "site", site)
    assert keys.read_text() == longer


def test_qemu_and_libnbd_find_a_clients_files(site, tmp_path, cleanup, file_disk):
    """By their own names; the server is QEMU's, which looks for the same names as ours."""
    needs_program("qemu-nbd")
    server, client = tmp_path / "copy", ca_of(site) / "clients/alice"
    shutil.copytree(site, server)
    path, pid = tmp_path / "nbd", tmp_path / "pid"
    run("qemu-nbd", "--fork", "--persistent", f"--pid-file={pid}", f"--socket={path}", "-f", "raw",
        "--object", f"tls-creds-x509,id=t,endpoint=server,dir={server},verify-peer=yes",
        "--tls-creds=t", "-x", "disk", file_disk(1 << 20))
    cleanup.callback(lambda: os.kill(int(pid.read_text()), 15))
    told = run("qemu-img", "info", "--object",
               f"tls-creds-x509,id=t,endpoint=client,dir={client}", "--image-opts",
               f"driver=nbd,path={path},export=disk,tls-creds=t,tls-hostname=storage1")
    assert "1 MiB" in told
    needs_program("nbdinfo")
    uri = f"nbds+unix:///disk?socket={path}&tls-certificates={client}"
    assert run("nbdinfo", "--size", uri) == str(1 << 20)


# check ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    """Authorities, and all that can be wrong with what they have signed."""
    needs_program("certtool")
    made = Authority(tmp_path_factory.mktemp("files"))
    made.server = made.issue("server", SERVER)
    made.other = Authority(tmp_path_factory.mktemp("files-other"))
    made.other.template("ca", "cn = Another CA\nca\ncert_signing_key\nexpiration_days = 90\n")
    certtool("--generate-self-signed", "--load-privkey", made.other.path("ca-key.pem"),
             "--template", made.other.path("ca.template"), "--outfile", made.other.certificate)
    made.namesake = Authority(tmp_path_factory.mktemp("files-namesake"))
    made.crl = made.revoke(made.client("mallory")[0])
    return made


@pytest.fixture
def good(ca, tmp_path):
    """A folder in which nothing is wrong."""
    folder = tmp_path / "good"
    folder.mkdir(mode=0o700)
    put_server(folder, ca.issue("long", server_for("expiration_days = 90\n")))
    long_ca(ca, folder)
    (folder / "psk.keys").write_text(f"bob:{PSK_KEY}\n")
    (folder / "psk.keys").chmod(0o600)
    return folder


def server_for(dates, purpose="tls_www_server\n"):
    return f"cn = server\ndns_name = storage1\nip_address = 192.0.2.7\n{purpose}{dates}"


def put_server(folder, pair):
    shutil.copy(pair[0], folder / "server-cert.pem")
    shutil.copy(pair[1], folder / "server-key.pem")
    (folder / "server-key.pem").chmod(0o600)


def long_ca(ca, folder):
    """The same CA, and a list of it, but for longer."""
    ca.template("long-ca", "cn = Test CA\nca\ncert_signing_key\ncrl_signing_key\n"
                "expiration_days = 90\n")
    certtool("--generate-self-signed", "--load-privkey", ca.path("ca-key.pem"),
             "--template", ca.path("long-ca.template"), "--outfile", folder / "ca-cert.pem")
    put_crl(ca, folder, "crl_next_update = 90\n")


def put_crl(ca, folder, dates):
    ca.template("some-crl", f"{dates}crl_number = 1\n")
    certtool("--generate-crl", "--load-ca-certificate", ca.certificate,
             "--load-ca-privkey", ca.path("ca-key.pem"),
             "--load-certificate", ca.path("mallory-cert.pem"),
             "--template", ca.path("some-crl.template"), "--outfile", folder / "ca-crl.pem")


def dated(begin, end):
    return f'activation_date = "{day(begin)}"\nexpiration_date = "{day(end)}"\n'


def spoil_chain(folder, ca):
    with (folder / "server-cert.pem").open("ab") as out:
        out.write(ca.other.certificate.read_bytes())


def spoil_ca_date(folder, ca):
    ca.template("old-ca", "cn = Test CA\nca\ncert_signing_key\n" + dated(-20, -1))
    certtool("--generate-self-signed", "--load-privkey", ca.path("ca-key.pem"),
             "--template", ca.path("old-ca.template"), "--outfile", folder / "ca-cert.pem")


def encrypt_key(folder, ca):
    certtool("--to-p8", "--load-privkey", ca.path("long-key.pem"), "--password=secret",
             "--outfile", folder / "server-key.pem")
    (folder / "server-key.pem").chmod(0o600)


def spoil_server(dates="expiration_days = 90\n", **how):
    return lambda folder, ca: put_server(folder, ca.issue("bad", server_for(dates, **how)))


def without(*gone):
    return lambda folder, ca: [(folder / name).unlink() for name in gone]


def text(name, content):
    return lambda folder, ca: (folder / name).write_text(content)


SPOILED = {
    "expired": (spoil_server(dated(-20, -10)), "server-cert.pem", "bad", "expired on"),
    "not yet valid": (spoil_server(dated(10, 90)), "server-cert.pem", "bad", "not valid before"),
    "expires soon": (spoil_server(dated(-1, 29)), "server-cert.pem", "soon", "it expires on"),
    "wrong purpose": (spoil_server(purpose="tls_www_client\n"), "server-cert.pem", "bad",
                      "not for servers"),
    "key of another": (lambda f, ca: shutil.copy(ca.server[1], f / "server-key.pem"),
                       "server-key.pem", "bad", "not the key of the certificate"),
    "key with a password": (encrypt_key, "server-key.pem", "bad", "password"),
    "key that others read": (lambda f, ca: (f / "server-key.pem").chmod(0o640),
                             "server-key.pem", "bad", "chmod"),
    "no key": (without("server-key.pem"), "server-key.pem", "bad", "not there"),
    "no certificate": (without("server-cert.pem"), "server-cert.pem", "bad", "not there"),
    "no PEM": (text("server-cert.pem", "nonsense"), "server-cert.pem", "bad", "no certificates"),
    "wrong chain": (spoil_chain, "server-cert.pem", "bad", "not signed by the one behind it"),
    "a CA's namesake": (lambda f, ca: shutil.copy(ca.namesake.certificate, f / "ca-cert.pem"),
                        "server-cert.pem", "bad", "not signed by the CA"),
    "expired CA": (spoil_ca_date, "ca-cert.pem", "bad", "expired on"),
    "no CA's certificate": (lambda f, ca: shutil.copy(ca.server[0], f / "ca-cert.pem"),
                            "ca-cert.pem", "bad", "not a CA"),
    "no CA": (without("ca-cert.pem", "ca-crl.pem", "psk.keys"), "ca-cert.pem", "bad", "not there"),
    "list without CA": (without("ca-cert.pem"), "ca-cert.pem", "bad", "revoked"),
    "CA that others change": (lambda f, ca: (f / "ca-cert.pem").chmod(0o666), "ca-cert.pem", "bad",
                              "chmod"),
    "list out of date": (lambda f, ca: put_crl(ca, f, f'crl_this_update_date = "{day(-9)}"\n'
                                               f'crl_next_update_date = "{day(-2)}"\n'),
                         "ca-crl.pem", "bad", "the list expired"),
    "list of another": (lambda f, ca: shutil.copy(ca.other.revoke(ca.other.client("x")[0]),
                                                  f / "ca-crl.pem"),
                        "ca-crl.pem", "bad", "not signed by a CA"),
    "list that is none": (text("ca-crl.pem", "nonsense"), "ca-crl.pem", "bad", "no list"),
    "keys that are none": (text("psk.keys", f"bob:{PSK_KEY}\neve\n"), "psk.keys", "bad", "line 2"),
    "short key": (text("psk.keys", "bob:1234\n"), "psk.keys", "bad", "line 1"),
    "key twice": (text("psk.keys", f"bob:{PSK_KEY}\n" * 2), "psk.keys", "bad", "line 2"),
    "keys that others read": (lambda f, ca: (f / "psk.keys").chmod(0o644), "psk.keys", "bad",
                              "chmod"),
    "folder that others fill": (lambda f, ca: f.chmod(0o777), ".", "bad", "chmod"),
    "nothing": (without("server-cert.pem", "server-key.pem", "ca-cert.pem", "ca-crl.pem",
                        "psk.keys"), ".", "bad", "no keys"),
}


def found(tls, folder, *words, status):
    """[(file, result, problem)]"""
    done = tls("check", folder, *words, "--json", status=status)
    assert PSK_KEY not in done.stdout + done.stderr and "BEGIN" not in done.stdout + done.stderr
    return [(row["file"], row["result"], row["problem"]) for row in json.loads(done.stdout)["files"]]


def test_good_files_are_good(tls, good):
    assert found(tls, good, "--host", "storage1", "--host", "192.0.2.7", status=0) == [
        ("psk.keys", "good", "1 key"), ("server-cert.pem", "good", None),
        ("server-key.pem", "good", None), ("ca-cert.pem", "good", None),
        ("ca-crl.pem", "good", None)]


@pytest.mark.parametrize("spoil, file, result, words", SPOILED.values(), ids=SPOILED.keys())
def test_what_is_wrong_is_told(tls, good, ca, spoil, file, result, words):
    spoil(good, ca)
    rows = found(tls, good, status=1)
    assert any(row[:2] == (file, result) and words in row[2] for row in rows), rows


def test_another_host_is_told(tls, good):
    rows = found(tls, good, "--host", "storage1", "--host", "storage2", status=1)
    assert [row for row in rows if row[1] == "bad"] == [
        ("server-cert.pem", "bad", "it is not for storage2 (but for storage1, 192.0.2.7)")]


def test_all_that_is_wrong_is_told_at_once(tls, good, ca):
    spoil_server(dated(-20, -10))(good, ca)
    (good / "server-key.pem").chmod(0o644)
    (good / "psk.keys").write_text("eve\n")
    assert {row[0] for row in found(tls, good, status=1) if row[1] == "bad"} == {
        "server-cert.pem", "server-key.pem", "psk.keys"}


def test_what_counts_as_soon_can_be_said(tls, good):
    found(tls, good, "--within", "89", status=0)
    rows = found(tls, good, "--within", "91", status=1)
    assert {row[0] for row in rows if row[1] == "soon"} == {"server-cert.pem", "ca-cert.pem",
                                                           "ca-crl.pem"}


def test_a_server_may_be_by_another_ca_than_clients_are(tls, good, ca):
    put_server(good, ca.other.issue("server", server_for("expiration_days = 80\n")))
    rows = found(tls, good, status=0)
    assert any(row[0] == "server-cert.pem" and "CN=Another CA" in row[2] for row in rows)


def test_keys_alone_are_enough(tls, good):
    without("server-cert.pem", "server-key.pem", "ca-cert.pem", "ca-crl.pem")(good, None)
    assert [row[1] for row in found(tls, good, status=0)].count("absent") == 4


def test_a_folder_that_is_not_there_is_an_error(tls, tmp_path):
    assert "No such file" in tls("check", tmp_path / "none", status=1).stderr
