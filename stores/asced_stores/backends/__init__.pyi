from .backend import Place as Place
from .backend import open_place as open_place
