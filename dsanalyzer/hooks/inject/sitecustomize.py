"""First on PYTHONPATH of the job under test: starts the hooks, then the sitecustomize it hides.

The job's own interpreter may not have dsanalyzer installed, so the package is loaded from where it
lies and nothing is added to sys.path.
"""

import importlib.machinery
import importlib.util
import os
import sys


def _start_hooks() -> None:
    inject = os.path.dirname(os.path.abspath(__file__))
    package = os.path.dirname(os.path.dirname(inject))
    if "dsanalyzer" not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            "dsanalyzer",
            os.path.join(package, "__init__.py"),
            submodule_search_locations=[package],
        )
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["dsanalyzer"] = module
        spec.loader.exec_module(module)
    from dsanalyzer.hooks import startup

    startup.install()


def _chain() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    rest = [p for p in sys.path if os.path.abspath(p or os.getcwd()) != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", rest)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)


if os.environ.get("DSANALYZER_RUN"):
    _start_hooks()
_chain()
