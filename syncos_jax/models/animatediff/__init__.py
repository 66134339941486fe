"""AnimateDiff: Stable Diffusion's UNet with motion modules, kin of the family `unet_clip`."""
