"""Options that say what is to be evaluated and where; `run` and `plan` share them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bench.files import UserError


def _read_config(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Makes what a file sets the defaults of the other options: what is given on the command line goes before."""
    if path:
        from bench.experiment import read_settings

        group = context.parent.command if context.parent else None  # one file for `run` and for `plan`
        commands = [context.command, *([group.commands["run"]] if isinstance(group, click.Group) else [])]
        options = [p for command in commands for p in command.params if p.name != parameter.name]
        found = read_settings(path, list(dict.fromkeys(p.name for p in options)))
        flags = {p.name for p in options if p.is_flag}
        for name, value in found.items():
            if isinstance(value, bool) != (name in flags) or isinstance(value, dict):
                raise UserError(f"{path}: {name} must be {'true or false' if name in flags else 'a text, a number or a list'}")
        lists = {name: ",".join(map(str, value)) if isinstance(value, list) else value for name, value in found.items()}
        context.default_map = {**(context.default_map or {}), **lists}
    return path


def experiment_options(command: Callable) -> Callable:
    """What is to be evaluated."""
    options = (
        click.option(
            "--config",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            is_eager=True,
            expose_value=False,
            callback=_read_config,
            help="TOML file that sets options by their names; those on the command line go before.",
        ),
        click.option("--dataset", default="synthetic", show_default=True, metavar="NAME[:KEY=VALUE,...]", help="Data set."),
        click.option("--protocol", metavar="NAME", help="Split of the data set, its default one if not given; 5-fold, loso."),
        click.option(
            "--anonymizer", default="identity,null,gauss", show_default=True, metavar="A[,B...]", help="Anonymizers, or `all`."
        ),
        click.option(
            "--attacker",
            metavar="X[,Y...]",
            help="Attackers, or `all`. Default: shiftgcn-reid, bones-lda, flat-svm, gait-dyn, stats-rf; bones-lda for gender.",
        ),
        click.option(
            "--threat",
            default="ignorant,semi-informed",
            show_default=True,
            metavar="LEVEL[,...]",
            help="What the attackers know: ignorant, lazy-informed, semi-informed, inverter, or `all`.",
        ),
        click.option("--preset", default="quick", show_default=True, metavar="NAME", help="Budget: quick, standard or paper."),
        click.option("--seeds", type=int, help="Number of seeds; the preset's if not given."),
        click.option(
            "--controls/--no-controls", default=True, show_default=True, help="Also measure identity and null if not named."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def where_options(command: Callable) -> Callable:
    """Where it is to be computed."""
    options = (
        click.option("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda (all GPUs) or cuda:N."),
        click.option(
            "--executor",
            type=click.Choice(["local", "serial", "ray"]),
            default="local",
            show_default=True,
            help="Processes of this machine; this process alone; or Ray.",
        ),
        click.option("--workers", type=click.IntRange(1), help="Tasks at a time; by default one a core, or one a GPU."),
        click.option("--address", metavar="HOST:PORT", help="Ray cluster; by default one is started on this machine."),
        click.option(
            "--time-limit",
            type=click.FloatRange(0, min_open=True),
            metavar="SECONDS",
            help="Longest time of one stage, a day by default (not with --executor serial).",
        ),
        click.option(
            "--memory-limit",
            type=click.FloatRange(0, min_open=True),
            metavar="MB",
            help="Most memory of one worker; by default its share of nine tenths of what is free, or what Ray allows "
            "(not with --executor serial).",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def make_experiment(options: dict[str, Any]) -> Any:
    """Takes the options of `experiment_options` out of `options`.

    Raises:
        UserError: if there is no seed.
    """
    from bench.experiment import Experiment

    seeds = options.pop("seeds")
    if seeds is not None and seeds < 1:
        raise UserError(f"seeds must be at least 1, got {seeds}")
    names = ("dataset", "protocol", "anonymizer", "attacker", "threat", "preset", "controls")
    return Experiment(**{name: options.pop(name) for name in names}, seeds=None if seeds is None else tuple(range(seeds)))


def make_where(options: dict[str, Any]) -> Any:
    """Takes the options of `where_options` out of `options`.

    Raises:
        UserError: if a device is asked for that is not there, or a limit that the executor cannot keep.
    """
    from bench.devices import choose_devices, cluster_devices
    from bench.executors import Limits, Where

    executor = options.pop("executor")
    limits = {name: options.pop(option) for name, option in (("seconds", "time_limit"), ("memory_mb", "memory_limit"))}
    limits = {name: value for name, value in limits.items() if value is not None}
    if limits and executor == "serial":
        raise UserError("--time-limit and --memory-limit end a worker's process; --executor serial has none, local and ray have")
    devices = (cluster_devices if executor == "ray" else choose_devices)(options.pop("device"))
    return Where(executor, devices, options.pop("workers"), options.pop("address"), Limits(**limits))
