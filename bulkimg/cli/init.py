"""`bulkimg init`: a commented job file to start from."""

import json
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from bulkimg.cli import screen
from bulkimg.cli.options import Flags, user_path, with_options
from bulkimg.errors import UsageError


@with_options()
def command(
    flags: Flags,
    file: Annotated[
        str, typer.Argument(metavar="[FILE]", help="A file that does not exist yet; default: standard output.")
    ] = "-",
) -> None:
    """On standard output, or in a file that does not exist yet."""
    text = resources.files("bulkimg.cli").joinpath("job.toml").read_text("utf-8")
    if file == "-":
        screen.out(text.rstrip("\n"))
        return
    if not Path(file).stem or not file.lower().endswith(".toml"):
        raise UsageError(f"{file!r}: a job file's name ends in .toml; choose a name such as job.toml")
    stem = Path(file).stem
    text = text.replace('name = "relabel"', f"name = {json.dumps(stem)}").replace("job.toml", Path(file).name)
    try:
        with user_path(file).open("x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        raise UsageError(f"{file}: exists already and is left as it is; choose another name") from None
    except OSError as error:
        raise UsageError(f"{file}: cannot be written: {error.strerror}") from None
    screen.note(screen.one_line(f"{file} written. Edit it, then: bulkimg run {file} --dry-run"))
