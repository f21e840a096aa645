"""A study file becomes runs, with their keys and their files."""
