"""fal-gateway: one gateway for a whole organisation in front of fal.ai."""
