"""Options whose values are names in a registry: help lists them, the shell completes them."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem


class RegistryName(click.ParamType[str]):
    """A name in a registry of `asced_analysis.thresholds.registries`.

    Parameters
    ----------
    registry : str
        ``VARIANTS`` or ``STRATEGIES``.
    """

    name = "name"

    def __init__(self, registry: str) -> None:
        self.registry = registry

    def names(self) -> tuple[str, ...]:
        """Return the names that are known here."""
        return tuple(self._load().names())

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse unknown names before any work."""
        self._load().check(value)
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Names that begin so."""
        return [CompletionItem(name) for name in self.names() if name.startswith(incomplete)]

    def _load(self) -> Any:
        from asced_analysis.thresholds import registries

        return getattr(registries, self.registry)


class RegistryOption(click.Option):
    """An option of a `RegistryName`; its help ends with the names."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Add the names, which are known only when help is asked for."""
        record = super().get_help_record(ctx)
        if record is None or not isinstance(self.type, RegistryName):
            return record
        return record[0], f"{record[1]}  One of: {', '.join(self.type.names())}."
