"""Adds the folder `configs` to the package, as maskmill/configs; all else is in pyproject.toml."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copies `configs/` too. An editable installation reads the folder where it is."""

    def run(self) -> None:
        """See `build_py`."""
        super().run()
        if not self.editable_mode:
            self.copy_tree("configs", str(Path(self.build_lib, "maskmill", "configs")))


setup(cmdclass={"build_py": BuildWithConfigs})
