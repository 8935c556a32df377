"""One way to run an exported model a file."""
