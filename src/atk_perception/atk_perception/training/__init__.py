"""Training of the learned matcher and tracker: generated clips with exact tracks, and the training loop."""
