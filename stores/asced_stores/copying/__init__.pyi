from .merging import merge as merge
from .selecting import repack as repack
from .selecting import select_runs as select_runs
