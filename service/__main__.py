"""`python -m service` is `fl-jobs`."""

from service.cli import main

main()
