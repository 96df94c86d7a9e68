"""Objective, losses, schedules, presets, optimiser, weight average, colour metric, and reliability of masks."""
