"""Batches concurrent script calls into one pipeline.

Many endpoints call scripts at about the same time, and a process has few connections. Calls that
are made while others are on their way wait, and are sent as one pipeline; each gets its own answer
or error.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis import exceptions

from poller.store.translation import translated

_MOST: Final = 100
"""Calls in one pipeline; between two pipelines the server serves its other clients."""


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    script: Any
    keys: Sequence[str]
    args: Sequence[Any]
    answer: "asyncio.Future[Any]"


class ScriptPipeline:
    """Runs registered scripts on one client, at most one pipeline at a time."""

    def __init__(self, redis: Any) -> None:  # noqa: ANN401  redis-py is typed in part
        self._redis = redis
        self._waiting: list[_Call] = []
        self._sending: asyncio.Task[None] | None = None

    async def run(self, script: Any, keys: Sequence[str], args: Sequence[Any]) -> Any:  # noqa: ANN401
        """Return the script's answer; raises StoreDown or StoreMisfit."""
        call = _Call(script, keys, args, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send_all(), name="scripts of the outbox")
        with translated():
            return await call.answer

    async def _send_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
            try:
                await self._send(batch)
            except BaseException as problem:
                for call in batch:
                    if not call.answer.done():
                        call.answer.set_exception(_for_callers(problem))
                if not isinstance(problem, Exception):
                    raise

    async def _send(self, batch: Sequence[_Call]) -> None:
        if len(batch) == 1:
            (call,) = batch
            _settle(call, await call.script(keys=call.keys, args=call.args))
            return
        async with self._redis.pipeline(transaction=False) as pipe:
            for call in batch:
                pipe.evalsha(call.script.sha, len(call.keys), *call.keys, *call.args)
            answers = await pipe.execute(raise_on_error=False)
        for call, answer in zip(batch, answers, strict=True):
            if isinstance(answer, exceptions.NoScriptError):  # repeat it, which loads the script
                try:
                    answer = await call.script(keys=call.keys, args=call.args)  # noqa: PLW2901
                except exceptions.ResponseError as problem:
                    answer = problem  # noqa: PLW2901
            _settle(call, answer)


def _settle(call: _Call, answer: Any) -> None:  # noqa: ANN401
    if call.answer.done():  # the caller has been cancelled
        return
    if isinstance(answer, Exception):
        call.answer.set_exception(answer)
    else:
        call.answer.set_result(answer)


def _for_callers(problem: BaseException) -> Exception:
    """Return the error that every caller gets; not a cancellation, which is not theirs."""
    return problem if isinstance(problem, Exception) else exceptions.ConnectionError("closed")
