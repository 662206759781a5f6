"""Sweeps over schedules: search space, trials, rungs, scores."""
