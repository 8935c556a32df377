"""The online half: bundles in, predictions out. Imports neither torch nor transformers, and nothing of ``distill``."""

__version__ = "0.1.0"
