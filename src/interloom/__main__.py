"""``python -m interloom``, as ``accelerate launch -m`` starts it."""

from interloom.cli import main

main()
