from .bundle import export_bundle as export_bundle
from .bundle import export_schema as export_schema
from .masks import export_masks as export_masks
from .program import export_program as export_program
