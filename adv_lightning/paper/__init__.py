"""The paper that the library grew from, as data and reports. Imports the library, never the reverse."""

__all__: list[str] = []
