/* layout.c - the layout that a compiled caller has built in: sizes, offsets and constants, a line each.
 *
 * tests/abi/layout.sh compares the lines with those stored at the last release; every stored line must
 * still be printed, and new ones may come. The script also sees to it that nothing of the headers is
 * missing here. */
#include <stdio.h>

#include "base/structs.h"

#define S(type)        printf("sizeof %s %zu\n", #type, sizeof(type))
#define F(type, field) printf("%s.%s at %zu size %zu\n", #type, #field, offsetof(type, field), \
                              sizeof(((type *)0)->field))
#define C(constant)    printf("%s %lld\n", #constant, (long long)(constant))

static void structs(void)
{
    S(weft_error);
    F(weft_error, code); F(weft_error, sys); F(weft_error, text);

    S(weft_allocator);
    F(weft_allocator, alloc); F(weft_allocator, free); F(weft_allocator, user);

    S(weft_tensor_info);
    F(weft_tensor_info, struct_size); F(weft_tensor_info, flags); F(weft_tensor_info, name);
    F(weft_tensor_info, dtype); F(weft_tensor_info, shape); F(weft_tensor_info, rank);
    F(weft_tensor_info, count);

    S(weft_tensor_out);
    F(weft_tensor_out, struct_size); F(weft_tensor_out, flags); F(weft_tensor_out, name);
    F(weft_tensor_out, data); F(weft_tensor_out, shape); F(weft_tensor_out, rank); F(weft_tensor_out, dtype);

    S(weft_tensors_options);
    F(weft_tensors_options, struct_size); F(weft_tensors_options, flags); F(weft_tensors_options, allocator);
    F(weft_tensors_options, name);

    S(weft_model_options);
    F(weft_model_options, struct_size); F(weft_model_options, flags); F(weft_model_options, allocator);
    F(weft_model_options, log); F(weft_model_options, log_user); F(weft_model_options, progress);
    F(weft_model_options, progress_user); F(weft_model_options, variant); F(weft_model_options, tokenizer);
    F(weft_model_options, tokenizer_2); F(weft_model_options, vae); F(weft_model_options, config);
    F(weft_model_options, arithmetic); F(weft_model_options, reserved0);

    S(weft_model_info);
    F(weft_model_info, struct_size); F(weft_model_info, base); F(weft_model_info, base_name);
    F(weft_model_info, layout); F(weft_model_info, parameters); F(weft_model_info, bytes);
    F(weft_model_info, derived_bytes);
    F(weft_model_info, layers); F(weft_model_info, latent_channels);
    F(weft_model_info, latent_size); F(weft_model_info, image_factor);
    F(weft_model_info, input_channels); F(weft_model_info, text_streams);
    F(weft_model_info, text_encoders); F(weft_model_info, time_ids);
    F(weft_model_info, guidance_embed); F(weft_model_info, prediction);
    F(weft_model_info, zero_negative); F(weft_model_info, has_tokenizer);
    F(weft_model_info, has_vae); F(weft_model_info, vae_scale); F(weft_model_info, reserved0);
    F(weft_model_info, arithmetic); F(weft_model_info, emulated); F(weft_model_info, tier);

    S(weft_text_info);
    F(weft_text_info, struct_size); F(weft_text_info, kind); F(weft_text_info, name);
    F(weft_text_info, width); F(weft_text_info, tokens); F(weft_text_info, cross_layers);
    F(weft_text_info, reserved0);

    S(weft_layer_info);
    F(weft_layer_info, struct_size); F(weft_layer_info, kind); F(weft_layer_info, name);
    F(weft_layer_info, component); F(weft_layer_info, out); F(weft_layer_info, in); F(weft_layer_info, kernel);
    F(weft_layer_info, stride); F(weft_layer_info, attention);

    S(weft_adapter_options);
    F(weft_adapter_options, struct_size); F(weft_adapter_options, flags); F(weft_adapter_options, allocator);
    F(weft_adapter_options, log); F(weft_adapter_options, log_user); F(weft_adapter_options, config);
    F(weft_adapter_options, name); F(weft_adapter_options, config_text);
    F(weft_adapter_options, alpha); F(weft_adapter_options, scale);

    S(weft_adapter_info);
    F(weft_adapter_info, struct_size); F(weft_adapter_info, base); F(weft_adapter_info, name);
    F(weft_adapter_info, dialect); F(weft_adapter_info, family); F(weft_adapter_info, kind);
    F(weft_adapter_info, base_name);
    F(weft_adapter_info, modules); F(weft_adapter_info, denoiser_modules); F(weft_adapter_info, text_modules);
    F(weft_adapter_info, conv_modules); F(weft_adapter_info, rank_min); F(weft_adapter_info, rank_max);
    F(weft_adapter_info, parameters); F(weft_adapter_info, bytes); F(weft_adapter_info, norm_modules);
    F(weft_adapter_info, tokens);

    S(weft_module_info);
    F(weft_module_info, struct_size); F(weft_module_info, rank); F(weft_module_info, name);
    F(weft_module_info, key); F(weft_module_info, out); F(weft_module_info, in); F(weft_module_info, kernel);
    F(weft_module_info, alpha); F(weft_module_info, scale); F(weft_module_info, has_alpha);
    F(weft_module_info, family); F(weft_module_info, alpha_key); F(weft_module_info, alpha_source);
    F(weft_module_info, zero_alpha);
    S(weft_save_options);
    F(weft_save_options, struct_size); F(weft_save_options, flags); F(weft_save_options, dialect);
    F(weft_save_options, reserved0);

    S(weft_report_row);
    F(weft_report_row, struct_size); F(weft_report_row, state); F(weft_report_row, key);
    F(weft_report_row, layer); F(weft_report_row, reason); F(weft_report_row, layer_id);

    S(weft_plan_options);
    F(weft_plan_options, struct_size); F(weft_plan_options, flags); F(weft_plan_options, allocator);
    F(weft_plan_options, log); F(weft_plan_options, log_user); F(weft_plan_options, progress);
    F(weft_plan_options, progress_user); F(weft_plan_options, path); F(weft_plan_options, text);
    F(weft_plan_options, mixed); F(weft_plan_options, reserved0);

    S(weft_add_options);
    F(weft_add_options, struct_size); F(weft_add_options, flags); F(weft_add_options, select);
    F(weft_add_options, exclude); F(weft_add_options, text_weights); F(weft_add_options, share);
    F(weft_add_options, role); F(weft_add_options, reserved0);
    F(weft_add_options, reserved1);

    S(weft_align_options);
    F(weft_align_options, struct_size); F(weft_align_options, flags);
    F(weft_align_options, shared_score_scale); F(weft_align_options, shared_score_shift);
    F(weft_align_options, only_self_level);
    S(weft_region);
    F(weft_region, struct_size); F(weft_region, flags); F(weft_region, mask); F(weft_region, adapter);
    F(weft_region, reserved0);

    S(weft_switch_options);
    F(weft_switch_options, struct_size); F(weft_switch_options, flags); F(weft_switch_options, period);
    F(weft_switch_options, reserved0); F(weft_switch_options, order);
    F(weft_switch_options, order_len); F(weft_switch_options, last_calls);
    F(weft_switch_options, last_adapter); F(weft_switch_options, last_role);
    F(weft_switch_options, reserved1);

    S(weft_composite_options);
    F(weft_composite_options, struct_size); F(weft_composite_options, flags);
    F(weft_composite_options, c1); F(weft_composite_options, c2);

    S(weft_loratorio_options);
    F(weft_loratorio_options, struct_size); F(weft_loratorio_options, flags);
    F(weft_loratorio_options, patch); F(weft_loratorio_options, keep);
    F(weft_loratorio_options, temperature); F(weft_loratorio_options, base);

    S(weft_subbands_options);
    F(weft_subbands_options, struct_size); F(weft_subbands_options, flags);
    F(weft_subbands_options, levels); F(weft_subbands_options, keep);
    F(weft_subbands_options, sharpness); F(weft_subbands_options, reserved0);

    S(weft_blend_options);
    F(weft_blend_options, struct_size); F(weft_blend_options, flags); F(weft_blend_options, start);
    F(weft_blend_options, reserved0);

    S(weft_klora_options);
    F(weft_klora_options, struct_size); F(weft_klora_options, flags); F(weft_klora_options, pattern);
    F(weft_klora_options, gamma); F(weft_klora_options, granularity); F(weft_klora_options, reserved0);
    F(weft_klora_options, top_k); F(weft_klora_options, alpha); F(weft_klora_options, beta);
    F(weft_klora_options, modulus); F(weft_klora_options, score); F(weft_klora_options, reserved1);
    F(weft_klora_options, share);

    S(weft_balance_options);
    F(weft_balance_options, struct_size); F(weft_balance_options, flags); F(weft_balance_options, gamma);
    F(weft_balance_options, role); F(weft_balance_options, reference); F(weft_balance_options, reserved0);

    S(weft_plan_load_options);
    F(weft_plan_load_options, struct_size); F(weft_plan_load_options, flags); F(weft_plan_load_options, allocator);
    F(weft_plan_load_options, log); F(weft_plan_load_options, log_user); F(weft_plan_load_options, progress);
    F(weft_plan_load_options, progress_user); F(weft_plan_load_options, folder);
    S(weft_conflict);
    F(weft_conflict, struct_size); F(weft_conflict, first); F(weft_conflict, second); F(weft_conflict, reserved0);
    F(weft_conflict, layer); F(weft_conflict, first_norm); F(weft_conflict, second_norm); F(weft_conflict, cosine);
    F(weft_conflict, clash); F(weft_conflict, overlap); F(weft_conflict, chance);

    S(weft_conflict_block);
    F(weft_conflict_block, struct_size); F(weft_conflict_block, first); F(weft_conflict_block, second);
    F(weft_conflict_block, layers); F(weft_conflict_block, first_alone); F(weft_conflict_block, second_alone);
    F(weft_conflict_block, verdict); F(weft_conflict_block, reserved0); F(weft_conflict_block, name);
    F(weft_conflict_block, words); F(weft_conflict_block, first_norm); F(weft_conflict_block, second_norm);
    F(weft_conflict_block, cosine); F(weft_conflict_block, clash); F(weft_conflict_block, overlap);
    F(weft_conflict_block, chance);

    S(weft_klora_score);
    F(weft_klora_score, struct_size); F(weft_klora_score, position); F(weft_klora_score, top_k);
    F(weft_klora_score, content); F(weft_klora_score, style); F(weft_klora_score, ratio);
    F(weft_klora_score, gamma); F(weft_klora_score, rho); F(weft_klora_score, content_index);
    F(weft_klora_score, style_index);

    S(weft_concept_options);
    F(weft_concept_options, struct_size); F(weft_concept_options, flags); F(weft_concept_options, allocator);
    F(weft_concept_options, log); F(weft_concept_options, log_user); F(weft_concept_options, tokens);
    F(weft_concept_options, second);

    S(weft_concept_info);
    F(weft_concept_info, struct_size); F(weft_concept_info, tokens); F(weft_concept_info, name);
    F(weft_concept_info, format); F(weft_concept_info, adapter); F(weft_concept_info, reserved0);

    S(weft_token_info);
    F(weft_token_info, struct_size); F(weft_token_info, vectors); F(weft_token_info, token); F(weft_token_info, width);
    F(weft_token_info, width_2); F(weft_token_info, layers); F(weft_token_info, reserved0); F(weft_token_info, also);

    S(weft_merge_source);
    F(weft_merge_source, struct_size); F(weft_merge_source, flags); F(weft_merge_source, adapter);
    F(weft_merge_source, select); F(weft_merge_source, exclude); F(weft_merge_source, weight);
    F(weft_merge_source, text_weight);

    S(weft_merge_options);
    F(weft_merge_options, struct_size); F(weft_merge_options, flags); F(weft_merge_options, allocator);
    F(weft_merge_options, progress); F(weft_merge_options, progress_user); F(weft_merge_options, name);
    F(weft_merge_options, mixer); F(weft_merge_options, density); F(weft_merge_options, error);
    F(weft_merge_options, clamp); F(weft_merge_options, seed); F(weft_merge_options, kind);
    F(weft_merge_options, majority); F(weft_merge_options, rank); F(weft_merge_options, conv_rank);
    F(weft_merge_options, strength);

    S(weft_merge_row);
    F(weft_merge_row, struct_size); F(weft_merge_row, rank); F(weft_merge_row, layer);
    F(weft_merge_row, layer_id); F(weft_merge_row, norm); F(weft_merge_row, error);
    F(weft_merge_row, adapters); F(weft_merge_row, reserved0);

    S(weft_fuse_options);
    F(weft_fuse_options, struct_size); F(weft_fuse_options, flags); F(weft_fuse_options, allocator);
    F(weft_fuse_options, log); F(weft_fuse_options, log_user); F(weft_fuse_options, progress);
    F(weft_fuse_options, progress_user); F(weft_fuse_options, name); F(weft_fuse_options, budget);
    F(weft_fuse_options, ridge); F(weft_fuse_options, kind); F(weft_fuse_options, threads);
    F(weft_fuse_options, height); F(weft_fuse_options, width); F(weft_fuse_options, steps);
    F(weft_fuse_options, sampler);

    S(weft_fuse_concept);
    F(weft_fuse_concept, struct_size); F(weft_fuse_concept, flags); F(weft_fuse_concept, plan);
    F(weft_fuse_concept, name); F(weft_fuse_concept, prompts); F(weft_fuse_concept, prompts_count);
    F(weft_fuse_concept, seed); F(weft_fuse_concept, images); F(weft_fuse_concept, reserved0);

    S(weft_fuse_info);
    F(weft_fuse_info, struct_size); F(weft_fuse_info, layers); F(weft_fuse_info, bytes);
    F(weft_fuse_info, concepts); F(weft_fuse_info, passes); F(weft_fuse_info, calls);
    F(weft_fuse_info, prompts);

    S(weft_fuse_row);
    F(weft_fuse_row, struct_size); F(weft_fuse_row, concepts); F(weft_fuse_row, layer);
    F(weft_fuse_row, layer_id); F(weft_fuse_row, rows); F(weft_fuse_row, before); F(weft_fuse_row, after);
    F(weft_fuse_row, residual); F(weft_fuse_row, drift); F(weft_fuse_row, jitter); F(weft_fuse_row, norm);

    S(weft_plan_adapter_info);
    F(weft_plan_adapter_info, struct_size); F(weft_plan_adapter_info, role); F(weft_plan_adapter_info, name);
    F(weft_plan_adapter_info, part); F(weft_plan_adapter_info, weight); F(weft_plan_adapter_info, text_1); F(weft_plan_adapter_info, text_2); F(weft_plan_adapter_info, text_3);
    F(weft_plan_adapter_info, share); F(weft_plan_adapter_info, reserved0); F(weft_plan_adapter_info, blocks);
    F(weft_plan_adapter_info, balance);
    S(weft_zip_options);
    F(weft_zip_options, struct_size); F(weft_zip_options, flags); F(weft_zip_options, coefficients);
    F(weft_zip_options, lambda); F(weft_zip_options, style);
    S(weft_blora_options);
    F(weft_blora_options, struct_size); F(weft_blora_options, flags); F(weft_blora_options, content);
    F(weft_blora_options, style);
    S(weft_plan_info);
    F(weft_plan_info, struct_size); F(weft_plan_info, sealed); F(weft_plan_info, phases);
    F(weft_plan_info, adapters); F(weft_plan_info, calls); F(weft_plan_info, branches);
    F(weft_plan_info, evaluations); F(weft_plan_info, reserved0);
    F(weft_plan_info, layers); F(weft_plan_info, touched_layers);
    F(weft_plan_info, merged_layers); F(weft_plan_info, side_bytes); F(weft_plan_info, merged_bytes);
    F(weft_plan_info, regions); F(weft_plan_info, reserved1);

    S(weft_text_weights);
    F(weft_text_weights, struct_size); F(weft_text_weights, flags); F(weft_text_weights, text_1);
    F(weft_text_weights, text_2); F(weft_text_weights, text_3); F(weft_text_weights, reserved0);

    S(weft_curve_point);
    F(weft_curve_point, struct_size); F(weft_curve_point, flags); F(weft_curve_point, shape);
    F(weft_curve_point, reserved0); F(weft_curve_point, at); F(weft_curve_point, value);

    S(weft_mask);
    F(weft_mask, struct_size); F(weft_mask, flags); F(weft_mask, height); F(weft_mask, width);
    F(weft_mask, values); F(weft_mask, len); F(weft_mask, text); F(weft_mask, reserved0);

    S(weft_phase_options);
    F(weft_phase_options, struct_size); F(weft_phase_options, flags); F(weft_phase_options, first);
    F(weft_phase_options, reserved0); F(weft_phase_options, at);

    S(weft_phase_info);
    F(weft_phase_info, struct_size); F(weft_phase_info, first); F(weft_phase_info, method); F(weft_phase_info, title);
    F(weft_phase_info, calls); F(weft_phase_info, branches); F(weft_phase_info, evaluations);
    F(weft_phase_info, rows); F(weft_phase_info, touched_layers); F(weft_phase_info, merged_layers);
    F(weft_phase_info, side_bytes); F(weft_phase_info, merged_bytes);

    S(weft_call_info);
    F(weft_call_info, struct_size); F(weft_call_info, phase); F(weft_call_info, branches);
    F(weft_call_info, evaluations); F(weft_call_info, reused); F(weft_call_info, row);

    S(weft_layer_use);
    F(weft_layer_use, struct_size); F(weft_layer_use, path); F(weft_layer_use, reason);
    F(weft_layer_use, parts); F(weft_layer_use, rank); F(weft_layer_use, reserved0);
    F(weft_layer_use, work); F(weft_layer_use, bytes); F(weft_layer_use, words);

    S(weft_call_cost);
    F(weft_call_cost, struct_size); F(weft_call_cost, evaluations); F(weft_call_cost, reused);
    F(weft_call_cost, samples); F(weft_call_cost, flops); F(weft_call_cost, side_flops);
    F(weft_call_cost, weight_bytes); F(weft_call_cost, activation_bytes);

    S(weft_trace);
    F(weft_trace, struct_size); F(weft_trace, done); F(weft_trace, evaluations); F(weft_trace, base);
    F(weft_trace, guided); F(weft_trace, reused); F(weft_trace, layers); F(weft_trace, side);
    F(weft_trace, merged); F(weft_trace, kept); F(weft_trace, timestep); F(weft_trace, reserved0);
    F(weft_trace, share); F(weft_trace, negative_share);

    S(weft_trace_cell);
    F(weft_trace_cell, struct_size); F(weft_trace_cell, way); F(weft_trace_cell, kind);
    F(weft_trace_cell, number);

    S(weft_cell);
    F(weft_cell, struct_size); F(weft_cell, kind); F(weft_cell, number); F(weft_cell, reserved0);

    S(weft_run_options);
    F(weft_run_options, struct_size); F(weft_run_options, flags); F(weft_run_options, allocator);
    F(weft_run_options, log); F(weft_run_options, log_user); F(weft_run_options, progress);
    F(weft_run_options, progress_user); F(weft_run_options, threads); F(weft_run_options, batch);
    F(weft_run_options, height); F(weft_run_options, width); F(weft_run_options, text_tokens);
    F(weft_run_options, tile);

    S(weft_run_info);
    F(weft_run_info, struct_size); F(weft_run_info, threads); F(weft_run_info, bytes);
    F(weft_run_info, step_flops); F(weft_run_info, side_flops); F(weft_run_info, decode_flops);
    F(weft_run_info, latent_len); F(weft_run_info, extra_len); F(weft_run_info, image_len);
    F(weft_run_info, branches); F(weft_run_info, batch); F(weft_run_info, height);
    F(weft_run_info, width); F(weft_run_info, text_tokens); F(weft_run_info, text_streams);
    F(weft_run_info, reuse_error); F(weft_run_info, scratch_bytes); F(weft_run_info, copy_bytes);
    F(weft_run_info, kept_bytes); F(weft_run_info, step_bytes); F(weft_run_info, encode_bytes);
    F(weft_run_info, decode_bytes); F(weft_run_info, encode_image_bytes);

    S(weft_text);
    F(weft_text, struct_size); F(weft_text, flags); F(weft_text, data); F(weft_text, len);
    F(weft_text, tokens); F(weft_text, cross_layers);

    S(weft_ids);
    F(weft_ids, struct_size); F(weft_ids, flags); F(weft_ids, ids); F(weft_ids, len);
    F(weft_ids, component); F(weft_ids, reserved0);

    S(weft_subject);
    F(weft_subject, struct_size); F(weft_subject, flags); F(weft_subject, tokens);
    F(weft_subject, count);
    S(weft_locate_options);
    F(weft_locate_options, struct_size); F(weft_locate_options, flags);
    F(weft_locate_options, subjects); F(weft_locate_options, subject_count);
    F(weft_locate_options, block); F(weft_locate_options, share);
    F(weft_locate_options, temperature);
    S(weft_encode);
    F(weft_encode, struct_size); F(weft_encode, flags); F(weft_encode, prompt);
    F(weft_encode, text); F(weft_encode, text_count); F(weft_encode, adapter);
    F(weft_encode, clip_skip); F(weft_encode, prompt_tokens); F(weft_encode, dropped);
    F(weft_encode, stamp);

    S(weft_step);
    F(weft_step, struct_size); F(weft_step, flags); F(weft_step, latent); F(weft_step, latent_len);
    F(weft_step, extra); F(weft_step, extra_len); F(weft_step, text); F(weft_step, text_count);
    F(weft_step, negative); F(weft_step, negative_count); F(weft_step, time_ids);
    F(weft_step, time_ids_len); F(weft_step, negative_time_ids);
    F(weft_step, negative_time_ids_len); F(weft_step, out); F(weft_step, out_len);
    F(weft_step, stamp); F(weft_step, timestep); F(weft_step, guidance);
    F(weft_step, guidance_rescale); F(weft_step, guidance_embed); F(weft_step, call);
    F(weft_step, reserved0); F(weft_step, region_text); F(weft_step, region_text_count);
    F(weft_step, region_negative); F(weft_step, region_negative_count);
    F(weft_step, image); F(weft_step, image_count); F(weft_step, image_negative);
    F(weft_step, image_negative_count);

    S(weft_image_options);
    F(weft_image_options, struct_size); F(weft_image_options, flags); F(weft_image_options, allocator);
    F(weft_image_options, log); F(weft_image_options, log_user);

    S(weft_image_encoder_info);
    F(weft_image_encoder_info, struct_size); F(weft_image_encoder_info, image_size);
    F(weft_image_encoder_info, patch_size); F(weft_image_encoder_info, tokens);
    F(weft_image_encoder_info, width); F(weft_image_encoder_info, pooled);
    F(weft_image_encoder_info, layers); F(weft_image_encoder_info, reserved0);
    F(weft_image_encoder_info, parameters);

    S(weft_image_adapter_info);
    F(weft_image_adapter_info, struct_size); F(weft_image_adapter_info, kind);
    F(weft_image_adapter_info, features); F(weft_image_adapter_info, tokens);
    F(weft_image_adapter_info, width); F(weft_image_adapter_info, cross_layers);
    F(weft_image_adapter_info, parameters); F(weft_image_adapter_info, name);

    S(weft_image_prompt_options);
    F(weft_image_prompt_options, struct_size); F(weft_image_prompt_options, flags);
    F(weft_image_prompt_options, blocks); F(weft_image_prompt_options, mask);
    F(weft_image_prompt_options, images); F(weft_image_prompt_options, reserved0);

    S(weft_image_prompt_info);
    F(weft_image_prompt_info, struct_size); F(weft_image_prompt_info, kind);
    F(weft_image_prompt_info, name); F(weft_image_prompt_info, blocks);
    F(weft_image_prompt_info, weight); F(weft_image_prompt_info, images);
    F(weft_image_prompt_info, tokens); F(weft_image_prompt_info, width);
    F(weft_image_prompt_info, layers); F(weft_image_prompt_info, masked);

    S(weft_image_encode);
    F(weft_image_encode, struct_size); F(weft_image_encode, flags); F(weft_image_encode, encoder);
    F(weft_image_encode, image); F(weft_image_encode, image_len); F(weft_image_encode, height);
    F(weft_image_encode, width); F(weft_image_encode, prompt); F(weft_image_encode, tokens);
    F(weft_image_encode, data); F(weft_image_encode, len);

    S(weft_noise_options);
    F(weft_noise_options, struct_size); F(weft_noise_options, flags);
    F(weft_noise_options, allocator); F(weft_noise_options, kind); F(weft_noise_options, reserved0);

    S(weft_sampler_options);
    F(weft_sampler_options, struct_size); F(weft_sampler_options, flags); F(weft_sampler_options, allocator);
    F(weft_sampler_options, kind); F(weft_sampler_options, steps); F(weft_sampler_options, spacing);
    F(weft_sampler_options, prediction); F(weft_sampler_options, betas); F(weft_sampler_options, train_steps);
    F(weft_sampler_options, steps_offset); F(weft_sampler_options, beta_start);
    F(weft_sampler_options, beta_end); F(weft_sampler_options, eta); F(weft_sampler_options, origin_steps); F(weft_sampler_options, reserved0);
    F(weft_sampler_options, sigmas); F(weft_sampler_options, sigmas_len);
    F(weft_sampler_options, order); F(weft_sampler_options, algorithm); F(weft_sampler_options, solver_type);
    F(weft_sampler_options, last_steps); F(weft_sampler_options, variance); F(weft_sampler_options, images);
    F(weft_sampler_options, clip_range); F(weft_sampler_options, threshold_ratio);
    F(weft_sampler_options, threshold_max); F(weft_sampler_options, lambda_min);
    F(weft_sampler_options, sigma_schedule); F(weft_sampler_options, final_sigma);
    F(weft_sampler_options, interpolation); F(weft_sampler_options, sigma_min);
    F(weft_sampler_options, sigma_max); F(weft_sampler_options, rho);
    F(weft_sampler_options, trained_betas); F(weft_sampler_options, trained_betas_len);
    F(weft_sampler_options, uncorrected);

    S(weft_train_options);
    F(weft_train_options, struct_size); F(weft_train_options, flags);
    F(weft_train_options, allocator); F(weft_train_options, log); F(weft_train_options, log_user);
    F(weft_train_options, progress); F(weft_train_options, progress_user);
    F(weft_train_options, modules); F(weft_train_options, tokens); F(weft_train_options, initial);
    F(weft_train_options, name); F(weft_train_options, content); F(weft_train_options, style);
    F(weft_train_options, seed); F(weft_train_options, rate); F(weft_train_options, text_rate);
    F(weft_train_options, token_rate); F(weft_train_options, beta1); F(weft_train_options, beta2);
    F(weft_train_options, epsilon); F(weft_train_options, weight_decay);
    F(weft_train_options, clip); F(weft_train_options, alpha); F(weft_train_options, noise_offset);
    F(weft_train_options, min_snr); F(weft_train_options, prior_weight);
    F(weft_train_options, dropout); F(weft_train_options, ema); F(weft_train_options, similarity);
    F(weft_train_options, recipe); F(weft_train_options, steps); F(weft_train_options, batch);
    F(weft_train_options, accumulate); F(weft_train_options, rank); F(weft_train_options, factor);
    F(weft_train_options, vectors); F(weft_train_options, optimiser); F(weft_train_options, rates);
    F(weft_train_options, warmup); F(weft_train_options, width); F(weft_train_options, height);
    F(weft_train_options, threads); F(weft_train_options, reserved0);

    S(weft_trainer_info);
    F(weft_trainer_info, struct_size); F(weft_trainer_info, flags);
    F(weft_trainer_info, parameters); F(weft_trainer_info, step); F(weft_trainer_info, state_bytes);
    F(weft_trainer_info, step_bytes); F(weft_trainer_info, weight_bytes);
    F(weft_trainer_info, cache_bytes); F(weft_trainer_info, recipe); F(weft_trainer_info, layers);
    F(weft_trainer_info, pictures); F(weft_trainer_info, class_pictures);

    S(weft_train_step);
    F(weft_train_step, struct_size); F(weft_train_step, flags); F(weft_train_step, step);
    F(weft_train_step, loss); F(weft_train_step, prior_loss); F(weft_train_step, other_loss);
    F(weft_train_step, gradient_norm); F(weft_train_step, rate);
}

