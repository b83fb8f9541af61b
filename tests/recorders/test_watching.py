"""Loops of other libraries, recorded by a hook on their network; the real ones where they are."""

from __future__ import annotations

import importlib
import itertools
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asced_recorders import Recorder
from asced_recorders.custom.adapters.k_diffusion import recording_callback
from asced_stores import open_runs
from asced_stores.errors import InputError, StoreExistsError

MEAN, SPREAD = 0.4, 0.3
SHAPE = (1, 4, 4)


class Exact(torch.nn.Module):
    """The exact denoiser of independent normals, told alpha and sigma by a function."""

    channels, self_condition, out_dim = 1, False, 1

    def __init__(self, levels: Any) -> None:
        super().__init__()
        self.levels = levels
        self.register_buffer("weight", torch.ones(1))

    def forward(self, x: Any, t: Any, *_: Any, **__: Any) -> Any:
        alpha, sigma = (torch.as_tensor(v).reshape(-1, 1, 1, 1)[:1] for v in self.levels(x, t))
        gain = alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2)
        return MEAN + gain * (x - alpha * MEAN)


def sigma_levels(x: Any, sigma: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
    return torch.ones_like(torch.as_tensor(sigma)), sigma


def check(path: Path, steps: int, end: Any = None, runs: int = 3) -> Any:
    """What is recorded is the exact posterior at the recorded noise levels."""
    ds = open_runs(path)
    assert (ds.sizes["run"], ds.sizes["step"]) == (runs, steps)
    eps, x0 = ds["eps"].astype("f8"), ds["x0"].astype("f8")
    x = ds["alpha"] * x0 + ds["sigma"] * eps
    gain = ds["alpha"] * SPREAD**2 / (ds["alpha"] ** 2 * SPREAD**2 + ds["sigma"] ** 2)
    expected = MEAN + gain * (x - ds["alpha"] * MEAN)
    np.testing.assert_allclose(x0.transpose(*expected.dims), expected, atol=3e-3, rtol=2e-3)
    if end is not None:
        np.testing.assert_allclose(ds["sample"], np.asarray(end), atol=1e-5)
    return ds


def noise(scale: float = 1.0) -> torch.Tensor:
    return torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0)) * scale


