"""Names of the objects and stuff in the drawn world, and synonyms for them."""

TARGETS = ("car", "bus", "cat", "dog", "boat", "house", "tree", "flower")
"""Classes of the sandbox's vocabulary: class ids 1 to 8, in this order."""

DISTRACTORS = (
    *("truck", "fox", "sheep", "person", "fish", "bird"),
    *("tent", "cactus", "mushroom", "umbrella", "balloon", "rocket"),
)
"""Objects outside the vocabulary; several of them resemble a target."""

STUFF = ("sky", "grass", "road", "sand", "water", "snow", "wall", "paper", "pattern")
"""Grounds and backdrops."""

NAMES = TARGETS + DISTRACTORS + STUFF
"""All names; a pixel of `Scene.names` is an index into this tuple."""

SYNONYMS: dict[str, tuple[str, ...]] = {
    "car": ("car", "automobile", "sedan"),
    "bus": ("bus", "coach", "city bus"),
    "cat": ("cat", "kitten", "house cat"),
    "dog": ("dog", "puppy", "hound"),
    "boat": ("boat", "ship", "sailboat"),
    "house": ("house", "home", "cottage"),
    "tree": ("tree", "fir tree", "oak"),
    "flower": ("flower", "blossom", "tulip"),
    "truck": ("truck", "lorry"),
    "fox": ("fox", "red fox"),
    "sheep": ("sheep", "lamb"),
    "person": ("person", "man", "woman", "child"),
    "fish": ("fish", "goldfish"),
    "bird": ("bird", "songbird"),
    "tent": ("tent", "camping tent"),
    "cactus": ("cactus", "saguaro"),
    "mushroom": ("mushroom", "toadstool"),
    "umbrella": ("umbrella", "parasol"),
    "balloon": ("balloon", "toy balloon"),
    "rocket": ("rocket", "spaceship"),
    "sky": ("sky", "clouds"),
    "grass": ("grass", "lawn", "meadow"),
    "road": ("road", "street", "asphalt"),
    "sand": ("sand", "beach", "desert"),
    "water": ("water", "sea", "lake"),
    "snow": ("snow", "snowfield"),
    "wall": ("wall", "brick wall"),
    "paper": ("paper", "blank page"),
    "pattern": ("pattern", "wallpaper", "textile"),
}
"""Words for each name in captions and prompts; the name itself is first."""
