/* endings.c - how tensors are called in the files of two great families of trainers, whatever
 * stands before.
 *
 * LyCORIS gave each of its algorithms tensors with names of their own, and everybody who writes
 * underscore words took them over. PEFT does the same behind its dotted paths; an adapter's name
 * may stand where its state was saved whole, and a tensor that is a parameter by itself has no
 * ".weight" behind it. */
#include "adapter/adapter_internal.h"

const wf_ending wf_lycoris_endings[] = {
    { ".lora_mid.weight", "", WF_TENSOR_MID, 0 },
    { ".lora_up.bias", "", WF_TENSOR_UP_BIAS, 0 },
    { ".dora_scale", "", WF_TENSOR_MAGNITUDE, WF_JOINS },
    { ".alpha", "", WF_TENSOR_ALPHA, WF_JOINS },
    { ".hada_w1_a", "", WF_TENSOR_HADA_W1A, 0 },
    { ".hada_w1_b", "", WF_TENSOR_HADA_W1B, 0 },
    { ".hada_w2_a", "", WF_TENSOR_HADA_W2A, 0 },
    { ".hada_w2_b", "", WF_TENSOR_HADA_W2B, 0 },
    { ".hada_t1", "", WF_TENSOR_HADA_T1, 0 },
    { ".hada_t2", "", WF_TENSOR_HADA_T2, 0 },
    { ".lokr_w1", "", WF_TENSOR_LOKR_W1, 0 },
    { ".lokr_w1_a", "", WF_TENSOR_LOKR_W1A, 0 },
    { ".lokr_w1_b", "", WF_TENSOR_LOKR_W1B, 0 },
    { ".lokr_w2", "", WF_TENSOR_LOKR_W2, 0 },
    { ".lokr_w2_a", "", WF_TENSOR_LOKR_W2A, 0 },
    { ".lokr_w2_b", "", WF_TENSOR_LOKR_W2B, 0 },
    { ".lokr_t2", "", WF_TENSOR_LOKR_T2, 0 },
    { ".oft_blocks", "", WF_TENSOR_OFT_BLOCKS, 0 },
    { ".rescale", "", WF_TENSOR_RESCALE, WF_JOINS },
    { ".diff", "", WF_TENSOR_DIFF, 0 },
    { ".diff_b", "", WF_TENSOR_DIFF_B, 0 },
    { ".w_norm", "", WF_TENSOR_W_NORM, 0 },
    { ".b_norm", "", WF_TENSOR_B_NORM, 0 },
    { ".on_input", "", WF_TENSOR_ON_INPUT, 0 },
    { ".a1.weight", "", WF_TENSOR_GLORA_A1, 0 },
    { ".a2.weight", "", WF_TENSOR_GLORA_A2, 0 },
    { ".b1.weight", "", WF_TENSOR_GLORA_B1, 0 },
    { ".b2.weight", "", WF_TENSOR_GLORA_B2, 0 },
    { ".bm.weight", "", WF_TENSOR_GLORA_BM, 0 },
    { ".weight", "", WF_TENSOR_IA3_WEIGHT, WF_BESIDE }, /* (IA)^3's, only beside on_input */
    { NULL, NULL, 0, 0 },
};

/* A parameter by itself, with an adapter's name behind it and without. */
#define BARE(word, part, how) { "." word, "", part, how }, { "." word ".*", "", part, how }
/* One inside a layer of its own. */
#define LAYER(word, end, part, how) { "." word end, "", part, how }, { "." word ".*" end, "", part, how }

