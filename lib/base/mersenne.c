/* mersenne.c - the engine behind torch's CPU generator: MT19937, Matsumoto and Nishimura (1998).
 *
 * Noise is drawn from it, and so is what some adapters' files leave out because a seed gives it. */
#include "base/base.h"

#define SHIFT 397

void wf_mersenne_seed(wf_mersenne *g, uint64_t seed)
{
    g->state[0] = (uint32_t)seed;
    for (uint32_t j = 1; j < WF_MERSENNE_WORDS; j++)
        g->state[j] = 1812433253u * (g->state[j - 1] ^ (g->state[j - 1] >> 30)) + j;
    g->used = WF_MERSENNE_WORDS;
}

/* Make the next 624 words. */
static void refill(wf_mersenne *g)
{
    for (int32_t j = 0; j < WF_MERSENNE_WORDS; j++) {
        uint32_t mixed = (g->state[j] & 0x80000000u) |
                         (g->state[(j + 1) % WF_MERSENNE_WORDS] & 0x7fffffffu);
        uint32_t twist = (mixed & 1) ? 0x9908b0dfu : 0;

        g->state[j] = g->state[(j + SHIFT) % WF_MERSENNE_WORDS] ^ (mixed >> 1) ^ twist;
    }
    g->used = 0;
}

uint32_t wf_mersenne_next(wf_mersenne *g)
{
    uint32_t y;

    if (g->used == WF_MERSENNE_WORDS) refill(g);
    y = g->state[g->used++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

float wf_mersenne_uniform(wf_mersenne *g)
{
    return (float)(wf_mersenne_next(g) & 0xffffffu) * 0x1p-24f;
}
