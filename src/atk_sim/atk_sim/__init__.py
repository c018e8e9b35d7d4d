"""A simulated robot behind the real robot's topics."""
