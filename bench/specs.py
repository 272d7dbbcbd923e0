"""Plugin specifications: `name:key=value,key=value` to a typed, checked, frozen dataclass and back, and their digests.

A plugin is a frozen dataclass whose fields are its hyper-parameters, each declared with `param`: default, unit, meaning
and range stand in one place, from which checks, help texts and digests are all derived.
"""

import dataclasses
import difflib
import math
import typing
from dataclasses import dataclass
from typing import Any

from bench.files import UserError, digest
from bench.registry import Plugin, Registry


class SpecError(UserError):
    """A specification names an unknown plugin or parameter, or gives a value out of range."""


def param(
    default: Any,
    doc: str,
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[Any, ...] = (),
    shown: bool = False,
) -> Any:
    """A field of a plugin: its default, meaning, unit and range (both ends included).

    `shown` parameters, such as the strength of a method, are part of its name in tables even at their default.
    """
    metadata = {"doc": doc, "unit": unit, "minimum": minimum, "maximum": maximum, "choices": choices, "shown": shown}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Parameters:
    """Base of every plugin: checks each field's type and range when it is made.

    Raises:
        ValueError: if a value has the wrong type or lies outside its range; the message names the parameter.
    """

    def __post_init__(self) -> None:
        for field, kind in _fields(type(self)):
            value = _checked(field, kind, getattr(self, field.name))
            object.__setattr__(self, field.name, value)


def _fields(plugin: type) -> list[tuple[dataclasses.Field, type]]:
    kinds = typing.get_type_hints(plugin)
    return [(field, kinds[field.name]) for field in dataclasses.fields(plugin)]


def _checked(field: dataclasses.Field, kind: type, value: Any) -> Any:
    meta = field.metadata
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise ValueError(f"{field.name} must be {_kind_name(kind)}, got {value!r}")
    choices, low, high = meta.get("choices", ()), meta.get("minimum"), meta.get("maximum")
    if choices and value not in choices:
        close = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"{field.name} must be one of {', '.join(map(str, choices))}, got {value!r}{hint}")
    if (low is not None and value < low) or (high is not None and value > high):
        unit = f" {meta['unit']}" if meta.get("unit") else ""
        span = (
            f"between {low} and {high}" if None not in (low, high) else f"at least {low}" if high is None else f"at most {high}"
        )
        raise ValueError(f"{field.name} must be {span}{unit}, got {value}")
    return value


def _kind_name(kind: type) -> str:
    return {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}[kind]


def _parse_value(field: dataclasses.Field, kind: type, text: str) -> Any:
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        return kind(text)
    except (ValueError, KeyError):
        raise ValueError(f"{field.name} must be {_kind_name(kind)}, got {text!r}") from None


@dataclass(frozen=True)
class Spec:
    """A plugin with its parameters: all that determines what it does, apart from data and seed.

    Args:
        plugin: The registry entry.
        value: The plugin's own frozen dataclass.
    """

    plugin: Plugin
    value: Any

    @property
    def parameters(self) -> dict[str, Any]:
        """Every parameter with its value, defaults included."""
        return dataclasses.asdict(self.value)

    def __str__(self) -> str:
        """Canonical text: the name, the parameters that are always shown and those that differ from their defaults."""
        changed = [
            f"{field.name}={_text(getattr(self.value, field.name))}"
            for field in dataclasses.fields(self.value)
            if field.metadata.get("shown") or getattr(self.value, field.name) != field.default
        ]
        return self.plugin.name + (":" + ",".join(changed) if changed else "")

    def describe(self) -> dict[str, Any]:
        """What a record states about the plugin; `code` changes when a plugin's author says that its results do."""
        return {
            "name": self.plugin.name,
            "provider": self.plugin.provider,
            "code": getattr(self.value, "code_version", 1),
            "parameters": self.parameters,
        }

    @property
    def digest(self) -> str:
        return digest(self.describe())


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def parse_spec(text: str, registry: Registry) -> Spec:
    """Parses `name` or `name:key=value,key=value`.

    Raises:
        SpecError: if the name or a key is unknown, a value has the wrong type or is out of range, or a key is given twice.
    """
    name, _, rest = text.strip().partition(":")
    try:
        plugin = registry[name]
        loaded = plugin.load()
    except (LookupError, ImportError) as error:
        raise SpecError(str(error)) from error
    fields = {field.name: (field, kind) for field, kind in _fields(loaded)}
    values: dict[str, Any] = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise SpecError(f"{registry.kind} {text!r}: {item!r} is not of the form key=value")
        if key not in fields:
            close = difflib.get_close_matches(key, fields)
            known = f"it has {', '.join(fields)}" if fields else "it has none"
            raise SpecError(
                f"{registry.kind} {name!r} has no parameter {key!r}; {f'did you mean {close[0]}?' if close else known}"
            )
        if key in values:
            raise SpecError(f"{registry.kind} {text!r}: {key} is given twice")
        try:
            values[key] = _parse_value(*fields[key], value)
        except ValueError as error:
            raise SpecError(f"{registry.kind} {name!r}: {error}") from error
    try:
        return Spec(plugin, loaded(**values))
    except ValueError as error:
        raise SpecError(f"{registry.kind} {name!r}: {error}") from error


def parse_specs(text: str, registry: Registry) -> list[Spec]:
    """Parses a comma list of specs, or `all`. A comma after a parameter continues the parameters if a `key=` follows.

    `gauss:std=0.05,identity` is two specs; `gauss:std=0.05,x=1` is one. Equal specs are kept once.

    Raises:
        SpecError: as `parse_spec`, or if the list is empty.
    """
    if text.strip() == "all":
        return [parse_spec(name, registry) for name in registry.names()]
    parts: list[str] = []
    for item in filter(None, (piece.strip() for piece in text.split(","))):
        head = item.partition(":")[0]
        if parts and "=" in head:
            parts[-1] += ("," if ":" in parts[-1] else ":") + item
        else:
            parts.append(item)
    if not parts:
        raise SpecError(f"name at least one {registry.kind}; there are {', '.join(registry.names())}")
    specs = [parse_spec(part, registry) for part in parts]
    return list({spec.digest: spec for spec in specs}.values())


def describe_parameters(plugin: type) -> list[dict[str, Any]]:
    """Name, type, default, unit, range and meaning of each parameter of a plugin class."""
    return [
        {"name": field.name, "type": kind.__name__, "default": field.default, **field.metadata} for field, kind in _fields(plugin)
    ]
