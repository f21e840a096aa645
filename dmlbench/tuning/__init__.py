"""Trials of settings, validated on folds of the training classes, and the choice among them."""
