/* A config.json of any bytes is refused in one line, or gives a network's configuration within its bounds; a network
 * built from that over a file without its tensors fails in one line and keeps nothing. */
#include "fuzz.h"
#include "nets/config.h"

static size_t alive;

static void *take(void *user, size_t size, size_t align)
{
    void *p = aligned_alloc(align, (size + align - 1) / align * align);
    (void)user;
    if (p != NULL) alive++;
    return p;
}

static void give(void *user, void *p, size_t size)
{
    (void)user, (void)size;
    alive--;
    free(p);
}

static const weft_allocator counting = { take, give, NULL };

/* The first tensors of the tiny models, so that building goes some way; zeros behind the header. */
static const char begin[] =
    "{\"time_embedding.linear_1.weight\":{\"dtype\":\"F32\",\"shape\":[32,8],\"data_offsets\":[0,1024]},"
    "\"time_embedding.linear_1.bias\":{\"dtype\":\"F16\",\"shape\":[32],\"data_offsets\":[1024,1088]},"
    "\"time_embedding.linear_2.weight\":{\"dtype\":\"BF16\",\"shape\":[32,32],\"data_offsets\":[1088,3136]},"
    "\"time_embedding.linear_2.bias\":{\"dtype\":\"F32\",\"shape\":[32],\"data_offsets\":[3136,3264]},"
    "\"conv_in.weight\":{\"dtype\":\"F32\",\"shape\":[8,4,3,3],\"data_offsets\":[3264,4416]},"
    "\"conv_in.bias\":{\"dtype\":\"F32\",\"shape\":[8],\"data_offsets\":[4416,4448]},"
    "\"down_blocks.0.resnets.0.norm1.weight\":{\"dtype\":\"F32\",\"shape\":[8],\"data_offsets\":[4448,4480]},"
    "\"down_blocks.0.resnets.0.norm1.bias\":{\"dtype\":\"I32\",\"shape\":[8],\"data_offsets\":[4480,4512]},"
    "\"text_model.embeddings.token_embedding.weight\":{\"dtype\":\"F16\",\"shape\":[3,1],\"data_offsets\":[4512,4518]},"
    "\"encoder.conv_in.weight\":{\"dtype\":\"F16\",\"shape\":[8,3,3,3],\"data_offsets\":[4518,4950]},"
    "\"encoder.conv_in.bias\":{\"dtype\":\"F32\",\"shape\":[8],\"data_offsets\":[4950,4982]}}";

static weft_tensors *open_file(bool empty)
{
    static uint8_t bytes[8 + sizeof begin + 4982];
    weft_tensors *t;
    const char *header = empty ? "{}" : begin;
    uint64_t n = strlen(header);
    size_t size = 8 + (size_t)n + (empty ? 0 : 4982);

    memcpy(bytes, &n, 8);
    memcpy(bytes + 8, header, (size_t)n);
    must(wf_tensors_parse(bytes, size, "fuzz", &counting, &t, NULL) == WEFT_OK);
    return t;
}

typedef struct configs {
    wf_unet_config unet;
    wf_clip_config clip;
    wf_vae_config  vae;
} configs;

enum { UNET, CLIP, VAE };

/* Every dimension is bounded, so that no product of two that a network takes leaves an int32_t. */
static void check_unet(const wf_unet_config *c)
{
    must(c->levels >= 1 && c->levels <= WF_LEVELS && c->groups >= 1 && c->eps >= 0 && c->eps <= 1);
    must(c->in_channels >= 1 && c->in_channels >= c->out_channels && c->out_channels >= 1 && c->sample_size >= 1);
    for (int32_t i = 0; i < c->levels; i++) {
        must(c->channels[i] >= 1 && c->channels[i] <= INT32_MAX / 8 && c->layers[i] >= 1 && c->layers[i] <= 16);
        must(c->heads[i] >= 1 && c->cross_dim[i] == c->cross_dim[0]);
        for (int32_t j = 0; j < WF_LAYERS; j++)
            must(c->down_depth[i][j] >= 0 && c->down_depth[i][j] <= 64 && c->up_depth[i][j] >= 0 &&
                 c->up_depth[i][j] <= 64);
    }
    must(c->time_dim >= 1 && c->time_dim <= 4 << 16 && (c->in_kernel == 1 || c->in_kernel == 3) &&
         (c->out_kernel == 1 || c->out_kernel == 3) && c->mid_scale > 0 && c->mid_depth <= 64);
    must(!c->text_time || (c->pooled_dim >= 1 && c->pooled_dim + c->time_ids * c->time_id_dim == c->added_dim));
}

static void build(const configs *c, int which, bool empty)
{
    weft_tensors *file = open_file(empty);
    size_t count = wf_tensors_count(file), layers = 0;
    weft_error err = { 0, 0, "" };
    weft_status st;
    wf_denoiser *unet = NULL;
    wf_clip *clip = NULL;
    wf_vae *vae = NULL;
    wf_derived derived = { .alloc = &counting };
    wf_bag names;
    wf_bag_init(&names, &counting);
    wf_binder b = { .alloc = &counting, .file = file, .path = "fuzz", .component = "x", .layer_count = &layers,
                    .layer_cap = count, .derived = &derived, .names = &names,
                    .layers = wf_zalloc(&counting, count, sizeof(wf_layer)), .used = wf_zalloc(&counting, count, 1) };

    if (which == UNET) st = wf_unet_build(&c->unet, &b, &unet, &err);
    else if (which == CLIP) st = wf_clip_build(&c->clip, &b, &clip, &err);
    else st = wf_vae_build(&c->vae, &b, &vae, &err);
    must(st == WEFT_E_FORMAT || st == WEFT_E_UNSUPPORTED);
    must(unet == NULL && clip == NULL && vae == NULL && err.code == st && one_line(err.text));
    wf_derived_free(&derived);
    wf_bag_free(&names);
    wf_free(&counting, b.layers);
    wf_free(&counting, b.used);
    weft_tensors_free(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    weft_error err = { 0, 0, "" };
    configs c;
    json_t *json;

    if (wf_json_parse(&json, (const char *)data, size, "fuzz", &err) != WEFT_OK) return 0;
    for (int which = UNET; which <= VAE; which++) {
        weft_status st = which == UNET   ? wf_config_unet(&c.unet, json, "fuzz", &err)
                         : which == CLIP ? wf_config_clip(&c.clip, json, size % 2 == 0, "fuzz", &err)
                                         : wf_config_vae(&c.vae, json, "fuzz", &err);
        if (st != WEFT_OK) {
            must((st == WEFT_E_FORMAT || st == WEFT_E_UNSUPPORTED) && err.code == st && one_line(err.text));
            continue;
        }
        if (which == UNET) check_unet(&c.unet);
        build(&c, which, true);
        build(&c, which, false);
    }
    json_decref(json);
    must(alive == 0);
    return 0;
}
