"""The whole exporter in one process: ledger, watches, page and listener, begun and ended in order."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from exporter.access import Access, Guard
from exporter.bridge import Bridge
from exporter.config import Config, ConfigError, ServerSettings
from exporter.delivery import FIRST, HOURLY, DeliveryGauges
from exporter.exposition import Body, Page
from exporter.hooks.alertmanager import AlertmanagerHook
from exporter.hooks.drone import DroneHook
from exporter.hooks.receiver import Hook
from exporter.hooks.receiver import build_app as build_hooks
from exporter.ledger import Ledger, LedgerError, outbox
from exporter.ledger.messages import Row
from exporter.ledger.recall import Recalled
from exporter.listener import Listener
from exporter.log import logger, setup
from exporter.notify.alert_book import AlertBook
from exporter.notify.alertmanager import LOOK, Alertmanager
from exporter.notify.channels import open_target
from exporter.notify.logs import excerpts, log_reader, once
from exporter.notify.outbox import Excerpt, Outbox
from exporter.refresh import Refresher, Shown
from exporter.schedule import Schedule
from exporter.servers.detect import open_server
from exporter.streams import Subscription
from exporter.telemetry import Telemetry
from exporter.watch import Watch
from exporter.web import build_app

TICK, MEASURE = 5.0, 300.0
"""Seconds between two looks at what time alone changes, and at the ledger's size."""
GRACE = 3.0
"""Seconds that cycles have to end in; then what they read is read again by the next process."""

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Work:
    """Everything that one configuration set going."""

    config: Config
    page: Page
    refresher: Refresher
    watches: tuple[Watch, ...]
    subscriptions: tuple[Subscription, ...]
    outbox: Outbox
    alertmanagers: tuple[Alertmanager, ...]
    hooks: Starlette
    schedule: Schedule
    stop: threading.Event

    def start(self) -> None:
        self.schedule.start()
        for subscription in self.subscriptions:
            subscription.start()
        self.outbox.start()


