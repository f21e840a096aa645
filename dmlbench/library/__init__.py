"""dmlbench in your own code: scores, losses, packed images, and one training at a time.

`dmlbench/__init__.py` offers these functions to users.
"""
