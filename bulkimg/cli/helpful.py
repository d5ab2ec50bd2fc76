"""Commands with useful help: options in groups, rare ones on request, examples and exit codes at the end."""

from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from bulkimg.cli import manual, screen
from bulkimg.errors import UsageError
from bulkimg.values import nearest

ALL = "bulkimg.help_all"  # set in the context by --help-all


class HelpfulCommand(TyperCommand):
    """A command of bulkimg."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return `SOURCE` instead of Typer's `{SOURCE}`."""
        return [piece.strip("{}").replace("[[", "[").replace("]]", "]") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        shows_all = ctx.meta.get(ALL, False)
        arguments, groups, hidden = [], {name: [] for name in ("Options", *manual.GROUPS)}, 0  # type: ignore[var-annotated]
        for param in in_order(self.get_params(ctx)):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            if param.param_type_name == "argument":
                arguments.append(argument_record(record))
            elif str(param.name) in manual.RARE and not shows_all:
                hidden += 1
            else:
                groups[manual.group_of(str(param.name))].append(record)
        for title, records in [("Arguments", arguments), *groups.items()]:
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
        if hidden:
            formatter.write_paragraph()
            formatter.write_text(f"{hidden} rarely used options are shown by --help-all.")

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        for title, records in manual.closing(str(self.name)):
            with formatter.section(title):
                formatter.write_dl(records, col_max=52)


def in_order(params: list[Any]) -> list[Any]:
    """Return options in the order of their groups. Options without a group keep their place."""
    return sorted(params, key=lambda param: manual.place_of(str(param.name)))


def argument_record(record: tuple[str, str]) -> tuple[str, str]:
    """Return an argument's name and meaning, without its Python type."""
    return record[0].partition(" <")[0], record[1].removesuffix("  [required]")


def show_all(ctx: typer.Context, value: bool) -> None:
    """Print the help with all options, and exit: the callback of --help-all."""
    if value and not ctx.resilient_parsing:
        ctx.meta[ALL] = True
        screen.out(ctx.get_help())
        raise typer.Exit


HelpAll = Annotated[
    bool,
    typer.Option(
        "--help-all",
        is_eager=True,
        callback=show_all,
        help="Show this message with all options and exit.",
        show_default=False,
    ),
]


def refuse_command(name: str, known: list[str]) -> NoReturn:
    """Refuse a command that does not exist, and name the nearest one."""
    if name in {"version", "-v"}:
        raise UsageError(f"there is no command {name!r}; did you mean --version?")
    raise UsageError(f"there is no command {name!r}{nearest(name, known, whole=False)}; bulkimg --help lists them")
