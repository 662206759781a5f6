"""Draw the pictures of docs/schedules.md from the library itself.

    python docs/pictures.py [FOLDER]

One PNG per decay shape, one of the warm-ups, one of what nine libraries give for one request.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lrsched import Schedule
from lrsched.peers import peers

WARM = {"steps": 100}
# For each picture: the curves, by what the legend says of them.
PICTURES: dict[str, dict[str, dict[str, Any]]] = {
    "constant": {"constant": {"decay": {"shape": "constant"}}},
    "cosine": {
        "after: hold": {"decay": {"shape": "cosine", "t_max": 400, "eta_min": 1e-4}},
        "after: rise": {"decay": {"shape": "cosine", "t_max": 400, "eta_min": 1e-4, "after": "rise"}},
        "after: restart": {"decay": {"shape": "cosine", "t_max": 400, "eta_min": 1e-4, "after": "restart"}},
    },
    "cycles": {
        "cycle_mult: 2, cycle_gamma: 0.7": {
            "decay": {"shape": "cosine", "t_max": 128, "after": "restart", "cycle_mult": 2, "cycle_gamma": 0.7}
        },
    },
    "linear": {"eta_min: 1e-4": {"decay": {"shape": "linear", "eta_min": 1e-4}}},
    "polynomial": {f"power: {power}": {"decay": {"shape": "polynomial", "power": power}} for power in (0.5, 1, 2, 3)},
    "step": {"step_size: 300, gamma: 0.5": {"decay": {"shape": "step", "step_size": 300, "gamma": 0.5}}},
    "multistep": {
        "milestones: [300, 700], gamma: 0.3": {"decay": {"shape": "multistep", "milestones": [300, 700], "gamma": 0.3}}
    },
    "exponential": {"gamma: 0.997": {"decay": {"shape": "exponential", "gamma": 0.997}}},
    "inverse_sqrt": {
        "timescale: 300": {"warmup": {"steps": 0}, "decay": {"shape": "inverse_sqrt", "timescale": 300}},
        "timescale: 300, warm-up 100": {"decay": {"shape": "inverse_sqrt", "timescale": 300}},
        "hold: false, warm-up 100": {"decay": {"shape": "inverse_sqrt", "hold": False}},
    },
    "wsd": {
        f"decay_shape: {shape}": {"decay": {"shape": "wsd", "decay_steps": 300, "decay_shape": shape}}
        for shape in ("linear", "cosine", "1-sqrt")
    },
    "one_cycle": {
        name: {"warmup": {"steps": 0}, "decay": {"shape": "one_cycle", "up_steps": 300, **more}}
        for name, more in (
            ("anneal: cosine", {}),
            ("anneal: linear", {"anneal": "linear"}),
            ("three_phase: true", {"three_phase": True}),
        )
    },
    "piecewise": {
        "three pieces": {
            "decay": {
                "shape": "piecewise",
                "pieces": [
                    {"steps": 400, "decay": {"shape": "cosine", "eta_min": 1e-4}},
                    {"steps": 300, "peak_ratio": 0.6, "warmup": {"steps": 50}, "decay": {"shape": "linear"}},
                    {"peak_ratio": 0.1},
                ],
            }
        }
    },
    "warmups": {
        f"shape: {shape}": {"warmup": {"steps": 500, "shape": shape, "start_ratio": 0.1}}
        for shape in ("linear", "log", "cosine")
    },
}


def main(folder: Path) -> None:
    """Write all pictures to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, curves in PICTURES.items():
        drawn = {label: _curve(mapping) for label, mapping in curves.items()}
        _draw(folder / f"{name}.png", drawn, "optimizer update k", past=1000)
    _draw(folder / "libraries.png", _libraries(), "optimizer update k", past=10, style="o-")


def _curve(mapping: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    schedule = Schedule.from_dict({"peak_lr": 1e-3, "total_steps": 1000, "warmup": WARM, **mapping})
    k = np.arange(1200)
    return k, schedule.lr(k)


def _libraries() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    request = Schedule.from_dict(
        {"peak_lr": 1.0, "total_steps": 10, "warmup": {"steps": 4}, "decay": {"shape": "cosine"}}
    )
    k = np.arange(13)
    return {f"{peer.library} {peer.call}": (k, peer.values(k)) for peer in peers(request)}


def _draw(path: Path, curves: dict[str, tuple[np.ndarray, np.ndarray]], axis: str, past: int, style: str = "-") -> None:
    wide = len(curves) > 5
    figure = Figure(figsize=(9.0, 3.6) if wide else (6.4, 2.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colours = colormaps["tab20" if wide else "tab10"].colors
    for (label, (k, lr)), colour in zip(curves.items(), colours, strict=False):
        # Where curves lie on each other the earlier ones show as wider bands below.
        width = 6.0 - 0.4 * len(axes.lines) if wide else 1.3
        axes.plot(k, lr, color=colour, marker="o" if style == "o-" else "", markersize=3, linewidth=width, label=label)
    axes.axvspan(past, k[-1], color="0.93", zorder=0)
    axes.set(xlabel=f"{axis} (grey: past total_steps)", ylabel="learning rate")
    axes.set_ylim(bottom=0.0)
    axes.margins(x=0.0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="center left" if wide else "best", bbox_to_anchor=(1.01, 0.5) if wide else None)
    # No date or version inside: the same library draws the same file.
    figure.savefig(path, format="png", metadata={"Software": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("schedules"))