static void constants(void)
{
    C(WEFT_OK); C(WEFT_E_ARG); C(WEFT_E_NOMEM); C(WEFT_E_IO); C(WEFT_E_FORMAT); C(WEFT_E_MISMATCH);
    C(WEFT_E_UNSUPPORTED); C(WEFT_E_STATE); C(WEFT_E_CANCELLED); C(WEFT_E_INTERNAL);
    C(WEFT_E_NOT_FINITE);
    C(WEFT_LOG_INFO); C(WEFT_LOG_WARN);
    C(WEFT_OPEN_COPY); C(WEFT_OPEN_V); C(WEFT_OPEN_EPSILON); C(WEFT_OPEN_EMULATE);
    C(WEFT_ARITHMETIC_F32); C(WEFT_ARITHMETIC_BF16);
    C(WEFT_BASE_UNKNOWN); C(WEFT_BASE_SD1); C(WEFT_BASE_SD2); C(WEFT_BASE_SDXL);
    C(WEFT_BASE_SDXL_REFINER); C(WEFT_BASE_FLUX);
    C(WEFT_COMPONENT_DENOISER); C(WEFT_COMPONENT_TEXT_1); C(WEFT_COMPONENT_TEXT_2);
    C(WEFT_COMPONENT_VAE); C(WEFT_COMPONENT_TEXT_3);
    C(WEFT_TEXT_SEQUENCE); C(WEFT_TEXT_POOLED);
    C(WEFT_LAYER_LINEAR); C(WEFT_LAYER_CONV); C(WEFT_LAYER_NORM);
    C(WEFT_SAVE_HALF); C(WEFT_TENSORS_BORROW);
    C(WEFT_DIALECT_KOHYA); C(WEFT_DIALECT_DIFFUSERS); C(WEFT_DIALECT_PEFT);
    C(WEFT_MERGE_SUM); C(WEFT_MERGE_CONCAT); C(WEFT_MERGE_TIES); C(WEFT_MERGE_DARE); C(WEFT_MERGE_DARE_TIES);
    C(WEFT_MERGE_PRUNE); C(WEFT_MERGE_MIXER); C(WEFT_MERGE_NULL_SPACE);
    C(WEFT_MAJORITY_TOTAL); C(WEFT_MAJORITY_FREQUENCY);
    C(WEFT_MERGE_FACTORS); C(WEFT_MERGE_DOUBLE_SCALE); C(WEFT_MERGE_KOHYA); C(WEFT_MERGE_DIRECTION);
    C(WEFT_SOURCE_PARTIAL); C(WEFT_SOURCE_TEXT_WEIGHT); C(WEFT_SOURCE_FIXED); C(WEFT_LOCATED_MAPS); C(WEFT_LOCATED_MASKS);
    C(WEFT_FUSE_CONSTRAINED); C(WEFT_FUSE_GRADIENT); C(WEFT_FUSE_ROUTED); C(WEFT_FUSE_SKIP_PHOTO);
    C(WEFT_ALPHA_UNUSED); C(WEFT_ALPHA_TENSOR); C(WEFT_ALPHA_CONFIG); C(WEFT_ALPHA_METADATA);
    C(WEFT_ALPHA_OPTION); C(WEFT_ALPHA_UNSAID);
    C(WEFT_KEY_MATCHED); C(WEFT_KEY_UNMATCHED); C(WEFT_KEY_SHAPE_MISMATCH); C(WEFT_KEY_IGNORED);
    C(WEFT_PATH_AUTO); C(WEFT_PATH_SIDE); C(WEFT_PATH_MERGED);
    C(WEFT_MIXED_DELTA); C(WEFT_MIXED_INSIDE); C(WEFT_MIXED_STACK); C(WEFT_MIXED_DIRECTION);
    C(WEFT_TEXT_METHOD); C(WEFT_TEXT_ALL); C(WEFT_TEXT_FIRST); C(WEFT_TEXT_NONE);
    C(WEFT_ROLE_NONE); C(WEFT_ROLE_CONTENT); C(WEFT_ROLE_STYLE);
    C(WEFT_LOAD_ANY_MODEL); C(WEFT_LOAD_ANY_FILES); C(WEFT_LOAD_SEAL);
    C(WEFT_PHASE_AT); C(WEFT_CELL_NUMBER);
    C(WEFT_CURVE_HOLD); C(WEFT_CURVE_LINEAR); C(WEFT_CURVE_COSINE); C(WEFT_CURVE_AT_SHARE);
    C(WEFT_MASK_TEXT); C(WEFT_MASK_ADD); C(WEFT_CELL_VECTOR); C(WEFT_CELL_MASK);
    C(WEFT_REASON_NONE); C(WEFT_REASON_ASKED); C(WEFT_REASON_TEXT); C(WEFT_REASON_NORM);
    C(WEFT_REASON_CHEAP); C(WEFT_REASON_CALLS); C(WEFT_REASON_BRANCHES); C(WEFT_REASON_COLUMNS);
    C(WEFT_REASON_MASK); C(WEFT_REASON_WHOLE); C(WEFT_REASON_PRODUCTS); C(WEFT_REASON_DEPENDS);
    C(WEFT_ALIGN_NO_GROUP_NORM); C(WEFT_ALIGN_NO_ATTENTION); C(WEFT_ALIGN_NO_QUERIES); C(WEFT_ALIGN_NO_KEYS);
    C(WEFT_ALIGN_VALUES); C(WEFT_ALIGN_FULL); C(WEFT_ALIGN_SCALE); C(WEFT_ALIGN_OFF);
    C(WEFT_REGION_ADAPTER); C(WEFT_REGION_ISOLATED);
    C(WEFT_ADD_PARTIAL); C(WEFT_ADD_SHARE); C(WEFT_ADD_PEFT_DORA); C(WEFT_ADD_REPLACE);
    C(WEFT_SWITCH_OFFICIAL_OFFSET); C(WEFT_SWITCH_SHARES);
    C(WEFT_LORATORIO_BASE); C(WEFT_SUBBANDS_SHARPNESS);
    C(WEFT_COMPOSITE_DIVIDE_BY_COUNT); C(WEFT_COMPOSITE_NOCFG_LAST); C(WEFT_COMPOSITE_CACHED);
    C(WEFT_KLORA_S_STAR); C(WEFT_KLORA_S); C(WEFT_KLORA_CUSTOM); C(WEFT_KLORA_FIXED);
    C(WEFT_VERDICT_NONE); C(WEFT_VERDICT_FIRST_DROWNS); C(WEFT_VERDICT_SECOND_DROWNS);
    C(WEFT_VERDICT_AGAINST); C(WEFT_VERDICT_SAME); C(WEFT_VERDICT_SHARED);
    C(WEFT_KLORA_TOP_K); C(WEFT_KLORA_ENERGY);
    C(WEFT_KLORA_GAMMA_CODE); C(WEFT_KLORA_GAMMA_PAPER); C(WEFT_KLORA_GAMMA_NONE);
    C(WEFT_KLORA_BY_CALL); C(WEFT_KLORA_BY_STEP);
    C(WEFT_ZIP_LAMBDA); C(WEFT_ZIP_STYLE); C(WEFT_BLORA_SQUARED);
    C(WEFT_KLORA_WRAP); C(WEFT_KLORA_IGNORE_ALPHA); C(WEFT_KLORA_ATTENTION_ONLY); C(WEFT_KLORA_PAPER_BETA);
    C(WEFT_RUN_KEEP_TEXT); C(WEFT_RUN_UNCHECKED); C(WEFT_RUN_MEASURE); C(WEFT_RUN_TRACE);
    C(WEFT_RUN_FORGET_TEXT);
    C(WEFT_COSTS_GUIDED); C(WEFT_TRACE_SKIPPED); C(WEFT_TRACE_BASE); C(WEFT_TRACE_SIDE);
    C(WEFT_TRACE_MERGED); C(WEFT_TRACE_KEPT);
    C(WEFT_ENCODE_TRUNCATE); C(WEFT_ENCODE_ADAPTER); C(WEFT_ENCODE_WEIGHTS); C(WEFT_ENCODE_NO_MEAN);
    C(WEFT_ENCODE_FROM_EMPTY); C(WEFT_ENCODE_COMMA);
    C(WEFT_STEP_SPLIT_GUIDANCE); C(WEFT_STEP_TEXT_PER_BRANCH);
    C(WEFT_IMAGE_BASE); C(WEFT_IMAGE_PLUS); C(WEFT_IMAGE_FULL);
    C(WEFT_SAMPLER_DDIM); C(WEFT_SAMPLER_EULER); C(WEFT_SAMPLER_EULER_A); C(WEFT_SAMPLER_DPMPP_2M);
    C(WEFT_SAMPLER_PNDM); C(WEFT_SAMPLER_DDPM); C(WEFT_SAMPLER_HEUN); C(WEFT_SAMPLER_LCM); C(WEFT_SAMPLER_TCD);
    C(WEFT_SAMPLER_DPMPP_2M_SDE); C(WEFT_SAMPLER_DPMPP_3M); C(WEFT_SAMPLER_DPMPP_3M_SDE);
    C(WEFT_SAMPLER_DPMPP_SDE); C(WEFT_SAMPLER_DPMPP_2S); C(WEFT_SAMPLER_UNIPC); C(WEFT_SAMPLER_LMS);
    C(WEFT_SAMPLER_DPM2); C(WEFT_SAMPLER_DPM2_A); C(WEFT_SAMPLER_DEIS);
    C(WEFT_PREDICT_EPSILON); C(WEFT_PREDICT_V); C(WEFT_PREDICT_SAMPLE);
    C(WEFT_SPACING_DEFAULT); C(WEFT_SPACING_LEADING); C(WEFT_SPACING_LINSPACE); C(WEFT_SPACING_TRAILING);
    C(WEFT_BETAS_SCALED_LINEAR); C(WEFT_BETAS_LINEAR); C(WEFT_BETAS_SQUARED_COS); C(WEFT_BETAS_TRAINED);
    C(WEFT_BETAS_SIGMOID); C(WEFT_BETAS_LAPLACE); C(WEFT_BETAS_EXP);
    C(WEFT_SCHEDULE_DEFAULT); C(WEFT_SCHEDULE_KARRAS); C(WEFT_SCHEDULE_EXPONENTIAL); C(WEFT_SCHEDULE_BETA);
    C(WEFT_SCHEDULE_LU); C(WEFT_SCHEDULE_SGM_UNIFORM); C(WEFT_SCHEDULE_SIMPLE); C(WEFT_SCHEDULE_ALIGN);
    C(WEFT_SCHEDULE_ALIGN_SDXL);
    C(WEFT_SCHEDULE_BETA_STEPS); C(WEFT_SCHEDULE_NORMAL); C(WEFT_SCHEDULE_DDIM_UNIFORM); C(WEFT_SCHEDULE_KL_OPTIMAL);
    C(WEFT_FINAL_DEFAULT); C(WEFT_FINAL_ZERO); C(WEFT_FINAL_MIN);
    C(WEFT_INTERPOLATION_LINEAR); C(WEFT_INTERPOLATION_LOG_LINEAR);
    C(WEFT_ALGORITHM_DEFAULT); C(WEFT_ALGORITHM_DPMPP); C(WEFT_ALGORITHM_DPMPP_SDE); C(WEFT_ALGORITHM_DPM);
    C(WEFT_ALGORITHM_DPM_SDE);
    C(WEFT_SOLVER_DEFAULT); C(WEFT_SOLVER_MIDPOINT); C(WEFT_SOLVER_HEUN); C(WEFT_SOLVER_BH1); C(WEFT_SOLVER_BH2);
    C(WEFT_LAST_DEFAULT); C(WEFT_LAST_LOWER); C(WEFT_LAST_FULL);
    C(WEFT_VARIANCE_SMALL); C(WEFT_VARIANCE_LARGE);
    C(WEFT_NOISE_TORCH_CPU);
    C(WEFT_TRAIT_SIGMAS); C(WEFT_TRAIT_ETA); C(WEFT_TRAIT_DRAWS);
    C(WEFT_SAMPLER_KARRAS); C(WEFT_SAMPLER_ALPHA_TO_ONE); C(WEFT_SAMPLER_ZERO_SNR);
    C(WEFT_SAMPLER_EULER_LAST); C(WEFT_SAMPLER_OF_NOISE); C(WEFT_SAMPLER_CLIP); C(WEFT_SAMPLER_THRESHOLD);
    C(WEFT_SAMPLER_CLIPPED_NOISE);
    C(WEFT_SAMPLER_LOG_TIMESTEPS);
    C(WEFT_RECIPE_LORA); C(WEFT_RECIPE_DORA); C(WEFT_RECIPE_LOHA); C(WEFT_RECIPE_LOKR);
    C(WEFT_RECIPE_MOSLORA); C(WEFT_RECIPE_FULL); C(WEFT_RECIPE_TEXTUAL_INVERSION);
    C(WEFT_RECIPE_CUSTOM_DIFFUSION); C(WEFT_RECIPE_BLORA); C(WEFT_RECIPE_ED_LORA);
    C(WEFT_RECIPE_ZIPLORA);
    C(WEFT_TRAIN_TEXT); C(WEFT_TRAIN_CONV); C(WEFT_TRAIN_FEED); C(WEFT_TRAIN_RECOMPUTE);
    C(WEFT_TRAIN_FLIP); C(WEFT_TRAIN_RANDOM_CROP); C(WEFT_TRAIN_SMALL); C(WEFT_TRAIN_EXACT_NORM);
    C(WEFT_TRAIN_ZIP_CODE); C(WEFT_TRAIN_CROSS); C(WEFT_TRAIN_RESIZE); C(WEFT_TRAIN_BOTH);
    C(WEFT_OPTIMISER_ADAMW); C(WEFT_OPTIMISER_SGD);
    C(WEFT_RATES_CONSTANT); C(WEFT_RATES_COSINE); C(WEFT_RATES_LINEAR);
    C(WEFT_PICTURE_INSTANCE); C(WEFT_PICTURE_CLASS);
}

/* Bytes that a caller's struct must have: never changes after a release. */
#define FIRST(type, init, last) printf("first %s %d\n", #type, WF_FIRST_##type);
static void first_releases(void)
{
    WF_STRUCTS(FIRST)
}

int main(void)
{
    first_releases();
    structs();
    constants();
    return 0;
}
