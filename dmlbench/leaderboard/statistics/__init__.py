"""The statistics of a leaderboard: which losses differ, and how sure that is."""
