from .judging import evaluate as evaluate
from .judging import quality as quality
from .remedies.result import Remedies as Remedies
from .remedies.trying import try_remedies as try_remedies
from .result import Evaluation as Evaluation
from .tuning import Tuning as Tuning
from .tuning import tune as tune
