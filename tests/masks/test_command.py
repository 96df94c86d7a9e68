"""`surface-sos masks` on a known sphere and on the demo's capture, from the command line to the files."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from surface_sos_ns.capture.mask_files import read_mask
from surface_sos_ns.cli import main
from surface_sos_ns.masks import auto, features
from surface_sos_ns.masks.features import PatchFeatures, PhotoFeatures, normalised
from surface_sos_ns.masks.methods import METHODS, Method, make_provider
from surface_sos_ns.masks.provider import CoarseMasks, MaskError, MaskProvider, Photos
from surface_sos_ns.masks.vote import vote, voted_masks
from tests.helpers.ball_photos import ball_photos
from tests.helpers.ball_views import iou, ring, sphere_masks
from tests.helpers.capture_files import keep_half_of_the_training_photos

CENTRE, RADIUS = np.array([0.1, -0.2, 0.05]), 0.7


def sphere_photos(count: int = 18) -> tuple[Photos, list[np.ndarray]]:
    views = ring(count, CENTRE)
    images = [np.zeros((120, 160, 3), np.uint8)] * count
    files = [Path(f"/capture/images/{index}.jpg") for index in range(count)]
    return Photos(files, images, views, [(160, 120)] * count), sphere_masks(views, CENTRE, RADIUS)


@pytest.mark.seconds(3)
def test_a_vote_repairs_and_names_who_is_wrong() -> None:
    photos, truth = sphere_photos()
    masks: list[np.ndarray | None] = [mask.astype(np.float32) for mask in truth]
    bitten = masks[3].copy()
    bitten[:60] = 0
    masks[3], masks[7] = bitten, None
    masks[11] = np.roll(masks[11], (30, -45), axis=(0, 1))
    found = vote(photos, masks)
    assert found is not None
    assert found.disagreeing == [3, 11]
    assert np.isnan(found.agreement[7])
    expected = [iou(masks[view] >= 0.5, truth[view]) for view in (3, 11)]
    np.testing.assert_allclose(found.agreement[[3, 11]], expected, atol=0.06)
    given = CoarseMasks(masks, np.array([float(mask is not None) for mask in masks]))
    repaired = voted_masks(photos, given, found, found.silhouettes(photos))
    for view in range(len(truth)):
        mask = repaired.masks[view]
        assert mask is not None and mask.shape == truth[view].shape
        assert iou(mask >= 0.5, truth[view]) > 0.93
    assert iou(bitten >= 0.5, truth[3]) < 0.6


@pytest.mark.seconds(1.5)
def test_masks_of_another_size_vote_alike() -> None:
    photos, truth = sphere_photos(9)
    masks = [cv2.resize(mask.astype(np.float32), (80, 60), interpolation=cv2.INTER_AREA) for mask in truth]
    found = vote(photos, masks)
    assert found is not None and found.mean > 0.93 and found.disagreeing == []


def test_nothing_to_compare() -> None:
    photos, truth = sphere_photos(5)
    assert vote(photos, [truth[0].astype(np.float32), np.zeros((120, 160)), None, None, None]) is None
    scattered = [np.zeros((120, 160), np.float32) for _ in range(24)]
    for mask, (row, column) in zip(scattered, np.random.default_rng(0).uniform(0, 1, (24, 2)), strict=True):
        mask[int(115 * row) :][:4, int(155 * column) :][:, :4] = 1
    with pytest.raises(MaskError, match="coarse masks do not agree on a place"):
        vote(sphere_photos(24)[0], scattered)


# ------------------------------------------------------------------------------------------------------- methods


def test_options_belong_to_methods() -> None:
    """What is not given stays the provider's own default; 0 is given."""
    provider = make_provider("folder", {"source": Path("x"), "instance": (0,), "invert": False, "port": None})
    assert vars(provider)["instance"] == (0,)
    with pytest.raises(MaskError, match="--by-order belongs to --method folder; the method is prior"):
        make_provider("prior", {"by_order": True})
    with pytest.raises(MaskError, match="--device belongs to --method maskrcnn and sam2 and text; the method is auto"):
        make_provider("auto", {"device": "cuda"})
    with pytest.raises(MaskError, match="--instance belongs to --method folder"):
        make_provider("prior", {"instance": (0,)})


class Fake(MaskProvider):
    """A provider whose masks, and whether it can run, are arguments."""

    name, labels = "fake", "none"

    def __init__(self, masks=None, missing: str = "") -> None:
        self.found, self.missing = masks, missing

    def check(self) -> None:
        if self.missing:
            raise MaskError(self.missing)

    def masks(self, photos: Photos, progress) -> CoarseMasks:
        if self.found is None:
            raise MaskError("nothing there")
        return CoarseMasks(self.found, np.ones(len(photos)))


