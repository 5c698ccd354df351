"""The paper behind the library, as data and reports. It imports the library; the library never imports it."""

__all__: list[str] = []
