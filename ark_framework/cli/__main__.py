"""``python -m ark_framework.cli``: the command line, for those who start it several times."""

from __future__ import annotations

from ark_framework.cli import main

main()
