"""The words of this folder: properties, those that are edited, and where in the generator a code can be read."""

PROPERTIES = ("eyes", "hair_color", "hair_length", "mouth", "pose", "background_mean", "background_std", "hairstyle")
EDITED = ("eyes", "mouth", "pose")
POSITIONS = ("z", "w", "mapping_split1", "mapping_split2")
