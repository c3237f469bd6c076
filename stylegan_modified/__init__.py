"""Property-conditioned and split-mapping generators: carrying weights over, fine-tuning, its table of versions."""
