"""The command line: thin. Parses, calls the public API, prints; no logic that the library lacks."""
