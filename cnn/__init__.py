"""Filter CNNs: which sampled faces are women, of good quality, young and without glasses."""
