"""Fair, reproducible benchmarks for deep metric learning, from images to a leaderboard."""

__version__ = "0.1.0"
