"""Runs beside each other: their folders, curves, differences, and the page. Reads only."""
