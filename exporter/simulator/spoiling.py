"""Answers that stand in for the right one while a fault is on, in the words of each dialect."""

from exporter.simulator.faults import Fault, proxy_page, spoil
from exporter.simulator.wire import HTML, JSON, JSON_UTF8, TEXT, Answer
from exporter.simulator.world import World

ABF_LIMIT = [("X-RateLimit-Limit", "3000"), ("X-RateLimit-Remaining", "0")]


def _not_found(dialect: str, made: Answer) -> Answer:
    match dialect:
        case "drone-1":
            return Answer(404, b'{"message":"Not Found"}', made.type)
        case "abf":
            return Answer(404, b'{"status":404,"message":"Error 404. Resource not found!"}', JSON_UTF8)
        case _:
            return Answer(404, type=made.type)


def _not_admin(dialect: str) -> Answer:
    match dialect:
        case "drone-1":
            return Answer(403, b'{"message":"Forbidden"}', JSON)
        case "abf":
            return Answer(403, b'{"message":"Access violation to this page!"}', JSON_UTF8)
        case _:
            return Answer(403 if dialect == "woodpecker" else 413, b"User not authorized", TEXT)


def _limited(dialect: str, fault: Fault) -> Answer:
    if dialect == "abf" and not fault.retry_after:
        return Answer(403, b'{"message":"403 Forbidden | Rate Limit Exceeded"}', JSON_UTF8, list(ABF_LIMIT))
    after = [("Retry-After", fault.retry_after)] if fault.retry_after else []
    return Answer(429, b"too many requests\n", TEXT, after)


def spoiled(world: World, path: str, made: Answer, fault: Fault) -> Answer:
    """The answer that stands in for `made`."""
    version = [pair for pair in made.headers if pair[0].endswith("-Version")]
    match fault.kind:
        case "limit":
            return _limited(world.dialect, fault)
        case "status":
            return Answer(fault.status, proxy_page(fault.status), "text/html")
        case "not_found":
            refused = _not_found(world.dialect, made)
        case "not_admin":
            refused = _not_admin(world.dialect)
        case "community":
            return Answer(501, b'{"message":"Not Implemented"}', JSON)
        case "redirect":
            return Answer(302, b"", HTML, [("Location", fault.to.rstrip("/") + path)])
        case "html":
            refused = Answer(200, b"<!DOCTYPE html><html><body>sign in</body></html>", HTML)
        case _:
            if made.type.startswith("application/json") and made.body:
                made.body = spoil(made.body, fault)
            return made
    refused.headers += version
    return refused
