"""The clean plate, the view without the object: what photos show of it, inpainting of the rest, removal of shadows."""
