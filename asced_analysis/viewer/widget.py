"""The viewer inside a notebook: the same script, asking over the kernel's own connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asced_analysis.viewer import page
from asced_analysis.viewer.opening import open_session
from asced_analysis.viewer.options import ViewOptions
from asced_analysis.viewer.session import Session
from asced_stores.errors import AscedError, InputError, install_hint
from asced_stores.options import takes

if TYPE_CHECKING:
    import xarray as xr

try:
    import anywidget
    import traitlets
except ModuleNotFoundError as error:
    raise InputError(
        f"the viewer in a notebook needs {error.name}: {install_hint('viewer')}"
    ) from error


class Explorer(anywidget.AnyWidget):
    """A session as a notebook widget; made by `explore`."""

    _esm = page.script()
    _css = page.style()
    runs = traitlets.Int(0).tag(sync=True)

    def __init__(self, session: Session) -> None:
        super().__init__(runs=len(session.runs.runs))
        self.session = session
        self.on_msg(self._asked)

    def _asked(self, _widget: Any, message: Any, _buffers: Any) -> None:
        """Answer one request of the script."""
        number = message.get("number")
        try:
            answer = self.session.answer(str(message["request"]), dict(message["given"]))
        except (AscedError, KeyError) as error:
            self.send({"number": number, "error": str(error)})
        except Exception as error:  # must reach the person, not only the kernel's log
            self.send({"number": number, "error": f"{type(error).__name__}: {error}"})
        else:
            self.send({"number": number, "header": answer.described()}, [answer.body()])

    def close(self) -> None:
        """Remove the widget and end the work behind it."""
        self.session.close()
        super().close()


@takes(ViewOptions)
def explore(ds: xr.Dataset, options: ViewOptions) -> Explorer:
    """Look at runs inside a notebook, with what ``asced view`` shows.

    Parameters
    ----------
    ds : xarray.Dataset
        Runs as `open_runs` returns them.
    options : ViewOptions
        Each by keyword.

    Returns
    -------
    Explorer
        Shows itself as the last line of a cell. Labels and masks given by hand are in
        ``.session.hand``.

    Raises
    ------
    InputError
        Where these do not belong together, or anywidget is not installed.
    """
    return Explorer(open_session(ds, **vars(options)))
