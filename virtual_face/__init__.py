"""A world of procedural faces whose true attributes are known."""
