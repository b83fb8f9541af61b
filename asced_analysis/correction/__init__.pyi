from .corrector import Corrector as Corrector
from .corrector import ImageReport as ImageReport
from .noise_normalisation import normalise_noise as normalise_noise
from .noise_normalisation import normalised_noise as normalised_noise
from .pruner import Pruned as Pruned
from .pruner import Pruner as Pruner
from .registry import STRATEGIES as STRATEGIES
from .registry import make_strategy as make_strategy
