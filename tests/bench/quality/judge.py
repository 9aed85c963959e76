"""The judge: a small network that says what a picture of the drawn world shows.

    python judge.py data BUILD         draw 17000 pictures into BUILD/judge-*.npz
    python judge.py train BUILD [more] train on them; writes judge.safetensors beside this file. more: go on from it
    python judge.py test               accuracy of each head on pictures that it never saw, as a table

One trunk of 100 thousand weights and six heads: subject (8 shapes, monster, rocket, and "other"), style (plain, hatching, mosaic), ground, the
colour of a shape, size and place.  "Other" is what a bad picture shows: nothing, a blob, a monster's body without a face,
two subjects drawn over each other.  Without it a network that must choose would call every teal blob a monster.

The judge sees pictures that a diffusion model drew, so it learns from pictures that went where such pictures come from:
through the bundled VAE and back, or through the VAE, some noise, and one prediction of the base model, which blurs as that
model does.  Then small shifts, gains, blur and noise at every epoch anew.  A style that is faint, or only on the ground, is
labelled with its share, so that it is a low score and not a coin that falls on one side.

The committed weights come from 20 epochs on the first of PARTS, when faint styles were labelled with their contrast and small
things were asked for whatever noise went over them, and from "more" on all parts as they are now.

All is drawn from world.py; held-out pictures come from another seed and go the same way.
"""
import json
import math
import os
import random
import sys
import time

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.abspath(os.path.join(HERE, "..", "..", ".."))
sys.path.insert(0, os.path.join(ROOT, "tests", "reference", "bundled"))
import world  # noqa: E402

MODEL = os.path.join(ROOT, "examples", "model")
WEIGHTS = os.path.join(HERE, "judge.safetensors")
SUBJECTS = world.SHAPES + ["monster", "rocket", "other"]
STYLES = ["plain", "hatching", "mosaic"]
GROUNDS = list(world.COLOURS) + ["stripes", "checks"] + world.SCENES
COLOURS = list(world.COLOURS)
SIZES = ["small", "medium", "large"]
PLACES = list(world.POSITIONS)
HEADS = {"subject": len(SUBJECTS), "style": len(STYLES), "ground": len(GROUNDS), "colour": len(COLOURS),
         "size": len(SIZES), "place": len(PLACES)}
HATCH = {"pitch": 8 * math.cos(math.pi / 4), "angle": 45.0}       # as train_lora.py has it
NONE = -1                       # a label that says: this head is not asked
SEED = 61
PARTS = [("train", 61, 12000, False), ("test", 62, 2000, False), ("train", 63, 2500, True), ("test", 64, 500, True)]
EPOCHS, MORE, BATCH = 20, 4, 64


# ------------------------------------------------------------------------------------------------------------ pictures
def blob(cx, cy, r, rng):
    """A round thing of no name, of any colour, those of the subjects among them."""
    from PIL import Image, ImageDraw
    im = Image.new("RGBA", (world.W, world.W), (0, 0, 0, 0))
    d = ImageDraw.Draw(im)
    c = rng.choice([(52, 188, 168), (226, 228, 236), (206, 42, 52), world.random_colour(rng), world.random_colour(rng)])
    c = world.jitter(c, rng, 25)
    kind = rng.random()
    if kind < 0.35:             # a monster's body: perhaps horns and feet, never a face
        if rng.random() < 0.6:
            for s in (-1, 1):
                d.polygon([(cx + s * 0.35 * r, cy - 0.7 * r), (cx + s * 0.75 * r, cy - 0.55 * r),
                           (cx + s * 0.85 * r, cy - 1.3 * r)], fill=(250, 205, 70))
                d.ellipse((cx + s * 0.45 * r - 0.32 * r, cy + 0.72 * r, cx + s * 0.45 * r + 0.32 * r, cy + 1.12 * r),
                          fill=world.mix(c, (0, 0, 0), 0.45))
        c = world.jitter((52, 188, 168), rng, 25)
        d.ellipse((cx - 0.95 * r, cy - 0.9 * r, cx + 0.95 * r, cy + 0.95 * r), fill=c)
    elif kind < 0.55:           # a rocket's body alone, upright or lying
        w, h = (0.42 * r, 0.8 * r) if rng.random() < 0.6 else (0.8 * r, 0.42 * r)
        d.rectangle((cx - w, cy - h, cx + w, cy + h), fill=world.jitter((226, 228, 236), rng, 20))
        if rng.random() < 0.4:
            d.ellipse((cx - 0.3 * r, cy - 0.3 * r, cx + 0.3 * r, cy + 0.3 * r), fill=world.jitter((206, 42, 52), rng, 20))
    else:                       # a radius that wanders
        n, k = 24, [rng.uniform(0.55, 1.15) for _ in range(rng.randint(3, 6))]
        ring = []
        for i in range(n):
            a = i / n * len(k)
            q = k[int(a)] * (1 - a % 1) + k[(int(a) + 1) % len(k)] * (a % 1)
            ring.append((cx + q * r * np.cos(2 * np.pi * i / n), cy + q * r * np.sin(2 * np.pi * i / n)))
        d.polygon(ring, fill=c)
        if rng.random() < 0.4:
            x, y, q = cx + rng.uniform(-0.4, 0.4) * r, cy + rng.uniform(-0.4, 0.4) * r, rng.uniform(0.1, 0.4) * r
            d.ellipse((x - q, y - q, x + q, y + q), fill=world.random_colour(rng))
    return im


