"""A check of constructor arguments that the networks share."""


def require_positive(owner: str, **sizes: int | tuple[int, ...]) -> None:
    """Raise ValueError with the name of the argument if a size is less than 1."""
    for name, value in sizes.items():
        if min(value if isinstance(value, tuple) else (value,)) < 1:
            raise ValueError(f"{owner}: {name} must be at least 1, got {value}")
