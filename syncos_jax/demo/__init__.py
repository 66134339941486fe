"""Training, export and measurement of the ``demo`` model that the package carries."""
