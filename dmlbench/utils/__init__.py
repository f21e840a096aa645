"""Tools that make no number: errors, texts, files, digests of code, GPU leases.

Nothing in this folder is part of the key of a run.
"""
