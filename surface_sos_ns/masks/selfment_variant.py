"""Forms of Selfment's steps: those that did best on captures, and the published ones."""

from __future__ import annotations

from dataclasses import dataclass, field

from surface_sos_ns.masks.patch_optimisation import PatchRules

__all__ = ["CAPTURE", "PUBLISHED", "VARIANTS", "SelfmentVariant"]


@dataclass(frozen=True)
class SelfmentVariant:
    """Which form each step has.

    Attributes:
        binary_affinity: two patches of a photo are alike or not, by their cosine; else the affinity falls off with it.
        strongest_component: of a cut's object side only the connected component of its strongest patch is kept.
        patch_rules: of Iterative Patch Optimisation.
        patch_head: the head sees each patch alone and learns by Dice and supervised contrastive loss; else it sees
            neighbours and learns by both sides' mean directions and by region consistency.
    """

    binary_affinity: bool = False
    strongest_component: bool = False
    patch_rules: PatchRules = field(default_factory=PatchRules)
    patch_head: bool = False


CAPTURE = SelfmentVariant()
"""Made for many photos of one object."""

PUBLISHED = SelfmentVariant(True, True, PatchRules(shared=False, coherence=0.0, passes=20), True)
"""As in the paper, photo by photo up to the vote."""

VARIANTS = {"capture": CAPTURE, "published": PUBLISHED}
"""By the names that `--variant` knows."""
