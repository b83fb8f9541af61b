from .corrector import Corrector as Corrector
from .corrector import ImageReport as ImageReport
from .noise_normalisation import level_noise as level_noise
from .noise_normalisation import levelled as levelled
from .registry import STRATEGIES as STRATEGIES
from .registry import make_strategy as make_strategy
