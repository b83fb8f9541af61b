"""The command line: thin click commands, one a file, that join stores, recorders and analysis."""
