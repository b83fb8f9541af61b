"""The variant `outcome` in plain steps, for people who port it."""

ALGORITHM = """\
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
   `parameters.lookahead` is a number, the pictures of the lookahead (clipped likewise) and of its
   difference from the clipped x0, and `log(sqrt(mean) + parameters.floor)` of that difference,
   pooled as in 2. The lookahead is the model's predicted x0 of the sample
   `alpha * x0 + sigma * eps` at the sampler's step whose log-SNR is nearest to
   `parameters.lookahead`, x0 and eps those of the window's end.
5. **Network.** Where the last layer has four outputs: repeat the last row or column where a side
   is odd, and make every 2 x 2 places channels (channel first, then row, then column). Run the
   layers: convolution with zero padding of `(k - 1) / 2`, ReLU after each but the last. Where
   there are four outputs, they become 2 x 2 places again (row first, then column), cut to the
   map. The result is the map of predicted log distance.
   Thresholds whose `parameters.inputs` is `activations` or `all` also need activations at
   the window's last step: for each of `parameters.modules` in order, the mean over places of each
   channel of the module's output, then the standard deviations; of more than 128 channels, the
   means of 128 groups of neighbouring channels (as PyTorch's adaptive average pooling forms them)
   of both; a module that gives one vector a run, its values. Of several evaluations, the mean.
   `activations` without dynamics has the map of `snapshot`.
6. **Score**: `c[0]` plus the products of `c[1..]` with these numbers in order, c being
   `parameters.coefficients`: the mean of every input channel, the standard deviation of every
   one, the largest value of every one; of the map: its mean, the value at place `floor(0.9 * n)`
   of its n sorted values (from 0), and the logarithm of the mean of its exponential. With
   `parameters.inputs` of `all` the activations come between those of the channels and those of the
   map; with `activations` they are the only numbers. Then, unless `parameters.layout_location` is
   empty, the layout of the picture of x0 (of the dynamics, where `parameters.inputs` is
   `dynamics`): mean, standard deviation, largest and least value, mean absolute difference of
   neighbours along y and along x, mean absolute difference from the picture turned upside down and
   from its mirror image, each averaged over the channels; then, of the mean of all channels, the
   mean of each of 4 x 4 blocks, row by row (block i of a side of s begins at `floor(i * s / 4)`;
   sides below 4 have a block a place). From each take its `layout_location`, divide by its
   `layout_scale`, and cut to -3..3. Where `parameters.products` is true the products follow: of
   the first with the first, second and so on, then of the second with the second and so on.
7. **Decide**: the run is flagged where the score is above `levels.level` (or the level of its
   group or sampler in `groups` and `transfers`). The mask of a flagged run holds the `max(1,
   round(parameters.share * n))` places of the largest map values, each repeated to f x f pixels
   and cut to the image; that of another run is empty.
"""
