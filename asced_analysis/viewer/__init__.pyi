from .server import ViewerServer as ViewerServer
from .session import Session as Session
from .session import open_session as open_session
from .widget import explore as explore
