"""Drawings of the eight targets, several for each name that differ in kind or pose."""

from stages.sandbox.world.shapes import (
    Drawing,
    both_sides,
    box,
    curve,
    drawing,
    moved,
    oval,
    polygon,
    wheels,
)

CARS = (
    drawing(  # a saloon from the side
        curve(
            "main",
            "-100,15 -95,-8 -62,-14 -38,-42 -5,-50 25,-43 55,-12 93,-3 100,18 90,28 -92,28",
        ),
        polygon("glass", "-52,-12 -33,-38 -6,-41 -6,-12"),
        polygon("glass", "2,-12 2,-41 21,-37 42,-12"),
        box("shade", -94, 12, 96, 19),
        oval("accent", 92, 4, 6, 5),
        *wheels(21, 28, -56, 56),
    ),
    drawing(  # a hatchback from the side
        polygon("main", "-90,28 -92,-10 -72,-52 15,-52 48,-14 88,-6 94,28"),
        polygon("glass", "-74,-12 -62,-42 -28,-42 -28,-12"),
        polygon("glass", "-19,-12 -19,-42 10,-42 34,-12"),
        oval("accent", 87, 6, 5, 7),
        *wheels(22, 28, -54, 54),
    ),
    drawing(  # from the front
        *both_sides(box("dark", 40, 30, 62, 56)),
        polygon("main", "-50,-10 -38,-50 38,-50 50,-10 70,2 70,42 -70,42 -70,2"),
        polygon("glass", "-40,-8 -31,-41 31,-41 40,-8"),
        box("shade", -34, 12, 34, 26),
        *both_sides(oval("accent", 52, 16, 11)),
        box("dark", -70, 34, 70, 42),
    ),
)

BUSES = (
    drawing(
        polygon("main", "-100,34 -100,-40 -94,-46 88,-46 98,-38 102,10 102,34"),
        *[box("glass", x, -34, x + 27, -2) for x in (-92, -60, -28, 4)],
        box("glass", 40, -34, 64, 30),
        polygon("glass", "72,-34 93,-34 97,-2 72,-2"),
        box("second", -100, 8, 40, 17),
        *wheels(17, 34, -58, 70),
    ),
    drawing(  # a double-decker
        polygon("main", "-80,60 -80,-62 -72,-68 70,-68 80,-58 84,60"),
        *[box("glass", x, y, x + 30, y + 32) for y in (-56, 0) for x in (-70, -33, 4)],
        *[box("glass", 44, y, 78, y + 32) for y in (-56, 0)],
        box("second", -80, -18, 82, -8),
        *wheels(17, 60, -46, 46),
    ),
)

CAT_FACE = (
    *both_sides(
        polygon("main", "42,-50 40,-98 10,-72"),
        polygon("accent", "35,-62 35,-85 20,-72"),
    ),
    oval("main", 0, -42, 46, 38),
    oval("light", 0, -26, 20, 13),
    *both_sides(
        oval("dark", 18, -46, 7, 9),
        polygon("dark", "16,-30 66,-37 66,-33"),
        polygon("dark", "16,-25 66,-20 66,-16"),
    ),
    polygon("accent", "-8,-36 8,-36 0,-26"),
)

CATS = (
    drawing(  # sitting
        curve("shade", "30,90 70,82 82,40 62,2 80,-10 98,36 86,88 50,100"),
        curve("main", "-24,-20 24,-20 42,40 46,96 -46,96 -42,40"),
        oval("light", 0, 32, 20, 34),
        box("shade", -3, 50, 3, 98),
        *CAT_FACE,
    ),
    drawing(  # walking, the tail up
        curve("main", "-70,0 -98,-30 -100,-80 -78,-98 -72,-88 -86,-74 -84,-34 -56,-14"),
        *[box("shade", x, 20, x + 14, 72) for x in (-50, 22)],
        *[box("main", x, 20, x + 15, 76) for x in (-70, 42)],
        curve("main", "-74,-10 0,-16 56,-14 62,24 0,34 -72,34"),
        *[polygon("second", f"{x},-16 {x + 12},-16 {x + 8},12") for x in (-50, -20, 10)],
        *moved(CAT_FACE, 0.72, 66, -2),
    ),
)

