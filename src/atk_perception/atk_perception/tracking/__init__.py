"""Tracking `K_t = h_C(K_{t-1}, o_t)`: points followed from frame to frame, one tracker a file."""
