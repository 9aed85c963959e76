"""The language of prompts in Python: pieces with weights, chunks of tokens, and what weights do to an encoding.

Written from the description of Automatic1111's and compel's behaviour, apart from the C of weft; make_prompts.py stores
what it says, and make_words.py builds on it.
"""
import re

import torch

ROOM, BACKTRACK = 75, 20
SPECIAL = re.compile(r"(\\[()\[\]\\]|\\|[()\[\]]|:\s*[+-]?[.0-9]+\s*\)|:)")
BREAK = re.compile(r"\s*\bBREAK\b\s*")


def pieces(prompt):
    """[(text, weight)], with (None, None) for a BREAK."""
    out, round_, square = [], [], []

    def times(start, by):
        for i in range(start, len(out)):
            out[i] = (out[i][0], out[i][1] * by)

    for part in SPECIAL.split(prompt):
        if part == "":
            continue
        if part[0] == "\\":
            out.append((part[1:], 1.0))
        elif part == "(":
            round_.append(len(out))
        elif part == "[":
            square.append(len(out))
        elif part == ")" and round_:
            times(round_.pop(), 1.1)
        elif part == "]" and square:
            times(square.pop(), 1 / 1.1)
        elif part[0] == ":" and part[-1] == ")" and round_:
            times(round_.pop(), float(part[1:-1]))
        else:
            for i, text in enumerate(BREAK.split(part)):
                if i > 0:
                    out.append((None, 1.0))
                out.append((text, 1.0))
    for start in round_:
        times(start, 1.1)
    for start in square:
        times(start, 1 / 1.1)
    merged = []
    for text, weight in out:
        if text is None:
            merged.append((None, None))
        elif text == "":
            continue
        elif merged and merged[-1][1] == weight:
            merged[-1] = (merged[-1][0] + text, weight)
        else:
            merged.append((text, weight))
    return merged


def tokens(tok, text, words=()):
    """Token ids; an entry of `words` (text -> list of ids) becomes its list."""
    out = []
    for t in tok(text, add_special_tokens=False)["input_ids"]:
        out.append(words.get(t, [t]) if words else [t])
    return out


def chunks(tok, parts, comma, words=()):
    """[[(id, weight)]] of at most ROOM each."""
    comma_id = tok(",", add_special_tokens=False)["input_ids"]
    comma_id = comma_id[0] if comma and len(comma_id) == 1 else None
    done, now, last = [], [], None
    for text, weight in parts:
        if text is None:
            done.append(now)
            now, last = [], None
            continue
        for group in tokens(tok, text, words):
            if group == [comma_id]:
                if len(now) == ROOM:
                    done.append(now)
                    now = []
                last = len(now)
            else:
                if len(now) == ROOM and last is not None and len(now) - last <= BACKTRACK:
                    done.append(now[:last + 1])
                    now, last = now[last + 1:], None
                if len(now) + len(group) > ROOM:
                    done.append(now)
                    now, last = [], None
            now = now + [(t, weight) for t in group]
    if now or not done:
        done.append(now)
    return done


def wrap(tok, chunk):
    """77 ids and weights."""
    ids = [tok.bos_token_id] + [t for t, _ in chunk] + [tok.eos_token_id]
    w = [1.0] + [w for _, w in chunk] + [1.0]
    n = ROOM + 2 - len(ids)
    return ids + [tok.pad_token_id] * n, w + [1.0] * n


def hidden(net, ids, skip, xl):
    """What the UNet gets of one chunk (77, d), and the pooled vector where there is one."""
    o = net(torch.tensor([ids]), output_hidden_states=True)
    if xl:
        z = o.hidden_states[-(skip + 2)]
    else:
        last = getattr(net, "text_model", net)
        z = last.final_layer_norm(o.hidden_states[-(skip + 1)])
    return z[0], getattr(o, "text_embeds", None)


def weigh(z, w, mode, empty):
    """mode: "mean", "no_mean" or "from_empty"; w (77)."""
    if all(x == 1.0 for x in w):
        return z
    w = torch.tensor(w, dtype=z.dtype)[:, None]
    if mode == "from_empty":
        return empty + w * (z - empty)
    out = z * w
    return out * (z.mean() / out.mean()) if mode == "mean" else out


def encode(pipe, prompt, weights=True, comma=False, mode="mean", skip=0, words=({}, {})):
    """Everything of one prompt: text (k 77, d), pooled or None, ids and weights for each encoder (k, 77)."""
    xl = getattr(pipe, "text_encoder_2", None) is not None
    nets = [(pipe.tokenizer, pipe.text_encoder)] + ([(pipe.tokenizer_2, pipe.text_encoder_2)] if xl else [])
    parts = pieces(prompt) if weights else [(prompt, 1.0)]
    split = [chunks(tok, parts, comma, words[i]) for i, (tok, _) in enumerate(nets)]
    k = max(len(s) for s in split)
    sides, all_ids, all_w, pooled = [], [], [], None
    for i, (tok, net) in enumerate(nets):
        wrapped = [wrap(tok, split[i][j] if j < len(split[i]) else []) for j in range(k)]
        empty, _ = hidden(net, wrap(tok, [])[0], skip, xl)
        rows = []
        for j, (ids, w) in enumerate(wrapped):
            z, p = hidden(net, ids, skip, xl)
            if j == 0 and i == len(nets) - 1:
                pooled = p
            rows.append(weigh(z, w, mode, empty))
        sides.append(torch.cat(rows))
        all_ids.append(torch.tensor([ids for ids, _ in wrapped], dtype=torch.int32))
        all_w.append(torch.tensor([w for _, w in wrapped]))
    count = max(sum(len(c) for c in s) for s in split)
    return {"text": torch.cat(sides, -1), "pooled": pooled, "ids": all_ids, "weights": all_w, "chunks": k, "tokens": count}