DOGS = (
    drawing(  # standing
        curve("main", "-66,-10 -90,-38 -100,-62 -90,-66 -76,-40 -50,-16"),
        *[box("shade", x, 20, x + 16, 76) for x in (-46, 20)],
        *[box("main", x, 20, x + 17, 80) for x in (-72, 40)],
        curve("main", "-74,-16 0,-14 50,-24 62,20 0,32 -74,36"),
        curve("main", "32,-10 36,-60 62,-72 80,-56 106,-44 110,-26 84,-20 64,10"),
        curve("second", "40,-68 56,-62 54,-24 38,-8 28,-30"),
        oval("dark", 107, -42, 8),
        oval("dark", 72, -50, 6),
        polygon("accent", "40,-6 68,0 66,10 38,6"),
    ),
    drawing(  # sitting
        curve("shade", "36,80 80,66 96,30 86,26 66,52 40,62"),
        curve("main", "-26,-20 26,-20 44,40 50,96 -50,96 -44,40"),
        oval("light", 0, 26, 22, 30),
        box("shade", -3, 50, 3, 98),
        box("accent", -26, -12, 26, -1),
        oval("main", 0, -52, 38, 40),
        *both_sides(curve("second", "26,-88 48,-80 62,-40 50,-14 36,-40")),
        *both_sides(oval("dark", 15, -60, 6, 8)),
        oval("light", 0, -30, 24, 20),
        curve("accent", "-7,-22 7,-22 8,-2 -8,-2"),
        oval("dark", 0, -40, 11, 8),
    ),
)

BOATS = (
    drawing(  # under sail
        box("wood", -4, -100, 4, 40),
        polygon("light", "8,-94 8,18 72,18"),
        polygon("second", "-8,-80 -8,18 -56,18"),
        polygon("main", "-90,32 92,32 62,72 -62,72"),
        polygon("shade", "-90,32 92,32 86,40 -84,40"),
    ),
    drawing(  # a steamer
        box("accent", -18, -66, 10, -16),
        box("dark", -18, -66, 10, -54),
        box("light", -48, -22, 42, 18),
        *[oval("glass", x, -2, 9) for x in (-30, -3, 24)],
        polygon("main", "-96,16 100,4 70,62 -74,62"),
        polygon("second", "-80,46 78,46 70,62 -74,62"),
    ),
)

HOUSES = (
    drawing(
        box("second", 34, -84, 54, -30),
        box("main", -70, -10, 70, 78),
        polygon("accent", "-90,-6 0,-84 90,-6"),
        box("wood", -14, 24, 16, 78),
        *both_sides(box("glass", 28, 12, 58, 42)),
    ),
    drawing(  # two floors
        polygon("accent", "-66,-46 -44,-92 44,-92 66,-46"),
        box("main", -56, -46, 56, 96),
        *[box("glass", x, y, x + 24, y + 30) for y in (-34, 14) for x in (-44, 20)],
        box("wood", -14, 50, 14, 96),
    ),
)

TREES = (
    drawing(
        polygon("wood", "-11,100 -8,0 8,0 11,100"),
        *[oval("leaf", x, y, 38) for x, y in ((-34, -10), (34, -10), (-24, -52), (26, -50))],
        oval("leaf", 0, -34, 48, 54),
    ),
    drawing(  # a fir
        box("wood", -9, 60, 9, 100),
        polygon("leaf", "-58,70 58,70 0,0"),
        polygon("leaf", "-46,26 46,26 0,-48"),
        polygon("leaf", "-34,-16 34,-16 0,-98"),
    ),
)

FLOWERS = (
    drawing(
        curve("leaf", "-4,0 4,0 6,60 3,100 -4,100 -1,60"),
        oval("leaf", 26, 52, 30, 11, -35),
        oval("leaf", -24, 66, 28, 10, 35),
        *[
            oval("main", x, y, 24)
            for x, y in ((0, -80), (32, -57), (20, -19), (-20, -19), (-32, -57))
        ],
        oval("accent", 0, -46, 19),
    ),
    drawing(  # a tulip
        box("leaf", -4, -10, 4, 100),
        curve("leaf", "0,98 -14,60 -44,20 -34,70"),
        curve("leaf", "0,98 12,66 40,34 32,76"),
        curve("main", "-36,-60 -18,-48 0,-84 18,-48 36,-60 34,-16 0,6 -34,-16"),
        curve("shade", "-2,-70 14,-40 10,0 -10,0 -14,-40"),
    ),
)

DRAWN_TARGETS: dict[str, tuple[Drawing, ...]] = {
    "car": CARS,
    "bus": BUSES,
    "cat": CATS,
    "dog": DOGS,
    "boat": BOATS,
    "house": HOUSES,
    "tree": TREES,
    "flower": FLOWERS,
}
"""Drawings by name."""
