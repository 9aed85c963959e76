/* sha256.c - SHA-256 (FIPS 180-4): what a file is known by in a plan that is saved.
 *
 * wf_hash() is keyed and 64 bits wide, for tables in memory. What is written down must be the same
 * everywhere, hold against malice, and be what other tools print: sha256sum, and the pages that
 * adapters are downloaded from. No library that weft needs anyway has it. */
#include "base/base.h"

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotr(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

static void block(uint32_t h[8], const uint8_t *p)
{
    uint32_t w[64], v[8];

    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 |
               (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + (rotr(a, 7) ^ rotr(a, 18) ^ a >> 3) + w[i - 7] +
               (rotr(b, 17) ^ rotr(b, 19) ^ b >> 10);
    }
    memcpy(v, h, sizeof v);
    for (int i = 0; i < 64; i++) {
        uint32_t t = v[7] + (rotr(v[4], 6) ^ rotr(v[4], 11) ^ rotr(v[4], 25)) +
                     ((v[4] & v[5]) ^ (~v[4] & v[6])) + K[i] + w[i];
        uint32_t u = (rotr(v[0], 2) ^ rotr(v[0], 13) ^ rotr(v[0], 22)) +
                     ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += t;
        v[0] = t + u;
    }
    for (int i = 0; i < 8; i++) h[i] += v[i];
}

void wf_sha256_init(wf_sha256 *s)
{
    static const uint32_t begin[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                       0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
    memcpy(s->h, begin, sizeof begin);
    s->bytes = 0;
}

void wf_sha256_add(wf_sha256 *s, const void *data, size_t n)
{
    const uint8_t *p = data;

    while (n > 0) {
        size_t used = s->bytes % sizeof s->rest, some = WF_MIN(n, sizeof s->rest - used);
        s->bytes += some;
        n -= some;
        if (some == sizeof s->rest) {
            block(s->h, p);
        } else {
            memcpy(s->rest + used, p, some);
            if (used + some == sizeof s->rest) block(s->h, s->rest);
        }
        p += some;
    }
}

void wf_sha256_end(wf_sha256 *s, wf_sha256_text *out)
{
    static const char hex[] = "0123456789abcdef";
    uint64_t          bits = s->bytes * 8;
    uint8_t           length[8];

    for (int i = 0; i < 8; i++) length[i] = (uint8_t)(bits >> (56 - 8 * i));
    wf_sha256_add(s, "\x80", 1);
    while (s->bytes % sizeof s->rest != 56) wf_sha256_add(s, "", 1);
    wf_sha256_add(s, length, sizeof length);
    for (int i = 0; i < 64; i++) out->text[i] = hex[s->h[i / 8] >> (28 - 4 * (i % 8)) & 15];
    out->text[64] = '\0';
}
