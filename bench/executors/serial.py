"""In this process, one task after the other: to debug a plugin, or for a batch system that starts many processes itself."""

from bench.executors.base import Done, Task, Worker


class SerialExecutor:
    """Does tasks in this process; one that never ends, or ends the process, takes the run with it."""

    slots = 1

    def __init__(self, worker: Worker):
        self._worker = worker
        self._tasks: list[Task] = []

    def submit(self, task: Task) -> None:
        self._tasks.append(task)

    def wait(self) -> Done:
        return self._worker.do(self._tasks.pop(0))

    def close(self) -> None:
        self._tasks.clear()
