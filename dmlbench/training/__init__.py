"""Packed images -> embeddings of classes that training never saw: one run of a study."""
