"""Property scores: eight numbers per face, measured from parsing maps or read from pixels by a network."""
