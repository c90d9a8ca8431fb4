"""A Slack channel, by an incoming webhook or as a bot (docs.slack.dev).

The title is a block of its own, the rest an attachment with the colour of what happened. All that comes
from a build stands in text without markup, or in a block of code, with `&`, `<` and `>` escaped.
"""

import re
from collections.abc import Mapping

from exporter.config_notify import SlackSettings
from exporter.notify.message import Message, Tone
from exporter.notify.notice import Notice
from exporter.notify.post import Answer, HttpTarget, Reply, Request, Verdict
from exporter.notify.targets import MENTIONS, Draft, Outcome, Rate, Result
from exporter.notify.text import escaped, unlinked

LONGEST_SECTION, LONGEST_FIELD, FIELDS = 2900, 1900, 10
"""Characters of a section and a field, and fields of a section; Slack's own limits are 3,000 and 2,000."""
COLOURS = {Tone.BAD: "#d00000", Tone.GOOD: "#2eb67d", Tone.WARNING: "#ecb22e", Tone.INFO: "#1264a3"}
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
NOT_LET_IN = Verdict(Result.PAUSE, "the bot is not let in: look at its token and scopes")
NO_CHANNEL = Verdict(Result.PAUSE, "no such channel for this bot: look at `channel`, and invite the bot")
BUSY = Verdict(Result.RETRY, "Slack is busy")
UNSURE = Verdict(Result.AMBIGUOUS, "Slack failed on the way")
TOO_LONG = Verdict(Result.TOO_LARGE, "the message is too large")
NOT_THERE = frozenset({"message_not_found", "cant_update_message", "edit_window_closed"})
"""Why a message cannot be written over: a new one is sent in its place."""
CODES: Mapping[str, Verdict] = {
    **dict.fromkeys(("ratelimited", "rate_limited", "service_unavailable", "request_timeout"), BUSY),
    **dict.fromkeys(("team_added_to_org", "message_limit_exceeded", "rollup_error"), BUSY),
    # Slack says of these that a part of the work may have been done.
    **dict.fromkeys(("internal_error", "fatal_error"), UNSURE),
    **dict.fromkeys(("invalid_auth", "not_authed", "token_revoked", "token_expired"), NOT_LET_IN),
    **dict.fromkeys(("account_inactive", "missing_scope", "no_permission", "access_denied"), NOT_LET_IN),
    **dict.fromkeys(("not_allowed_token_type", "team_access_not_granted", "accesslimited"), NOT_LET_IN),
    **dict.fromkeys(("ekm_access_denied", "enterprise_is_restricted", "org_login_required"), NOT_LET_IN),
    **dict.fromkeys(("channel_not_found", "not_in_channel", "is_archived"), NO_CHANNEL),
    **dict.fromkeys(("channel_is_archived", "restricted_action"), NO_CHANNEL),
    **dict.fromkeys(("msg_too_long", "msg_blocks_too_long"), TOO_LONG),
}
"""What `error` of the Web API, and the text of a webhook's answer, stand for."""


class Slack(HttpTarget):
    """One channel."""

    rate = (Rate(1, 1.0),)

    def __init__(self, settings: SlackSettings) -> None:
        super().__init__(settings, _of_bot if settings.token else _of_webhook)
        self._token = settings.token.get_secret_value() if settings.token else ""
        self._api, self._channel = settings.api_url, settings.channel

    def body(self, draft: Draft) -> dict[str, object]:
        """The message; as a bot, with the channel that it goes to."""
        return layout(draft.notice, draft.message) | ({"channel": self._channel} if self._token else {})

    def request(self, draft: Draft) -> Request:
        """A new message."""
        body = self.body(draft)
        return self._method("chat.postMessage", body) if self._token else Request(self.url, body)

    def deliver(self, draft: Draft) -> Outcome:
        """Send it; as a bot, write it over the message that it refers to, if that is still there."""
        channel, _, timestamp = draft.reference.partition(":")
        if self._token and timestamp:
            body = self.body(draft) | {"channel": channel, "ts": timestamp}
            reply = self.post.send(self._method("chat.update", body))
            if _error(reply.body) not in NOT_THERE:
                return _referring(reply)
        return _referring(self.post.send(self.request(draft)))

    def _method(self, name: str, body: dict[str, object]) -> Request:
        return Request(f"{self._api}/{name}", body, {"Authorization": f"Bearer {self._token}"})


