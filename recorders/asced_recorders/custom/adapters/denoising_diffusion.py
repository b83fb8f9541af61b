"""denoising-diffusion-pytorch: ``GaussianDiffusion.sample`` as a loop.

>>> loop = sampling_loop(diffusion)  # doctest: +SKIP
>>> x = torch.randn(8, 3, 64, 64)  # doctest: +SKIP
>>> with Recorder.custom("runs.zarr", x.shape[1:], steps_of(diffusion)) as r:  # doctest: +SKIP
...     images = loop(x, r.step)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asced_recorders.custom.adapters.entering import DelayedSteps

if TYPE_CHECKING:
    from asced_recorders.custom.adapters.entering import Loop

KINDS = {"pred_noise": "epsilon", "pred_x0": "sample", "pred_v": "v_prediction"}


def steps_of(diffusion: Any) -> int:
    """Steps that a diffusion takes."""
    ddim = diffusion.is_ddim_sampling
    return int(diffusion.sampling_timesteps if ddim else diffusion.num_timesteps)


def sampling_loop(diffusion: Any) -> Loop:
    """The diffusion's own sampling, from a start that is given.

    Parameters
    ----------
    diffusion : GaussianDiffusion

    Returns
    -------
    callable
        ``loop(x_init, step)``; the end is in the network's own range, -1 to 1, as it is sampled.
        Where noise is drawn on the way, seed torch before: it is drawn from the global generator.
    """

    def loop(x_init: Any, step: Any) -> Any:
        entering = DelayedSteps(step)
        kind, begun = KINDS[diffusion.objective], False

        def level(t: Any) -> tuple[float, float]:
            product = float(diffusion.alphas_cumprod[int(t.reshape(-1)[0])])
            return product**0.5, (1 - product) ** 0.5

        def before(_: Any, given: tuple[Any, ...]) -> None:
            nonlocal begun
            x, t = given[:2]
            if not begun:
                x.copy_(x_init)
                begun = True
            entering.enter(x, *level(t))

        def after(_: Any, given: tuple[Any, ...], output: Any) -> None:
            x, t = given[:2]
            entering.said(x, output, *level(t), kind, timestep=int(t.reshape(-1)[0]))

        hooks = (
            diffusion.model.register_forward_pre_hook(before),
            diffusion.model.register_forward_hook(after),
        )
        try:
            sample = (
                diffusion.ddim_sample if diffusion.is_ddim_sampling else (diffusion.p_sample_loop)
            )
            end = diffusion.normalize(sample(tuple(x_init.shape)))
        finally:
            for hook in hooks:
                hook.remove()
        return entering.leave(end)

    return loop
