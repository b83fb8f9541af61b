from .pipelines.blocks import AscedCorrect as AscedCorrect
from .pipelines.loading import load_pipeline as load_pipeline
from .recording.recorder import Recorder as Recorder
from .recording.recording_loop import record as record
