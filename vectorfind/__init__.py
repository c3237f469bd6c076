"""Directions in the latent space of a generator that move one property of a face: found, calibrated and judged here."""
