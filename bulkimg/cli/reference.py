"""Write the command line's reference from the command tree: docs/reference/cli.md, man pages, shell completion.

python -m bulkimg.cli.reference          writes them into docs/
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from bulkimg import __version__
from bulkimg.cli import manual
from bulkimg.cli.helpful import argument_record, in_order
from bulkimg.cli.main import COMMANDS, app

DOCS = Path(__file__).parent.parent.parent / "docs"
SHELLS = {"bash": "bulkimg.bash", "zsh": "_bulkimg", "fish": "bulkimg.fish"}
Records = Sequence[tuple[str, str]]
Section = tuple[str, Records]  # a title, and (term, meaning) pairs


def _sections(name: str) -> tuple[str, str, list[Section]]:
    """Return a command's usage, what it does, and its sections, with every option, also the rare ones."""
    group: Any = typer.main.get_command(app)
    top = typer.Context(group, info_name="bulkimg")
    command = group.get_command(top, name)
    ctx = typer.Context(command, info_name=name, parent=top)
    arguments: list[tuple[str, str]] = []
    groups: dict[str, list[tuple[str, str]]] = {title: [] for title in ("Options", *manual.GROUPS)}
    for param in in_order(command.get_params(ctx)):
        record = param.get_help_record(ctx)
        if record is None:
            continue
        if param.param_type_name == "argument":
            arguments.append(argument_record(record))
        else:
            groups[manual.group_of(str(param.name))].append(record)
    sections: list[Section] = [("Arguments", arguments), *groups.items(), *manual.closing(name)]
    usage = " ".join(command.collect_usage_pieces(ctx))
    return f"bulkimg {name} {usage}", COMMANDS[name][1], [section for section in sections if section[1]]


# -- Markdown -----------------------------------------------------------------------------------------------------------


def markdown() -> str:
    """Return docs/reference/cli.md."""
    return "\n".join(_markdown()).rstrip("\n") + "\n"


def _markdown() -> Iterator[str]:
    yield "# Command line"
    yield ""
    yield "Made from the program by `make reference`. `bulkimg COMMAND --help` shows the same; where a command has rarely used"
    yield "options, `--help-all` shows them too."
    yield ""
    yield "Most options can also be set in the environment, a job file or a profile: [settings](jobs.md)."
    yield ""
    for name in COMMANDS:
        usage, what, sections = _sections(name)
        yield f"## bulkimg {name}"
        yield ""
        yield what
        yield ""
        yield "```text"
        yield usage
        yield "```"
        yield ""
        for title, records in sections:
            yield from _table(title, records)


def _table(title: str, records: Records) -> Iterator[str]:
    heads = {
        "Examples": ("command", "what for"),
        "Exit codes": ("code", "meaning"),
        "Arguments": ("argument", "meaning"),
    }
    left, right = heads.get(title, ("option", "meaning"))
    yield f"**{title}**"
    yield ""
    yield f"| {left} | {right} |"
    yield "|---|---|"
    for term, meaning in records:
        shown = meaning.replace("<empty>", "`<empty>`")
        yield f"| `{term}` | {shown} |".replace("N|N%", "N\\|N%")
    yield ""


# -- man pages ----------------------------------------------------------------------------------------------------------


def man_pages() -> Mapping[str, str]:
    """Return every man page by its file's name."""
    pages = {"bulkimg.1": _man("bulkimg", "bulkimg [OPTIONS] COMMAND [ARGS]...", _TOP, [("Commands", _commands())])}
    for name in COMMANDS:
        usage, what, sections = _sections(name)
        pages[f"bulkimg-{name}.1"] = _man(f"bulkimg-{name}", usage, what, sections)
    return pages


_TOP = "Bulk updates of cloud images: a manifest in, throttled concurrent PUTs, one honest outcome for every row."


def _commands() -> Records:
    return [(f"bulkimg-{name}(1)", what) for name, (_, what) in COMMANDS.items()]


def _man(name: str, usage: str, what: str, sections: Sequence[Section]) -> str:
    lines = [
        f'.TH "{_roff(name.upper())}" "1" "" "bulkimg {__version__}" "bulkimg"',
        ".SH NAME",
        f"{_roff(name)} \\- {_roff(what.partition('. ')[0].rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {_roff(usage)}",
        ".SH DESCRIPTION",
        _roff(what),
    ]
    for title, records in sections:
        lines.append(f".SH {title.upper()}")
        for term, meaning in records:
            lines += [".TP", f"\\fB{_roff(term)}\\fR", _roff(meaning)]
    lines += [".SH SEE ALSO", "bulkimg help, bulkimg help TOPIC"]
    return "\n".join(lines) + "\n"


def _roff(text: str) -> str:
    """Escape a text for roff: backslashes, hyphens to copy, and a period or quote at the beginning of a line."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...").replace("→", "->")
    return f"\\&{text}" if text.startswith((".", "'")) else text


# -- completion ---------------------------------------------------------------------------------------------------------


def completions() -> Mapping[str, str]:
    """Return each shell's completion script by its file's name."""
    from typer._completion_shared import get_completion_script

    return {
        file: get_completion_script(prog_name="bulkimg", complete_var="_BULKIMG_COMPLETE", shell=shell).rstrip("\n")
        + "\n"
        for shell, file in SHELLS.items()
    }


def files() -> Mapping[Path, str]:
    """Return all files by their place."""
    found = {DOCS / "reference" / "cli.md": markdown()}
    found |= {DOCS / "man" / name: text for name, text in man_pages().items()}
    return found | {DOCS / "completion" / name: text for name, text in completions().items()}


if __name__ == "__main__":
    for path, text in files().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
