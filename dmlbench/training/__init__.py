"""From packed images to embeddings of classes never seen: one run of a study."""
