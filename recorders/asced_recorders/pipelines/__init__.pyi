from .loading import embedded_models as embedded_models
from .loading import load_pipeline as load_pipeline
