"""The command line: thin commands; heavy packages are imported where they are used."""

from bench.cli.main import main

__all__ = ["main"]
