/* hash.c - SipHash-1-3 (Aumasson and Bernstein 2012): one round for each word and three at the end.
 *
 * Names come from files. A file could be made of names that all collide under a known hash, and
 * opening it would take time in the square of its size. The maker of a file cannot know our key.
 * The hash is quick enough for whole tensors, so there is no second one. */
#include "base/base.h"

static uint64_t rotl(uint64_t x, int n)
{
    return x << n | x >> (64 - n);
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1]; v[1] = rotl(v[1], 13); v[1] ^= v[0]; v[0] = rotl(v[0], 32);
    v[2] += v[3]; v[3] = rotl(v[3], 16); v[3] ^= v[2];
    v[0] += v[3]; v[3] = rotl(v[3], 21); v[3] ^= v[0];
    v[2] += v[1]; v[1] = rotl(v[1], 17); v[1] ^= v[2]; v[2] = rotl(v[2], 32);
}

uint64_t wf_hash(uint64_t key, const void *data, size_t n)
{
    uint64_t v[4] = { key ^ 0x736f6d6570736575u, ~key ^ 0x646f72616e646f6du,
                      key ^ 0x6c7967656e657261u, ~key ^ 0x7465646279746573u };
    const uint8_t *s = data;
    size_t         left = n;

    for (;; s += 8, left -= 8) {
        uint64_t word = 0;

        if (left > 0) memcpy(&word, s, WF_MIN(left, 8));
        if (left < 8) word |= (uint64_t)n << 56; /* the last word carries the length */
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
        if (left < 8) break;
    }
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++) sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}
