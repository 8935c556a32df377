"""The wire, one noun a file: Hugging Face's task shapes, and this project's own where there is none."""
