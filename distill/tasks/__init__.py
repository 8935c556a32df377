"""The training half of each codec in `app.tasks`, under the same module name."""
