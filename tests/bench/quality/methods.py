"""The methods that run.py compares: a table. Each says its options for `weft generate`, and what it needs beside the
bundled files. Adapters are the bundled model's own, at weight 1 both, if a row says nothing else, and their text-encoder
parts act alike in all rows (--text-plan all), so that a row differs from another by its method alone.

Rows of adapters that weft trains itself name files under BUILD/quality/trained, which train.sh makes."""
import os

from judge import MODEL as _MODEL

MODEL = os.path.relpath(_MODEL)
A = os.path.join(MODEL, "adapters")
FILES = {"monster": os.path.join(A, "monster.safetensors"), "rocket": os.path.join(A, "rocket"),
         "hatching": os.path.join(A, "hatching.safetensors"), "mosaic": os.path.join(A, "mosaic.safetensors")}
NOUNS = {"monster": "zib monster", "rocket": "vok rocket"}
TAILS = {"hatching": "hatched style", "mosaic": "mosaic style"}
PAIRS = [("monster", "hatching"), ("monster", "mosaic"), ("rocket", "hatching"), ("rocket", "mosaic")]
GROUNDS = ["red", "yellow", "blue", "purple"]
REFERENCE, REGION_REFERENCE = "merge", "two-sum"
TRAINED = {"dir": "build/quality/trained"}


def trained_in(folder):
    TRAINED["dir"] = folder


def trained(name):
    return os.path.join(TRAINED["dir"], name)


class Method:
    """options: pair and drawer to the options of generate, or to (options, model). nouns, tails: words in place of the
    bundled adapters'. needs: pair to the files that must be there."""

    def __init__(self, name, title, options, nouns=None, tails=None, needs=None):
        self.name, self.title, self._options, self._needs = name, title, options, needs
        self.nouns, self.tails = {**NOUNS, **(nouns or {})}, {**TAILS, **(tails or {})}

    def options(self, drawer, pair):
        o = self._options(drawer, *pair)
        return o if isinstance(o, tuple) else (o, None)

    def prompt(self, pair, ground):
        return "a large %s on a %s background, %s" % (self.nouns[pair[0]], ground, self.tails[pair[1]])

    def missing(self, drawer):
        for pair in PAIRS:
            for path in self._needs(*pair) if self._needs else []:
                if not os.path.exists(path):
                    return "%s is not there; tests/bench/quality/train.sh makes it" % path
        return None


def two(subject, style, a=1, b=1, more=()):
    """Both adapters, the subject first."""
    return ["-a", "%s:%g" % (subject, a), "-a", "%s:%g" % (style, b)] + list(more)


def composed(*options, a=1, b=1):
    """A method of plans over the bundled adapters."""
    return lambda d, s, y: two(FILES[s], FILES[y], a, b, list(options) + ["--text-plan", "all"])


def merged(*options):
    """One new adapter, made by weft merge."""
    return lambda d, s, y: ["-a", d.made(["merge", MODEL] + two(FILES[s], FILES[y]) + ["--into", "adapter"] + list(options))]


METHODS = [
    Method("base", "base model, no adapter", lambda d, s, y: []),
    Method("subject", "subject alone", lambda d, s, y: ["-a", FILES[s]]),
    Method("style", "style alone", lambda d, s, y: ["-a", FILES[y]]),
    Method("merge", "**sum**, 1 and 1", composed()),
    Method("merge-half", "sum, 0.5 and 0.5", composed(a=0.5, b=0.5)),
    Method("ties", "TIES, density 0.5", merged("--by", "ties", "--density", "0.5")),
    Method("dare", "DARE, density 0.5", merged("--by", "dare", "--density", "0.5")),
    Method("svd", "SVD of the sum, rank 8", merged("--rank", "8")),
    Method("null-space", "null space", merged("--by", "null-space")),
    Method("switch", "LoRA Switch, turns of 5", composed("--compose", "switch")),
    Method("switch-short", "LoRA Switch, turns of 1", composed("--compose", "switch", "--period", "1")),
    Method("composite", "LoRA Composite", composed("--compose", "composite")),
    Method("composite-cached", "LoRA Composite, cached", composed("--compose", "composite", "--cached")),
    Method("loratorio", "LoRAtorio", composed("--compose", "loratorio")),
    Method("subbands", "sub-band weights", composed("--compose", "subbands")),
    Method("klora-s", "K-LoRA, s", composed("--compose", "klora", "--pattern", "s")),
    Method("klora", "K-LoRA, s*", composed("--compose", "klora")),
    Method("klora-stronger", "K-LoRA, s*, style at 1.3", composed("--compose", "klora", b=1.3)),
    Method("energy", "energy score, s*", composed("--compose", "klora", "--score", "energy")),
    Method("klora-fixed", "a third subject, then style", composed("--compose", "klora", "--pattern", "fixed")),
    Method("zip", "ZipLoRA, closed form", composed("--compose", "zip")),
    Method("blora-cut", "B-LoRA's blocks of plain LoRAs", composed("--compose", "blora")),
]


# ---- adapters that weft trains (train.sh) ----------------------------------------------------------------------------
def by_weft(kind):
    """The subject's adapter of a kind, made by weft, with the bundled style: the exact sum."""
    return lambda d, s, y: two(trained("%s-%s.safetensors" % (kind, s)), FILES[y])


def needs(*patterns):
    return lambda s, y: [trained(p.format(s=s, y=y) + ".safetensors") for p in patterns]


