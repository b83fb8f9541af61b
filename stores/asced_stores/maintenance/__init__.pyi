from .copying import repack as repack
from .copying import select_runs as select_runs
from .merging import merge as merge
from .sealing import seal as seal
from .verifying import verify as verify
