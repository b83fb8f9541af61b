"""The variant `calibrated` in plain steps, for people who port it."""

ALGORITHM = """\
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
   is above `levels.level` (or the level of its group or sampler in `groups` and `transfers`). The
   mask holds the places above that level, each map place repeated to f x f pixels and cut to the
   image.
"""
