from .sealing import seal as seal
from .verifying import verify as verify
