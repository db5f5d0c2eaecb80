"""What is worth a stronger teacher, and what is worth training on."""

from spyhop.curate.select import HardestConfig, hardest

__all__ = ["HardestConfig", "hardest"]
