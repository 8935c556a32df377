"""A folder is a registry: every module in it but ``base`` is a choice, under its own name."""

import importlib
import pkgutil
from types import ModuleType

from app.errors import MissingExtra, UnknownChoice


def names(package: str) -> tuple[str, ...]:
    """The plug-ins of ``package``, sorted; nothing but the package itself is imported."""
    folder = importlib.import_module(package)
    found = (module.name for module in pkgutil.iter_modules(folder.__path__))
    return tuple(sorted(name for name in found if name != "base" and not name.startswith("_")))


def load(package: str, name: str) -> ModuleType:
    """Import ``package.name``.

    :raises UnknownChoice: the folder has no such module; the choices are listed and nothing was imported.
    :raises MissingExtra: the module is there and a library it needs is not.
    """
    choices = names(package)
    if name not in choices:
        raise UnknownChoice(package.rpartition(".")[2].removesuffix("s"), name, choices)
    try:
        return importlib.import_module(f"{package}.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("app", "distill"):
            raise
        raise MissingExtra(
            f"{package}.{name} needs {error.name!r}, which is not installed: pip install {error.name}"
        ) from error
