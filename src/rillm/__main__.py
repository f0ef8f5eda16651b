"""`python -m rillm`: the same as the console command `rillm`."""

from rillm.cli import main

if __name__ == "__main__":
    main()
