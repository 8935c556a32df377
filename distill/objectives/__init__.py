"""Distillation objectives: one a file, its name the key in a configuration's `objective` table."""