def styled(a, mask, style, rng, varied):
    """The picture of a (full size, float) in a style and how much of the style is seen, 0 to 1.  Most are as the adapters'
    pictures were made.  Some are fainter: from half the contrast on it is the style, to the eye too; below, its share.  The
    varied ones have other strokes and tiles too, and some have the style on the ground alone, or on the object alone: half."""
    if style == "plain":
        return a, 1.0
    if style == "hatching":
        h = dict(HATCH)
        h["pitch"] *= rng.uniform(0.97, 1.03)
        if varied:
            h["duty"] = rng.uniform(0.35, 0.6)
        b = world.style_hatching(a, mask, **h)
        if varied and rng.random() < 0.25:      # strokes without the dark outline
            e = world.outline(mask)
            b[e] = a[e]
    else:
        b = world.style_mosaic(a, mask, rng, **({"spread": rng.uniform(0.08, 0.22), "width": rng.uniform(1.0, 1.6)} if varied else {}))
    if rng.random() < 0.25:
        share = rng.uniform(0.1, 0.9)
        return a + share * (b - a), min(1.0, share / 0.5)
    if varied and mask.max() > 0 and rng.random() < 0.3:
        m = mask[..., None] if rng.random() < 0.6 else 1 - mask[..., None]
        return a * m + b * (1 - m), 0.5
    return b, 1.0


def reduce(a):
    a = a.reshape(world.SIZE, world.SS, world.SIZE, world.SS, 3).mean((1, 3))
    return np.clip(np.round(a), 0, 255).astype(np.uint8)


