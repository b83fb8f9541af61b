from .results import Boundary as Boundary
from .results import Phases as Phases
from .results import Population as Population
from .segmentation import segment_phases as segment_phases
