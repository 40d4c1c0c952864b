"""The container image of every component; `graftline compile --image` replaces it with a digest."""

from graftline import __version__

IMAGE = f"graftline:{__version__}-cuda"
