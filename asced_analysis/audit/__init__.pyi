from .auditing import audit as audit
from .result import Audit as Audit
from .result import Finding as Finding
