"""``python -m asced_cli`` is the same as ``asced``."""

from asced_cli.main import main

main()
