"""The schedules that are compared: all families, lengths in percent of the run, peaks relative to the task's."""

from __future__ import annotations

from typing import Any

_WARM = "5%"


def schedules(peak_lr: float, total_steps: int) -> dict[str, dict[str, Any]]:
    """Name -> the schedule block of a run."""
    at = {"half": 0.5 * peak_lr, "one": peak_lr, "twice": 2 * peak_lr}

    def one(decay: dict[str, Any], warmup: str | None = _WARM, peak: str = "one") -> dict[str, Any]:
        block = {"peak_lr": at[peak], "total_steps": total_steps, "decay": decay}
        return block | ({"warmup": {"steps": warmup}} if warmup else {})

    def cosine(t_max: str | None = None, eta_min: float = 0.0, **more: Any) -> dict[str, Any]:
        length = {"t_max": t_max} if t_max else {}
        return {"shape": "cosine", **length, "eta_min": eta_min * peak_lr, **more}

    def wsd(length: str, shape: str = "linear", eta_min: float = 0.0) -> dict[str, Any]:
        return {"shape": "wsd", "decay_steps": length, "decay_shape": shape, "eta_min": eta_min * peak_lr}

    def falling_to(ratio: float) -> dict[str, Any]:
        return {"shape": "exponential", "gamma": ratio ** (1 / (0.95 * total_steps))}

    return {
        "cosine": one(cosine()),
        "cosine eta_min 0.1": one(cosine(eta_min=0.1)),
        "cosine t_max 25% hold 0.1": one(cosine("25%", 0.1)),
        "cosine t_max 50% hold 0.01": one(cosine("50%", 0.01)),
        "cosine t_max 75% hold 0": one(cosine("75%")),
        "cosine t_max 45% rise": one(cosine("45%", after="rise")),
        "cosine t_max 30% restart": one(cosine("30%", after="restart")),
        "cosine warm-up 25%": one(cosine(), "25%"),
        "cosine no warm-up": one(cosine(), None),
        "cosine half the peak": one(cosine(), peak="half"),
        "cosine twice the peak": one(cosine(), peak="twice"),
        "step 30% x 0.3": one({"shape": "step", "step_size": "30%", "gamma": 0.3}),
        "multistep 50%, 75% x 0.1": one({"shape": "multistep", "milestones": ["50%", "75%"], "gamma": 0.1}),
        "multistep 75%, 85% x 0.2": one({"shape": "multistep", "milestones": ["75%", "85%"], "gamma": 0.2}),
        "exponential to 0.01": one(falling_to(0.01)),
        "exponential to 0.1": one(falling_to(0.1)),
        "inverse sqrt": one({"shape": "inverse_sqrt", "timescale": "5%"}),
        "wsd 10%": one(wsd("10%")),
        "wsd 20% 1-sqrt": one(wsd("20%", "1-sqrt")),
        "wsd 40%": one(wsd("40%")),
        "wsd 20% twice the peak": one(wsd("20%"), peak="twice"),
        "linear": one({"shape": "linear"}),
        "linear 40% then hold 0.05": one({"shape": "linear", "decay_steps": "40%", "eta_min": 0.05 * peak_lr}),
        "one_cycle up 30%": one({"shape": "one_cycle", "up_steps": "30%"}, None),
        "constant": one({"shape": "constant"}),
    }
