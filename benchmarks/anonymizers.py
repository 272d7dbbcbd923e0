"""Speed of anonymizers: frames a second and core, and what adversarial training costs beyond the passes that it needs.

python -m benchmarks.anonymizers                 # every anonymizer but the wrappers
python -m benchmarks.anonymizers --training      # the adversarial game against its bare forward and backward passes
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from anonymizers.minimax import Game, Terms, entropy
from bench.anonymizer import Examples, anonymize
from bench.data.clips import ClipSet
from bench.data.synthetic import Synthetic
from bench.presets import Preset, get_preset
from bench.protocols import Part
from bench.registry import ANONYMIZERS
from bench.skeleton import get_layout
from bench.specs import parse_specs

CLIPS = 128


def examples(preset: Preset) -> Examples:
    """Synthetic clips, all of which may be learnt from; every fourth is held out."""
    people = Synthetic(people=4, motions=8, replications=2, cameras=2)
    made = [(clip, labels) for clip, labels in people.clips()][:CLIPS]
    lengths = torch.tensor([clip.shape[1] for clip, _ in made])
    rows = torch.from_numpy(np.concatenate([clip[..., 0].transpose(1, 0, 2) for clip, _ in made]))
    names = np.array([labels["clip"] for _, labels in made], dtype=object)
    layout = get_layout(Synthetic.layout)
    clips = ClipSet(
        rows - rows[:, :, 1:2], lengths.cumsum(0) - lengths, lengths, torch.ones_like(lengths), names, layout, 1, 30.0
    )
    count = np.arange(len(made))
    held = count % 4 == 0
    parts = {}
    who = np.array([labels["subject"] - 1 for _, labels in made])
    for target in ("action", "subject"):
        codes = np.array([labels[target] - 1 for _, labels in made])
        classes = tuple(range(codes.max() + 1))
        parts[target] = Part(target, classes, codes, count[~held], count[held], count[:0], who, count)
    return Examples(clips, parts, preset, seed=0)


def short(preset: Preset) -> Preset:
    """The preset with next to no training: what is learnt does not change how fast it is applied."""
    return replace(preset, **{name: replace(getattr(preset, name), epochs=1, most_steps=2) for name in ("attack", "utility")})


def median_seconds(run: Callable[[], object], rounds: int) -> float:
    run()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def transforms(names: str, rounds: int) -> None:
    found = examples(short(get_preset("quick")))
    frames = int(found.clips.lengths.sum())
    labels = found.release_labels()
    print(f"{len(found.clips)} clips, {frames} frames of {found.clips.layout.num_joints} joints, one thread, median of {rounds}")
    for spec in parse_specs(names, ANONYMIZERS):
        state = spec.value.fit(found).state
        run = lambda: anonymize(spec.value, state, found.clips, seed=0, draw="holder/0", labels=labels)  # noqa: B023, E731
        kind = "learned" if spec.plugin.name in ("adversarial", "dmr", "pmr") else ""
        print(f"{spec!s:<40} {frames / median_seconds(run, rounds):>12,.0f} frames/s  {kind}", flush=True)


def training(rounds: int) -> None:
    """One turn of each side, as played, against the same passes written out bare."""
    found = examples(get_preset("quick"))
    found = replace(found, preset=short(found.preset))
    game = Game(
        found,
        "resnet-signed",
        Terms(1.0, 500.0, 0.0),
        action=("shift-gcn", ""),
        privacy="shift-gcn",
        private=("subject",),
        lr=0.01,
        minimization_steps=1,
    )
    f, h, g = game.anonymizer, game.action.model, game.privacy[0].model
    movers = [torch.optim.Adam(f.parameters(), lr=1e-4), torch.optim.SGD(g.parameters(), lr=1e-4)]
    indices = game.train[: game.config.batch]
    windows = game.clips.windows(indices, game.config.frames, game.config.sampling)

    def played() -> None:
        game._minimise(indices, movers[0], None)
        game._maximise(indices, movers[1:])

    def bare() -> None:
        for model in (h, g):
            model.requires_grad_(False).eval()
        out = f(windows)
        action = torch.nn.functional.cross_entropy(h(out), game.action.labels[indices])
        (action - entropy(g(out)) + (out - windows).square().mean()).backward()
        g.requires_grad_(True).train()
        with torch.no_grad():
            out = f(windows)
        torch.nn.functional.cross_entropy(g(out), game.privacy[0].labels[indices]).backward()

    ratios = []
    for _ in range(rounds):
        needed, taken = median_seconds(bare, 10), median_seconds(played, 10)
        ratios.append(taken / needed)
        print(f"bare passes {1000 * needed:.1f} ms, a turn of each side {1000 * taken:.1f} ms: {ratios[-1]:.2f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anonymizers", default="all", help="comma list, or all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--training", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    training(options.rounds) if options.training else transforms(options.anonymizers, options.rounds)


if __name__ == "__main__":
    main()
