"""What a study still has to do, why, how long it takes, and what it costs."""
