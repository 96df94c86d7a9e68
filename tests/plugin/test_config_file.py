"""config.yml of a run: what our methods write is read back the same, and nothing in it is run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from nerfstudio.cameras.camera_optimizers import CameraOptimizerConfig
from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.pixel_samplers import PairPixelSamplerConfig, PatchPixelSamplerConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig, RAdamOptimizerConfig
from nerfstudio.engine.schedulers import (
    CosineDecaySchedulerConfig,
    ExponentialDecaySchedulerConfig,
    MultiStepSchedulerConfig,
)

from surface_sos_ns.fields.deformation import DeformationConfig
from surface_sos_ns.plugin.config_file import CLASSES, ConfigFileError, method_of, read_config_file
from surface_sos_ns.plugin.config_reader import MAX_FILE_BYTES
from surface_sos_ns.plugin.model import SurfaceSOSModelConfig
from surface_sos_ns.plugin.pipeline import SurfaceSOSPipelineConfig
from surface_sos_ns.plugin.trainer import SurfaceSOSTrainerConfig
from surface_sos_ns.training.contrastive import paper_contrast

METHODS = ("surface-sos", "surface-sos-lite", "surface-sos-paper", "nerf-sos", "nerf-sos-lite")
TARGET = "!!python/name:surface_sos_ns.plugin.trainer.SurfaceSOSTrainer ''"
PROJECT = "project_name: nerfstudio-project"


def with_every_option(config: Any) -> Any:
    """A configuration with other values wherever a user can set some, and other classes where those may stand."""
    manager = dataclasses.replace(
        config.pipeline.datamanager,
        data=Path("somewhere/else"),
        eval_image_indices=None,
        pixel_sampler=PatchPixelSamplerConfig(patch_size=2),
        dataparser=dataclasses.replace(
            config.pipeline.datamanager.dataparser,
            data=Path("/absolute/ä b"),
            object_point=(1.0, -2.0, 3.5),
            object_radius=2,
            downscale_factor=4,
            times=True,
        ),
    )
    model = dataclasses.replace(config.pipeline.model, total_steps=12)
    if isinstance(model, SurfaceSOSModelConfig):
        model.camera_optimizer = CameraOptimizerConfig(mode="SO3xR3", optimizer=AdamOptimizerConfig())
        model.scene = dataclasses.replace(model.scene, deformation=DeformationConfig(bound=0.1))
    else:
        model.objective = dataclasses.replace(model.objective, contrast=paper_contrast(model.objective.contrast))
        manager.features_onnx = Path("net.onnx")
    optimizers = {
        "adam": {"optimizer": RAdamOptimizerConfig(max_norm=1.5), "scheduler": ExponentialDecaySchedulerConfig()},
        "other": {"optimizer": AdamOptimizerConfig(lr=1), "scheduler": CosineDecaySchedulerConfig()},
        "last": {"optimizer": AdamOptimizerConfig(weight_decay=0.5), "scheduler": MultiStepSchedulerConfig()},
        "none": {"optimizer": AdamOptimizerConfig(), "scheduler": None},
    }
    return dataclasses.replace(
        config,
        pipeline=dataclasses.replace(config.pipeline, datamanager=manager, model=model),
        optimizers={**config.optimizers, **optimizers},
        viewer=ViewerConfig(websocket_host="0.0.0.0", websocket_port=7010, make_share_url=True),
        load_dir=Path("a/b"),
        load_checkpoint=Path("c"),
        load_config=Path("d.yml"),
        gradient_accumulation_steps={"foreground": 3},
        prompt="a: 'b' {c}\n- d",
        mixed_precision=True,
        vis="viewer+tensorboard",
    )


@pytest.fixture(scope="module")
def text() -> str:
    return yaml.dump(all_methods["surface-sos-lite"])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yml"


# ------------------------------------------------------------------ ours


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("change", [lambda config: config, with_every_option], ids=["as it is", "every option"])
def test_what_nerfstudio_writes_is_read_back_the_same(method: str, change: Any, tmp_path: Path) -> None:
    written = dataclasses.replace(
        change(all_methods[method]), output_dir=tmp_path, experiment_name="scene", timestamp="now"
    )
    written.save_config()
    file = tmp_path / "scene" / method / "now" / "config.yml"
    found = read_config_file(file)
    known = yaml.load(file.read_text(), Loader=yaml.Loader)  # what nerfstudio reads; our own file, so it may
    assert found == known and yaml.dump(found) == yaml.dump(known)
    assert method_of(file) == method
    assert found.pipeline.datamanager.collate_fn is written.pipeline.datamanager.collate_fn
    assert len(file.read_bytes()) < MAX_FILE_BYTES / 4


def test_every_class_that_may_be_read_can_be(file: Path) -> None:
    whole = (SurfaceSOSTrainerConfig, SurfaceSOSPipelineConfig)  # with no method they hold nerfstudio's base classes
    for kind in (kind for kind in CLASSES if kind not in whole):
        file.write_text(yaml.dump(kind()))
        assert read_config_file(file) == kind()
    file.write_text(yaml.dump(PairPixelSamplerConfig(radius=3)))
    assert read_config_file(file).radius == 3


def test_runs_of_other_pythons_and_systems_are_read(text: str, file: Path) -> None:
    for name in ("pathlib.WindowsPath", "pathlib._local.PosixPath"):
        file.write_text(text.replace("pathlib.PosixPath", name))
        assert read_config_file(file) == all_methods["surface-sos-lite"]


# ------------------------------------------------------------------ not ours

CODE = [
    "!!python/object/apply:os.system [touch {}]",
    "!!python/object/apply:subprocess.Popen [[touch, {}]]",
    "!!python/object/apply:nerfstudio.utils.scripts.run_command [touch {}]",
    '!!python/object/apply:builtins.exec [\'open("{}", "w")\']',
    "!!python/object/new:subprocess.Popen [[touch, {}]]",
    "!!python/object/new:os.system [touch {}]",
    "!!python/object/new:type {{args: [x, !!python/tuple [], {{}}], listitems: !!python/name:os.system ''}}",
    "!!python/object:subprocess.Popen {{args: [touch, {}]}}",
    "!!python/name:os.system ''",
    "!!python/name:subprocess.Popen ''",
    "!!python/name:nerfstudio.utils.scripts.run_command ''",
    "!!python/name:surface_sos_ns.plugin.trainer.SurfaceSOSTrainer ''",
    "!!python/module:os ''",
    "!!python/object/apply:pathlib.PosixPath [!!python/object/apply:os.system [touch {}]]",
    "!!python/tuple [!!python/object/apply:os.system [touch {}]]",
    "{{a: [!!python/object/apply:os.system [touch {}]]}}",
    "!<tag:yaml.org,2002:python/object/apply:os.system> [touch {}]",
    "!custom {}",
]


@pytest.mark.parametrize("code", CODE)
def test_code_is_refused_by_its_name_and_not_run(code: str, text: str, file: Path) -> None:
    trace = file.with_name("trace")
    code = code.format(trace)
    tag = code.split("!", 1)[1].split()[0].strip("!<>").removeprefix("tag:yaml.org,2002:")
    if tag in ("python/tuple", "python/object/apply:pathlib.PosixPath"):
        tag = "python/object/apply:os.system"
    where = text.split(PROJECT)[0].count("\n") + 1
    for content, line in ((code, 1), (text.replace(PROJECT, f"project_name: {code}"), where)):
        file.write_text(content)
        with pytest.raises(ConfigFileError) as refusal:
            read_config_file(file)
        assert str(refusal.value).startswith(f"{file}, line {line} ") and tag in str(refusal.value)
    assert not trace.exists()


@pytest.mark.parametrize(
    "target",
    [
        *("!!python/name:os.system ''", "!!python/name:subprocess.Popen ''", "null", "os.system", "{}"),
        "!!python/name:nerfstudio.utils.scripts.run_command ''",
        "!!python/name:surface_sos_ns.plugin.model.SurfaceSOSModel ''",  # of ours, but of another class
        "!!python/name:surface_sos_ns.plugin.trainer.SurfaceSOSTrainerConfig ''",
        "!!python/object/apply:os.system [touch TRACE]",
    ],
)
def test_a_class_has_its_own_target_and_no_other(target: str, text: str, file: Path) -> None:
    trace = file.with_name("trace")
    file.write_text(text.replace(TARGET, target.replace("TRACE", str(trace))))
    assert file.read_text() != text
    with pytest.raises(
        ConfigFileError, match="line 2 .*_target of SurfaceSOSTrainerConfig is .*; expected !!python/name:"
    ):
        read_config_file(file)
    assert not trace.exists()


def test_the_function_that_joins_photos_is_nerfstudios(text: str, file: Path) -> None:
    known = "!!python/name:nerfstudio.data.utils.nerfstudio_collate.nerfstudio_collate ''"
    assert known in text
    file.write_text(text.replace(known, "!!python/name:os.system ''"))
    with pytest.raises(ConfigFileError, match="collate_fn of SurfaceSOSDataManagerConfig is !!python/name:os.system"):
        read_config_file(file)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (PROJECT, "project_nam: x", "SurfaceSOSTrainerConfig has no option 'project_nam'"),
        (PROJECT, "__class__: x", "has no option '__class__'"),
        (PROJECT, f"{PROJECT}\nsetup: x", "has no option 'setup'"),
        ("steps_per_log: 20", "steps_per_log: many", "steps_per_log of LoggingConfig is str; expected int"),
        ("mixed_precision: false", "mixed_precision: 0", "mixed_precision of .* is int; expected bool"),
        ("relative_log_filename: viewer_log_filename.txt", "relative_log_filename: [1]", "is list; expected str"),
        ("!!python/object:nerfstudio.configs.base_config.ViewerConfig",
         "!!python/object:surface_sos_ns.training.objective.ObjectiveConfig", "has no option"),
        ("Train Iter (time)", "no such event", "expected the name of an event"),
    ],
)  # fmt: skip
def test_options_of_the_wrong_kind_are_named(before: str, after: str, words: str, text: str, file: Path) -> None:
    assert before in text
    file.write_text(text.replace(before, after))
    with pytest.raises(ConfigFileError, match=words):
        read_config_file(file)


def test_a_class_stands_only_where_its_kind_does(text: str, file: Path) -> None:
    config = all_methods["surface-sos-lite"]
    for option, value in (("pipeline", None), ("pipeline", AdamOptimizerConfig()), ("viewer", 5), ("machine", "x")):
        file.write_text(yaml.dump(dataclasses.replace(config, **{option: value})))
        with pytest.raises(ConfigFileError, match=f"{option} of SurfaceSOSTrainerConfig is .*; expected "):
            read_config_file(file)


def nested(inner: str, level: str, depth: int) -> str:
    """YAML in which each line says nine times what the line before says."""
    lines = [f"a0: &a0 {inner}"]
    lines += [f"a{i}: &a{i} " + level.format(", ".join([f"*a{i - 1}"] * 9)) for i in range(1, depth)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "content",
    [
        nested("[x, x, x]", "[{}]", 30),
        nested("{x: 1}", "{{<<: [{}]}}", 30),
        *("&a [*a]", "&a {x: *a}", "[" * 50_000, "{a: " * 20_000, "- " * 50_000, "? " * 10_000, "'" * 99_999),
        *("1" * 100_000, "a: [", "a: b: c", "", "\0", "a: 1\n---\nb: 2", "!!float ''", "!!bool x", "!!timestamp x"),
        *("!!int {}", "!!python/tuple x", "!!python/object/apply:pathlib.PosixPath {args: [a]}", "x" * 10**6),
        "!!python/object:surface_sos_ns.models.surface_sos.scene.SceneConfig [1]",
        "!!python/object:surface_sos_ns.models.surface_sos.scene.SceneConfig {[1]: 2}",
    ],
    ids=lambda content: content[:20].encode("unicode_escape").decode(),
)
def test_what_is_no_configuration_is_refused_soon(content: str, file: Path) -> None:
    file.write_text(content)
    with pytest.raises(ConfigFileError) as refusal:
        read_config_file(file)
    assert str(file) in str(refusal.value) and len(str(refusal.value)) < 600
    assert method_of(file) is None


def test_bytes_that_are_no_text_are_refused(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00 nonsense")
    with pytest.raises(ConfigFileError, match="utf-8"):
        read_config_file(file)


# ------------------------------------------------------------------ in our commands


@pytest.mark.parametrize("code", ["!!python/object/apply:os.system [touch {}]", "!!python/name:subprocess.Popen ''"])
def test_report_export_and_load_run_run_nothing(code: str, text: str, tmp_path: Path, capsys: Any) -> None:
    from surface_sos_ns import RunError, load_run
    from surface_sos_ns.cli import main

    config, trace = tmp_path / "config.yml", tmp_path / "trace"
    config.write_text(text.replace(TARGET, code.format(trace)))
    with pytest.raises(RunError, match="line 2"):
        load_run(config)
    for command in (["report"], ["export", "--output-dir", str(tmp_path / "out")]):
        assert main([*command, "--load-config", str(config)]) == 1
        said = capsys.readouterr().err
        assert str(config) in said and code.split(":")[1].split()[0] in said and "Traceback" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yml"]
