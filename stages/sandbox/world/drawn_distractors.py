"""Drawings of the distractors, one or two for each name."""

from stages.sandbox.world.shapes import (
    Drawing,
    both_sides,
    box,
    curve,
    drawing,
    oval,
    polygon,
    wheels,
)

CAB = (
    polygon("main", "42,34 42,-30 76,-30 96,2 100,8 100,34"),
    polygon("glass", "54,0 54,-20 72,-20 86,2"),
    oval("accent", 96, 18, 5),
    *wheels(17, 38, -72, -30, 72),
)

TRUCKS = (
    drawing(  # with a box body
        box("dark", -100, 24, 60, 36),
        box("second", -100, -58, 34, 26),
        box("shade", -100, -58, 34, -50),
        *CAB,
    ),
    drawing(  # a loaded tipper
        box("dark", -96, 24, 60, 36),
        curve("wood", "-94,-20 -60,-50 -30,-56 10,-40 28,-16"),
        polygon("second", "-102,-30 36,-22 30,24 -84,24"),
        *CAB,
    ),
)

FOXES = (
    drawing(
        curve("main", "-50,10 -72,-16 -110,-30 -130,-10 -110,16 -76,24"),
        curve("light", "-110,-28 -134,-14 -130,2 -108,14 -104,-8"),
        *[box("dark", x, 40, x + 12, 74) for x in (-54, -32, 24, 44)],
        curve("main", "-62,-6 0,-4 50,-16 58,30 30,44 0,30 -40,46 -62,36"),
        polygon("main", "38,-40 36,-86 58,-60"),
        polygon("main", "62,-58 74,-90 84,-52"),
        polygon("main", "32,-10 36,-50 62,-64 86,-50 120,-16 80,2 50,16"),
        polygon("light", "56,10 66,-14 120,-16 80,2"),
        oval("dark", 118, -17, 7),
        oval("dark", 74, -34, 5),
    ),
)

WOOL = "-60,-20 -30,-36 5,-38 34,-22 40,8 14,24 -20,28 -52,20 -72,2"

SHEEP = (
    drawing(
        *[box("dark", x, 20, x + 11, 74) for x in (-52, -30, 6, 26)],
        *[oval("light", x, y, 27) for x, y in polygon("light", WOOL).corners],
        oval("light", -14, -5, 50, 36),
        oval("dark", 46, -28, 17, 6, 20),
        oval("dark", 66, -20, 20, 26, -25),
        oval("light", 56, -44, 20, 13),
        oval("light", 72, -26, 5),
    ),
)

PEOPLE = (
    drawing(  # standing
        *both_sides(box("second", 2, 20, 20, 92), box("dark", 2, 88, 26, 98)),
        *both_sides(
            polygon("shade", "20,-42 34,-34 44,16 34,20 22,-14"),
            oval("skin", 39, 20, 8),
        ),
        polygon("main", "-24,-44 24,-44 22,26 -22,26"),
        oval("skin", 0, -70, 19, 23),
        curve("dark", "-20,-70 -20,-92 0,-100 20,-92 20,-70 10,-84 -10,-84"),
    ),
    drawing(  # waving, in a skirt
        *both_sides(box("skin", 4, 50, 16, 92), box("dark", 3, 88, 22, 98)),
        polygon("shade", "-18,-38 -36,-26 -44,14 -34,16 -20,-12"),
        polygon("shade", "18,-42 40,-60 52,-92 44,-96 30,-70 14,-30"),
        oval("skin", 49, -97, 8),
        oval("skin", -39, 17, 8),
        polygon("main", "-20,-44 20,-44 18,0 40,60 -40,60 -18,0"),
        curve("dark", "-24,-40 -24,-90 0,-102 24,-90 24,-40"),
        oval("skin", 0, -70, 18, 22),
        curve("dark", "-20,-74 -14,-92 0,-98 14,-92 20,-74 0,-84"),
    ),
)

FISH = (
    drawing(
        polygon("second", "-52,0 -100,-40 -88,0 -100,40"),
        polygon("second", "-20,-30 10,-62 34,-30"),
        curve("main", "-64,0 -30,-34 20,-42 68,-22 90,0 68,22 20,40 -30,32"),
        curve("shade", "38,-32 48,-12 48,12 38,30 30,0"),
        polygon("second", "6,6 -26,20 -6,28"),
        oval("light", 64, -8, 10),
        oval("dark", 66, -8, 5),
    ),
)

