"""The plots of a leaderboard, one file for each, in the style of style.py."""
