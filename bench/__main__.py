"""`python -m bench`: the same as the command `bench`, and not to be mistaken for another package's."""

from bench.cli import main

if __name__ == "__main__":
    main(prog_name="bench")
