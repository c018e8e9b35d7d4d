"""Launch files, parameters and RViz configuration."""
