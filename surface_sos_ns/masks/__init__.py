"""Coarse masks from anywhere: `surface-sos masks`. One interface (:class:`provider.MaskProvider`), many providers."""
