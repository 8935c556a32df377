"""One codec a file: how an item becomes rows and how the rows' outputs become a prediction."""
