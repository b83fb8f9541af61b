from .judging import evaluate as evaluate
from .judging import quality as quality
from .result import Evaluation as Evaluation
from .tuning import Tuning as Tuning
from .tuning import tune as tune
