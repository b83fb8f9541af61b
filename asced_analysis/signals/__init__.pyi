from . import dynamics as dynamics
from . import fields as fields
