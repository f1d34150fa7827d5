"""``python -m c10k_probe`` is the same as the ``c10k-probe`` command."""

from c10k_probe.cli import main

if __name__ == "__main__":
    main()
