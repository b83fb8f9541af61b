from .format.index import RunIndex as RunIndex
from .format.spec import TrajectorySpec as TrajectorySpec
from .format.spec import VariableSpec as VariableSpec
from .reading.datasets import open_runs as open_runs
from .reading.stream import RunReader as RunReader
from .store import TrajectoryStore as TrajectoryStore
