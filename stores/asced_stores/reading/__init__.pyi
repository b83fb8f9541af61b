from .datasets import open_runs as open_runs
from .stream import RunReader as RunReader
