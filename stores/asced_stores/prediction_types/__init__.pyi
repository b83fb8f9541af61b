from .prediction_type import PredictionType as PredictionType
from .registry import PREDICTION_TYPES as PREDICTION_TYPES
from .registry import canonical_prediction_type as canonical_prediction_type
