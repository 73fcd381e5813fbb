# SPDX-License-Identifier: GPL-2.0-or-later
"""Keys and certificates for tests, made by certtool as an administrator would."""

import datetime
import subprocess

CA = "cn = Test CA\nca\ncert_signing_key\ncrl_signing_key\nexpiration_days = 30\n"
SERVER = ("cn = server\ndns_name = localhost\nip_address = 127.0.0.1\ntls_www_server\n"
          "signing_key\nencryption_key\nexpiration_days = 20\n")
CLIENT = "tls_www_client\nsigning_key\n"


def day(days):
    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)
    return at.strftime("%Y-%m-%d %H:%M:%S UTC")


def certtool(*arguments):
    subprocess.run(["certtool", *map(str, arguments)], check=True, capture_output=True, timeout=60)


class Authority:
    """A certification authority in a folder of its own."""

    def __init__(self, folder, name="ca"):
        self.folder = folder
        self.name = name
        self.key(name)
        self.template(name, CA)
        certtool("--generate-self-signed", "--load-privkey", self.path(f"{name}-key.pem"),
                 "--template", self.path(f"{name}.template"), "--outfile", self.certificate)

    def path(self, name):
        return self.folder / name

    @property
    def certificate(self):
        return self.path(f"{self.name}-cert.pem")

    def template(self, name, text):
        self.path(f"{name}.template").write_text(text)

    def key(self, name):
        certtool("--generate-privkey", "--key-type=ecdsa", "--curve=secp256r1",
                 "--outfile", self.path(f"{name}-key.pem"))

    def issue(self, name, text):
        """NAME-cert.pem and NAME-key.pem by this template; the two paths."""
        self.key(name)
        self.template(name, text)
        certtool("--generate-certificate", "--load-privkey", self.path(f"{name}-key.pem"),
                 "--load-ca-certificate", self.certificate,
                 "--load-ca-privkey", self.path(f"{self.name}-key.pem"),
                 "--template", self.path(f"{name}.template"),
                 "--outfile", self.path(f"{name}-cert.pem"))
        return self.path(f"{name}-cert.pem"), self.path(f"{name}-key.pem")

    def client(self, name, more="expiration_days = 20\n", purpose=CLIENT):
        return self.issue(name, f"cn = {name}\norganization = Test\n{purpose}{more}")

    def revoke(self, *certificates):
        """crl.pem, with these certificates."""
        self.template("crl", "crl_next_update = 30\ncrl_number = 1\n")
        listed = self.path("revoked.pem")
        listed.write_bytes(b"".join(path.read_bytes() for path in certificates))
        certtool("--generate-crl", "--load-ca-certificate", self.certificate,
                 "--load-ca-privkey", self.path(f"{self.name}-key.pem"),
                 "--load-certificate", listed, "--template", self.path("crl.template"),
                 "--outfile", self.path("crl.pem"))
        return self.path("crl.pem")
