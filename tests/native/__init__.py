"""The C helpers alone."""
