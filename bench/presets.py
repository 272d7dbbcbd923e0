"""Presets: the budgets under which results may be compared. A preset's name and values are part of a record's identity."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from bench.files import UserError

OPTIMISERS = ("sgd", "adam")
SCHEDULES = ("cosine", "step")
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class TrainingConfig:
    """How a classifier is trained.

    Args:
        width: Factor on the backbone's channels; 1 is the published network.
        frames: Frames of a window.
        sampling: How a window is cut: "uniform", "window" or "cyclic" (`ClipSet.windows`).
        rotate: Augmentation: random turn about the vertical, ± degrees.
        stretch: Augmentation: each axis scaled by 1 ± this share; wrong for whoever reads body size.
        epochs: Most passes over the training clips.
        most_steps: Most optimiser steps, 0 for no limit: large data sets get fewer epochs, or a part of one.
        least_steps: Fewest optimiser steps that the schedule plans for: small data sets get more epochs, and their patience and
            warm-up grow with them. `most_steps` goes before.
        patience: Epochs without a clearly better loss after which training ends early; 0 never ends early.
        batch: Clips of a batch.
        optimiser: "sgd" with Nesterov momentum 0.9, or "adam".
        lr: Peak learning rate.
        warmup: Epochs of linear warm-up.
        schedule: "cosine" to zero, or "step": times 0.1 at each of `steps`.
        steps: Epochs of the "step" schedule.
        weight_decay: Base weight decay; a backbone may scale it for some of its parameters.
        balanced: Whether the loss weighs classes by the inverse of their frequency.
        label_smoothing: Share of the target probability spread over all classes.
        clip_norm: Largest norm of the gradient; 0 does not limit it.
        choose_best: Whether the epoch with the lowest validation loss is kept, rather than the last (`train_classifier`).
        published: Whether a backbone is trained by its authors' own recipe, and with their gradients where those differ from the
            true ones.
        precision: Type of the products of a training: "float32", "bfloat16" (autocast), or "auto": bfloat16 on a GPU only.
    """

    width: float
    frames: int
    sampling: str
    rotate: float
    stretch: float
    epochs: int
    most_steps: int
    least_steps: int
    patience: int
    batch: int
    optimiser: str
    lr: float
    warmup: int
    schedule: str
    steps: tuple[int, ...]
    weight_decay: float
    balanced: bool
    label_smoothing: float
    clip_norm: float
    choose_best: bool
    published: bool
    precision: str

    def __post_init__(self) -> None:
        for name, choices in (("optimiser", OPTIMISERS), ("schedule", SCHEDULES), ("precision", PRECISIONS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")

    def fine_tuning(self) -> "TrainingConfig":
        """For a network that was trained before: a tenth of the rate, a third of the time."""
        third = {name: -(-getattr(self, name) // 3) for name in ("epochs", "most_steps", "least_steps", "patience", "warmup")}
        return replace(self, lr=self.lr / 10, steps=tuple(step // 3 for step in self.steps), **third)


@dataclass(frozen=True)
class Preset:
    """A budget.

    Args:
        name: Name on the command line.
        summary: One line for people.
        utility_backbone: Backbone of the action classifiers that measure utility.
        transfer: Attacker that learns the action instead of the person: utility for somebody whose classifier is of another kind
            than any network that an anonymizer was trained with.
        inverter: Network that undoes the anonymizer for the threat level of that name.
        attack: How neural attackers are trained.
        utility: How action classifiers are trained.
        seeds: Seeds that are run unless the user asks for another number.
        draws: Releases of a random anonymizer that are attacked with each seed, each with fresh randomness; models are
            trained once for all of them.
    """

    name: str
    summary: str
    utility_backbone: str
    transfer: str
    inverter: str
    attack: TrainingConfig
    utility: TrainingConfig
    seeds: int
    draws: int = 3

    def describe(self) -> dict[str, Any]:
        return asdict(self)


_QUICK = TrainingConfig(
    width=0.25,
    frames=32,
    sampling="uniform",
    rotate=15.0,
    stretch=0.0,
    epochs=30,
    most_steps=600,
    least_steps=400,
    patience=8,
    batch=16,
    optimiser="sgd",
    lr=0.1,
    warmup=2,
    schedule="cosine",
    steps=(),
    weight_decay=1e-4,
    balanced=False,
    label_smoothing=0.0,
    clip_norm=5.0,
    choose_best=True,
    published=False,
    precision="auto",
)
_STANDARD = replace(_QUICK, width=1.0, frames=64, epochs=60, most_steps=0, patience=0, batch=64, warmup=5)
# What the published recipes share; the rest is each backbone's own (`published_recipe`).
_PAPER = TrainingConfig(
    width=1.0,
    frames=300,
    sampling="cyclic",
    rotate=0.0,
    stretch=0.0,
    epochs=140,
    most_steps=0,
    least_steps=0,
    patience=0,
    batch=64,
    optimiser="sgd",
    lr=0.1,
    warmup=0,
    schedule="step",
    steps=(60, 80, 100),
    weight_decay=1e-4,
    balanced=False,
    label_smoothing=0.0,
    clip_norm=0.0,
    choose_best=False,
    published=True,
    precision="auto",
)


def _for_actions(config: TrainingConfig) -> TrainingConfig:
    """Actions are tested on unseen people: body size and bearing must not matter, as they must for an attacker."""
    return replace(config, rotate=30.0, stretch=0.2)


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "quick",
            "two CPU cores, minutes: for trying things out",
            "shift-gcn",
            "flat-svm:target=action",
            "temporal",
            _QUICK,
            _for_actions(_QUICK),
            seeds=1,
        ),
        Preset(
            "standard",
            "one GPU, hours: for results that others rely on",
            "shift-gcn",
            "flat-svm:target=action",
            "temporal",
            _STANDARD,
            _for_actions(_STANDARD),
            seeds=3,
        ),
        Preset(
            "paper",
            "the published recipes: 300 frames, full width, each backbone's own schedule",
            "shift-gcn",
            "flat-svm:target=action",
            "temporal",
            _PAPER,
            _PAPER,
            seeds=3,
        ),
    )
}


def get_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        UserError: if there is none.
    """
    if name not in PRESETS:
        raise UserError(f"no preset named {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def smoke_preset() -> Preset:
    """`quick` with a budget of seconds: what it measures says whether something runs, not how good it is."""
    quick = get_preset("quick")
    tiny = {"width": 0.1, "frames": 8, "epochs": 2, "most_steps": 6, "least_steps": 0, "batch": 8}
    budgets = {name: replace(getattr(quick, name), **tiny) for name in ("attack", "utility")}
    return replace(quick, name="smoke", summary="seconds, for checks", seeds=1, **budgets)
