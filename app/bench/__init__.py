"""`python -m app.bench`: this server and what a user would run instead, on the same models and machine, in one run."""
