"""From any earlier version's tables to this one's, by Alembic."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Engine


class TooNewError(Exception):
    """The ledger was written by a later version."""


def upgrade(engine: Engine, version: str | None) -> None:
    """Runs the migrations that are missing after `version`, in one transaction.

    Raises `TooNewError` where `version` is not one of ours.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.begin() as conn:
        config.attributes["connection"] = conn
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise TooNewError(
                f"its tables are of version {version}, which this program does not know"
            ) from error
