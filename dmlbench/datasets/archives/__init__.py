"""The archives of a data set: where they come from, downloading them, and reading them safely."""
