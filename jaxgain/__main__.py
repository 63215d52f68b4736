"""`python -m jaxgain` is the `jaxgain` command."""

from jaxgain.cli import main

if __name__ == "__main__":
    main()
