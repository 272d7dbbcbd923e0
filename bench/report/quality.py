"""Figure of what `bench data check` found."""

import numpy as np
from matplotlib.figure import Figure

from bench.data.quality import ABSENT, UNSTABLE, Quality


def quality_figure(quality: Quality, title: str) -> Figure:
    """Histograms of lengths, absent frames and bone lengths, and clips of each person."""
    figure = Figure(figsize=(9, 6), layout="constrained", dpi=110)
    (lengths, absent), (bones, people) = figure.subplots(2, 2)
    lengths.hist(quality.lengths, bins=40, color="#0072B2")
    lengths.set(xlabel="frames", ylabel="clips")
    absent.hist([clip.absent for clip in quality.clips], bins=np.linspace(0, 1, 41), color="#0072B2", log=True)
    absent.axvline(ABSENT, color="#D55E00", linestyle="--", linewidth=1)
    absent.set(xlabel="share of frames without a body", ylabel="clips")
    variations = np.array([clip.unstable for clip in quality.clips])
    bones.hist(variations[np.isfinite(variations)], bins=40, color="#0072B2")
    bones.axvline(UNSTABLE, color="#D55E00", linestyle="--", linewidth=1)
    bones.set(xlabel="variation of bone lengths within a clip", ylabel="clips")
    counts = sorted(quality.counts["subject"].values(), reverse=True)
    people.bar(range(1, len(counts) + 1), counts, color="#0072B2")
    people.set(xlabel="people, most clips first", ylabel="clips")
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return figure
