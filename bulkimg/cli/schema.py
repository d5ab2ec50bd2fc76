"""`bulkimg schema`: print JSON Schemas of what bulkimg reads and writes."""

from typing import Annotated

import typer

from bulkimg.cli import screen
from bulkimg.cli.options import Flags, with_options
from bulkimg.errors import UsageError
from bulkimg.report import schemas
from bulkimg.values import nearest


def complete_names(incomplete: str) -> list[tuple[str, str]]:
    """Complete names for the shell."""
    return [(name, text) for name, text in schemas.NAMES.items() if name.startswith(incomplete)]


@with_options()
def command(
    flags: Flags,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="The document.", autocompletion=complete_names)] = "",
) -> None:
    """Without a name, lists them."""
    if not name:
        screen.out(screen.table(list(schemas.NAMES.items())))
    elif name in schemas.NAMES:
        screen.out_json(schemas.schema(name))
    else:
        raise UsageError(f"there is no schema {name!r}{nearest(name, schemas.NAMES)}")
