"""`python -m asr`: the same commands as `asr`."""

from asr.cli import main

if __name__ == "__main__":
    main()