def test_auto_takes_the_best_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    photos, truth = sphere_photos(9)
    agreement = {"poor": 0.3, "good": 0.9, "better": 0.8, "labelled": 0.7, "unsure": 0.2}
    verdict: dict[str, float | None] = {"poor": 0.99, "good": 0.6, "better": 0.7, "labelled": 0.1, "unsure": 0.1}
    marked = {name: [*truth] for name in agreement}
    names = {id(masks): name for name, masks in marked.items()}
    monkeypatch.setattr(auto, "vote", lambda photos, masks: SimpleNamespace(mean=agreement[names[id(masks)]]))
    monkeypatch.setattr(
        auto, "PointScore", lambda photos: SimpleNamespace(score=lambda masks: verdict[names[id(masks)]])
    )
    monkeypatch.setattr(auto, "with_points", lambda photos, progress: photos)
    monkeypatch.setattr(Method, "load", lambda self: loaded[id(self)])
    made: list[str] = []

    def method(name: str, **options) -> Method:
        class Named(Fake):
            def __init__(self, **given) -> None:
                made.append(name)
                super().__init__(**options)

        Named.name = name
        entry = Method("provider", "MaskProvider")
        loaded[id(entry)] = Named
        return entry

    loaded: dict[int, type] = {}
    methods = {name: method(name, masks=masks) for name, masks in marked.items()}
    methods |= {"absent": method("absent", missing="no weights"), "failing": method("failing")}
    monkeypatch.setattr(auto, "METHODS", methods)
    monkeypatch.setattr(auto, "WITHOUT_LABELS", ("absent", "failing", "poor", "good", "better"))
    monkeypatch.setattr(auto, "WITH_LABELS", ("unsure", "labelled"))

    def run(allow_labels: bool = False) -> tuple[auto.Auto, CoarseMasks, str]:
        said: list[str] = []
        provider = auto.Auto(allow_labels)
        provider.check()
        return provider, provider.masks(photos, said.append), "\n".join(said)

    # What agrees in 3D goes before what does not; among those, points decide.
    chosen, found, words = run()
    assert "labelled" not in made and "unsure" not in made
    assert "passed over absent (no weights)" in words
    assert "failing found nothing: nothing there" in words
    assert (
        "masks of poor agree in 3D at IoU 0.30, and they cover points on the object rather than others by 0.99" in words
    )
    assert chosen.chosen.name == "better" and found.masks is marked["better"]
    assert found.remarks[0] == "auto took better"
    # Without points the agreement decides.
    verdict.update(dict.fromkeys(verdict, None))
    assert run()[0].chosen.name == "good"
    # Labels, once allowed, end the search where their masks agree, and only there.
    chosen, _, words = run(allow_labels=True)
    assert chosen.chosen.name == "labelled" and "trying unsure" in words and "trying good" not in words


class Noise(PatchFeatures):
    """Stands for a network whose features say nothing about these photos."""

    name, patch = "noise", 8

    def __init__(self, *_: object) -> None:
        self.generator = np.random.default_rng(0)

    def describe(self, images: Sequence[np.ndarray], progress: object = None) -> list[PhotoFeatures]:
        return [PhotoFeatures.of_patches(normalised(self.generator.standard_normal((9, 12, 8)))) for _ in images]

    def fingerprint(self) -> str:
        return self.name


@pytest.mark.seconds(10)
def test_auto_compares_a_network_with_the_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "SelfSupervised", Noise)
    monkeypatch.setattr(features, "missing_package", lambda *_: None)
    monkeypatch.setattr(auto, "WITHOUT_LABELS", ("selfment",))
    photos, truths = ball_photos()
    provider = auto.Auto()
    provider.check()
    said: list[str] = []
    found = provider.masks(photos, said.append)
    assert "auto: trying selfment (noise) (labels behind it: none)" in said
    assert found.remarks[0] == "auto took selfment (colour and texture)"
    for mask, truth in zip(found.masks, truths, strict=True):
        assert mask is not None and iou(mask > 0.5, truth) > 0.8


def test_auto_names_methods_that_exist() -> None:
    assert set(auto.WITHOUT_LABELS) <= set(METHODS) and set(auto.WITH_LABELS) <= set(METHODS)


# ------------------------------------------------------------------------------------------------------- command


