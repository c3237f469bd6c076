"""Face crop and face parsing: from a picture to the class of every pixel of its face."""
