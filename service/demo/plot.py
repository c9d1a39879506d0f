"""The learning curve as a picture: loss and accuracy by round, of each hospital and of all together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from service.demo.lifecycle import TOGETHER, Scores

_SHOWN: Final = (("loss", "Loss"), ("accuracy", "Accuracy"))


def draw(
    path: Path,
    rounds: Mapping[int, Mapping[str, Scores]],
    names: Mapping[str, str],
    levels: Mapping[str, float],
) -> None:
    """Write a PNG. `names` are the sites' names for people, `levels` test accuracies to compare with."""
    # Without pyplot: no window system is looked for and nothing is kept when it is drawn.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    numbers = sorted(rounds)
    for axes, (metric, title) in zip(figure.subplots(1, 2), _SHOWN, strict=True):
        for site, name in names.items():
            values = [rounds[number].get(site, {}).get(metric, float("nan")) for number in numbers]
            wide = site == TOGETHER
            axes.plot(numbers, values, label=name, linewidth=2.6 if wide else 1.2, marker=".")
        axes.set_title(f"{title} on the hospitals' own held-back patients", fontsize=10)
        axes.set_xlabel("round")
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    for style, (name, level) in zip(("--", ":", "-."), levels.items(), strict=False):
        axes.axhline(level, color="grey", linestyle=style, label=f"{name}, test set: {level:.3f}")
    axes.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=130)
