"""Correspondence `h_C(K_can, o_0, I_can)`: template points placed in a new scene, one matcher a file."""
