# SPDX-License-Identifier: GPL-2.0-or-later
"""TLS under systemd: keys by LoadCredential=, started by need, reloaded, restarted; in a
container."""

import base64
import json
import pathlib
import re
import sys

import pytest

from certificates import SERVER

sys.path.insert(0, str(pathlib.Path(__file__).parent / "lab"))
pytest.register_assert_rewrite("appliance", "machine")
from appliance import file_of, service_of  # noqa: E402  (its folder is not a package)

pytest_plugins = ["appliance"]
pytestmark = pytest.mark.timeout(120)

KEYS = "/etc/nbd-export/tls"
CONF = "/etc/nbd-export/negotiator.conf"
PSK = "c0ffee" + "9b51e7d24a" * 5 + "77aa0013"
TLS = "nbd-tls.service"

# Connects, and then does a request whenever it gets a line.
CLIENT = """
import nbd, sys
h = nbd.NBD()
h.set_uri_allow_local_file(True)
h.connect_uri(sys.argv[1])
print("connected", flush=True)
for line in sys.stdin:
    h.pread(4096, 0)
    print("read", flush=True)
"""

# nbdinfo --list does not stop at the list.
LIST = """
import nbd, sys
h = nbd.NBD()
h.set_uri_allow_local_file(True)
h.set_opt_mode(True)
h.connect_uri(sys.argv[1])
h.opt_list(lambda name, description: print(name))
"""

# Which of the given byte strings are in the memory of a process.
SCAN = """
import re, sys
found = []
needles = [bytes.fromhex(word) for word in sys.argv[2:]]
with open(f"/proc/{sys.argv[1]}/maps") as maps, open(f"/proc/{sys.argv[1]}/mem", "rb") as memory:
    for line in maps:
        begin, end, rights = re.match(r"([0-9a-f]+)-([0-9a-f]+) (r?)", line).groups()
        if not rights or "[v" in line:
            continue
        try:
            memory.seek(int(begin, 16))
            data = memory.read(int(end, 16) - int(begin, 16))
        except OSError:
            continue
        found += [needle.hex() for needle in needles if needle in data]
print(len(found))
"""


def put(machine, folder, *files):
    """Files of this name and content, for root alone."""
    for name, content in files:
        machine.write(f"{folder}/{name}", content)
        machine.path(f"{folder}/{name}").chmod(0o600)


def reads(*paths):
    return [path.read_text() for path in paths]


@pytest.fixture(scope="module")
def secured(machine, authority):
    """The machine with keys, and clients' files; TLS= is allow."""
    cert, key = reads(*authority.server)
    ca, crl = reads(authority.certificate, authority.crl)
    put(machine, KEYS, ("server-cert.pem", cert), ("server-key.pem", key), ("ca-cert.pem", ca),
        ("ca-crl.pem", crl), ("psk.keys", f"bob:{PSK}\n"))
    authority.carol = authority.client("carol")
    for name in ("alice", "carol", "stranger"):
        cert, key = reads(*getattr(authority, name))
        put(machine, f"/root/{name}", ("client-cert.pem", cert), ("client-key.pem", key),
            ("ca-cert.pem", ca))
    put(machine, "/root", ("keys.psk", f"bob:{PSK}\n"))
    machine.write(CONF, "[Negotiator]\nTLS=allow\n")
    machine.run("nbdctl", "add", "web1", file_of(machine, "web1.img"))
    machine.run("systemctl", "start", "nbd-negotiator.service")
    return machine


def uri(label, who=None):
    if who is None:
        return f"nbd://localhost/{label}"
    if who == "bob":
        return f"nbds://bob@localhost/{label}?tls-psk-file=/root/keys.psk"
    return f"nbds://localhost/{label}?tls-certificates=/root/{who}"


def connect(machine, label, who=None):
    child = machine.popen("python3", "-c", CLIENT, uri(label, who))
    said = child.stdout.readline()
    assert said == "connected\n", said + child.stderr.read() + machine.journal(30)
    return child


def still_reads(child):
    child.stdin.write("\n")
    child.stdin.flush()
    return child.stdout.readline() == "read\n"


def comes_in(machine, label, who=None):
    return machine.ask("nbdinfo", "--size", uri(label, who)).returncode == 0


def pid_of(machine, unit):
    return machine.show(unit, "MainPID")


