"""`python -m provisioning` is the command `gatehouse`."""

from provisioning.cli import main

if __name__ == "__main__":
    main()
