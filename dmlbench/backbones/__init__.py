"""Backbones with an embedding head: timm's models, and others that a file here registers with timm.

Such a file is named as the model that it registers.
"""
