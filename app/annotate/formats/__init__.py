"""File formats, one a module: a ``Reader``, a ``Writer``, or both."""
