import dataclasses
from dataclasses import dataclass

import pytest

from bench.registry import ANONYMIZERS, ATTACKERS, DATASETS, Registry
from bench.specs import Parameters, SpecError, describe_parameters, param, parse_spec, parse_specs


@dataclass(frozen=True)
class Sample(Parameters):
    """A plugin for tests."""

    std: float = param(0.5, "a length", unit="m", minimum=0, maximum=2)
    count: int = param(3, "a number", minimum=1)
    mode: str = param("fast", "a way", choices=("fast", "slow"))
    flag: bool = param(False, "a switch")


REGISTRY = Registry("sample", "samples", {"sample": f"{__name__}:Sample", "identity": "anonymizers.controls:Identity"})


def test_parameters_are_parsed_by_type():
    spec = parse_spec("sample:std=1, count=7 ,mode=slow,flag=TRUE", REGISTRY)
    assert spec.parameters == {"std": 1.0, "count": 7, "mode": "slow", "flag": True}
    assert str(spec) == "sample:std=1,count=7,mode=slow,flag=true"
    assert parse_spec(str(spec), REGISTRY).digest == spec.digest


def test_a_shown_parameter_is_named_even_at_its_default():
    assert str(parse_spec("gauss", ANONYMIZERS)) == "gauss:std=0.05"


def test_defaults_are_part_of_the_digest_but_not_of_the_text():
    assert str(parse_spec("sample:std=0.5", REGISTRY)) == "sample"
    assert parse_spec("sample:std=0.5", REGISTRY).digest == parse_spec("sample", REGISTRY).digest
    assert parse_spec("sample:std=0.6", REGISTRY).digest != parse_spec("sample", REGISTRY).digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sampel", "no sample named 'sampel'; did you mean sample"),
        ("sample:sdt=1", "has no parameter 'sdt'; did you mean std"),
        ("sample:zzz=1", "it has std, count, mode, flag"),
        ("identity:x=1", "has no parameter 'x'; it has none"),
        ("sample:std=abc", "std must be a number, got 'abc'"),
        ("sample:std=nan", "std must be a number, got nan"),
        ("sample:std=-1", "std must be between 0 and 2 m, got -1"),
        ("sample:count=0", "count must be at least 1, got 0"),
        ("sample:count=1.5", "count must be a whole number, got '1.5'"),
        ("sample:mode=slwo", "mode must be one of fast, slow, got 'slwo'; did you mean slow"),
        ("sample:flag=perhaps", "flag must be true or false, got 'perhaps'"),
        ("sample:std", "'std' is not of the form key=value"),
        ("sample:std=1,std=2", "std is given twice"),
    ],
)
def test_a_mistake_is_named_in_one_line(text, message):
    with pytest.raises(SpecError) as error:
        parse_spec(text, REGISTRY)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_lists_keep_order_drop_repeats_and_continue_parameters():
    specs = parse_specs("sample:std=1,count=2,identity,sample", REGISTRY)
    assert [str(s) for s in specs] == ["sample:std=1,count=2", "identity", "sample"]
    assert [str(s) for s in parse_specs("identity,sample,identity", REGISTRY)] == ["identity", "sample"]
    assert [str(s) for s in parse_specs("all", REGISTRY)] == ["sample", "identity"]
    with pytest.raises(SpecError, match="name at least one sample"):
        parse_specs(" , ", REGISTRY)


def test_value_types_are_checked_without_the_parser_too():
    with pytest.raises(ValueError, match="count must be a whole number"):
        Sample(count=True)
    assert Sample(std=1).std == 1.0


@pytest.mark.parametrize("registry", [ANONYMIZERS, ATTACKERS, DATASETS], ids=lambda r: r.kind)
def test_every_parameter_of_every_plugin_is_documented_and_checked(registry):
    for plugin in registry.plugins():
        if plugin.name == registry.chain:
            continue
        wraps = any(field.default is dataclasses.MISSING for field in dataclasses.fields(plugin.load()))
        spec = parse_spec(f"{plugin.name}:gauss" if wraps else plugin.name, registry)
        assert dataclasses.is_dataclass(spec.value)
        assert str(spec).partition(":")[0] == plugin.name
        assert parse_spec(str(spec), registry).digest == spec.digest
        for entry in describe_parameters(type(spec.value)):
            assert entry["doc"], f"{plugin.name}.{entry['name']}"


@dataclass(frozen=True)
class Optional(Parameters):
    """A plugin whose parameter may be left open, and one that names a file."""

    rate: float | None = param(None, "a rate", minimum=0)
    weights: str = param("", "a file", file=True)
    level: float = param(1.0, "a level", strength=True)


OPTIONAL = Registry("sample", "samples", {"optional": f"{__name__}:Optional"})


def test_a_parameter_may_be_left_open():
    assert parse_spec("optional", OPTIONAL).value.rate is None
    assert parse_spec("optional:rate=2", OPTIONAL).value.rate == 2.0
    with pytest.raises(SpecError, match="rate must be at least 0"):
        parse_spec("optional:rate=-1", OPTIONAL)
    with pytest.raises(SpecError, match="rate must be a number"):
        parse_spec("optional:rate=much", OPTIONAL)


def test_a_file_counts_by_its_content(tmp_path):
    for name, text in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / name).write_text(text)
    a, b, c = (parse_spec(f"optional:weights={tmp_path / name}", OPTIONAL) for name in "abc")
    assert a.digest == b.digest != c.digest


def test_a_family_differs_in_strength_only():
    weak, strong, other = (parse_spec(f"optional:{text}", OPTIONAL) for text in ("level=1", "level=2", "level=1,rate=1"))
    assert weak.family == strong.family != other.family
    assert str(weak) == "optional:level=1"
    assert weak.strength.name == "level"
    assert parse_spec("identity", ANONYMIZERS).strength is None


def test_a_plugin_that_cannot_be_chained_says_so():
    with pytest.raises(SpecError, match="cannot be joined"):
        parse_spec("optional+optional", OPTIONAL)


def test_a_value_may_hold_a_plus_where_nothing_can_be_joined():
    spec = parse_spec("sgn-reid:streams=joint+bone", ATTACKERS)
    assert spec.value.streams == "joint+bone"
    assert parse_spec(str(spec), ATTACKERS) == spec
    with pytest.raises(SpecError, match="cannot be joined"):
        parse_spec("sgn-reid + bones-lda", ATTACKERS)
