from .index import RunIndex as RunIndex
from .spec import TrajectorySpec as TrajectorySpec
from .spec import VariableSpec as VariableSpec
