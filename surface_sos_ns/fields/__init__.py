"""Neural fields over hash grids: signed distance, density, colour, label; and the object's deformation."""
