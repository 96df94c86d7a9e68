"""Words to masks: the choice among boxes, masks within them, and transformers' OWLv2 with small random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from surface_sos_ns.masks import sam2, text
from surface_sos_ns.masks.boxes import Boxes, choose_boxes, mask_in_box
from surface_sos_ns.masks.methods import METHODS, make_provider
from surface_sos_ns.masks.provider import MaskError, Photos
from surface_sos_ns.masks.text import Text
from tests.helpers.ball_views import iou
from tests.helpers.three_balls import cameras_around_balls, three_balls

COUNT = 8


@pytest.fixture(scope="module")
def scene() -> tuple[Photos, list[np.ndarray]]:
    views = cameras_around_balls(COUNT)
    images, identities, points = three_balls(views)
    files = [Path(f"/capture/images/{index:02}.jpg") for index in range(COUNT)]
    return Photos(files, images, views, views.sizes(), points), identities


def box_around(mask: np.ndarray) -> list[float]:
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def boxes_for(truth: list[np.ndarray], identity: int) -> list[Boxes]:
    """A detector's boxes: often surer of something else, elsewhere in each photo, than of the thing itself."""
    generator = np.random.default_rng(identity)
    found = []
    for view, identities in enumerate(truth):
        corners, scores = [], []
        if (identities == identity).sum() > 40 and view != 3:
            corners.append(box_around(identities == identity))
            scores.append(0.5)
        left, top = generator.uniform(0, 120), generator.uniform(0, 90)
        corners.append([left, top, left + 25, top + 20])
        scores.append(0.6 if view % 2 else 0.3)
        found.append(Boxes(np.array(corners, float), np.array(scores)))
    return found


@pytest.mark.parametrize("identity", [1, 2, 3])
def test_boxes_of_one_thing_are_chosen_by_their_place_in_space(scene, identity: int) -> None:
    photos, truth = scene
    found = boxes_for(truth, identity)
    chosen = choose_boxes(found, photos.views)
    for view, index in enumerate(chosen):
        if len(found[view].scores) == 2:
            assert index == 0
        elif index is not None:  # a stray box may lie there
            assert found[view].scores[index] > 0
    alone = [found[0]] + [Boxes(np.zeros((0, 4)), np.zeros(0))] * (COUNT - 1)
    assert choose_boxes(alone, photos.views) == [None] * COUNT


def test_a_mask_is_found_in_a_box_by_colours(scene) -> None:
    photos, truth = scene
    for view in (1, 3):
        loose = np.add(box_around(truth[view] == 1), [-3, -3, 3, 3])
        assert iou(mask_in_box(photos.images[view], loose) >= 0.5, truth[view] == 1) > 0.85


@pytest.fixture
def detector(scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes of the balls for the prompts `orange ball` and `green ball`; no SAM."""
    photos, truth = scene
    answers = {"orange ball": boxes_for(truth, 1), "green ball": boxes_for(truth, 2)}
    nothing = Boxes(np.zeros((0, 4)), np.zeros(0))

    def detect(model, processor, image, prompts, device) -> list[Boxes]:
        view = next(index for index, photo in enumerate(photos.images) if photo is image)
        return [answers[words][view] if words in answers else nothing for words in prompts]

    monkeypatch.setattr(text, "_detect", detect)
    monkeypatch.setattr(Text, "check", lambda self: None)


def test_several_prompts_are_several_objects(scene, detector) -> None:
    photos, truth = scene
    lines: list[str] = []
    found = Text(("orange ball", "green ball"), device="cpu").masks(photos, lines.append)
    assert found.names == ("orange_ball", "green_ball") and "weights of SAM 2 are not here" in lines[0]
    for view in (0, 1, 2, 4):
        for identity in (1, 2):
            if (truth[view] == identity).sum() > 150:
                assert iou(found.identities[view] == identity, truth[view] == identity) > 0.75
    assert any(line.startswith("orange ball: found in ") for line in found.remarks)
    one = Text(("green ball",), device="cpu").masks(photos, lines.append)
    assert one.names == () and one.identities == ()
    assert iou(one.masks[1] >= 0.5, truth[1] == 2) > 0.75
    with pytest.raises(MaskError, match="found no 'teapot' that two photos show"):
        Text(("green ball", "teapot"), device="cpu").masks(photos, str)


def test_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    for prompt in ((), ("cup", " ")):
        with pytest.raises(MaskError, match="needs --prompt"):
            Text(prompt)
    assert isinstance(make_provider("text", {"prompt": ("cup",)}), Text) and "prompt" in METHODS["text"].options
    assert Text(("wine glass", "cup!")).names == ("wine_glass", "cup")
    monkeypatch.setattr(text, "missing_package", lambda *_: "There is no transformers.")
    with pytest.raises(MaskError, match="no transformers"):
        Text(("cup",)).check()
    monkeypatch.setattr(text, "missing_package", lambda *_: None)

    def unreachable(model: str) -> None:
        raise OSError("We couldn't connect\nmore")

    monkeypatch.setattr(text, "_load", unreachable)
    with pytest.raises(MaskError, match=r"owlv2.* cannot be had \(We couldn't connect\). They are downloaded once"):
        Text(("cup",)).check()


def small_owlv2(folder: Path):
    """OWLv2 with narrow layers and random weights, for pictures of 64 pixels, and a tokenizer of single letters."""
    transformers = pytest.importorskip("transformers", minversion="4.56", reason="transformers is an optional package")
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["!", "<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), pad_token="!", model_max_length=16
    )
    images = transformers.Owlv2ImageProcessor(size={"height": 64, "width": 64})
    narrow = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Owlv2Config(
        text_config={
            **narrow,
            "vocab_size": len(tokens),
            "max_position_embeddings": 16,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
        vision_config={**narrow, "image_size": 64, "patch_size": 16},
        projection_dim=16,
    )
    torch.manual_seed(0)
    model = transformers.Owlv2ForObjectDetection(config)
    for weights in model.box_head.parameters():  # boxes are the patches then
        weights.data.zero_()
    return model, transformers.Owlv2Processor(images, tokenizer)


@pytest.mark.seconds(3)
def test_owlv2_as_transformers_has_it(scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's own steps: words and photos in, boxes in the photo's pixels out, each under its prompt."""
    photos, _ = scene
    model, processor = small_owlv2(tmp_path / "tokenizer")
    monkeypatch.setattr(text, "_load", lambda name: (model, processor))
    monkeypatch.setattr(sam2, "_load", lambda: (_ for _ in ()).throw(OSError("no weights")))
    monkeypatch.setattr(text, "MIN_SCORE", 0.0)
    provider = Text(("cup", "lemon"), device="cpu")
    provider.check()
    assert provider._segmenter is None
    found = text._detect(model.eval(), processor, photos.images[0], provider.prompts, "cpu")
    assert len(found) == 2 and sum(len(one.scores) for one in found) > 0
    for one in found:
        assert (np.diff(one.scores) <= 0).all() and len(one.scores) <= text.MAX_BOXES
        assert (one.corners >= 0).all() and (one.corners <= [160, 120, 160, 120]).all()
    model.config.model_type = "bert"
    with pytest.raises(MaskError, match="is a bert model; expected one of owlvit, owlv2"):
        Text(("cup",), device="cpu").check()


def test_sam_finds_the_mask_in_a_box(scene, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.masks.test_detectors import small_sam2

    model, processor = small_sam2()
    mask = text._segment(model.eval(), processor, scene[0].images[0], np.array([40.0, 30.0, 80.0, 70.0]), "cpu")
    assert mask.shape == (120, 160) and set(np.unique(mask)) <= {0.0, 1.0}
