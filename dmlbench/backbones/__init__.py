"""Backbones with an embedding head: timm's models, and one file for each that timm does not have,
which registers it with timm under the file's name."""
