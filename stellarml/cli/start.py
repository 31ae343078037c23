"""Where the command begins: with little imported, so that Ctrl-C in the first second says nothing, and ends it."""

import signal


def main() -> None:
    """Import the command line and run it; until it handles signals itself, they end this process as any other."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as for a job in the background of a script
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from stellarml.cli.main import main as command_line

    command_line()


if __name__ == "__main__":
    main()
