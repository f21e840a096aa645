"""The sections of the leaderboard's page: one file for each topic."""
