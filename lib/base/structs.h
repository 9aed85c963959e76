/* structs.h - the structs that cross the ABI, and how large each was when it was first released.
 *
 * A caller may have been compiled against an older header than ours: its structs end earlier. It
 * must have at least the fields of the first release of this ABI number. The table below names the
 * last of these for each struct, for good: a field that is appended later changes sizeof and never
 * this table. A new struct is one row. docs/abi.md has the rules. */
#ifndef WF_STRUCTS_H
#define WF_STRUCTS_H

#include "base/base.h"
#include "weft/weft.h"

/* X(struct, its INIT value, its last field in the first release) */
#define WF_STRUCTS(X)                                                               \
    X(weft_tensor_info,       WEFT_TENSOR_INFO_INIT,       count)                   \
    X(weft_tensor_out,        WEFT_TENSOR_OUT_INIT,        dtype)                   \
    X(weft_tensors_options,   WEFT_TENSORS_OPTIONS_INIT,   name)                    \
    X(weft_model_options,     WEFT_MODEL_OPTIONS_INIT,     config)                  \
    X(weft_model_info,        WEFT_MODEL_INFO_INIT,        layout)                  \
    X(weft_text_info,         WEFT_TEXT_INFO_INIT,         reserved0)               \
    X(weft_layer_info,        WEFT_LAYER_INFO_INIT,        attention)               \
    X(weft_adapter_options,   WEFT_ADAPTER_OPTIONS_INIT,   config_text)             \
    X(weft_adapter_info,      WEFT_ADAPTER_INFO_INIT,      tokens)                  \
    X(weft_module_info,       WEFT_MODULE_INFO_INIT,       family)                  \
    X(weft_save_options,      WEFT_SAVE_OPTIONS_INIT,      reserved0)               \
    X(weft_report_row,        WEFT_REPORT_ROW_INIT,        layer_id)                \
    X(weft_concept_options,   WEFT_CONCEPT_OPTIONS_INIT,   second)                  \
    X(weft_concept_info,      WEFT_CONCEPT_INFO_INIT,      reserved0)               \
    X(weft_token_info,        WEFT_TOKEN_INFO_INIT,        reserved0)               \
    X(weft_merge_source,      WEFT_MERGE_SOURCE_INIT,      text_weight)             \
    X(weft_merge_options,     WEFT_MERGE_OPTIONS_INIT,     strength)                \
    X(weft_merge_row,         WEFT_MERGE_ROW_INIT,         reserved0)               \
    X(weft_plan_options,      WEFT_PLAN_OPTIONS_INIT,      reserved0)               \
    X(weft_text_weights,      WEFT_TEXT_WEIGHTS_INIT,      reserved0)               \
    X(weft_add_options,       WEFT_ADD_OPTIONS_INIT,       reserved1)               \
    X(weft_curve_point,       WEFT_CURVE_POINT_INIT,       value)                   \
    X(weft_mask,              WEFT_MASK_INIT,              reserved0)               \
    X(weft_region,            WEFT_REGION_INIT,            reserved0)               \
    X(weft_align_options,     WEFT_ALIGN_OPTIONS_INIT,     only_self_level)         \
    X(weft_zip_options,       WEFT_ZIP_OPTIONS_INIT,       style)                   \
    X(weft_blora_options,     WEFT_BLORA_OPTIONS_INIT,     style)                   \
    X(weft_phase_options,     WEFT_PHASE_OPTIONS_INIT,     at)                      \
    X(weft_switch_options,    WEFT_SWITCH_OPTIONS_INIT,    reserved0)               \
    X(weft_composite_options, WEFT_COMPOSITE_OPTIONS_INIT, flags)                   \
    X(weft_blend_options,     WEFT_BLEND_OPTIONS_INIT,     reserved0)               \
    X(weft_klora_options,     WEFT_KLORA_OPTIONS_INIT,     modulus)                 \
    X(weft_loratorio_options, WEFT_LORATORIO_OPTIONS_INIT, base)                    \
    X(weft_subbands_options,  WEFT_SUBBANDS_OPTIONS_INIT,  reserved0)               \
    X(weft_klora_score,       WEFT_KLORA_SCORE_INIT,       rho)                     \
    X(weft_balance_options,   WEFT_BALANCE_OPTIONS_INIT,   reserved0)               \
    X(weft_plan_info,         WEFT_PLAN_INFO_INIT,         merged_bytes)            \
    X(weft_phase_info,        WEFT_PHASE_INFO_INIT,        merged_bytes)            \
    X(weft_call_info,         WEFT_CALL_INFO_INIT,         evaluations)             \
    X(weft_layer_use,         WEFT_LAYER_USE_INIT,         words)                   \
    X(weft_cell,              WEFT_CELL_INIT,              reserved0)               \
    X(weft_plan_adapter_info, WEFT_PLAN_ADAPTER_INFO_INIT, reserved0)               \
    X(weft_plan_load_options, WEFT_PLAN_LOAD_OPTIONS_INIT, folder)                  \
    X(weft_conflict,          WEFT_CONFLICT_INIT,          chance)                  \
    X(weft_conflict_block,    WEFT_CONFLICT_BLOCK_INIT,    chance)                  \
    X(weft_fuse_options,      WEFT_FUSE_OPTIONS_INIT,      sampler)                 \
    X(weft_fuse_concept,      WEFT_FUSE_CONCEPT_INIT,      reserved0)                    \
    X(weft_fuse_info,         WEFT_FUSE_INFO_INIT,         prompts)                 \
    X(weft_fuse_row,          WEFT_FUSE_ROW_INIT,          norm)                    \
    X(weft_run_options,       WEFT_RUN_OPTIONS_INIT,       tile)                    \
    X(weft_run_info,          WEFT_RUN_INFO_INIT,          text_streams)            \
    X(weft_call_cost,         WEFT_CALL_COST_INIT,         activation_bytes)        \
    X(weft_trace,             WEFT_TRACE_INIT,             negative_share)          \
    X(weft_trace_cell,        WEFT_TRACE_CELL_INIT,        number)                  \
    X(weft_text,              WEFT_TEXT_INIT,              cross_layers)            \
    X(weft_ids,               WEFT_IDS_INIT,               reserved0)               \
    X(weft_encode,            WEFT_ENCODE_INIT,            stamp)                   \
    X(weft_subject,           WEFT_SUBJECT_INIT,           count)                   \
    X(weft_locate_options,    WEFT_LOCATE_OPTIONS_INIT,    temperature)             \
    X(weft_step,              WEFT_STEP_INIT,              reserved0)               \
    X(weft_image_options,     WEFT_IMAGE_OPTIONS_INIT,     log_user)                \
    X(weft_image_encoder_info, WEFT_IMAGE_ENCODER_INFO_INIT, parameters)            \
    X(weft_image_adapter_info, WEFT_IMAGE_ADAPTER_INFO_INIT, name)                  \
    X(weft_image_prompt_options, WEFT_IMAGE_PROMPT_OPTIONS_INIT, reserved0)         \
    X(weft_image_prompt_info, WEFT_IMAGE_PROMPT_INFO_INIT, masked)                  \
    X(weft_image_encode,      WEFT_IMAGE_ENCODE_INIT,      len)                     \
    X(weft_noise_options,     WEFT_NOISE_OPTIONS_INIT,     reserved0)               \
    X(weft_sampler_options,   WEFT_SAMPLER_OPTIONS_INIT,   sigmas_len)              \
    X(weft_train_options,     WEFT_TRAIN_OPTIONS_INIT,     reserved0)               \
    X(weft_trainer_info,      WEFT_TRAINER_INFO_INIT,      class_pictures)          \
    X(weft_train_step,        WEFT_TRAIN_STEP_INIT,        rate)

