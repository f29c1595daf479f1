"""placeholder"""

from collections.abc import Callable

from fastapi import APIRouter

from gateway.services import Services


def api_router(running: Callable[[], Services]) -> APIRouter:
    return APIRouter()
