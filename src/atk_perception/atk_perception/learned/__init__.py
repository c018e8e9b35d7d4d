"""The learned backbone that the matcher and the tracker `atk` share; see MODEL_CARD.md."""
