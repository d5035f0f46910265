"""`python -m swift`: the same as the command `swift`."""

from swift.cli.main import cli_main

if __name__ == '__main__':
    raise SystemExit(cli_main())
