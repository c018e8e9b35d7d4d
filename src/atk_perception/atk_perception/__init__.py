"""From pixels to keypoints."""
