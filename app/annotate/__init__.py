"""Bulk annotation: ``python -m app.annotate`` tags a file of any length, resumably, on one machine or several."""
