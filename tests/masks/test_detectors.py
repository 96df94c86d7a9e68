"""Detectors: the choice among hand-made detections, and the real libraries with small random weights."""

from __future__ import annotations

import sys
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch

from surface_sos_ns.capture.points import SparsePoints
from surface_sos_ns.masks import maskrcnn, sam2
from surface_sos_ns.masks.maskrcnn import Instances, MaskRcnn, choose_instances
from surface_sos_ns.masks.place import choose_device, object_place
from surface_sos_ns.masks.provider import MaskError, Photos, PlainPhotos
from surface_sos_ns.masks.rembg import Rembg
from surface_sos_ns.masks.sam2 import Sam2, choose_mask, prompt_points
from tests.helpers.ball_views import ring, sphere_masks


def photos_of(count: int = 3, **more) -> Photos:
    """Noise, seen by cameras around the origin; 48 x 36 pixels."""
    views = ring(count, size=(48, 36), focal=51.0)
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (36, 48, 3), dtype=np.uint8) for _ in range(count)]
    return Photos([Path(f"/photos/{index}.jpg") for index in range(count)], images, views, [(48, 36)] * count, **more)


def square(row: int, column: int, size: int, shape: tuple[int, int] = (60, 80)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[row : row + size, column : column + size] = True
    return mask


def instances(*of: tuple[np.ndarray, str, float]) -> Instances:
    masks = np.stack([mask for mask, _, _ in of]) if of else np.zeros((0, 60, 80), bool)
    return Instances(masks, [label for _, label, _ in of], np.array([score for _, _, score in of]))


MIDDLE, SIZE = np.array([40.0, 30.0]), 15.0


def test_the_instance_at_the_objects_place_is_chosen():
    central, aside, tiny = square(20, 30, 20), square(2, 2, 20), square(29, 39, 2)
    found = [instances((aside, "cup", 0.99), (central, "vase", 0.7), (tiny, "cup", 0.9))]
    masks, confidence, category = choose_instances(found, MIDDLE[None], np.array([SIZE]))
    np.testing.assert_array_equal(masks[0], central)
    assert confidence[0] == 0.7 and category == "vase"
    # A whole room is at the place as well.
    room = np.ones((60, 80), bool)
    masks, _, _ = choose_instances([instances((room, "bed", 0.9), (central, "vase", 0.7))], MIDDLE[None], [SIZE])
    np.testing.assert_array_equal(masks[0], central)


def test_all_photos_elect_a_category():
    vase, cup = square(21, 30, 18), square(22, 32, 17)
    found = [
        instances((vase, "vase", 0.8), (cup, "cup", 0.4)),
        instances((vase, "vase", 0.7), (cup, "cup", 0.95)),
        instances((vase, "vase", 0.8)),
        instances((cup, "cup", 0.6)),
        instances(),
    ]
    places, sizes = np.repeat(MIDDLE[None], 5, 0), np.full(5, SIZE)
    masks, confidence, category = choose_instances(found, places, sizes)
    assert category == "vase"
    for index in (0, 1, 2):
        np.testing.assert_array_equal(masks[index], vase)
    np.testing.assert_array_equal(masks[3], cup)  # better than nothing, and trusted half
    assert masks[4] is None
    np.testing.assert_allclose(confidence, [0.8, 0.7, 0.8, 0.3, 0])
    masks, confidence, _ = choose_instances(found, places, sizes, "cup")
    assert [mask is None for mask in masks] == [False, False, True, False, True]
    np.testing.assert_array_equal(masks[1], cup)
    assert confidence[2] == 0


def test_no_place_in_view_no_instance():
    nowhere = np.full((1, 2), np.nan)
    masks, confidence, _ = choose_instances([instances((square(20, 30, 20), "vase", 0.9))], nowhere, np.array([np.nan]))
    assert masks == [None] and confidence[0] == 0


def test_object_place_and_prompts():
    generator = np.random.default_rng(1)
    ball = generator.normal(size=(200, 3))
    ball *= 0.5 / np.linalg.norm(ball, axis=1, keepdims=True)
    far = generator.normal(size=(50, 3)) + np.array([3, 0, 0])
    xyz = np.concatenate([ball, far])
    seen = np.zeros((250, 6), bool)
    seen[:, :5] = True
    points = SparsePoints(xyz, np.zeros((250, 3)), np.full(250, 5), seen)
    photos = photos_of(6, points=points, near=np.zeros(3), radius=1.0)
    place = object_place(photos)
    np.testing.assert_allclose(place.pixel, np.repeat([[24.0, 18.0]], 6, 0), atol=1e-6)
    np.testing.assert_allclose(place.radius, 51 / 4, rtol=1e-6)  # focal length over distance
    assert len(place.points) == 200
    prompts = prompt_points(photos, 0, place)
    assert len(prompts) == 5
    np.testing.assert_allclose(prompts[0], [24, 18], atol=1e-6)
    outline = sphere_masks(photos.views, np.zeros(3), 0.55)[0]
    assert all(outline[int(y), int(x)] for x, y in prompts)
    apart = np.linalg.norm(prompts[:, None] - prompts, axis=-1) + 100 * np.eye(5)
    assert apart.min() > 3
    assert len(prompt_points(photos, 5, place)) == 1  # a photo in which no point was matched


def test_of_part_whole_and_group_the_whole_is_chosen():
    part, whole, group = square(27, 37, 6), square(20, 30, 20), np.ones((60, 80), bool)
    candidates = np.stack([part, whole, group])
    best, confidence = choose_mask(candidates, np.array([0.9, 0.88, 0.92]), MIDDLE, SIZE)
    assert best == 1 and confidence == pytest.approx(0.88, abs=0.01)
    assert choose_mask(square(0, 0, 10)[None], np.array([0.9]), MIDDLE, SIZE) == (None, 0.0)


@pytest.mark.parametrize(("name", "words"), [("gpu", "expected auto, cpu"), ("cuda:99", "no such GPU")])
def test_devices(name, words):
    assert choose_device("cpu") == "cpu" and choose_device("auto") in ("cpu", "cuda")
    with pytest.raises(MaskError, match=words):
        choose_device(name)


# ------------------------------------------------------------------------------------------------ Mask R-CNN


def small_maskrcnn():
    """torchvision's network as it is, but with a backbone of one layer and random weights."""
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.ops import MultiScaleRoIAlign

    torch.manual_seed(0)
    backbone = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, stride=8, padding=1), torch.nn.ReLU())
    backbone.out_channels = 8
    network = MaskRCNN(
        backbone,
        num_classes=91,
        rpn_anchor_generator=AnchorGenerator(((16, 32),), ((1.0,),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], 3, 2),
        mask_roi_pool=MultiScaleRoIAlign(["0"], 6, 2),
        min_size=64,
        max_size=96,
        box_score_thresh=0.0,
        box_detections_per_img=10,
    )
    # Random weights give all 91 classes the same score; this one is to win.
    network.roi_heads.box_predictor.cls_score.bias.data[maskrcnn._categories().index("vase")] = 6.0
    network.roi_heads.mask_predictor.mask_fcn_logits.bias.data[:] = 3.0
    return network


