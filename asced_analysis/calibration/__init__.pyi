from .calibrate_runs import calibrate as calibrate
from .drift import check as check
from .transfer import calibrate_transfer as calibrate_transfer
