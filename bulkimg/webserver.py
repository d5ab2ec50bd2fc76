"""Serve HTTP with aiohttp without telling which program and version answers, also to what is no HTTP."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web

NAME = {"Server": "bulkimg"}


class Server(web.Server):
    """A server of aiohttp whose own answers, such as 400 for a broken request, have the headers that are given."""

    def __init__(
        self,
        answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        headers: Mapping[str, str],
        **options: Any,
    ) -> None:
        super().__init__(answer, loop=asyncio.get_running_loop(), **options)
        self._headers = {**headers, **NAME}

    def __call__(self) -> web.RequestHandler:
        handler = _Handler(self, loop=self._loop, **self._kwargs)
        handler.headers = self._headers
        return handler


class _Handler(web.RequestHandler):
    __slots__ = ("headers",)

    headers: Mapping[str, str]

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Return the answer to what is no request, or that failed: no text of the parser, no version."""
        given = super().handle_error(request, status, exc, message)
        text = f"{given.status} {HTTPStatus(given.status).phrase}\n"
        answer = web.Response(status=given.status, text=text, headers=self.headers)
        answer.force_close()
        return answer
