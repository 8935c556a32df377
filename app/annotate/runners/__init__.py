"""What runs the chunks of a job, one a module."""
