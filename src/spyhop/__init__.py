"""spyhop: from the signals of large models to small models that reason, measured."""
