"""The paper's own figures (arXiv 2503.16218): 25 DDIM steps, 10,000 images a data set."""

from __future__ import annotations

DATA_SETS = ("FFHQ", "ImageNet", "LSUN-Cat", "LSUN-Horse", "LSUN-Bedroom")
METHODS = ("original", "state_replacement", "score_clipping", "ttc")

# Table 1: FID (Inception features), precision, recall
QUALITY: dict[str, tuple[tuple[float, float, float], ...]] = {
    "original": (
        (36.69, 0.629, 0.493),
        (14.68, 0.739, 0.734),
        (22.17, 0.513, 0.586),
        (29.36, 0.510, 0.642),
        (12.96, 0.627, 0.583),
    ),
    "state_replacement": (
        (37.09, 0.635, 0.495),
        (14.61, 0.743, 0.733),
        (22.79, 0.510, 0.587),
        (30.36, 0.502, 0.642),
        (12.95, 0.628, 0.574),
    ),
    "score_clipping": (
        (36.36, 0.630, 0.498),
        (14.58, 0.742, 0.736),
        (22.12, 0.515, 0.585),
        (29.26, 0.511, 0.642),
        (12.92, 0.627, 0.585),
    ),
    "ttc": (
        (36.28, 0.637, 0.503),
        (14.41, 0.750, 0.735),
        (21.91, 0.515, 0.593),
        (27.66, 0.521, 0.652),
        (12.53, 0.628, 0.590),
    ),
}

# Table 2: accuracy on 100 images with and 100 without artifacts, as people labelled them
ACCURACY = dict(zip(DATA_SETS, (0.567, 0.677, 0.650, 0.683, 0.703), strict=True))

# Figures 7 and 8, shares of sampling: where abnormal dynamics lie; the last useful correction
ABNORMAL = (0.24, 0.52)
LAST_USEFUL = 0.48