BIRDS = (
    drawing(  # perched
        *[box("dark", x, 40, x + 5, 76) for x in (-10, 12)],
        polygon("second", "-40,0 -104,18 -98,40 -40,26"),
        curve("main", "-56,10 -20,-20 16,-36 30,-66 58,-64 66,-36 54,10 20,44 -24,40"),
        curve("second", "-54,10 -10,-14 24,0 0,26 -30,28"),
        polygon("accent", "62,-54 98,-42 62,-34"),
        oval("dark", 48, -50, 6),
    ),
    drawing(  # in flight
        curve("second", "0,-8 -10,-50 -50,-88 -66,-60 -46,-12"),
        polygon("second", "-60,0 -104,-8 -98,18 -58,14"),
        curve("main", "-70,8 -20,-14 40,-20 66,-18 76,-2 60,14 10,22 -40,18"),
        curve("shade", "10,-4 16,-50 -14,-98 -34,-76 -30,-8"),
        polygon("accent", "72,-8 102,0 72,8"),
        oval("dark", 60, -8, 5),
    ),
)

TENTS = (
    drawing(
        polygon("main", "-100,60 -30,-60 40,60"),
        polygon("second", "-30,-60 50,-60 106,60 40,60"),
        polygon("dark", "-50,60 -30,-30 -6,60"),
        polygon("light", "-30,-30 -6,60 -16,60"),
    ),
)

CACTI = (
    drawing(
        curve("leaf", "-18,100 -20,-40 -18,-86 0,-100 18,-86 20,-40 18,100"),
        curve("leaf", "-10,36 -52,34 -64,10 -64,-30 -54,-42 -44,-30 -42,8 -10,12"),
        curve("leaf", "10,16 40,14 46,-10 46,-54 56,-66 66,-54 68,-6 54,36 10,40"),
        *[box("light", x, y, x + 3, y + 12) for x in (-9, 6) for y in (-70, -36, -2, 32, 66)],
        *[box("light", x, -20, x + 3, -8) for x in (-55, 55)],
        oval("accent", 0, -98, 10, 8),
    ),
)

MUSHROOMS = (
    drawing(
        curve("light", "-20,0 20,0 24,60 30,92 -30,92 -24,60"),
        curve("main", "-90,8 -78,-42 -36,-82 0,-90 36,-82 78,-42 90,8 40,20 0,24 -40,20"),
        *[oval("light", x, y, 15, 12) for x, y in ((-44, -30), (4, -60), (46, -24))],
        *[oval("light", x, y, 9, 7) for x, y in ((0, -14), (-74, 0), (76, 2))],
    ),
)

UMBRELLAS = (
    drawing(
        box("wood", -3, -90, 3, 70),
        curve("wood", "-3,70 3,70 2,84 14,90 24,78 30,80 22,98 4,98 -4,84"),
        polygon("dark", "-3,-100 3,-100 3,-80 -3,-80"),
        curve(
            "main", "-100,6 -88,-44 -50,-78 0,-88 50,-78 88,-44 100,6 66,-8 34,6 0,-8 -34,6 -66,-8"
        ),
        curve("second", "-34,6 -30,-44 0,-88 30,-44 34,6 0,-8"),
    ),
)

BALLOONS = (
    drawing(
        curve("dark", "-2,48 2,48 8,66 -2,82 6,100 2,100 -6,82 4,66"),
        polygon("shade", "-9,52 9,52 0,36"),
        curve("main", "0,-100 42,-84 58,-40 40,14 0,44 -40,14 -58,-40 -42,-84"),
        oval("light", -24, -56, 9, 18, 25),
    ),
)

ROCKETS = (
    drawing(
        curve("accent", "-16,58 16,58 20,76 6,84 0,104 -8,86 -20,76"),
        *both_sides(polygon("second", "20,14 48,50 48,74 18,56")),
        curve("main", "0,-100 22,-66 28,-10 20,60 -20,60 -28,-10 -22,-66"),
        curve("second", "0,-100 16,-76 20,-60 -20,-60 -16,-76"),
        oval("light", 0, -26, 15),
        oval("glass", 0, -26, 10),
        polygon("second", "-4,14 4,14 4,70 -4,70"),
    ),
)

DRAWN_DISTRACTORS: dict[str, tuple[Drawing, ...]] = {
    "truck": TRUCKS,
    "fox": FOXES,
    "sheep": SHEEP,
    "person": PEOPLE,
    "fish": FISH,
    "bird": BIRDS,
    "tent": TENTS,
    "cactus": CACTI,
    "mushroom": MUSHROOMS,
    "umbrella": UMBRELLAS,
    "balloon": BALLOONS,
    "rocket": ROCKETS,
}
"""Drawings by name."""
