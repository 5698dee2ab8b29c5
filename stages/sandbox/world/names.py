"""What the drawn world is made of: the names of its objects and stuff, and other words for them."""

TARGETS = ("car", "bus", "cat", "dog", "boat", "house", "tree", "flower")
"""The classes a user of the sandbox wants; class ids 1 to 8, in this order."""

DISTRACTORS = (
    *("truck", "fox", "sheep", "person", "fish", "bird"),
    *("tent", "cactus", "mushroom", "umbrella", "balloon", "rocket"),
)
"""Objects outside the target vocabulary, several of them easily taken for a target."""

STUFF = ("sky", "grass", "road", "sand", "water", "snow", "wall", "paper", "pattern")
"""What surrounds the objects."""

NAMES = TARGETS + DISTRACTORS + STUFF
"""Every name; a pixel of `Scene.names` is a position in this tuple."""

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
"""The words captions and prompts use for each name, the name itself first."""