def test_maskrcnn_end_to_end(monkeypatch):
    monkeypatch.setattr(maskrcnn, "_load", small_maskrcnn)
    monkeypatch.setattr(maskrcnn, "MIN_CLOSENESS", 1e-9)
    photos = photos_of(3, near=np.zeros(3), radius=2.0)
    lines: list[str] = []
    provider = MaskRcnn(device="cpu")
    provider.check()
    found = provider.masks(photos, lines.append)
    assert lines[0] == "Mask R-CNN on cpu: photo 1 of 3" and list(found.remarks) == ["category of the object: vase"]
    # The same numbers as from the network itself.
    network = small_maskrcnn().eval()
    with torch.no_grad():
        direct = network([torch.from_numpy(photos.images[0]).permute(2, 0, 1) / 255])[0]
    assert any(
        np.array_equal(found.masks[0], (mask[0] >= 0.5).float().numpy())
        and found.confidence[0] == pytest.approx(float(score))
        for mask, score in zip(direct["masks"], direct["scores"], strict=True)
    )
    with pytest.raises(MaskError, match=r"no cat where the cameras look. It found: vase"):
        MaskRcnn("cat", device="cpu").masks(photos, str)


def test_maskrcnn_without_poses_looks_about_the_middle_of_each_photo_alone(monkeypatch):
    """No photo's category counts in another, and that nothing is found is no error."""
    vase, cup, aside = square(22, 32, 16), square(20, 30, 20), square(0, 0, 12)
    detections = [
        instances((vase, "vase", 0.6), (aside, "cup", 0.9)),
        instances((cup, "cup", 0.8)),
        instances(),
    ]
    monkeypatch.setattr(maskrcnn, "_load", small_maskrcnn)
    monkeypatch.setattr(maskrcnn, "_detect", lambda *_: detections.pop(0))
    images = [np.zeros((60, 80, 3), np.uint8)] * 3
    files = [Path(f"{index}.jpg") for index in range(3)]
    found = MaskRcnn(device="cpu").plain_masks(PlainPhotos(files, images, [(80, 60)] * 3), str)
    np.testing.assert_array_equal(found.masks[0], vase)
    np.testing.assert_array_equal(found.masks[1], cup)
    assert found.masks[2] is None
    np.testing.assert_allclose(found.confidence, [0.6, 0.8, 0])


