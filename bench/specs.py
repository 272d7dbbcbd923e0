"""Plugin specifications: `name:key=value,key=value` to a typed, checked, frozen dataclass and back, and their digests.

A plugin is a frozen dataclass whose fields are its hyper-parameters, each declared with `param`: default, unit, meaning
and range stand in one place, from which checks, help texts and digests are all derived.

A *wrapper* is a plugin with a field of type `Spec`: another plugin that it wraps, written between its name and its own
parameters (`blend:gauss:std=0.1:0.2`). A *chain* has a field of type `tuple[Spec, ...]` and is written `first+second`.
Parentheses group: `blend:(gauss+smooth):0.2`.
"""

import dataclasses
import difflib
import itertools
import math
import re
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.files import UserError, digest, file_digest
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
    strength: bool = False,
    file: bool = False,
) -> Any:
    """A field of a plugin: its default, meaning, unit and range (both ends included).

    `shown` parameters are part of a method's name in tables even at their default. So is its `strength`, of which it has at most
    one: the parameter along which it trades use for privacy, drawn as a curve. A `file`
    is named by its path, "" for none, and stands in digests by its content.
    """
    meaning = {"doc": doc, "unit": unit, "shown": shown or strength, "strength": strength, "file": file}
    metadata = {**meaning, "minimum": minimum, "maximum": maximum, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


def wrapped(doc: str) -> Any:
    """The field of a wrapper, or of a chain, that holds what it wraps; it has no default."""
    return dataclasses.field(metadata={"doc": doc})


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


def _checked(field: dataclasses.Field, kind: Any, value: Any) -> Any:
    meta = field.metadata
    if _nests(kind):
        return value
    if isinstance(kind, types.UnionType):  # a type or None
        if value is None:
            return None
        kind = _plain(kind)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise ValueError(f"{field.name} must be {_kind_name(kind)}, got {value!r}")
    if meta.get("file") and value and not Path(value).is_file():
        raise ValueError(f"{field.name} names no file: {value}")
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


def _nests(kind: Any) -> bool:
    return kind is Spec or typing.get_origin(kind) is tuple


def _plain(kind: Any) -> type:
    """The type of a value that is given: of `float | None`, float."""
    return typing.get_args(kind)[0] if isinstance(kind, types.UnionType) else kind


def _kind_name(kind: type) -> str:
    return {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}[kind]


def _parse_value(field: dataclasses.Field, kind: Any, text: str) -> Any:
    kind = _plain(kind)
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
        """Every parameter with its value, defaults included; of a wrapped plugin, what it states about itself."""
        return {field.name: _described(field, getattr(self.value, field.name)) for field in dataclasses.fields(self.value)}

    @property
    def strength(self) -> dataclasses.Field | None:
        """The parameter along which it trades use for privacy, if it has one."""
        return next((field for field in dataclasses.fields(self.value) if field.metadata.get("strength")), None)

    @property
    def family(self) -> str:
        """Digest of all but the strength: equal for plugins that differ in nothing else."""
        stated = self.describe()
        if self.strength:
            stated["parameters"] = {name: value for name, value in stated["parameters"].items() if name != self.strength.name}
        return digest(stated)

    def __str__(self) -> str:
        """Canonical text: the name, the parameters that are always shown and those that differ from their defaults."""
        parts, changed = [self.plugin.name], []
        for field, kind in _fields(type(self.value)):
            value = getattr(self.value, field.name)
            if kind is Spec:
                parts.append(f"({value})" if value.is_chain else str(value))
            elif _nests(kind):
                return "+".join(str(step) for step in value)
            elif field.metadata.get("shown") or value != field.default:
                changed.append(f"{field.name}={_text(value)}")
        return ":".join([*parts, ",".join(changed)] if changed else parts)

    def with_value(self, name: str, value: Any) -> "Spec":
        """The same plugin with another value of one parameter.

        Raises:
            SpecError: if it has no such parameter, or the value is out of its range.
        """
        if name not in self.parameters:
            raise SpecError(f"{self.plugin.name} has no parameter {name}; it has {', '.join(self.parameters) or 'none'}")
        try:
            return dataclasses.replace(self, value=dataclasses.replace(self.value, **{name: value}))
        except ValueError as error:
            raise SpecError(f"{self.plugin.name}: {error}") from error

    @property
    def is_chain(self) -> bool:
        """Whether it is several plugins, one after the other."""
        return any(typing.get_origin(kind) is tuple for _, kind in _fields(type(self.value)))

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


def _described(field: dataclasses.Field, value: Any) -> Any:
    if isinstance(value, Spec):
        return value.describe()
    if isinstance(value, tuple):
        return [step.describe() for step in value]
    return {"sha256": file_digest(Path(value))} if field.metadata.get("file") and value else value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def parse_spec(text: str, registry: Registry) -> Spec:
    """Parses `name`, `name:key=value,key=value`, `wrapper:<spec>:key=value`, or `first+second`.

    A wrapper's own parameters are what stands behind the last colon, if it is all of the form key=value with keys of its own; a
    bare number there is its strength.

    Raises:
        SpecError: if the name or a key is unknown, a value has the wrong type or is out of range, or a key is given twice.
    """
    text = _without_parentheses(text, registry)
    steps = _split(text, r"\+(?=\s*[a-z(])")
    if len(steps) > 1 and (registry.chain or ":" not in steps[0]):  # a value may hold a + where nothing can be joined
        if not registry.chain:
            raise SpecError(f"{registry.kind} {text!r}: several cannot be joined with +")
        plugin, loaded = _load(registry.chain, registry)
        parsed = [parse_spec(step, registry) for step in steps]
        flat = [inner for step in parsed for inner in (step.value.steps if step.is_chain else (step,))]
        return Spec(plugin, loaded(steps=tuple(flat)))
    name, _, rest = text.partition(":")
    plugin, loaded = _load(name, registry)
    fields = {field.name: (field, kind) for field, kind in _fields(loaded)}
    if name == registry.chain:
        raise SpecError(f"write several {registry.kind}s one after the other as first+second")
    inner = next((key for key, (_, kind) in fields.items() if kind is Spec), None)
    values: dict[str, Any] = {}
    if inner is not None:
        wrapped_text, rest = _wrapped_and_own(rest, fields)
        if not wrapped_text:
            raise SpecError(f"{registry.kind} {name!r} wraps another one: {name}:<{registry.kind}>:key=value")
        values[inner] = parse_spec(wrapped_text, registry)
    own = [key for key in fields if key != inner]
    for item in filter(None, _split(rest, ",")):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise SpecError(f"{registry.kind} {text!r}: {item!r} is not of the form key=value")
        if key not in own:
            close = difflib.get_close_matches(key, own)
            known = f"it has {', '.join(own)}" if own else "it has none"
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


def name_in_tables(text: str, registry: Registry) -> str:
    """The name that tables have for what a text asks for, as `gauss:std=0.05` for `gauss`; the text where it asks for nothing."""
    try:
        return str(parse_spec(text, registry))
    except SpecError:
        return text


def _load(name: str, registry: Registry) -> tuple[Plugin, Any]:
    try:
        plugin = registry[name]
        return plugin, plugin.load()
    except (LookupError, ImportError) as error:
        raise SpecError(str(error)) from error


def _wrapped_and_own(rest: str, fields: dict[str, tuple[dataclasses.Field, Any]]) -> tuple[str, str]:
    """What a wrapper wraps, and its own parameters as key=value."""
    pieces = _split(rest, ":")
    last = pieces[-1].strip()
    strength = next((key for key, (field, _) in fields.items() if field.metadata.get("strength")), None)
    if strength and re.fullmatch(r"[-+.\d]+(e[-+]?\d+)?", last):
        return ":".join(pieces[:-1]), f"{strength}={last}"
    keys = [item.partition("=")[0].strip() for item in _split(last, ",")] if "=" in last else []
    if keys and all(key in fields for key in keys):
        return ":".join(pieces[:-1]), last
    return rest, ""


def _split(text: str, pattern: str) -> list[str]:
    """Splits at what matches `pattern` outside parentheses."""
    depths = list(itertools.accumulate((c == "(") - (c == ")") for c in text))
    ends = [match.span() for match in re.finditer(pattern, text) if not depths[match.start()]]
    starts = [0, *(end for _, end in ends)]
    return [text[start:end] for start, end in zip(starts, [*(start for start, _ in ends), len(text)], strict=True)]


def _without_parentheses(text: str, registry: Registry) -> str:
    """The text without white space and parentheses around all of it.

    Raises:
        SpecError: if parentheses do not match.
    """
    text = text.strip()
    depths = list(itertools.accumulate((c == "(") - (c == ")") for c in text))
    if text and (min(depths) < 0 or depths[-1]):
        raise SpecError(f"{registry.kind} {text!r}: the parentheses do not match")
    enclosed = len(depths) > 1 and min(depths[:-1]) > 0
    return _without_parentheses(text[1:-1], registry) if enclosed else text


def parse_specs(text: str, registry: Registry) -> list[Spec]:
    """Parses a comma list of specs, or `all`. A comma after a parameter continues the parameters if a `key=` follows.

    `gauss:std=0.05,identity` is two specs; `gauss:std=0.05,x=1` is one. Equal specs are kept once. `all` leaves out wrappers:
    they need something to wrap.

    Raises:
        SpecError: as `parse_spec`, or if the list is empty.
    """
    if text.strip() == "all":
        return [parse_spec(name, registry) for name in registry.names() if not _is_wrapper(registry[name])]
    parts: list[str] = []
    for item in filter(None, (piece.strip() for piece in _split(text, ","))):
        head = item.partition(":")[0]
        if parts and "=" in head:
            parts[-1] += ("," if ":" in parts[-1] else ":") + item
        else:
            parts.append(item)
    if not parts:
        raise SpecError(f"name at least one {registry.kind}; there are {', '.join(registry.names())}")
    specs = [parse_spec(part, registry) for part in parts]
    return list({spec.digest: spec for spec in specs}.values())


def _is_wrapper(plugin: Plugin) -> bool:
    try:
        return any(_nests(kind) for _, kind in _fields(plugin.load()))
    except ImportError:
        return False  # it cannot be loaded, and whoever asks for it is told so


def describe_parameters(plugin: type) -> list[dict[str, Any]]:
    """Name, type, default, unit, range and meaning of each parameter of a plugin class; wrapped plugins are none."""
    return [
        {"name": field.name, "type": _plain(kind).__name__, "default": field.default, **field.metadata}
        for field, kind in _fields(plugin)
        if not _nests(kind)
    ]
