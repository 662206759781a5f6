"""The table and the picture of docs/planning.md, from the command itself.

    python docs/planning/figures.py

Prints the table in Markdown and writes docs/planning/scaling.png.
"""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from recipes import plan

HERE = Path(__file__).parent
CHECKPOINTED = ("t5-3b", "t5-11b")
MODELS = ("t5-base", "t5-large", *CHECKPOINTED)
BANDWIDTHS_GBIT = (400, 100)


def command(model: str, bandwidth_gbit: int) -> list[str]:
    overrides = [f"model.hub={model}"] + ["model.gradient_checkpointing=true"] * (model in CHECKPOINTED)
    link = ["--bandwidth-gbit", str(bandwidth_gbit)]
    return ["docs/planning/t5.yaml", *overrides, "--nodes", "16", "--gpu", "h100", *link, "--json"]


def rows(model: str, bandwidth_gbit: int) -> dict[tuple[int, int], dict]:
    """(stage, nodes) -> row of the command's JSON."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        assert plan.main(command(model, bandwidth_gbit)) == 0
    return {(row["stage"], row["num_nodes"]): row for row in json.loads(text.getvalue())["rows"]}


def main() -> None:
    found = {(model, link): rows(model, link) for model in MODELS for link in BANDWIDTHS_GBIT}
    _print_table(found)
    _draw(found)


def _print_table(found: dict) -> None:
    nodes = [1, 2, 4, 8, 16]
    print("| model | stage | GiB per GPU, 1 / 16 nodes |" + "".join(f" {n} |" for n in nodes))
    print("|---|---|---|" + "---|" * len(nodes))
    for model in MODELS:
        for stage in (1, 2, 3):
            fast, slow = (found[model, link] for link in BANDWIDTHS_GBIT)
            gib = " / ".join(f"{fast[stage, n]['memory']['peak_bytes'] / 2**30:.0f}" for n in (1, 16))
            cells = "".join(f" {_cell(fast[stage, n])} / {_cell(slow[stage, n])} |" for n in nodes)
            print(f"| {model} | {stage} | {gib} |{cells}")


def _cell(row: dict) -> str:
    return f"{row['update_s']:.2f} ({row['scaling_ratio']:.0%})" if row["fits"] else "does not fit"


def _draw(found: dict) -> None:
    figure = Figure(figsize=(9.6, 5.2), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(BANDWIDTHS_GBIT), len(MODELS), sharex=True, sharey=True)
    for line, link in zip(axes, BANDWIDTHS_GBIT, strict=True):
        for place, model in zip(line, MODELS, strict=True):
            for stage, colour in zip((1, 2, 3), ("tab:blue", "tab:orange", "tab:green"), strict=True):
                points = [(n, row) for (s, n), row in sorted(found[model, link].items()) if s == stage]
                numbers, shares = zip(*[(n, 100 * row["scaling_ratio"]) for n, row in points], strict=True)
                style = "-" if all(row["fits"] for _, row in points) else ":"
                place.plot(numbers, shares, style, color=colour, marker="o", markersize=3, label=f"ZeRO {stage}")
            place.axhline(70, color="0.6", linewidth=0.8)
            place.set_title(f"{model}, {link} Gbit/s", fontsize=9)
            place.set_xscale("log", base=2)
            place.set_xticks(numbers, [str(n) for n in numbers])
            place.set_ylim(0, 105)
            place.grid(alpha=0.3)
        line[0].set_ylabel("scaling, % of one node")
    for place in axes[-1]:
        place.set_xlabel("nodes of 8 H100")
    axes[0][0].legend(fontsize=8, loc="lower left")
    figure.savefig(HERE / "scaling.png", format="png", metadata={"Software": None})


if __name__ == "__main__":
    main()
