"""Find the plugins that are named among the entry points, import them, and check their hooks.

Nothing that is only installed is imported: bulkimg holds credentials, and a plugin is code in its process.
"""

import inspect
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pluggy

from bulkimg.errors import UsageError
from bulkimg.plugins.hooks import NAMES, PROJECT, Hooks
from bulkimg.values import nearest

LONGEST = 300  # characters of what an exception says
Hide = Callable[[str], str]  # returns a text without credentials


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plugin that is loaded. `hooks` are the names of those that it has."""

    name: str
    package: str
    version: str
    hooks: tuple[str, ...]
    manager: pluggy.PluginManager = field(repr=False)  # of this plugin alone
    hide: Hide = field(repr=False, default=str)

    @property
    def label(self) -> str:
        """Return the plugin with its package and version, for messages."""
        return f"plugin {self.name} ({self.package} {self.version})"

    def call(self, hook: str, **given: Any) -> Any:
        """Call a hook. Returns what it returned. Raises HookFailed."""
        try:
            return getattr(self.manager.hook, hook)(**given)
        except (KeyboardInterrupt, MemoryError):
            raise
        except BaseException as error:  # a plugin that calls sys.exit must not end a run as if all was well
            raise HookFailed(self.hide(f"{hook} {_failure(error)}")) from None


class HookFailed(Exception):
    """A hook has raised an exception. The text has the exception's type, message and place, without credentials."""


def load(names: Sequence[str], hide: Hide = str) -> tuple[Plugin, ...]:
    """Return the named plugins in this order. Raises UsageError for one that is missing, double or wrong."""
    installed = _installed() if names else {}
    return tuple(_loaded(name, installed, hide) for name in names)


def refuse_missing(names: Sequence[str]) -> None:
    """Raise UsageError for a plugin that is missing or double. Nothing is imported."""
    installed = _installed() if names else {}
    for name in names:
        _entry(name, installed)


def places_of(names: Sequence[str]) -> list[Path]:
    """Return the files of plugins that are installed. Nothing is imported."""
    try:
        installed = _installed() if names else {}
    except UsageError:
        return []  # refuse_missing says why
    modules = [entry.module.partition(".")[0] for name in names for entry in installed.get(name, [])]
    found = [find_spec(module) for module in modules]
    return [Path(spec.origin) for spec in found if spec and spec.origin]


def _installed() -> dict[str, list[EntryPoint]]:
    """Return the entry points of all installed packages by name. Nothing is imported."""
    found: dict[str, list[EntryPoint]] = {}
    try:
        for entry in entry_points(group=PROJECT):
            found.setdefault(entry.name, []).append(entry)
    except Exception as error:  # damaged files of any installed package
        why = f"{type(error).__name__}: {error}"
        raise UsageError(
            f"plugins: the entry points of the installed packages cannot be read ({why}); repair the environment"
        ) from None
    return found


def _entry(name: str, installed: dict[str, list[EntryPoint]]) -> EntryPoint:
    found = installed.get(name, [])
    if not found:
        raise UsageError(f"plugin {name!r} is not installed{_others(name, installed)}")
    if len(found) > 1:
        packages = " and ".join(sorted(" ".join(_package(entry)) for entry in found))
        raise UsageError(f"plugin {name}: {packages} have an entry point of this name; keep one of them")
    return found[0]


def _loaded(name: str, installed: dict[str, list[EntryPoint]], hide: Hide) -> Plugin:
    entry = _entry(name, installed)
    package, version = _package(entry)
    label = f"plugin {name} ({package} {version})"
    thing = _imported(entry, label, hide)
    try:
        _check(thing, label)
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(Hooks)
        manager.register(thing, name)
    except UsageError:
        raise
    except pluggy.PluginValidationError as error:
        raise UsageError(f"{label} has a hook with a wrong signature: {_last_line(error)}; fix the plugin") from None
    except Exception as error:  # an object whose attributes cannot be read
        raise UsageError(hide(f"{label} cannot be used: {_failure(error)}; fix the plugin")) from None
    has = {hook.name for hook in manager.get_hookcallers(thing) or ()}
    return Plugin(name, package, version, tuple(hook for hook in NAMES if hook in has), manager, hide)


def _others(name: str, installed: Collection[str]) -> str:
    """Return what to do about a plugin that is missing: take a near name, or install one."""
    if near := nearest(name, installed, whole=False):
        return near
    known = f"installed are {', '.join(sorted(installed))}" if installed else "none is"
    return f" ({known}); install its package in bulkimg's environment"


def _package(entry: EntryPoint) -> tuple[str, str]:
    """Return the name and the version of the package that has the entry point."""
    if entry.dist is None:
        return "an unknown package", "?"
    return str(entry.dist.metadata["Name"] or "an unnamed package"), str(entry.dist.metadata["Version"] or "?")


def _imported(entry: EntryPoint, label: str, hide: Hide) -> Any:
    try:
        return entry.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also SystemExit: a plugin must not end bulkimg
        what = hide(_failure(error))
        raise UsageError(f"{label} cannot be imported: {what}; install what it needs, or leave it out") from None


def _check(thing: Any, label: str) -> None:
    """Raise UsageError for what pluggy would take, and what would fail or be ignored later."""
    if inspect.isclass(thing):
        raise UsageError(f"{label} is a class; let its entry point name a module or an object of the class")
    marked = dict(_marked(thing))
    for hook in NAMES:
        if hook not in marked and callable(getattr(thing, hook, None)):
            raise UsageError(f"{label}: {hook} is not marked; write @hookimpl above it (from bulkimg.plugins)")
    for hook, function in marked.items():
        if hook not in NAMES:
            raise UsageError(f"{label}: there is no hook {hook!r}{nearest(hook, NAMES)}")
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise UsageError(f"{label}: {hook} is async or a generator; write a plain function")
    if not marked:
        raise UsageError(f"{label} has no hook; write one of {', '.join(NAMES)} with @hookimpl above it")


def _marked(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yield the hooks of a plugin: the name of each, and its function."""
    for name in dir(thing):
        function = getattr(thing, name, None)
        options = getattr(function, f"{PROJECT}_impl", None) if inspect.isroutine(function) else None
        if isinstance(options, dict) and not options.get("optionalhook"):
            yield options.get("specname") or name, function


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()


def _failure(error: BaseException) -> str:
    """Return the type, the message and the place of an exception, on one line."""
    said = " ".join(str(error).split())[:LONGEST]
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno})" if frames else ""
    return f"raised {type(error).__name__}{f': {said}' if said else ''}{place}"