def concept(name, weight=1):
    """Custom Diffusion's two files: keys and values, and the word."""
    return [trained("custom-%s.safetensors:%g" % (name, weight)), "--second", trained("custom-%s.words.safetensors" % name)]


def concepts(d, s, y):
    return ["-c"] + concept(s) + ["-c"] + concept(y)


def fused_concepts(d, s, y):
    """Custom Diffusion's merge in closed form: one adapter, and the two files' words at weight 0."""
    called = {s: "<%s> shape" % WORDS[s], y: "<%s> style" % WORDS[y]}
    args = ["fuse", MODEL, "--by", "constrained", "--captions", CAPTIONS]
    for n in (s, y):
        args += ["--concept"] + concept(n) + ["--called", called[n]]
    return ["-c"] + concept(s, 0) + ["-c"] + concept(y, 0) + ["-a", d.made(args)]


CAPTIONS = os.path.join(os.path.relpath(os.path.dirname(os.path.abspath(__file__))), "captions.txt")
WORDS = {"monster": "zib", "rocket": "vok", "hatching": "hat", "mosaic": "mos"}
WORD = {s: "<%s>" % WORDS[s] for s in NOUNS}
MODIFIER = {s: "<%s> shape" % WORDS[s] for s in NOUNS}
PAIR_WORDS = {s: "<%s1> <%s2>" % (WORDS[s], WORDS[s]) for s in NOUNS}
STYLE_WORD = {y: "<%s> style" % WORDS[y] for y in TAILS}

METHODS += [
    Method("zip-trained", "ZipLoRA, trained", lambda d, s, y: two(FILES[s], FILES[y], more=[
        "--compose", "zip", "--coefficients", trained("zip-%s-%s.safetensors" % (s, y)), "--text-plan", "all"]), needs=needs("zip-{s}-{y}")),
    Method("blora", "B-LoRA, trained", lambda d, s, y: two(trained("blora-%s.safetensors" % s), trained("blora-%s.safetensors" % y),
                                                           more=["--compose", "blora"]), needs=needs("blora-{s}", "blora-{y}")),
    Method("lora-both", "sum of two LoRAs by weft", lambda d, s, y: two(trained("lora-%s.safetensors" % s), trained("lora-%s.safetensors" % y)),
           needs=needs("lora-{s}", "lora-{y}")),
    Method("lora", "LoRA by weft + style", by_weft("lora"), needs=needs("lora-{s}")),
    Method("moslora", "MoSLoRA + style", by_weft("moslora"), needs=needs("moslora-{s}")),
    Method("dora", "DoRA + style", by_weft("dora"), needs=needs("dora-{s}")),
    Method("loha", "LoHa + style", by_weft("loha"), needs=needs("loha-{s}")),
    Method("lokr", "LoKr + style", by_weft("lokr"), needs=needs("lokr-{s}")),
    Method("dreambooth", "DreamBooth + style", by_weft("dreambooth"), needs=needs("dreambooth-{s}")),
    Method("ti", "Textual Inversion + style", lambda d, s, y: ["-c", trained("ti-%s.safetensors" % s), "-a", FILES[y]],
           nouns=WORD, needs=needs("ti-{s}")),
    Method("ed", "ED-LoRA + style", lambda d, s, y: ["-c", trained("ed-%s.safetensors" % s), "-a", FILES[y]],
           nouns=PAIR_WORDS, needs=needs("ed-{s}")),
    Method("custom-style", "Custom Diffusion + style", lambda d, s, y: ["-c"] + concept(s) + ["-a", FILES[y]],
           nouns=MODIFIER, needs=needs("custom-{s}")),
    Method("custom-sum", "Custom Diffusion, summed", concepts, nouns=MODIFIER, tails=STYLE_WORD, needs=needs("custom-{s}", "custom-{y}")),
    Method("custom-merge", "Custom Diffusion, merged", fused_concepts, nouns=MODIFIER, tails=STYLE_WORD, needs=needs("custom-{s}", "custom-{y}")),
]


# Two subjects in an image of twice the width, each with its half.
MASKS = os.path.join(os.path.relpath(os.path.join(_MODEL, "..")), "gallery")


class Region(Method):
    def prompt(self, pair, ground):
        return self.words % ground if "%s" in self.words else self.words

    def options(self, drawer, ground):
        return self._options(ground), None


def region(name, title, words, *options, regions=True):
    def make(ground):
        left = ["--region", "%s:a large zib monster on a %s background" % (os.path.join(MASKS, "left.png"), ground)]
        right = ["--region", "%s:a large vok rocket on a %s background" % (os.path.join(MASKS, "right.png"), ground)]
        return (["--size", "128x64", "-a", FILES["monster"]] + (left if regions else []) + ["-a", FILES["rocket"]] +
                (right if regions else []) + list(options))
    m = Region(name, title, make)
    m.words = words
    return m


REGIONS = [
    region("two-sum", "**sum**, no regions", "a large zib monster at the left and a large vok rocket at the right on a %s background", regions=False),
    region("two-masks", "regions in one pass", "a %s background"),
    region("two-isolated", "the same, isolated", "a %s background", "--isolate"),
    region("two-blend", "blended predictions", "a %s background", "--compose", "blend"),
    region("two-blend-merge", "blended 30 %, then one pass", "a %s background", "--compose", "blend", "--phase", "0.3", "--compose", "merge"),
]
