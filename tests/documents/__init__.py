"""The blocks of README.md and docs/*.md, run as they are written."""