const wf_ending wf_peft_endings[] = {
    LAYER("lora_A", ".weight", WF_TENSOR_DOWN, 0),
    LAYER("lora_B", ".weight", WF_TENSOR_UP, 0),
    LAYER("lora_B", ".bias", WF_TENSOR_UP_BIAS, 0),
    LAYER("lora_AB", ".weight", WF_TENSOR_MIXER, 0),
    LAYER("lora_magnitude_vector", ".weight", WF_TENSOR_MAGNITUDE, WF_JOINS),
    BARE("lora_magnitude_vector", WF_TENSOR_MAGNITUDE, WF_JOINS),
    BARE("lora_A", WF_TENSOR_DOWN, 0), /* AdaLoRA's */
    BARE("lora_B", WF_TENSOR_UP, 0),
    BARE("lora_E", WF_TENSOR_LORA_E, 0),
    BARE("ranknum", WF_TENSOR_RANKNUM, WF_JOINS),
    BARE("hada_w1_a", WF_TENSOR_HADA_W1A, 0),
    BARE("hada_w1_b", WF_TENSOR_HADA_W1B, 0),
    BARE("hada_w2_a", WF_TENSOR_HADA_W2A, 0),
    BARE("hada_w2_b", WF_TENSOR_HADA_W2B, 0),
    BARE("hada_t1", WF_TENSOR_HADA_T1, 0),
    BARE("hada_t2", WF_TENSOR_HADA_T2, 0),
    BARE("lokr_w1", WF_TENSOR_LOKR_W1, 0),
    BARE("lokr_w1_a", WF_TENSOR_LOKR_W1A, 0),
    BARE("lokr_w1_b", WF_TENSOR_LOKR_W1B, 0),
    BARE("lokr_w2", WF_TENSOR_LOKR_W2, 0),
    BARE("lokr_w2_a", WF_TENSOR_LOKR_W2A, 0),
    BARE("lokr_w2_b", WF_TENSOR_LOKR_W2B, 0),
    BARE("lokr_t2", WF_TENSOR_LOKR_T2, 0),
    BARE("ia3_l", WF_TENSOR_IA3_L, 0),
    LAYER("oft_R", ".weight", WF_TENSOR_OFT_R, 0),
    BARE("boft_R", WF_TENSOR_BOFT_R, 0),
    BARE("boft_s", WF_TENSOR_BOFT_S, 0),
    BARE("vera_lambda_b", WF_TENSOR_VERA_LAMBDA_B, 0),
    BARE("vera_lambda_d", WF_TENSOR_VERA_LAMBDA_D, 0),
    BARE("vera_A", WF_TENSOR_VERA_A, WF_JOINS), /* a model's whole state repeats them */
    BARE("vera_B", WF_TENSOR_VERA_B, WF_JOINS),
    BARE("fourierft_spectrum", WF_TENSOR_SPECTRUM, 0),
    BARE("hra_u", WF_TENSOR_HRA_U, 0),
    BARE("shira_weight", WF_TENSOR_SHIRA_WEIGHT, 0),
    BARE("shira_indices", WF_TENSOR_SHIRA_INDICES, 0),
    { ".vblora_logits_A_topk_indices", "", WF_TENSOR_VB_INDICES_A, 0 },
    { ".vblora_logits_B_topk_indices", "", WF_TENSOR_VB_INDICES_B, 0 },
    { ".vblora_logits_A_topk_weights", "", WF_TENSOR_VB_WEIGHTS_A, 0 },
    { ".vblora_logits_B_topk_weights", "", WF_TENSOR_VB_WEIGHTS_B, 0 },
    BARE("vblora_logits_A", WF_TENSOR_VB_LOGITS_A, 0),
    BARE("vblora_logits_B", WF_TENSOR_VB_LOGITS_B, 0),
    BARE("vblora_vector_bank", WF_TENSOR_VB_BANK, WF_JOINS),
    LAYER("ln_tuning_layers", ".weight", WF_TENSOR_REPLACE, 0),
    LAYER("ln_tuning_layers", ".bias", WF_TENSOR_REPLACE_B, 0),
    BARE("c3a_kernel", WF_TENSOR_C3A_KERNEL, 0),
    BARE("miss_block", WF_TENSOR_MISS_BLOCK, 0),
    BARE("bone_block", WF_TENSOR_BONE_BLOCK, 0),
    BARE("delora_A", WF_TENSOR_DELORA_A, 0),
    BARE("delora_B", WF_TENSOR_DELORA_B, 0),
    BARE("delora_lambda", WF_TENSOR_DELORA_LAMBDA, WF_JOINS),
    BARE("delora_w_norm", WF_TENSOR_DELORA_NORM, WF_JOINS),
    BARE("gralora_A", WF_TENSOR_GRALORA_A, 0),
    BARE("gralora_B", WF_TENSOR_GRALORA_B, 0),
    LAYER("gralora_A_general", ".weight", WF_TENSOR_GRALORA_DOWN, WF_JOINS),
    LAYER("gralora_B_general", ".weight", WF_TENSOR_GRALORA_UP, WF_JOINS),
    BARE("randlora_lambda", WF_TENSOR_RANDLORA_LAMBDA, 0),
    BARE("randlora_gamma", WF_TENSOR_RANDLORA_GAMMA, 0),
    BARE("randlora_A", WF_TENSOR_RANDLORA_A, WF_JOINS),
    BARE("randlora_B", WF_TENSOR_RANDLORA_B, WF_JOINS),
    LAYER("modules_to_save", ".weight", WF_TENSOR_REPLACE, 0),
    LAYER("modules_to_save", ".bias", WF_TENSOR_REPLACE_B, 0),
    { ".base_layer.bias", "", WF_TENSOR_REPLACE_B, 0 }, /* bias "lora_only" */
    { ".weight", "", WF_TENSOR_REPLACE, WF_WRAPPED },   /* modules_to_save, as save_pretrained writes them */
    { ".bias", "", WF_TENSOR_REPLACE_B, WF_WRAPPED },
    { NULL, NULL, 0, 0 },
};

/* Tensors of a whole PEFT adapter: "base_model.vera_A", perhaps behind other wrappers and a
 * component, and before an adapter's name. */
static const struct { const char *word; int32_t tensor; } shared[] = {
    { "vera_A", WF_TENSOR_VERA_A },
    { "vera_B", WF_TENSOR_VERA_B },
    { "randlora_A", WF_TENSOR_RANDLORA_A },
    { "randlora_B", WF_TENSOR_RANDLORA_B },
    { "vblora_vector_bank", WF_TENSOR_VB_BANK },
};

/* What stands in front of a component's own name, in any order. */
static const char *skip_front(const char *key, int32_t *component)
{
    static const char *const around[] = { "base_model.", "model.", "module." };
    const char              *prefix, *from;

    do {
        from = key;
        for (size_t i = 0; i < WF_LEN(around); i++)
            if (strncmp(key, around[i], strlen(around[i])) == 0) key += strlen(around[i]);
        for (int32_t c = 0; *component < 0 && (prefix = wf_component_prefix(c)) != NULL; c++) {
            if (strncmp(key, prefix, strlen(prefix)) != 0) continue;
            key += strlen(prefix);
            *component = c;
        }
    } while (key != from);
    return key;
}

bool wf_shared_read(const char *key, int32_t *component, int32_t *tensor)
{
    *component = -1;
    key = skip_front(key, component);
    for (size_t i = 0; i < WF_LEN(shared); i++) {
        size_t n = strlen(shared[i].word);
        if (strncmp(key, shared[i].word, n) != 0) continue;
        if (key[n] != '\0' && (key[n] != '.' || strchr(key + n + 1, '.') != NULL)) continue;
        *tensor = shared[i].tensor;
        return true;
    }
    return false;
}
