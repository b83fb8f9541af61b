from .bundle import export_bundle as export_bundle
from .bundle import export_schema as export_schema
from .hub import pull as pull
from .hub import push as push
from .masks import export_masks as export_masks
from .masks import masks_of as masks_of
from .program import export_program as export_program
