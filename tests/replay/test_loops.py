"""Loops of one's own: the same lines record, detect and correct, and are replayed."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch

from asced_analysis.calibration import calibrate
from asced_analysis.correction import Corrector
from asced_analysis.correction.loop_step import LoopStep, loop_table
from asced_analysis.detection.apply import detect
from asced_analysis.evaluation import evaluate, tune
from asced_analysis.replay import Branch, branch, exactness, replay
from asced_analysis.thresholds.document import Thresholds
from asced_cli.main import run
from asced_recorders import Recorder
from asced_recorders.custom.adapters import azula, denoising_diffusion, k_diffusion, smalldiffusion
from asced_stores import open_runs
from asced_stores.errors import InputError

STEPS, RUNS, BATCH = 12, 60, 20
SHAPE = (2, 8, 8)
ANGLES = np.linspace(1.45, 0.15, STEPS)
LEVELS = [(float(np.cos(a)), float(np.sin(a))) for a in ANGLES]


class Net(torch.nn.Module):
    """A tiny network of random weights that knows roughly where x0 is; a few runs are restless."""

    def __init__(self, shape: tuple[int, ...] = SHAPE) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(shape[0], shape[0], 3, padding=1)

    @torch.no_grad()
    def x0(self, x: Any, sigma: float) -> Any:
        return torch.tanh(self.conv(x) / (1 + sigma)) + 0.3 * torch.sin(4 * x) / (1 + sigma)


def ddim(x: Any, step: Any) -> Any:
    """The loop, with the one call that is ours."""
    net = Net()
    for (alpha, sigma), (a, s) in zip(LEVELS, [*LEVELS[1:], (1.0, 0.0)], strict=True):
        x0 = net.x0(x, sigma)
        eps = (x - alpha * x0) / sigma
        x = step(
            sample=x,
            model_output=eps,
            alpha=alpha,
            sigma=sigma,
            next_sample=a * x0 + s * eps,
            next_alpha=a,
            next_sigma=s,
        )
    return x


def as_numpy(x: Any, step: Any) -> Any:
    """The same in NumPy, without a channel."""
    for (alpha, sigma), (a, s) in zip(LEVELS, [*LEVELS[1:], (1.0, 0.0)], strict=True):
        x0 = np.tanh(np.cumsum(x, 1, dtype=np.float32) / 4) + np.sin(4 * x) / 5
        eps = (x - alpha * x0) / sigma
        following = (a * x0 + s * eps).astype(np.float32)
        x = step(sample=x, model_output=eps, alpha=alpha, sigma=sigma, next_sample=following)
    return x


def start(batch: int, shape: tuple[int, ...] = SHAPE, scale: float = 1.0) -> Any:
    generator = torch.Generator().manual_seed(100 + batch)
    return scale * torch.randn((BATCH, *shape), generator=generator)


def record(
    path: Path, loop: Callable[[Any, Any], Any], starts: list[Any], steps: int, **options: Any
) -> list[Any]:
    with Recorder.custom(path, starts[0].shape[1:], steps, batch_size=BATCH, **options) as recorder:
        return [loop(x.clone() if hasattr(x, "clone") else x, recorder.step) for x in starts]


def few(path: Path, **options: Any) -> Thresholds:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # few runs
        return calibrate(path, "calibrated", false_alarm_rate=0.3, **options)


def check(path: Path, loop: Callable[[Any, Any], Any], starts: list[Any], tmp_path: Path) -> None:
    """Nothing lost, flagged runs alone changed, and the flags those of `asced detect`."""
    again = replay(path, tmp_path / "none.zarr", loop=loop, strategy="none")
    assert exactness(again).bit_exact
    assert exactness(again).runs == RUNS
    thresholds = few(path)
    flagged = detect(open_runs(path), thresholds)["flagged"].values
    assert 0 < flagged.sum() < RUNS
    replayed = open_runs(replay(path, tmp_path / "ttc.zarr", loop=loop, thresholds=thresholds).path)
    assert (replayed["flagged"].values == flagged).all()
    assert ((replayed["difference"].values > 0) == flagged).all()
    corrector = Corrector(thresholds)
    ends = []
    for x in starts:
        end = loop(x.clone() if hasattr(x, "clone") else x, corrector.step)
        ends.append(np.asarray(end))
    assert [one.flagged for one in corrector.report[-BATCH:]] == flagged[-BATCH:].tolist()
    recorded = open_runs(path)["sample"].values.reshape(len(flagged), -1)
    # The same edit in deployment, whatever the batch: the noise belongs to the run.
    deployed = np.concatenate(ends).reshape(len(flagged), -1)
    assert ((deployed != recorded).any(1) == flagged).all()
    np.testing.assert_array_equal(deployed, replayed["sample"].values.reshape(len(flagged), -1))


@pytest.fixture(scope="module")
def starts() -> list[Any]:
    return [start(batch) for batch in range(RUNS // BATCH)]


@pytest.fixture(scope="module")
def store(starts: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("loops") / "runs.zarr"
    record(path, ddim, starts, STEPS)
    return path


def test_a_loop_records_is_replayed_and_corrected(
    store: Path, starts: list[Any], tmp_path: Path
) -> None:
    check(store, ddim, starts, tmp_path)


def test_arrays_of_numpy_without_a_channel(tmp_path: Path) -> None:
    starts = [start(batch, (8, 8)).numpy() for batch in range(RUNS // BATCH)]
    path = tmp_path / "runs.zarr"
    record(path, as_numpy, starts, STEPS)
    again = replay(path, tmp_path / "none.zarr", loop=as_numpy, strategy="none")
    assert exactness(again).bit_exact
    thresholds = few(path)
    flagged = detect(open_runs(path), thresholds)["flagged"].values
    corrector = Corrector(thresholds, schedule=tuple(zip(*LEVELS, strict=True)))
    ends = np.concatenate([as_numpy(x, corrector.step) for x in starts])
    assert isinstance(ends, np.ndarray)
    assert ends.dtype == np.float32
    recorded = open_runs(path)["sample"].values.reshape(ends.shape)
    assert ((ends != recorded).any((1, 2)) == flagged).all()


def test_the_schedule_or_the_next_level_says_when(store: Path, starts: list[Any]) -> None:
    thresholds = few(store)
    schedule = tuple(zip(*LEVELS, strict=True))
    told = Corrector(thresholds, schedule=schedule)
    seen = Corrector(thresholds)
    for x in starts:
        assert (ddim(x, told.step) == ddim(x, seen.step)).all()
    for corrector in (told, seen):  # a pass that was broken off leaves nothing behind
        left: list[int] = []

        def stop(step: Any = corrector.step, left: list[int] = left, **given: Any) -> Any:
            left.append(1)
            if len(left) == 4:
                raise KeyboardInterrupt
            return step(**given)

        with pytest.raises(KeyboardInterrupt):
            ddim(starts[0], stop)
        corrector.assign(range(BATCH))  # else runs are counted on, and the noise goes by the run
    assert (ddim(starts[0], told.step) == ddim(starts[0], seen.step)).all()
    streamed = Corrector(thresholds, schedule=schedule, strategy="state_replacement")
    assert (ddim(starts[0], streamed.step) != ddim(starts[0], told.step)).any()
    with pytest.raises(InputError, match="whole schedule"):
        ddim(starts[0], Corrector(thresholds, strategy="state_replacement").step)
    with pytest.raises(InputError, match="next_alpha and next_sigma"):
        as_numpy(start(0, (8, 8)).numpy(), Corrector(thresholds).step)
    with pytest.raises(InputError, match="where the schedule has"):
        ddim(starts[0], Corrector(thresholds, schedule=(schedule[0][1:], schedule[1][1:])).step)
    late = Corrector(None, step=40)
    late.assign(range(BATCH), masks=np.ones((BATCH, 8, 8), bool))
    with pytest.raises(InputError, match="ended after 12 steps"):
        ddim(starts[0], late.step)


def test_an_edit_has_the_noise_of_the_next_level(starts: list[Any]) -> None:
    corrector = Corrector(None, step=6)
    corrector.assign(range(BATCH), masks=np.ones((BATCH, 8, 8), bool))
    samples, predicted = [], []

    def step(**given: Any) -> Any:
        samples.append(given["sample"])
        predicted.append(
            (given["sample"] - given["sigma"] * given["model_output"]) / given["alpha"]
        )
        return corrector.step(**given)

    ddim(starts[0], step)
    alpha, sigma = LEVELS[6]
    noise = (samples[6] - alpha * predicted[5].half().float()) / sigma
    assert float(noise.std()) == pytest.approx(1, abs=0.05)
    assert [one.changed for one in corrector.report] == [1.0] * BATCH


def test_score_clipping_moves_the_next_sample_of_a_deterministic_loop(starts: list[Any]) -> None:
    schedule = tuple(zip(*LEVELS, strict=True))
    masks = np.zeros((BATCH, 8, 8), bool)
    masks[:, 2:6, 2:6] = True

    def corrector() -> Corrector:
        found = Corrector(None, strategy="score_clipping", step=9, schedule=schedule, grow=0)
        found.assign(range(BATCH), masks=masks)
        return found

    asked, table = corrector(), loop_table(*schedule)

    def clipped(**given: Any) -> Any:  # as under diffusers: the network's word is another
        handed = LoopStep(**given)
        step = [level[0] for level in LEVELS].index(given["alpha"])
        if step == 0:
            asked.begin(table)
        said = asked.before_step(handed.event(table, step))
        if said is None:
            return given["next_sample"]
        changed.append(step)
        x0 = (given["sample"] - given["sigma"] * said) / given["alpha"]
        return given["next_alpha"] * x0 + given["next_sigma"] * said

    changed: list[int] = []
    expected = ddim(starts[0], clipped)
    assert len(changed) > 3
    found = ddim(starts[0], corrector().step)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (found != ddim(starts[0], lambda **given: given["next_sample"])).any()
    stochastic = corrector()

    def noisy(**given: Any) -> Any:
        noise = 0.1 * torch.ones_like(given["sample"])
        return stochastic.step(**{**given, "next_sample": given["next_sample"] + noise})

    with pytest.raises(InputError, match="DDIM and Euler without noise"):
        ddim(starts[0], noisy)


def test_a_corrected_loop_is_recorded(store: Path, starts: list[Any], tmp_path: Path) -> None:
    """The same lines record, detect and correct, and the store holds flags and masks."""
    thresholds = few(store)
    alone, path = Corrector(thresholds), tmp_path / "corrected.zarr"
    ends = [ddim(x, alone.step) for x in starts]
    together = record(path, ddim, starts, STEPS, corrector=Corrector(thresholds))
    assert all(torch.equal(one, other) for one, other in zip(ends, together, strict=True))
    ds, plain = open_runs(path).load(), open_runs(store).load()
    flagged = detect(open_runs(store), thresholds)["flagged"].values
    assert ds["flagged"].values.tolist() == flagged.tolist()
    assert (ds["mask"].values.any((1, 2)) == flagged).all()
    assert np.isfinite(ds["score"].values).all()
    apart = (ds["sample"].values != plain["sample"].values).any((1, 2, 3))
    assert (apart == flagged).all()
    np.testing.assert_array_equal(ds["sample"].values, torch.cat(ends).numpy())
    assert ds.attrs["correction"]["strategy"] == "ttc"
    again = replay(path, tmp_path / "plain.zarr", loop=ddim, strategy="none")
    assert exactness(again).runs == RUNS - flagged.sum()
    assert exactness(again).bit_exact
    np.testing.assert_array_equal(open_runs(again.path)["sample"].values, plain["sample"].values)
    with pytest.raises(InputError, match="corrected by ttc while they were sampled"):
        replay(path, tmp_path / "no.zarr", loop=ddim, thresholds=thresholds)
    with pytest.raises(InputError, match="this call is not corrected, and those before"):
        record(path, ddim, starts, STEPS, resume=True)


def test_groups_full_precision_and_levels_of_another_rounding(
    starts: list[Any], tmp_path: Path
) -> None:
    """Levels by group, float32 stores and noise levels 1e-7 apart: loop and store agree."""
    path, labels = tmp_path / "runs.zarr", np.arange(BATCH) % 2
    with Recorder.custom(path, SHAPE, STEPS, batch_size=BATCH, dtype="float32") as recorder:
        for x in starts:
            recorder.describe(label=labels)
            ddim(
                x * (1 + 0.5 * torch.from_numpy(labels).float()[:, None, None, None]), recorder.step
            )
    assert open_runs(path)["label"].values.tolist() == labels.tolist() * len(starts)
    thresholds = few(path, groups="label")
    assert len(thresholds.groups) == 2
    found = detect(open_runs(path), thresholds)
    flagged = found["flagged"].values
    pooled = detect(open_runs(path), dataclasses.replace(thresholds, groups={}))["flagged"].values
    assert (flagged != pooled).any()
    replayed = open_runs(replay(path, tmp_path / "c.zarr", loop=ddim, thresholds=thresholds).path)
    assert (replayed["flagged"].values == flagged).all()
    np.testing.assert_allclose(replayed["score"].values, found["score"].values, rtol=1e-6)
    corrector = Corrector(thresholds)

    def rounded(**given: Any) -> Any:
        near = {name: given[name] * (1 + 1e-7) for name in ("alpha", "next_alpha")}
        return corrector.step(**{**given, **near})

    for number, x in enumerate(starts):
        corrector.assign(range(number * BATCH, (number + 1) * BATCH), groups=labels.tolist())
        ddim(x * (1 + 0.5 * torch.from_numpy(labels).float()[:, None, None, None]), rounded)
        own = slice(number * BATCH, (number + 1) * BATCH)
        assert [one.flagged for one in corrector.report] == flagged[own].tolist()
        scores = [one.score for one in corrector.report]
        np.testing.assert_allclose(scores, found["score"].values[own], rtol=1e-4, atol=1e-5)


def test_data_outside_the_usual_range_are_compared_in_their_own(tmp_path: Path) -> None:
    def far(x: Any, step: Any) -> Any:
        for (alpha, sigma), (a, s) in zip(LEVELS, [*LEVELS[1:], (1.0, 0.0)], strict=True):
            x0 = 500 * torch.tanh(x / 500) + 500
            eps = (x - alpha * x0) / sigma
            x = step(
                sample=x,
                model_output=eps,
                alpha=alpha,
                sigma=sigma,
                next_sample=a * x0 + s * eps,
            )
        return x

    shape = (1, 8, 8)
    path = tmp_path / "runs.zarr"
    record(path, far, [start(0, shape, 500.0)], STEPS, dtype="float32", value_range=(0, 1000))
    mask = np.zeros((8, 8), bool)
    mask[2:5, 2:5] = True
    replayed = replay(path, tmp_path / "c.zarr", loop=far, masks={3: mask}, step=4, noise_scale=0.0)
    ds, plain = open_runs(replayed.path), open_runs(path)
    away = np.abs(ds["sample"].values - plain["sample"].values)[3].max(0)
    assert ds["changed"].values[3] == pytest.approx((away > 1000 / 255).mean())
    assert 0 < ds["changed"].values[3] < 1
    assert np.abs(plain["image"].values[0].astype(int) - ds["image"].values[0]).max() == 0
    one = exactness(replayed)
    assert one.value_range == (0, 1000)
    assert "in 0..1000" in dataclasses.replace(one, identical=0).sentence()


def test_branches_tuning_and_evaluation_take_a_loop(store: Path, tmp_path: Path) -> None:
    thresholds = few(store)
    masks = {3: np.ones((8, 8), bool), 25: np.ones((8, 8), bool)}
    replayed = branch(store, tmp_path / "b.zarr", [Branch(step=5)], masks=masks, loop=ddim)
    alone = replay(store, tmp_path / "a.zarr", masks=masks, step=5, grow=0, loop=ddim)
    found = open_runs(replayed.path)["branch_sample"].values[:, 0]
    expected = open_runs(alone.path)["sample"].sel(run=[3, 25]).values
    np.testing.assert_allclose(found, expected, atol=5e-3)
    tuned = tune(store, thresholds, steps=[5], strategies=["ttc"], share=0.5, loop=ddim)
    assert tuned.thresholds.correction.strategy == "ttc"
    corrected = replay(store, tmp_path / "c.zarr", thresholds=thresholds, loop=ddim)
    assert set(evaluate(store, corrected, loop=ddim).to_dict()["controls"]) == {
        "everywhere",
        "foreground",
        "shuffled",
    }


def test_the_command_line_takes_a_loop_by_name(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = types.ModuleType("my_loop")
    module.sample = ddim  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_loop", module)
    command = ["replay", str(store), "--strategy", "none", "--out", str(tmp_path / "a.zarr")]
    assert run([*command, "--loop", "my_loop:sample"]) == 0
    assert f"{RUNS} of {RUNS} uncorrected runs came back bit for bit" in capsys.readouterr().out
    own = tmp_path / "elsewhere" / "own_loop.py"
    own.parent.mkdir()
    own.write_text("from my_loop import sample\n")
    assert run([*command, "--overwrite", "--loop", f"{own}:sample"]) == 0
    assert f"{RUNS} of {RUNS} uncorrected runs came back bit for bit" in capsys.readouterr().out
    own.write_text("import no_such_module\n")
    for name, message in (
        ("my_loop", "module:function"),
        ("no_such_module:f", "can't be imported"),
        ("my_loop:other", "has no function other"),
        (f"{own}:sample", "own_loop.py can't be imported"),
        (f"{own.parent}/none.py:sample", "there is no file"),
    ):
        assert run([*command, "--overwrite", "--loop", name]) == 2
        assert message in capsys.readouterr().err


def test_a_loop_that_does_otherwise_than_recorded_is_refused(store: Path, tmp_path: Path) -> None:
    def short(x: Any, step: Any) -> Any:
        return x

    with pytest.raises(InputError, match="0 of 12 recorded steps"):
        replay(store, tmp_path / "a.zarr", loop=short, strategy="none")
    with pytest.raises(InputError, match="not both"):
        replay(store, tmp_path / "a.zarr", loop=ddim, pipeline="fashion", strategy="none")
    with pytest.raises(InputError, match="begins at its start"):
        replay(store, tmp_path / "a.zarr", loop=ddim, strategy="none", start=0)


def sample_euler(
    model: Any, x: Any, sigmas: Any, extra_args: Any = None, callback: Any = None, **_: Any
) -> Any:
    """As k-diffusion has it, for where that is not installed."""
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * x.new_ones([x.shape[0]]), **(extra_args or {}))
        if callback is not None:
            facts = {"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i]}
            callback({**facts, "denoised": denoised})
        x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
    return x


def test_the_readmes_five_lines_in_someone_elses_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        sampling = stubbed("k_diffusion.sampling", monkeypatch)
    except pytest.skip.Exception:
        sampling = types.SimpleNamespace(sample_euler=sample_euler)
    net = Net()
    sigmas = torch.cat([torch.logspace(1, -1.3, STEPS), torch.zeros(1)])

    def model(x: Any, sigma: Any) -> Any:
        return net.x0(x, float(sigma[0]))

    readme = (Path(__file__).parents[2] / "README.md").read_text()
    before, lines = (
        block.split("```")[0] for block in readme.split("<!-- five lines -->\n```python\n")[1:]
    )
    names: dict[str, Any] = {
        "k_diffusion": types.SimpleNamespace(sampling=sampling),
        **{"model": model, "sigmas": sigmas},
    }
    monkeypatch.chdir(tmp_path)
    names["x"] = torch.cat([start(batch, scale=10.0) for batch in range(RUNS // BATCH)])
    exec(before, names)
    thresholds = few(tmp_path / "runs.zarr")
    thresholds.save("thresholds.json")
    code = [line for line in lines.splitlines() if line and not line.startswith(("from", "import"))]
    assert len(code) <= 5
    exec(lines, names)
    served, plain = open_runs("served.zarr").load(), open_runs("runs.zarr").load()
    flagged = detect(open_runs("runs.zarr"), thresholds)["flagged"].values
    assert 0 < flagged.sum() < RUNS
    assert served["flagged"].values.tolist() == flagged.tolist()
    assert [one.flagged for one in names["corrector"].report] == flagged.tolist()
    apart = (served["sample"].values != plain["sample"].values).any((1, 2, 3))
    assert (apart == flagged).all()
    assert (names["end"].numpy() == served["sample"].values).all()


# ---- other people's packages, as they are installed


def stubbed(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a module of a package, with stand-ins for what it imports and does not use here."""
    top = name.split(".")[0]
    if top in sys.modules:
        return importlib.import_module(name)
    package = importlib.util.find_spec(top)
    if package is None:
        pytest.skip(f"{name} is not installed")
    unused = ("torchvision", "torchvision.transforms", "skimage", "clip", "cleanfid")
    absent = {top for top in unused if "." not in top and importlib.util.find_spec(top) is None}
    for missing in unused:
        if missing.split(".")[0] in absent:
            monkeypatch.setitem(sys.modules, missing, MagicMock(__spec__=None))
    if "." in name:  # not the package's own __init__, which imports much more
        parent = types.ModuleType(top)
        parent.__path__ = list(package.submodule_search_locations or [])
        monkeypatch.setitem(sys.modules, parent.__name__, parent)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


