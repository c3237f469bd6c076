"""StyleGAN v1: mapping, synthesis, discriminator, checkpoints, sampling."""