def test_maskrcnn_mistakes(monkeypatch):
    with pytest.raises(MaskError, match="no category 'blowtorch'; expected one of: person, bicycle") as caught:
        MaskRcnn("blowtorch")
    assert "N/A" not in str(caught.value)

    def unreachable():
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(maskrcnn, "_load", unreachable)
    with pytest.raises(MaskError, match="downloaded once"):
        MaskRcnn().check()


# ----------------------------------------------------------------------------------------------------- SAM 2


def small_sam2():
    """SAM 2 as transformers has it, with narrow layers and random weights, for pictures of 64 pixels."""
    transformers = pytest.importorskip("transformers", minversion="4.56", reason="transformers has no SAM 2")
    hiera = transformers.Sam2HieraDetConfig(
        hidden_size=8,
        image_size=[64, 64],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 1, 1],
        window_size_per_stage=[4, 4, 4, 4],
        window_positional_embedding_background_size=[4, 4],
        global_attention_blocks=[3],
    )
    config = transformers.Sam2Config(
        vision_config=transformers.Sam2VisionConfig(
            backbone_config=hiera,
            backbone_channel_list=[64, 32, 16, 8],
            backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
            fpn_hidden_size=32,
        ),
        prompt_encoder_config=transformers.Sam2PromptEncoderConfig(hidden_size=32, image_size=64),
        mask_decoder_config=transformers.Sam2MaskDecoderConfig(
            hidden_size=32, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=32
        ),
    )
    torch.manual_seed(0)
    size = {"height": 64, "width": 64}
    images = transformers.Sam2ImageProcessorFast(size=size, mask_size={"height": 16, "width": 16})
    return transformers.Sam2Model(config), transformers.Sam2Processor(images, target_size=64)