@pytest.fixture
def scene(demo_capture: Path, tmp_path: Path) -> Path:
    """The demo's capture without its coarse masks."""
    folder = tmp_path / "scene"
    shutil.copytree(demo_capture, folder, ignore=shutil.ignore_patterns("coarse_masks"))
    source = folder / "transforms.json"
    meta = json.loads(source.read_text())
    for frame in meta["frames"]:
        frame.pop("coarse_mask_path", None)
    meta["frames"].reverse()  # nerfstudio would sort them
    source.write_text(json.dumps(meta, indent=1))
    return folder


def overlaps(folder: Path) -> np.ndarray:
    """(N,) IoU of each frame's coarse mask with the truth; 0 where it has none."""
    found = []
    for frame in json.loads((folder / "transforms.json").read_text())["frames"]:
        truth = read_mask(folder / frame["gt_mask_path"]) >= 0.5
        mask = read_mask(folder / frame["coarse_mask_path"]) >= 0.5 if "coarse_mask_path" in frame else ~truth
        found.append(iou(mask, truth))
    return np.array(found)


@pytest.mark.seconds(8)
def test_prior_from_the_command_line(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep_half_of_the_training_photos(scene)
    assert main(["masks", "--data", str(scene), "--method", "prior"]) == 0
    said = capsys.readouterr().out
    assert "In 3D the views agree at IoU 0." in said
    assert f"ns-train surface-sos-lite --data {scene}" in said
    assert overlaps(scene).mean() > 0.6
    about = json.loads((scene / "coarse_masks" / "about.json").read_text())
    assert about["method"] == "prior" and about["labels"] == "none" and not about["voted"]
    assert next(view["file_path"] for view in about["views"]).endswith("frame_00032.jpg")
    assert all(0 <= view["confidence"] <= 1 for view in about["views"])
    sheet = cv2.imread(str(scene / "coarse_masks.jpg"))
    assert sheet is not None and min(sheet.shape[:2]) > 200
    assert main(["masks", "--data", str(scene), "--method", "prior"]) == 1
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.seconds(10)
def test_folder_from_the_command_line(
    scene: Path, demo_capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Imported as they are, then voted: better than what went in, also where there was nothing."""
    source = tmp_path / "theirs"
    source.mkdir()
    for path in (demo_capture / "coarse_masks").glob("*.png"):
        cv2.imwrite(str(source / f"mask_{path.stem}.png"), 255 - cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    (source / "mask_frame_00003.png").unlink()
    command = ["masks", "--data", str(scene), "--method", "folder", "--source", str(source)]
    before = json.loads((scene / "transforms.json").read_text())
    assert main([*command, "--invert"]) == 0
    said = capsys.readouterr().out
    assert "31 of 32 photos have a mask" in said and "'mask_' in front" in said
    meta = json.loads((scene / "transforms.json").read_text())
    for frame in meta["frames"]:
        name = Path(frame["file_path"]).stem
        if name == "frame_00003":
            assert "coarse_mask_path" not in frame
            continue
        ours = cv2.imread(str(scene / frame.pop("coarse_mask_path")), cv2.IMREAD_UNCHANGED)
        theirs = cv2.imread(str(demo_capture / "coarse_masks" / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
        np.testing.assert_array_equal(ours, theirs)
    assert meta == before
    imported = overlaps(scene)
    assert main([*command, "--invert", "--overwrite", "--vote"]) == 0
    voted = overlaps(scene)
    assert "kept in" in capsys.readouterr().out
    assert (scene / "coarse_masks_old" / "coarse_masks" / "frame_00001.png").is_file()
    assert voted.mean() > imported.mean() + 0.05
    assert voted.min() > 0.6
    about = json.loads((scene / "coarse_masks" / "about.json").read_text())
    assert about["voted"] and about["options"] == {"source": str(source), "invert": True}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--method", "prior", "--invert"], "--invert belongs to --method folder"),
        (["--method", "folder"], "--source"),
        (["--features-onnx", "absent.onnx"], "absent.onnx is not there"),  # nor is it replaced by --method auto
        (["--method", "prior", "--features-onnx", "absent.onnx"], "--features-onnx belongs to --method auto and"),
        (["--method", "folder", "--source", "absent"], "absent does not exist"),
        (["--method", "prior", "--object-point", "0", "0", "0", "--object-radius", "-1"], "--object-radius is -1"),
    ],
)
def test_mistakes_are_told_at_once(
    scene: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    before = set(scene.rglob("*"))
    assert main(["masks", "--data", str(scene), *options]) == 1
    assert words in capsys.readouterr().err
    assert set(scene.rglob("*")) == before


@pytest.mark.parametrize("name", METHODS)
def test_the_options_of_a_method_are_its_constructor_s(name: str) -> None:
    provider = METHODS[name].load()
    assert provider.name == name and provider.labels
    assert set(METHODS[name].options) <= set(inspect.signature(provider).parameters)