def picture(rng, varied):
    """A picture, its labels (one for each head), its share of style, and a caption."""
    from PIL import Image
    spec = world.random_spec(rng)
    if varied and spec["bg"][0] != "plain":
        spec["bg"] = ("plain", rng.choice([c for c in COLOURS if c != spec["colour"]]))
    q = rng.random()
    subject = "monster" if q < 0.22 else "rocket" if q < 0.44 else "other" if q < 0.62 else spec["shape"]
    if subject in ("monster", "rocket"):
        spec["size"] = rng.choice(["large", "large", "medium", "medium", "small"])
    style = rng.choice(STYLES)
    im = Image.new("RGB", (world.W, world.W))
    world.draw_background(im, spec["bg"], rng)
    cx, cy, r = world.place(spec, rng)
    mask = Image.new("L", (world.W, world.W), 0)
    caption = world.caption(spec, rng)
    if subject == "monster":
        s = world.draw_monster(cx, cy, r * 0.95, rng, body=world.jitter((52, 188, 168), rng, 15))
    elif subject == "rocket":
        s = world.draw_rocket(cx, cy, r * 0.95, rng, body=world.jitter((226, 228, 236), rng, 12))
    elif subject == "other":
        q = rng.random()
        if q < 0.15:
            s = Image.new("RGBA", (world.W, world.W), (0, 0, 0, 0))
        elif q < 0.4:           # two subjects on one place, each half seen
            s = Image.blend(world.draw_monster(cx, cy, r * 0.95, rng), world.draw_rocket(cx, cy, r * 0.95, rng),
                            rng.uniform(0.4, 0.6))
        else:
            s = blob(cx, cy, r * 0.95, rng)
    else:
        mask = world.shape_mask(subject, cx, cy, r, np.radians(rng.uniform(-7, 7)))
        im.paste(world.jitter(world.COLOURS[spec["colour"]], rng), (0, 0), mask)
        s = None
    if s is not None:
        mask = s.getchannel("A")
        im.paste(s, (0, 0), s)
        noun = {"monster": "zib monster", "rocket": "vok rocket", "other": "shape"}[subject]
        caption = world.caption(spec, rng, noun=noun)
    b, share = styled(np.asarray(im, np.float32), np.asarray(mask, np.float32) / 255, style, rng, varied)
    there = subject != "other"
    kind, name = spec["bg"]
    labels = [SUBJECTS.index(subject), STYLES.index(style), GROUNDS.index(name if kind == "plain" else kind),
              COLOURS.index(spec["colour"]) if there and s is None else NONE,
              SIZES.index(spec["size"]) if there else NONE, PLACES.index(spec["pos"]) if there else NONE]
    return reduce(b), labels, share, caption


def vanish(labels, t):
    """A small thing that much noise went over is seen by nobody: not asked for."""
    return [NONE] + labels[1:3] + [NONE] * 3 if labels[4] == SIZES.index("small") and t > 80 else labels


