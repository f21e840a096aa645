"""The plots of a leaderboard, one file a plot, in the style of style.py."""
