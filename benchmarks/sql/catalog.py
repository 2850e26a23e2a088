"""Twenty hand-designed databases: twelve to train on, eight that no training text ever shows.

The split is by database. A held-out table, that is a name with its set of columns, occurs in no pretraining,
warm-up or reinforcement learning text (`world.random_schema` rejects it); the words it is made of do.
"""

from __future__ import annotations

from typing import Final

from raybolt.benchmarks.sql.schema import Column, Schema, Table
from raybolt.benchmarks.sql.words import NUMBER_COLUMNS, TEXT_COLUMNS

# One table a line: its name, then its columns without its own key. `club_id` refers to the table `club`.
_TRAIN: Final = {
    "football": ["club name city wins budget", "player name role age goals salary club_id"],
    "music": ["artist name country genre age", "album name style sales minutes artist_id"],
    "libraries": [
        "branch name district floors",
        "book name language topic pages copies branch_id",
        "loan month status fee book_id",
    ],
    "hospitals": ["doctor name field experience salary", "patient name city age weight doctor_id"],
    "universities": ["college name city staff", "teacher name field age wages college_id"],
    "retail": ["supplier name country rating", "product name color brand price stock supplier_id"],
    "aviation": [
        "airline name country profit",
        "flight gate status duration distance airline_id",
        "pilot name rank age hours airline_id",
    ],
    "cinemas": ["cinema name city seats", "movie name genre language minutes rating cinema_id"],
    "farming": ["farmer name country age debt", "farm crop climate area income farmer_id"],
    "hotels": ["hotel name city brand rooms rating", "guest name country age bonus hotel_id"],
    "buses": ["driver name rank experience wages", "bus brand fuel seats mileage driver_id"],
    "schools": [
        "school name district population",
        "pupil name grade age score school_id",
        "lesson weekday topic hours school_id",
    ],
}

_HELD_OUT: Final = {
    "museums": ["museum name city style visitors", "exhibit name material country price weight museum_id"],
    "sailing": ["sailor name country age medals", "boat name color length speed sailor_id"],
    "restaurants": [
        "restaurant name cuisine district seats",
        "chef name country experience salary restaurant_id",
        "dish name dessert calories price restaurant_id",
    ],
    "galleries": ["gallery name city area rent", "photo topic mood views price gallery_id"],
    "games": ["company name country staff profit", "game name genre season score downloads company_id"],
    "rangers": [
        "park name climate area visitors",
        "ranger name rank age wages park_id",
        "animal name breed weight age park_id",
    ],
    "workshops": ["factory name city power tax", "machine brand shape weight repairs factory_id"],
    "racing": ["team name sport points budget", "athlete name country height medals team_id"],
}


def _column(name: str) -> Column:
    if name.endswith("_id"):
        return Column(name, "key")
    if name in TEXT_COLUMNS:
        return Column(name, "text", TEXT_COLUMNS[name])
    assert name in NUMBER_COLUMNS, name
    return Column(name, "number", tuple(range(1, 100)))


def make_table(name: str, columns: list[str]) -> Table:
    """The table `name`, its own key added in front of `columns`."""
    return Table(name, tuple(_column(column) for column in [f"{name}_id", *columns]))


def _schemas(designs: dict[str, list[str]]) -> tuple[Schema, ...]:
    return tuple(
        Schema(name, tuple(make_table(line.split()[0], line.split()[1:]) for line in lines))
        for name, lines in designs.items()
    )


TRAIN_SCHEMAS: Final = _schemas(_TRAIN)
HELD_OUT_SCHEMAS: Final = _schemas(_HELD_OUT)
HELD_OUT_TABLES: Final = frozenset(table.signature for schema in HELD_OUT_SCHEMAS for table in schema.tables)
"""The signatures that training text must not show."""
