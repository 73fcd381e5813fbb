# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether docs/control.md has all that can be asked over the control sockets, and nothing else."""

import pathlib
import re
import xml.etree.ElementTree

from test_control import OBJECT as EXPORT
from test_control import start  # noqa: F401, a fixture
from test_negotiator_reload import OBJECT as NEGOTIATOR
from test_negotiator_reload import bench, busctl  # noqa: F401, a fixture

PAGE = pathlib.Path(__file__).resolve().parent.parent / "docs/control.md"


def rows(section, head):
    """The cells of the table that has these headings."""
    table = section.partition(head)[2].partition("\n\n")[0]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")]
            for line in table.splitlines() if line.startswith("| `")]


def described(interface):
    """({property: type}, {method: (takes, gives)})"""
    section = re.search(rf"^## {re.escape(interface)}$.*?(?=^## |\Z)", PAGE.read_text(),
                        re.M | re.S)[0]
    return ({name: kind for name, kind, *_ in rows(section, "| property | type |")},
            {name: (takes, gives) for name, takes, gives, *_ in
             rows(section, "| method | takes | gives |")})


def introspected(text):
    """{interface: the same}"""
    found = {}
    for interface in xml.etree.ElementTree.fromstring(text).iter("interface"):
        methods = {}
        for method in interface.iter("method"):
            arguments = {"in": "", "out": ""}
            for argument in method.iter("arg"):
                arguments[argument.get("direction", "in")] += argument.get("type")
            methods[method.get("name")] = (arguments["in"], arguments["out"])
        properties = {p.get("name"): p.get("type") for p in interface.iter("property")}
        found[interface.get("name")] = (properties, methods)
    return found


def ours(found):
    return sorted(name for name in found if name.startswith("org.nbd_export."))


def test_the_page_has_what_an_export_can_be_asked(start):  # noqa: F811
    found = introspected(start().control.busctl("introspect", "--xml-interface",
                                                "org.nbd_export", EXPORT))
    assert ours(found) == ["org.nbd_export.Bitmaps1", "org.nbd_export.Export1"]
    for interface in ours(found):
        assert described(interface) == found[interface], interface


def test_the_page_has_what_the_negotiator_can_be_asked(bench):  # noqa: F811
    bench.begin()
    found = introspected(busctl(bench, "introspect", "--xml-interface", "org.x", NEGOTIATOR[0]))
    assert ours(found) == ["org.nbd_export.Negotiator1"]
    assert described(NEGOTIATOR[1]) == found[NEGOTIATOR[1]]


def keys_of(source):
    """Names in dictionaries that the daemons put together: "Name", "s", ..."""
    return set(re.findall(r'"([A-Z]\w+)", "(?:s|t|u|b)"', source)) | \
        set(re.findall(r'"s", "([A-Z]\w+)"\)', source))


def test_the_page_names_every_key_of_the_dictionaries():
    root = PAGE.parent.parent / "daemon"
    for path in ("export/control-object.c", "export/control-views.c", "negotiator/control.c"):
        text = (root / path).read_text()
        keys = keys_of(text)
        assert len(keys) >= 5, path
        page = PAGE.read_text()
        assert [key for key in sorted(keys) if f"`{key}`" not in page] == [], path
