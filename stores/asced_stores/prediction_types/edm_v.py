"""EDM with ``c_out`` negative, as diffusers has it where its configuration says v_prediction."""

from __future__ import annotations

from asced_stores.prediction_types.edm import Edm


class EdmV(Edm):
    """See the module."""

    name = "edm_v"
    sign = -1.0


PREDICTION = EdmV()
