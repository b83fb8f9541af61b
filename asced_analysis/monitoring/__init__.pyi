from .dashboard import write_dashboard as write_dashboard
from .monitor import Monitor as Monitor