def heun(network: Any, x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    for now, following in itertools.pairwise(sigmas):
        slope = (x - network(x, now)) / now
        step = x + (following - now) * slope
        if following > 0:
            second = (step - network(step, following)) / following
            step = x + (following - now) * (slope + second) / 2
        x = step
    return x


def test_second_evaluations_are_not_steps(tmp_path: Path) -> None:
    network, sigmas = Exact(sigma_levels), torch.tensor([10.0, 3.0, 1.0, 0.3, 0.0])
    with Recorder.watch(
        network, tmp_path / "runs.zarr", levels=sigma_levels, prediction_type="sample"
    ) as recorder:
        recorder.describe(seed=[1, 2, 3])
        end = heun(network, noise(10), sigmas)
        recorder.end(end)
        heun(network, noise(10), sigmas)  # its end is its last predicted x0
    assert not network._forward_hooks
    ds = check(tmp_path / "runs.zarr", 4, runs=6)
    np.testing.assert_allclose(ds["sigma"], sigmas[:-1], rtol=1e-6)
    np.testing.assert_allclose(ds["sample"].values[:3], end, atol=1e-6)
    assert ds["seed"].values.tolist() == [1, 2, 3, -1, -1, -1]


def test_each_run_has_what_was_said_of_it(tmp_path: Path) -> None:
    network, sigmas = Exact(sigma_levels), torch.tensor([10.0, 1.0, 0.0])
    path = tmp_path / "runs.zarr"
    given: Any = {"levels": sigma_levels, "prediction_type": "sample"}
    with Recorder.watch(network, path, **given) as recorder:
        with pytest.raises(InputError, match="are no facts of a run"):
            recorder.describe(seeds=1)
        for seed in range(3):  # no end() tells where a run ends
            recorder.describe(seed=seed)
            heun(network, noise(10), sigmas)
            recorder.describe(prompt=f"number {seed}")
    ds = open_runs(path)
    assert ds["seed"].values.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert ds["prompt"].values[::3].tolist() == ["number 0", "number 1", "number 2"]
    with pytest.raises(StoreExistsError, match="exists already"):  # before anything is sampled
        Recorder.watch(network, path, **given)


def test_facts_of_the_next_batch_do_not_end_this_one(tmp_path: Path) -> None:
    network, sigmas = Exact(sigma_levels), torch.tensor([10.0, 3.0, 1.0, 0.0])
    path, end = tmp_path / "runs.zarr", torch.full((3, *SHAPE), 5.0)
    given: Any = {"levels": sigma_levels, "prediction_type": "sample", "value_range": (-9, 9)}
    with Recorder.watch(network, path, **given) as recorder:
        with pytest.raises(InputError, match="no run that could end: the network was not called"):
            recorder.end(end)
        for sigma in sigmas[:-1]:  # of the first run nobody knows when it is whole
            recorder.describe(seed=1)
            network(noise(10), sigma)
        recorder.describe(seed=2, label=7)
        recorder.end(end)
        with pytest.raises(InputError, match="no run that could end"):
            recorder.end(end)
        heun(network, noise(10), sigmas)
        recorder.describe(seed=3)
        recorder.describe(label=8)
        recorder.end(end)
        heun(network, noise(10), sigmas)
    ds = check_facts_of(path, seed=[1, 2, 3], label=[-1, 7, 8])
    assert ds.sizes["step"] == 3
    assert (ds["sample"].values[:6] == 5).all()


def test_what_was_said_of_a_refused_batch_goes_to_no_other(tmp_path: Path) -> None:
    network, sigmas = Exact(sigma_levels), torch.tensor([10.0, 3.0, 1.0, 0.0])
    path = tmp_path / "runs.zarr"
    given: Any = {"levels": sigma_levels, "prediction_type": "sample", "steps": 3}
    refused: dict[str, list[float]] = {
        "called twice with one sample": [10.0, 10.0],
        "walks back": [10.0, 3.0, 1.0, 5.0],
        "2 noise levels, and runs of this store have 3": [10.0, 3.0, 10.0],
    }
    with Recorder.watch(network, path, **given) as recorder:
        for seed, (message, walk) in enumerate(refused.items()):
            recorder.describe(seed=99, prompt="a cat", label=3)
            for sigma in walk[:-1]:
                network(noise(10), torch.tensor(sigma))
            with pytest.raises(InputError, match=message):
                network(noise(10), torch.tensor(walk[-1]))
            recorder.describe(seed=seed)
            heun(network, noise(10), sigmas)
            recorder.end(noise())
        recorder.describe(seed=3, label=4)
        network(noise(10), sigmas[0])
        with pytest.raises(InputError, match="called twice"):
            network(noise(10), sigmas[0])
        heun(network, noise(10), sigmas)  # the same batch once more
    ds = check_facts_of(path, seed=[0, 1, 2, 3], label=[-1, -1, -1, 4])
    assert "prompt" not in ds or not any(ds["prompt"].values)


def check_facts_of(path: Path, **facts: list[int]) -> Any:
    """Batches of three runs have these facts."""
    ds = open_runs(path)
    for name, values in facts.items():
        assert ds[name].values.tolist() == [value for value in values for _ in range(3)]
    return ds


def test_levels_may_be_given_in_order(tmp_path: Path) -> None:
    network, sigmas = Exact(sigma_levels), torch.tensor([10.0, 3.0, 1.0, 0.0])
    levels = [(1.0, float(sigma)) for sigma in sigmas[:-1]]
    path = tmp_path / "runs.zarr"
    with Recorder.watch(network, path, levels=levels, prediction_type="sample") as recorder:
        for _ in range(2):
            x = noise(10)
            for now, following in itertools.pairwise(sigmas):
                x = x + (following - now) * (x - network(x, now)) / now
            recorder.end(x)
    check(path, 3, runs=6)


def test_what_is_no_trajectory_is_refused(tmp_path: Path) -> None:
    network = Exact(sigma_levels)
    options: dict[str, Any] = {"levels": sigma_levels, "prediction_type": "sample"}

    def walk(sigmas: Any) -> None:
        for i, sigma in enumerate(sigmas):
            network(noise(10) + i, torch.tensor(sigma))

    with Recorder.watch(network, tmp_path / "a.zarr", **options) as recorder:
        with pytest.raises(InputError, match="walks back"):
            walk([10.0, 5.0, 3.0, 1.0, 4.0])
        network(noise(10), torch.tensor(5.0))
        with pytest.raises(InputError, match="called twice with one sample"):
            network(noise(10), torch.tensor(5.0))
        walk([10.0, 5.0, 3.0])
        recorder.end(noise())
        walk([10.0, 5.0])
        with pytest.raises(InputError, match="2 noise levels, and runs of this store have 3"):
            recorder.end(noise())
        walk([10.0, 5.0, 3.0])
    assert open_runs(tmp_path / "a.zarr").sizes["run"] == 6
    with (
        pytest.raises(InputError, match="the network was not called"),
        Recorder.watch(network, tmp_path / "b.zarr", **options),
    ):
        pass
    with pytest.raises(InputError, match="give the torch module"):
        Recorder.watch(print, tmp_path / "b.zarr", **options)


def shell(monkeypatch: pytest.MonkeyPatch, package: str, *absent: str) -> None:
    """Import a package's modules without its own ``__init__`` and what it needs to train."""
    try:
        found = importlib.util.find_spec(package)
    except ImportError:
        found = None
    if found is None:
        pytest.skip(f"{package} is not installed: make test-thirdparty")
    module = types.ModuleType(package)
    module.__path__ = list(found.submodule_search_locations or ())
    monkeypatch.setitem(sys.modules, package, module)
    for name in absent:
        stub = types.ModuleType(name)
        for attribute in ("transforms", "functional", "utils", "FIDEvaluation"):
            setattr(stub, attribute, stub)
        monkeypatch.setitem(sys.modules, name, stub)


@pytest.mark.thirdparty
@pytest.mark.filterwarnings("ignore")
class TestKDiffusion:
    @pytest.fixture
    def sampling(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        shell(monkeypatch, "k_diffusion", "torchvision", "torchvision.transforms")
        pytest.importorskip("torchsde")
        pytest.importorskip("torchdiffeq")
        return importlib.import_module("k_diffusion.sampling")

    @pytest.mark.parametrize("name", ["euler", "euler_ancestral", "heun", "dpmpp_2m", "lms"])
    def test_samplers_are_watched(self, name: str, sampling: Any, tmp_path: Path) -> None:
        network, sigmas = Exact(sigma_levels), sampling.get_sigmas_karras(8, 0.05, 10.0)
        sample = getattr(sampling, f"sample_{name}")
        path = tmp_path / "runs.zarr"
        with Recorder.watch(
            network, path, levels=sigma_levels, prediction_type="sample"
        ) as recorder:
            end = sample(network, noise(10), sigmas, disable=True)
            recorder.end(end)
        ds = check(path, 8, end)
        np.testing.assert_allclose(ds["sigma"], sigmas[:-1], rtol=1e-5)

    def test_churn_is_recorded(self, sampling: Any, tmp_path: Path) -> None:
        network, sigmas = Exact(sigma_levels), sampling.get_sigmas_karras(18, 0.002, 80.0)
        options = {"s_churn": 80.0, "s_tmin": 0.05, "s_tmax": 50.0, "disable": True}
        with Recorder.custom(tmp_path / "runs.zarr", SHAPE, 18) as recorder:
            end = sampling.sample_heun(
                network, noise(80), sigmas, callback=recording_callback(recorder), **options
            )
            recorder.end(end)
        ds = check(tmp_path / "runs.zarr", 18, end)
        assert (np.diff(ds["sigma"]) > 0).any()  # noise was added between two steps

    def test_adaptive_steps_are_refused(self, sampling: Any, tmp_path: Path) -> None:
        network = Exact(sigma_levels)
        with (
            pytest.raises(InputError, match="takes some back"),
            Recorder.custom(tmp_path / "runs.zarr", SHAPE, 18) as recorder,
        ):
            sampling.sample_dpm_adaptive(
                network, noise(10), 0.05, 10.0, callback=recording_callback(recorder), disable=True
            )


@pytest.mark.thirdparty
@pytest.mark.filterwarnings("ignore")
def test_denoising_diffusion_pytorch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = "denoising_diffusion_pytorch"
    stubs = ("torchvision", f"{package}.fid_evaluation", f"{package}.attend")
    shell(monkeypatch, package, *stubs, "ema_pytorch")
    monkeypatch.setattr(sys.modules[f"{package}.attend"], "Attend", None, raising=False)
    monkeypatch.setattr(sys.modules["ema_pytorch"], "EMA", None, raising=False)
    pytest.importorskip("einops")
    ddp = importlib.import_module(f"{package}.denoising_diffusion_pytorch")

    def levels(x: Any, t: Any, *_: Any) -> tuple[Any, Any]:
        abar = diffusion.alphas_cumprod[t]
        return abar.sqrt(), (1 - abar).sqrt()

    network = Exact(levels)
    diffusion = ddp.GaussianDiffusion(
        network,
        image_size=4,
        timesteps=20,
        objective="pred_x0",
        auto_normalize=False,
        beta_schedule="linear",
    )
    with Recorder.watch(
        network, tmp_path / "runs.zarr", levels=levels, prediction_type="sample"
    ) as recorder:
        recorder.end(diffusion.sample(batch_size=3))
    check(tmp_path / "runs.zarr", 20)


@pytest.mark.thirdparty
@pytest.mark.filterwarnings("ignore")
def test_smalldiffusion(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shell(monkeypatch, "smalldiffusion", "torchvision")
    small = importlib.import_module("smalldiffusion.diffusion")
    model = importlib.import_module("smalldiffusion.model")

    class Model(torch.nn.Module, model.ModelMixin):
        input_dims = SHAPE

        def __init__(self) -> None:
            super().__init__()
            self.exact = Exact(sigma_levels)

        def forward(self, x: Any, sigma: Any, cond: Any = None) -> Any:
            return (x - self.exact(x, sigma)) / sigma

    network, sigmas = Model(), small.ScheduleLogLinear(100).sample_sigmas(8)
    with Recorder.watch(
        network, tmp_path / "runs.zarr", levels=sigma_levels, prediction_type="epsilon"
    ) as recorder:
        *_, end = small.samples(network, sigmas, batchsize=3)
        recorder.end(end)
    check(tmp_path / "runs.zarr", 8, end.detach())


@pytest.mark.thirdparty
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["DDIMSampler", "DDPMSampler", "EulerSampler"])
def test_azula(name: str, tmp_path: Path) -> None:
    denoise = pytest.importorskip("azula.denoise")
    noises, sample = (importlib.import_module(f"azula.{m}") for m in ("noise", "sample"))

    class Denoiser(denoise.Denoiser):
        def __init__(self) -> None:
            super().__init__()
            self.schedule = noises.VPSchedule()
            self.exact = Exact(lambda x, t: self.schedule(t))

        def forward(self, x_t: Any, t: Any, **_: Any) -> Any:
            return denoise.DiracPosterior(mean=self.exact(x_t, t))

    network = Denoiser()
    sampler = getattr(sample, name)(network, steps=8, silent=True)
    with Recorder.watch(
        network,
        tmp_path / "runs.zarr",
        levels=lambda x, t, **_: network.schedule(t),
        prediction_type="sample",
    ) as recorder:
        end = sampler(sampler.init((3, *SHAPE)))
        recorder.end(end)
    check(tmp_path / "runs.zarr", 8, end)