@pytest.mark.thirdparty
@pytest.mark.parametrize("name", ["sample_euler", "sample_heun", "sample_dpmpp_2m"])
def test_k_diffusion(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampling = stubbed("k_diffusion.sampling", monkeypatch)
    net, sigmas = Net(), sampling.get_sigmas_karras(STEPS, 0.05, 10.0)
    loop = k_diffusion.sampling_loop(
        getattr(sampling, name), lambda x, sigma: net.x0(x, float(sigma[0])), sigmas
    )
    starts = [start(batch, scale=float(sigmas[0])) for batch in range(RUNS // BATCH)]
    path = tmp_path / "runs.zarr"
    ends = record(path, loop, starts, STEPS)
    plain = getattr(sampling, name)(
        lambda x, sigma: net.x0(x, float(sigma[0])), starts[0], sigmas, disable=True
    )
    assert torch.equal(ends[0], plain)
    check(path, loop, starts, tmp_path)
    with pytest.raises(InputError, match="sample_lms"):
        k_diffusion.sampling_loop(sampling.sample_lms, net, sigmas)


@pytest.mark.thirdparty
@pytest.mark.parametrize("objective", ["pred_x0", "pred_v"])
def test_denoising_diffusion_pytorch(
    objective: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = stubbed("denoising_diffusion_pytorch.denoising_diffusion_pytorch", monkeypatch)

    class Model(Net):
        channels, self_condition, random_or_learned_sinusoidal_cond = SHAPE[0], False, False
        out_dim = SHAPE[0]

        def forward(self, x: Any, t: Any, *_: Any) -> Any:
            return torch.tanh(self.conv(x)) + 0.2 * torch.sin(4 * x)

    monkeypatch.setattr(package, "tqdm", lambda it, **_: it)
    diffusion = package.GaussianDiffusion(
        Model(), image_size=8, timesteps=100, sampling_timesteps=STEPS, objective=objective
    )
    loop = denoising_diffusion.sampling_loop(diffusion)
    assert denoising_diffusion.steps_of(diffusion) == STEPS
    starts = [start(batch) for batch in range(RUNS // BATCH)]
    path = tmp_path / "runs.zarr"
    record(path, loop, starts, STEPS)
    check(path, loop, starts, tmp_path)


@pytest.mark.thirdparty
def test_smalldiffusion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = stubbed("smalldiffusion.diffusion", monkeypatch)
    modelling = stubbed("smalldiffusion.model", monkeypatch)

    class Model(Net, modelling.ModelMixin):  # type: ignore[misc, name-defined]
        input_dims = SHAPE

        def forward(self, x: Any, sigma: Any, cond: Any = None) -> Any:
            level = float(sigma.reshape(-1)[0])
            return (x - self.x0(x, level)) / level

    sigmas = package.ScheduleLogLinear(N=100, sigma_min=0.05, sigma_max=10).sample_sigmas(STEPS)
    accelerator = types.SimpleNamespace(device="cpu")
    loop = smalldiffusion.sampling_loop(package.samples, Model(), sigmas, accelerator=accelerator)
    starts = [start(batch, scale=float(sigmas[0])) for batch in range(RUNS // BATCH)]
    path = tmp_path / "runs.zarr"
    record(path, loop, starts, len(sigmas) - 1)
    check(path, loop, starts, tmp_path)
    with pytest.raises(InputError, match="gam"):
        smalldiffusion.sampling_loop(package.samples, Model(), sigmas, gam=2.0)


@pytest.mark.thirdparty
def test_azula(tmp_path: Path) -> None:
    sample = pytest.importorskip("azula.sample")
    noise = pytest.importorskip("azula.noise")

    class Denoiser(Net):
        schedule = noise.VPSchedule()

        def forward(self, x: Any, t: Any, **_: Any) -> Any:
            alpha, sigma = self.schedule(t)
            return types.SimpleNamespace(mean=self.x0(x / alpha, float(sigma / alpha)))

    sampler = sample.DDIMSampler(Denoiser(), steps=STEPS, silent=True)
    loop = azula.sampling_loop(sampler)
    starts = [start(batch) for batch in range(RUNS // BATCH)]
    path = tmp_path / "runs.zarr"
    record(path, loop, starts, STEPS)
    check(path, loop, starts, tmp_path)
    with pytest.raises(InputError, match="Sampler"):
        azula.sampling_loop(types.SimpleNamespace())
