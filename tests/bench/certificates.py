# SPDX-License-Identifier: GPL-2.0-or-later
"""A certification authority and a server's certificate, under the names that all servers know."""
import pathlib
import shutil

import processes

CA = "cn = bench CA\nca\ncert_signing_key\nexpiration_days = 2\n"
SERVER = "cn = localhost\ndns_name = localhost\ntls_www_server\nsigning_key\nexpiration_days = 2\n"
LIMIT = 60


def certtool(*words):
    processes.run("certtool", *words, limit=LIMIT)


def key(path: pathlib.Path):
    certtool("--generate-privkey", "--key-type=ecdsa", "--curve=secp256r1", "--outfile", path)


def folder_in(parent: pathlib.Path) -> pathlib.Path:
    """Made when it is first asked for."""
    folder = parent / "certificates"
    if (folder / "server-cert.pem").exists():
        return folder
    folder.mkdir(exist_ok=True)
    (folder / "ca.info").write_text(CA)
    (folder / "server.info").write_text(SERVER)
    key(folder / "ca-key.pem")
    key(folder / "server-key.pem")
    certtool("--generate-self-signed", "--load-privkey", folder / "ca-key.pem",
             "--template", folder / "ca.info", "--outfile", folder / "ca-cert.pem")
    certtool("--generate-certificate", "--load-privkey", folder / "server-key.pem",
             "--load-ca-certificate", folder / "ca-cert.pem",
             "--load-ca-privkey", folder / "ca-key.pem", "--template", folder / "server.info",
             "--outfile", folder / "server-cert.pem")
    return folder


def server_in(parent: pathlib.Path) -> pathlib.Path:
    """The server's alone: without a CA ours asks no client for a certificate."""
    folder = parent / "server-certificate"
    if not folder.exists():
        folder.mkdir(mode=0o700)
        for name in ("server-cert.pem", "server-key.pem"):
            shutil.copy(folder_in(parent) / name, folder)
    return folder
