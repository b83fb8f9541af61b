from .backend import Backend as Backend
from .opening import BACKENDS as BACKENDS
from .opening import BackendEntry as BackendEntry
from .opening import open_backend as open_backend
