"""Short tables for notebooks: what `_repr_html_` of results and stores shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def html_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], note: str = ""
) -> str:
    """A titled table with a note below it; all text is escaped.

    Parameters
    ----------
    title : str
    columns : sequence of str
        Heads; none are drawn where all are empty, or there is no row.
    rows : iterable of sequence
        Cells are written by `str`.
    note : str, optional
        A sentence below the table.

    Returns
    -------
    str

    Examples
    --------
    >>> from asced_stores.notebook import html_table
    >>> "<caption" in html_table("runs.zarr", ("", ""), [("runs", 48)])
    True
    """
    rows = list(rows)
    named = columns if rows and any(columns) else ()
    head = "".join(f"<th>{escape(str(name))}</th>" for name in named)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    caption = (
        '<caption style="caption-side:top;text-align:left;font-weight:bold;white-space:nowrap">'
        f"{escape(title)}</caption>"
    )
    table = f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div>{table}<p>{escape(note)}</p></div>" if note else f"<div>{table}</div>"
