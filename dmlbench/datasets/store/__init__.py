"""Packed stores: the images of a data set, decoded once for all jobs, with their index."""
