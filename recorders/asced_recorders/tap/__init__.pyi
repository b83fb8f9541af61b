from .events import ListenerChain as ListenerChain
from .events import StepEvent as StepEvent
from .events import TapListener as TapListener
from .tap import Tap as Tap
