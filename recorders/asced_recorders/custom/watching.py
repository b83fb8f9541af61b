"""Record the sampling loop of another library by what goes in and out of its network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from asced_recorders.custom.levels import one_number
from asced_recorders.custom.loop import CustomRecorder
from asced_recorders.custom.options import CustomOptions
from asced_recorders.custom.samples import check_facts
from asced_recorders.pipelines.activations import ActivationWatch
from asced_recorders.writing.session import Session
from asced_stores.backends.opening import url_of
from asced_stores.errors import InputError
from asced_stores.options import check_names

if TYPE_CHECKING:
    from torch import Tensor

    from asced_stores import TrajectoryStore

SAME = 1e-6  # of log-SNR: one level, computed twice
Levels = Callable[..., tuple[Any, Any]] | Sequence[tuple[float, float]]


@dataclass
class _Evaluation:
    sample: Tensor
    output: Tensor
    alpha: float
    sigma: float
    activations: Tensor | None = None

    @property
    def log_snr(self) -> float:
        return 2 * math.log(self.alpha / self.sigma) if self.alpha > 0 else -math.inf


class NetworkRecorder:
    """Records what a network is asked and answers while any loop samples with it.

    Each call of the network is one step, from the noisy end to the clean one; where the noise rises
    to the beginning again, another batch of runs begins. Of methods that evaluate the network again
    at the next level (Heun), the evaluation that counts is the last one at a level, by which the
    next step begins. A network that is asked twice about one and the same sample is guided from
    outside: watch what the sampler calls, with the guidance inside.

    Parameters
    ----------
    network : torch.nn.Module
        What the sampler calls. Its first argument is the sample, its answer a tensor, a tuple that
        begins with one, or an object whose ``sample`` or ``mean`` is one.
    store : str or Path
        Path or URL of the store.
    levels : callable, or sequence of (alpha, sigma)
        ``levels(*args, **kwargs)`` of the network's own arguments gives ``(alpha, sigma)`` of the
        sample; or the levels of the calls of a run, in order.
    prediction_type : str
        What the network returns (`asced_stores.format.noise_levels.PREDICTION_TYPES`).
    steps : int, optional
        Calls of a run, where it is known; by default as many as the first run makes.
    sigma_data : float
        For EDM's parametrisation.
    activations : sequence of str
        Modules of the network of which pooled activations are kept by step, for example
        ``mid_block``.
    **options
        As `CustomRecorder` has them.

    Raises
    ------
    InputError
        If the network cannot be watched; while sampling, if the loop walks back to an earlier
        level, or runs do not have the same levels.

    Examples
    --------
    >>> import torch
    >>> from asced_recorders import Recorder
    >>> def levels(x, t):
    ...     return (1 - t) ** 0.5, t**0.5
    >>> class Denoiser(torch.nn.Module):
    ...     def forward(self, x, t):
    ...         return 0.9 * x
    >>> network, x = Denoiser(), torch.randn(2, 1, 8, 8)
    >>> with Recorder.watch(network, "loop.zarr", levels=levels, prediction_type="sample"):
    ...     for t in (0.9, 0.6, 0.3):
    ...         x = network(x, t)
    """

    def __init__(
        self,
        network: Any,
        store: str | Path,
        *,
        levels: Levels,
        prediction_type: str,
        steps: int | None = None,
        sigma_data: float = 0.5,
        activations: Sequence[str] = (),
        **options: Any,
    ) -> None:
        from torch import nn

        if not isinstance(network, nn.Module):
            raise InputError(
                f"network is a {type(network).__name__}: give the torch module that the sampler "
                "calls, or hand over the steps of the loop with Recorder.custom"
            )
        check_names(options, [one.name for one in fields(CustomOptions)], "Recorder.watch")
        Session(url_of(store), CustomOptions(**options)).close()  # refuses what cannot be written
        self.network, self.path = network, store
        self.levels, self.prediction_type = levels, prediction_type
        self.sigma_data, self.options = sigma_data, options
        self.activations = ActivationWatch(network, activations)
        self.steps = steps if callable(levels) else len(levels)
        self._run: list[_Evaluation] = []
        self._recorder: CustomRecorder | None = None
        self._handle: Any = None
        self._facts: dict[str, Any] = {}
        self._next: dict[str, Any] = {}  # said once a run may be whole: the next call says of whom
        self._left_over = False  # facts of a batch that was refused

    @property
    def store(self) -> TrajectoryStore | None:
        """The store, once the first run is complete."""
        return None if self._recorder is None else self._recorder.store

    def __enter__(self) -> Self:
        def watching(module: Any, args: Any, kwargs: Any, output: Any) -> None:
            self._see(args, kwargs, output)

        watching.asced = True  # type: ignore[attr-defined]
        self._handle = self.network.register_forward_hook(watching, with_kwargs=True)
        self.activations.__enter__()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._handle.remove()
        self.activations.__exit__()
        try:
            if error is None:
                self._finish(None)
                if self._recorder is None:
                    raise InputError("nothing was recorded: the network was not called")
        except BaseException:
            if self._recorder is not None:
                self._recorder.close(quietly=True)
            raise
        if self._recorder is not None:
            self._recorder.close(quietly=error is not None)

    def describe(self, **facts: Any) -> None:
        """Say what the runs of the present batch are; see `CustomRecorder.describe`.

        Where a fact that was given already comes after the last step, it and what is said after it
        are of the next batch; of the first run, whose steps are not known yet, the network's next
        call shows whether it was the last one. `end` still gives the end of the batch before.
        """
        check_facts(facts)
        if self._left_over:
            self._facts, self._left_over = {}, False
        may_be_whole = bool(self._run) and self.steps in (None, len(self._run))
        if self._next or (may_be_whole and set(facts) & set(self._facts)):
            self._next |= facts
        else:
            self._facts |= facts

    def end(self, sample: Any) -> None:
        """Give the sample that came out, and commit the batch.

        Without it, the end of a run is its last predicted x0.

        Raises
        ------
        InputError
            If the network was not called since the last batch, or called at another number of
            noise levels.
        """
        if not self._run:
            raise InputError(
                "there is no run that could end: the network was not called since the last one "
                "was committed, abandoned or refused. Call end() once, after the loop of a batch"
            )
        self._finish(sample)

    def discard(self) -> None:
        """Abandon the batch that was begun."""
        self._run, self._facts, self._next, self._left_over = [], {}, {}, False

    def _abandon(self) -> None:
        """Leave out what is refused; what was said of it holds until something else is said."""
        self._run, self._facts, self._next = [], self._facts | self._next, {}
        self._left_over = True

    def _see(self, args: Any, kwargs: Any, output: Any) -> None:
        """Take one call of the network."""
        found = self._evaluation(args, kwargs, output)
        if not self._run:
            self._run.append(found)
            return
        last = self._run[-1]
        if abs(found.log_snr - last.log_snr) <= SAME or found.log_snr == last.log_snr:
            if found.sample.shape == last.sample.shape and bool(
                (found.sample == last.sample).all()
            ):
                self._abandon()
                raise InputError(
                    "the network was called twice with one sample: guidance is made of several "
                    "calls. Watch what the sampler calls, with the guidance inside, or hand over "
                    "the guided output with Recorder.custom"
                )
            self._run[-1] = found  # Heun: the step begins at the corrected sample
        elif found.log_snr > last.log_snr:
            self._run.append(found)
        elif found.log_snr <= self._run[0].log_snr + SAME:
            self._finish(None)
            self._run.append(found)
        elif len(self._run) > 1 and found.log_snr > self._run[-2].log_snr:
            self._run[-1] = found  # Heun with churn: noise was added before the step began
        else:
            self._abandon()
            raise InputError(
                "the loop walks back to an earlier noise level: its runs are no trajectories, and "
                "are not recorded"
            )
        if len(self._run) > 1:  # the run goes on: what was said is of it
            self._facts, self._next = self._facts | self._next, {}

    def _evaluation(self, args: Any, kwargs: Any, output: Any) -> _Evaluation:
        sample = next(value for value in (*args, *kwargs.values()) if hasattr(value, "detach"))
        for name in ("sample", "mean"):
            if not hasattr(output, "detach") and not isinstance(output, tuple):
                output = getattr(output, name, output)
        if isinstance(output, tuple):
            output = output[0]
        seen = self.activations.since(len(sample))
        if callable(self.levels):
            given = self.levels(*args, **kwargs)
            alpha, sigma = one_number(given[0], "alpha"), one_number(given[1], "sigma")
        else:
            at = len(self._run) % len(self.levels)
            alpha, sigma = (float(value) for value in self.levels[at])
        if output.shape != sample.shape and output.shape[1] == 2 * sample.shape[1]:
            output = output[:, : sample.shape[1]]  # a learned variance
        return _Evaluation(sample.detach().clone(), output.detach().clone(), alpha, sigma, seen)

    def _finish(self, end: Any) -> None:
        """Hand a whole run over, if one was begun."""
        if not self._run:
            return
        try:
            self._hand_over(self._run, end)
        except BaseException:
            self._abandon()
            raise
        self._run, self._facts, self._next, self._left_over = [], self._next, {}, False

    def _hand_over(self, run: list[_Evaluation], end: Any) -> None:
        """Record a run, and what was said of it."""
        if self.steps is None:
            self.steps = len(run)
        if len(run) != self.steps:
            raise InputError(
                f"the loop called the network at {len(run)} noise levels, and runs of this store "
                f"have {self.steps}: nothing of this batch is recorded. Call discard() where an "
                "error of the loop is caught; steps= says how many a run has"
            )
        if self._recorder is None:
            shape = tuple(run[0].sample.shape[1:])
            options = {"model": self.network, **self.options}
            self._recorder = CustomRecorder(self.path, shape, self.steps, **options)
            self._recorder.activations.modules = self.activations.facts().get("activations", [])
        if self._facts:
            self._recorder.describe(**self._facts)
            self._facts = {}
        for each in run:
            self._recorder.step(
                sample=each.sample,
                model_output=each.output,
                alpha=each.alpha,
                sigma=each.sigma,
                prediction_type=self.prediction_type,
                sigma_data=self.sigma_data,
                activations=each.activations,
            )
        if end is None:
            self._recorder.commit()
        else:
            self._recorder.end(end)
