"""Models beside ours: peers from other libraries, other implementations of WaveMix, other transforms in it."""
