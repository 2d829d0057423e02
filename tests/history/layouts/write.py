"""Writes today's layout of ``history.sqlite3``, with a few rows in it, as SQL text.

python -m tests.history.layouts.write > tests/history/layouts/NUMBER.sql

Run it before a change of the layout, so that the step from this layout to the next one can be tested for good.
"""

import sqlite3
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

from tests.support.past import AXES, NOON, sighting, unknown
from worker.history.records import Tally
from worker.history.store import FILE, History

LONG_S = 100 * 365 * 86_400.0


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        with History.open(Path(folder), create=True) as past:
            past.write(
                [
                    sighting(1),
                    sighting(2, None, quality=None, camera_id="yard"),
                    sighting(3, AXES[2], unknown_id="u-1"),
                    sighting(4, identity_id="4f1c", identity_name="Zoë O'Hara"),
                ],
                [unknown("u-1", AXES[2], last_seen=NOON + timedelta(minutes=3)), unknown("u-2", AXES[3])],
                [Tally("door", NOON, "too_small", 2, 31)],
                keep_s=LONG_S,
                remember_s=LONG_S,
            )
            past.give_name(past.sightings(sighting_id="door_2")[0], "4f1c", "Zoë O'Hara")
            past.drop_unknown("u-2")
        connection = sqlite3.connect(Path(folder) / FILE)
        for pragma in ("user_version", "application_id"):
            (value,) = connection.execute(f"PRAGMA {pragma}").fetchone()
            sys.stdout.write(f"PRAGMA {pragma} = {value};\n")
        sys.stdout.writelines(f"{line}\n" for line in connection.iterdump())
        connection.close()


if __name__ == "__main__":
    main()
