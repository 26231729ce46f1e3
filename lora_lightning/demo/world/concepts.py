"""The closed world's nouns: which concepts exist, what they are called, and what is held back for tests.

Each entry is an emoji label (CLDR, as in emojibase-data, MIT) or `label = our word`. A concept is kept only
where noto, fluent-emoji-flat and fluent-emoji-high-contrast all draw it, so every style shows every concept.
"""

# ruff: noqa: RUF001  (emoji labels are spelt with typographic apostrophes)

from __future__ import annotations

import random

_ANIMALS = """monkey; gorilla; dog; wolf; fox; raccoon; cat; lion; tiger; horse; moose; unicorn; zebra; deer;
cow; pig; ram; goat; camel; llama; giraffe; elephant; rhinoceros; hippopotamus; mouse; hamster; rabbit;
beaver; hedgehog; bat; polar bear; koala; panda; sloth; skunk; kangaroo; turkey; rooster; front-facing baby
chick = chick; bird; penguin; dove; eagle; duck; swan; owl; feather; flamingo; peacock; parrot; frog;
crocodile; turtle; lizard; snake; dragon; sauropod = dinosaur; whale; dolphin; seal; fish; blowfish; shark;
octopus; spiral shell = shell; coral; jellyfish; crab; lobster; shrimp; squid; snail; butterfly; ant;
honeybee; beetle; lady beetle = ladybug; spider; scorpion; bouquet; cherry blossom; lotus; rose; hibiscus;
sunflower; tulip; seedling; potted plant; evergreen tree = pine tree; deciduous tree = tree; palm tree;
cactus; four leaf clover; maple leaf; mushroom; paw prints"""
_FOOD = """grapes; melon; watermelon; lemon; banana; pineapple; red apple; green apple; pear; peach; cherries;
strawberry; blueberries; kiwi fruit; tomato; coconut; avocado; eggplant; carrot; ear of corn = corn; hot
pepper = chili pepper; bell pepper; cucumber; broccoli; garlic; onion; bread; croissant; pretzel; pancakes;
waffle; cheese wedge = cheese; poultry leg = chicken leg; bacon; hamburger; french fries; pizza; hot dog;
sandwich; taco; egg; cooking = frying pan; popcorn; butter; salt; canned food; rice ball; steaming bowl =
noodle bowl; spaghetti; sushi; takeout box; soft ice cream; ice cream = ice cream bowl; doughnut; cookie;
birthday cake; shortcake; cupcake; pie; chocolate bar; candy; lollipop; honey pot; baby bottle; glass of milk;
hot beverage = coffee cup; teapot; wine glass; cocktail glass = cocktail; beer mug; bubble tea; ice = ice
cube; spoon"""
_TRAVEL = """globe showing Americas = globe; world map; compass; volcano; desert island = island; brick; rock;
wood = log; hut; house; office building; factory; castle; Tokyo tower = tower; Statue of Liberty; church;
mosque; fountain; tent; ferris wheel; barber pole; circus tent; locomotive = steam train; tram; bus;
ambulance; fire engine; police car; taxi; automobile = car; delivery truck = truck; tractor; racing car;
motorcycle; motor scooter = scooter; bicycle; skateboard; roller skate; fuel pump; wheel; police car light =
siren; vertical traffic light = traffic light; stop sign; anchor; ring buoy = life ring; sailboat; ship;
airplane; parachute; helicopter; satellite; rocket; flying saucer; bellhop bell; luggage = suitcase; hourglass
done = hourglass; watch; alarm clock; stopwatch; crescent moon; thermometer; sun; ringed planet = planet;
star; cloud; cloud with lightning = thunder cloud; cloud with rain = rain cloud; tornado; rainbow; umbrella;
high voltage = lightning bolt; snowflake; snowman; comet; fire = flame; droplet; water wave = wave"""
_PLAY = """jack-o-lantern = pumpkin; Christmas tree; firecracker; balloon; party popper; ribbon; wrapped gift
= gift; trophy; sports medal = medal; soccer ball; baseball; basketball; volleyball; american football; boxing
glove; flag in hole = golf flag; ice skate; diving mask; skis; sled; bullseye = target; yo-yo; kite; water
pistol; pool 8 ball; crystal ball; magic wand; video game = game controller; joystick; slot machine; game die
= dice; puzzle piece; teddy bear; mirror ball = disco ball; nesting dolls; chess pawn; framed picture; artist
palette = palette; thread; yarn; knot"""
_THINGS = """glasses; sunglasses; goggles; necktie; t-shirt; jeans; scarf; gloves; socks; dress; kimono;
one-piece swimsuit = swimsuit; shorts; handbag; backpack; thong sandal = flip flop; running shoe = sneaker;
high-heeled shoe = high heel; woman’s boot = boot; crown; woman’s hat = sun hat; top hat; graduation cap;
billed cap = baseball cap; rescue worker’s helmet = helmet; lipstick; ring; gem stone = diamond; megaphone;
bell; musical note; microphone; headphone = headphones; radio; saxophone; trumpet; accordion; guitar; musical
keyboard = piano; violin; drum; maracas; mobile phone; telephone; battery; electric plug; laptop; desktop
computer = computer; printer; computer mouse; floppy disk; optical disk = compact disc; abacus; movie camera;
clapper board; television; camera; magnifying glass tilted left = magnifying glass; candle; light bulb;
flashlight; red paper lantern = lantern; closed book = book; open book; scroll; newspaper; coin; money bag;
credit card; envelope; package = box; postbox; pencil; fountain pen; paintbrush; crayon; briefcase; file
folder = folder; clipboard; pushpin; paperclip; straight ruler = ruler; scissors; locked = padlock; key;
hammer; axe; pick = pickaxe; crossed swords; bomb; boomerang; bow and arrow; shield; carpentry saw = saw;
wrench; screwdriver; gear; balance scale; toolbox; magnet; ladder; alembic = flask; test tube; dna;
microscope; telescope; satellite antenna; syringe; pill; stethoscope; door; mirror; window; bed; chair;
toilet; bathtub; broom; basket; roll of paper; bucket; soap; toothbrush; fire extinguisher; shopping cart;
headstone = tombstone; moai"""
# Drawn for the captioner only, always answered with "an object": it has to learn to say that it does not know.
_UNKNOWN = """robot; alien; ghost; skull; nose; ear; foot; brain; tooth; bone; lungs; mermaid; ninja; pirate
flag; gorilla; thumbs up; victory hand; raised fist; handshake; clapping hands; leg; anatomical heart; eye;
speech balloon; pile of poo; clown face; ogre; alien monster; snowboarder; person surfing; peacock; red heart;
broken heart; recycling symbol; biohazard; radioactive; atom symbol; no entry; warning; infinity; plus;
wheelchair symbol; wind chime; placard; hamsa; identification card; lotion bottle; couch and lamp; elevator;
petri dish; crutch; white cane; link; outbox tray; telephone receiver; control knobs; low battery; postal
horn; prayer beads; folding hand fan; kaaba; synagogue; mountain railway; suspension railway; mantelpiece
clock; wind face; fog; hot springs; playground slide; motorway"""

