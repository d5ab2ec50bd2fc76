"""Plugins are loaded by name only, and a wrong one is refused in a sentence."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from bulkimg.engine.plugins import load_plugins
from bulkimg.errors import UsageError
from bulkimg.settings import Settings
from tests.conftest import ROOT
from tests.plugins.conftest import Site

ROW = "@hookimpl\ndef bulkimg_row(row): return None\n"


def refused(*names: str) -> str:
    with pytest.raises(UsageError) as caught:
        load_plugins(names)
    return str(caught.value)


def test_only_what_is_named_is_imported(site: Site) -> None:
    named = site.install("named", ROW)
    other = site.install("other", "raise AssertionError('imported')")
    assert load_plugins([]).loaded == ()
    assert named not in sys.modules
    plugins = load_plugins(["named"])
    assert [(plugin.name, plugin.package, plugin.version, plugin.hooks) for plugin in plugins.loaded] == [
        ("named", "bulkimg-named", "1.0", ("bulkimg_row",))
    ]
    assert named in sys.modules
    assert other not in sys.modules


def test_without_plugins_nothing_of_them_is_imported(site: Site) -> None:
    """So a run without plugins starts as quickly as before."""
    manifest = site.place / "m.csv"
    manifest.write_text(f"uuid,name\n{'1' * 32},x\n")
    code = (
        "import sys\nsys.argv = ['bulkimg', 'check', sys.argv[1], '-q']\nfrom bulkimg.cli.main import main\n"
        "try: main()\nexcept SystemExit as end: print(end.code)\n"
        "print(sorted(name for name in sys.modules if name.startswith(('pluggy', 'bulkimg.plugins'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(manifest)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.splitlines() == ["0", "[]"]


def test_a_plugin_may_be_an_object_with_both_hooks(site: Site) -> None:
    site.install(
        "thing",
        """
        class Thing:
            @hookimpl
            def bulkimg_row(self, row): return row.with_fields(name="by an object")
            @hookimpl
            def bulkimg_event(self, event): pass
            @hookimpl(optionalhook=True)
            def bulkimg_of_a_later_version(self, anything): pass
        thing = Thing()
        """,
        thing=":thing",
    )
    plugins = load_plugins(["thing"])
    assert plugins.loaded[0].hooks == ("bulkimg_row", "bulkimg_event")
    assert [row.fields for row in site.rows(f"uuid,name\n{'1' * 32},x\n", ["thing"])] == [{"name": "by an object"}]


def test_an_unknown_name_is_refused_with_the_installed_ones(site: Site) -> None:
    assert refused("names") == (
        "plugin 'names' is not installed (none is); install its package in bulkimg's environment"
    )
    site.install("house-names", ROW)
    site.install("audit", ROW)
    assert refused("house_names") == "plugin 'house_names' is not installed; did you mean 'house-names'?"
    assert "(installed are audit, house-names); install its package" in refused("xyz")


def test_names_are_given_one_by_one_a_line_or_with_commas() -> None:
    for given in (["a", "b", "c"], "a,b\nc", ["a, b", "c"]):
        assert Settings.model_validate({"plugins": given}).plugins == ("a", "b", "c")
    assert Settings.model_validate({"plugins": "none"}).plugins == ()
    for wrong in (["a", "a"], "a,none", ["a\x1b[2J"], [1], 5):
        with pytest.raises(ValidationError):
            Settings.model_validate({"plugins": wrong})


def test_two_packages_with_one_name_are_refused(site: Site) -> None:
    site.install("names", ROW, package="one", version="1.2")
    site.install("names", ROW, package="two", version="3.4")
    assert refused("names") == "plugin names: one 1.2 and two 3.4 have an entry point of this name; keep one of them"


def test_a_package_that_gives_a_name_twice_is_refused(site: Site) -> None:
    site.install("names", ROW, package="one", points="names = a\nnames = b\n")
    assert "one 1.0 and one 1.0 have an entry point of this name" in refused("names")


@pytest.mark.parametrize(
    ("code", "thing", "said"),
    [
        ("import missing_library", "", "cannot be imported: raised ModuleNotFoundError: No module named 'missing_library'"),
        ("raise SystemExit(0)", "", "cannot be imported: raised SystemExit: 0 (plugin_of_a_test_"),
        ("def (", "", "cannot be imported: raised SyntaxError"),
        (ROW, ":nothing", "cannot be imported: raised AttributeError"),
        ("x = 1", "", "has no hook; write one of bulkimg_row, bulkimg_event with @hookimpl above it"),
        ("thing = None", ":thing", "has no hook"),
        ("thing = {'bulkimg_row': 1}", ":thing", "has no hook"),
        ("class A:\n    @hookimpl\n    def bulkimg_row(self, row): ...", ":A", "is a class; let its entry point name a module"),
        ("def bulkimg_row(row): ...", "", "bulkimg_row is not marked; write @hookimpl above it"),
        (ROW + "def bulkimg_event(event): ...", "", "bulkimg_event is not marked"),
        ("@hookimpl\ndef bulkimg_row(rows): ...", "", "has a hook with a wrong signature: Argument(s) {'rows'}"),
        ("@hookimpl\ndef bulkimg_row(row, settings): ...", "", "wrong signature: Argument(s) {'settings'}"),
        ("@hookimpl\ndef bulkimg_rows(row): ...", "", "there is no hook 'bulkimg_rows'; did you mean 'bulkimg_row'?"),
        ("@hookimpl(specname='bulkimg_rwo')\ndef f(row): ...", "", "there is no hook 'bulkimg_rwo'; did you mean"),
        ("@hookimpl\nasync def bulkimg_event(event): ...", "", "bulkimg_event is async or a generator; write a plain function"),
        ("@hookimpl\ndef bulkimg_row(row): yield row", "", "is async or a generator"),
        ("@hookimpl(wrapper=True)\ndef bulkimg_row(row): return (yield)", "", "is async or a generator"),
        ("class A:\n    def __dir__(self): raise OSError('no')\nthing = A()", ":thing", "cannot be used: raised OSError: no"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_the_run(site: Site, code: str, thing: str, said: str) -> None:
    site.install("wrong", code, package="its-package", version="2.5", thing=thing)
    assert refused("wrong").startswith("plugin wrong (its-package 2.5)")
    assert said in refused("wrong")
    assert "\n" not in refused("wrong")


def test_damage_in_another_package_is_a_sentence(site: Site) -> None:
    site.install("good", ROW)
    site.describe("damaged", "1", "no equals sign\n")
    assert "the entry points of the installed packages cannot be read" in refused("good")


def test_an_import_that_quotes_a_credential_shows_none(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULKIMG_PASSWORD", "a long secret")
    site.install("leaks", "import os\nraise ValueError(os.environ['BULKIMG_PASSWORD'])")
    assert "raised ValueError: [hidden]" in refused("leaks")


def test_a_keyboard_interrupt_is_no_failure_of_the_plugin(site: Site) -> None:
    site.install("slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_plugins(["slow"])
