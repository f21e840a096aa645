"""In PYTHONPATH of a test: what waits for minutes waits for a second. No option can set that."""

import asyncio
import importlib.abc
import importlib.machinery
import sys

SECONDS = 1.0


async def sleep(_executor):
    await asyncio.sleep(SECONDS)


def hurry_plugin(module):
    module.Executor.sleep = sleep


def hurry_supervisor(module):
    module.POLL = SECONDS
    module.FORGOTTEN_AFTER = 10.0
    module.FIRST_PAUSE = 1.0
    module.STOP_PATIENCE = 40.0


CHANGES = {
    "snakemake_executor_plugin_slurm": hurry_plugin,
    "dmlbench.workflow.supervisor": hurry_supervisor,
}


class Finder(importlib.abc.MetaPathFinder):
    """Changes a module right after it was imported."""

    def find_spec(self, name, path, target=None):
        if name not in CHANGES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec and spec.loader:
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                CHANGES[name](module)

            spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder())