def test_clients_use_tls_with_certificates_and_keys_and_nbdctl_shows_them(secured, export):
    export("web2", "TLS=require\nIdentity=read psk:bob\nIdentity=write dn:CN=alice,O=Test")
    alice, bob = connect(secured, "web2", "alice"), connect(secured, "web2", "bob")
    assert still_reads(alice) and still_reads(bob)
    rows = json.loads(secured.run("nbdctl", "clients", "web2", "--json", "-o", "+READ-ONLY"))
    told = {row["identity"]: row for row in rows["clients"]}
    assert set(told) == {"dn:CN=alice,O=Test", "psk:bob"}
    assert told["psk:bob"]["read-only"] and not told["dn:CN=alice,O=Test"]["read-only"]
    assert all(row["tls"].startswith("TLS1.3 TLS_") for row in rows["clients"])
    assert not comes_in(secured, "web2") and not comes_in(secured, "web2", "carol")
    assert "web2" not in secured.run("nbdinfo", "--list", "nbd://localhost/")
    secured.wait_for(lambda: "no rule of Identity= (the export's file) is for dn:CN=carol,O=Test"
                     in secured.journal(), "the entry about carol")
    line = secured.run("journalctl", "--output=json", "EVENT=client-admitted",
                       "IDENTITY=psk:bob").splitlines()[-1]
    assert json.loads(line)["EXPORT"] == "web2"


def test_nbd_tls_starts_when_the_first_client_asks_for_it(secured):
    secured.run("systemctl", "stop", TLS)
    assert comes_in(secured, "web1")
    assert secured.show(TLS, "ActiveState") == "inactive"
    assert comes_in(secured, "web1", "alice")
    assert secured.show(TLS, "ActiveState") == "active"


def test_a_reload_changes_keys_and_disturbs_nobody(secured, authority):
    alice = connect(secured, "web1", "alice")
    cert, key = reads(*authority.issue("renewed", SERVER))
    crl = authority.revoke(authority.mallory[0], authority.alice[0]).read_text()
    authority.revoke(authority.mallory[0])
    before = pid_of(secured, TLS)
    old = [(name, secured.read(f"{KEYS}/{name}").decode())
           for name in ("server-cert.pem", "server-key.pem", "ca-crl.pem")]
    put(secured, KEYS, ("server-cert.pem", cert), ("server-key.pem", key), ("ca-crl.pem", crl))
    secured.run("systemctl", "reload", TLS)
    secured.wait_for(lambda: "keys were read again" in secured.journal(50), "the reload")
    assert pid_of(secured, TLS) == before and still_reads(alice)
    assert not comes_in(secured, "web1", "alice") and comes_in(secured, "web1", "carol")
    secured.wait_for(lambda: re.search("CN=alice.*revoked", secured.journal(50)), "the entry")
    put(secured, KEYS, *old)
    secured.run("systemctl", "reload", TLS)
    secured.wait_for(lambda: comes_in(secured, "web1", "alice"), "the old keys")


def test_bad_keys_at_a_reload_leave_the_old_ones(secured):
    assert comes_in(secured, "web1", "alice")
    old = secured.read(f"{KEYS}/server-key.pem").decode()
    put(secured, KEYS, ("server-key.pem", "nonsense\n"))
    secured.ask("systemctl", "reload", TLS)
    secured.wait_for(lambda: "stay in use" in secured.journal(50), "the entry")
    assert comes_in(secured, "web1", "alice")
    put(secured, KEYS, ("server-key.pem", old))
    secured.run("systemctl", "reload", TLS)


def test_keys_that_are_gone_at_a_reload_are_withdrawn(secured):
    """Even all of them, though systemd keeps those of the start."""
    assert comes_in(secured, "web1", "bob")
    names = ["server-cert.pem", "server-key.pem", "ca-cert.pem", "ca-crl.pem", "psk.keys"]
    old = [(name, secured.read(f"{KEYS}/{name}").decode()) for name in names]
    for name in names:
        secured.path(f"{KEYS}/{name}").unlink()
    secured.run("systemctl", "reload", TLS)
    secured.wait_for(lambda: "keys were read again: no keys" in secured.journal(50), "the reload")
    assert not comes_in(secured, "web1", "bob") and not comes_in(secured, "web1", "alice")
    put(secured, KEYS, *old)
    secured.run("systemctl", "reload", TLS)
    secured.wait_for(lambda: comes_in(secured, "web1", "bob"), "the old keys")
    assert comes_in(secured, "web1", "alice")