/* WF_FIRST_weft_step: bytes of the struct in its first release. */
#define WF_FIRST_SIZE(type, init, last) \
    WF_FIRST_##type = offsetof(type, last) + sizeof(((type *)0)->last),
enum { WF_STRUCTS(WF_FIRST_SIZE) WF_FIRST_NONE = 0 };
#undef WF_FIRST_SIZE

/* Copy a caller's options struct over zeros (docs/abi.md): size is ours, first is the size of
 * version one. src NULL gives all defaults. WEFT_E_ARG if smaller than `first`, WEFT_E_UNSUPPORTED
 * if larger with bytes set that we do not know, or with a flag outside `flags`. `what` names the
 * struct. */
weft_status wf_options(void *dst, size_t size, size_t first, const void *src, uint32_t flags,
                       const char *what, weft_error *err);
/* Copy a filled result struct out into the caller's, min of both sizes, its struct_size kept. */
weft_status wf_result(void *dst, const void *src, size_t size, size_t first, const char *what,
                      weft_error *err);

/* Read a caller's options into ours: WF_OPTIONS(&o, options, weft_run_options, flags, err). */
#define WF_OPTIONS(ours, theirs, type, flags, err) \
    wf_options(ours, sizeof(type), WF_FIRST_##type, theirs, flags, #type, err)
/* Hand a filled result to the caller: WF_RESULT(info, &filled, weft_run_info, err). */
#define WF_RESULT(theirs, filled, type, err) \
    wf_result(theirs, filled, sizeof(type), WF_FIRST_##type, #type, err)

#endif
