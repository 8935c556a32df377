"""Offline half of bistil: from a multilingual teacher and text to a verified bundle."""