def test_a_restart_of_nbd_tls_ends_its_clients_and_no_others(secured):
    clear, alice = connect(secured, "web1"), connect(secured, "web1", "alice")
    secured.run("systemctl", "restart", TLS)
    assert not still_reads(alice) and still_reads(clear)
    assert re.search(r"stopping \(signal 15\): \d+ TLS sessions? ends? with it", secured.journal(50))
    assert comes_in(secured, "web1", "alice")


def test_of_all_that_stops_nbd_tls_is_the_last_so_that_its_clients_are_drained(secured):
    alice = connect(secured, "web1", "alice")
    assert TLS in secured.show(service_of("web1"), "After").split()
    since = secured.run("date", "+@%s.%N")
    secured.run("systemctl", "stop", service_of("web1"), TLS)
    assert not still_reads(alice)

    def told():
        found = secured.run("journalctl", "--output=json", f"--since={since}", "EVENT=client-ended",
                            "EVENT=export-stopped", "EVENT=tls-stopped").splitlines()
        return [json.loads(line) for line in found]

    secured.wait_for(lambda: "tls-stopped" in [entry["EVENT"] for entry in told()], "the entries")
    *clients, export, tls = told()          # others' clients may be among them
    assert {entry["EVENT"] for entry in clients} == {"client-ended"}
    assert {entry["REASON"] for entry in clients} == {"shutdown"}
    assert (export["EVENT"], tls["EVENT"]) == ("export-stopped", "tls-stopped")


def test_an_nbd_tls_that_is_killed_comes_back(secured):
    clear, alice = connect(secured, "web1"), connect(secured, "web1", "alice")
    secured.run("systemctl", "kill", "--signal=KILL", "--kill-who=main", TLS)
    assert not still_reads(alice) and still_reads(clear)
    secured.wait_for(lambda: comes_in(secured, "web1", "alice"), "nbd-tls")


def test_a_restart_of_the_negotiator_leaves_clients_with_tls(secured):
    alice = connect(secured, "web1", "alice")
    secured.run("systemctl", "restart", "nbd-negotiator.service")
    assert still_reads(alice) and comes_in(secured, "web1", "alice")
    assert still_reads(alice)


def test_no_key_is_in_the_journal_or_in_another_process(secured, authority):
    alice, bob = connect(secured, "web1", "alice"), connect(secured, "web1", "bob")
    pem = secured.read(f"{KEYS}/server-key.pem").decode()
    lines = re.search(r"-----BEGIN [A-Z ]*-----\n(.*?)-----END", pem, re.S)[1].split()
    der = base64.b64decode("".join(lines))
    at = der.index(b"\x02\x01\x01\x04") + 4         # the secret number of an EC key
    secret = der[at + 1:at + 1 + der[at]][-32:]
    needles = [secret, secret[::-1], bytes.fromhex(PSK), PSK.encode(), lines[0].encode()[:40]]
    hexes = [needle.hex() for needle in needles]
    journal = secured.run("journalctl", "--output=export")
    assert len(journal) > 1000
    assert not any(word in journal for word in (PSK, PSK.upper(), lines[0][:40]))
    held = {unit: int(secured.run("python3", "-c", SCAN, pid_of(secured, unit), *hexes))
            for unit in (TLS, "nbd-negotiator.service", service_of("web1"))}
    assert held.pop(TLS) > 0, "it is looked for in the wrong way"
    assert held == {"nbd-negotiator.service": 0, service_of("web1"): 0}
    assert still_reads(alice) and still_reads(bob)


def test_nobody_else_can_read_the_keys_or_reach_nbd_tls(secured):
    assert comes_in(secured, "web1", "alice")
    secured.run("systemctl", "reload", TLS)         # there are copies now
    paths = [f"{folder}/{name}" for name in ("server-key.pem", "psk.keys") for folder in
             (KEYS, "/run/credentials/nbd-tls.service", "/run/nbd-export/tls")]
    assert all(secured.ask("test", "-s", path).returncode == 0 for path in paths)
    connect_to = ("import socket; socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)"
                  ".connect('/run/nbd-export/tls.channel')")
    for user in ("nbd-export", "nbd-negotiator", "nobody"):
        done = secured.ask("runuser", "-u", user, "--", "cat", *paths)
        assert done.returncode and not done.stdout
        done = secured.ask("runuser", "-u", user, "--", "python3", "-c", connect_to)
        assert (done.returncode == 0) == (user == "nbd-negotiator"), done.stderr


