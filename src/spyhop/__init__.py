"""spyhop: from the signals of large models to small models that reason, measured."""

__version__ = "0.1.0"
