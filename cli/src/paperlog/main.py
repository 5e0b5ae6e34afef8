"""The command that people type. Each command is a thin call; what it does stands in its own module."""

from pathlib import Path
from typing import Annotated

import typer

from paperlog.up.command import up as run_up

app = typer.Typer(
    name="paperlog", help="Import a research library, search it, look at its graph.", no_args_is_help=True
)


@app.callback()
def paperlog() -> None:
    """Import a research library, search it, look at its graph."""


@app.command()
def up(
    data: Annotated[Path, typer.Option(help="Folder of this stack's log, store and files.")] = Path("var"),
    port: Annotated[int, typer.Option(help="Port of the API; 0 takes a free one.", min=0, max=65535)] = 8800,
    embedding: Annotated[
        str, typer.Option(help="Model of new projects, provider/model[@dims]; `local` needs no key.")
    ] = "local",
) -> None:
    """Run the whole stack here, in the foreground: Kafka, the services, the page."""
    raise typer.Exit(run_up(data, port, embedding))


def main() -> None:
    app()
