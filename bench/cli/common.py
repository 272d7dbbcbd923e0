"""What the commands share: the results folder, and how a user's mistake is told."""

import errno
from pathlib import Path
from typing import Any

import click

from bench.files import UserError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)


class FriendlyGroup(click.Group):
    """A group whose commands tell a user's mistake in one line and exit with 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"error: {' '.join(str(error).split())}", err=True)
            ctx.exit(2)
        except OSError as error:
            if error.errno in _NO_PLACE:
                what = error.filename or "what had to be written or read"
                click.echo(f"error: {what}: {error.strerror}; choose another place (--results is that of all results)", err=True)
                ctx.exit(2)
            if error.errno not in _NO_ROOM:
                raise
            what = error.filename or "what had to be written"
            click.echo(
                f"error: no room on the disk for {what}; what was finished is kept, and the same command goes on", err=True
            )
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo("stopped; what was finished is kept, and the same command goes on from there", err=True)
            ctx.exit(130)


results_option = click.option(
    "--results",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("results"),
    envvar="BENCH_RESULTS",
    show_default=True,
    show_envvar=True,
    help="Folder for everything that a run writes.",
)
json_option = click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Also write the rows as JSON; `-` writes them to standard output.",
)
