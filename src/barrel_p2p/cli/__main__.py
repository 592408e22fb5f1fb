"""``python -m barrel_p2p.cli``: the ``barrel`` command where it is not on the PATH."""

from barrel_p2p.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
