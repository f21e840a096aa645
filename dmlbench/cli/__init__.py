"""The command line: commands for people, and the commands that the workflow's rules call."""