GLOSSARY = {"animals": _ANIMALS, "food": _FOOD, "travel": _TRAVEL, "play": _PLAY, "things": _THINGS}
BASE_STYLES = ("glossy", "flat", "soft")  # what flux-mini learns
STYLES = (
    *BASE_STYLES,
    "ink",
    "fx",
    "retro",
)  # atlas order; ink and fx are LoRA targets, retro helps the captioner
HELD_OUT_COUNT = 24
WITHHELD_PAIRS_COUNT = 40


def entries(text: str) -> list[tuple[str, str]]:
    """`label; label = word` -> [(CLDR label, our word)], in order, without repeats."""
    found: dict[str, str] = {}
    for item in text.replace("\n", " ").split(";"):
        label, _, word = (part.strip() for part in item.partition("="))
        found.setdefault(label, word or label.lower())
    return list(found.items())


def wanted() -> list[tuple[str, str]]:
    """All (label, word) of the world, in a fixed order."""
    return [pair for group in GLOSSARY.values() for pair in entries(group)]


def unknown_labels() -> list[str]:
    """Labels of drawings that have no name in this world."""
    known = {label for label, _ in wanted()}
    return [label for label, _ in entries(_UNKNOWN) if label not in known]


def withheld_pairs(count: int) -> set[tuple[int, int]]:
    """The 40 (concept index, base style index) pairs that pretraining never shows; fixed for ever by the seed."""
    draw = random.Random(2026)
    concepts = draw.sample(range(count), WITHHELD_PAIRS_COUNT)
    return {(concept, draw.randrange(len(BASE_STYLES))) for concept in concepts}


def article(word: str) -> str:
    """'an apple', 'a cat', 'grapes': the noun phrase of a concept."""
    plural = word.endswith("s") and not word.endswith(("ss", "us", "is", "bus", "cactus"))
    if plural or word in PLAIN:
        return word
    return f"{'an' if word[0] in 'aeiou' and not word.startswith(('unicorn', 'one')) else 'a'} {word}"


PLAIN = frozenset(
    [
        "bread",
        "popcorn",
        "butter",
        "salt",
        "bacon",
        "sushi",
        "broccoli",
        "garlic",
        "corn",
        "spaghetti",
        "coral",
        "cheese",
        "yarn",
        "thread",
        "dna",
        "soap",
        "dice",
        "ping",
        "pong",
        "badminton",
        "tennis",
        "bowling",
        "canned",
        "food",
    ]
) | {"ping pong", "canned food"}
