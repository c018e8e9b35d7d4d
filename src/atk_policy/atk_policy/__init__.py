"""From keypoints to joint commands, and the offline selection of the keypoints."""
