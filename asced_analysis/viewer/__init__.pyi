from .opening import open_session as open_session
from .server import ViewerServer as ViewerServer
from .session import Session as Session
from .widget import explore as explore
