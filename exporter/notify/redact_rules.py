"""What secrets look like that nobody told us of: built-in rules, each in linear time on any text.

No scan from one start can pass the next start (a boundary before a run, a class without what begins a
match, or a small bound), so that a hostile log costs no more than a long one.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """One way in which secrets are written."""

    triggers: tuple[str, ...]
    """The rule is tried where one of these stands in the text in lower case; it saves most of the work."""
    pattern: re.Pattern[str]
    """What to look for; the last group that took part is the secret, or the whole where there is none."""


def _rule(triggers: str, pattern: str, flags: int = 0) -> Rule:
    return Rule(tuple(triggers.split()), re.compile(pattern, flags))


def _token(trigger: str, pattern: str) -> Rule:
    """A token that is known by its first characters."""
    return _rule(trigger, rf"(?<![A-Za-z0-9]){pattern}")


ANY = re.IGNORECASE | re.MULTILINE

KEY = (
    r"(?:pass(?:word|wd|phrase|code)|(?<=_)pass|(?:(?<=[_;])|(?<=;[ ]))pwd|secret(?!s)|token(?!s|i)"
    r"|(?:api|access|account|auth|encryption|master|private|service|signing)[_.-]?key|credentials?|_auth)"
)
"""The end of a name whose value is a secret."""
OF_ANOTHER_KIND = (
    r"(?![_-]?(?:age|algorithm|budget|class|counts?|dir|enabled|endpoint|env|errors?|expir\w*|fields?|file"
    r"|format|hint|ids?|index|input|kind|len|length|limit|list|manager|max|min|mode|names?|path|policy"
    r"|pos|position|prompt|provider|reader|ref|required|reset|rotation|scopes?|size|stdin|store|stream"
    r"|tests?|timeout|ttl|type|uri|url|usage|used|validator|version)(?![a-z]))"
)
"""What may not go on a name: `TOKEN_FILE` and `password-stdin` hold no secret."""
HARMLESS = (
    r"(?!\\?[\"']?(?:"
    r"\$\{[^}\s]{0,80}\}|\$\{\{[^}\n]{0,80}\}\}|\$\([^)\n]{0,200}\)|\$[A-Z_][A-Z0-9_]{0,80}(?![^\s\"',;)])"
    r"|%\w{1,80}%|\*{3,}|x{3,}(?!\w)|\.{3}|<[^<>\n]{1,60}>"
    r"|\[(?:masked|redacted|hidden|secure|filtered)\]"
    r"|(?:str|string|secretstr|bytes|int|number|bool|boolean|any|object|unknown|none|null|nil|undefined"
    r"|true|false|optional|required|missing|invalid|empty|inherit|password|token|secret)(?!\w)"
    r"|[A-Za-z_][\w.]{0,80}+[(\[]|[^\w\s\"'\\]{1,3}[\"']"
    r"|(?:[A-Za-z_]\w{0,40}\.){1,5}\w{0,40}(?:password|token|secret|key)(?!\w)"
    r"))"
)
"""A variable, a mask, a placeholder, the name of a type, an expression: names of secrets, not secrets."""
QUOTED = r"\\+\"([^\"\n]+?)(?=\\+\"|\"|$)|\"((?:[^\"\\\n]|\\.)+)|'([^'\n]+)"
BARE = r"((?:[^\s&\"'<>]|&(?!\w{1,40}=)|[\"'](?![\s,;)\]}]|$))+)"
IN_SENTENCE = r"(?![A-Za-z]{1,60}[,.;]?[ \t]{1,3}[A-Za-z(])"
"""`password: must not be empty` is no password."""

RULES = (
    # Addresses with a user and password, either of them perhaps empty; of ssh a user alone is none.
    _rule("://", r"://([^\s/?#@:\"'<>\[]*:(?!\d{1,5}[/?#])[^\s/?#\"'<>]*)@"),
    _rule("://", r"://([^\s/?#@:\"'<>\[]*:(?!\d{1,5}[/?#])[^\s/?#\"'<>@:]*[/?#][^\s@:\"'<>]{0,200})@"),
    _rule("http", r"https?://([^\s/?#@:\"'<>\[]+)@", ANY),
    _rule("@tcp( @unix(", r"(?<![^\s\"'=])[^\s:@\"']{1,64}:([^\s@]{1,200})@(?:tcp|unix)\("),
    # Headers.
    _rule(
        "authorization",
        r"authorization\\?[\"']?[ \t]{0,3}[:=][ \t]{0,3}\\?[\"']?"
        r"(?:(?:bearer|basic|token|digest|negotiate|apikey|key)[ \t]{1,3})?+"
        rf"{HARMLESS}{IN_SENTENCE}([^\s\"'\\]{{4,}})",
        ANY,
    ),
    _rule("bearer", r"\bbearer[ \t]{1,3}(?=[\w.~+/=-]{0,200}?\d)([\w.~+/=-]{8,})", ANY),
    _rule("basic", r"\b[Bb]asic[ \t]{1,3}(?=[\w+/]{0,200}?(?:\d|[a-z][A-Z]|=))([\w+/]{8,}={0,2})"),
    _rule("cookie", r"\bcookie[\"']?:[ \t]{0,3}[\"']?([\w.-]{1,80}=[^\r\n\"']+)", ANY),
    # Tokens that tell whose they are.
    _token("akia asia abia acca", r"A(?:KIA|SIA|BIA|CCA)[A-Z0-9]{16}(?![A-Za-z0-9])"),
    _token("ghp_ gho_ ghu_ ghs_ ghr_", r"gh[pousr]_[A-Za-z0-9]{20,}"),
    _token("github_pat_", r"github_pat_\w{20,}"),
    _token("gl", r"gl(?:pat|dt|rt|rtr|cbt|ptt|ft|soat|imt|agent|oas|ffct)-[\w.=-]{16,}"),
    _token("xox xapp-", r"xox[a-z](?:\.xox[a-z])?-[\w-]{10,}|(?<![A-Za-z0-9])xapp-\d-[\w-]{10,}"),
    _token("npm_", r"npm_[A-Za-z0-9]{30,}"),
    _token("pypi-ag", r"pypi-Ag[\w-]{20,}"),
    _token("dckr_", r"dckr_(?:pat|oat)_[\w-]{16,}"),
    _token("rubygems_", r"rubygems_[0-9a-f]{32,}"),
    _token("aiza", r"AIza[\w-]{35}(?![\w-])"),
    _token("ya29. gocspx-", r"(?:ya29\.|GOCSPX-)[\w.-]{20,}"),
    _token("_live_ _test_", r"[srp]k_(?:live|test)_[A-Za-z0-9]{16,}"),
    _token("whsec_", r"whsec_[\w+/=-]{16,}"),
    _token("sg.", r"SG\.[\w-]{16,40}\.[\w-]{16,60}"),
    _rule("sk-", r"(?<![\w-])sk-(?=[\w-]{0,80}?\d)(?:ant-|proj-)?[\w-]{20,}"),
    _token("hf_", r"hf_[A-Za-z0-9]{30,}"),
    _token("hv", r"hv[sbr]\.[\w-]{20,}"),
    _token("do", r"do[opr]_v1_[0-9a-f]{40,}"),
    _token("atatt3", r"ATATT3[\w=-]{20,}"),
    _token("glsa_ glc_", r"gl(?:sa|c)_[\w=+/-]{24,}"),
    _token("age-secret-key", r"AGE-SECRET-KEY-1[0-9A-Z]{20,}"),
    _token(":aa", r"(?<!\d)\d{8,10}:AA[\w-]{30,}"),
    _rule("eyj", r"(?<![\w-])eyJ[\w-]{8,}+\.eyJ[\w-]++(?:\.[\w-]*+)?"),
    _rule("$5$ $6$ $y$ $2", r"\$(?:[56y]|2[aby])\$[^\s:\"']{20,}"),
    # Addresses that are secrets.
    _rule("hooks.slack.com", r"hooks\.slack\.com/\w{1,20}/([\w/-]+)", ANY),
    _rule("/api/webhooks/", r"/api/webhooks/([\w/-]+)", ANY),
    _rule("/open-apis/bot/", r"/open-apis/bot/(?:v2/)?hook/([\w-]+)", ANY),
    _rule("webhook", r"\.(?:com|us|cn)/(?:webhookb?2?|incomingwebhook)/([\w@/-]{20,})", ANY),
    _rule("/bot", r"/bot(\d{6,12}:[\w-]{20,})"),
    _rule(
        "=",
        r"[?&;](?:key|sig|sign|signature|code|auth|pwd|x-(?:amz|goog)-(?:signature|credential|security-token))"
        r"=([^&\s\"'<>]{6,})",
        ANY,
    ),
    # Files of settings.
    _rule("auth", r"\\?\"auth\\?\"[ \t]{0,3}:[ \t]{0,3}\\?\"([\w+/=-]{6,})", ANY),
    _rule("login", r"\blogin[ \t]{1,3}\S{1,100}[ \t]{1,3}password[ \t]{1,3}(\S+)", ANY),
    _rule("</", rf"<[\w.:-]{{0,40}}{KEY}{OF_ANOTHER_KIND}[^<>\n]{{0,80}}>{HARMLESS}([^<\n]+)</", ANY),
    # Options of commands.
    _rule(
        "--",
        rf"(?<![\w-])--[a-z-]{{0,40}}?(?:{KEY}|pass|user(?=[ =][^\s:]{{1,80}}:)){OF_ANOTHER_KIND}"
        r"(?:=|[ \t]{1,3})(?!-|(?:text|value|is|requires|argument|option|flag|must|or|and|to|for|not|was|has"
        rf"|with|cannot|expected)(?!\w)){HARMLESS}(?:{QUOTED}|{BARE})",
        ANY,
    ),
    _rule(
        "-u",
        rf"(?<!\S)-u[ ]?[\"']?[^\s:\"'/]{{1,80}}:(?!\d+(?:\s|$))(?!//){HARMLESS}([^\s\"']+)",
        re.MULTILINE,
    ),
    _rule(
        "-p",
        r"\b(?:mysql\w{0,20}|mariadb\w{0,20}|sshpass|login)\b[^\n]{0,200}?[ \t]-p[ =]{0,2}[\"']?"
        rf"{HARMLESS}([^\s\"'-][^\s\"']*)",
        ANY,
    ),
    _rule(
        "set env",
        rf"\b(?:env|setenv|setx?)[ \t]{{1,3}}[\w:./-]{{0,80}}{KEY}{OF_ANOTHER_KIND}[\w-]{{0,40}}+[ \t]{{1,3}}"
        rf"(?!is(?!\w)|=|:){HARMLESS}(?:{QUOTED}|{BARE})",
        ANY,
    ),
    # Names and values.
    _rule(
        "pass pwd secret token key credential _auth",
        rf"{KEY}{OF_ANOTHER_KIND}[\w-]{{0,40}}+(?:[\"'\])]|\\\"){{0,2}}[ \t]{{0,3}}"
        r"(?::[ ]?&?(?:str|string|bytes|secretstr)(?:[ ]?\|[ ]?none)?[ ]?)?"
        rf"(?:=>|:=|=(?![=~>]))[ \t]{{0,3}}{HARMLESS}(?:{QUOTED}|{BARE})",
        ANY,
    ),
    _rule(
        "pass pwd secret token key credential _auth",
        rf"{KEY}{OF_ANOTHER_KIND}[\w-]{{0,40}}+"
        r"(?:(?:\\\"|[\"'])[ \t]{0,3}:[ \t]{0,3}|[ \t]{0,3}:[ \t]{1,3})"
        rf"{HARMLESS}(?:{QUOTED}|{IN_SENTENCE}((?=[\w!@#$%^&*+/=.~-]{{4}})[^\s\"']+))",
        ANY,
    ),
)
