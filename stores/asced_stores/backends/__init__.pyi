from .backend import Place as Place
from .opening import BACKENDS as BACKENDS
from .opening import Backend as Backend
from .opening import open_place as open_place