def layout(notice: Notice, message: Message) -> dict[str, object]:
    """What both ways of sending have in common."""
    calls = " ".join(filter(None, map(_call, notice.mention[:MENTIONS])))
    title = f"{message.tone.sign} {message.title}"
    facts = [_plain(f"{label}: {value}", LONGEST_FIELD) for label, value in message.facts[:FIELDS]]
    blocks: list[object] = [{"type": "section", "fields": facts}] if facts else []
    if message.lines:
        blocks.append(_section(_plain("\n".join(message.lines))))
    if message.excerpt:
        # What looks like the mark that ends a block of code would end it.
        code = escaped(message.excerpt.replace("`", "\u02cb"), LONGEST_SECTION, _entity)
        blocks.append(_section(_markup(f"```\n{code}\n```")))
    if message.link:
        address = escaped(message.link, LONGEST_SECTION, _entity)
        blocks.append(_section(_markup(f"<{address}|{message.link_text}>")))
    return {
        # Shown where there is no room for blocks, as in a notification.
        "text": escaped(unlinked(title), LONGEST_SECTION, _entity),
        "mrkdwn": False,
        "unfurl_links": False,
        "unfurl_media": False,
        "blocks": [_section(_plain(title)), *([_section(_markup(calls))] if calls else [])],
        "attachments": [{"color": COLOURS[message.tone], "blocks": blocks}] if blocks else [],
    }


def _entity(character: str) -> str:
    return ENTITIES.get(character, character)


def _section(text: dict[str, object]) -> dict[str, object]:
    return {"type": "section", "text": text}


def _plain(text: str, longest: int = LONGEST_SECTION) -> dict[str, object]:
    return {"type": "plain_text", "emoji": False, "text": escaped(unlinked(text), longest, _entity)}


def _markup(text: str) -> dict[str, object]:
    return {"type": "mrkdwn", "verbatim": True, "text": text}


def _call(handle: str) -> str:
    """How a person (`U…`) or a group (`S…`) is called; nothing for what is neither."""
    if re.fullmatch(r"[UW][A-Z0-9]{2,20}", handle):
        return f"<@{handle}>"
    return f"<!subteam^{handle}>" if re.fullmatch(r"S[A-Z0-9]{2,20}", handle) else ""


def _of_bot(answer: Answer) -> Verdict | None:
    if isinstance(answer.body, dict) and answer.body.get("ok") is True:
        return Verdict(Result.OK) if answer.status == 200 else None
    error = _error(answer.body)
    if verdict := CODES.get(error):
        return verdict
    if answer.status != 200:
        return None
    return Verdict(Result.PERMANENT, "refused") if error else Verdict(UNSURE.result, "that was not Slack")


def _of_webhook(answer: Answer) -> Verdict | None:
    return None if answer.status == 200 else CODES.get(answer.text.strip()[:100])


def _error(body: object) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    return error if isinstance(error, str) else ""


def _referring(reply: Reply) -> Outcome:
    """The outcome with what the message is found by: its channel and time."""
    outcome, body = reply.outcome, reply.body
    if outcome.result is not Result.OK or not isinstance(body, dict):
        return outcome
    where = (body.get("channel"), body.get("ts"))
    known = all(isinstance(part, str) and re.fullmatch(r"[A-Za-z0-9.]{1,40}", part) for part in where)
    return Outcome(result=Result.OK, reference=f"{where[0]}:{where[1]}" if known else "")
