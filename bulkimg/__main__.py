"""Make `python -m bulkimg` the same as `bulkimg`."""

from bulkimg.cli.main import main

if __name__ == "__main__":
    main()
