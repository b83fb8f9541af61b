from .bundle import export_bundle as export_bundle
from .bundle import export_schema as export_schema
from .program import export_program as export_program
