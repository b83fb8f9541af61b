"""The detectors in plain steps, for people who port them."""

from __future__ import annotations

_CALIBRATED = """\
## Algorithm

Read `parameters`, `levels` and `cleanup` from `thresholds.json`. All steps work on one image of
shape (channel, y, x); steps of the sampler come noisy end first.

1. **Signal** of a step, by `parameters.signal`: `predicted_x0` is x0; `weighted_score` is
   `-(sigma/alpha) * eps`; `innovation` starts at 0 at the first step used and adds
   `-(sigma/alpha) * (eps - previous eps)` at every later one. The first step used is the last one
   whose log-SNR is at most `levels.log_snr[0]` (the sampler's first where there is none).
2. **Grid.** Interpolate the signal linearly in log-SNR to every value of `levels.log_snr`; beyond
   the last step use the last signal, before the first step the first signal. The change of cell j
   is the signal at grid point j+1 minus that at grid point j. Skip cells that end at or before the
   sampler's first step.
3. **Size.** Square the change, take the mean over channels and over square blocks of
   `f = ceil(max(height, width) / parameters.resolution)` pixels (repeat the last row and column
   where a block sticks out). Blur this map with a Gaussian whose standard deviation is
   `parameters.blur` times the map's shorter side s, along y, then along x: kernel
   `exp(-d*d/(2*s*s))`, normalised, out to `int(4*s + 0.5)`, values beyond the border mirrored with
   the edge repeated (`d c b a | a b c d | d c b a`). Take the square root.
4. **Contrast**, only where `parameters.contrast` is `local`: let m and q be the signal of the step
   that completed the cell and its square, each pooled and blurred as in 3; divide the size by
   `sqrt(max(q - m*m, 0)) + 10 * parameters.floor`.
5. **Standardise**: `z = (log(size + parameters.floor) - levels.location[j]) / levels.scale[j]`
   (`location[j][y][x]` where they are given by position). `parameters.direction`: `high` keeps z,
   `low` takes -z, `both` takes |z|.
6. **Join** the cells, place by place: `peak` is the largest z; `mean` the mean; `persistent` the
   largest over adjacent cells of the smaller of the two.
7. **Clean up**: opening by a square of side
   `w = max(2, ceil(cleanup.min_width * shorter side of the map))` (1 where `min_width` is 0): for
   every w x w square wholly inside the map take its smallest value; a place gets the largest value
   of the squares that hold it.
8. **Decide**: the run's score is the largest value of the opened map; it is flagged where the score
   is above `levels.level` (or the level of its group or sampler in `groups` and `rechecks`). The
   mask holds the places above that level, each map place repeated to f x f pixels and cut to the
   image.
"""

_OUTCOME = """\
## Algorithm

Read `parameters` and `levels` from `thresholds.json`, and the layers from the safetensors file
that `weights.name` names (8 bytes: length of the header, little-endian; the header: JSON with
`shape` and `data_offsets` by name; then float32, little-endian): `layers.N.weight` (out, in, k,
k) and `layers.N.bias` (out), N from 0. All steps work on one image of shape (channel, y, x);
steps of the sampler come noisy end first.

1. **Grid.** Interpolate predicted x0 linearly in log-SNR to every value of `levels.log_snr`, from
   the last step whose log-SNR is at most `levels.log_snr[0]` (the sampler's first where there is
   none); beyond the last step use the last x0. The change of cell j is x0 at grid point j+1 minus
   that at grid point j. The window's end is the first step at or beyond the last grid point;
   `eps` is that step's.
2. **Dynamics**, one channel a cell: square the change, take the mean over channels and over
   square blocks of `f = ceil(max(height, width) / parameters.resolution)` pixels (repeat the last
   row and column where a block sticks out), then `(log(sqrt(mean) + parameters.floor) -
   levels.location[j]) / levels.scale[j]`.
3. **Pictures** as channels of the map: where `channel * f * f <= 16` and f divides both sides,
   every pixel of a block becomes a channel (channel first, then row, then column); otherwise two
   channels, the mean over the block and the channels, and the standard deviation.
4. **Inputs**, in this order: the dynamics unless `parameters.inputs` is `snapshot`; unless it is
   `dynamics`, the pictures of x0 at the last grid point, clipped to -3..3, and of eps; where
   `parameters.probe` is a number, the pictures of the probe (clipped likewise) and of its
   difference from the clipped x0, and `log(sqrt(mean) + parameters.floor)` of that difference,
   pooled as in 2. The probe is the model's predicted x0 of the sample `alpha * x0 + sigma * eps`
   at the sampler's step whose log-SNR is nearest to `parameters.probe`, x0 and eps those of the
   window's end.
5. **Network.** Where the last layer has four outputs: repeat the last row or column where a side
   is odd, and make every 2 x 2 places channels (channel first, then row, then column). Run the
   layers: convolution with zero padding of `(k - 1) / 2`, ReLU after each but the last. Where
   there are four outputs, they become 2 x 2 places again (row first, then column), cut to the
   map. The result is the map of predicted log distance.
6. **Score**: `c[0]` plus the products of `c[1..]` with these numbers in order, c being
   `parameters.coefficients`: the mean of every input channel, the standard deviation of every
   one, the largest value of every one; of the map: its mean, the value at place `floor(0.9 * n)`
   of its n sorted values (from 0), and the logarithm of the mean of its exponential.
7. **Decide**: the run is flagged where the score is above `levels.level` (or the level of its
   group or sampler in `groups` and `rechecks`). The mask of a flagged run holds the `max(1,
   round(parameters.share * n))` places of the largest map values, each repeated to f x f pixels
   and cut to the image; that of another run is empty.
"""

ALGORITHM = {"calibrated": _CALIBRATED, "outcome": _OUTCOME}
