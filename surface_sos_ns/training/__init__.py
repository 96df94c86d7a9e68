"""What is minimised, when, and by which steps: objective, losses, schedules, presets, optimiser, masks' reliability."""
