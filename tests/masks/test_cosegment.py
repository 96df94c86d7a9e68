"""Co-segmentation: the photos' vote on clusters, against a count by hand, and a made-up capture."""

import numpy as np
import pytest

from surface_sos_ns.masks.cosegment import Cosegment, elect_clusters
from surface_sos_ns.masks.provider import MaskError
from tests.helpers.ball_photos import ball_photos


def test_election_by_hand():
    # Patches 0-3 lie near the object's place, 4-11 around it.
    distance = np.array([[0.1] * 4 + [1.0] * 8])
    near = np.array([[1, 1, 1, 0] + [0] * 7 + [1]])  # 1: 3/4 near, 1/8 around: elected here with 4 patches
    away = np.array([[1, 2, 2, 2] + [1] * 4 + [0] * 4])  # 1: 1/4 near, 1/2 around: rejected here with 5 patches
    np.testing.assert_array_equal(elect_clusters([near], [distance]), [False, True])
    np.testing.assert_array_equal(elect_clusters([near, away], [distance] * 2), [False, False, True])
    np.testing.assert_array_equal(elect_clusters([near, near, away], [distance] * 3), [False, True, True])


def test_photo_that_shows_only_the_object_has_no_vote():
    close = np.full((1, 4), 0.2)
    assert not elect_clusters([np.array([[0, 1, 1, 1]])], [close]).any()


@pytest.mark.seconds(1.5)
def test_ball_stands_out_with_its_twin():
    photos, truths = ball_photos()
    found = Cosegment("descriptor").masks(photos, lambda line: None)
    recalls = []
    for mask, truth in zip(found.masks, truths, strict=True):
        assert mask is not None and mask.shape == truth.shape
        recalls.append((mask > 0.5)[truth].mean())
        assert (mask > 0.5).mean() < 0.35
    assert np.mean(recalls) > 0.9
    assert ((found.confidence > 0) & (found.confidence <= 1)).all()
    again = Cosegment("descriptor").masks(photos, lambda line: None)
    for one, other in zip(found.masks, again.masks, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_photos_of_one_look_have_no_object():
    photos, _ = ball_photos(4)
    for image in photos.images:
        image[:] = 128

    class Same:
        name, patch = "the same everywhere", 4

        def features(self, images, progress=None):
            return [np.ones((18, 24, 1), np.float32) for _ in images]

    provider = Cosegment("descriptor")
    provider._features._loaded = Same()
    with pytest.raises(MaskError, match="No cluster"):
        provider.masks(photos, lambda line: None)


def test_unknown_features_are_refused():
    with pytest.raises(MaskError, match="auto, network or descriptor"):
        Cosegment("sift")