def test_required_for_all_nothing_is_served_in_clear(secured):
    secured.write(CONF, "[Negotiator]\nTLS=require\n")
    secured.run("nbdctl", "reload")
    try:
        assert secured.ask("nbdinfo", "--list", "nbd://localhost/").returncode
        assert not comes_in(secured, "web1") and comes_in(secured, "web1", "alice")
        assert secured.run("journalctl", "REASON=tls-required")
    finally:
        secured.write(CONF, "[Negotiator]\nTLS=allow\n")
        secured.run("nbdctl", "reload")


def test_where_tls_is_off_nobody_starts_nbd_tls(secured):
    secured.write(CONF, "[Negotiator]\n")
    secured.run("nbdctl", "reload")
    secured.run("systemctl", "stop", TLS)
    try:
        assert not comes_in(secured, "web1", "alice") and comes_in(secured, "web1")
        assert secured.show(TLS, "ActiveState") == "inactive"
    finally:
        secured.write(CONF, "[Negotiator]\nTLS=allow\n")
        secured.run("nbdctl", "reload")


def test_keys_that_come_later_are_used_without_a_restart_of_anything_else(secured):
    """Nobody is locked out meanwhile who comes in clear."""
    secured.run("systemctl", "stop", TLS)
    secured.run("mv", KEYS, f"{KEYS}.away")
    secured.run("mkdir", KEYS)
    before = pid_of(secured, "nbd-negotiator.service")
    try:
        assert not comes_in(secured, "web1", "alice") and comes_in(secured, "web1")
        secured.wait_for(lambda: "there are no keys" in secured.journal(100), "the entry")
    finally:
        secured.run("rmdir", KEYS)
        secured.run("mv", f"{KEYS}.away", KEYS)
    secured.wait_for(lambda: comes_in(secured, "web1", "alice"), "nbd-tls with keys")
    assert pid_of(secured, "nbd-negotiator.service") == before


def test_an_export_added_by_nbdctl_has_its_identities(secured, image):
    path = image("added.img")
    secured.run("nbdctl", "add", "added", path, "--tls=require", "--identity",
                "write dn:CN=carol,O=Test", "--identity", "list any")
    assert comes_in(secured, "added", "carol") and not comes_in(secured, "added", "alice")
    assert secured.run("python3", "-c", LIST, uri("", "alice")).split() == ["added", "web1"]
    shown = json.loads(secured.run("nbdctl", "show", "added", "--json"))
    assert "write dn:CN=carol,O=Test" in json.dumps(shown)


def test_of_two_writers_the_second_is_refused_until_a_reload_lets_it(secured, export):
    rules = "Identity=read psk:bob\nIdentity=write any"
    export("one", f"SingleWriter=yes\n{rules}")
    alice, bob = connect(secured, "one", "alice"), connect(secured, "one", "bob")
    assert not comes_in(secured, "one", "carol")
    secured.run("journalctl", "--sync")
    entry = json.loads(secured.run("journalctl", "--output=json", "REASON=single-writer",
                                   f"--unit={service_of('one')}").splitlines()[-1])
    assert entry["EVENT"] == "client-refused" and entry["EXPORT"] == "one"
    assert re.search(r"another client may write: \S+:\d+, connection \d+", entry["MESSAGE"])
    assert still_reads(alice) and still_reads(bob)
    export("one", rules)
    secured.run("nbdctl", "reload")
    secured.wait_for(lambda: comes_in(secured, "one", "carol"), "the reload")
    assert still_reads(alice) and still_reads(bob)


def test_nbdctl_checks_the_keys_of_the_units(secured):
    assert "good" in secured.run("nbdctl", "tls", "check", "--within", "5", "--host", "localhost")
    done = secured.ask("nbdctl", "tls", "check", "--json")
    rows = {row["file"]: row for row in json.loads(done.stdout)["files"]}
    assert done.returncode == 1 and rows["server-cert.pem"]["result"] == "soon"
    assert rows["psk.keys"]["problem"] == "1 key" and PSK not in done.stdout + done.stderr
    assert secured.ask("runuser", "-u", "nobody", "--", "nbdctl", "tls", "check").returncode == 1
