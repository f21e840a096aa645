"""Embeddings -> metrics."""
