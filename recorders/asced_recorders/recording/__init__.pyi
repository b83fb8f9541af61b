from .recorder import Recorder as Recorder
from .recording_loop import record as record
