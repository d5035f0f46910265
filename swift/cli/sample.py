"""`swift sample` as a script file, for torchrun and python."""

if __name__ == '__main__':
    import os
    import sys

    # the package's own root instead of this folder, so that neighbours here never hide other modules
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from swift.cli.main import run_command

    raise SystemExit(run_command('sample'))
