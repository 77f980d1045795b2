"""What hatchling does before it packs a wheel, or links a checkout: make the CPU kernels, if there is a C compiler.

A wheel with kernels fits one kind of machine, and any Python 3; a wheel without them fits every machine.
"""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Kernels(BuildHookInterface):  # type: ignore[type-arg]
    """Puts the library into the package, where there can be one."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling with the kind of build, and with what it is about to do."""
        build = _builder(Path(self.root, "src", "winnow", "ops", "build.py"))
        try:
            library = build.build()
        except build.NotBuiltError as reason:
            self.app.display_warning(f"Winnow is installed without its CPU kernels, and slower for it: {reason}")
            return
        build_data["artifacts"].append(library.relative_to(self.root).as_posix())
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


def _builder(path: Path) -> ModuleType:
    """The module at this path by itself: the package around it cannot be imported before it is installed."""
    spec = importlib.util.spec_from_file_location("winnow_build", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
