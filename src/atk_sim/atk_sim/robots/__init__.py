"""Robot models, one a file."""
