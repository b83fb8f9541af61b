from .flight import KeepRule as KeepRule
from .observers import ObservedBatch as ObservedBatch
from .observers import RunObserver as RunObserver
