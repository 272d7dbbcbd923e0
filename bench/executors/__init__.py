"""Where work is done: in this process, in processes of this machine, or by Ray on several; the same records whichever it was."""

from bench.executors.base import Done, Executor, Recipe, Task, Worker
from bench.executors.limits import Limits
from bench.executors.make import EXECUTORS, Where, make_executor

__all__ = ["EXECUTORS", "Done", "Executor", "Limits", "Recipe", "Task", "Where", "Worker", "make_executor"]
