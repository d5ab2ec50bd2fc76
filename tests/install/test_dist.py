"""The wheel and the sdist as a user installs them: in a new environment, from a wheelhouse, without a network."""

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT

pytestmark = pytest.mark.timeout(240)

USER_SCRIPT = """
import bulkimg

result = bulkimg.run("relabel.csv", endpoint="http://127.0.0.1:8080", rate="20/s", canary=5)
result.raise_for_status()
names: list[str] = [row.name for row in result.rows("updated")]
{more}
"""


def build(kind: str, source: Path, place: Path) -> Path:
    """Build the wheel or the sdist of a source tree."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(place)],
        cwd=source,
        check=True,
        capture_output=True,
    )
    (made,) = place.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return made


def needed(name: str, seen: set[str]) -> Iterator[str]:
    """Return the distributions that one needs at run time, with itself."""
    if name.lower() in seen:
        return
    seen.add(name.lower())
    yield name
    for text in metadata.requires(name) or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield from needed(requirement.name, seen)


def packed(name: str, place: Path) -> None:
    """Make a wheel of what is installed here, so that no network is needed."""
    dist = metadata.distribution(name)
    tag = [line.split()[1] for line in (dist.read_text("WHEEL") or "").splitlines() if line.startswith("Tag:")][-1]
    file = f"{dist.metadata['Name'].replace('-', '_')}-{dist.version}-{tag}.whl"
    with zipfile.ZipFile(place / file, "w") as wheel:
        for item in dist.files or ():
            if (
                ".." not in item.parts
                and "__pycache__" not in item.parts
                and item.name not in {"INSTALLER", "REQUESTED"}
            ):
                wheel.write(str(item.locate()), str(item))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def home(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a new environment with the wheel, installed only from a wheelhouse."""
    place = tmp_path_factory.mktemp("installed")
    house = place / "wheelhouse"
    house.mkdir()
    for name in list(needed("zstack-bulkimg", set()))[1:]:
        packed(name, house)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place / "env")], check=True)
    command = [sys.executable, "-m", "pip", "--python", str(place / "env" / "bin" / "python"), "install", "-q"]
    subprocess.run([*command, "--no-index", "--find-links", str(house), str(wheel)], check=True)
    return place / "env"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A cache of mypy's: the packages of the new environment are read once for all scripts."""
    return str(tmp_path_factory.mktemp("mypy"))


def bulkimg(home: Path, *arguments: str) -> str:
    done = subprocess.run(
        [str(home / "bin" / "bulkimg"), *arguments], capture_output=True, text=True, check=True, cwd=home, env={}
    )
    return done.stdout


def test_the_command_runs_from_the_wheel(home: Path) -> None:
    assert bulkimg(home, "--version").startswith("bulkimg 0.2.0 (zstack-bulkimg")
    assert bulkimg(home, "help", "credentials") == (ROOT / "docs" / "reference" / "credentials.md").read_text("utf-8")
    assert "schema = 1" in bulkimg(home, "init")
    assert '"$schema"' in bulkimg(home, "schema", "summary")


def test_a_plan_page_is_written_from_the_wheel(home: Path) -> None:
    """The page's parts are data files of the package."""
    code = "from importlib.resources import files; print([f.name for f in files('bulkimg.report').joinpath('templates').iterdir()])"
    found = subprocess.run(
        [str(home / "bin" / "python"), "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert all(name in found for name in ("plan.html", "plan.js", "report.html", "page.css"))


def test_man_pages_and_completion_are_where_man_and_shells_look(home: Path) -> None:
    pages = {page.name for page in (home / "share" / "man" / "man1").iterdir()}
    assert {"bulkimg.1", "bulkimg-run.1", "bulkimg-undo.1"} <= pages
    for path in (
        "bash-completion/completions/bulkimg",
        "zsh/site-functions/_bulkimg",
        "fish/vendor_completions.d/bulkimg.fish",
    ):
        assert "bulkimg" in (home / "share" / path).read_text("utf-8")


@pytest.mark.parametrize(
    ("more", "complaint"),
    [("", ""), ('bulkimg.run("a.csv", canary="many")', 'expected "int"'), ("result.counst", '"counst"')],
)
def test_an_installed_user_script_is_type_checked(
    home: Path, cache: str, tmp_path: Path, more: str, complaint: str
) -> None:
    (tmp_path / "script.py").write_text(USER_SCRIPT.format(more=more))
    python = str(home / "bin" / "python")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", cache, "--python-executable", python, "script.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) == (not complaint), done.stdout
    assert complaint in done.stdout


def test_the_sdist_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    sdist = build("sdist", ROOT, tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    again = build("wheel", tmp_path / sdist.name.removesuffix(".tar.gz"), tmp_path / "again")
    assert zipfile.ZipFile(again).namelist() == zipfile.ZipFile(wheel).namelist()


def test_nothing_of_the_tests_is_in_the_wheel(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if name.startswith(("tests/", "samples/", "jobs/"))]