class App:
    """The exporter; `start` it, then `stop` it once."""

    def __init__(
        self,
        config: Config,
        *,
        load: Callable[[], Config] | None = None,
        listen: str | None = None,
        web_config: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`load` reads the configuration anew; `listen` and `web_config` take the place of its own.

        Raises `LedgerError` and `WebConfigError`.
        """
        self._load, self._clock = load, clock
        self._reloading = threading.Lock()
        self.telemetry = Telemetry(created=config.metrics.created)
        self.ledger = Ledger(config.ledger.url.get_secret_value())
        web_config = web_config or config.web.config_file
        access = Access(web_config) if web_config else None
        web = build_app(self._render, self.failures, self.reload if config.web.lifecycle else None)
        self.listener = Listener(
            listen or config.web.listen,
            Guard(web, access) if access else web,
            tls=access.tls if access else None,
            allowed=access.allows if access else None,
        )
        self.hooks = Listener(config.hooks.listen, self._hear) if config.hooks.on else None
        self.tls = access is not None and access.tls is not None
        self.ledger.lock()
        self.ledger.migrate()
        with self.ledger.transaction() as conn:
            outbox.free(conn, float("inf"))  # nobody sends but the one process that holds the lock
        self.work = self._prepare(config)

    def start(self) -> None:
        """Begins to watch and to answer; raises `ListenError`."""
        self.listener.start()
        if self.hooks is not None:
            self.hooks.start()
        self.work.start()
        log.info(
            "watching",
            servers=self.watched,
            repos=sum(len(watch.roster.repos) for watch in self.work.watches) or None,
            listen=self.listener.address,
            hooks=self.hooks.address if self.hooks else None,
            ledger=self.ledger.place,
        )

    @property
    def watched(self) -> list[str]:
        """Each server's name and address."""
        return [f"{watch.name} ({watch.settings.url})" for watch in self.work.watches]

    def stop(self) -> None:
        """Ends within 5 seconds; what was read is in the ledger, whole transactions at a time."""
        self._end(self.work)
        for listener in filter(None, (self.hooks, self.listener)):
            listener.stop(1.0)
        self.ledger.close()

    def failures(self) -> list[str]:
        """What keeps the exporter from being ready, a line each; nothing while it is."""
        watches = self.work.watches
        untried = [f"server {watch.name}: not tried yet" for watch in watches if not watch.tried]
        ledger = [self.ledger.fault] if self.ledger.fault else []
        if not untried and not ledger:
            return []
        return ledger + untried + [f"server {w.name}: {w.fault}" for w in watches if w.fault]

    def reload(self) -> str:
        """Puts the configuration as it is now in force; returns what is wrong with it, or nothing."""
        if self._load is None:
            return "there is no configuration file to load"
        with self._reloading:
            try:
                config = self._load()
                old = self.work.config
                fixed = [
                    key
                    for key, before, after in (
                        ("ledger.url", old.ledger.url, config.ledger.url),
                        ("web", old.web, config.web),
                        ("hooks.listen", old.hooks.listen, config.hooks.listen),
                        ("hooks", old.hooks.on, config.hooks.on),
                        ("metrics.created", old.metrics.created, config.metrics.created),
                    )
                    if before != after
                ]
                if fixed:
                    raise ConfigError([f"{key}: takes a restart to change" for key in fixed])
            except ConfigError as error:
                log.warning("the configuration was not loaded: the old one stays", error=error)
                return str(error)
            setup(config.log.level, config.log.format, (*config.secrets, *old.secrets))
            self._end(self.work)
            work = self._prepare(config)
            for name in {w.name for w in self.work.watches} - {w.name for w in work.watches}:
                self.telemetry.forget(name)
            self.work = work
            self.telemetry.keep_targets({target.name for target in config.notify.channels})
            self.telemetry.keep_alertmanagers({each.url for each in work.alertmanagers})
            work.start()
            log.info("the configuration was loaded", servers=self.watched)
            return ""

    def _render(self, openmetrics: bool, gzip: bool, names: frozenset[str] | None) -> Body:
        return self.work.page.render(openmetrics, gzip, names)

    async def _hear(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands what was sent to a hook to what the configuration says now."""
        await self.work.hooks(scope, receive, send)

    def _hooks(self, config: Config, bridge: Bridge, hints: Mapping[str, Callable[[], None]]) -> Starlette:
        settings, hooks = config.hooks, list[Hook]()
        if settings.alertmanager:
            hooks.append(
                AlertmanagerHook(
                    settings.alertmanager, self.ledger, bridge.routes, bridge.due, clock=self._clock
                )
            )
        if settings.drone:
            hooks.append(DroneHook([(hook.server, hook.key) for hook in settings.drone], hints, self._clock))
        self.telemetry.keep_hooks({hook.name for hook in hooks})
        return build_hooks(hooks, self.telemetry)

    def _prepare(self, config: Config) -> Work:
        """All that a configuration asks for, with the page as the ledger has it; nothing runs yet."""
        page = Page(
            disabled=frozenset(config.metrics.disable),
            created=config.metrics.created,
            registry=self.telemetry.registry,
        )
        refresher = Refresher(
            page, self.ledger, abandoned_after=config.ledger.abandoned_after, clock=self._clock
        )
        stop = threading.Event()
        bridge = Bridge(self.ledger, config.notify.rules, self.telemetry, self._clock)
        watches = tuple(self._watch(settings, config, refresher, bridge, stop) for settings in config.servers)
        known = {watch.name: watch for watch in watches}
        reader = log_reader(config, stop)
        read_log = once(excerpts(reader, lambda name: known[name].server if name in known else None))
        sender = Outbox(
            self.ledger,
            [open_target(target) for target in config.notify.channels],
            bridge.routes,
            self.telemetry,
            bridge.due,
            excerpt=read_log,
            clock=self._clock,
        )
        alertmanagers = tuple(self._alertmanagers(config, bridge, read_log))
        schedule = Schedule()
        subscriptions, hints = [], {}
        for watch in watches:
            hurry = schedule.watch(watch.name, watch.settings.poll, watch.cycle, watch.hints.wait)
            hints[watch.name] = _hint(watch, hurry)
            if watch.settings.stream == "auto":
                subscriptions.append(_subscribe(watch, hints[watch.name]))
        for each in alertmanagers:
            schedule.every(LOOK, each.turn, name=f"alertmanager {each.url}")
        schedule.every(TICK, refresher.tick, name="tick", after=TICK)
        schedule.every(TICK, lambda: _look_at_clock(bridge, refresher), name="incidents", after=TICK)
        schedule.every(MEASURE, refresher.measure, name="measure")
        delivery = DeliveryGauges(
            page, self.ledger, config.delivery, {watch.name: watch.policy for watch in watches}, self._clock
        )
        schedule.every(HOURLY, delivery.renew, name="delivery", after=FIRST)
        refresher.tick()  # what was withdrawn is not shown until the first one
        hooks = self._hooks(config, bridge, hints)
        return Work(
            config,
            page,
            refresher,
            watches,
            tuple(subscriptions),
            sender,
            alertmanagers,
            hooks,
            schedule,
            stop,
        )

    def _alertmanagers(
        self, config: Config, bridge: Bridge, excerpt: Callable[[Row], Excerpt]
    ) -> Iterator[Alertmanager]:
        for settings in config.notify.alertmanagers:
            book = AlertBook(
                settings.name,
                settings.urls,
                self.ledger,
                bridge.routes,
                [server.name for server in config.servers],
                bridge.waits,
                excerpt=excerpt,
                clock=self._clock,
            )
            for url in settings.urls:
                yield Alertmanager(url, settings, book, self.telemetry, clock=self._clock)

    def _watch(
        self,
        settings: ServerSettings,
        config: Config,
        refresher: Refresher,
        bridge: Bridge,
        stop: threading.Event,
    ) -> Watch:
        watch = Watch(
            settings,
            lambda: open_server(
                settings, self.telemetry, recall=Recalled(self.ledger, settings.name), clock=self._clock
            ),
            self.ledger,
            self.telemetry,
            retention=config.ledger.retention,
            series_retention=config.ledger.series_retention,
            changed=refresher.refresh,
            bridge=bridge,
            stop=stop,
            clock=self._clock,
        )
        with suppress(LedgerError):  # else its first look loads it, or says what is wrong
            watch.load()
        refresher.show(settings.name, Shown(watch.policy, watch.skew, watch.last_poll))
        return watch

    def _end(self, work: Work) -> None:
        work.stop.set()
        work.schedule.stop()
        for subscription in work.subscriptions:
            subscription.close()
        for watch in work.watches:
            watch.close()
        for each in work.alertmanagers:
            each.close()
        deadline = time.monotonic() + GRACE
        work.outbox.stop(GRACE)
        for watch in work.watches:
            watch.idle.wait(max(0.0, deadline - time.monotonic()))
        for each in work.alertmanagers:
            each.wait(max(0.0, deadline - time.monotonic()))


def _hint(watch: Watch, hurry: Callable[[], None]) -> Callable[[], None]:
    """What makes the next look of `watch` come sooner; any thread may call it."""

    def hint() -> None:
        watch.hints.give()
        hurry()

    return hint


def _subscribe(watch: Watch, hint: Callable[[], None]) -> Subscription:
    """What hears the server of `watch`, and hints at each change."""
    subscription = Subscription(watch.settings, watch.roster, hint)
    watch.met = subscription.meet
    return subscription


def _look_at_clock(bridge: Bridge, refresher: Refresher) -> None:
    with suppress(LedgerError):  # whoever polls or sends says so
        refresher.refresh(bridge.tick())
