"""``python -m mmrobust``: the same as the ``mmrobust`` command."""

from mmrobust.cli.app import main

if __name__ == "__main__":
    main()
