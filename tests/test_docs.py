# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether man pages and the journal's catalog have all that there is: verbs, options, keys,
events, units; and whether scdoc, man and journalctl can read them."""
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
MAN = ROOT / "docs/man"
PAGES = ["nbdctl.8", "nbd-export.8", "nbd-negotiator.8", "nbd-tls.8", "nbd-attach.8",
         "nbd-export.conf.5", "negotiator.conf.5"]
CATALOG = ROOT / "units/nbd-export.catalog"
DAEMONS = {"export": "nbd-export.8", "negotiator": "nbd-negotiator.8", "tls": "nbd-tls.8",
           "attach": "nbd-attach.8"}

ROW = re.compile(r'\[EVENT_([A-Z_]+)\]\s*=\s*\{\s*"([a-z-]+)",\s*"([0-9a-f]{32})"', re.S)


def page(name):
    return (MAN / f"{name}.scd").read_text()


def plain(name):
    """A page without its marks: what a reader sees, more or less."""
    return re.sub(r"\\(.)", r"\1", re.sub(r"(?<!\\)[*_]", "", page(name)))


def help_of(program, *words):
    done = subprocess.run([program, *words, "--help"], capture_output=True, text=True, timeout=60,
                          stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return done.stdout


def options_of(text):
    return sorted(set(re.findall(r"^  (?:-\w, )?(--[a-z-]+)", text, re.M)))


def verbs(programs):
    listed = help_of(programs.nbdctl).split("Verbs:")[1].split("\n\n")[0]
    return re.findall(r"^  ([a-z-]+)", listed, re.M)


def events():
    """{name: (symbol, id)}"""
    found = {name: (symbol, id) for symbol, name, id in
             ROW.findall((ROOT / "daemon/base/events.c").read_text())}
    assert len(found) > 30
    return found


def catalog():
    """{id: text of the entry}"""
    parts = re.split(r"^-- ([0-9a-f]{32})\n", CATALOG.read_text(), flags=re.M)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


# The journal's catalog


def test_every_event_is_in_the_catalog_and_nothing_else():
    entries = catalog()
    assert len(entries) == CATALOG.read_text().count("\n-- ")
    assert {id for _, id in events().values()} == set(entries)


@pytest.mark.parametrize("name", events())
def test_a_catalog_entry_says_what_happened_and_what_to_do(name):
    head, _, text = catalog()[events()[name][1]].partition("\n\n")
    assert re.match(r"Subject: \S.{9,75}\nDefined-By: nbd-export\n"
                    r"(Documentation: man:[a-z.-]+\([58]\)\n?)+$", head), head
    paragraphs = text.split("\n\n# ")[0].strip().split("\n\n")
    assert len(paragraphs) >= 2 and all(len(p) > 15 for p in paragraphs)
    for target in re.findall(r"man:([a-z.-]+)\(([58])\)", head):
        assert ".".join(target) in PAGES


def test_catalog_entries_use_only_fields_that_there_are():
    fields = set(re.findall(r"([A-Z_]{4,})=", (ROOT / "daemon/base/log.h").read_text()))
    assert "CLIENT" in fields
    assert set(re.findall(r"@([A-Z_]+)@", CATALOG.read_text())) <= fields
    assert "@@" not in CATALOG.read_text()


def test_journalctl_takes_the_whole_catalog(tmp_path):
    if not shutil.which("journalctl"):
        pytest.skip("journalctl is not installed")
    folder = tmp_path / "usr/lib/systemd/catalog"
    folder.mkdir(parents=True)
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    shutil.copy(CATALOG, folder)

    def journalctl(what):
        done = subprocess.run(["journalctl", f"--root={tmp_path}", what], capture_output=True,
                              text=True, timeout=60)
        assert done.returncode == 0 and not done.stderr, done.stderr
        return done.stdout

    journalctl("--update-catalog")
    listed = re.findall(r"^([0-9a-f]{32}) nbd-export: ", journalctl("--list-catalog"), re.M)
    assert sorted(listed) == sorted(id for _, id in events().values())


def test_every_event_is_logged_somewhere():
    sources = [path for path in (ROOT / "daemon").rglob("*.c") if path.name != "events.c"]
    text = "".join(path.read_text() for path in sources)
    assert [symbol for symbol, _ in events().values() if f"EVENT_{symbol}" not in text] == []


def test_every_event_is_named_in_a_man_page():
    assert [name for name in events() if f"*{name}*" not in page("nbd-export.8")] == []


def reasons():
    words = re.findall(r'= "([a-z-]+)"', (ROOT / "daemon/wire/reason.c").read_text())
    assert "no-slot" in words
    return [word for word in words if word != "none"]


def test_every_reason_is_explained():
    assert [word for word in reasons() if f"*{word}*" not in page("nbd-export.8")] == []


def test_the_entry_of_an_event_explains_the_reasons_that_it_can_have():
    entries = catalog()

    def unexplained(event, words):
        text = re.sub(r"^#.*", "", entries[events()[event][1]], flags=re.M)
        return [word for word in words if not re.search(rf"(?<![-\w]){word}(?![-\w])", text)]

    of_the_end = {"disconnect", "peer-gone", "stalled", "kicked", "resized"}
    by_nbd_tls = {"tls-handshake-failed", "tls-untrusted", "tls-timeout", "tls-cut", "tls-broken"}
    refused = [word for word in reasons() if word not in of_the_end | by_nbd_tls]
    assert unexplained("client-refused", refused) == []
    ended = of_the_end | {"shutdown", "device", "limit", "protocol"}
    assert unexplained("client-ended", ended) == []


# Man pages


@pytest.mark.parametrize("name", PAGES)
def test_scdoc_and_man_take_a_page(name, tmp_path):
    if not shutil.which("scdoc"):
        pytest.skip("scdoc is not installed")
    done = subprocess.run(["scdoc"], input=page(name), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr, done.stderr
    if not shutil.which("man"):
        return
    (tmp_path / name).write_text(done.stdout)
    done = subprocess.run(["man", "--warnings", "-l", tmp_path / name], capture_output=True,
                          text=True, timeout=60, env={"PATH": "/usr/bin:/bin", "MANWIDTH": "80",
                                                      "MANPAGER": "cat", "LC_ALL": "C.UTF-8"})
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_every_key_of_an_export_is_in_its_man_page():
    keys = re.findall(r'^\tROW(?:_MANY)?\("(\w+)"', (ROOT / "daemon/base/export-settings.c").read_text(),
                      re.M)
    assert "Device" in keys
    assert [key for key in keys if f"\n*{key}=*\n" not in page("nbd-export.conf.5")] == []


def test_every_key_of_the_negotiator_is_in_its_man_page():
    source = (ROOT / "daemon/base/negotiator-settings.c").read_text()
    keys = re.findall(r'^\tROW(?:_MANY)?\("(\w+)"', source, re.M)
    assert "MaxClients" in keys
    assert [key for key in keys if f"\n*{key}=*\n" not in page("negotiator.conf.5")] == []


def test_every_key_of_an_attached_device_is_in_its_man_page():
    source = (ROOT / "daemon/attach/settings.c").read_text()
    keys = re.findall(r'^\tROW(?:_MANY)?\("(\w+)"', source, re.M)
    assert "URI" in keys
    assert [key for key in keys if f"\n*{key}=*\n" not in page("nbd-attach.8")] == []


@pytest.mark.parametrize("daemon", DAEMONS)
def test_every_option_of_a_daemon_is_in_its_man_page(programs, daemon):
    options = options_of(help_of(getattr(programs, daemon)))
    assert "--debug" in options
    assert [o for o in options if f"\n*{o}" not in page(DAEMONS[daemon])
            and f", *{o}" not in page(DAEMONS[daemon])] == []


@pytest.mark.parametrize("daemon", DAEMONS)
def test_the_synopsis_of_a_daemon_has_all_its_options(programs, daemon):
    synopsis = page(DAEMONS[daemon]).split("# SYNOPSIS")[1].split("# DESCRIPTION")[0]
    named = set(re.findall(r"\*(--[a-z-]+)[*=]", synopsis)) | {"--help", "--version"}
    assert named == set(options_of(help_of(getattr(programs, daemon)))) | {"--help", "--version"}


def test_every_verb_and_its_options_are_in_the_man_page(programs):
    text = page("nbdctl.8")
    all_verbs = verbs(programs)
    assert "serve" in all_verbs
    assert [verb for verb in all_verbs if not re.search(rf"^## {verb}\b", text, re.M)] == []
    for verb in all_verbs:
        section = re.search(rf"^## {verb}\b.*?(?=^##? |\Z)", text, re.M | re.S)[0]
        common = text.partition("# COMMON OPTIONS")[2].partition("\n# ")[0]
        missing = [o for o in options_of(help_of(programs.nbdctl, verb))
                   if f"*{o}" not in section + common]
        assert missing == [], verb


def test_the_man_page_has_no_verb_that_there_is_not(programs):
    described = re.findall(r"^## ([a-z-]+)", page("nbdctl.8"), re.M)
    assert sorted(described) == sorted(verbs(programs))


def test_every_unit_is_in_a_man_page():
    units = [path.name.removesuffix(".in") for path in (ROOT / "units").iterdir()
             if re.search(r"\.(service|socket|target|slice|path|timer)(\.in)?$", path.name)]
    assert "nbd-export@.service" in units
    text = "".join(plain(name) for name in PAGES)
    assert [unit for unit in units if unit not in text] == []


def test_man_pages_refer_only_to_pages_that_there_are():
    ours = re.compile(r"\b((?:nbd|negotiator)[a-z.-]*)\(([58])\)")
    named = {".".join(m) for name in [*PAGES] for m in ours.findall(plain(name))}
    for path in [CATALOG, *(ROOT / "units").glob("*.in")]:
        named |= {".".join(m) for m in ours.findall(path.read_text())}
    assert "nbdctl.8" in named and named <= set(PAGES)


# Pages for administrators


@pytest.mark.parametrize("name", ["docs/appliance.md", "README.md"])
def test_a_page_uses_only_verbs_keys_and_events_that_there_are(programs, name):
    text = (ROOT / name).read_text()
    known = set(verbs(programs))
    used = set(re.findall(r"\bnbdctl ([a-z][a-z-]+)", text))
    assert "add" in used and sorted(used - known) == []
    keys = {key for path in ["export-settings.c", "negotiator-settings.c"] for key in
            re.findall(r'^\tROW(?:_MANY)?\("(\w+)"', (ROOT / "daemon/base" / path).read_text(), re.M)}
    ours = set(re.findall(r"`([A-Z][a-z]\w+)=", text)) - {"MemoryMax", "CPUQuota",
                                                           "IOReadBandwidthMax"}
    assert sorted(ours - keys) == []
    assert sorted(set(re.findall(r"EVENT=([a-z-]+)", text)) - set(events())) == []


def test_the_page_for_administrators_is_one_page():
    assert len((ROOT / "docs/appliance.md").read_text().split()) < 1000
