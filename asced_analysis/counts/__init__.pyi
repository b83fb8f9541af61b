from .histograms import Counts as Counts
from .histograms import join_counts as join_counts
from .histograms import merge_counts as merge_counts
