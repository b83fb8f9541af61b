"""How two stores' calls are compared: what their attribute ``call`` has to have in common."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from typing import Any

TEXT = re.compile(r"(negative_)?prompt(_\d+)?")
"""Names of prompts of every kind, which may differ from run to run."""
CONDITIONS = re.compile(r".*(embeds|mask|latents|image)(_\d+)?")
"""Names of what else a call is conditioned on; kept where it is small, and never compared."""
CALL_BY_RUN = frozenset(
    {
        *("prompt", "guidance_scale", "output", "output_type", "return_dict", "batch_size"),
        *("num_images_per_prompt", "num_videos_per_prompt", "callback_on_step_end_tensor_inputs"),
    }
)
"""Arguments of a call that stand in the store run by run, or that say nothing of sampling."""

HIDDEN = "hidden:"
"""What stands before the keyed hash of a prompt that was not to be kept."""


def hidden_prompt(prompt: str, key: bytes) -> str:
    """Keyed hash of a prompt: the same prompts are told to be the same, and none can be read.

    Parameters
    ----------
    prompt : str
        An empty one stays empty.
    key : bytes
        Not in the store: without it, nobody can try prompts out.
    """
    if not prompt:
        return ""
    return HIDDEN + hmac.new(key, prompt.encode(), hashlib.sha256).hexdigest()[:24]


def call_differences(
    before: Mapping[str, Any], now: Mapping[str, Any], *, by_run: bool = False
) -> list[str]:
    """Arguments in which two calls differ, in words; those that say nothing of sampling are left.

    Parameters
    ----------
    before, now : mapping
        ``call`` of two stores.
    by_run : bool
        Leave prompts of every kind too: they may differ from run to run.
    """
    return config_differences(
        *(
            {
                name: value
                for name, value in call.items()
                if name not in CALL_BY_RUN
                and not CONDITIONS.fullmatch(name)
                and not (by_run and TEXT.fullmatch(name))
            }
            for call in (before, now)
        )
    )


def config_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Entries in which two configurations differ, in words: all of them count."""
    return [
        f"{name} {_short(before.get(name))}, now {_short(now.get(name))}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return "none" if value is None else text if len(text) <= 40 else f"{text[:37]}..."