def drawn(seed, count, varied):
    """The pictures of a seed, blurred as the model blurs: uint8 (n,64,64,3), labels (n,6), shares (n)."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer
    rng, g = random.Random(seed), torch.Generator().manual_seed(seed)
    part = lambda cls, name: cls.from_pretrained(MODEL, subfolder=name)
    vae, unet, text = part(AutoencoderKL, "vae"), part(UNet2DConditionModel, "unet"), part(CLIPTextModel, "text_encoder")
    for m in (vae, unet, text):
        m.float().eval().requires_grad_(False)
    tok, abar = part(CLIPTokenizer, "tokenizer"), part(DDIMScheduler, "scheduler").alphas_cumprod
    scale, out, labels, shares, t0 = vae.config.scaling_factor, [], [], [], time.time()
    while len(shares) < count:
        some = [picture(rng, varied) for _ in range(min(50, count - len(shares)))]
        shares += [p[2] for p in some]
        x = torch.from_numpy(np.stack([p[0] for p in some])).permute(0, 3, 1, 2).float() / 127.5 - 1
        n = len(some)
        with torch.no_grad():
            z = vae.encode(x).latent_dist.sample(generator=g) * scale
            k = n // 2          # half of them: noise, and one prediction
            t = torch.randint(20, 260, (k,), generator=g)
            a, e = abar[t].view(-1, 1, 1, 1), torch.randn(z[:k].shape, generator=g)
            ids = tok([p[3] for p in some[:k]], padding="max_length", truncation=True, max_length=77, return_tensors="pt").input_ids
            noisy = a.sqrt() * z[:k] + (1 - a).sqrt() * e
            z[:k] = (noisy - (1 - a).sqrt() * unet(noisy, t, text(ids).last_hidden_state).sample) / a.sqrt()
            y = vae.decode(z / scale).sample
            y[-(n // 8):] = x[-(n // 8):]                 # and a few as they were drawn
        labels += [vanish(p[1], t[i] if i < k else 0) for i, p in enumerate(some)]
        out.append(((y.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy())
        if len(shares) % 1000 < 50:
            print("judge: %d of %d pictures, %.0f s" % (len(shares), count, time.time() - t0), flush=True)
    return np.concatenate(out), np.array(labels, np.int64), np.array(shares, np.float32)


def load_or_draw(build):
    """The pictures: {train, test}: (pictures, labels, shares), drawn part by part where they are not there."""
    os.makedirs(build, exist_ok=True)
    parts = {}
    for name, seed, count, varied in PARTS:
        path = os.path.join(build, "judge-%d.npz" % seed)
        if not os.path.exists(path):
            x, y, s = drawn(seed, count, varied)
            np.savez(path + ".new.npz", x=x, y=y, s=s)
            os.replace(path + ".new.npz", path)
        d = np.load(path)
        parts.setdefault(name, []).append((d["x"], d["y"], d["s"]))
    return {k: tuple(np.concatenate([p[i] for p in v]) for i in range(3)) for k, v in parts.items()}


# ------------------------------------------------------------------------------------------------------------- network
def network():
    import torch
    import torch.nn as nn

    def conv(i, o, stride=1, kernel=3):
        return [nn.Conv2d(i, o, kernel, stride, kernel // 2), nn.GroupNorm(4, o), nn.SiLU()]
    net = nn.ModuleDict({
        "trunk": nn.Sequential(*conv(3, 24, 2, 5), *conv(24, 32, 2), *conv(32, 40), *conv(40, 48, 2), *conv(48, 48), *conv(48, 48, 2),
                               nn.Flatten()),
        "heads": nn.ModuleDict({k: nn.Linear(48 * 16, n) for k, n in HEADS.items()})})
    return net.to(memory_format=torch.channels_last)


def forward(net, x):
    import torch
    h = net["trunk"](x.contiguous(memory_format=torch.channels_last))
    return {k: head(h) for k, head in net["heads"].items()}


def to_input(pictures):
    import torch
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def disturb(x, g):
    """Shifts of two pixels at most, gains, blur, noise: anew for every batch."""
    import torch
    import torch.nn.functional as F
    n = len(x)
    x = F.pad(x, (2, 2, 2, 2), mode="replicate")
    dx, dy = torch.randint(0, 5, (n,), generator=g), torch.randint(0, 5, (n,), generator=g)
    x = torch.stack([p[:, b:b + 64, a:a + 64] for p, a, b in zip(x, dx.tolist(), dy.tolist())])
    w = torch.rand(n, 1, 1, 1, generator=g) * 0.6 * (torch.rand(n, 1, 1, 1, generator=g) < 0.5)
    x = (1 - w) * x + w * F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = x * (1 + 0.06 * torch.randn(n, 3, 1, 1, generator=g)) + 0.04 * torch.randn(n, 3, 1, 1, generator=g)
    return (x + 0.06 * torch.rand(n, 1, 1, 1, generator=g) * torch.randn(x.shape, generator=g)).clamp(-1, 1)


def loss_of(out, y, share):
    import torch
    import torch.nn.functional as F
    total = 0
    for i, k in enumerate(HEADS):
        if k == "style":
            want = F.one_hot(y[:, i], HEADS[k]).float() * share[:, None]
            want[:, 0] += 1 - share
            total = total + 1.5 * F.cross_entropy(out[k], want)
        else:
            weight = {"subject": 2.0}.get(k, 0.5)
            total = total + weight * F.cross_entropy(out[k], y[:, i], ignore_index=NONE)
    return total if isinstance(total, torch.Tensor) else torch.tensor(0.0)


def accuracy(net, x, y, share):
    """Share of right answers of each head, and all answers. Of subjects also where they are what methods.py asks for."""
    import torch
    res = {}
    with torch.no_grad():
        parts = [forward(net, to_input(x[i:i + 200])) for i in range(0, len(x), 200)]
    out = {k: torch.cat([p[k] for p in parts]).argmax(1).numpy() for k in HEADS}
    right = {k: out[k] == y[:, i] for i, k in enumerate(HEADS)}
    size, plain, subject = y[:, 4], y[:, 2] < len(COLOURS), y[:, 0]
    new = (subject == SUBJECTS.index("monster")) | (subject == SUBJECTS.index("rocket"))
    called = (out["subject"] == SUBJECTS.index("monster")) | (out["subject"] == SUBJECTS.index("rocket"))
    asked = (size > 0) & plain & (subject != NONE)
    res["subject: monster and rocket, medium or large, plain ground"] = right["subject"][asked & new].mean()
    res["subject: all ten, medium or large, plain ground"] = right["subject"][asked].mean()
    res["subject: what is called a monster or a rocket, plain ground"] = right["subject"][called & plain & (subject != NONE)].mean()
    res["subject: everything, small ones, blobs and busy grounds among it"] = right["subject"][y[:, 0] != NONE].mean()
    res["style"] = right["style"][share == 1].mean()
    for i, k in enumerate(HEADS):
        if k not in ("subject", "style"):
            res[k] = right[k][y[:, i] != NONE].mean()
    return {k: float(v) for k, v in res.items()}, out


def train(build, more):
    import torch
    torch.manual_seed(SEED)
    d = load_or_draw(build)
    x, y, s = d["train"][0], torch.from_numpy(d["train"][1]), torch.from_numpy(d["train"][2])
    net, g = network(), torch.Generator().manual_seed(SEED)
    epochs = MORE if more else EPOCHS
    if more:
        net.load_state_dict(Judge().net.state_dict())
    steps = epochs * (len(x) // BATCH)
    torch.set_num_threads(int(os.environ.get("THREADS", "1")))
    opt = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=1e-2)
    plan = torch.optim.lr_scheduler.OneCycleLR(opt, 2e-3 if more else 4e-3, total_steps=steps, pct_start=0.1)
    t0 = time.time()
    for e in range(epochs):
        order, mean = torch.randperm(len(x), generator=g), 0.0
        for b in range(len(x) // BATCH):
            i = order[b * BATCH:(b + 1) * BATCH]
            loss = loss_of(forward(net, disturb(to_input(x[i.numpy()]), g)), y[i], s[i])
            opt.zero_grad(set_to_none=True)
            loss.backward()
            opt.step()
            plan.step()
            mean += float(loss.detach())
        print("judge: epoch %d, loss %.4f, %.0f s" % (e + 1, mean / (len(x) // BATCH), time.time() - t0), flush=True)
    net.half().float()                                   # what is measured is what is written
    res, _ = accuracy(net, *d["test"])
    write(net, res)


def write(net, res):
    from safetensors.torch import save_file
    save_file({k: v.half().contiguous() for k, v in net.state_dict().items()}, WEIGHTS,
              metadata={"held_out": json.dumps({k: round(v, 4) for k, v in res.items()}), "seed": str(SEED)})
    for k, v in res.items():
        print("%-66s %.2f %%" % (k, 100 * v))


class Judge:
    """Probabilities of every head for uint8 pictures (n,64,64,3)."""

    def __init__(self):
        import torch
        from safetensors import safe_open
        from safetensors.torch import load_file
        torch.set_num_threads(1)
        self.net = network()
        self.net.load_state_dict({k: v.float() for k, v in load_file(WEIGHTS).items()})
        with safe_open(WEIGHTS, "pt") as f:
            self.held_out = json.loads(f.metadata()["held_out"])

    def __call__(self, pictures):
        import torch
        with torch.no_grad():
            parts = [forward(self.net, to_input(pictures[i:i + 200])) for i in range(0, len(pictures), 200)]
        return {k: torch.cat([p[k] for p in parts]).softmax(1).numpy() for k in HEADS}


def main():
    what = sys.argv[1] if len(sys.argv) > 1 else ""
    build = sys.argv[2] if len(sys.argv) > 2 else os.path.join(ROOT, "build", "quality")
    if what == "data":
        load_or_draw(build)
    elif what == "train":
        train(build, "more" in sys.argv[3:])
    elif what == "test":
        d = load_or_draw(build)
        x, y, share = d["test"]
        res, out = accuracy(Judge().net, x, y, share)
        for k, v in res.items():
            print("%-66s %.2f %%" % (k, 100 * v))
        for a in range(len(SUBJECTS)):
            on = y[:, 0] == a
            wrong = [SUBJECTS[b] for b in out["subject"][on] if b != a]
            print("%-9s %4d pictures, taken for: %s" % (SUBJECTS[a], on.sum(), ", ".join(
                "%s %d" % (w, wrong.count(w)) for w in sorted(set(wrong))) or "-"))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
