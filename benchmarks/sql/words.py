"""The words of the generated world: what tables, columns and values may be called.

Every word below is one token of the tiny model's tokenizer, so that a model of a million parameters can
learn to copy names it reads in a schema. Procedural databases combine the words at random; the catalog's
hand-designed databases use the same words.
"""

from typing import Final

_TABLES: Final = """
actor airline airport album animal app artist athlete author bakery band bank bike boat book branch bridge
building bus cafe camera camp canal car castle chef cinema class clinic club coach college company
concert contest course crew customer device dish doctor driver editor employee engine event exhibit factory
farm farmer festival film flight forest gallery game garden guest guide hospital hotel invoice island journal
judge lab lake lesson library loan machine market match meal member mission mountain movie museum nurse office
opera park patient phone photo pilot planet player poem port product project pupil race ranger
recipe region reporter restaurant river robot room route sailor sample school shelf ship shop
singer song stadium station store student supplier survey talk teacher team tenant theater ticket tool tour
tower train trainer trip truck vendor village vineyard visit voyage wagon warehouse winery worker zoo
"""

_TEXT_COLUMNS: Final = {
    "name": """
        Ada Alba Amber Anton Aria Aspen Basil Bella Boris Cedar Clara Cora Dahlia Dora Edgar Elena Ember
        Enzo Falcon Felix Flora Freya Gloria Gustav Hazel Helga Hugo Iris Ivan Jade Jonas Juno Karl Laurel
        Leo Lotus Luna Maple Marta Max Mila Nadia Nora Oscar Otto Pearl Petra Phoenix Quinn Rosa Ruby Sage
        Selma Stella Theo Tiger Uma Vera Viktor Willow Xenia Yara Zelda Zeno""",
    "city": "Athens Berlin Boston Cairo Delhi Dublin Geneva Lima Lisbon London Madrid Oslo Paris Rome Tokyo",
    "country": "Brazil Canada Chile China Egypt France Ghana India Italy Japan Kenya Mexico Norway Peru",
    "color": "red blue green black white yellow orange purple silver gold",
    "genre": "rock jazz pop folk soul drama comedy horror fantasy romance",
    "language": "English French German Spanish Hindi Arabic Swahili Polish Korean Greek",
    "status": "open closed pending active paused expired planned finished",
    "material": "wood steel glass stone paper cotton leather plastic copper clay",
    "season": "spring summer autumn winter",
    "rank": "junior senior captain chief rookie master",
    "style": "modern classic gothic baroque rustic abstract minimal",
    "weekday": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "brand": "Apex Bolt Cosmo Delta Echo Fjord Gamma Helix Ionic Kite",
    "cuisine": "Thai Tuscan Vegan Nordic Cajun Basque Creole Fusion",
    "sport": "tennis rugby hockey rowing boxing chess fencing judo",
    "role": "goalkeeper defender striker pitcher keeper runner",
    "field": "physics history biology music law economics geology art",
    "grade": "bronze gilded platinum basic premium standard deluxe",
    "breed": "collie husky poodle beagle tabby siamese persian",
    "crop": "wheat corn rice barley grapes olives apples cocoa",
    "climate": "humid dry mild arctic tropical windy",
    "fuel": "diesel petrol electric hybrid hydrogen",
    "shape": "round square oval flat curved",
    "district": "Harbor Oldtown Riverside Hilltop Central Parkside Westend",
    "gate": "North South East West",
    "topic": "travel health science money nature fashion politics",
    "month": "January February March April June July August October",
    "mood": "happy calm tense sad proud",
    "vehicle": "tram van scooter taxi ferry canoe",
    "dessert": "cake sorbet pudding tart fudge",
}

_NUMBER_COLUMNS: Final = """
age area beds bonus budget calories capacity copies cost credits debt depth discount distance downloads
duration elevation exits experience fee floors goals height hours income injuries length likes losses medals
members mileage minutes pages parcels patients points population power price profit quantity rating rent
repairs rooms salary sales score seats size speed staff stock tax temperature trees usage views visitors
volume votes wages weight width wins
"""

TABLE_WORDS: Final[tuple[str, ...]] = tuple(_TABLES.split())
"""Names a table may have; a table's key column is `<name>_id`."""

TEXT_COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    column: tuple(values.split()) for column, values in _TEXT_COLUMNS.items()
}
"""Text columns and the values their rows are drawn from."""

NUMBER_COLUMNS: Final[tuple[str, ...]] = tuple(_NUMBER_COLUMNS.split())
"""Columns of whole numbers from 1 to 99."""

WORDS: Final[tuple[str, ...]] = tuple(
    sorted({*TABLE_WORDS, *TEXT_COLUMNS, *NUMBER_COLUMNS, *(v for vs in TEXT_COLUMNS.values() for v in vs)})
)
"""Every word of the world, once, sorted."""
