from .agreement import Exactness as Exactness
from .agreement import exactness as exactness
from .branching import Branch as Branch
from .branching import branch as branch
from .replaying import replay as replay
