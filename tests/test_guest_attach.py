# SPDX-License-Identifier: GPL-2.0-or-later
"""Remote exports as local block devices, by the kernel's driver: in the guest of scripts/lab, since
there is hardly a machine for tests that has it.

The guest runs tests/lab/inside_guest_attach.py, and after it has booted again
inside_guest_attach_boot.py; each test of those is one here.
"""

import base64
import re
import shutil
import subprocess

import pytest

import guestlab
from conftest import ROOT
from tlsfixtures import put_keys

INSIDE = [ROOT / "tests/lab" / name for name in ("inside_guest_attach.py",
                                                 "inside_guest_attach_boot.py")]
NAMES = [name for path in INSIDE for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)]
LIMIT = 4800                                 # seconds for each boot, on a very busy machine

# Arguments: whether the counts are long ones, and keys, as there is nothing in the guest to make some.
SCRIPT = f"""
cd /lab/tree/tests/lab
pytest() {{ python3 -B -m pytest -rA -q --color=no --durations=10 -p no:cacheprovider "$@"; }}
[ "$LAB_BOOT" = 1 ] || {{ pytest {INSIDE[1].name}; exit; }}
mkdir -m 700 /root/keys
base64 -d <<<"$2" | tar -xzC /root/keys
LONG=$1 pytest {INSIDE[0].name}
python3 -B {INSIDE[1].name} && touch /lab/again
"""

pytestmark = pytest.mark.timeout(2 * LIMIT + 1000)


@pytest.fixture(scope="module")
def keys_as_text(authority, tmp_path_factory):
    """server/ and client/, as nbd-tls wants them, in a compressed tar in base64."""
    folder = tmp_path_factory.mktemp("keys")
    put_keys(folder / "server", authority, psk=False)
    client = folder / "client"
    client.mkdir()
    shutil.copy(authority.certificate, client / "ca-cert.pem")
    for path, name in zip(authority.alice, ("client-cert.pem", "client-key.pem"), strict=True):
        shutil.copy(path, client / name)
        (client / name).chmod(0o600)
    packed = subprocess.run(["tar", "-czC", folder, "server", "client"], check=True,
                            capture_output=True, timeout=60).stdout
    return base64.b64encode(packed).decode()


@pytest.fixture(scope="module")
def report(request, keys_as_text):
    """({name: "PASSED"}, all that was printed)"""
    return guestlab.report(LIMIT, SCRIPT, str(int(request.config.getoption("--long"))), keys_as_text)


@pytest.mark.parametrize("name", NAMES)
def test_in_the_guest(report, name):
    results, said = report
    assert results.get(name) == "PASSED", said
