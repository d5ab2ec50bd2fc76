"""Fixtures: a folder on the import path, into which a test installs packages with plugins."""

import importlib
import itertools
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bulkimg.credentials import CREDENTIAL_VARIABLES
from bulkimg.engine.plugins import load_plugins
from bulkimg.manifest import Manifest
from bulkimg.model import Row
from bulkimg.settings import Settings

HEAD = "import bulkimg\nfrom bulkimg.plugins import Problem, Row, hookimpl\n"
_numbers = itertools.count()


@dataclass
class Site:
    """Installed packages. Each module has a name of its own, because Python keeps what it has imported."""

    place: Path
    modules: list[str] = field(default_factory=list)

    def install(
        self, name: str, code: str, *, package: str = "", version: str = "1.0", thing: str = "", points: str = ""
    ) -> str:
        """Install a package with a plugin. `thing` follows the module in its entry point. Returns the module's name."""
        module = f"plugin_of_a_test_{next(_numbers)}"
        (self.place / f"{module}.py").write_text(HEAD + textwrap.dedent(code))
        self.modules.append(module)
        self.describe(package or f"bulkimg-{name}", version, points or f"{name} = {module}{thing}\n")
        return module

    def describe(self, package: str, version: str, points: str) -> None:
        """Write what the package says about itself, in the place of another version."""
        for old in self.place.glob(f"{package.replace('-', '_')}-*.dist-info/*"):
            old.unlink()
        info = self.place / f"{package.replace('-', '_')}-{version}.dist-info"
        for old in self.place.glob(f"{package.replace('-', '_')}-*.dist-info"):
            old.rmdir()
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[bulkimg]\n{points}")
        importlib.invalidate_caches()

    def module(self, name: str) -> Any:
        """Return a module that bulkimg has imported."""
        return sys.modules[name]

    def rows(self, text: str, plugins: Sequence[str], *, name: str = "m.csv", **options: Any) -> list[Row]:
        """Check a manifest with the plugins. Returns its rows."""
        (self.place / name).write_text(text)
        settings = Settings.model_validate({"plugins": list(plugins), **options})
        alter = load_plugins(settings.plugins).alter
        return list(Manifest(str(self.place / name), settings, alter=alter).rows())


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in CREDENTIAL_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    place = tmp_path / "site"
    place.mkdir()
    monkeypatch.syspath_prepend(str(place))
    made = Site(place)
    yield made
    for module in made.modules:
        sys.modules.pop(module, None)
