from .build import build_page as build_page
from .build import write_report as write_report
