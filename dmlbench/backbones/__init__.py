"""Backbones with an embedding head: one file a backbone that timm does not have, timm for all
others."""
