"""Volume rendering of two layers as pure functions on tensors: opacity, blending, sums along rays, colour space."""
