"""The one check of constructor arguments that the networks share."""

__all__ = ["require_positive"]


def require_positive(owner: str, **sizes: int | tuple[int, ...]) -> None:
    """Raise ValueError, naming the argument, unless every size given is at least 1."""
    for name, value in sizes.items():
        if min(value if isinstance(value, tuple) else (value,)) < 1:
            raise ValueError(f"{owner}: {name} must be at least 1, got {value}.")
