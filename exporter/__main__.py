"""`python -m exporter` is the command `build-exporter`."""

from exporter.cli import main

main()
