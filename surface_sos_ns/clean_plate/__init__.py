"""The view without the object: what photos have shown of it, what is painted in, and the light that the object took."""