def test_sam2_end_to_end(monkeypatch):
    model, processor = small_sam2()
    prompts: list[list] = []

    def recording(**given):
        prompts.append(given["input_points"])
        return processor(**given)

    recording.post_process_masks = processor.post_process_masks
    monkeypatch.setattr(sam2, "_load", lambda: (model, recording))
    monkeypatch.setattr(sam2, "MIN_SCORE", -1.0)
    photos = photos_of(2, near=np.zeros(3), radius=1.0)
    lines: list[str] = []
    provider = Sam2(device="cpu")
    provider.check()
    found = provider.masks(photos, lines.append)
    assert lines[0] == "SAM 2 on cpu: photo 1 of 2"
    np.testing.assert_allclose(prompts[0], [[[[24.0, 18.0]]]], atol=1e-6)
    assert [mask.shape for mask in found.masks] == [(36, 48)] * 2
    candidates, scores = sam2._segment(model.eval(), processor, photos.images[0], np.array([[24.0, 18.0]]), "cpu")
    assert candidates.shape == (3, 36, 48) and candidates.dtype == bool and scores.shape == (3,)
    assert any(np.array_equal(found.masks[0], mask) for mask in candidates)


def test_sam2_mistakes(monkeypatch):
    pytest.importorskip("transformers", minversion="4.56", reason="transformers has no SAM 2")

    def unreachable():
        raise OSError("We couldn't connect\nmore")

    monkeypatch.setattr(sam2, "_load", unreachable)
    with pytest.raises(MaskError, match=r"couldn't connect\). They are downloaded once"):
        Sam2(device="cpu").check()
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MaskError, match="needs transformers"):
        Sam2(device="cpu").check()


# ------------------------------------------------------------------------------------------- other programs

PROGRAM = """
import sys
import numpy as np
from PIL import Image
how, source, target = sys.argv[1:]
photo = np.array(Image.open(source).convert("RGB"))
bright = (photo[..., 0] > 128).astype(np.uint8) * 255
if how == "mask":
    Image.fromarray(bright).save(target)
elif how == "cutout":
    Image.fromarray(np.dstack([photo, bright])).save(target)
elif how == "opaque":
    Image.fromarray(np.dstack([photo, np.full_like(bright, 255)])).save(target)
elif how == "turned":
    Image.fromarray(bright.T).save(target)
elif how == "text":
    open(target, "w").write("no picture")
elif how == "fails":
    print("loading", file=sys.stderr)
    sys.exit("out of memory")
"""


@pytest.fixture
def program(tmp_path):
    """A command whose path has a space and a quote in it."""
    import shlex

    script = tmp_path / "my o'wn" / "cut out.py"
    script.parent.mkdir()
    script.write_text(PROGRAM)
    return lambda how: Rembg(f"{shlex.quote(sys.executable)} {shlex.quote(str(script))} {how} {{input}} {{output}}")


@pytest.mark.seconds(2)
@pytest.mark.parametrize("how", ["mask", "cutout"])
def test_masks_by_another_program(program, how):
    photos = photos_of(2)
    provider = program(how)
    provider.check()
    lines: list[str] = []
    found = provider.masks(photos, lines.append)
    for mask, image in zip(found.masks, photos.images, strict=True):
        np.testing.assert_array_equal(mask, image[..., 0] > 128)
    np.testing.assert_array_equal(found.confidence, [1, 1])
    assert len(lines) == 2 and "photo 2 of 2" in lines[1]


@pytest.mark.seconds(3)
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("fails", r"failed on /photos/0.jpg \(exit status 1\). Its last words: loading / out of memory"),
        ("nothing", "wrote no {output} for /photos/0.jpg"),
        ("text", "is no picture"),
        ("turned", "has 36 x 48 pixels; expected the proportions of the photo, 48 x 36"),
        ("opaque", "found nothing in any photo"),
    ],
)
def test_failures_of_another_program(program, how, words):
    with pytest.raises(MaskError, match=words):
        program(how).masks(photos_of(2), str)


def test_mistakes_in_the_command():
    with pytest.raises(MaskError, match="has no {output}"):
        Rembg("rembg i {input}")
    with pytest.raises(MaskError, match="No closing quotation"):
        Rembg("rembg 'i {input} {output}")
    with pytest.raises(MaskError, match="no-such-program is not there"):
        Rembg("no-such-program {input} {output}").check()
    # No shell: what would be a second command is a word like any other.
    assert Rembg("cp {input} {output} ; rm x").words == ["cp", "{input}", "{output}", ";", "rm", "x"]
