"""Surface-SOS: foreground (FoCoR) and background (BaCo), their initialisation and rendering, the object's mesh."""
